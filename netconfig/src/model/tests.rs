use std::collections::BTreeSet;

use bulkhead_api::id::{LeaseId, TenantName};
use bulkhead_api::network::NetworkId;
use proptest::prelude::*;

use super::*;

fn network(tenant: &str, name: &str) -> NetworkId {
    NetworkId { tenant: tenant.parse().unwrap(), name: name.parse().unwrap() }
}

#[test]
fn names_are_of_the_kernels_length_and_stay_the_same() {
    let name = LinkName::of_network(Role::Bridge, &network("acme", "data"));
    assert_eq!(name.as_str().len(), LinkName::MAX);
    assert_eq!(name, LinkName::of_network(Role::Bridge, &network("acme", "data")));
    assert!(name.as_str().starts_with("bb"));
    assert_eq!(name.to_string().parse(), Ok(name));
}

#[test]
fn where_one_word_ends_and_the_next_begins_makes_another_name() {
    let all = [network("a", "bc"), network("ab", "c"), network("abc", "d"), network("a", "b")];
    let names: BTreeSet<_> = all.iter().map(|id| LinkName::of_network(Role::Vxlan, id)).collect();
    assert_eq!(names.len(), all.len());
}

#[test]
fn both_ends_of_a_port_differ_in_one_letter() {
    let lease = LeaseId { tenant: "acme".parse().unwrap(), name: "llm".parse().unwrap() };
    let port = PortId { lease, network: "data".parse().unwrap() };
    let ours = LinkName::of_port(Role::Port, &port).to_string();
    let theirs = LinkName::of_port(Role::Peer, &port).to_string();
    assert_eq!(ours.replacen("bp", "bq", 1), theirs);
}

#[test]
fn a_name_that_means_more_than_itself_is_refused() {
    for text in ["", "a/b", "a:b", "..", ".", "eth*", "a\"b", "a b", "sixteen-letters-", "ü"] {
        assert!(text.parse::<LinkName>().is_err(), "{text:?}");
    }
    for text in ["lo", "enp3s0f0v12", "eth0.4094", "fifteen-letters"] {
        assert!(text.parse::<LinkName>().is_ok(), "{text:?}");
    }
}

#[test]
fn groups_of_tenants_are_ours_and_neither_the_underlays_nor_the_trash() {
    for number in [1, 2, 65_534] {
        let group = TenantNumber::try_from(number).unwrap().group();
        assert!(is_ours(group) && group != UNDERLAY_GROUP && group != TRASH_GROUP);
    }
    assert!(TenantNumber::try_from(0).is_err() && TenantNumber::try_from(65_535).is_err());
    assert!(!is_ours(0) && !is_ours(GROUP_BASE - 1) && !is_ours(GROUP_LAST + 1));
}

#[test]
fn one_sides_word_is_no_peering() {
    let (one, two) = (network("acme", "a"), network("beta", "b"));
    let plain = Network {
        segment: Segment::Vni(7.try_into().unwrap()),
        subnets: vec![],
        mtu: 1450,
        ports_talk: false,
        peers: BTreeSet::new(),
        egress: bulkhead_api::network::Egress::Deny,
    };
    let mut desired = Desired::default();
    desired.networks.insert(one.clone(), Network { peers: [two.clone()].into(), ..plain.clone() });
    desired.networks.insert(two.clone(), plain);
    assert!(desired.peerings().is_empty());
    desired.networks.get_mut(&two).unwrap().peers.insert(one.clone());
    assert_eq!(desired.peerings(), [Peering { first: &one, second: &two }].into());
}

#[test]
fn a_desired_state_is_the_same_after_json() {
    let text = r#"{"tenants":{"acme":7},"underlay":{},"networks":[[{"tenant":"acme","name":"a"},
        {"segment":{"vni":7},"mtu":1450,"subnets":[{"prefix":"10.0.0.0/24","gateway":"10.0.0.1"}]}]],
        "ports":[[{"lease":{"tenant":"acme","name":"l"},"network":"a"},{"kind":"veth","mac":"02:00:00:00:00:01"}]]}"#;
    let desired: Desired = serde_json::from_str(text).unwrap();
    let again: Desired = serde_json::from_str(&serde_json::to_string(&desired).unwrap()).unwrap();
    assert_eq!(again, desired);
    assert_eq!(desired.tenants[&"acme".parse::<TenantName>().unwrap()].group(), GROUP_BASE + 7);
}

proptest! {
    #[test]
    fn any_text_is_a_name_or_refused(text in "\\PC{0,20}") {
        if let Ok(name) = text.parse::<LinkName>() {
            prop_assert_eq!(name.to_string(), text);
        }
    }
}
