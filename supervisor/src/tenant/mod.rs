//! Tenants: leases from the host spec to running containers and back.
//!
//! ```text
//!  HostSpec ──► Desired ┐
//!  systemd, cgroupfs ──►├ plan ──► steps ──► machine ──► look again ──► Pass { leases, settled, retry }
//!  ledger ──────────────┘
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`model`], [`plan`] | what is wanted beside what is seen, and the steps between them. Pure |
//! | [`converge`] | look, plan, apply, look again; pauses after failures |
//! | [`machine`], `resources`, [`observe`] | the real host: one step, one look |
//! | [`name`], [`units`] | a lease's units: names and properties. Pure |
//! | [`bundle`], [`cdi`] | the container's configuration; what vendors' devices add to it |
//! | [`vm`] | virtual machines |
//! | [`cgroup`], [`files`], [`log`] | limits read back, a lease's directory, its console |
//! | [`fetch`] | downloads in the background |
//! | [`beside`], [`look`] | resources given, erased and looked at in threads that may hang |
//! | [`status`] | the report on a lease. Pure |
//! | [`repair`] | a new ledger in place of a damaged one |

mod asked;
pub mod beside;
pub mod bundle;
pub mod cdi;
pub mod cgroup;
pub mod converge;
pub mod error;
pub mod fetch;
pub mod files;
pub mod log;
pub mod look;
pub mod machine;
pub mod model;
pub mod name;
pub mod observe;
pub mod plan;
pub mod repair;
mod resources;
pub mod status;
pub mod units;
pub mod vm;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::future::Future;
use std::io::ErrorKind;
use std::sync::Arc;

use bulkhead_api::chain::Chain;
use bulkhead_api::id::{HostId, LeaseId};
use bulkhead_api::inventory::Inventory;
use bulkhead_api::lease::{Isolation, LeasePhase, LeaseStatus, ReportedLease};
use bulkhead_api::resource::Quarantined;
use bulkhead_api::spec::HostSpec;
use bulkhead_api::time::Timestamp;
use jiff::SignedDuration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tracing::{error, warn};

use crate::class::Classes;
use crate::host::systemd::{Systemd, SystemdError};
use crate::ledger::{self, Ledger, LedgerError};
use crate::paths::Paths;
use crate::receipts::Receipts;
use crate::tenant::converge::{Attempts, Change, Converged, LeaseHost as _};
use crate::tenant::fetch::Fetches;
use crate::tenant::files::LeaseDir;
use crate::tenant::machine::Machine;
use crate::tenant::model::{Deed, Desired, ObservedLease, ServiceState, Step, UnderWay};
use crate::tenant::status::Facts;

/// How images are pulled: the site's link, and who asks.
#[derive(Clone, PartialEq, Eq)]
pub struct SiteAccess {
    /// `address:port` of the site's link.
    pub link: String,
    /// Certificates that the site's must chain to, PEM.
    pub ca_pem: String,
    /// The host's certificate chain, leaf first, PEM.
    pub chain_pem: String,
    /// The host's PKCS#8 key, PEM.
    pub key_pem: String,
}

impl std::fmt::Debug for SiteAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SiteAccess").field("link", &self.link).finish_non_exhaustive()
    }
}

/// What one pass over the leases found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pass {
    /// Every lease that is wanted or observed; one that is not listed is gone.
    pub leases: Vec<ReportedLease>,
    /// Every wanted lease was read back as wanted and every other one observed gone.
    pub settled: bool,
    /// Run another pass at this time at the latest; [`Tenants::changed`] may ask for one before.
    pub retry: Option<Timestamp>,
    /// What was changed on the host in this pass.
    pub changes: Vec<Change>,
    /// Resources that nobody gets, with the reason.
    pub quarantine: Vec<Quarantined>,
    /// Why nothing could be seen; every lease is then listed as unknown.
    pub unseen: Option<String>,
}

/// Why a lease's console log cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// No such lease on this host, or it never started.
    #[error("lease {0} has no console log on this host")]
    Absent(LeaseId),
    /// The file system refuses.
    #[error("read the console log of lease {id}")]
    Read {
        /// Whose log.
        id: LeaseId,
        /// Why.
        source: std::io::Error,
    },
}

/// Something is under way: look again after this time even if nothing says that it ended.
const SOON: SignedDuration = SignedDuration::from_secs(1);

/// Nothing is under way: look again for limits that drifted and logs that grew.
const IDLE: SignedDuration = SignedDuration::from_secs(30);

/// From a resource's way into quarantine to the first try to get it out again.
const QUARANTINE_FIRST: SignedDuration = SignedDuration::from_mins(10);

/// From one such try to the next at the latest.
const QUARANTINE_LAST: SignedDuration = SignedDuration::from_hours(6);

/// All leases of the host, and the ledger that remembers them.
#[derive(Debug)]
pub struct Tenants {
    machine: Machine,
    /// An unusable ledger closes the domain: nothing is granted or taken back.
    problem: Option<LedgerError>,
    attempts: Attempts,
    /// When what is in quarantine is erased again, and how long after that the next time.
    quarantine_due: Option<(Timestamp, SignedDuration)>,
    /// The last report on each lease, for the times in its conditions.
    reported: BTreeMap<LeaseId, LeaseStatus>,
    listener: JoinSet<Result<Infallible, SystemdError>>,
    wake: Arc<Notify>,
}

impl Tenants {
    /// Reads the ledger. An unusable one is no failure here: see [`Tenants::ledger_problem`].
    #[must_use]
    pub fn open(paths: Paths, systemd: Systemd, classes: Classes, boot: u64) -> Self {
        let (ledger, problem) = match ledger::load(&paths.ledger()) {
            Ok(ledger) => (ledger, None),
            Err(problem) => {
                error!(error = %Chain(&problem), "ledger cannot be used: leases stay as they are");
                (Ledger::default(), Some(problem))
            }
        };
        let wake = systemd.wakeups();
        let fetches = Fetches::new(Arc::clone(&wake));
        let mut machine = Machine::new(paths, systemd, ledger, fetches, classes);
        machine.boot = boot;
        Self {
            machine,
            problem,
            attempts: Attempts::default(),
            quarantine_due: None,
            reported: BTreeMap::new(),
            listener: JoinSet::new(),
            wake,
        }
    }

    /// Why the ledger cannot be used; nothing is granted or taken back while it is so.
    #[must_use]
    pub fn ledger_problem(&self) -> Option<&LedgerError> {
        self.problem.as_ref()
    }

    /// The chain of receipts.
    #[must_use]
    pub fn receipts(&self) -> Arc<Receipts> {
        Arc::clone(&self.machine.receipts)
    }

    /// Names of the leases that were granted and are not yet observed gone.
    #[must_use]
    pub fn granted(&self) -> BTreeSet<LeaseId> {
        self.machine.ledger.entries.iter().map(|entry| entry.id.clone()).collect()
    }

    /// The same with what each is to have to itself: what the isolation proof holds against what it observes.
    #[must_use]
    pub fn claims(&self) -> BTreeMap<LeaseId, Isolation> {
        let entries = self.machine.ledger.entries.iter();
        entries.map(|entry| (entry.id.clone(), entry.spec.isolation)).collect()
    }

    /// Grants no new lease while `shared` says what leases share. Nothing is taken away for it.
    pub fn admit_unless(&mut self, shared: Option<String>) {
        self.machine.shared = shared;
    }

    /// One pass: look, plan, apply, look again. `wanted = None` (no spec yet since boot) changes nothing.
    ///
    /// Never waits for a download, for a resource that is given or erased slowly or for a tenant's program to end: those
    /// go on in the background and [`Tenants::changed`] tells when to run the next pass.
    pub async fn converge(
        &mut self,
        wanted: Option<&HostSpec>,
        site: Option<&SiteAccess>,
        inventory: &Inventory,
        now: Timestamp,
    ) -> Pass {
        self.listen().await;
        self.read_again();
        self.machine.access = site.cloned();
        self.machine.weaker = wanted.map(|spec| spec.weaker_erase.clone()).unwrap_or_default();
        let host = wanted.map(|spec| &spec.host);
        let desired = wanted.map(model::desired);
        let converged = match (&desired, &self.problem) {
            (Some(desired), None) => {
                self.quarantine_again(now);
                let attempts = &mut self.attempts;
                converge::converge(&mut self.machine, desired, inventory, attempts, now).await
            }
            _ => self.look(desired.as_ref(), inventory).await,
        };
        match converged {
            Ok(converged) => self.pass(converged, desired.as_ref(), host, now),
            Err(error) => {
                warn!(error = %Chain(&error), "systemd cannot be asked for leases");
                if error.is_disconnected()
                    && let Err(error) = self.machine.systemd.reconnect().await
                {
                    warn!(error = %Chain(&error), "connect to systemd again");
                }
                self.blind(&error, desired.as_ref(), host, now)
            }
        }
    }

    /// What could not be shown to be clean is erased again by itself, more and more seldom.
    fn quarantine_again(&mut self, now: Timestamp) {
        if self.machine.ledger.quarantine.is_empty() {
            self.quarantine_due = None;
            return;
        }
        let after = |pause: SignedDuration| now.checked_add(pause).unwrap_or(Timestamp::MAX);
        let (due, pause) =
            *self.quarantine_due.get_or_insert_with(|| (after(QUARANTINE_FIRST), QUARANTINE_FIRST));
        if due <= now {
            self.machine.again.clone_from(&self.machine.ledger.quarantine);
            let pause = pause.checked_mul(2).unwrap_or(QUARANTINE_LAST).min(QUARANTINE_LAST);
            self.quarantine_due = Some((after(pause), pause));
        }
    }

    /// A ledger that could not be read may be read by now. A damaged one is looked at by somebody first.
    fn read_again(&mut self) {
        if matches!(self.problem, Some(LedgerError::Read { .. })) {
            match ledger::load(&self.machine.paths.ledger()) {
                Ok(ledger) => (self.machine.ledger, self.problem) = (ledger, None),
                Err(problem) => self.problem = Some(problem),
            }
        }
    }

    /// Keeps one task that hears systemd's signals. Without it passes come by time alone.
    async fn listen(&mut self) {
        while let Some(ended) = self.listener.try_join_next() {
            match ended {
                Ok(Err(error)) => warn!(error = %Chain(&error), "signals of systemd"),
                Ok(Ok(never)) => match never {},
                Err(error) => warn!(%error, "signals of systemd"),
            }
        }
        if self.listener.is_empty() {
            self.listener.spawn(self.machine.systemd.clone().listen());
        }
    }

    /// Looks without changing anything. Without a spec, what the ledger holds is taken for wanted.
    async fn look(
        &mut self,
        desired: Option<&Desired>,
        inventory: &Inventory,
    ) -> Result<Converged, SystemdError> {
        let observed = self.machine.observe().await?;
        let ledger = self.machine.ledger();
        let held = ledger.entries.iter().map(|entry| (entry.id.clone(), entry.spec.clone()));
        let desired = desired.cloned().unwrap_or_else(|| held.collect());
        let mut plan = plan::plan(&desired, &observed, ledger, inventory);
        // Nobody said that they are not wanted.
        plan.revoked.clear();
        Ok(Converged { observed, plan, changes: Vec::new() })
    }

    fn pass(
        &mut self,
        converged: Converged,
        desired: Option<&Desired>,
        host: Option<&HostId>,
        now: Timestamp,
    ) -> Pass {
        let Converged { observed, plan, changes } = converged;
        let problem = self.problem.as_ref().map(|problem| (problem.label(), problem.to_string()));
        let closed = problem.as_ref().map(|(label, message)| (*label, message.as_str()));
        let nothing = ObservedLease::default();
        let under_way: Vec<UnderWay> = self.machine.beside.under_way().collect();
        let mut leases = Vec::new();
        for id in self.known(desired, observed.leases.keys().chain(observed.unreadable.keys())) {
            let facts = Facts {
                id: &id,
                host,
                seen: observed.leases.get(&id).unwrap_or(&nothing),
                entry: self.machine.ledger.entry(&id),
                revoked: plan.revoked.contains(&id),
                refusal: plan.refused.get(&id),
                failure: self.attempts.failures.get(&id),
                given_up: observed.given_up.get(&id),
                under_way: &under_way,
                blind: observed.unreadable.get(&id).map(|why| ("Unreadable", why.as_str())),
                closed,
            };
            leases.push(status::report(&facts, self.reported.get(&id), now));
            self.machine.bound_log(&id);
        }
        // A program counts as up once its process was seen in the lease's control group.
        let starting = |seen: &ObservedLease| match seen.service.map(|s| (s.state, s.pid)) {
            Some((ServiceState::Starting | ServiceState::Stopping, _)) => true,
            Some((ServiceState::Running, pid)) => pid.is_none(),
            _ => false,
        };
        let settled = desired.is_some()
            && self.problem.is_none()
            && plan.steps.is_empty()
            && plan.refused.is_empty()
            && observed.unreadable.is_empty()
            && !observed.leases.values().any(|seen| starting(seen) || seen.unseen().is_some());
        let retry = self.retry(&leases, &plan.steps, &under_way, now);
        self.remember(&leases);
        let quarantine = self.machine.ledger.quarantine.clone();
        Pass { leases, settled, retry, changes, quarantine, unseen: None }
    }

    /// The report when nothing could be seen: every lease that is known of, as unknown.
    fn blind(
        &mut self,
        error: &SystemdError,
        desired: Option<&Desired>,
        host: Option<&HostId>,
        now: Timestamp,
    ) -> Pass {
        let (why, nothing) = (Chain(error).to_string(), ObservedLease::default());
        let before: Vec<LeaseId> = self.reported.keys().cloned().collect();
        let mut leases = Vec::new();
        for id in self.known(desired, before.iter()) {
            let facts = Facts {
                id: &id,
                host,
                seen: &nothing,
                entry: None,
                revoked: false,
                refusal: None,
                failure: None,
                given_up: None,
                under_way: &[],
                blind: Some(("SystemdUnreachable", &why)),
                closed: None,
            };
            leases.push(status::report(&facts, self.reported.get(&id), now));
        }
        self.remember(&leases);
        let retry = now.checked_add(SOON).ok();
        let quarantine = self.machine.ledger.quarantine.clone();
        Pass { leases, retry, quarantine, unseen: Some(why), ..Pass::default() }
    }

    fn known<'a>(
        &'a self,
        desired: Option<&'a Desired>,
        seen: impl Iterator<Item = &'a LeaseId>,
    ) -> BTreeSet<LeaseId> {
        let recorded = self.machine.ledger.entries.iter().map(|entry| &entry.id);
        let wanted = desired.into_iter().flat_map(|desired| desired.keys());
        seen.chain(recorded).chain(wanted).cloned().collect()
    }

    fn remember(&mut self, leases: &[ReportedLease]) {
        let statuses = leases.iter().map(|lease| (lease.id.clone(), lease.status.clone()));
        self.reported = statuses.collect();
    }

    /// The earliest of: a pause that ends, a step that is under way, a look at what is idle.
    fn retry(
        &self,
        leases: &[ReportedLease],
        steps: &[Step],
        works: &[UnderWay],
        now: Timestamp,
    ) -> Option<Timestamp> {
        let Attempts { failures, given_up } = &self.attempts;
        let paused = |step: &Step| failures.get(step.id()).map(|failure| failure.next);
        // Erases that take long wake the loop when they end.
        let erases = works.iter().filter(|work| work.deed == Deed::Erase);
        let erasing: BTreeSet<&LeaseId> = erases.map(|work| &work.lease).collect();
        let hurries = |step: &Step| !matches!(step, Step::Sanitise { .. });
        let waits = |id: &LeaseId| {
            erasing.contains(id) && !steps.iter().any(|step| step.id() == id && hurries(step))
        };
        let under_way = |lease: &ReportedLease| {
            let moving = matches!(
                lease.status.phase,
                LeasePhase::Granting | LeasePhase::Releasing | LeasePhase::Unknown
            );
            moving && !failures.contains_key(&lease.id) && !waits(&lease.id)
        };
        let soon = leases.iter().any(under_way).then_some(SOON);
        let anew = given_up.values().map(|given_up| given_up.next).filter(|next| *next > now);
        let idle = (!leases.is_empty()).then_some(IDLE);
        let looks = soon.or(idle).and_then(|wait| now.checked_add(wait).ok());
        // A pause of no length at all would make a loop without rest.
        let pauses = steps.iter().filter_map(paused).map(|next| next.max(now));
        pauses.chain(looks).chain(anew).min()
    }

    /// Resolves when something changed that a pass should look at: a tenant's unit, a finished download.
    /// A change between two calls is not lost.
    pub fn changed(&self) -> impl Future<Output = ()> + use<> {
        let wake = Arc::clone(&self.wake);
        async move { wake.notified().await }
    }

    /// The last `lines` lines of a lease's console.
    ///
    /// # Errors
    /// [`LogError::Absent`], [`LogError::Read`].
    pub fn log(&self, id: &LeaseId, lines: u32) -> Result<Vec<u8>, LogError> {
        log(&self.machine.paths, id, lines)
    }
}

/// The last `lines` lines of a lease's console, also while a pass is under way.
///
/// # Errors
/// [`LogError::Absent`], [`LogError::Read`].
pub fn log(paths: &Paths, id: &LeaseId, lines: u32) -> Result<Vec<u8>, LogError> {
    log::tail(&LeaseDir::new(paths, id).log(), lines).map_err(|source| {
        if source.kind() == ErrorKind::NotFound {
            LogError::Absent(id.clone())
        } else {
            LogError::Read { id: id.clone(), source }
        }
    })
}

#[cfg(test)]
mod tests;
