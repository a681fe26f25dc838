//! Faults that are planted into a host on which nobody shares anything: processors, memory, caches, processes.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_api::isolation::{
    Class, Facts, Holder, HolderFacts, HugepageFacts, IdRange, Namespace, ProcessFacts, Stray,
};
use bulkhead_api::lease::Isolation;
use bulkhead_api::resource::PageSize;
use bulkhead_api::units::Bytes;

use crate::sample::process;
pub(super) use crate::sample::{Shape, id};

pub(super) const SHAPE: Shape =
    Shape { nodes: 2, cores: 4, threads: 2, leases: 4, each: 1, gpus: 2 };

fn pages(facts: &mut Facts, number: usize) -> &mut HugepageFacts {
    lease(facts, number).hugepages.get_mut(&PageSize::TwoMiB).unwrap()
}

/// Gives lease 0 that level, where lease 2 or another one is beside it: `nodes` leases further.
fn beside(facts: &mut Facts, level: Isolation) {
    facts.levels.insert(id(0), level);
    // With one lease a node there is nobody beside it: then lease 1 moves in, to the free first core.
    let node = lease(facts, 0).memory_nodes.clone().unwrap();
    let others = facts.holders.iter().skip(2);
    if others.clone().any(|holder| holder.memory_nodes.as_ref() == Some(&node)) {
        return;
    }
    let core = facts.cores[0].clone();
    assert_eq!(BTreeSet::from([core.node]), node);
    facts.cache_groups.retain(|group| group.lease != Some(id(1)));
    let moved = lease(facts, 1);
    (moved.cpus, moved.memory_nodes) = (Some(core.cpus.clone()), Some(node.clone()));
    for process in &mut moved.processes {
        process.cpus = Some(core.cpus.clone());
        process.memory_nodes = Some(node.clone());
    }
}

/// Every fault that can be planted, with the class that must tell it.
pub(super) type Fault = (&'static str, Class, fn(&mut Facts));

pub(super) fn lease(facts: &mut Facts, number: usize) -> &mut HolderFacts {
    &mut facts.holders[number + 1]
}

fn inmate(facts: &mut Facts, number: usize) -> &mut ProcessFacts {
    &mut lease(facts, number).processes[0]
}

/// A bound as those have that are to have none.
const NO_PAGES: HugepageFacts = HugepageFacts { max: Some(Bytes::new(0)), used: Bytes::new(0) };

fn unknown(facts: &mut Facts) -> &mut HolderFacts {
    let holder = Holder::Unknown("/tenant.slice/odd one".to_owned());
    // The first core is nobody's: a group of its own, with nothing of others.
    let core = facts.cores[0].clone();
    let process = process(77, 7000, &core.cpus, 0);
    facts.holders.push(HolderFacts {
        cpus: Some(core.cpus),
        memory_nodes: Some(BTreeSet::from([0])),
        memory_max: Some(Bytes::new(1 << 20)),
        hugepages: BTreeMap::from([(PageSize::TwoMiB, NO_PAGES)]),
        processes: vec![process],
        ..HolderFacts::new(holder)
    });
    facts.holders.last_mut().unwrap()
}

/// Takes a CPU of lease 1's core away from it and gives it to lease 0.
fn split_core(facts: &mut Facts) {
    let cpu = lease(facts, 1).cpus.as_mut().unwrap().pop_last().unwrap();
    inmate(facts, 1).cpus = None;
    let left = lease(facts, 1).cpus.clone();
    for process in &mut lease(facts, 1).processes {
        process.cpus = left.clone();
    }
    lease(facts, 0).cpus.as_mut().unwrap().insert(cpu);
    for group in &mut facts.cache_groups {
        group.cpus.remove(&cpu);
    }
}

pub(super) const FAULTS: [Fault; 33] = [
    ("all CPUs of a neighbour", Class::Cpu, |facts| {
        let theirs = lease(facts, 1).cpus.clone().unwrap();
        lease(facts, 0).cpus.as_mut().unwrap().extend(theirs);
    }),
    ("the other thread of a neighbour's core", Class::SmtSibling, split_core),
    ("a CPU without a core", Class::UnknownCpu, |facts| {
        lease(facts, 0).cpus.as_mut().unwrap().insert(9999);
    }),
    ("a process on a free CPU", Class::ProcessCpus, |facts| {
        let free = facts.cores[0].cpus.first().copied().unwrap();
        inmate(facts, 0).cpus.as_mut().unwrap().insert(free);
    }),
    ("the runtime on a neighbour's CPU", Class::ProcessCpus, |facts| {
        let theirs = lease(facts, 1).cpus.clone().unwrap();
        lease(facts, 0).processes[1].cpus.as_mut().unwrap().extend(theirs);
    }),
    ("a process on another node", Class::ProcessNodes, |facts| {
        inmate(facts, 0).memory_nodes.as_mut().unwrap().insert(99);
    }),
    ("the last user id of a neighbour", Class::UserIds, |facts| {
        let IdRange { first, count } = inmate(facts, 1).user_ids[0];
        inmate(facts, 0).user_ids.push(IdRange { first: first + count - 1, count: 1 });
    }),
    ("root of the host", Class::UserIds, |facts| {
        inmate(facts, 0).user_ids.push(IdRange { first: 0, count: 1 });
    }),
    ("the first group id of a neighbour", Class::GroupIds, |facts| {
        let IdRange { first, .. } = inmate(facts, 0).group_ids[0];
        inmate(facts, 1).group_ids.push(IdRange { first, count: 1 });
    }),
    ("the network of a neighbour", Class::Namespace, |facts| {
        let theirs = inmate(facts, 1).namespaces[&Namespace::Net];
        inmate(facts, 0).namespaces.insert(Namespace::Net, theirs);
    }),
    ("the host's processes", Class::Namespace, |facts| {
        let host = facts.holders[0].processes[0].namespaces[&Namespace::Pid];
        inmate(facts, 0).namespaces.insert(Namespace::Pid, host);
    }),
    ("the files of a neighbour", Class::Root, |facts| {
        inmate(facts, 0).root = inmate(facts, 1).root.clone();
    }),
    ("the host's files", Class::Root, |facts| {
        inmate(facts, 0).root = facts.holders[0].processes[0].root.clone();
    }),
    ("no bound of memory", Class::MemoryUnbounded, |facts| {
        lease(facts, 0).memory_max = None;
    }),
    ("bounds above the node", Class::MemoryOversubscribed, |facts| {
        let node = lease(facts, 0).memory_nodes.clone().unwrap();
        let total = facts.memory.iter().find(|n| node.contains(&n.id)).unwrap().total;
        lease(facts, 0).memory_max = Some(total.saturating_add(Bytes::new(1)));
    }),
    ("bounds above all nodes together", Class::MemoryOversubscribed, |facts| {
        let all: BTreeSet<u32> = facts.memory.iter().map(|node| node.id).collect();
        let total = facts.memory.iter().map(|node| node.total.get()).sum();
        let both = |holder: &mut HolderFacts, nodes: BTreeSet<u32>| {
            holder.memory_nodes = Some(nodes);
            holder.memory_max = Some(Bytes::new(total));
        };
        both(lease(facts, 0), all);
    }),
    ("processes in a group of nobody", Class::Stranger, |facts| {
        unknown(facts);
    }),
    ("a lease that was not granted", Class::NotGranted, |facts| {
        facts.granted.remove(&id(0));
    }),
    ("a tenant's process elsewhere", Class::OutsideSlice, |facts| {
        let user = inmate(facts, 0).user_ids[0].first + 33;
        facts.strays.push(Stray { pid: 311, user, cgroup: "/system.slice/x".to_owned() });
    }),
    ("nobody's process elsewhere", Class::OutsideSlice, |facts| {
        facts.strays.push(Stray { pid: 311, user: 0x6000_0000, cgroup: String::new() });
    }),
    ("a second process of the host's", Class::Runtime, |facts| {
        let runtime = &mut lease(facts, 0).processes[1];
        let more = runtime.pids[0] + 1;
        runtime.pids.push(more);
    }),
    ("somebody behind a cache of its own", Class::LastLevelCache, |facts| {
        beside(facts, Isolation::L3);
    }),
    ("a cache of its own that is not known", Class::LastLevelCache, |facts| {
        facts.levels.insert(id(0), Isolation::L3);
        facts.caches.retain(|cache| cache.level < 3);
    }),
    ("somebody in a socket of its own", Class::Socket, |facts| {
        beside(facts, Isolation::Socket);
    }),
    ("somebody's memory on a node of its own", Class::Socket, |facts| {
        // All the others leave, but for the memory of one.
        facts.holders.truncate(3);
        facts.levels.insert(id(0), Isolation::Socket);
        let node = lease(facts, 0).memory_nodes.clone().unwrap();
        lease(facts, 1).memory_nodes.as_mut().unwrap().extend(node);
    }),
    ("huge pages without a bound", Class::HugepagesUnbounded, |facts| {
        pages(facts, 0).max = None;
    }),
    ("huge pages whose bound cannot be read", Class::HugepagesUnbounded, |facts| {
        lease(facts, 0).hugepages.clear();
    }),
    ("huge pages of a size that the pools seem not to have", Class::HugepagesUnbounded, |facts| {
        let used = HugepageFacts { max: None, used: PageSize::OneGiB.bytes() };
        lease(facts, 0).hugepages.insert(PageSize::OneGiB, used);
    }),
    ("bounds above all huge pages", Class::HugepagesOversubscribed, |facts| {
        let all: u64 = facts.memory.iter().flat_map(|n| &n.hugepages).map(|p| p.total).sum();
        pages(facts, 0).max = Some(Bytes::new((all + 1) << 21));
    }),
    ("bounds above huge pages that are gone", Class::HugepagesOversubscribed, |facts| {
        facts.memory.iter_mut().for_each(|node| node.hugepages.clear());
    }),
    ("CPUs that cannot be read", Class::NotObservable, |facts| {
        lease(facts, 0).cpus = None;
    }),
    ("a namespace that cannot be read", Class::NotObservable, |facts| {
        inmate(facts, 0).namespaces.remove(&Namespace::Ipc);
    }),
    ("a file that cannot be read", Class::NotObservable, |facts| {
        lease(facts, 0).unreadable.push("read memory.max: broken".to_owned());
    }),
];
