//! `prove`: what of a whole host two can reach, from observed facts alone.
//!
//! ```text
//!  Facts ──► every check over every pair of holders ──► violations      none: nobody shares
//!        └─► notes: what the isolation levels of leases leave shared by design
//! ```
//!
//! Own code, on purpose: it neither calls [`crate::place`] nor knows what was planned, so that a mistake there
//! shows here. What was not observed is a violation, never isolation (law 4). Two leases of one tenant are
//! two holders like any other, but for networks, which are a tenant's.
//!
//! | module | what |
//! |---|---|
//! | `cpu`, `level` | cores; caches and sockets of those that are to have them alone |
//! | `memory`, `cache` | bounds of memory and huge pages; ways of caches |
//! | `process` | where programs run, as whom, what they see |
//! | `device` | what they reach: itself, its IOMMU group, its bridges, its card, its GPU, its disk |
//!
//! The work grows with what there is, not with its square: what two have in common is found by what it is.

mod cache;
mod cpu;
mod device;
mod level;
mod memory;
mod notes;
mod process;

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_api::isolation::{Class, Facts, Finding, Holder, HolderFacts, Sharing};

/// One question about a host: adds what it finds.
type Check = fn(&Facts, &mut Vec<Sharing>);

/// All questions. Each finds sharings of its class, and no other check finds those.
const CHECKS: [(Class, Check); 34] = [
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
    (Class::LastLevelCache, level::caches),
    (Class::Socket, level::sockets),
    (Class::Device, device::shared),
    (Class::HostDevice, device::hosts),
    (Class::UnknownDevice, device::unknown),
    (Class::IommuGroup, device::pci::groups),
    (Class::PeerToPeer, device::pci::bridges),
    (Class::TrustedFunction, device::network::trusted),
    (Class::Network, device::network::joined),
    (Class::GpuInstance, device::gpu::instances),
    (Class::GpuSlice, device::gpu::slices),
    (Class::VolumeExtent, device::volume::extents),
    (Class::VolumeKey, device::volume::keys),
    (Class::BeneathVolume, device::volume::beneath),
    (Class::HugepagesUnbounded, memory::huge_unbounded),
    (Class::HugepagesOversubscribed, memory::huge_oversubscribed),
    (Class::CacheWays, cache::ways),
    (Class::CacheGroup, cache::groups),
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

/// Holders with their place in the facts, in which pairs are told.
type Placed<'a> = (usize, &'a HolderFacts);

/// Everybody but the host, with their places.
fn placed_tenants(facts: &Facts) -> impl Iterator<Item = Placed<'_>> {
    let all = facts.holders.iter().enumerate();
    all.filter(|(_, holder)| holder.holder != Holder::Host)
}

/// What two have in common.
struct Both<'a, K> {
    a: &'a HolderFacts,
    b: &'a HolderFacts,
    what: BTreeSet<K>,
}

/// What each two of them have in common, from what each of them has.
fn common<'a, K: Ord + Clone>(
    held: impl Iterator<Item = (K, Placed<'a>)>,
) -> impl Iterator<Item = Both<'a, K>> {
    let mut hands: BTreeMap<K, BTreeMap<usize, &HolderFacts>> = BTreeMap::new();
    for (what, (at, holder)) in held {
        hands.entry(what).or_default().insert(at, holder);
    }
    let mut found: BTreeMap<(usize, usize), Both<'a, K>> = BTreeMap::new();
    for (what, holders) in hands {
        for ((at, a), (bt, b)) in pairs(holders) {
            let empty = || Both { a, b, what: BTreeSet::new() };
            found.entry((at, bt)).or_insert_with(empty).what.insert(what.clone());
        }
    }
    found.into_values()
}

/// Each pair once.
fn pairs<T: Clone>(of: impl IntoIterator<Item = T>) -> impl Iterator<Item = (T, T)> {
    let all: Vec<T> = of.into_iter().collect();
    let later = all.clone();
    all.into_iter().enumerate().flat_map(move |(at, a)| {
        let rest: Vec<T> = later.iter().skip(at.saturating_add(1)).cloned().collect();
        rest.into_iter().map(move |b| (a.clone(), b))
    })
}

/// Whose CPU each is, the host left out.
fn by_cpu(facts: &Facts) -> BTreeMap<u32, Vec<Placed<'_>>> {
    let mut hands: BTreeMap<u32, Vec<Placed<'_>>> = BTreeMap::new();
    for (at, holder) in placed_tenants(facts) {
        for &cpu in holder.cpus.iter().flatten() {
            hands.entry(cpu).or_default().push((at, holder));
        }
    }
    hands
}

/// Who has one of these CPUs, in the order of the facts.
fn users<'a>(
    hands: &BTreeMap<u32, Vec<Placed<'a>>>,
    cpus: &BTreeSet<u32>,
) -> BTreeMap<usize, &'a HolderFacts> {
    cpus.iter().filter_map(|cpu| hands.get(cpu)).flatten().copied().collect()
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

/// Names in a sentence: `a, b and c`.
fn names<'a>(holders: impl IntoIterator<Item = &'a Holder>) -> String {
    let mut names: Vec<String> = holders.into_iter().map(ToString::to_string).collect();
    let last = names.pop().unwrap_or_default();
    if names.is_empty() { last } else { format!("{} and {last}", names.join(", ")) }
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
mod planted_devices;
#[cfg(test)]
mod tests;
