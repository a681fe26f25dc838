use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::samples::{at, mac};

fn small() -> Pool {
    Pool { first: [10, 9, 0, 100].into(), last: [10, 9, 0, 102].into() }
}

fn address(last: u8) -> Ipv4Addr {
    [10, 9, 0, last].into()
}

/// Offers the candidate and binds it.
fn settle(bindings: &mut Bindings, number: u8, now: Timestamp) -> Option<Ipv4Addr> {
    let address = bindings.candidate(mac(number), None, &small(), now)?;
    bindings.offer(mac(number), address, now);
    bindings.bind(mac(number), address);
    Some(address)
}

#[test]
fn a_machine_keeps_its_address_for_ever() {
    let mut bindings = Bindings::default();
    let first = settle(&mut bindings, 1, at(0)).unwrap();
    assert_eq!(settle(&mut bindings, 2, at(1)), Some(address(101)));
    let years = at(10 * 365 * 24 * 3600);
    assert_eq!(bindings.candidate(mac(1), Some(address(102)), &small(), years), Some(first));
}

#[test]
fn time_alone_frees_no_address_that_was_used() {
    let mut bindings = Bindings::default();
    for number in 1..=3 {
        assert!(settle(&mut bindings, number, at(0)).is_some());
    }
    let years = at(10 * 365 * 24 * 3600);
    assert_eq!(bindings.candidate(mac(4), None, &small(), years), None);
}

#[test]
fn a_wish_is_granted_where_nobody_has_the_address() {
    let mut bindings = Bindings::default();
    let wish = |bindings: &Bindings, number, last| {
        bindings.candidate(mac(number), Some(address(last)), &small(), at(0))
    };
    assert_eq!(wish(&bindings, 1, 102), Some(address(102)));
    bindings.bind(mac(1), address(102));
    assert_eq!(wish(&bindings, 2, 102), Some(address(100)), "taken");
    assert_eq!(wish(&bindings, 2, 200), Some(address(100)), "outside the pool");
}

#[test]
fn an_offer_that_nobody_took_runs_out_and_a_released_address_is_reused_last() {
    let mut bindings = Bindings::default();
    bindings.offer(mac(1), address(100), at(0));
    bindings.bind(mac(2), address(101));
    bindings.bind(mac(3), address(102));
    let free = |bindings: &Bindings, now| bindings.candidate(mac(9), None, &small(), now);
    assert_eq!(free(&bindings, at(OFFER_SECONDS - 1)), None);
    assert!(bindings.release(mac(2), address(101), at(10)));
    assert_eq!(free(&bindings, at(11)), Some(address(101)), "nothing else is free");
    assert_eq!(free(&bindings, at(OFFER_SECONDS)), Some(address(100)), "never used, so first");
    assert_eq!(bindings.candidate(mac(2), None, &small(), at(500)), Some(address(101)));
    assert!(!bindings.release(mac(2), address(102), at(500)), "not its own");
}

#[test]
fn an_offer_does_not_loosen_a_binding() {
    let mut bindings = Bindings::default();
    assert!(bindings.bind(mac(1), address(100)));
    bindings.offer(mac(1), address(100), at(0));
    assert_eq!(bindings.get(mac(1)).unwrap().hold, Hold::Bound);
    assert!(!bindings.bind(mac(1), address(100)), "no news");
    assert!(!bindings.withdraw(mac(1)), "a bound address is no offer");
}

#[test]
fn a_declined_address_rests_for_a_day() {
    let mut bindings = Bindings::default();
    bindings.bind(mac(1), address(100));
    assert!(!bindings.decline(mac(2), address(100), at(0)), "somebody else's");
    assert!(bindings.decline(mac(1), address(100), at(0)));
    let offered = |now| bindings.candidate(mac(1), Some(address(100)), &small(), now).unwrap();
    assert_eq!(offered(at(DECLINE_SECONDS - 1)), address(101));
    assert_eq!(offered(at(DECLINE_SECONDS)), address(100));
}

#[test]
fn another_servers_client_gives_its_offer_back() {
    let mut bindings = Bindings::default();
    bindings.offer(mac(1), address(100), at(0));
    assert!(bindings.withdraw(mac(1)));
    assert_eq!(bindings.candidate(mac(2), None, &small(), at(0)), Some(address(100)));
}

#[derive(Debug, Clone)]
enum Op {
    Settle(u8),
    Offer(u8),
    Withdraw(u8),
    Release(u8),
    Decline(u8),
    Wait(i64),
}

fn op() -> impl Strategy<Value = Op> {
    let who = 1..6_u8;
    prop_oneof![
        who.clone().prop_map(Op::Settle),
        who.clone().prop_map(Op::Offer),
        who.clone().prop_map(Op::Withdraw),
        who.clone().prop_map(Op::Release),
        who.prop_map(Op::Decline),
        (0..200_000_i64).prop_map(Op::Wait),
    ]
}

proptest! {
    /// The oracle keeps its own list of who uses what and never asks the code under test.
    #[test]
    fn no_address_is_ever_used_by_two_machines(ops in proptest::collection::vec(op(), 1..80)) {
        let mut bindings = Bindings::default();
        let mut uses: BTreeMap<u8, Ipv4Addr> = BTreeMap::new();
        let mut rests: BTreeMap<Ipv4Addr, i64> = BTreeMap::new();
        let mut time = 0;
        for op in ops {
            match op {
                Op::Wait(seconds) => time += seconds,
                Op::Offer(who) => {
                    let now = at(time);
                    if let Some(address) = bindings.candidate(mac(who), None, &small(), now) {
                        bindings.offer(mac(who), address, now);
                    }
                }
                Op::Settle(who) => if let Some(given) = settle(&mut bindings, who, at(time)) {
                    prop_assert!(small().contains(given));
                    let other = uses.iter().find(|(other, used)| **other != who && **used == given);
                    prop_assert_eq!(other, None, "{} for {}", given, who);
                    let rest = rests.get(&given).copied().unwrap_or(0);
                    prop_assert!(time >= rest, "{} rests until {}", given, rest);
                    if let Some(before) = uses.insert(who, given) {
                        prop_assert_eq!(before, given, "an address that was in use changed");
                    }
                },
                Op::Withdraw(who) => {
                    bindings.withdraw(mac(who));
                }
                Op::Release(who) => if let Some(used) = uses.remove(&who) {
                    prop_assert!(bindings.release(mac(who), used, at(time)));
                },
                Op::Decline(who) => if let Some(used) = uses.remove(&who) {
                    prop_assert!(bindings.decline(mac(who), used, at(time)));
                    rests.insert(used, time + DECLINE_SECONDS);
                },
            }
            for (who, used) in &uses {
                prop_assert_eq!(bindings.get(mac(*who)).map(|held| held.address), Some(*used));
                prop_assert_eq!(bindings.holder(*used), Some(mac(*who)));
            }
        }
    }
}
