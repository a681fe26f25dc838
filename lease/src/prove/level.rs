//! Isolation levels above `core`: last-level caches and sockets that a lease is to have alone.
//!
//! The level is what the lease's record says; who is beside it is what was observed.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_api::inventory::Core;
use bulkhead_api::isolation::{Class, Facts, Holder, HolderFacts, Sharing};
use bulkhead_api::lease::Isolation;

use super::{between, by_cpu, list, of, pairs, tenants, users};

/// Caches of this level are the last ones.
pub(super) const LAST: u8 = 3;

pub(super) fn level(facts: &Facts, holder: &HolderFacts) -> Isolation {
    match &holder.holder {
        Holder::Lease(id) => facts.levels.get(id).copied().unwrap_or_default(),
        Holder::Host | Holder::Unknown(_) => Isolation::default(),
    }
}

/// Whose the claim is.
fn claimant<'a>(
    facts: &Facts,
    level_of: Isolation,
    a: &'a HolderFacts,
    b: &'a HolderFacts,
) -> Option<&'a Holder> {
    [a, b].into_iter().find(|holder| level(facts, holder) == level_of).map(|holder| &holder.holder)
}

pub(super) fn caches(facts: &Facts, found: &mut Vec<Sharing>) {
    let last = || facts.caches.iter().filter(|cache| cache.level == LAST);
    let known: BTreeSet<u32> = last().flat_map(|cache| &cache.cpus).copied().collect();
    for holder in tenants(facts).filter(|holder| level(facts, holder) == Isolation::L3) {
        let strange: BTreeSet<u32> = holder.cpus.iter().flatten().copied().collect();
        let strange: BTreeSet<u32> = strange.difference(&known).copied().collect();
        if !strange.is_empty() {
            let resource = format!("L3 cache of CPUs {}", list(&strange));
            let message = format!(
                "{resource} is not known: that {} has it alone cannot be shown",
                holder.holder
            );
            found.push(of(Class::LastLevelCache, holder, resource, message));
        }
    }
    let hands = by_cpu(facts);
    for cache in last() {
        for (a, b) in pairs(users(&hands, &cache.cpus).into_values()) {
            let Some(alone) = claimant(facts, Isolation::L3, a, b) else { continue };
            let resource = format!("L3 cache of CPUs {}", list(&cache.cpus));
            let message = format!(
                "{resource} serves {} and {}, and {alone} is to have it alone",
                a.holder, b.holder
            );
            found.push(between(Class::LastLevelCache, a, b, resource, message));
        }
    }
}

/// Sockets and memory nodes of a holder. One that is to have sockets has the nodes of all their cores.
struct Place {
    sockets: BTreeSet<u32>,
    nodes: BTreeSet<u32>,
}

fn place(facts: &Facts, cores: &BTreeMap<u32, &Core>, holder: &HolderFacts) -> Place {
    let cpus = holder.cpus.iter().flatten();
    let sockets: BTreeSet<u32> =
        cpus.filter_map(|cpu| cores.get(cpu)).map(|core| core.socket).collect();
    let mut nodes = holder.memory_nodes.clone().unwrap_or_default();
    if level(facts, holder) == Isolation::Socket {
        let inside = facts.cores.iter().filter(|core| sockets.contains(&core.socket));
        nodes.extend(inside.map(|core| core.node));
    }
    Place { sockets, nodes }
}

pub(super) fn sockets(facts: &Facts, found: &mut Vec<Sharing>) {
    if facts.levels.values().all(|&level| level != Isolation::Socket) {
        return;
    }
    let of_core = |core| -> Vec<(u32, &Core)> {
        let core: &Core = core;
        core.cpus.iter().map(|&cpu| (cpu, core)).collect()
    };
    let cores: BTreeMap<u32, &Core> = facts.cores.iter().flat_map(of_core).collect();
    let places = tenants(facts).map(|holder| (holder, place(facts, &cores, holder)));
    let places: Vec<(&HolderFacts, Place)> = places.collect();
    for ((a, of_a), (b, of_b)) in pairs(places.iter().map(|(holder, place)| (*holder, place))) {
        let Some(alone) = claimant(facts, Isolation::Socket, a, b) else { continue };
        let both = |one: &BTreeSet<u32>, other: &BTreeSet<u32>| -> BTreeSet<u32> {
            one.intersection(other).copied().collect()
        };
        let shared = [
            ("sockets", both(&of_a.sockets, &of_b.sockets)),
            ("memory nodes", both(&of_a.nodes, &of_b.nodes)),
        ];
        let parts: Vec<String> = shared
            .iter()
            .filter(|(_, numbers)| !numbers.is_empty())
            .map(|(what, numbers)| format!("{what} {}", list(numbers)))
            .collect();
        if !parts.is_empty() {
            let resource = parts.join(", ");
            let message = format!(
                "{resource} serve {} and {}, and {alone} is to have them alone",
                a.holder, b.holder
            );
            found.push(between(Class::Socket, a, b, resource, message));
        }
    }
}
