use bulkhead_api::network::Egress;
use expect_test::expect_file;

use super::ruleset::{Limit, Ruleset, differences, render};
use super::{Refusal, compile, sample};
use crate::model::{Desired, LinkName, Role};

fn of(desired: &Desired) -> Ruleset {
    compile(desired, &sample::access()).ruleset
}

#[test]
fn the_text_of_two_tenants_is_as_it_was_read_by_people() {
    let mut desired = sample::desired(2, 1, 2);
    let (one, two) = (sample::id(1, 1), sample::id(2, 1));
    desired.networks.get_mut(&one).unwrap().peers.insert(two.clone());
    desired.networks.get_mut(&two).unwrap().peers.insert(one);
    let egress = Egress::To(vec![sample::prefix("203.0.113.0/24")]);
    desired.networks.get_mut(&two).unwrap().egress = egress;
    let access = super::Access { vrfs: false, ..sample::access() };
    expect_file!["two_tenants.nft"].assert_eq(&render(&compile(&desired, &access).ruleset));
}

#[test]
fn the_same_state_gives_the_same_text() {
    let (once, again) = (of(&sample::desired(3, 2, 2)), of(&sample::desired(3, 2, 2)));
    assert_eq!(render(&once), render(&again));
    assert_ne!(once, of(&sample::desired(3, 2, 1)));
}

#[test]
fn two_tenants_with_the_same_addresses_are_apart_and_the_later_has_no_egress() {
    let mut desired = sample::desired(2, 1, 1);
    let subnets = desired.networks[&sample::id(1, 1)].subnets.clone();
    let later = desired.networks.get_mut(&sample::id(2, 1)).unwrap();
    later.subnets = subnets;
    let compiled = compile(&desired, &sample::access());
    let said: Vec<String> = compiled.refused.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "egress of t2/n1 (10.1.1.0/24): answers would have the same addresses as those to t1/n1 (10.1.1.0/24)"
        ]
    );
    let later = desired.networks.get_mut(&sample::id(2, 1)).unwrap();
    later.egress = Egress::Deny;
    assert_eq!(of(&desired), compiled.ruleset);
    assert_eq!(compile(&desired, &sample::access()).refused, []);
}

#[test]
fn a_subnet_within_anothers_is_found_whoever_comes_between() {
    let mut desired = sample::desired(3, 1, 0);
    let mut put = |tenant: u16, text: &str| {
        let network = desired.networks.get_mut(&sample::id(tenant, 1)).unwrap();
        network.subnets.truncate(1);
        network.subnets[0].prefix = sample::prefix(text);
    };
    put(1, "10.0.0.0/8");
    put(2, "10.1.0.0/16");
    put(3, "10.200.0.0/16");
    let refused = compile(&desired, &sample::access()).refused;
    let second: Vec<String> = refused
        .iter()
        .map(|refusal| {
            let Refusal::SameReturn { second, .. } = refusal else { panic!("{refusal}") };
            second.to_string()
        })
        .collect();
    assert_eq!(second, ["t2/n1", "t3/n1"]);
}

#[test]
fn what_is_wrong_takes_nothing_from_others() {
    let good = of(&sample::desired(2, 1, 1));
    let mut desired = sample::desired(2, 1, 1);
    sample::add(&mut desired, 9, 1, 1);
    desired.tenants.remove(&sample::id(9, 1).tenant);
    let mut access = sample::access();
    let mut idle = access.services[0].clone();
    idle.limit = Limit { packets_a_second: 0, burst: 1 };
    access.services.push(idle);
    let compiled = compile(&desired, &access);
    let refused = [Refusal::NoNumber(sample::id(9, 1)), Refusal::NoRate(2)];
    assert_eq!(compiled.refused, refused);
    assert_eq!(differences(&compiled.ruleset, &good), Vec::<String>::new());
}

#[test]
fn a_virtual_function_has_no_rules_of_a_bridge() {
    let mut desired = sample::desired(1, 1, 1);
    let id = sample::port(1, 1, 1);
    desired.ports.get_mut(&id).unwrap().kind = bulkhead_api::network::PortKind::Vf;
    let text = render(&of(&desired));
    assert!(!text.contains(LinkName::of_port(Role::Port, &id).as_str()));
    assert!(text.contains(LinkName::of_network(Role::Bridge, &sample::id(1, 1)).as_str()));
}
