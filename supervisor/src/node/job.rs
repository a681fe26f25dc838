//! What runs beside the loop, and what its end means.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bulkhead_api::inventory::Inventory;
use bulkhead_api::resource::ResourceClass;
use bulkhead_api::time::Timestamp;

use super::ask::{self, Declined};
use super::state::{Domain, Home, Trouble};
use super::{
    HARDWARE_PATIENCE, LOOK, Node, SETTLE, STATEMENT, STATEMENT_AGAIN, STATEMENT_LATEST, Seat,
    next_reading,
};
use crate::class;
use crate::gpu::class::Gpus;
use crate::gpu::scrub::ByDriver;
use crate::host::systemd::{Systemd, SystemdError};
use crate::host::{inventory, load};
use crate::ledger::LedgerError;
use crate::metal;
use crate::proof::{self, Round, sentence};
use crate::storage::volume::Volumes;
use crate::tenant::{Pass, Tenants};

/// The end of a job.
pub(super) enum Done {
    /// The hardware was read.
    Hardware(Box<Inventory>),
    /// The domain was opened, or not.
    Opened(Result<Box<Tenants>, SystemdError>),
    /// A question of this host's own people was answered.
    Answered(Box<Tenants>),
    /// A pass is over; it was made for that generation. With what leases share, where that was looked at.
    Passed(Box<Tenants>, Pass, u64, Option<Round>),
    /// Something with the host as a whole is over.
    Whole(metal::work::Ended),
}

impl Node {
    pub(super) fn start_jobs(&mut self) {
        let now = Instant::now();
        if self.hardware_due.is_some_and(|due| due <= now) {
            self.hardware_due = None;
            self.hardware_since = Some(now);
            let (root, image) = (self.paths.root.clone(), self.state.inventory.image.clone());
            let nvml = Arc::clone(&self.nvml);
            // Device files may hang; a hanging one holds up this thread and nothing else.
            self.jobs.spawn_blocking(move || {
                Done::Hardware(Box::new(inventory::observe(&root, &nvml, &image)))
            });
        }
        let hangs = |since: Instant| now.saturating_duration_since(since) > HARDWARE_PATIENCE;
        self.state.hardware_hangs = self.hardware_since.is_some_and(hangs);
        if let Home::Closed(trouble) = &self.state.home {
            // A ledger that is there and cannot be read is not an empty one.
            self.state.domain = Domain::Closed(trouble.clone());
            self.observed = true;
            return;
        }
        self.hardware_known |= self.state.hardware_hangs;
        self.answer(now);
        self.turn_whole(now);
        // Without the first reading there is nothing to place leases on.
        if self.hardware_known && self.pass_at() <= now {
            self.seat = match std::mem::replace(&mut self.seat, Seat::Busy(now)) {
                Seat::Absent => self.open(now),
                Seat::Idle(tenants) => self.pass(tenants, now),
                busy @ Seat::Busy(_) => busy,
            };
        }
    }

    /// Questions are answered between two passes.
    fn answer(&mut self, now: Instant) {
        let Some(ask) = self.asked.pop_front() else { return };
        self.seat = match std::mem::replace(&mut self.seat, Seat::Busy(now)) {
            Seat::Idle(mut tenants) => {
                let inventory = self.state.inventory.clone();
                self.jobs.spawn(async move {
                    ask::answer(ask, &mut tenants, &inventory, Timestamp::now()).await;
                    Done::Answered(tenants)
                });
                Seat::Busy(now)
            }
            Seat::Absent => {
                let why = "systemd is out of reach: see condition Ready of bulkhead host status";
                ask.decline(Declined::NotNow(why.to_owned()));
                Seat::Absent
            }
            busy @ Seat::Busy(_) => {
                self.asked.push_front(ask);
                busy
            }
        };
    }

    fn open(&mut self, now: Instant) -> Seat {
        let (paths, boot) = (self.paths.clone(), self.state.boot);
        let nvml = Arc::clone(&self.nvml);
        self.jobs.spawn(async move {
            let volumes = Arc::new(Volumes::new(paths.clone()));
            let scrubber = Arc::new(ByDriver::new(paths.root.clone()));
            let gpus = Arc::new(Gpus::new(&paths, nvml, scrubber));
            let classes = class::of_host(&paths)
                .with(ResourceClass::Volume, volumes)
                .with(ResourceClass::Gpu, gpus);
            let systemd = Systemd::connect().await;
            let open = |systemd| Box::new(Tenants::open(paths, systemd, classes, boot));
            Done::Opened(systemd.map(open))
        });
        Seat::Busy(now)
    }

    fn pass(&mut self, mut tenants: Box<Tenants>, now: Instant) -> Seat {
        let wanted = self.state.accepted.as_ref().map(|accepted| accepted.spec.clone());
        let generation = self.state.generation();
        let (access, inventory) = (self.access.clone(), self.state.inventory.clone());
        self.pass_due = now + LOOK;
        let isolation = self.state.isolation.as_ref();
        let shared = isolation.filter(|round| !round.violations.is_empty());
        let shared = shared.map(|round| sentence(&round.violations));
        tenants.admit_unless(shared.clone().or_else(|| self.state.whole.bars.clone()));
        let age = self.proved.map(|proved| now.saturating_duration_since(proved));
        let due = if shared.is_some() { STATEMENT_AGAIN } else { STATEMENT };
        let due = self.proof_stale || age.is_none_or(|age| age >= due);
        let overdue = age.is_none_or(|age| age >= STATEMENT_LATEST);
        let (paths, boot) = (self.paths.clone(), self.state.boot);
        let time = self.state.clock(Timestamp::now()).judged();
        let moment = proof::Moment { boot, time, generation };
        self.jobs.spawn(async move {
            let now = Timestamp::now();
            let pass = tenants.converge(wanted.as_ref(), access.as_ref(), &inventory, now).await;
            // A container on its way up shows the host's own programs in the lease's control group. Nothing is
            // granted while this looks, so that what it sees is what the ledger says.
            let changed = !pass.changes.is_empty();
            let look = (due || changed) && (pass.settled || overdue);
            let claims = tenants.claims();
            let round = match look {
                true => {
                    let prove = move || proof::round(&paths, &inventory, &claims, moment);
                    tokio::task::spawn_blocking(prove).await.ok()
                }
                false => None,
            };
            Done::Passed(tenants, pass, generation, round)
        });
        Seat::Busy(now)
    }

    pub(super) fn done(&mut self, done: Done) {
        match done {
            Done::Hardware(inventory) => {
                self.state.inventory = *inventory;
                self.hardware_known = true;
                self.hardware_since = None;
                self.state.hardware_hangs = false;
                let again = std::mem::take(&mut self.hardware_again);
                let pause = if again { SETTLE } else { next_reading(load::since_kernel_start()) };
                self.hardware_due = Some(Instant::now() + pause);
            }
            Done::Opened(Ok(tenants)) => {
                self.whole.receipts = Some(tenants.receipts());
                self.changed = Some(Box::pin(tenants.changed()));
                self.seat = Seat::Idle(tenants);
            }
            Done::Opened(Err(error)) => {
                self.seat = Seat::Absent;
                self.pass_due = Instant::now() + LOOK;
                self.observed = true;
                self.closed(&error, "SystemdUnreachable");
            }
            Done::Answered(tenants) => {
                self.seat = Seat::Idle(tenants);
                self.pass_due = Instant::now();
            }
            Done::Whole(ended) => self.whole.metal.ended(ended, Timestamp::now()),
            Done::Passed(tenants, pass, generation, round) => {
                self.proof_stale |= !pass.changes.is_empty();
                if let Some(round) = round {
                    self.proved = Some(Instant::now());
                    self.proof_stale = false;
                    self.state.isolation = Some(round);
                }
                self.passed(tenants, pass, generation);
            }
        }
    }

    fn passed(&mut self, tenants: Box<Tenants>, mut pass: Pass, generation: u64) {
        self.state.domain = domain(tenants.ledger_problem(), &pass);
        self.whole.drained(&tenants, &pass, self.state.accepted.as_ref(), generation);
        if pass.settled && self.state.whole.lease.is_none() {
            self.state.settled_generation = generation;
        }
        if let Some(retry) = pass.retry {
            let wait = Duration::try_from(retry.duration_since(Timestamp::now()));
            self.pass_due = self.pass_due.min(Instant::now() + wait.unwrap_or_default().min(LOOK));
        }
        self.changes(std::mem::take(&mut pass.changes));
        self.state.pass = pass;
        self.last_pass = Some(Instant::now());
        // What changes while nobody waits is kept for the next who does.
        self.changed.get_or_insert_with(|| Box::pin(tenants.changed()));
        self.seat = Seat::Idle(tenants);
        self.observed = true;
    }
}

/// How the tenants' domain stands after a pass. One that saw nothing leaves the host as not ready.
fn domain(ledger: Option<&LedgerError>, pass: &Pass) -> Domain {
    match (ledger, &pass.unseen) {
        (Some(error), _) => Domain::Closed(Trouble {
            reason: error.label(),
            message: error.to_string(),
            owner: "operator",
            next: None,
        }),
        (None, Some(why)) => Domain::Closed(Trouble {
            reason: "SystemdUnreachable",
            message: why.clone(),
            owner: "supervisor",
            next: pass.retry,
        }),
        (None, None) => Domain::Open,
    }
}

#[cfg(test)]
#[path = "job_tests.rs"]
mod tests;
