//! `wait`: looks at an object until it is observed in a state.

use std::thread;
use std::time::{Duration, Instant};

use bulkhead_api::chain::Chain;
use bulkhead_api::document::{Document, Host, HostPhase, Lease};
use bulkhead_api::lease::LeasePhase;

use super::error::VerbError;
use super::target::Target;
use crate::args::{Goal, WaitArgs};
use crate::console::Console;
use crate::rest::Registry;
use crate::view::text::trouble;

pub(super) fn wait(
    registry: &Registry,
    args: &WaitArgs,
    console: &mut Console,
) -> Result<(), VerbError> {
    let object = &args.object;
    let target = Target::parse(object.kind, &object.name, object.tenant.as_deref())?;
    let choices = match (&target, args.goal) {
        (_, Goal::Gone) | (Target::Lease(_), Goal::Running) | (Target::Host(_), Goal::Ready) => {
            None
        }
        (Target::Lease(_), Goal::Ready) => Some("expected running or gone"),
        (Target::Host(_), Goal::Running) => Some("expected ready or gone"),
        (Target::Site(_) | Target::Tenant(_), Goal::Running | Goal::Ready) => Some("expected gone"),
    };
    if let Some(choices) = choices {
        let kind = target.kind().name().to_lowercase();
        return Err(VerbError::NoSuchGoal { kind, goal: word(args.goal), choices });
    }
    await_goal(registry, &target, args.goal, args.timeout, console)
}

/// Returns when the object is observed so, or never will be, or the time is over. A registry that is out
/// of reach for a while is waited for as well.
pub(super) fn await_goal(
    registry: &Registry,
    target: &Target,
    goal: Goal,
    timeout: Duration,
    console: &mut Console,
) -> Result<(), VerbError> {
    let began = Instant::now();
    let goal_word = word(goal);
    loop {
        let last = match registry.find(target) {
            Ok(None) if goal != Goal::Gone => {
                return Err(VerbError::NotThere { target: target.clone(), goal: goal_word });
            }
            Ok(found) => match found.map_or(Verdict::Reached, |found| judge(&found, goal)) {
                Verdict::Reached => {
                    return Ok(console.print(format_args!("{target} {goal_word}\n"))?);
                }
                Verdict::Never(last) => {
                    return Err(VerbError::Hopeless {
                        target: target.clone(),
                        goal: goal_word,
                        last,
                    });
                }
                Verdict::NotYet(last) => last,
            },
            Err(error) if error.is_passing() => Chain(&error).to_string(),
            Err(error) => return Err(error.into()),
        };
        let left = timeout.saturating_sub(began.elapsed());
        if left.is_zero() {
            let target = target.clone();
            return Err(VerbError::TimedOut { target, goal: goal_word, after: timeout, last });
        }
        thread::sleep(console.pause.min(left));
    }
}

fn word(goal: Goal) -> &'static str {
    match goal {
        Goal::Running => "running",
        Goal::Ready => "ready",
        Goal::Gone => "gone",
    }
}

/// What an object's state means for a goal.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Reached,
    NotYet(String),
    Never(String),
}

fn judge(found: &Document, goal: Goal) -> Verdict {
    match found {
        Document::Lease(lease) => judge_lease(lease, goal),
        Document::Host(host) => judge_host(host, goal),
        Document::Site(_) | Document::Tenant(_) => Verdict::NotYet("it is still there".to_owned()),
    }
}

fn judge_lease(lease: &Lease, goal: Goal) -> Verdict {
    let status = lease.status.clone().unwrap_or_default();
    let said = phrase(format!("{:?}", status.phase), &trouble(&status.conditions));
    let leaving = lease.metadata.deletion_timestamp.is_some();
    match (goal, status.phase) {
        (Goal::Gone, _) => Verdict::NotYet(said),
        _ if leaving => Verdict::Never(phrase(said, "its deletion was asked for")),
        (_, LeasePhase::Running) => Verdict::Reached,
        (_, LeasePhase::Ended | LeasePhase::Releasing) => Verdict::Never(said),
        // A failed grant is tried again.
        (
            _,
            LeasePhase::Pending | LeasePhase::Granting | LeasePhase::Failed | LeasePhase::Unknown,
        ) => Verdict::NotYet(said),
    }
}

fn judge_host(host: &Host, goal: Goal) -> Verdict {
    let said = phrase(format!("{:?}", host.status.phase), &host.status.reason);
    match (goal, host.status.phase) {
        (Goal::Gone, _) => Verdict::NotYet(said),
        (_, HostPhase::Ready) => Verdict::Reached,
        // Also those of a host that was refused: an operator may admit it meanwhile.
        (
            _,
            HostPhase::Booting
            | HostPhase::Quarantined
            | HostPhase::Refused
            | HostPhase::Joining
            | HostPhase::Unreachable
            | HostPhase::HandedOver,
        ) => Verdict::NotYet(said),
    }
}

fn phrase(said: String, why: &str) -> String {
    if why.is_empty() { said } else { format!("{said}, {why}") }
}
