use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::document::from_json;

fn document() -> Value {
    json!({
        "apiVersion": "bulkhead.io/v1",
        "metadata": { "name": "data", "tenant": "acme" },
        "spec": { "vni": 7001, "subnets": [{ "prefix": "10.7.0.0/24", "gateway": "10.7.0.1" }, { "prefix": "fd00:7::/64" }] }
    })
}

/// The field that is at fault after a change of the specification.
fn fault(change: impl FnOnce(&mut Value)) -> (String, String) {
    let mut document = document();
    change(&mut document["spec"]);
    match from_json::<Network>(document.to_string().as_bytes()) {
        Err(error) => (error.path, error.message),
        Ok(network) => network.spec.check().expect_err("a fault"),
    }
}

#[test]
fn a_network_is_read_and_written_back() {
    let network: Network = from_json(document().to_string().as_bytes()).unwrap();
    network.spec.check().unwrap();
    assert_eq!(network.spec.mtu, 1450);
    assert_eq!(network.spec.egress, Egress::Deny);
    let again: Network = from_json(&serde_json::to_vec(&network).unwrap()).unwrap();
    assert_eq!(again, network);
}

#[test]
fn numbers_out_of_range_name_their_field() {
    for vlan in [0, 4095] {
        let (path, message) = fault(|spec| spec["vlan"] = json!(vlan));
        assert_eq!(path, "spec.vlan");
        assert!(message.contains(&format!("VLAN {vlan}: expected 1 to 4094")), "{message}");
    }
    for vni in [0, 1 << 24] {
        let (path, message) = fault(|spec| spec["vni"] = json!(vni));
        assert_eq!(path, "spec.vni");
        assert!(message.contains(&format!("VNI {vni}: expected 1 to 16777215")), "{message}");
    }
    assert_eq!(fault(|spec| spec["mtu"] = json!(1279)).0, "spec.mtu");
    assert_eq!(fault(|spec| spec["mtu"] = json!(9217)).0, "spec.mtu");
}

#[test]
fn a_network_is_either_a_vlan_or_a_vxlan() {
    assert_eq!(fault(|spec| spec["vlan"] = json!(5)).0, "spec.vni");
    assert_eq!(fault(|spec| spec["vni"] = Value::Null).0, "spec.vni");
}

#[test]
fn subnets_that_contradict_each_other_name_the_later() {
    let with = |subnet: Value| fault(|spec| spec["subnets"].as_array_mut().unwrap().push(subnet));
    let (path, message) = with(json!({ "prefix": "10.7.0.128/25" }));
    assert_eq!(path, "spec.subnets[2].prefix");
    assert_eq!(message, "10.7.0.128/25 overlaps 10.7.0.0/24");
    assert_eq!(with(json!({ "prefix": "fd00::/16" })).0, "spec.subnets[2].prefix");
    for special in
        ["127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/8", "fe80::/64", "ff00::/8", "8.0.0.0/7"]
    {
        assert_eq!(with(json!({ "prefix": special })).0, "spec.subnets[2].prefix", "{special}");
    }
    assert_eq!(with(json!({ "prefix": "10.8.0.1/24" })).0, "spec.subnets[2].prefix");
}

#[test]
fn a_gateway_is_a_host_of_its_subnet() {
    let with = |prefix: &str, gateway: &str| {
        fault(|spec| spec["subnets"] = json!([{ "prefix": prefix, "gateway": gateway }])).1
    };
    assert_eq!(with("10.7.0.0/24", "10.7.1.1"), "10.7.1.1 is not in 10.7.0.0/24");
    assert_eq!(with("10.7.0.0/24", "fd00::1"), "fd00::1 is not in 10.7.0.0/24");
    assert_eq!(with("10.7.0.0/24", "10.7.0.0"), "10.7.0.0 is the address of 10.7.0.0/24 itself");
    assert_eq!(
        with("10.7.0.0/24", "10.7.0.255"),
        "10.7.0.255 is the broadcast address of 10.7.0.0/24"
    );
    let network = |prefix: &str, gateway: &str| NetworkSpec {
        vlan: None,
        vni: Some(Vni(1)),
        subnets: vec![Subnet {
            prefix: prefix.parse().unwrap(),
            gateway: Some(gateway.parse().unwrap()),
        }],
        mtu: 1500,
        peers: vec![],
        egress: Egress::All,
    };
    for (prefix, gateway) in [("10.7.0.0/31", "10.7.0.0"), ("10.7.0.9/32", "10.7.0.9")] {
        assert_eq!(network(prefix, gateway).check(), Ok(()), "{prefix}");
    }
}

#[test]
fn a_ports_rates_and_addresses_are_checked() {
    let port = |change: Value| {
        let mut port = json!({ "network": "data" });
        port.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let port: NetworkPort = from_json(port.to_string().as_bytes()).unwrap();
        port.check()
    };
    let field = |change: Value| port(change).expect_err("a fault").0;
    assert_eq!(port(json!({ "maxMbps": 10000 })), Ok(()));
    assert_eq!(port(json!({ "kind": "vf", "minMbps": 1, "maxMbps": 1, "trust": true })), Ok(()));
    assert_eq!(field(json!({ "kind": "vf", "minMbps": 2, "maxMbps": 1 })), "minMbps");
    assert_eq!(field(json!({ "minMbps": 1 })), "minMbps");
    assert_eq!(field(json!({ "maxMbps": 0 })), "maxMbps");
    assert_eq!(field(json!({ "trust": true })), "trust");
    assert_eq!(field(json!({ "qos": 8 })), "qos");
    assert_eq!(field(json!({ "mac": "01:00:5e:00:00:01" })), "mac");
    assert_eq!(field(json!({ "mac": "00:00:00:00:00:00" })), "mac");
    assert_eq!(field(json!({ "addresses": ["10.0.0.2", "10.0.0.2"] })), "addresses[1]");
}

proptest! {
    #[test]
    fn a_prefix_has_what_is_around_it_and_nothing_else(bits: u32, length in 0_u8..=32, other: u32) {
        let address = IpAddr::V4(bits.into());
        let prefix = IpPrefix::around(address, length);
        prop_assert!(prefix.contains(address) && prefix.contains(prefix.last()));
        prop_assert_eq!(prefix.to_string().parse(), Ok(prefix));
        // By another way: the first `length` bits are the same.
        let same = (bits ^ other).leading_zeros() >= u32::from(length);
        prop_assert_eq!(prefix.contains(IpAddr::V4(other.into())), same);
    }

    #[test]
    fn a_long_prefix_has_what_is_around_it(bits: u128, length in 0_u8..=128, other: u128) {
        let prefix = IpPrefix::around(IpAddr::V6(bits.into()), length);
        prop_assert_eq!(prefix.to_string().parse(), Ok(prefix));
        let same = (bits ^ other).leading_zeros() >= u32::from(length);
        prop_assert_eq!(prefix.contains(IpAddr::V6(other.into())), same);
        let last = IpPrefix::around(prefix.last(), length);
        prop_assert_eq!(last, prefix);
    }

    #[test]
    fn any_text_is_a_prefix_or_refused(text in "[0-9a-f:./]{0,24}") {
        if let Ok(prefix) = text.parse::<IpPrefix>() {
            prop_assert_eq!(prefix.to_string().parse(), Ok(prefix));
        }
    }
}
