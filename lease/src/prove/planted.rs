//! Hosts whose leases share nothing, made without any code of `prove`, and one fault planted into them.

use std::collections::BTreeSet;

use bulkhead_api::id::LeaseId;
use bulkhead_api::inventory::{Cache, Core, NumaNode};
use bulkhead_api::isolation::{
    Class, Facts, Holder, HolderFacts, IdRange, Namespace, ProcessFacts, Stray,
};
use bulkhead_api::units::Bytes;

/// Shape of a host. Each lease gets one core of one node, 256 MiB, and two groups of processes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) nodes: u32,
    /// At least one more than leases on a node, as core 0 of each stays free.
    pub(super) cores: u32,
    pub(super) threads: u32,
    /// At least 2.
    pub(super) leases: u32,
}

pub(super) const SHAPE: Shape = Shape { nodes: 2, cores: 4, threads: 2, leases: 4 };

pub(super) fn id(number: u32) -> LeaseId {
    let tenant = if number.is_multiple_of(2) { "even" } else { "odd" };
    LeaseId { tenant: tenant.parse().unwrap(), name: format!("l{number}").parse().unwrap() }
}

fn process(number: u64, first_pid: u32, core: &Core, node: u32) -> ProcessFacts {
    let range =
        IdRange { first: 0x1000_0000 + u32::try_from(number).unwrap() * 65536, count: 65536 };
    ProcessFacts {
        pids: vec![first_pid, first_pid + 1],
        runtime: false,
        cpus: Some(core.cpus.clone()),
        memory_nodes: Some(BTreeSet::from([node])),
        user_ids: vec![range],
        group_ids: vec![range],
        namespaces: Namespace::ALL
            .into_iter()
            .zip(0..)
            .map(|(kind, at): (_, u64)| (kind, 4_026_532_000 + number * 10 + at))
            .collect(),
        root: Some(format!("0:25:{}", 900 + number)),
    }
}

/// A host of that shape on which nobody shares anything.
pub(super) fn isolated(shape: Shape) -> Facts {
    let Shape { nodes, cores, threads, leases } = shape;
    let all = nodes * cores;
    let core = |n: u32| Core {
        socket: n / cores,
        id: n % cores,
        node: n / cores,
        cpus: (0..threads).map(|t| n + t * all).collect(),
    };
    let list: Vec<Core> = (0..all).map(core).collect();
    let of_node = |node: u32| -> BTreeSet<u32> {
        list.iter().filter(|c| c.node == node).flat_map(|c| c.cpus.clone()).collect()
    };
    let memory = |id: u32| NumaNode { id, total: Bytes::new(4 << 30), cpus: of_node(id) };
    let cache = |node: u32| Cache {
        level: 3,
        kind: "Unified".to_owned(),
        size: Bytes::new(1 << 24),
        cpus: of_node(node),
    };
    let mut host = HolderFacts::new(Holder::Host);
    host.cpus = Some(list.iter().flat_map(|core| core.cpus.clone()).collect());
    host.memory_nodes = Some((0..nodes).collect());
    let own = IdRange { first: 0, count: 65536 };
    let seen = process(0, 1, &list[0], 0);
    host.processes = vec![ProcessFacts { user_ids: vec![own], group_ids: vec![own], ..seen }];
    let mut holders = vec![host];
    for number in 0..leases {
        let node = number % nodes;
        let core = &list[usize::try_from(node * cores + 1 + number / nodes).unwrap()];
        let pid = 1000 + number * 100;
        let own = process(u64::from(number) + 1, pid, core, node);
        let runtime = ProcessFacts {
            pids: vec![pid + 50],
            runtime: true,
            cpus: own.cpus.clone(),
            memory_nodes: own.memory_nodes.clone(),
            ..ProcessFacts::default()
        };
        holders.push(HolderFacts {
            holder: Holder::Lease(id(number)),
            cpus: Some(core.cpus.clone()),
            memory_nodes: Some(BTreeSet::from([node])),
            memory_max: Some(Bytes::new(256 << 20)),
            processes: vec![own, runtime],
            unreadable: Vec::new(),
        });
    }
    Facts {
        cores: list.clone(),
        caches: (0..nodes).map(cache).collect(),
        memory: (0..nodes).map(memory).collect(),
        granted: (0..leases).map(id).collect(),
        holders,
        strays: Vec::new(),
        unreadable: Vec::new(),
    }
}

/// Every fault that can be planted, with the class that must tell it.
pub(super) type Fault = (&'static str, Class, fn(&mut Facts));

fn lease(facts: &mut Facts, number: usize) -> &mut HolderFacts {
    &mut facts.holders[number + 1]
}

fn inmate(facts: &mut Facts, number: usize) -> &mut ProcessFacts {
    &mut lease(facts, number).processes[0]
}

fn unknown(facts: &mut Facts) -> &mut HolderFacts {
    let holder = Holder::Unknown("/tenant.slice/odd one".to_owned());
    // The last core of the last node is nobody's in `isolated`: a group of its own, with nothing of others.
    let core = facts.cores[0].clone();
    let process = process(77, 7000, &core, 0);
    facts.holders.push(HolderFacts {
        holder,
        cpus: Some(core.cpus),
        memory_nodes: Some(BTreeSet::from([0])),
        memory_max: Some(Bytes::new(1 << 20)),
        processes: vec![process],
        unreadable: Vec::new(),
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
}

pub(super) const FAULTS: [Fault; 24] = [
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
