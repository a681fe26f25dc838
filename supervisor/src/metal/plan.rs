//! What to do next with the host as a whole. Pure and total.
//!
//! Coming back is before going away: while a tenant's traces are on the host nothing is granted, not even to the same
//! tenant. And each way the host is drained first, by the leases' own domain, which lets nobody in meanwhile.

use bulkhead_api::condition::{Condition, Truth};
use bulkhead_api::id::LeaseId;
use bulkhead_api::inventory::{DiskClaim, Inventory};
use bulkhead_api::lease::{InstanceKind, LeasePhase, LeaseStatus, ReportedLease};
use bulkhead_api::spec::{HostSpec, WantedLease};
use bulkhead_api::time::Timestamp;
use bulkhead_api::units::Bytes;
use bulkhead_lease::place::{Request, Taken, place};

use super::model::{Known, NotReady, Plan, REST, Record, Seen, Step, View, disk_name};

/// Decides.
#[must_use]
pub fn plan(seen: &Seen<'_>, record: &Record, known: &Known, now: Timestamp) -> Plan {
    let done = |lease: &LeaseId| is_clean(lease, seen, record);
    let signed = seen.spec.and_then(|spec| spec.returning.as_ref());
    // The site's word counts until the host is clean, the registry's until it takes it back.
    let told = seen.told.filter(|lease| !done(lease));
    if let Some(lease) = signed.or(told) {
        return come_back(lease, seen, record, known, now);
    }
    match seen.spec.and_then(metal) {
        Some(wanted) => go_away(wanted, seen, record, known, now),
        None if record.departing.is_some() => Plan { step: Some(Step::Forget), ..Plan::default() },
        None => Plan::default(),
    }
}

/// What is said while the record of this boot cannot be read: the worst, and nothing is done.
#[must_use]
pub fn unknown(seen: &Seen<'_>, why: &str) -> View {
    let wanted = seen.spec.is_some_and(|spec| spec.returning.is_some() || metal(spec).is_some());
    if !wanted && seen.told.is_none() {
        return View::default();
    }
    let message = format!("{why}; reboot the host");
    View {
        bars: Some(message.clone()),
        not_ready: Some(NotReady { reason: "Unknown", message, owner: "operator", next: None }),
        ..View::default()
    }
}

fn metal(spec: &HostSpec) -> Option<&WantedLease> {
    spec.leases.iter().find(|wanted| wanted.spec.instance == InstanceKind::BareMetal)
}

/// Its tenant cannot have run since this boot began: the host was being handed over to it in this very boot.
fn never_left(lease: &LeaseId, seen: &Seen<'_>, record: &Record) -> bool {
    record.departing.as_ref() == Some(lease) && seen.told != Some(lease)
}

fn is_clean(lease: &LeaseId, seen: &Seen<'_>, record: &Record) -> bool {
    if never_left(lease, seen, record) {
        return true;
    }
    let clean = |name: &str| record.clean.contains(name);
    // A disk that appears later is one more to erase.
    let disks = |inventory: &Inventory| inventory.disks.iter().all(|disk| clean(disk_name(disk)));
    record.clean_of.as_ref() == Some(lease) && clean(REST) && seen.inventory.is_some_and(disks)
}

fn come_back(
    lease: &LeaseId,
    seen: &Seen<'_>,
    record: &Record,
    known: &Known,
    now: Timestamp,
) -> Plan {
    let bars = format!("the host comes back from lease {lease} and is not clean yet");
    let mut plan = Plan { view: View { bars: Some(bars), ..View::default() }, ..Plan::default() };
    let not_ready = |reason, message, owner, next| Some(NotReady { reason, message, owner, next });
    if is_clean(lease, seen, record) {
        plan.view.sanitised = Some(lease.clone());
        let message =
            format!("clean of lease {lease}; the registry has not let the host go on yet");
        plan.view.not_ready = not_ready("Sanitised", message, "registry", None);
        return plan;
    }
    if let Some(held) = not_drained(seen) {
        let message = format!("waits until {held} before disks are erased");
        plan.view.not_ready = not_ready("Sanitising", message, "supervisor", None);
        return plan;
    }
    let Some(inventory) = seen.inventory else {
        let message = "the hardware was not read yet".to_owned();
        plan.view.not_ready = not_ready("Sanitising", message, "supervisor", None);
        return plan;
    };
    let clean = |name: &str| record.clean_of.as_ref() == Some(lease) && record.clean.contains(name);
    let mut todo: Vec<(String, Step)> = Vec::new();
    for disk in inventory.disks.iter().filter(|disk| !clean(disk_name(disk))) {
        let step = Step::Erase { lease: lease.clone(), disk: disk.clone() };
        todo.push((disk_name(disk).to_owned(), step));
    }
    if !clean(REST) {
        let nodes = inventory.memory.iter().map(|node| node.id).collect();
        let memory = inventory
            .memory
            .iter()
            .fold(Bytes::default(), |sum, node| sum.saturating_add(node.total));
        todo.push((REST.to_owned(), Step::Rest { lease: lease.clone(), nodes, memory }));
    }
    let total = inventory.disks.len();
    let left = todo.iter().filter(|(name, _)| name != REST).count();
    let paused = |name: &str| known.failed.get(name).filter(|failed| now < failed.next);
    // One that fails holds up no other.
    plan.step = todo.iter().find(|(name, _)| paused(name).is_none()).map(|(_, step)| step.clone());
    let failed = todo.iter().find_map(|(name, _)| Some((name, known.failed.get(name)?)));
    plan.view.not_ready = match failed {
        None => {
            let message =
                format!("erases the disks after lease {lease}: {left} of {total} are left");
            not_ready("Sanitising", message, "supervisor", None)
        }
        Some((name, failed)) => {
            let what =
                if failed.dirty { "is not clean after its erase" } else { "cannot be erased" };
            let message = format!("{name} {what}: {}; nothing is granted", failed.why);
            plan.retry = Some(failed.next);
            not_ready("SanitisingFails", message, "operator", Some(failed.next))
        }
    };
    plan
}

fn go_away(
    wanted: &WantedLease,
    seen: &Seen<'_>,
    record: &Record,
    known: &Known,
    now: Timestamp,
) -> Plan {
    let id = &wanted.id;
    let bars = Some(format!("lease {id} is to have the host to itself"));
    let mut plan = Plan { view: View { bars, ..View::default() }, ..Plan::default() };
    let mut says = |phase, reason: &str, message: String, owner: &str, next| {
        plan.view.lease = Some(reported(id, phase, reason, message, owner, next, now));
    };
    if let Some((reason, message, owner)) = in_the_way(wanted, seen) {
        says(LeasePhase::Failed, reason, message, owner, None);
        return plan;
    }
    if let Some(held) = not_drained(seen) {
        let message = format!("waits until {held}");
        says(LeasePhase::Granting, "Draining", message, "supervisor", None);
        return plan;
    }
    if record.departing.as_ref() != Some(id) {
        says(
            LeasePhase::Granting,
            "HandOver",
            "the host is free for it".into(),
            "supervisor",
            None,
        );
        plan.step = Some(Step::Remember(id.clone()));
        return plan;
    }
    let answer = known.answer.as_ref().filter(|answered| answered.answer.lease == *id);
    match answer.map(|answered| &answered.answer.refusal) {
        Some(None) => {
            let message = "the site remembers the hand-over; the host reboots".to_owned();
            says(LeasePhase::Granting, "HandOver", message, "supervisor", known.rebooting);
            match known.rebooting {
                Some(again) if now < again => plan.retry = Some(again),
                _ => plan.step = Some(Step::Reboot(id.clone())),
            }
        }
        refused => {
            let (message, owner) = match refused.and_then(Option::as_ref) {
                Some(why) => (format!("the site says no: {}", why.message), why.owner.as_str()),
                None if !seen.linked => ("waits for the site".to_owned(), "site"),
                None => ("the site is asked for the hand-over".to_owned(), "site"),
            };
            says(LeasePhase::Granting, "HandOver", message, owner, known.asked);
            match known.asked {
                Some(again) if now < again => plan.retry = Some(again),
                _ if seen.linked => plan.step = Some(Step::Ask(id.clone())),
                _ => {}
            }
        }
    }
    plan
}

/// What no waiting on this host's side makes good.
fn in_the_way(
    wanted: &WantedLease,
    seen: &Seen<'_>,
) -> Option<(&'static str, String, &'static str)> {
    let others = seen.spec.iter().flat_map(|spec| &spec.leases).filter(|l| l.id != wanted.id);
    if let Some(other) = others.map(|lease| &lease.id).next() {
        return Some(("NotAlone", format!("lease {other} is wanted on the host too"), "registry"));
    }
    if let Err((field, message)) = wanted.spec.check() {
        return Some(("SpecUnsupported", format!("{field}: {message}"), "tenant"));
    }
    if let [first, rest @ ..] = seen.quarantined {
        let more =
            if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
        let message = format!("{first}{more} could not be shown to be clean");
        return Some(("Quarantine", message, "operator"));
    }
    let inventory = seen.inventory?;
    for disk in &inventory.disks {
        if let DiskClaim::Foreign { what } = &disk.claim {
            let message = format!(
                "disk {} is somebody else's ({what}): the tenant would read it, and it is erased afterwards; erase \
                 or remove it first",
                disk_name(disk)
            );
            return Some(("ForeignDisk", message, "operator"));
        }
    }
    let shortage = place(inventory, &Taken::default(), &Request::of(&wanted.spec)).err()?;
    Some(("Shortage", shortage.to_string(), "registry"))
}

/// What is waited for before the host is one lease's: a sentence part.
fn not_drained(seen: &Seen<'_>) -> Option<String> {
    let Some(held) = seen.held else { return Some("other leases were looked at".to_owned()) };
    let names: Vec<String> = held.iter().map(ToString::to_string).collect();
    let are = if names.len() == 1 { "is" } else { "are" };
    (!names.is_empty()).then(|| format!("{} {are} gone", names.join(", ")))
}

fn reported(
    id: &LeaseId,
    phase: LeasePhase,
    reason: &str,
    message: String,
    owner: &str,
    next: Option<Timestamp>,
    now: Timestamp,
) -> ReportedLease {
    let granted = Condition {
        kind: "Granted".to_owned(),
        status: Truth::False,
        reason: reason.to_owned(),
        message,
        owner: owner.to_owned(),
        since: now,
        next_retry: next,
    };
    let status = LeaseStatus {
        phase,
        conditions: vec![granted],
        observed: Some(now),
        ..LeaseStatus::default()
    };
    ReportedLease { id: id.clone(), status }
}
