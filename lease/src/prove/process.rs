//! Processes: where they run, as whom, and what they see.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_api::isolation::{
    Class, Facts, Holder, HolderFacts, IdRange, Namespace, ProcessFacts, Sharing,
};

use super::{Placed, between, common, device, list, of, tenants};

/// Those whose ids, namespaces and root count: not the host's own runtime.
fn inmates(holder: &HolderFacts) -> impl Iterator<Item = &ProcessFacts> {
    holder.processes.iter().filter(|process| !process.runtime)
}

fn pids(process: &ProcessFacts) -> String {
    format!("processes {}", list(&process.pids))
}

/// A process may be bound to less than its control group, and never to more.
fn beyond(
    class: Class,
    what: &str,
    of_holder: fn(&HolderFacts) -> &Option<BTreeSet<u32>>,
    of_process: fn(&ProcessFacts) -> &Option<BTreeSet<u32>>,
    facts: &Facts,
    found: &mut Vec<Sharing>,
) {
    for holder in tenants(facts) {
        let Some(given) = of_holder(holder) else { continue };
        for process in &holder.processes {
            let Some(used) = of_process(process) else { continue };
            let more: BTreeSet<u32> = used.difference(given).copied().collect();
            if !more.is_empty() {
                let resource = format!("{what} {}", list(&more));
                let message = format!(
                    "{} of {} may use {resource}, which are not in effect for it",
                    pids(process),
                    holder.holder
                );
                found.push(of(class, holder, resource, message));
            }
        }
    }
}

pub(super) fn cpus(facts: &Facts, found: &mut Vec<Sharing>) {
    beyond(Class::ProcessCpus, "CPUs", |h| &h.cpus, |p| &p.cpus, facts, found);
}

pub(super) fn nodes(facts: &Facts, found: &mut Vec<Sharing>) {
    let what = "memory nodes";
    beyond(Class::ProcessNodes, what, |h| &h.memory_nodes, |p| &p.memory_nodes, facts, found);
}

fn ids(
    class: Class,
    what: &str,
    ranges: fn(&ProcessFacts) -> &[IdRange],
    facts: &Facts,
    found: &mut Vec<Sharing>,
) {
    // By where they begin: those that overlap one are open when it begins.
    let mut all: Vec<(IdRange, Placed<'_>)> = Vec::new();
    for placed in facts.holders.iter().enumerate() {
        let own: BTreeSet<IdRange> = inmates(placed.1).flat_map(ranges).copied().collect();
        let some = own.into_iter().filter(|range| range.count > 0);
        all.extend(some.map(|range| (range, placed)));
    }
    all.sort_by_key(|&(range, (at, _))| (range, at));
    let mut open: Vec<(IdRange, Placed<'_>)> = Vec::new();
    for (range, placed) in all {
        open.retain(|(earlier, _)| earlier.meets(range));
        for &(earlier, other) in open.iter().filter(|(_, other)| other.0 != placed.0) {
            let ((mine, a), (theirs, b)) = match other.0 < placed.0 {
                true => ((earlier, other), (range, placed)),
                false => ((range, placed), (earlier, other)),
            };
            let (a, b, resource) = (a.1, b.1, format!("{what} ids {mine}"));
            let message = format!("{resource} of {} overlap {theirs} of {}", a.holder, b.holder);
            found.push(between(class, a, b, resource, message));
        }
        open.push((range, placed));
    }
}

pub(super) fn user_ids(facts: &Facts, found: &mut Vec<Sharing>) {
    ids(Class::UserIds, "user", |process| &process.user_ids, facts, found);
}

pub(super) fn group_ids(facts: &Facts, found: &mut Vec<Sharing>) {
    ids(Class::GroupIds, "group", |process| &process.group_ids, facts, found);
}

pub(super) fn namespaces(facts: &Facts, found: &mut Vec<Sharing>) {
    let held = facts.holders.iter().enumerate().flat_map(|placed| {
        let all = inmates(placed.1).flat_map(|process| &process.namespaces);
        all.map(move |(&kind, &number)| ((kind, number), placed))
    });
    for both in common(held) {
        let (a, b) = (both.a, both.b);
        for (kind, number) in both.what {
            let resource = format!("{} namespace {number}", kind.name());
            let message = match (&a.holder, &b.holder) {
                (Holder::Host, tenant) | (tenant, Holder::Host) => {
                    format!("{resource} of {tenant} is the host's")
                }
                (a, b) => format!("{resource} is that of {a} and of {b}"),
            };
            found.push(between(Class::Namespace, a, b, resource, message));
        }
    }
}

pub(super) fn roots(facts: &Facts, found: &mut Vec<Sharing>) {
    let held = facts.holders.iter().enumerate().flat_map(|placed| {
        inmates(placed.1).filter_map(|process| process.root.as_deref()).map(move |r| (r, placed))
    });
    for both in common(held) {
        let (a, b) = (both.a, both.b);
        for root in both.what {
            let resource = format!("directory {root}");
            let message = format!("{resource} is the root of {} and of {}", a.holder, b.holder);
            found.push(between(Class::Root, a, b, resource, message));
        }
    }
}

fn count(holder: &HolderFacts) -> usize {
    holder.processes.iter().map(|process| process.pids.len()).sum()
}

/// A process in it; none where it is empty.
fn one(holder: &HolderFacts) -> Option<u32> {
    holder.processes.iter().find_map(|process| process.pids.first().copied())
}

pub(super) fn strangers(facts: &Facts, found: &mut Vec<Sharing>) {
    let unknown = tenants(facts).filter(|holder| matches!(holder.holder, Holder::Unknown(_)));
    for (holder, pid) in unknown.filter_map(|holder| Some((holder, one(holder)?))) {
        let (name, count) = (&holder.holder, count(holder));
        let message = format!("process {pid} and all {count} in {name} belong to no lease");
        found.push(of(Class::Stranger, holder, format!("process {pid}"), message));
    }
}

pub(super) fn not_granted(facts: &Facts, found: &mut Vec<Sharing>) {
    for holder in tenants(facts) {
        let Holder::Lease(id) = &holder.holder else { continue };
        if let Some(pid) = one(holder).filter(|_| !facts.granted.contains(id)) {
            let message = format!("process {pid} runs for {id}, which was not granted here");
            found.push(of(Class::NotGranted, holder, format!("process {pid}"), message));
        }
    }
}

pub(super) fn outside(facts: &Facts, found: &mut Vec<Sharing>) {
    for stray in &facts.strays {
        let owns = |holder: &&HolderFacts| {
            inmates(holder).flat_map(|p| &p.user_ids).any(|range| range.contains(stray.user))
        };
        let owner = tenants(facts).find(owns);
        let (pid, user) = (stray.pid, stray.user);
        let place = if stray.cgroup.is_empty() { "an unknown place" } else { &stray.cgroup };
        let message = match owner {
            Some(owner) => {
                format!("process {pid} of {} is outside its slice, in {place}", owner.holder)
            }
            None => format!("process {pid} with user id {user} in {place} belongs to no lease"),
        };
        let holders = owner.map(|owner| owner.holder.clone()).into_iter().collect();
        let resource = format!("process {pid}");
        found.push(Sharing { class: Class::OutsideSlice, holders, resource, message });
    }
}

pub(super) fn runtimes(facts: &Facts, found: &mut Vec<Sharing>) {
    for holder in tenants(facts) {
        let runtimes = holder.processes.iter().filter(|process| process.runtime);
        let pids: BTreeSet<u32> = runtimes.flat_map(|process| &process.pids).copied().collect();
        if pids.len() > 1 {
            let resource = format!("processes {}", list(&pids));
            let message = format!(
                "{resource} in the slice of {} run as the host: one does, which runs its container",
                holder.holder
            );
            found.push(of(Class::Runtime, holder, resource, message));
        }
    }
}

/// What is missing of a process before it can be compared with others.
fn missing(process: &ProcessFacts) -> Vec<String> {
    let mut missing = Vec::new();
    let mut need = |there: bool, what: &str| {
        if !there {
            missing.push(what.to_owned());
        }
    };
    need(process.cpus.is_some(), "CPUs");
    need(process.memory_nodes.is_some(), "memory nodes");
    if !process.runtime {
        need(!process.user_ids.is_empty(), "user ids");
        need(!process.group_ids.is_empty(), "group ids");
        need(process.root.is_some(), "root directory");
        let known: &BTreeMap<Namespace, u64> = &process.namespaces;
        for kind in Namespace::ALL {
            need(known.contains_key(&kind), &format!("{} namespace", kind.name()));
        }
    }
    missing
}

pub(super) fn unobservable(facts: &Facts, found: &mut Vec<Sharing>) {
    // Where there is nobody to isolate, nothing has to be known of the host.
    if tenants(facts).next().is_none() && facts.unreadable.is_empty() {
        return;
    }
    let mut blind = |holders: Vec<Holder>, resource: String, message: String| {
        found.push(Sharing { class: Class::NotObservable, holders, resource, message });
    };
    for why in &facts.unreadable {
        blind(Vec::new(), "host".to_owned(), format!("not observable: {why}"));
    }
    if !facts.holders.iter().any(|holder| holder.holder == Holder::Host) {
        blind(vec![Holder::Host], "host".to_owned(), "not observable: the host itself".to_owned());
    }
    for holder in &facts.holders {
        let name = &holder.holder;
        let mut say = |resource: String, message: String| {
            blind(vec![name.clone()], resource, message);
        };
        for why in &holder.unreadable {
            say(name.to_string(), format!("not observable of {name}: {why}"));
        }
        if *name != Holder::Host && holder.cpus.as_ref().is_none_or(BTreeSet::is_empty) {
            say("CPUs".to_owned(), format!("not observable of {name}: CPUs in effect"));
        }
        if *name != Holder::Host && holder.memory_nodes.as_ref().is_none_or(BTreeSet::is_empty) {
            say("memory".to_owned(), format!("not observable of {name}: memory nodes in effect"));
        }
        for process in &holder.processes {
            let missing = missing(process);
            if !missing.is_empty() {
                let (resource, missing) = (pids(process), missing.join(", "));
                say(resource.clone(), format!("not observable of {resource} of {name}: {missing}"));
            }
        }
        if *name == Holder::Host && holder.processes.is_empty() {
            say("host".to_owned(), "not observable: the host's own namespaces".to_owned());
        }
    }
    device::unobservable(facts, found);
}
