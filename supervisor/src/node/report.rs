//! Status as a function of what was observed. Pure: clock and sequence number are arguments.

use std::time::Duration;

use bulkhead_api::condition::{self, Condition, Truth};
use bulkhead_api::id::HostId;
use bulkhead_api::lease::{LeaseStatus, ReportedLease};
use bulkhead_api::status::HostStatus;
use bulkhead_api::time::Timestamp;

use super::state::{Domain, Home, Link, State, Trouble};
use crate::metal::model::NotReady;
use crate::proof::{Round, sentence};

/// A clock that is less behind than this is not worth a word.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);

/// What is measured at the moment of a report.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The system clock.
    pub now: Timestamp,
    /// Number of the report; above that of every earlier one of this boot.
    pub seq: u64,
    /// Resident memory of the supervisor in bytes.
    pub supervisor_rss: u64,
}

/// The report. `earlier` are the conditions of the one before, from which each takes its `since` while its
/// status stays.
#[must_use]
pub fn report(state: &State, moment: Moment, earlier: &[Condition]) -> HostStatus {
    let mut conditions = earlier.to_vec();
    let stated = conditions_of(state, moment.now);
    conditions.retain(|old| condition::find(&stated, &old.kind).is_some());
    for new in stated {
        condition::set(&mut conditions, new);
    }
    HostStatus {
        host: state.host.clone().unwrap_or_else(HostId::unenrolled),
        boot: state.boot,
        seq: moment.seq,
        observed: moment.now,
        accepted_generation: state.generation(),
        settled_generation: state.settled_generation,
        conditions,
        leases: state.pass.leases.iter().chain(&state.whole.lease).cloned().collect(),
        quarantine: state.pass.quarantine.clone(),
        sanitised: state.whole.sanitised.clone(),
        inventory: state.inventory.clone(),
        supervisor_rss: moment.supervisor_rss,
        userspace_start_ms: state.userspace_start_ms,
    }
}

/// Whether two reports say the same, whenever they were made.
#[must_use]
pub fn same(a: &HostStatus, b: &HostStatus) -> bool {
    fn timeless(lease: &ReportedLease) -> (&bulkhead_api::id::LeaseId, LeaseStatus) {
        (&lease.id, LeaseStatus { observed: None, ..lease.status.clone() })
    }
    (&a.host, a.boot) == (&b.host, b.boot)
        && a.accepted_generation == b.accepted_generation
        && a.settled_generation == b.settled_generation
        && a.conditions == b.conditions
        && a.userspace_start_ms == b.userspace_start_ms
        && a.leases.iter().map(timeless).eq(b.leases.iter().map(timeless))
        && a.quarantine == b.quarantine
        && a.sanitised == b.sanitised
        && a.inventory == b.inventory
        && a.sanitised == b.sanitised
}

fn conditions_of(state: &State, now: Timestamp) -> Vec<Condition> {
    let at = |kind: &str, truth, trouble| stated(kind, truth, trouble, now);
    let good = |kind: &str, reason, message| at(kind, Truth::True, well(reason, message));
    let bad = |kind: &str, trouble: &Trouble| at(kind, Truth::False, trouble.clone());
    let (spec, settled) = (spec(state), settled(state));
    vec![
        match &state.domain {
            Domain::Starting => {
                bad("Ready", &waiting("Starting", "the host was not looked at yet"))
            }
            Domain::Closed(trouble) => bad("Ready", trouble),
            Domain::Open if state.whole.not_ready.is_some() => bad("Ready", &not_ready(state)),
            Domain::Open => good("Ready", "Observed", String::new()),
        },
        match &state.home {
            Home::Disk(what) => good("StatePersistent", "OnDisk", what.clone()),
            Home::Memory(why) => bad("StatePersistent", &in_memory(why)),
            Home::Closed(trouble) => bad("StatePersistent", trouble),
        },
        match &state.link {
            Link::Starting => {
                bad("Connected", &waiting("Starting", "the site was not reached yet"))
            }
            Link::Up => good("Connected", "StreamOpen", String::new()),
            Link::Down(trouble) => bad("Connected", trouble),
        },
        at("SpecAccepted", spec.0, spec.1),
        at("Settled", settled.0, settled.1),
        match &state.isolation {
            None => at("Isolated", Truth::Unknown, waiting("Starting", "not looked at yet")),
            Some(round) if round.violations.is_empty() => match &round.unkept {
                None => good("Isolated", "Proved", String::new()),
                Some(why) => good("Isolated", "ProvedNotStated", why.clone()),
            },
            Some(round) => bad("Isolated", &shared(round)),
        },
        match &state.not_renewed {
            Some(trouble) => bad("CertificateCurrent", trouble),
            None if state.host.is_none() => bad("CertificateCurrent", &not_enrolled()),
            None => good("CertificateCurrent", "InTime", String::new()),
        },
        match clock_trouble(state, now) {
            Some(trouble) => bad("ClockPlausible", &trouble),
            None => good("ClockPlausible", "NotBehind", String::new()),
        },
        match state.inventory.problems.as_slice() {
            _ if state.hardware_hangs => bad("HardwareReadable", &hangs()),
            [] => good("HardwareReadable", "AllRead", String::new()),
            problems => bad("HardwareReadable", &unreadable(problems)),
        },
    ]
}

fn not_ready(state: &State) -> Trouble {
    let said = state.whole.not_ready.clone();
    said.map_or_else(
        || waiting("Starting", "the host was not looked at yet"),
        |NotReady { reason, message, owner, next }| Trouble { reason, message, owner, next },
    )
}

fn spec(state: &State) -> (Truth, Trouble) {
    match (&state.refused, &state.accepted) {
        (Some(refused), accepted) => {
            let kept = match accepted {
                Some(accepted) => format!("generation {} stays in force", accepted.spec.generation),
                None => "no spec is in force, nothing is changed".to_owned(),
            };
            let message = format!("{}; {kept}", refused.message);
            (Truth::False, Trouble { message, ..refused.clone() })
        }
        (None, Some(accepted)) => {
            let message = format!("generation {}", accepted.spec.generation);
            (Truth::True, well("Accepted", message))
        }
        (None, None) => {
            let message = "no spec came since the host booted; nothing is changed".to_owned();
            (Truth::Unknown, Trouble { owner: "registry", ..well("NoSpec", message) })
        }
    }
}

fn settled(state: &State) -> (Truth, Trouble) {
    let generation = state.generation();
    if generation == 0 {
        return (Truth::Unknown, Trouble { owner: "registry", ..well("NoSpec", String::new()) });
    }
    if let Domain::Closed(trouble) = &state.domain {
        return (Truth::False, trouble.clone());
    }
    if state.pass.settled && state.settled_generation == generation {
        return (Truth::True, well("ReadBack", format!("generation {generation}")));
    }
    let waiting: Vec<String> = state
        .pass
        .leases
        .iter()
        .filter(|lease| lease.status.conditions.iter().any(|c| c.status != Truth::True))
        .map(|lease| lease.id.to_string())
        .collect();
    let message = if waiting.is_empty() {
        format!("generation {generation} is being applied")
    } else {
        format!("generation {generation} waits for {}", waiting.join(", "))
    };
    let next = state.pass.retry;
    (Truth::False, Trouble { reason: "Applying", message, owner: "supervisor", next })
}

fn clock_trouble(state: &State, now: Timestamp) -> Option<Trouble> {
    let proven = state.clock(now).judged();
    let behind = Duration::try_from(proven.duration_since(now)).unwrap_or_default();
    (behind > CLOCK_TOLERANCE).then(|| Trouble {
        reason: "ClockBehind",
        message: format!(
            "the clock is at least {} s behind: it says {now}, the registry signed at {proven}; set it",
            behind.as_secs()
        ),
        owner: "operator",
        next: None,
    })
}

fn in_memory(why: &str) -> Trouble {
    let message = format!("{why}; a reboot forgets the ledger until a blank disk is put in");
    Trouble { reason: "InMemory", message, owner: "operator", next: None }
}

fn shared(round: &Round) -> Trouble {
    let message = format!("{}; no new lease is granted", sentence(&round.violations));
    Trouble { reason: "Shared", message, owner: "operator", next: None }
}

fn unreadable(problems: &[String]) -> Trouble {
    const SHOWN: usize = 3;
    let mut message = problems.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ");
    if problems.len() > SHOWN {
        message = format!("{message}; and {} more", problems.len() - SHOWN);
    }
    Trouble { reason: "Unreadable", message, owner: "operator", next: None }
}

fn hangs() -> Trouble {
    let message = "a device does not answer; what is known of the hardware is of an earlier look";
    let message = message.to_owned();
    Trouble { reason: "NoAnswer", message, owner: "operator", next: None }
}

fn well(reason: &'static str, message: String) -> Trouble {
    Trouble { reason, message, owner: "supervisor", next: None }
}

fn waiting(reason: &'static str, message: &str) -> Trouble {
    well(reason, message.to_owned())
}

fn not_enrolled() -> Trouble {
    Trouble { owner: "site", ..waiting("NotEnrolled", "the host has no certificate yet") }
}

fn stated(kind: &str, status: Truth, trouble: Trouble, since: Timestamp) -> Condition {
    let Trouble { reason, message, owner, next } = trouble;
    let (kind, reason, owner) = (kind.to_owned(), reason.to_owned(), owner.to_owned());
    Condition { kind, status, reason, message, owner, since, next_retry: next }
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
