//! `choose` on tables, and against an oracle that tries every set of nodes of every host.

use std::collections::BTreeSet;

use bulkhead_api::inventory::{Core, CpuTopology, Disk, DiskClaim, NumaNode};
use bulkhead_api::lease::{LeaseStatus, ReportedLease, Volume};
use bulkhead_api::resource::{EXTENT, Extent, Quarantined, Resource};
use bulkhead_api::units::Bytes;
use bulkhead_lease::place::HOUSE_MEMORY;
use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;

/// `nodes` nodes of `cores` cores of two CPUs and `mib` MiB.
fn status(id: &str, nodes: u32, cores: u32, mib: u64) -> HostStatus {
    let all = nodes * cores;
    let core = |number: u32| Core {
        socket: number / cores,
        id: number % cores,
        node: number / cores,
        cpus: BTreeSet::from([number, number + all]),
    };
    let list: Vec<Core> = (0..all).map(core).collect();
    let node = |id: u32| NumaNode {
        id,
        total: Bytes::new(mib * MIB),
        cpus: list.iter().filter(|c| c.node == id).flat_map(|c| c.cpus.clone()).collect(),
        hugepages: Vec::new(),
    };
    let inventory = Inventory {
        memory: (0..nodes).map(node).collect(),
        cpu: CpuTopology { cores: list, ..CpuTopology::default() },
        ..Inventory::default()
    };
    HostStatus {
        host: id.parse().unwrap(),
        boot: 1,
        seq: 1,
        observed: "2026-11-22T12:00:00Z".parse().unwrap(),
        accepted_generation: 0,
        settled_generation: 0,
        conditions: Vec::new(),
        leases: Vec::new(),
        quarantine: Vec::new(),
        sanitised: None,
        inventory,
        supervisor_rss: 0,
        userspace_start_ms: 0,
    }
}

fn lease(number: usize) -> LeaseId {
    LeaseId { tenant: "t".parse().unwrap(), name: format!("l{number}").parse().unwrap() }
}

fn want(cores: u32, mib: u64) -> Request {
    Request { cores, memory: Bytes::new(mib * MIB), ..Request::default() }
}

fn promise(number: usize, cores: u32, mib: u64) -> Promise {
    Promise { id: lease(number), wants: want(cores, mib) }
}

fn candidate(status: &HostStatus, promised: Vec<Promise>) -> Candidate<'_> {
    Candidate { id: &status.host, status, promised, barred: None }
}

fn short(host: &str, short: &str) -> HostShortage {
    HostShortage { host: host.parse().unwrap(), short: vec![short.to_owned()] }
}

#[test]
fn a_lease_that_is_larger_than_every_host_is_refused_with_numbers() {
    let (a, b) = (status("a", 1, 4, 2048), status("b", 1, 2, 8192));
    let hosts = [candidate(&a, Vec::new()), candidate(&b, vec![promise(1, 1, 64)])];
    assert_eq!(
        choose(&hosts, &want(9, 64)),
        Err(vec![
            short("a", "cpus: 9 cores wanted, 3 free of 3"),
            short("b", "cpus: 9 cores wanted, 0 free of 1"),
        ])
    );
    assert_eq!(
        choose(&hosts[..1], &want(1, 4096)),
        Err(vec![short("a", "memory: 4096 MiB wanted, 1280 MiB free of 1280 MiB")])
    );
    assert_eq!(choose(&[], &want(1, 64)), Err(Vec::new()));
}

#[test]
fn the_fullest_host_with_room_is_chosen() {
    let (a, b) = (status("a", 1, 8, 8192), status("b", 1, 8, 8192));
    let hosts = [candidate(&a, Vec::new()), candidate(&b, vec![promise(1, 4, 64)])];
    assert_eq!(choose(&hosts, &want(3, 64)).unwrap().as_str(), "b");
    assert_eq!(choose(&hosts, &want(4, 64)).unwrap().as_str(), "a");
    let equal = [candidate(&b, Vec::new()), candidate(&a, Vec::new())];
    assert_eq!(choose(&equal, &want(1, 64)).unwrap().as_str(), "a");
}

#[test]
fn a_lease_accepted_and_not_yet_reported_keeps_its_room() {
    let a = status("a", 1, 4, 8192);
    let hosts = [candidate(&a, vec![promise(1, 2, 64)])];
    assert!(choose(&hosts, &want(1, 64)).is_ok());
    assert_eq!(
        choose(&hosts, &want(2, 64)),
        Err(vec![short("a", "cpus: 2 cores wanted, 1 free of 3")])
    );
}

#[test]
fn what_a_host_reports_counts_even_if_nobody_promised_it() {
    let mut a = status("a", 1, 4, 8192);
    let holding = Holding {
        cpus: BTreeSet::from([1, 5, 2, 6]),
        memory_nodes: BTreeSet::from([0]),
        memory: Bytes::new(64 * MIB),
        ..Holding::default()
    };
    let status = LeaseStatus { holding: Some(holding), ..LeaseStatus::default() };
    a.leases.push(ReportedLease { id: lease(9), status });
    let capacity = capacity(&a, &[]);
    assert_eq!((capacity.cores, capacity.cores_free), (3, 1));
    assert!(choose(&[candidate(&a, Vec::new())], &want(2, 64)).is_err());
}

#[test]
fn a_promised_lease_without_room_bars_its_host() {
    let a = status("a", 1, 2, 8192);
    let hosts = [candidate(&a, vec![promise(1, 4, 64)])];
    let refused = choose(&hosts, &want(1, 64)).unwrap_err();
    assert_eq!(
        refused[0].short,
        ["lease t/l1, accepted before, does not fit any more: cpus: 4 cores wanted, 1 free of 1"]
    );
    assert_eq!(capacity(&a, &[promise(1, 4, 64)]).cores_free, 0);
}

#[test]
fn a_barred_host_says_why() {
    let a = status("a", 1, 4, 8192);
    let barred = Some("host is Unreachable".to_owned());
    let host = Candidate { barred, ..candidate(&a, Vec::new()) };
    assert_eq!(choose(&[host], &want(1, 64)), Err(vec![short("a", "host is Unreachable")]));
}

/// A pool of `extents` extents on a disk of a host.
fn with_pool(mut status: HostStatus, extents: u64) -> HostStatus {
    let id = format!("pool-of-{}", status.host);
    status.inventory.disks.push(Disk {
        name: "nvme0n1".to_owned(),
        transport: "nvme".to_owned(),
        model: String::new(),
        serial: "S1".to_owned(),
        size: Bytes::new((extents + 64) * EXTENT),
        rotational: false,
        bdf: None,
        node: None,
        claim: DiskClaim::Pool { id, size: Bytes::new(extents * EXTENT) },
    });
    status
}

fn with_volume(extents: u64) -> Request {
    let volume = Volume {
        name: "scratch".parse().unwrap(),
        size: Bytes::new(extents * EXTENT),
        local: true,
        path: None,
    };
    Request { volumes: vec![volume], ..want(1, 64) }
}

#[test]
fn storage_is_promised_counted_and_short_like_the_rest() {
    let (a, b) = (with_pool(status("a", 1, 8, 8192), 30), with_pool(status("b", 1, 8, 8192), 20));
    let first = Promise { id: lease(1), wants: with_volume(15) };
    let hosts = [candidate(&a, Vec::new()), candidate(&b, vec![first.clone()])];
    assert_eq!(choose(&hosts[..1], &with_volume(30)).unwrap().as_str(), "a");
    assert_eq!(choose(&hosts, &with_volume(5)).unwrap().as_str(), "b", "less is left there");
    assert_eq!(
        choose(&hosts, &with_volume(31)),
        Err(vec![
            short("a", "volumes: 124 MiB wanted, 120 MiB free of 120 MiB"),
            short("b", "volumes: 124 MiB wanted, 20 MiB free of 80 MiB"),
        ])
    );
    let capacity = capacity(&b, &[first]);
    assert_eq!(capacity.storage, Bytes::new(20 * EXTENT));
    assert_eq!(capacity.storage_free, Bytes::new(5 * EXTENT));
}

#[test]
fn what_a_host_keeps_in_quarantine_is_not_promised() {
    let mut a = with_pool(status("a", 1, 4, 8192), 20);
    let mut keep = |resource| {
        a.quarantine.push(Quarantined {
            resource,
            lease: lease(1),
            reason: "canaries were read back".to_owned(),
            since: "2026-11-22T12:00:00Z".parse().unwrap(),
        });
    };
    keep(Resource::Cpu { cpus: BTreeSet::from([1, 5]) });
    keep(Resource::Volume {
        name: "scratch".parse().unwrap(),
        pool: "pool-of-a".to_owned(),
        extents: vec![Extent { start: 0, length: 15 * EXTENT }],
    });
    let capacity = capacity(&a, &[]);
    assert_eq!((capacity.cores_free, capacity.storage_free), (2, Bytes::new(5 * EXTENT)));
    assert!(choose(&[candidate(&a, Vec::new())], &with_volume(6)).is_err());
}

#[test]
fn a_host_as_a_whole_is_an_empty_one_and_the_smallest_that_does() {
    let (a, b, c) = (status("a", 2, 4, 8192), status("b", 1, 4, 8192), status("c", 1, 4, 8192));
    let whole = Request { whole: true, ..want(4, 4096) };
    let there = vec![promise(1, 1, 64)];
    let hosts = [candidate(&a, Vec::new()), candidate(&b, there), candidate(&c, Vec::new())];
    assert_eq!(choose(&hosts, &whole).unwrap().as_str(), "c");
    assert_eq!(
        choose(&hosts[1..2], &whole),
        Err(vec![short("b", "the host is wanted as a whole and has leases: t/l1")])
    );
    let promised = vec![Promise { id: lease(2), wants: whole }];
    assert!(choose(&[candidate(&c, promised)], &want(1, 64)).is_err());
}

/// What is free on each node by plain counting: cores, bytes, and whether nobody holds memory of it.
fn count_free(status: &HostStatus, held: &BTreeMap<LeaseId, Holding>) -> Vec<(u32, u64, bool)> {
    let count = |node: &NumaNode| {
        let free = status.inventory.cpu.cores.iter().filter(|core| {
            core.node == node.id
                && !core.cpus.contains(&0)
                && held.values().all(|h| h.cpus.is_disjoint(&core.cpus))
        });
        let house = if node.id == 0 { HOUSE_MEMORY.get() } else { 0 };
        let here = || held.values().filter(|h| h.memory_nodes.contains(&node.id));
        let used: u64 = here().map(|h| h.memory.get()).sum();
        let bytes = node.total.get().saturating_sub(house + used);
        (u32::try_from(free.count()).unwrap(), bytes, here().count() == 0)
    };
    status.inventory.memory.iter().map(count).collect()
}

/// Whether any set of nodes has room, by trying them all. Each node gives a core; beside a neighbour all
/// of the lease's memory must fit.
fn has_room(free: &[(u32, u64, bool)], wanted: &Request) -> bool {
    (1_u32..1 << free.len()).any(|set| {
        let chosen: Vec<_> =
            (0..free.len()).filter(|n| set & (1 << n) != 0).map(|n| free[n]).collect();
        let memory = wanted.memory.get();
        chosen.iter().all(|(cores, bytes, alone)| *cores > 0 && (*alone || *bytes >= memory))
            && u32::try_from(chosen.len()).is_ok_and(|nodes| nodes <= wanted.cores)
            && chosen.iter().map(|(cores, ..)| cores).sum::<u32>() >= wanted.cores
            && chosen.iter().map(|(_, bytes, _)| bytes).sum::<u64>() >= memory
    })
}

proptest! {
    /// A stream of leases over some hosts, some of which report what they hold and some not yet.
    #[test]
    fn every_acceptance_has_room_and_every_refusal_is_true(
        hosts in prop::collection::vec((1_u32..4, 1_u32..5, 900_u64..4096), 1..4),
        wanted in prop::collection::vec((1_u32..6, 16_u64..3000, any::<bool>()), 1..14),
    ) {
        let mut statuses: Vec<HostStatus> = hosts
            .iter()
            .enumerate()
            .map(|(n, (nodes, cores, mib))| status(&format!("h{n}"), *nodes, *cores, *mib))
            .collect();
        let mut promised: Vec<Vec<Promise>> = vec![Vec::new(); statuses.len()];
        for (number, (cores, mib, reports)) in wanted.into_iter().enumerate() {
            let wanted = want(cores, mib);
            let frees: Vec<Vec<(u32, u64, bool)>> = statuses
                .iter()
                .zip(&promised)
                .map(|(s, p)| count_free(s, &holdings(s, p).expect("what was accepted has room").held))
                .collect();
            let candidates: Vec<Candidate<'_>> =
                statuses.iter().zip(&promised).map(|(s, p)| candidate(s, p.clone())).collect();
            match choose(&candidates, &wanted) {
                Ok(id) => {
                    let at = statuses.iter().position(|s| s.host == id).unwrap();
                    prop_assert!(has_room(&frees[at], &wanted), "{id} has no room");
                    promised[at].push(Promise { id: lease(number), wants: wanted.clone() });
                    if reports {
                        let held = holdings(&statuses[at], &promised[at]).unwrap().held;
                        statuses[at].leases = held
                            .into_iter()
                            .map(|(id, holding)| {
                                let holding = Some(holding);
                                let status = LeaseStatus { holding, ..LeaseStatus::default() };
                                ReportedLease { id, status }
                            })
                            .collect();
                    }
                }
                Err(shortages) => {
                    prop_assert_eq!(shortages.len(), statuses.len());
                    for (free, shortage) in frees.iter().zip(&shortages) {
                        prop_assert!(!has_room(free, &wanted), "{shortage:?} is not true");
                        let cores: u32 = free.iter().map(|(cores, ..)| cores).sum();
                        let says = format!("cpus: {} cores wanted, {cores} free of", wanted.cores);
                        prop_assert_eq!(
                            shortage.short.iter().any(|s| s.starts_with(&says)),
                            cores < wanted.cores
                        );
                    }
                }
            }
        }
        // No CPU has two holders.
        for (status, promised) in statuses.iter().zip(&promised) {
            let held = holdings(status, promised).unwrap().held;
            let all: Vec<u32> = held.values().flat_map(|h| h.cpus.iter().copied()).collect();
            prop_assert_eq!(all.len(), all.iter().collect::<BTreeSet<_>>().len());
            let free: u32 = count_free(status, &held).iter().map(|(cores, ..)| cores).sum();
            prop_assert_eq!(capacity(status, promised).cores_free, free);
        }
    }
}
