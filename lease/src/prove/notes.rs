//! What stays shared at isolation level `core`: told, not held against the host.

use std::collections::BTreeSet;

use bulkhead_api::isolation::{Class, Facts, Holder, HolderFacts, Sharing};

use super::{between, list, pairs, tenants};

pub(super) fn notes(facts: &Facts, notes: &mut Vec<Sharing>) {
    caches(facts, notes);
    nodes(facts, notes);
    host(facts, notes);
}

fn uses(holder: &HolderFacts, cpus: &BTreeSet<u32>) -> bool {
    holder.cpus.as_ref().is_some_and(|of_holder| !of_holder.is_disjoint(cpus))
}

fn caches(facts: &Facts, notes: &mut Vec<Sharing>) {
    for cache in &facts.caches {
        for (a, b) in pairs(tenants(facts)) {
            if uses(a, &cache.cpus) && uses(b, &cache.cpus) {
                let (level, cpus) = (cache.level, list(&cache.cpus));
                let resource = format!("L{level} cache of CPUs {cpus}");
                let message = format!("{resource} serves {} and {}", a.holder, b.holder);
                notes.push(between(Class::SharedCache, a, b, resource, message));
            }
        }
    }
}

fn nodes(facts: &Facts, notes: &mut Vec<Sharing>) {
    for (a, b) in pairs(tenants(facts)) {
        let (Some(of_a), Some(of_b)) = (&a.memory_nodes, &b.memory_nodes) else { continue };
        let both: BTreeSet<u32> = of_a.intersection(of_b).copied().collect();
        if !both.is_empty() {
            let resource = format!("memory bandwidth of nodes {}", list(&both));
            let message = format!("{resource} serves {} and {}", a.holder, b.holder);
            notes.push(between(Class::SharedNode, a, b, resource, message));
        }
    }
}

fn host(facts: &Facts, notes: &mut Vec<Sharing>) {
    for (a, b) in pairs(facts.holders.iter()) {
        let (host, lease) = match (&a.holder, &b.holder) {
            (Holder::Host, _) => (a, b),
            (_, Holder::Host) => (b, a),
            _ => continue,
        };
        let (Some(of_host), Some(of_lease)) = (&host.cpus, &lease.cpus) else { continue };
        let both: BTreeSet<u32> = of_host.intersection(of_lease).copied().collect();
        if !both.is_empty() {
            let resource = format!("CPUs {}", list(&both));
            let message =
                format!("the host's own programs may run on {resource} of {}", lease.holder);
            notes.push(between(Class::HostCpus, host, lease, resource, message));
        }
    }
}
