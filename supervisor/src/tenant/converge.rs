//! `converge`: look, plan, apply, look again, until nothing is left that can be done now.
//!
//! Steps of one lease are done in order; where one is pending or failed, the lease's later steps wait for the
//! next pass, and the other leases' go on; a resource that cannot be sanitised holds up no other one. A failed
//! step is tried again after a pause that doubles; a pause in granting does not hold up taking back.
//!
//! A grant that keeps failing is given up ([`Attempts`]): all of it is taken back, so that others can have it, and it
//! is tried anew from its placement on after a pause that grows as well.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use bulkhead_api::chain::Chain;
use bulkhead_api::id::LeaseId;
use bulkhead_api::inventory::Inventory;
use bulkhead_api::time::Timestamp;
use jiff::SignedDuration;
use tracing::{info, warn};

use crate::ledger::Ledger;
use crate::tenant::error::StepError;
use crate::tenant::model::{Desired, GivenUp, Observed, Step};
use crate::tenant::plan::{Plan, plan};

/// Looks of one pass at most. A pass needs two for a release and a grant in its place.
const LOOKS: usize = 5;

const FIRST_PAUSE: SignedDuration = SignedDuration::from_secs(1);
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(2);

/// A grant that fails for so long is given up. Two failures that are far apart may be a clock that was set.
const GRANT_DEADLINE: SignedDuration = SignedDuration::from_mins(10);
/// Failures in a row that make the deadline count.
const GRANT_LEAST: u32 = 3;
/// Failures in a row after which a grant is given up whatever the clock says: their pauses are ten minutes together.
const GRANT_MOST: u32 = 12;

/// From giving up a grant to the first try anew; doubled each time.
const ANEW_FIRST: SignedDuration = SignedDuration::from_mins(5);
const ANEW_LAST: SignedDuration = SignedDuration::from_hours(1);

/// How a step went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Its effect was seen.
    Done,
    /// Under way: look again later.
    Pending,
}

impl Outcome {
    /// Done or pending.
    #[must_use]
    pub fn done_if(done: bool) -> Self {
        if done { Self::Done } else { Self::Pending }
    }
}

/// What a pass needs of a host. A test gives a simulated one that refuses unsafe steps.
pub(super) trait LeaseHost {
    /// Nothing could be seen at all.
    type ObserveError;

    /// What is recorded, as stored.
    fn ledger(&self) -> &Ledger;

    /// What there is.
    async fn observe(&mut self) -> Result<Observed, Self::ObserveError>;

    /// Does one step, or sees that it is done.
    async fn apply(&mut self, step: &Step) -> Result<Outcome, StepError>;
}

/// A step that failed, and when it is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What was being done.
    pub step: String,
    /// One word.
    pub label: &'static str,
    /// A sentence with its causes.
    pub message: String,
    /// Who can help.
    pub owner: &'static str,
    /// How often in a row.
    pub count: u32,
    /// The first time of these.
    pub since: Timestamp,
    /// When it is tried again.
    pub next: Timestamp,
    /// While taking back, not while granting.
    pub revoking: bool,
}

/// Failures that are not over, by lease.
pub type Failures = BTreeMap<LeaseId, Failure>;

/// What is remembered of steps that failed. Not over a restart of the supervisor: it tries all of them at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attempts {
    /// Failures that are not over.
    pub failures: Failures,
    /// Grants that were given up, until the lease is granted or not wanted any more.
    pub given_up: BTreeMap<LeaseId, GivenUp>,
}

impl Attempts {
    /// Grants that are not to be tried now.
    fn barred(&self, now: Timestamp) -> BTreeMap<LeaseId, GivenUp> {
        // A pause that is longer than any was noted by a clock that was ahead.
        let longest = later(now, ANEW_LAST);
        let waits = self.given_up.iter().filter(|(_, g)| g.next > now && g.next <= longest);
        waits.map(|(id, given_up)| (id.clone(), given_up.clone())).collect()
    }

    /// Gives up grants that failed just now, as they did for too long; whether there was one. A lease whose program was started is granted:
    /// what fails then is no reason to destroy what the tenant has.
    fn give_up(
        &mut self,
        failed: &BTreeSet<LeaseId>,
        observed: &Observed,
        ledger: &Ledger,
        now: Timestamp,
    ) -> bool {
        let mut any = false;
        for (id, failure) in self.failures.iter().filter(|(id, _)| failed.contains(*id)) {
            let Some(entry) = ledger.entry(id).filter(|entry| !entry.releasing) else { continue };
            let seen = observed.leases.get(id);
            let granted = seen.is_some_and(|seen| seen.started || seen.service.is_some());
            if failure.revoking || granted || !failure.is_hopeless(now) {
                continue;
            }
            let rounds = self.given_up.get(id).map_or(1, |before| before.rounds.saturating_add(1));
            let doubled = ANEW_FIRST.checked_mul(1 << rounds.saturating_sub(1).min(8));
            let pause = doubled.unwrap_or(ANEW_LAST).min(ANEW_LAST);
            let Failure { step, message, owner, count, .. } = failure.clone();
            let (spec, next) = (entry.spec.clone(), later(now, pause));
            warn!(lease = %id, step, reason = message, "grant given up: taken back whole");
            let given_up = GivenUp { spec, step, message, owner, count, rounds, next };
            self.given_up.insert(id.clone(), given_up);
            any = true;
        }
        let given_up = &self.given_up;
        self.failures.retain(|id, failure| {
            failure.revoking || given_up.get(id).is_none_or(|given_up| given_up.next <= now)
        });
        any
    }

    /// A lease without a step left is past its failure; one that is granted or not wanted, past all of them.
    fn forget_overcome(&mut self, plan: &Plan, desired: &Desired) {
        let pending: BTreeSet<&LeaseId> = plan.steps.iter().map(Step::id).collect();
        // What failed while it was granted does not matter to one that is being taken back.
        self.failures.retain(|id, failure| {
            pending.contains(id) && failure.revoking == plan.revoked.contains(id)
        });
        self.given_up.retain(|id, given_up| {
            let wanted = desired.get(id) == Some(&given_up.spec);
            wanted && (pending.contains(id) || plan.refused.contains_key(id))
        });
    }
}

impl Failure {
    fn is_hopeless(&self, now: Timestamp) -> bool {
        let long = later(self.since, GRANT_DEADLINE) <= now;
        self.count >= GRANT_MOST || (self.count >= GRANT_LEAST && long)
    }
}

/// The end of time is late enough.
fn later(now: Timestamp, pause: SignedDuration) -> Timestamp {
    now.checked_add(pause).unwrap_or(Timestamp::MAX)
}

/// Something that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// To which lease.
    pub lease: LeaseId,
    /// What, a sentence.
    pub what: String,
    /// What was found otherwise than it had been set, where that was the reason.
    pub drift: Option<String>,
}

/// How a pass left the host.
#[derive(Debug)]
pub(super) struct Converged {
    /// The last look.
    pub(super) observed: Observed,
    /// What is left to do after it.
    pub(super) plan: Plan,
    /// What was done.
    pub(super) changes: Vec<Change>,
}

pub(super) async fn converge<H: LeaseHost>(
    host: &mut H,
    desired: &Desired,
    inventory: &Inventory,
    attempts: &mut Attempts,
    now: Timestamp,
) -> Result<Converged, H::ObserveError> {
    let mut changes = Vec::new();
    attempts.given_up.retain(|id, given_up| desired.get(id) == Some(&given_up.spec));
    let mut looks = 0_usize;
    loop {
        looks = looks.saturating_add(1);
        let observed = Observed { given_up: attempts.barred(now), ..host.observe().await? };
        let plan = plan(desired, &observed, host.ledger(), inventory);
        let before = changes.len();
        let mut gave_up = false;
        if looks < LOOKS {
            let failed = apply(host, &plan, &mut attempts.failures, now, &mut changes).await;
            gave_up = attempts.give_up(&failed, &observed, host.ledger(), now);
        }
        if changes.len() == before && !gave_up {
            attempts.forget_overcome(&plan, desired);
            return Ok(Converged { observed, plan, changes });
        }
    }
}

/// Does what can be done now; whose steps failed.
async fn apply<H: LeaseHost>(
    host: &mut H,
    plan: &Plan,
    failures: &mut Failures,
    now: Timestamp,
    changes: &mut Vec<Change>,
) -> BTreeSet<LeaseId> {
    let paused = |(id, failure): (&LeaseId, &Failure)| {
        let same = failure.revoking == plan.revoked.contains(id);
        // A pause that is longer than any was noted by a clock that was ahead.
        let longest = later(now, LONGEST_PAUSE);
        (same && failure.next > now && failure.next <= longest).then(|| id.clone())
    };
    let mut waits: BTreeSet<LeaseId> = failures.iter().filter_map(paused).collect();
    let mut failed = BTreeSet::new();
    for step in &plan.steps {
        let id = step.id();
        if waits.contains(id) {
            continue;
        }
        match host.apply(step).await {
            Ok(Outcome::Done) => {
                info!(lease = %id, %step, "lease step done");
                let (lease, drift) = (id.clone(), step.drift());
                changes.push(Change { lease, what: step.to_string(), drift });
            }
            // What is erased beside the loop holds up no other erase.
            Ok(Outcome::Pending) if step.stands_alone() => {}
            Ok(Outcome::Pending) => drop(waits.insert(id.clone())),
            Err(error) => {
                warn!(lease = %id, %step, error = %Chain(&error), "lease step failed");
                let revoking = plan.revoked.contains(id);
                // The first failure of a pass is the one that is told.
                if !failed.contains(id) {
                    note(failures, id, step, &error, revoking, now);
                }
                failed.insert(id.clone());
                if !step.stands_alone() {
                    waits.insert(id.clone());
                }
            }
        }
    }
    failed
}

fn note(
    failures: &mut Failures,
    id: &LeaseId,
    step: &impl Display,
    error: &StepError,
    revoking: bool,
    now: Timestamp,
) {
    let (count, since) = match failures.get(id) {
        Some(before) if before.revoking == revoking => {
            (before.count.saturating_add(1), before.since.min(now))
        }
        _ => (1, now),
    };
    let doubled = FIRST_PAUSE.checked_mul(1 << count.saturating_sub(1).min(16));
    let pause = doubled.unwrap_or(LONGEST_PAUSE).min(LONGEST_PAUSE);
    let failure = Failure {
        step: step.to_string(),
        label: error.label(),
        message: Chain(error).to_string(),
        owner: error.owner(),
        count,
        since,
        next: later(now, pause),
        revoking,
    };
    failures.insert(id.clone(), failure);
}

#[cfg(test)]
#[path = "converge_sim.rs"]
mod sim;
#[cfg(test)]
#[path = "converge_tests.rs"]
mod tests;
