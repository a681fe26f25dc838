//! Against the kernel of this machine, in network namespaces of the tests' own.

use std::thread;
use std::time::Duration;

use bulkhead_api::id::MacAddr;
use nix::sched::{CloneFlags, unshare};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::merge::{Routing, merge};
use crate::model::{GROUP_BASE, LinkName, Target};
use crate::plan::{LinkRef, NewLink};
use crate::testing::{Kit, desired, foreign, judge, recipe};
use crate::transaction::{
    Cause, Committed, Contact, Journal, NoContact, TransactionError, commit, recover,
};

/// Runs in a network namespace of its own, which goes with its thread.
fn in_namespace(test: impl FnOnce(&mut Netlink) + Send + 'static) {
    let run = move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root");
        let mut kernel = Netlink::open().unwrap();
        // The uplink, which is the host's: one end of a pair that nobody of ours made.
        let uplink = pair(&kernel.observe().unwrap(), "up0", "wire0", 0);
        let link = uplink.link.clone();
        let peer = LinkRef { index: link.index + 1, name: "wire0".parse().unwrap() };
        let ups = [Operation::SetUp(link), Operation::SetUp(peer)];
        kernel.apply(&[Operation::Create(uplink)]).unwrap();
        kernel.apply(&ups).unwrap();
        test(&mut kernel);
    };
    thread::spawn(run).join().unwrap();
}

fn pair(seen: &Observed, name: &str, peer: &str, group: u32) -> NewLink {
    let last = *seen.links.keys().next_back().unwrap();
    let peer_mac = Some(MacAddr::new([2, 9, 9, 9, 9, 9]));
    NewLink {
        link: LinkRef { index: last + 1, name: name.parse().unwrap() },
        kind: LinkKind::Veth { peer: peer.parse().unwrap(), peer_mac },
        group,
        mtu: Some(1500),
        mac: None,
        master: None,
        parent: None,
        peer_index: Some(last + 2),
    }
}

fn apply(kernel: &mut Netlink, target: &Target) -> Committed {
    commit(kernel, target, None, &mut NoContact, Duration::ZERO).unwrap_or_else(|error| {
        panic!("{}", bulkhead_api::chain::Chain(&error));
    })
}

#[test]
fn states_are_applied_read_back_equal_and_applied_again_without_a_change() {
    in_namespace(|kernel| {
        let mut runner = TestRunner::new_with_rng(
            Config::default(),
            proptest::test_runner::TestRng::deterministic_rng(
                proptest::test_runner::RngAlgorithm::ChaCha,
            ),
        );
        let before = foreign(&kernel.observe().unwrap());
        for _ in 0..40 {
            let recipe = recipe(Kit::Plain).new_tree(&mut runner).unwrap().current();
            let desired = desired(&recipe);
            let target = merge(&desired, Routing::Rules);
            let committed = apply(kernel, &target);
            assert_eq!(committed.refused, []);
            assert_eq!(committed.observed.unreadable, []);
            judge(&desired, Routing::Rules, &committed.observed);
            judge(&desired, Routing::Rules, &kernel.observe().unwrap());
            assert_eq!(apply(kernel, &target).operations, 0);
        }
        apply(kernel, &Target::default());
        let after = kernel.observe().unwrap();
        assert!(foreign(&after) == before, "what is foreign was touched");
        assert_eq!(after.ours().count(), 0);
        assert!(after.routes.is_empty() && after.rules.is_empty());
    });
}

#[test]
fn a_no_names_the_object_the_attribute_and_the_kernels_words() {
    in_namespace(|kernel| {
        let seen = kernel.observe().unwrap();
        let mut new = pair(&seen, "bad0", "bad1", 0);
        new.mtu = Some(7);
        let error = kernel.apply(&[Operation::Create(new)]).unwrap_err();
        assert!(error.change.starts_with("create veth bad0"), "{error}");
        let KernelError::Refused(refused) = error.source else { panic!("{error}") };
        assert_eq!(refused.errno, Errno::EINVAL);
        let mut taken = pair(&seen, "up0", "bad1", 0);
        taken.mtu = None;
        let error = kernel.apply(&[Operation::Create(taken)]).unwrap_err();
        assert_eq!(error.source.errno(), Some(Errno::EEXIST));
    });
}

#[test]
fn a_group_without_members_is_deleted_and_group_0_is_not() {
    in_namespace(|kernel| {
        let delete = |group| [Operation::DeleteGroup { group, links: 1 }];
        kernel.apply(&delete(GROUP_BASE + 4)).unwrap();
        let error = kernel.apply(&delete(0)).unwrap_err();
        assert_eq!(error.source.errno(), Some(Errno::EPERM));
    });
}

#[test]
fn an_answer_belongs_to_its_message_wherever_in_the_batch_it_fails() {
    in_namespace(|kernel| {
        let seen = kernel.observe().unwrap();
        let last = *seen.links.keys().next_back().unwrap();
        for at in [0_u32, 1, 63, 127, 128, 200] {
            let creates = (0..201_u32).map(|number| {
                let mut new =
                    pair(&seen, &format!("t{number}"), &format!("u{number}"), GROUP_BASE + 1);
                new.link.index = last + 1 + 2 * number;
                new.peer_index = Some(last + 2 + 2 * number);
                if number == at {
                    new.link.name = "up0".parse().unwrap();
                }
                Operation::Create(new)
            });
            let error = kernel.apply(&creates.collect::<Vec<_>>()).unwrap_err();
            assert!(error.change.starts_with("create veth up0"), "{at}: {}", error.change);
            kernel.apply(&[Operation::DeleteGroup { group: GROUP_BASE + 1, links: 0 }]).unwrap();
        }
    });
}

/// A supervisor that loses its contact when a link of this name is there.
struct Lost<'a> {
    asked: &'a mut u32,
}

impl Contact for Lost<'_> {
    fn confirmed(&mut self, _: Duration) -> bool {
        *self.asked += 1;
        false
    }
}

fn two_states() -> (crate::model::Desired, crate::model::Desired) {
    let mut runner = TestRunner::deterministic();
    let mut next = || loop {
        let recipe = recipe(Kit::Plain).new_tree(&mut runner).unwrap().current();
        let desired = desired(&recipe);
        if desired.ports.len() > 3 && desired.networks.len() > 2 {
            return desired;
        }
    };
    (next(), next())
}

#[test]
fn a_change_that_nobody_confirms_is_taken_back_on_the_real_kernel() {
    in_namespace(|kernel| {
        let (first, second) = two_states();
        apply(kernel, &merge(&first, Routing::Rules));
        let mut asked = 0;
        let target = merge(&second, Routing::Rules);
        let within = Duration::from_millis(1);
        let error = commit(kernel, &target, None, &mut Lost { asked: &mut asked }, within);
        assert!(
            matches!(error, Err(TransactionError::RolledBack { cause: Cause::NoContact(_), .. })),
            "{error:?}"
        );
        assert_eq!(asked, 1);
        judge(&first, Routing::Rules, &kernel.observe().unwrap());
    });
}

#[test]
fn a_no_in_the_middle_leaves_the_old_state() {
    in_namespace(|kernel| {
        let (first, second) = two_states();
        apply(kernel, &merge(&first, Routing::Rules));
        let mut target = merge(&second, Routing::Rules);
        // The kernel takes no such MTU of a pair.
        let link = target.links.values_mut().find(|l| matches!(l.kind, LinkKind::Veth { .. }));
        link.unwrap().mtu = Some(1);
        let error = commit(kernel, &target, None, &mut NoContact, Duration::ZERO);
        assert!(
            matches!(error, Err(TransactionError::RolledBack { cause: Cause::Apply(_), .. })),
            "{error:?}"
        );
        judge(&first, Routing::Rules, &kernel.observe().unwrap());
    });
}

#[test]
fn a_start_goes_back_to_the_checkpoint_of_a_change_with_an_open_outcome() {
    struct Dies;
    impl Contact for Dies {
        fn confirmed(&mut self, _: Duration) -> bool {
            // As a process that is killed while it waits.
            std::panic::resume_unwind(Box::new("killed"));
        }
    }
    in_namespace(|kernel| {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::at(&folder.path().join("checkpoint.json"));
        let (first, second) = two_states();
        apply(kernel, &merge(&first, Routing::Rules));
        assert!(!recover(kernel, &journal).unwrap());
        let target = merge(&second, Routing::Rules);
        let killed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            commit(kernel, &target, Some(&journal), &mut Dies, Duration::ZERO)
        }));
        assert!(killed.is_err());
        judge(&second, Routing::Rules, &kernel.observe().unwrap());
        let mut kernel = Netlink::open().unwrap();
        assert!(recover(&mut kernel, &journal).unwrap());
        judge(&first, Routing::Rules, &kernel.observe().unwrap());
        assert!(!recover(&mut kernel, &journal).unwrap());
    });
}

#[test]
fn the_tenants_end_may_be_elsewhere_and_the_group_takes_it_along() {
    in_namespace(|kernel| {
        let (first, _) = two_states();
        let target = merge(&first, Routing::Rules);
        apply(kernel, &target);
        let seen = kernel.observe().unwrap();
        let ends = seen.ours().filter(|link| link.name.as_str().starts_with("bq"));
        let ends: Vec<LinkName> = ends.map(|link| link.name.clone()).collect();
        assert!(!ends.is_empty());
        let (moved, gone) = (std::sync::mpsc::channel(), std::sync::mpsc::channel::<()>());
        let namespace = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
        let names = ends.clone();
        let (send, receive) = moved;
        let (leave, stay) = gone;
        let other = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let here = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
            send.send(here).unwrap();
            stay.recv().unwrap();
            let seen = Netlink::open().unwrap().observe().unwrap();
            names.iter().filter(|name| seen.link(name).is_some()).count()
        });
        let there = receive.recv().unwrap();
        for name in &ends {
            let index = seen.link(name).unwrap().index;
            kernel.move_to(index, &there).unwrap();
        }
        drop(namespace);
        assert_eq!(
            apply(kernel, &target).operations,
            0,
            "a port whose end is elsewhere is settled"
        );
        judge(&first, Routing::Rules, &kernel.observe().unwrap());
        apply(kernel, &Target::default());
        leave.send(()).unwrap();
        assert_eq!(other.join().unwrap(), 0, "ends are left in the tenant's namespace");
    });
}

proptest! {
    #[test]
    fn any_bytes_are_messages_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for message in socket::messages(&bytes).unwrap_or_default() {
            let _ = socket::acknowledgement(message, &bytes);
        }
        let _ = attribute::at(&bytes, bytes.len() / 2);
        let _ = attribute::words(&bytes);
    }
}

#[test]
fn a_length_that_does_not_fit_ends_the_messages() {
    let message =
        |length: u32| [&length.to_ne_bytes()[..], &[2, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]].concat();
    assert_eq!(socket::messages(&message(16)).unwrap().len(), 1);
    assert!(socket::messages(&message(15)).is_err());
    assert!(socket::messages(&message(17)).is_err());
    assert!(socket::messages(&message(16)[..15]).is_err());
    assert_eq!(socket::messages(&[message(16), message(16)].concat()).unwrap().len(), 2);
}
