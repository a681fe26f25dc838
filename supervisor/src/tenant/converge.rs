//! `converge`: look, plan, apply, look again, until nothing is left that can be done now.
//!
//! Steps of one lease are done in order; where one is pending or failed, the lease's later steps wait for the
//! next pass, and the other leases' go on; a resource that cannot be sanitised holds up no other one. A failed
//! step is tried again after a pause that doubles; a pause in granting does not hold up taking back.

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
use crate::tenant::model::{Desired, Observed, Step};
use crate::tenant::plan::{Plan, plan};

/// Looks of one pass at most. A pass needs two for a release and a grant in its place.
const LOOKS: usize = 5;

const FIRST_PAUSE: SignedDuration = SignedDuration::from_secs(1);
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(2);

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
    /// When it is tried again.
    pub next: Timestamp,
    /// While taking back, not while granting.
    pub revoking: bool,
}

/// Failures that are not over, by lease.
pub type Failures = BTreeMap<LeaseId, Failure>;

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
    failures: &mut Failures,
    now: Timestamp,
) -> Result<Converged, H::ObserveError> {
    let mut changes = Vec::new();
    for _ in 1..LOOKS {
        let observed = host.observe().await?;
        let plan = plan(desired, &observed, host.ledger(), inventory);
        let before = changes.len();
        apply(host, &plan, failures, now, &mut changes).await;
        if changes.len() == before {
            forget_overcome(failures, &plan);
            return Ok(Converged { observed, plan, changes });
        }
    }
    let observed = host.observe().await?;
    let plan = plan(desired, &observed, host.ledger(), inventory);
    forget_overcome(failures, &plan);
    Ok(Converged { observed, plan, changes })
}

async fn apply<H: LeaseHost>(
    host: &mut H,
    plan: &Plan,
    failures: &mut Failures,
    now: Timestamp,
    changes: &mut Vec<Change>,
) {
    let paused = |(id, failure): (&LeaseId, &Failure)| {
        let same = failure.revoking == plan.revoked.contains(id);
        // A pause that is longer than any was noted by a clock that was ahead.
        let longest = now.checked_add(LONGEST_PAUSE).unwrap_or(Timestamp::MAX);
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
}

fn note(
    failures: &mut Failures,
    id: &LeaseId,
    step: &impl Display,
    error: &StepError,
    revoking: bool,
    now: Timestamp,
) {
    let count = match failures.get(id) {
        Some(before) if before.revoking == revoking => before.count.saturating_add(1),
        _ => 1,
    };
    let doubled = FIRST_PAUSE.checked_mul(1 << count.saturating_sub(1).min(16));
    let pause = doubled.unwrap_or(LONGEST_PAUSE).min(LONGEST_PAUSE);
    let failure = Failure {
        step: step.to_string(),
        label: error.label(),
        message: Chain(error).to_string(),
        owner: error.owner(),
        count,
        // The end of time is late enough.
        next: now.checked_add(pause).unwrap_or(Timestamp::MAX),
        revoking,
    };
    failures.insert(id.clone(), failure);
}

/// A lease without a step left is past its failure.
fn forget_overcome(failures: &mut Failures, plan: &Plan) {
    let pending: BTreeSet<&LeaseId> = plan.steps.iter().map(Step::id).collect();
    failures.retain(|id, _| pending.contains(id));
}

#[cfg(test)]
#[path = "converge_tests.rs"]
mod tests;
