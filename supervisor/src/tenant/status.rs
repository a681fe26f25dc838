//! The report on one lease: a function of what is wanted, what was seen and what failed. Pure.

use bulkhead_api::condition::{self, Condition, Truth};
use bulkhead_api::id::{HostId, LeaseId};
use bulkhead_api::lease::{Holding, LeasePhase, LeaseStatus, ReportedLease};
use bulkhead_api::resource::Resource;
use bulkhead_api::time::Timestamp;

use crate::host::cpulist;
use crate::ledger::Entry;
use crate::tenant::converge::Failure;
use crate::tenant::model::{
    Deed, GivenUp, ObservedFiles, ObservedLease, Refusal, ServiceState, UnderWay,
};
use crate::tenant::units::RESTART_MAX_S;

/// Everything that is known of one lease.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Which lease.
    pub id: &'a LeaseId,
    /// This host, if the spec named it.
    pub host: Option<&'a HostId>,
    /// What was seen of it.
    pub seen: &'a ObservedLease,
    /// What the ledger says of it.
    pub entry: Option<&'a Entry>,
    /// It is being taken back.
    pub revoked: bool,
    /// Why it is not granted.
    pub refusal: Option<&'a Refusal>,
    /// Which step of it failed last.
    pub failure: Option<&'a Failure>,
    /// Its grant was given up and is not tried anew yet.
    pub given_up: Option<&'a GivenUp>,
    /// What is being done with resources of all leases.
    pub under_way: &'a [UnderWay],
    /// Why it could not be looked at.
    pub blind: Option<(&'a str, &'a str)>,
    /// Why nothing is granted or taken back on this host.
    pub closed: Option<(&'a str, &'a str)>,
}

/// What is said of one condition.
struct Said {
    status: Truth,
    reason: String,
    message: String,
    owner: &'static str,
    next: Option<Timestamp>,
}

impl Said {
    fn new(status: Truth, reason: &str, message: String, owner: &'static str) -> Self {
        Self { status, reason: reason.to_owned(), message, owner, next: None }
    }
}

/// The report; `before` is the last one on the same lease.
#[must_use]
pub fn report(facts: &Facts<'_>, before: Option<&LeaseStatus>, now: Timestamp) -> ReportedLease {
    let mut conditions = before.map(|status| status.conditions.clone()).unwrap_or_default();
    let said = [("Granted", Some(granted(facts))), ("Running", Some(running(facts)))];
    let cache = [("CacheParted", cache(facts))];
    for (kind, said) in said.into_iter().chain(cache) {
        let Some(said) = said else { continue };
        let condition = Condition {
            kind: kind.to_owned(),
            status: said.status,
            reason: said.reason,
            message: said.message,
            owner: said.owner.to_owned(),
            since: now,
            next_retry: said.next,
        };
        condition::set(&mut conditions, condition);
    }
    let seen = facts.seen;
    let service = seen.service;
    let status = LeaseStatus {
        phase: phase(facts),
        host: facts.host.cloned(),
        holding: holding(facts),
        image_digest: seen.image_digest.clone(),
        starts: service.map_or(0, |service| service.restarts.saturating_add(1)),
        pid: service.and_then(|service| service.pid),
        conditions,
        observed: Some(now),
    };
    ReportedLease { id: facts.id.clone(), status }
}

/// Cores and memory as read back; the rest as recorded, which was read back before the program started. Of a
/// lease that is being taken back: what nobody else can have yet.
fn holding(facts: &Facts<'_>) -> Option<Holding> {
    let slice = facts.seen.slice.as_ref().map(|slice| slice.limits.holding());
    let recorded = facts.entry.map(Entry::kept);
    match (slice, recorded) {
        (Some(slice), Some(recorded)) => {
            let Holding { cpus, memory_nodes, memory, .. } = slice;
            Some(Holding { cpus, memory_nodes, memory, ..recorded })
        }
        (Some(slice), None) => Some(slice),
        (None, recorded) => recorded.filter(|_| facts.revoked),
    }
}

fn phase(facts: &Facts<'_>) -> LeasePhase {
    if facts.blind.is_some() {
        return LeasePhase::Unknown;
    }
    if facts.revoked {
        return LeasePhase::Releasing;
    }
    match facts.refusal {
        Some(
            Refusal::NotIsolated(_)
            | Refusal::Unlisted(_)
            | Refusal::WaitsFor(_)
            | Refusal::Unknown(_)
            | Refusal::Quarantined(_),
        ) => {
            return LeasePhase::Pending;
        }
        Some(Refusal::Spec { .. } | Refusal::Shortage(_) | Refusal::GivenUp(_)) => {
            return LeasePhase::Failed;
        }
        None => {}
    }
    match facts.seen.service.map(|service| (service.state, service.pid)) {
        Some((ServiceState::Running, Some(_))) => LeasePhase::Running,
        Some((ServiceState::Ended | ServiceState::Failed, _)) => LeasePhase::Ended,
        Some((ServiceState::Restarting, _)) => LeasePhase::Failed,
        _ if facts.failure.is_some() || facts.closed.is_some() => LeasePhase::Failed,
        _ => LeasePhase::Granting,
    }
}

/// A lease that asks for cache of its own has it only where the processor can part it.
fn cache(facts: &Facts<'_>) -> Option<Said> {
    let entry = facts.entry.filter(|entry| entry.spec.cache.is_some())?;
    Some(if entry.holding.cache.is_empty() {
        let message = "the processor cannot part its cache, or the kernel does not offer it";
        Said::new(Truth::False, "NoCacheControl", message.to_owned(), "operator")
    } else {
        let ways =
            entry.holding.cache.iter().map(|c| format!("{:#x} of cache {}", c.mask, c.cache));
        let message = format!("ways {}", ways.collect::<Vec<_>>().join(", "));
        Said::new(Truth::True, "Held", message, "supervisor")
    })
}

fn failed(failure: &Failure) -> Said {
    let message = format!("{}: {} (attempt {})", failure.step, failure.message, failure.count);
    Said {
        next: Some(failure.next),
        ..Said::new(Truth::False, failure.label, message, failure.owner)
    }
}

fn granted(facts: &Facts<'_>) -> Said {
    let seen = facts.seen;
    let no = |reason: &str, message: String, owner| Said::new(Truth::False, reason, message, owner);
    if let Some((reason, message)) = facts.blind {
        return Said::new(Truth::Unknown, reason, message.to_owned(), "supervisor");
    }
    if let Some((reason, message)) = facts.closed {
        return Said::new(Truth::Unknown, reason, message.to_owned(), "operator");
    }
    if let Some(failure) = facts.failure {
        return failed(failure);
    }
    if facts.revoked {
        let left = left(facts);
        if let Some(given_up) = facts.given_up {
            let said =
                no("GrantFailed", format!("{given_up}; still there: {left}"), given_up.owner);
            return Said { next: Some(given_up.next), ..said };
        }
        return no("Releasing", format!("still there: {left}"), "supervisor");
    }
    if let Some(refusal) = facts.refusal {
        let owner = match refusal {
            Refusal::Spec { .. } => "tenant",
            Refusal::Shortage(_) => "registry",
            Refusal::Quarantined(_) | Refusal::Unlisted(_) => "operator",
            Refusal::GivenUp(given_up) => given_up.owner,
            Refusal::NotIsolated(_) | Refusal::WaitsFor(_) | Refusal::Unknown(_) => "supervisor",
        };
        let next = match refusal {
            Refusal::GivenUp(given_up) => Some(given_up.next),
            Refusal::Spec { .. }
            | Refusal::Shortage(_)
            | Refusal::Unknown(_)
            | Refusal::NotIsolated(_)
            | Refusal::Unlisted(_)
            | Refusal::Quarantined(_)
            | Refusal::WaitsFor(_) => None,
        };
        return Said { next, ..no(refusal.label(), refusal.to_string(), owner) };
    }
    if seen.fetching {
        return no("Fetching", "the image is being fetched from the site".to_owned(), "supervisor");
    }
    if let Some((resource, why)) = seen.unseen() {
        return no("ResourceUnseen", format!("{resource}: {why}"), "operator");
    }
    match (&seen.slice, &seen.files) {
        (Some(slice), ObservedFiles::Bundled(_)) if facts.entry.is_some() && slice.active => {
            let Holding { cpus, memory_nodes, memory, .. } = slice.limits.holding();
            let (cpus, nodes) = (cpulist::render(&cpus), cpulist::render(&memory_nodes));
            let others = seen.resources.keys().map(|resource| format!(", {resource}"));
            let others: String = others.collect();
            let message =
                format!("cpus {cpus}, nodes {nodes}, memory {memory}{others}, as read back");
            Said::new(Truth::True, "Held", message, "supervisor")
        }
        _ => {
            let works = under_way(facts, Deed::Attach).map(ToString::to_string);
            let works = works.collect::<Vec<_>>().join("; ");
            let works = if works.is_empty() { "steps are under way".to_owned() } else { works };
            no("Granting", works, "supervisor")
        }
    }
}

fn under_way<'a>(facts: &Facts<'a>, deed: Deed) -> impl Iterator<Item = &'a UnderWay> {
    let id = facts.id;
    facts.under_way.iter().filter(move |work| work.lease == *id && work.deed == deed)
}

/// What of a lease is still there, in words.
fn left(facts: &Facts<'_>) -> String {
    let seen = facts.seen;
    let parts = [
        (seen.fetching, "a download"),
        (seen.service.is_some(), "its service"),
        (seen.slice.as_ref().is_some_and(|slice| slice.populated), "processes"),
        (seen.slice.is_some(), "its slice"),
        (seen.mounts > 0, "mounts"),
        (seen.files != ObservedFiles::Absent, "files"),
    ];
    let there: Vec<&str> = parts.iter().filter(|(is, _)| *is).map(|(_, what)| *what).collect();
    if !there.is_empty() {
        return there.join(", ");
    }
    let dirty = |entry: &Entry| {
        let all = entry.holding.resources().into_iter();
        let dirty = all.filter(|resource| !entry.clean.contains(resource));
        let said = |resource: &Resource| {
            let mut works = under_way(facts, Deed::Erase);
            works.find(|work| work.resource == *resource).map(ToString::to_string)
        };
        let waits = |resource: Resource| format!("{resource}, not sanitised yet");
        dirty.map(|resource| said(&resource).unwrap_or_else(|| waits(resource))).collect::<Vec<_>>()
    };
    match facts.entry.map(dirty) {
        Some(dirty) if !dirty.is_empty() => dirty.join("; "),
        _ => "its entry in the ledger".to_owned(),
    }
}

fn running(facts: &Facts<'_>) -> Said {
    let no = |reason: &str, message: String, owner| Said::new(Truth::False, reason, message, owner);
    if let Some((reason, message)) = facts.blind {
        return Said::new(Truth::Unknown, reason, message.to_owned(), "supervisor");
    }
    let Some(service) = facts.seen.service else {
        return no("NotStarted", "the program was not started".to_owned(), "supervisor");
    };
    let exit = service.exit.map_or_else(|| "ended".to_owned(), |exit| exit.to_string());
    match (service.state, service.pid) {
        (ServiceState::Running, Some(pid)) => {
            Said::new(Truth::True, "Running", format!("process {pid}"), "tenant")
        }
        (ServiceState::Running | ServiceState::Starting | ServiceState::Stopped, _) => {
            no("Starting", "the program is being started".to_owned(), "supervisor")
        }
        (ServiceState::Restarting, _) => {
            let message =
                format!("the program {exit}; it is started again within {RESTART_MAX_S} s");
            no("Restarting", message, "tenant")
        }
        (ServiceState::Stopping, _) => {
            no("Stopping", "the program is being stopped".to_owned(), "supervisor")
        }
        (ServiceState::Ended, _) => no("Ended", format!("the program {exit}"), "tenant"),
        (ServiceState::Failed, _) => {
            no("Failed", format!("the program {exit} and is left so"), "tenant")
        }
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
