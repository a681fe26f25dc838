//! Memory and huge pages: bounds that hold each lease to what its nodes have.
//!
//! On a set of nodes, the leases that have no other nodes can be pressed together. Their bounds must fit into
//! the set, for every set (Hall's condition): then no lease can take what another was promised.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_api::isolation::{Class, Facts, HolderFacts, Sharing};
use bulkhead_api::resource::PageSize;

use super::{list, names, of, tenants};

/// Nodes up to which every set of them is looked at: 256 sets.
const EVERY_SET: usize = 8;

pub(super) fn unbounded(facts: &Facts, found: &mut Vec<Sharing>) {
    for holder in tenants(facts).filter(|holder| holder.memory_max.is_none()) {
        let message = format!("memory of {} has no bound: it can take that of all", holder.holder);
        found.push(of(Class::MemoryUnbounded, holder, "memory".to_owned(), message));
    }
}

pub(super) fn oversubscribed(facts: &Facts, found: &mut Vec<Sharing>) {
    let mut told: Vec<BTreeSet<u32>> = Vec::new();
    for set in sets(facts) {
        // What is too much on a part is told there.
        if told.iter().any(|part| part.is_subset(&set)) {
            continue;
        }
        let within = |holder: &&HolderFacts| {
            let nodes = holder.memory_nodes.as_ref();
            nodes.is_some_and(|nodes| !nodes.is_empty() && nodes.is_subset(&set))
        };
        let pressed: Vec<&HolderFacts> = tenants(facts).filter(within).collect();
        let bounds = pressed.iter().filter_map(|holder| holder.memory_max);
        let bounds: u128 = bounds.map(|bound| u128::from(bound.get())).sum();
        let nodes = facts.memory.iter().filter(|node| set.contains(&node.id));
        let there: u128 = nodes.map(|node| u128::from(node.total.get())).sum();
        if bounds > there {
            let resource = format!("memory of nodes {}", list(&set));
            let names: Vec<String> = pressed.iter().map(|h| h.holder.to_string()).collect();
            let message = format!(
                "{resource}: bounds of {} are {} MiB together, the nodes have {} MiB",
                names.join(", "),
                bounds >> 20,
                there >> 20
            );
            let holders = pressed.iter().map(|holder| holder.holder.clone()).collect();
            let class = Class::MemoryOversubscribed;
            found.push(Sharing { class, holders, resource, message });
            told.push(set);
        }
    }
}

/// Sets of nodes, small ones first: every one, or on a host with many nodes those of leases and all together.
fn sets(facts: &Facts) -> Vec<BTreeSet<u32>> {
    let of_holders = tenants(facts).filter_map(|holder| holder.memory_nodes.clone());
    let all: BTreeSet<u32> =
        of_holders.clone().flatten().chain(facts.memory.iter().map(|node| node.id)).collect();
    let mut sets: BTreeSet<BTreeSet<u32>> = BTreeSet::new();
    if all.len() <= EVERY_SET {
        sets.insert(BTreeSet::new());
        for node in all {
            let with: Vec<BTreeSet<u32>> =
                sets.iter().map(|set| set.iter().copied().chain([node]).collect()).collect();
            sets.extend(with);
        }
    } else {
        sets.extend(of_holders);
        sets.insert(all);
    }
    let mut sets: Vec<BTreeSet<u32>> = sets.into_iter().filter(|set| !set.is_empty()).collect();
    sets.sort_by_key(BTreeSet::len);
    sets
}

/// Bytes of huge pages of the whole host, by size. Sizes without a page are absent: nobody can take any.
fn pools(facts: &Facts) -> BTreeMap<PageSize, u128> {
    let mut pools = BTreeMap::new();
    for pool in facts.memory.iter().flat_map(|node| &node.hugepages) {
        let bytes = u128::from(pool.total) * u128::from(pool.page_size.bytes().get());
        *pools.entry(pool.page_size).or_default() += bytes;
    }
    pools.retain(|_, bytes| *bytes > 0);
    pools
}

/// Whoever has no bound takes pages that another was promised: a bound of 0 is one.
pub(super) fn huge_unbounded(facts: &Facts, found: &mut Vec<Sharing>) {
    let pools = pools(facts);
    for holder in tenants(facts) {
        let pages = |size| holder.hugepages.get(&size);
        let used = holder.hugepages.iter().filter(|(_, pages)| pages.used.get() > 0);
        let sizes: BTreeSet<PageSize> =
            pools.keys().copied().chain(used.map(|(&size, _)| size)).collect();
        for size in sizes {
            if pages(size).is_none_or(|pages| pages.max.is_none()) {
                let resource = format!("huge pages of {size}");
                let message =
                    format!("{resource} of {} have no bound: it can take all", holder.holder);
                found.push(of(Class::HugepagesUnbounded, holder, resource, message));
            }
        }
    }
}

pub(super) fn huge_oversubscribed(facts: &Facts, found: &mut Vec<Sharing>) {
    let pools = pools(facts);
    for size in PageSize::ALL {
        let bound = |holder: &HolderFacts| {
            let max = holder.hugepages.get(&size).and_then(|pages| pages.max);
            max.map_or(0, |max| u128::from(max.get()))
        };
        let bounded: Vec<&HolderFacts> = tenants(facts).filter(|h| bound(h) > 0).collect();
        let bounds: u128 = bounded.iter().map(|holder| bound(holder)).sum();
        let there = pools.get(&size).copied().unwrap_or_default();
        if bounds > there {
            let resource = format!("huge pages of {size}");
            let message = format!(
                "{resource}: bounds of {} are {} MiB together, the host has {} MiB",
                names(bounded.iter().map(|holder| &holder.holder)),
                bounds >> 20,
                there >> 20
            );
            let holders = bounded.iter().map(|holder| holder.holder.clone()).collect();
            let class = Class::HugepagesOversubscribed;
            found.push(Sharing { class, holders, resource, message });
        }
    }
}
