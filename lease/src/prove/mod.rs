//! `prove`: what of a whole host two can reach, from observed facts alone.
//!
//! ```text
//!  Facts ──► every check over every pair of holders ──► violations      none: nobody shares
//!        └─► notes: what the isolation level `core` leaves shared by design
//! ```
//!
//! Own code, on purpose: it neither calls [`crate::place`] nor knows what was planned, so that a mistake there
//! shows here. What was not observed is a violation, never isolation (law 4). Two leases of one tenant are
//! two holders like any other.

mod cpu;
mod memory;
mod notes;
mod process;

use bulkhead_api::isolation::{Class, Facts, Finding, Holder, HolderFacts, Sharing};

/// One question about a host: adds what it finds.
type Check = fn(&Facts, &mut Vec<Sharing>);

/// All questions. Each finds sharings of its class, and no other check finds those.
const CHECKS: [(Class, Check); 16] = [
    (Class::Cpu, cpu::overlaps),
    (Class::SmtSibling, cpu::siblings),
    (Class::UnknownCpu, cpu::unknown),
    (Class::ProcessCpus, process::cpus),
    (Class::ProcessNodes, process::nodes),
    (Class::UserIds, process::user_ids),
    (Class::GroupIds, process::group_ids),
    (Class::Namespace, process::namespaces),
    (Class::Root, process::roots),
    (Class::MemoryUnbounded, memory::unbounded),
    (Class::MemoryOversubscribed, memory::oversubscribed),
    (Class::Stranger, process::strangers),
    (Class::NotGranted, process::not_granted),
    (Class::OutsideSlice, process::outside),
    (Class::Runtime, process::runtimes),
    (Class::NotObservable, process::unobservable),
];

/// Says what is shared on a host. Without violations, no resource of these facts is reachable by two leases.
#[must_use]
pub fn prove(facts: &Facts) -> Finding {
    prove_by(&CHECKS, facts)
}

fn prove_by(checks: &[(Class, Check)], facts: &Facts) -> Finding {
    let mut finding = Finding::default();
    for (_, check) in checks {
        check(facts, &mut finding.violations);
    }
    notes::notes(facts, &mut finding.notes);
    finding
}

/// Everybody but the host.
fn tenants(facts: &Facts) -> impl Iterator<Item = &HolderFacts> + Clone {
    facts.holders.iter().filter(|holder| holder.holder != Holder::Host)
}

/// Each pair once.
fn pairs<'a>(
    holders: impl Iterator<Item = &'a HolderFacts> + Clone,
) -> impl Iterator<Item = (&'a HolderFacts, &'a HolderFacts)> {
    let later = holders.clone();
    holders.enumerate().flat_map(move |(at, a)| later.clone().skip(at + 1).map(move |b| (a, b)))
}

/// Each pair of which one at least is no host.
fn neighbours(facts: &Facts) -> impl Iterator<Item = (&HolderFacts, &HolderFacts)> {
    pairs(facts.holders.iter())
        .filter(|(a, b)| a.holder != Holder::Host || b.holder != Holder::Host)
}

fn between(
    class: Class,
    a: &HolderFacts,
    b: &HolderFacts,
    resource: String,
    message: String,
) -> Sharing {
    Sharing { class, holders: vec![a.holder.clone(), b.holder.clone()], resource, message }
}

fn of(class: Class, holder: &HolderFacts, resource: String, message: String) -> Sharing {
    Sharing { class, holders: vec![holder.holder.clone()], resource, message }
}

/// Numbers with ranges, `2-3,8`.
fn list<'a>(numbers: impl IntoIterator<Item = &'a u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let text = |&(first, last): &(u32, u32)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    ranges.iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod planted;
#[cfg(test)]
mod tests;
