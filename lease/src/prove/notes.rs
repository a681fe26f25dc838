//! What stays shared at the isolation levels of those concerned: told, not held against the host.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_api::isolation::{Class, DeviceKind, Facts, Holder, HolderFacts, Sharing};
use bulkhead_api::lease::Isolation;

use super::level::{LAST, level};
use super::{between, by_cpu, list, names, tenants, users};

pub(super) fn notes(facts: &Facts, notes: &mut Vec<Sharing>) {
    caches(facts, notes);
    nodes(facts, notes);
    host(facts, notes);
    machines(facts, notes);
}

/// One note for all whom it concerns.
fn among(class: Class, holders: Vec<Holder>, resource: String, does: &str) -> Sharing {
    let message = format!("{resource} {does} {}", names(&holders));
    Sharing { class, holders, resource, message }
}

fn caches(facts: &Facts, notes: &mut Vec<Sharing>) {
    let hands = by_cpu(facts);
    for cache in &facts.caches {
        let alone =
            |holder: &HolderFacts| cache.level == LAST && level(facts, holder) == Isolation::L3;
        let users = users(&hands, &cache.cpus).into_values().filter(|holder| !alone(holder));
        let users: Vec<Holder> = users.map(|holder| holder.holder.clone()).collect();
        if users.len() > 1 {
            let resource = format!("L{} cache of CPUs {}", cache.level, list(&cache.cpus));
            notes.push(among(Class::SharedCache, users, resource, "serves"));
        }
    }
}

fn nodes(facts: &Facts, notes: &mut Vec<Sharing>) {
    let mut users: BTreeMap<u32, Vec<Holder>> = BTreeMap::new();
    for holder in tenants(facts).filter(|holder| level(facts, holder) != Isolation::Socket) {
        for &node in holder.memory_nodes.iter().flatten() {
            users.entry(node).or_default().push(holder.holder.clone());
        }
    }
    for (node, users) in users.into_iter().filter(|(_, users)| users.len() > 1) {
        let resource = format!("memory bandwidth of nodes {node}");
        notes.push(among(Class::SharedNode, users, resource, "serves"));
    }
}

fn host(facts: &Facts, notes: &mut Vec<Sharing>) {
    let Some(host) = facts.holders.iter().find(|holder| holder.holder == Holder::Host) else {
        return;
    };
    let Some(of_host) = &host.cpus else { return };
    for lease in tenants(facts) {
        let both: BTreeSet<u32> =
            lease.cpus.iter().flatten().filter(|cpu| of_host.contains(cpu)).copied().collect();
        if !both.is_empty() {
            let resource = format!("CPUs {}", list(&both));
            let message =
                format!("the host's own programs may run on {resource} of {}", lease.holder);
            notes.push(between(Class::HostCpus, host, lease, resource, message));
        }
    }
}

fn machines(facts: &Facts, notes: &mut Vec<Sharing>) {
    for device in facts.devices.iter().filter(|device| device.kind == DeviceKind::Kvm) {
        let users: Vec<Holder> = device.holders.iter().map(|reach| reach.holder.clone()).collect();
        if !users.is_empty() {
            let resource = "/dev/kvm".to_owned();
            notes.push(among(Class::Kvm, users, resource, "makes virtual machines for"));
        }
    }
}
