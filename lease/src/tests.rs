//! `place` against an oracle that knows only the rules: whole cores, no sharing, no starvation.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_api::id::LeaseId;
use bulkhead_api::inventory::{Core, CpuTopology, Inventory, NumaNode};
use bulkhead_api::lease::Holding;
use bulkhead_api::units::Bytes;
use proptest::prelude::*;

use crate::place::{Amount, HOUSE_MEMORY, Request, Taken, free, offered, place};

const GIB: u64 = 1 << 30;

/// `sockets` sockets of `cores` cores of `threads` CPUs; a node a socket with `gib` GiB.
fn host(sockets: u32, cores: u32, threads: u32, gib: u64) -> Inventory {
    let all = sockets * cores;
    let cpus = |number: u32| (0..threads).map(|t| number + t * all).collect::<BTreeSet<u32>>();
    let core = |number: u32| Core {
        socket: number / cores,
        id: number % cores,
        node: number / cores,
        cpus: cpus(number),
    };
    let list: Vec<Core> = (0..all).map(core).collect();
    let node = |id: u32| NumaNode {
        id,
        total: Bytes::new(gib * GIB),
        cpus: list.iter().filter(|c| c.node == id).flat_map(|c| c.cpus.clone()).collect(),
        hugepages: Vec::new(),
    };
    Inventory {
        memory: (0..sockets).map(node).collect(),
        cpu: CpuTopology { cores: list, ..CpuTopology::default() },
        ..Inventory::default()
    }
}

fn id(number: usize) -> LeaseId {
    LeaseId { tenant: "t".parse().unwrap(), name: format!("l{number}").parse().unwrap() }
}

fn want(cores: u32, mib: u64) -> Request {
    Request { cores, memory: Bytes::new(mib << 20), ..Request::default() }
}

fn taken(held: impl Into<BTreeMap<LeaseId, Holding>>) -> Taken {
    Taken { held: held.into(), ..Taken::default() }
}

#[test]
fn the_first_core_and_the_house_memory_stay_with_the_host() {
    let inventory = host(2, 2, 2, 1);
    let memory = Bytes::new(2 * GIB).saturating_sub(HOUSE_MEMORY);
    assert_eq!(offered(&inventory), Amount { cores: 3, memory, ..Amount::default() });
}

#[test]
fn a_lease_gets_both_siblings_of_its_core_and_the_node_beside_it() {
    let holding = place(&host(2, 2, 2, 1), &Taken::default(), &want(2, 512)).unwrap();
    assert_eq!(holding.cpus, BTreeSet::from([2, 3, 6, 7]));
    assert_eq!(holding.memory_nodes, BTreeSet::from([1]));
}

#[test]
fn a_lease_that_leaves_fewer_cores_over_is_preferred() {
    let holding = place(&host(2, 2, 2, 1), &Taken::default(), &want(1, 64)).unwrap();
    assert_eq!(holding.cpus, BTreeSet::from([1, 5]), "the node with the one core left");
}

#[test]
fn a_shortage_says_what_was_wanted_what_is_free_and_what_there_is() {
    let inventory = host(2, 2, 2, 1);
    let held = taken([(id(0), place(&inventory, &Taken::default(), &want(1, 64)).unwrap())]);
    let shortage = place(&inventory, &held, &want(9, 4096)).unwrap_err();
    assert_eq!(
        shortage.short(),
        ["cpus: 9 cores wanted, 2 free of 3", "memory: 4096 MiB wanted, 1216 MiB free of 1280 MiB"]
    );
}

#[test]
fn enough_in_sum_but_not_together_is_said_so() {
    let mut inventory = host(2, 1, 1, 1);
    inventory.memory[1].total = Bytes::new(64 << 20);
    let shortage = place(&inventory, &Taken::default(), &want(1, 200)).unwrap_err();
    assert_eq!(shortage.to_string(), "no set of NUMA nodes has 1 cores and 200 MiB free together");
}

#[test]
fn a_lease_over_two_nodes_may_not_take_what_a_neighbour_was_promised() {
    let inventory = host(2, 4, 1, 4);
    let held = taken([(id(0), place(&inventory, &Taken::default(), &want(1, 2048)).unwrap())]);
    assert_eq!(held.held[&id(0)].memory_nodes, BTreeSet::from([0]));
    // 5 GiB are free, 1.25 of them on the neighbour's node; but nothing keeps its pages off the other 2.
    let shortage = place(&inventory, &held, &want(5, 4608)).unwrap_err();
    assert_eq!(shortage.to_string(), "no set of NUMA nodes has 5 cores and 4608 MiB free together");
    assert!(
        place(&inventory, &held, &want(5, 1024)).is_ok(),
        "all of it fits beside the neighbour"
    );
}

#[test]
fn each_node_that_gives_memory_gives_a_core() {
    let inventory = host(2, 4, 1, 4);
    let both = place(&inventory, &Taken::default(), &want(2, 5 << 10)).unwrap();
    assert_eq!((both.cpus, both.memory_nodes), (BTreeSet::from([1, 4]), BTreeSet::from([0, 1])));
    assert!(
        place(&inventory, &Taken::default(), &want(1, 5 << 10)).is_err(),
        "one core is on one node"
    );
}

#[test]
fn a_core_without_cpus_is_neither_the_hosts_nor_given_out() {
    let mut inventory = host(1, 2, 1, 2);
    inventory.cpu.cores.push(Core { socket: 0, id: 9, node: 0, cpus: BTreeSet::new() });
    assert_eq!(offered(&inventory).cores, 1);
    let holding = place(&inventory, &Taken::default(), &want(1, 64)).unwrap();
    assert_eq!(holding.cpus, BTreeSet::from([1]));
}

#[test]
fn a_host_without_topology_offers_nothing_and_does_not_panic() {
    let shortage = place(&Inventory::default(), &Taken::default(), &want(1, 64)).unwrap_err();
    assert_eq!(shortage.free, Amount::default());
}

proptest! {
    /// The oracle counts on its own: every CPU has at most one holder, cores are whole, the house core is
    /// nobody's, and on no set of nodes can leases together use more memory than it has.
    #[test]
    fn leases_never_share_and_never_starve_each_other(
        sockets in 1_u32..4, cores in 1_u32..5, threads in 1_u32..3, gib in 1_u64..5,
        requests in prop::collection::vec((1_u32..5, 16_u64..4096), 1..12),
        gone in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let inventory = host(sockets, cores, threads, gib);
        let mut held = Taken::default();
        for (number, (cores, mib)) in requests.iter().enumerate() {
            let before = held.held.clone();
            let left = free(&inventory, &held);
            match place(&inventory, &held, &want(*cores, *mib)) {
                Ok(holding) => {
                    prop_assert_eq!(holding.memory, Bytes::new(mib << 20));
                    held.held.insert(id(number), holding);
                }
                Err(shortage) => prop_assert_eq!(shortage.free, left),
            }
            for (lease, holding) in &before {
                prop_assert_eq!(held.held.get(lease), Some(holding), "moved for a neighbour");
            }
            if number % 3 == 2 && let Some(index) = gone.get(number / 3) && !held.held.is_empty() {
                let victim = index.get(&held.held.keys().cloned().collect::<Vec<_>>()).clone();
                held.held.remove(&victim);
            }
            let mut holder: BTreeMap<u32, &LeaseId> = BTreeMap::new();
            for (lease, holding) in &held.held {
                for cpu in &holding.cpus {
                    prop_assert_eq!(holder.insert(*cpu, lease), None, "cpu {} shared", cpu);
                }
                for core in &inventory.cpu.cores {
                    let part = core.cpus.intersection(&holding.cpus).count();
                    prop_assert!(part == 0 || part == core.cpus.len(), "core split");
                    prop_assert!(part == 0 || !core.cpus.contains(&0), "house core given");
                }
            }
            for node in &inventory.memory {
                let there = || held.held.values().filter(|h| h.memory_nodes.contains(&node.id));
                let worst: u64 = there().map(|h| h.memory.get()).sum();
                let alone = there().count() < 2 && there().all(|h| h.memory_nodes.len() > 1);
                prop_assert!(alone || worst <= node.total.get(), "node {} overcommitted", node.id);
                for holding in there() {
                    prop_assert!(!node.cpus.is_disjoint(&holding.cpus), "far memory");
                }
            }
            let all: u64 = held.held.values().map(|h| h.memory.get()).sum();
            let there: u64 = inventory.memory.iter().map(|n| n.total.get()).sum();
            prop_assert!(all + HOUSE_MEMORY.get().min(there) <= there.max(HOUSE_MEMORY.get()));
        }
    }
}
