//! `prove` against hosts of a generator of its own, with and without a planted fault; its mutants killed.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_api::isolation::{Class, DeviceKind, Facts, Holder, HolderFacts};
use bulkhead_api::lease::Isolation;
use bulkhead_api::units::Bytes;
use proptest::prelude::*;

use super::planted::{self, Fault, SHAPE, Shape, id};
use super::{CHECKS, planted_devices, prove, prove_by};

fn faults() -> impl Iterator<Item = Fault> {
    planted::FAULTS.into_iter().chain(planted_devices::FAULTS)
}

fn isolated(shape: Shape) -> Facts {
    shape.facts()
}

fn classes(facts: &Facts) -> BTreeSet<Class> {
    prove(facts).violations.iter().map(|violation| violation.class).collect()
}

fn sentence(name: &str) -> String {
    let (_, _, plant) = faults().find(|(fault, ..)| *fault == name).unwrap();
    let mut facts = isolated(SHAPE);
    plant(&mut facts);
    prove(&facts).violations[0].message.clone()
}

#[test]
fn a_host_without_leases_is_isolated_even_where_it_is_hardly_readable() {
    assert_eq!(prove(&Facts::default()).violations, []);
    let facts = Facts { unreadable: vec!["list /proc".to_owned()], ..Facts::default() };
    assert_eq!(
        classes(&facts),
        BTreeSet::from([Class::NotObservable]),
        "whether it has any is open"
    );
}

#[test]
fn a_violation_names_who_what_and_the_way() {
    for (fault, message) in [
        ("all CPUs of a neighbour", "CPUs 5,13 are in effect for even/l0 and odd/l1"),
        (
            "the other thread of a neighbour's core",
            "CPU 13 of even/l0 is SMT sibling of CPU 5 of odd/l1 in core 1 of socket 1",
        ),
        (
            "a process on a free CPU",
            "processes 1000-1001 of even/l0 may use CPUs 0, which are not in effect for it",
        ),
        (
            "the last user id of a neighbour",
            "user ids 268632063+1 of even/l0 overlap 268566528+65536 of odd/l1",
        ),
        ("root of the host", "user ids 0+65536 of the host overlap 0+1 of even/l0"),
        ("the network of a neighbour", "net namespace 4026532023 is that of even/l0 and of odd/l1"),
        ("the host's processes", "pid namespace 4026532004 of even/l0 is the host's"),
        (
            "bounds above the node",
            "memory of nodes 0: bounds of even/l0, even/l2 are 4352 MiB together, the nodes have 4096 MiB",
        ),
        (
            "a tenant's process elsewhere",
            "process 311 of even/l0 is outside its slice, in /system.slice/x",
        ),
        (
            "a lease that was not granted",
            "process 1000 runs for even/l0, which was not granted here",
        ),
        (
            "a namespace that cannot be read",
            "not observable of processes 1000-1001 of even/l0: ipc namespace",
        ),
        (
            "somebody behind a cache of its own",
            "L3 cache of CPUs 0-3,8-11 serves even/l0 and even/l2, and even/l0 is to have it alone",
        ),
        (
            "somebody in a socket of its own",
            "sockets 0, memory nodes 0 serve even/l0 and even/l2, and even/l0 is to have them alone",
        ),
        (
            "a volume that a neighbour opened",
            "device dm-1 (bulkhead-l0) is reached by even/l0 and odd/l1",
        ),
        (
            "a device that nobody knows",
            "device c 240:7 (c 240:7) is reached by even/l0 (open), and nothing is known of it",
        ),
        (
            "two functions of one group",
            "0000:10:01.0 of even/l0 and 0000:10:01.1 of odd/l1 are in IOMMU group 21",
        ),
        (
            "a trusted function",
            "0000:10:01.0 of even/l0 is trusted and can pose as functions of even/l2, odd/l1 and odd/l3 on card \
             0000:10:00.0",
        ),
        (
            "one VLAN of two tenants",
            "0000:10:01.0 of even/l0 and 0000:10:01.1 of odd/l1 are both in the VLAN 101 of 0000:10:00.0",
        ),
        (
            "one key of two volumes",
            "key logon:bulkhead:l1 opens dm-1 (bulkhead-l0) of even/l0 and dm-2 (bulkhead-l1) of odd/l1",
        ),
        (
            "the partition beneath volumes",
            "device nvme0n1p2 is reached by even/l0, and dm-2 (bulkhead-l1) of odd/l1 lies on it",
        ),
        ("a way of a neighbour", "ways 4 of cache 0 are of even/l0 and of odd/l1"),
        ("a CPU in a neighbour's group", "CPUs 5,13 of odd/l1 fill the cache ways of even/l0"),
    ] {
        assert_eq!(sentence(fault), message, "{fault}");
    }
}

#[test]
fn a_violation_between_two_names_both() {
    let mut facts = isolated(SHAPE);
    faults().next().unwrap().2(&mut facts);
    let violation = &prove(&facts).violations[0];
    assert_eq!(violation.holders, [Holder::Lease(id(0)), Holder::Lease(id(1))]);
    assert_eq!(violation.resource, "CPUs 5,13");
}

#[test]
fn caches_memory_bandwidth_and_the_hosts_own_programs_are_notes() {
    let notes = prove(&isolated(SHAPE)).notes;
    let count = |class| notes.iter().filter(|note| note.class == class).count();
    assert_eq!(count(Class::SharedCache), 2, "two leases on each of two sockets");
    assert_eq!(count(Class::SharedNode), 2);
    assert_eq!(count(Class::HostCpus), 4);
    let kvm = "/dev/kvm makes virtual machines for even/l0, odd/l1, even/l2 and odd/l3";
    assert!(notes.iter().any(|note| note.message == kvm), "{notes:?}");
    let expected = "L3 cache of CPUs 0-3,8-11 serves even/l0 and even/l2";
    assert!(notes.iter().any(|note| note.message == expected), "{notes:?}");
}

#[test]
fn an_empty_group_of_nobody_holds_nothing_that_runs() {
    let mut facts = isolated(SHAPE);
    facts.memory.iter_mut().for_each(|node| node.hugepages.clear());
    for holder in &mut facts.holders {
        holder.hugepages.clear();
    }
    facts.holders.push(HolderFacts {
        cpus: Some(facts.cores[0].cpus.clone()),
        memory_nodes: Some(BTreeSet::from([0])),
        memory_max: Some(Bytes::new(0)),
        ..HolderFacts::new(Holder::Unknown("/tenant.slice/left over".to_owned()))
    });
    assert_eq!(classes(&facts), BTreeSet::new());
}

#[test]
fn without_the_host_in_the_facts_nothing_is_shown_to_be_isolated() {
    let mut facts = isolated(SHAPE);
    facts.holders.remove(0);
    assert_eq!(classes(&facts), BTreeSet::from([Class::NotObservable]));
}

/// Each mutant is `prove` without one of its checks. It is killed by the faults of that class, which it does not
/// find; and no other check finds them in its place.
#[test]
fn every_mutant_without_a_check_misses_a_planted_fault() {
    let mut wrong = Vec::new();
    for (at, (class, _)) in CHECKS.iter().enumerate() {
        let mut mutant = CHECKS.to_vec();
        mutant.remove(at);
        let mut killed = 0;
        for (name, _, plant) in faults().filter(|(_, of, _)| of == class) {
            let mut facts = isolated(SHAPE);
            plant(&mut facts);
            let (all, others) = (prove(&facts).violations, prove_by(&mutant, &facts).violations);
            if all.is_empty() || !others.is_empty() {
                wrong.push(format!("{name}, {class:?}: {all:?}"));
            }
            killed += 1;
        }
        assert!(killed > 0, "no fault is planted for {class:?}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn shapes() -> impl Strategy<Value = Shape> {
    (1_u32..5, 2_u32..5, 2_u32..9).prop_map(|(nodes, threads, leases)| Shape {
        nodes,
        cores: leases + 1,
        threads,
        leases,
        each: 1,
        gpus: 2,
    })
}

#[test]
fn a_lease_that_has_its_cache_or_socket_alone_is_let_be() {
    for level in [Isolation::L3, Isolation::Socket] {
        let mut facts = isolated(Shape { leases: 2, ..SHAPE });
        facts.levels = BTreeMap::from([(id(0), level), (id(1), level)]);
        assert_eq!(prove(&facts).violations, [], "{level:?}");
    }
}

#[test]
fn leases_of_one_tenant_may_be_in_one_network() {
    let facts = isolated(SHAPE);
    let in_one = |vlan| {
        facts.devices.iter().filter_map(|d| d.port.as_ref()).filter(|p| p.vlan == vlan).count()
    };
    assert_eq!(in_one(Some(100)), 2, "even/l0 and even/l2");
    assert_eq!(prove(&facts).violations, []);
}

#[test]
fn devices_that_lie_on_each_other_in_a_circle_end_the_search() {
    let mut facts = isolated(SHAPE);
    for device in &mut facts.devices {
        if let DeviceKind::Mapping { under, .. } = &mut device.kind {
            under[0].device = "dm-1".to_owned();
            under[1].device = "dm-2".to_owned();
        }
    }
    facts.functions[0].parent = Some("0000:00:01.0".to_owned());
    assert!(classes(&facts).contains(&Class::NotObservable), "{:?}", classes(&facts));
}

#[test]
fn facts_with_every_kind_of_device_read_as_they_were_written() {
    let mut facts = isolated(SHAPE);
    facts.levels.insert(id(0), Isolation::L3);
    let text = serde_json::to_string(&facts).unwrap();
    assert_eq!(serde_json::from_str::<Facts>(&text).unwrap(), facts);
}

proptest! {
    #[test]
    fn hosts_whose_leases_share_nothing_have_no_violation(shape in shapes()) {
        prop_assert_eq!(prove(&isolated(shape)).violations, vec![]);
    }

    #[test]
    fn every_planted_fault_is_found_as_what_it_is(shape in shapes()) {
        for (name, class, plant) in faults() {
            let mut facts = isolated(shape);
            plant(&mut facts);
            prop_assert_eq!(classes(&facts), BTreeSet::from([class]), "{}", name);
        }
    }

    /// The order in which the kernel lists things says nothing.
    #[test]
    fn the_order_of_holders_does_not_matter(shape in shapes(), fault in 0..faults().count()) {
        let mut facts = isolated(shape);
        faults().nth(fault).unwrap().2(&mut facts);
        let before = classes(&facts);
        facts.holders.reverse();
        facts.devices.reverse();
        facts.functions.reverse();
        prop_assert_eq!(classes(&facts), before);
    }
}
