//! What runs beside the loop, and what its end means.

use std::time::{Duration, Instant};

use bulkhead_api::inventory::Inventory;
use bulkhead_api::link::rpc::LogReply;
use bulkhead_api::time::Timestamp;

use super::state::{Domain, Trouble};
use super::{HARDWARE, LOOK, Node, Seat};
use crate::host::inventory;
use crate::host::systemd::{Systemd, SystemdError};
use crate::tenant::{Pass, Tenants};

/// The end of a job.
pub(super) enum Done {
    /// The hardware was read.
    Hardware(Box<Inventory>),
    /// The domain was opened, or not.
    Opened(Result<Box<Tenants>, SystemdError>),
    /// A log was read for the registry.
    Log(LogReply),
    /// A pass is over; it was made for that generation.
    Passed(Box<Tenants>, Pass, u64),
}

impl Node {
    pub(super) fn start_jobs(&mut self) {
        let now = Instant::now();
        if self.hardware_due.is_some_and(|due| due <= now) {
            self.hardware_due = None;
            let (root, image) = (self.paths.root.clone(), self.state.inventory.image.clone());
            // Device files may hang; a hanging one holds up this thread and nothing else.
            self.jobs.spawn_blocking(move || {
                Done::Hardware(Box::new(inventory::observe(&root, &image)))
            });
        }
        // Without the first reading there is nothing to place leases on.
        if self.hardware_known && self.pass_at() <= now {
            self.seat = match std::mem::replace(&mut self.seat, Seat::Busy(now)) {
                Seat::Absent => self.open(now),
                Seat::Idle(tenants) => self.pass(tenants, now),
                busy @ Seat::Busy(_) => busy,
            };
        }
    }

    fn open(&mut self, now: Instant) -> Seat {
        let paths = self.paths.clone();
        self.jobs.spawn(async move {
            let systemd = Systemd::connect().await;
            Done::Opened(systemd.map(|systemd| Box::new(Tenants::open(paths, systemd))))
        });
        Seat::Busy(now)
    }

    fn pass(&mut self, mut tenants: Box<Tenants>, now: Instant) -> Seat {
        let wanted = self.state.accepted.as_ref().map(|accepted| accepted.spec.clone());
        let generation = self.state.generation();
        let (access, inventory) = (self.access.clone(), self.state.inventory.clone());
        self.pass_due = now + LOOK;
        self.jobs.spawn(async move {
            let now = Timestamp::now();
            let pass = tenants.converge(wanted.as_ref(), access.as_ref(), &inventory, now).await;
            Done::Passed(tenants, pass, generation)
        });
        Seat::Busy(now)
    }

    pub(super) fn done(&mut self, done: Done) {
        match done {
            Done::Hardware(inventory) => {
                self.state.inventory = *inventory;
                self.hardware_known = true;
                self.hardware_due = Some(Instant::now() + HARDWARE);
            }
            Done::Opened(Ok(tenants)) => {
                self.changed = Some(Box::pin(tenants.changed()));
                self.seat = Seat::Idle(tenants);
            }
            Done::Opened(Err(error)) => {
                self.seat = Seat::Absent;
                self.pass_due = Instant::now() + LOOK;
                self.observed = true;
                self.closed(&error, "SystemdUnreachable");
            }
            Done::Log(reply) => {
                self.logs_underway = self.logs_underway.saturating_sub(1);
                self.reply(reply);
            }
            Done::Passed(tenants, pass, generation) => self.passed(tenants, pass, generation),
        }
    }

    fn passed(&mut self, tenants: Box<Tenants>, mut pass: Pass, generation: u64) {
        self.state.domain = match tenants.ledger_problem() {
            None => Domain::Open,
            Some(error) => Domain::Closed(Trouble {
                reason: error.label(),
                message: error.to_string(),
                owner: "operator",
                next: None,
            }),
        };
        if pass.settled {
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
