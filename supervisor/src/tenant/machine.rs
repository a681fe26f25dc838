//! The real host: looks at units, control groups, files and mounts, and does one step at a time.
//!
//! A step is done when its effect was seen. What takes longer than a moment (a program that ends slowly, a
//! download) is [`Outcome::Pending`]: the step is planned again by the next pass and looks again.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_api::id::LeaseId;
use bulkhead_api::lease::{CpuPartition, RestartPolicy};
use bulkhead_api::resource::{Quarantined, ResourceClass};
use tokio::time::{Instant, sleep};
use tracing::warn;

use crate::class::hugepages::limit;
use crate::class::{Classes, partition};
use crate::files::read_if_there;
use crate::host::systemd::{Systemd, SystemdError};
use crate::ledger::{self, Entry, Ledger, LedgerError};
use crate::oci::manifest::Limits as ImageLimits;
use crate::oci::pull::Order;
use crate::paths::Paths;
use crate::receipts::Receipts;
use crate::tenant::beside::Beside;
use crate::tenant::converge::{LeaseHost, Outcome};
use crate::tenant::error::StepError;
use crate::tenant::fetch::Fetches;
use crate::tenant::files::{self, LeaseDir};
use crate::tenant::look::Looks;
use crate::tenant::model::{Limits, Observed, ObservedLease, ServiceState, Step};
use crate::tenant::name::{self, Kind};
use crate::tenant::observe;
use crate::tenant::{SiteAccess, bundle, cgroup, log, units, vm};

/// How long the steps between two looks wait for their effects, all together, before they are left to the
/// next pass: a hundred programs that end slowly must not make a pass of minutes.
const MOMENT: Duration = Duration::from_millis(1500);

/// The host.
#[derive(Debug)]
pub struct Machine {
    /// Where everything is.
    pub paths: Paths,
    /// Its init.
    pub systemd: Systemd,
    /// What is held, as stored.
    pub ledger: Ledger,
    /// Where images come from; absent before the host has an identity.
    pub access: Option<SiteAccess>,
    /// Images under way.
    pub fetches: Fetches,
    /// Resources that are being given and erased.
    pub beside: Beside,
    /// How resources are looked at.
    pub looks: Looks,
    /// What leases were found to share: see [`Observed::shared`].
    pub shared: Option<String>,
    /// How each class of resources is given and sanitised.
    pub classes: Classes,
    /// Where receipts go.
    pub receipts: Arc<Receipts>,
    /// Counts the host's boots up.
    pub boot: u64,
    /// Classes of which the site accepts a weaker erase.
    pub weaker: BTreeSet<ResourceClass>,
    /// Resources in quarantine that are to be erased again in this pass.
    pub again: Vec<Quarantined>,
    /// Until when steps wait for programs that start or end.
    pub(super) patience: Instant,
}

impl LeaseHost for Machine {
    type ObserveError = SystemdError;

    fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    async fn observe(&mut self) -> Result<Observed, SystemdError> {
        self.fetches.reap();
        self.reap();
        self.patience = Instant::now() + MOMENT;
        let rows = self.systemd.units(&name::PATTERNS).await?;
        let (shared, again) = (self.shared.clone(), std::mem::take(&mut self.again));
        let (mut resources, unlisted) = self.resources().await;
        let mut observed = Observed { shared, again, unlisted, ..Observed::default() };
        let mut ids: BTreeSet<LeaseId> =
            rows.iter().filter_map(|row| Some(name::lease(&row.name)?.0)).collect();
        ids.extend(self.fetches.running().cloned());
        ids.extend(self.ledger.entries.iter().map(|entry| entry.id.clone()));
        ids.extend(observe::groups(&self.paths.root));
        ids.extend(resources.keys().cloned());
        match files::found(&self.paths) {
            Ok(found) => ids.extend(found),
            // Their leases are in the ledger as well, where reading them again says what is wrong.
            Err(error) => warn!(%error, path = %self.paths.leases().display(), "list leases"),
        }
        let mountinfo = self.paths.root.join("proc/self/mountinfo");
        let mountinfo = read_if_there(&mountinfo).map(Option::unwrap_or_default);
        for id in ids {
            match observe::lease(&self.paths, &self.systemd, &rows, &mountinfo, &id).await {
                Ok(seen) => {
                    let resources = resources.remove(&id).unwrap_or_default();
                    let fetching = self.fetches.is_running(&id);
                    let pinned = self.pinned(&id, &seen);
                    let mut seen = ObservedLease { fetching, resources, pinned, ..seen };
                    if let (Some(entry), Some(slice)) = (self.ledger.entry(&id), &mut seen.slice) {
                        let held = entry.holding.hugepages.as_ref();
                        let drift = limit::drift(&self.paths.root, &id, held);
                        slice.hugepages = drift.unwrap_or_else(|e| Some(e.to_string()));
                    }
                    if !seen.is_gone() {
                        observed.leases.insert(id, seen);
                    }
                }
                Err(StepError::Systemd(error)) if error.is_disconnected() => return Err(error),
                Err(error) => {
                    observed.unreadable.insert(id, bulkhead_api::chain::Chain(&error).to_string());
                }
            }
        }
        Ok(observed)
    }

    async fn apply(&mut self, step: &Step) -> Result<Outcome, StepError> {
        match step {
            Step::CancelFetch(id) => {
                self.fetches.cancel(id);
                self.fetches.reap();
                Ok(Outcome::done_if(!self.fetches.is_running(id)))
            }
            Step::StopService(id) => self.stop_service(id).await,
            Step::RemoveSlice(id) => self.remove_slice(id).await,
            Step::Unmount(id) => self.unmount(id),
            Step::RemoveFiles(id) => self.remove_files(id).await,
            Step::Forget(id) => {
                let mut next = self.ledger.clone();
                next.forget(id);
                self.store(next)
            }
            Step::Release(id) => {
                let mut next = self.ledger.clone();
                next.release(id);
                self.store(next)
            }
            Step::Attach { id, resource, .. } => self.attach(id, resource).await,
            Step::Sanitise { id, resource } => self.sanitise(id, resource).await,
            Step::PinVcpus(id) => self.pin(id),
            Step::Record(entry) => {
                let mut next = self.ledger.clone();
                next.record((**entry).clone());
                self.store(next)
            }
            Step::Fetch { id, image } => self.fetch(id, image),
            Step::Bundle(entry) => self.write_bundle(entry),
            Step::SetSlice { id, limits, .. } => self.set_slice(id, limits).await,
            Step::StartService { id, restart } => self.start_service(id, *restart).await,
        }
    }
}

impl Machine {
    /// A host that is not attached yet.
    #[must_use]
    pub fn new(
        paths: Paths,
        systemd: Systemd,
        ledger: Ledger,
        fetches: Fetches,
        classes: Classes,
    ) -> Self {
        Self {
            receipts: Arc::new(Receipts::new(&paths)),
            beside: Beside::new(systemd.wakeups()),
            looks: Looks::default(),
            classes,
            boot: 0,
            weaker: BTreeSet::new(),
            again: Vec::new(),
            paths,
            systemd,
            ledger,
            access: None,
            fetches,
            shared: None,
            patience: Instant::now(),
        }
    }

    /// Bounds the console log of a lease. A failure costs its own lease memory and is only logged.
    pub fn bound_log(&self, id: &LeaseId) {
        let path = LeaseDir::new(&self.paths, id).log();
        if let Err(error) = log::bound(&path) {
            warn!(lease = %id, %error, "bound console log");
        }
    }

    pub(super) fn dir(&self, id: &LeaseId) -> LeaseDir {
        LeaseDir::new(&self.paths, id)
    }

    fn group(&self, id: &LeaseId) -> PathBuf {
        cgroup::tenants(&self.paths.root).join(name::unit(id, Kind::Slice))
    }

    pub(super) fn store(&mut self, next: Ledger) -> Result<Outcome, StepError> {
        let stored: Result<(), LedgerError> = ledger::store(&self.paths.ledger(), &next);
        stored.map_err(StepError::Ledger)?;
        self.ledger = next;
        Ok(Outcome::Done)
    }

    async fn service_state(&self, id: &LeaseId) -> Result<Option<ServiceState>, StepError> {
        let unit = name::unit(id, Kind::Service);
        let rows = self.systemd.units(&[&unit]).await?;
        Ok(rows.first().map(observe::state))
    }

    /// Waits a moment for the service to be in such a state; `None` when it is not in time.
    async fn await_service(
        &self,
        id: &LeaseId,
        wanted: impl Fn(Option<ServiceState>) -> bool,
    ) -> Result<Option<Option<ServiceState>>, StepError> {
        loop {
            let state = self.service_state(id).await?;
            if wanted(state) {
                return Ok(Some(state));
            }
            if Instant::now() >= self.patience {
                return Ok(None);
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn stop_service(&self, id: &LeaseId) -> Result<Outcome, StepError> {
        let unit = name::unit(id, Kind::Service);
        if self.service_state(id).await? != Some(ServiceState::Stopping) {
            self.systemd.stop(&unit).await?;
        }
        let still =
            |state| matches!(state, None | Some(ServiceState::Stopped | ServiceState::Failed));
        match self.await_service(id, still).await? {
            None => Ok(Outcome::Pending),
            Some(Some(ServiceState::Failed)) => {
                self.systemd.reset_failed(&unit).await?;
                Ok(Outcome::Done)
            }
            Some(_) => Ok(Outcome::Done),
        }
    }

    async fn remove_slice(&self, id: &LeaseId) -> Result<Outcome, StepError> {
        let (unit, group) = (name::unit(id, Kind::Slice), self.group(id));
        if cgroup::populated(&group)? == Some(true) {
            // The service is gone: whoever is left here was put here by nobody that may.
            self.systemd.kill(&unit, libc::SIGKILL).await?;
        }
        self.systemd.stop(&unit).await?;
        loop {
            let rows = self.systemd.units(&[&unit]).await?;
            let active = rows.iter().any(|row| row.active != "inactive");
            if !active && cgroup::populated(&group)?.is_none() {
                return Ok(Outcome::Done);
            }
            if !active {
                // systemd does not know it: an empty group that an earlier one left behind.
                observe::remove_group(&group)?;
            }
            if Instant::now() >= self.patience {
                return Ok(Outcome::Pending);
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn unmount(&self, id: &LeaseId) -> Result<Outcome, StepError> {
        let mountinfo = self.paths.root.join("proc/self/mountinfo");
        let text = read_if_there(&mountinfo).map_err(|source| StepError::Files {
            doing: "read",
            path: mountinfo,
            source,
        })?;
        for point in self.dir(id).mounts(&text.unwrap_or_default()) {
            nix::mount::umount2(&point, nix::mount::MntFlags::UMOUNT_NOFOLLOW).map_err(
                |errno| StepError::Files {
                    doing: "unmount",
                    path: point.clone(),
                    source: errno.into(),
                },
            )?;
        }
        Ok(Outcome::Done)
    }

    async fn remove_files(&self, id: &LeaseId) -> Result<Outcome, StepError> {
        if self.fetches.is_running(id) {
            return Ok(Outcome::Pending);
        }
        let dir = self.dir(id);
        let path = dir.path().to_owned();
        let removed = tokio::task::spawn_blocking(move || dir.remove()).await;
        let source = match removed {
            Ok(Ok(())) => return Ok(Outcome::Done),
            Ok(Err(error)) => error,
            Err(error) => std::io::Error::other(error),
        };
        Err(StepError::Files { doing: "remove", path, source })
    }

    fn fetch(&mut self, id: &LeaseId, image: &str) -> Result<Outcome, StepError> {
        self.fetches.reap();
        if self.fetches.is_running(id) {
            return Ok(Outcome::Pending);
        }
        if let Some(error) = self.fetches.take_failure(id) {
            return Err(StepError::Pull(error));
        }
        let dir = self.dir(id);
        let files =
            |source| StepError::Files { doing: "prepare", path: dir.path().to_owned(), source };
        if dir.image().map_err(files)?.is_some() {
            return Ok(Outcome::Done);
        }
        dir.begin().map_err(files)?;
        let access = self.access.clone().ok_or(StepError::NoSite)?;
        let entry = self.ledger.entry(id).ok_or_else(|| StepError::NotRecorded(id.clone()))?;
        let order = Order {
            reference: image.parse().map_err(StepError::Reference)?,
            access,
            dir: dir.path().to_owned(),
            base: bundle::first_id(&entry.holding)?,
            limits: ImageLimits::default(),
        };
        self.fetches.start(id, order);
        Ok(Outcome::Pending)
    }

    fn write_bundle(&self, entry: &Entry) -> Result<Outcome, StepError> {
        let dir = self.dir(&entry.id);
        let files =
            |source| StepError::Files { doing: "write", path: dir.path().to_owned(), source };
        let image = dir.image().map_err(files)?;
        let image = image.ok_or_else(|| files(std::io::ErrorKind::NotFound.into()))?;
        let config = bundle::make(&self.paths, &dir, entry, &image)?;
        let bytes = serde_json::to_vec(&config).map_err(bundle::BundleError::Form)?;
        dir.write_bundle(&bytes, entry).map_err(files)?;
        Ok(Outcome::Done)
    }

    async fn set_slice(&self, id: &LeaseId, limits: &Limits) -> Result<Outcome, StepError> {
        let (unit, group) = (name::unit(id, Kind::Slice), self.group(id));
        let rows = self.systemd.units(&[&unit]).await?;
        if rows.iter().any(|row| row.active == "active") {
            self.systemd.set_properties(&unit, &units::limits(limits)).await?;
        } else {
            self.systemd.start_transient(&unit, &units::slice(id, limits)).await?;
        }
        let others = Limits { partition: CpuPartition::Member, ..limits.clone() };
        let end = Instant::now() + MOMENT;
        loop {
            let found = cgroup::slice(&group)?.map(|slice| slice.limits).unwrap_or_default();
            let drift = Limits { partition: CpuPartition::Member, ..found.clone() }.drift(&others);
            if drift.is_empty() {
                if found.partition != limits.partition {
                    partition::set(&self.paths.root, id, limits.partition)?;
                }
                let entry =
                    self.ledger.entry(id).ok_or_else(|| StepError::NotRecorded(id.clone()))?;
                limit::set(&self.paths.root, id, entry.holding.hugepages.as_ref())?;
                return Ok(Outcome::Done);
            }
            if Instant::now() >= end {
                return Err(StepError::ReadBack { unit, drift: drift.join(", ") });
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn start_service(
        &self,
        id: &LeaseId,
        restart: RestartPolicy,
    ) -> Result<Outcome, StepError> {
        let dir = self.dir(id);
        let runtime = self.paths.run.join("crun");
        let entry = self.ledger.entry(id).ok_or_else(|| StepError::NotRecorded(id.clone()))?;
        let disks = vm::devices(&self.paths.root, entry)?;
        let devices = bundle::devices(&self.paths.root, entry)?;
        let properties = units::service(id, restart, &dir, &runtime, disks.as_deref(), &devices);
        self.systemd.start_transient(&name::unit(id, Kind::Service), &properties).await?;
        let up =
            |state| !matches!(state, None | Some(ServiceState::Starting | ServiceState::Stopped));
        let state = self.await_service(id, up).await?;
        Ok(Outcome::done_if(state.is_some()))
    }
}
