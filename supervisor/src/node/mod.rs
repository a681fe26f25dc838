//! The loop: waits for the site, for units, for time; has leases converge; says how it stands.
//!
//! ```text
//!  uplink event ─┐                       ┌─► accepted spec kept (fsync) ─► pass due
//!  unit changed ─┤                       │
//!  retry, 10 s  ─┼─► one loop, no waits ─┼─► job: open the domain, run a pass, read the hardware
//!  job done     ─┤                       │
//!  log request  ─┘                       └─► report on change, at least every 10 s; watchdog
//! ```
//!
//! What may take long runs as a job beside the loop, one of a kind at a time. A pass that is older than
//! [`PASS_DEADLINE`] is no progress: the watchdog is told nothing more and systemd starts the supervisor
//! again, which finds the tenants as they are.

pub mod acceptance;
pub mod ask;
mod job;
pub mod milestones;
pub mod report;
mod spec;
pub mod state;
mod whole;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bulkhead_api::chain::Chain;
use bulkhead_api::id::LeaseId;
use bulkhead_api::status::HostStatus;
use bulkhead_api::time::Timestamp;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

use self::ask::Ask;
use self::job::Done;
use self::milestones::{Milestones, millis};
use self::report::{Moment, report, same};
use self::state::{Domain, Home, Link, State, Trouble};
use self::whole::Whole;
use crate::events::{self, Events, News};
use crate::gpu::nvml::Nvml;
use crate::host::load;
use crate::host::service::Service;
use crate::paths::Paths;
use crate::tenant::converge::Change;
use crate::tenant::{SiteAccess, Tenants};
use crate::uplink;

/// From one look to the next where nothing asks for one, and from one report to the next.
const LOOK: Duration = Duration::from_secs(10);
/// From one reading of the hardware to the next.
const HARDWARE: Duration = Duration::from_secs(60);
/// For so long after the kernel's start drivers are still being loaded, and hardware is read at every look.
const YOUNG: Duration = Duration::from_secs(120);
/// Hardware that is being read for longer than this hangs.
const HARDWARE_PATIENCE: Duration = Duration::from_secs(30);
/// From one isolation statement to the next where nothing changes.
const STATEMENT: Duration = Duration::from_secs(30);
/// The same while the last one told a violation.
const STATEMENT_AGAIN: Duration = Duration::from_secs(5);
/// A host that does not settle is stated as it is after this time.
const STATEMENT_LATEST: Duration = Duration::from_secs(60);
/// From the end of one pass to the next at the earliest: changes that come together are looked at once.
const SETTLE: Duration = Duration::from_millis(200);
/// A pass that takes longer is stuck.
pub const PASS_DEADLINE: Duration = Duration::from_secs(300);

/// Why the loop ended.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A job panicked: its state is not to be trusted, systemd starts the supervisor again.
    #[error("a job of the node loop broke")]
    Job(#[from] tokio::task::JoinError),
}

/// The loop's ends towards the rest of the supervisor.
#[derive(Debug)]
pub struct Ends {
    /// From the uplink.
    pub uplink: mpsc::Receiver<uplink::Event>,
    /// To the uplink: leases to whose tenants the machine is to be handed over.
    pub hand_overs: mpsc::Sender<LeaseId>,
    /// From this host's own people.
    pub asks: mpsc::Receiver<Ask>,
    /// To everybody.
    pub status: watch::Sender<Arc<HostStatus>>,
    /// To everybody.
    pub events: Events,
    /// The kernel told of a change of the hardware.
    pub hardware: Arc<Notify>,
}

/// Where the tenants' domain is.
enum Seat {
    Absent,
    Idle(Box<Tenants>),
    /// In a job since.
    Busy(Instant),
}

/// The node.
pub struct Node {
    paths: Paths,
    nvml: Arc<Nvml>,
    service: Service,
    ends: Ends,
    state: State,
    milestones: Milestones,
    access: Option<SiteAccess>,
    whole: Whole,
    seat: Seat,
    jobs: JoinSet<Done>,
    /// Questions that wait for the end of a pass.
    asked: VecDeque<Ask>,
    /// Resolves when a pass should look at something; absent once it did, until the next pass is over.
    changed: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// The domain was opened and passed over, or cannot be opened: the first observation is complete.
    observed: bool,
    ready: bool,
    pass_due: Instant,
    last_pass: Option<Instant>,
    /// When leases were last looked at for what they share.
    proved: Option<Instant>,
    /// Something was changed on the host since.
    proof_stale: bool,
    /// The hardware was read at least once, or hangs: then there is nothing to place new leases on, and those
    /// that are there are looked after.
    hardware_known: bool,
    /// The hardware is being read since.
    hardware_since: Option<Instant>,
    hardware_due: Option<Instant>,
    /// It changed while it was being read.
    hardware_again: bool,
    said: Instant,
    seq: u64,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("state", &self.state).finish_non_exhaustive()
    }
}

/// From one reading of the hardware to the next, by the time since the kernel started.
fn next_reading(age: Duration) -> Duration {
    if age < YOUNG { LOOK } else { HARDWARE }
}

impl Node {
    /// A node that knows what the files of this boot say and has not looked at the machine yet.
    #[must_use]
    pub fn new(paths: Paths, home: Home, service: Service, ends: Ends) -> Self {
        let now = Instant::now();
        let mut node = Self {
            state: State { home, ..spec::start(&paths) },
            milestones: Milestones::load(&paths),
            access: None,
            whole: Whole::open(&paths),
            nvml: Arc::new(Nvml::new(&paths.nvml)),
            seat: Seat::Absent,
            jobs: JoinSet::new(),
            asked: VecDeque::new(),
            changed: None,
            observed: false,
            ready: false,
            pass_due: now,
            last_pass: None,
            proved: None,
            proof_stale: true,
            hardware_known: false,
            hardware_since: None,
            hardware_due: Some(now),
            hardware_again: false,
            said: now,
            // Reports are ordered by number within a boot. Counting from the age of the boot in milliseconds
            // keeps the order over restarts of the supervisor, without a file.
            seq: millis(load::since_kernel_start()),
            paths,
            service,
            ends,
        };
        node.remember();
        node
    }

    /// Runs until the supervisor ends.
    ///
    /// # Errors
    /// [`NodeError::Job`].
    pub async fn run(mut self) -> Result<(), NodeError> {
        loop {
            self.start_jobs();
            self.say();
            if self.progresses() {
                self.service.alive();
            }
            let wake = self.wake();
            tokio::select! {
                event = self.ends.uplink.recv() => match event {
                    Some(event) => self.heard(event),
                    None => return Ok(()),
                },
                Some(done) = self.jobs.join_next() => self.done(done?),
                Some(ask) = self.ends.asks.recv() => self.asked.push_back(ask),
                () = self.ends.hardware.notified() => self.hardware_changed(),
                () = resolved(&mut self.changed) => {
                    self.changed = None;
                    self.pass_due = Instant::now();
                }
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
    }

    /// When the loop turns at the latest.
    fn wake(&self) -> Instant {
        let alive = self.service.alive_interval().unwrap_or(LOOK);
        let mut wake = Instant::now() + LOOK.min(alive);
        if self.observed {
            wake = wake.min(self.said + LOOK);
        }
        // A host whose state cannot be used has no passes: waiting for one would be a loop without rest.
        let passes = !matches!(self.state.home, Home::Closed(_));
        if passes && self.hardware_known && matches!(self.seat, Seat::Idle(_) | Seat::Absent) {
            wake = wake.min(self.pass_at());
        }
        let hardware = self.hardware_due.map_or(wake, |due| wake.min(due));
        self.whole.due.map_or(hardware, |due| hardware.min(due))
    }

    fn pass_at(&self) -> Instant {
        let settled = self.last_pass.map_or(self.pass_due, |last| last + SETTLE);
        self.pass_due.max(settled)
    }

    fn progresses(&self) -> bool {
        !matches!(self.seat, Seat::Busy(since) if since.elapsed() > PASS_DEADLINE)
    }

    /// A device that comes or goes tells it several times: it is read once, a moment later.
    fn hardware_changed(&mut self) {
        let soon = Instant::now() + SETTLE;
        if let Some(due) = &mut self.hardware_due {
            *due = soon.min(*due);
        } else {
            // It is being read, perhaps from before the change.
            self.hardware_again = true;
        }
        self.pass_due = self.pass_due.min(soon);
    }

    fn heard(&mut self, event: uplink::Event) {
        match event {
            uplink::Event::Enrolled(identity) => self.enrolled(&identity),
            uplink::Event::Connected => {
                self.state.link = Link::Up;
                if let (Some(host), Some(site)) = (&self.state.host, &self.state.site) {
                    info!(%host, %site, "joined");
                    let line = format!("joined as {host} at site {site}");
                    self.milestones.joined(&self.paths, &line);
                }
            }
            uplink::Event::Lost { label, message, owner, next } => {
                let trouble = Trouble { reason: label, message, owner, next: Some(next) };
                self.state.link = Link::Down(trouble);
                self.whole.metal.unlinked();
            }
            uplink::Event::NotRenewed { label, message, owner, next } => {
                let trouble = Trouble { reason: label, message, owner, next: Some(next) };
                self.state.not_renewed = Some(trouble);
            }
            uplink::Event::Spec(json) => self.offered(&json),
            uplink::Event::HandOver(answer) => {
                self.whole.metal.answered(answer, Timestamp::now());
            }
        }
    }

    /// Reports what changed at once, and that nothing did after a while.
    fn say(&mut self) {
        if !self.observed {
            return;
        }
        if !self.ready {
            self.ready = true;
            self.milestones.ready(&self.paths);
            self.state.userspace_start_ms = self.milestones.userspace_start_ms;
            self.service.ready();
            info!("ready");
        }
        let now = Timestamp::now();
        let supervisor_rss = load::resident(&self.paths.root);
        let moment = Moment { now, seq: self.seq.saturating_add(1), supervisor_rss };
        let before = self.ends.status.borrow().clone();
        let after = report(&self.state, moment, &before.conditions);
        if same(&before, &after) && self.said.elapsed() < LOOK {
            return;
        }
        for news in events::between(&before, &after) {
            self.ends.events.push(now, news);
        }
        self.seq = moment.seq;
        self.said = Instant::now();
        self.ends.status.send_replace(Arc::new(after));
    }

    fn changes(&self, changes: Vec<Change>) {
        for Change { lease, what, drift } in changes {
            info!(change = what, "host changed");
            let news = match drift {
                // The pass before this one saw it last, and set it right if it was not.
                Some(found) => {
                    let before = self.state.pass.leases.iter().find(|seen| seen.id == lease);
                    let right = before.and_then(|seen| seen.status.observed);
                    events::drift(&lease, &[found], right)
                }
                None => News { what: "Change", object: format!("lease {lease}"), detail: what },
            };
            self.ends.events.push(Timestamp::now(), news);
        }
    }

    fn closed(&mut self, error: &(dyn std::error::Error + 'static), reason: &'static str) {
        let message = Chain(error).to_string();
        let next = Timestamp::now().saturating_add(LOOK).ok();
        warn!(reason, error = message, "tenants out of reach");
        self.state.domain = Domain::Closed(Trouble { reason, message, owner: "supervisor", next });
    }
}

/// Resolves with the future; never where there is none.
async fn resolved(future: &mut Option<Pin<Box<dyn Future<Output = ()> + Send>>>) {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// The status before the first look. It names no host, so that it is not sent anywhere.
#[must_use]
pub fn starting(paths: &Paths) -> HostStatus {
    let moment = Moment { now: Timestamp::now(), seq: 0, supervisor_rss: 0 };
    report(&spec::start(paths), moment, &[])
}
