//! `prove` against hosts of a generator of its own, with and without a planted fault; its mutants killed.

use std::collections::BTreeSet;

use bulkhead_api::isolation::{Class, Facts, Holder, HolderFacts};
use bulkhead_api::units::Bytes;
use proptest::prelude::*;

use super::planted::{FAULTS, SHAPE, Shape, id, isolated};
use super::{CHECKS, prove, prove_by};

fn classes(facts: &Facts) -> BTreeSet<Class> {
    prove(facts).violations.iter().map(|violation| violation.class).collect()
}

fn sentence(name: &str) -> String {
    let (_, _, plant) = FAULTS.iter().find(|(fault, ..)| *fault == name).unwrap();
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
    ] {
        assert_eq!(sentence(fault), message, "{fault}");
    }
}

#[test]
fn a_violation_between_two_names_both() {
    let mut facts = isolated(SHAPE);
    FAULTS[0].2(&mut facts);
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
    let expected = "L3 cache of CPUs 0-3,8-11 serves even/l0 and even/l2";
    assert!(notes.iter().any(|note| note.message == expected), "{notes:?}");
}

#[test]
fn an_empty_group_of_nobody_holds_nothing_that_runs() {
    let mut facts = isolated(SHAPE);
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
    for (at, (class, _)) in CHECKS.iter().enumerate() {
        let mut mutant = CHECKS.to_vec();
        mutant.remove(at);
        let mut killed = 0;
        for (name, _, plant) in FAULTS.iter().filter(|(_, of, _)| of == class) {
            let mut facts = isolated(SHAPE);
            plant(&mut facts);
            assert_ne!(prove(&facts).violations, [], "{name}");
            assert_eq!(prove_by(&mutant, &facts).violations, [], "{name} without {class:?}");
            killed += 1;
        }
        assert!(killed > 0, "no fault is planted for {class:?}");
    }
}

fn shapes() -> impl Strategy<Value = Shape> {
    (1_u32..5, 2_u32..5, 2_u32..9).prop_map(|(nodes, threads, leases)| Shape {
        nodes,
        cores: leases + 1,
        threads,
        leases,
    })
}

proptest! {
    #[test]
    fn hosts_whose_leases_share_nothing_have_no_violation(shape in shapes()) {
        prop_assert_eq!(prove(&isolated(shape)).violations, vec![]);
    }

    #[test]
    fn every_planted_fault_is_found_as_what_it_is(shape in shapes()) {
        for (name, class, plant) in FAULTS {
            let mut facts = isolated(shape);
            plant(&mut facts);
            prop_assert_eq!(classes(&facts), BTreeSet::from([class]), "{}", name);
        }
    }

    /// The order in which the kernel lists things says nothing.
    #[test]
    fn the_order_of_holders_does_not_matter(shape in shapes(), fault in 0..FAULTS.len()) {
        let mut facts = isolated(shape);
        FAULTS[fault].2(&mut facts);
        let before = classes(&facts);
        facts.holders.reverse();
        prop_assert_eq!(classes(&facts), before);
    }
}
