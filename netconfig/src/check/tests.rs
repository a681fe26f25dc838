use bulkhead_api::id::MacAddr;
use serde_json::{Value, json};

use super::*;

fn state() -> Value {
    json!({
        "tenants": { "acme": 1, "beta": 2 },
        "underlay": {
            "uplink": { "members": ["enp3s0", "enp4s0"], "bond": { "mode": "lacp", "miimonMs": 100 },
                        "mtu": 1500, "addresses": [["198.51.100.1", 24]] },
            "vxlan": { "address": "198.51.100.1", "port": 4789, "remotes": ["198.51.100.2"] },
            "vlans": [{ "vlan": 10, "mtu": 1500 }]
        },
        "networks": [
            [{ "tenant": "acme", "name": "data" },
             { "segment": { "vni": 7000 }, "mtu": 1450,
               "subnets": [{ "prefix": "10.0.0.0/24", "gateway": "10.0.0.1" }] }],
            [{ "tenant": "acme", "name": "edge" },
             { "segment": { "vlan": 200 }, "mtu": 1500, "subnets": [{ "prefix": "10.1.0.0/24" }] }],
            [{ "tenant": "beta", "name": "data" },
             { "segment": { "vni": 7001 }, "mtu": 1450,
               "subnets": [{ "prefix": "10.0.0.0/24", "gateway": "10.0.0.1" }] }]
        ],
        "ports": [
            [{ "lease": { "tenant": "acme", "name": "l" }, "network": "data" },
             { "kind": "veth", "mac": "02:00:00:00:00:01", "addresses": ["10.0.0.2"] }],
            [{ "lease": { "tenant": "acme", "name": "l" }, "network": "edge" },
             { "kind": "vf", "mac": "02:00:00:00:00:02", "addresses": ["10.1.0.2"], "minMbps": 5 }]
        ]
    })
}

/// Paths and messages of the faults after a change at a place.
fn faults(place: &str, value: Value) -> Vec<String> {
    let mut state = state();
    *state.pointer_mut(place).unwrap_or_else(|| panic!("no {place}")) = value;
    let desired: Desired = serde_json::from_value(state).unwrap();
    check(&desired).iter().map(|fault| format!("{}: {}", fault.path, fault.message)).collect()
}

fn only(place: &str, value: Value) -> String {
    let faults = faults(place, value);
    assert_eq!(faults.len(), 1, "{faults:#?}");
    faults[0].clone()
}

#[test]
fn a_good_state_has_no_fault_and_tenants_may_have_the_same_addresses() {
    assert_eq!(check(&serde_json::from_value(state()).unwrap()), []);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn each_fault_names_its_field() {
    let table: [(&str, Value, &str); 24] = [
        ("/tenants/beta", json!(1), "tenants[beta]: 1 is acme's too"),
        (
            "/underlay/uplink/members",
            json!(["enp3s0", "enp3s0"]),
            "underlay.uplink.members: a card is there twice",
        ),
        (
            "/underlay/uplink/members",
            json!([]),
            "underlay.uplink.members: 0 cards of a bond: expected 1 to 8",
        ),
        (
            "/underlay/uplink/bond/miimonMs",
            json!(0),
            "underlay.uplink.bond.miimonMs: 0: expected 1 to 10000",
        ),
        (
            "/underlay/uplink/addresses",
            json!([["198.51.100.1", 33]]),
            "underlay.uplink.addresses[0]: 198.51.100.1/33: expected an address and a length of 1 to 32",
        ),
        (
            "/underlay/vxlan/remotes",
            json!(["198.51.100.1"]),
            "underlay.vxlan.remotes: 198.51.100.1 is this host itself",
        ),
        (
            "/underlay/vxlan/remotes",
            json!(["fd00::1"]),
            "underlay.vxlan.remotes: fd00::1: not of the family of 198.51.100.1",
        ),
        (
            "/underlay/vlans/0/mtu",
            json!(1501),
            "underlay.vlans[0].mtu: 1501: above the uplink's 1500",
        ),
        (
            "/underlay/vlans/0/vlan",
            json!(200),
            "networks[acme/edge].segment.vlan: VLAN 200 is one of the host's own",
        ),
        (
            "/networks/0/1/mtu",
            json!(1451),
            "networks[acme/data].mtu: 1451: above 1450, what the uplink leaves inside VXLAN over IPv4",
        ),
        (
            "/networks/1/1/mtu",
            json!(1501),
            "networks[acme/edge].mtu: 1501: above the uplink's 1500",
        ),
        ("/networks/1/1/mtu", json!(1279), "networks[acme/edge].mtu: 1279: expected 1280 to 9216"),
        (
            "/networks/2/1/segment/vni",
            json!(7000),
            "networks[beta/data].segment: VNI 7000 is network acme/data's too",
        ),
        (
            "/networks/1/1/subnets/0/prefix",
            json!("10.0.0.128/25"),
            "networks[acme/edge].subnets[0].prefix: 10.0.0.128/25 overlaps 10.0.0.0/24 of network acme/data",
        ),
        (
            "/networks/0/1/subnets/0/gateway",
            json!("10.9.0.1"),
            "networks[acme/data].subnets[0].gateway: 10.9.0.1 is not in 10.0.0.0/24",
        ),
        (
            "/ports/1/1/mac",
            json!("02:00:00:00:00:01"),
            "ports[acme/l:edge].mac: 02:00:00:00:00:01 is the address of port acme/l:data too",
        ),
        (
            "/ports/0/1/mac",
            json!("01:00:5e:00:00:01"),
            "ports[acme/l:data].mac: 01:00:5e:00:00:01: expected the address of one station",
        ),
        (
            "/ports/0/1/addresses",
            json!(["10.0.0.1"]),
            "ports[acme/l:data].addresses[0]: 10.0.0.1 is the gateway of 10.0.0.0/24",
        ),
        (
            "/ports/0/1/addresses",
            json!(["10.0.0.255"]),
            "ports[acme/l:data].addresses[0]: 10.0.0.255 is no host's address in 10.0.0.0/24",
        ),
        (
            "/ports/0/1/addresses",
            json!(["10.2.0.2"]),
            "ports[acme/l:data].addresses[0]: 10.2.0.2 is in no subnet of network acme/data",
        ),
        (
            "/ports/0/1/kind",
            json!("vf"),
            "ports[acme/l:data].kind: a vf is in a VLAN of the switch; network acme/data has a VNI",
        ),
        (
            "/ports/1/1/kind",
            json!("veth"),
            "ports[acme/l:edge].minMbps: a rate is kept for a vf only",
        ),
        (
            "/ports/0/0/network",
            json!("none"),
            "ports[acme/l:none].network: there is no network acme/none on this host",
        ),
        (
            "/networks/0/1/subnets/0/prefix",
            json!("127.0.0.0/24"),
            "networks[acme/data].subnets[0].prefix: 127.0.0.0/24: expected unicast addresses, none link-local, of a length of 8 or more",
        ),
    ];
    for (place, value, told) in table {
        let faults = faults(place, value.clone());
        assert!(faults.iter().any(|fault| fault == told), "{place} = {value}: {faults:#?}");
    }
}

#[test]
fn a_single_card_keeps_its_own_addresses() {
    assert_eq!(
        faults("/underlay/uplink/bond", Value::Null),
        ["underlay.uplink.members: 2 cards without a bond: expected 1"]
    );
    let mut state = state();
    state["underlay"]["uplink"]["bond"] = Value::Null;
    state["underlay"]["uplink"]["members"] = json!(["enp3s0"]);
    let faults = check(&serde_json::from_value(state).unwrap());
    assert_eq!(faults[0].path, "underlay.uplink.addresses");
}

#[test]
fn a_network_of_a_tenant_without_a_number_is_refused() {
    let told = faults("/tenants", json!({ "acme": 1 }));
    assert_eq!(told, ["networks[beta/data].tenant: tenant beta has no number on this host"]);
}

#[test]
fn peers_with_the_same_addresses_are_refused_on_both_sides() {
    let mut state = state();
    state["networks"][0][1]["peers"] = json!([{ "tenant": "beta", "name": "data" }]);
    state["networks"][2][1]["peers"] = json!([{ "tenant": "acme", "name": "data" }]);
    let faults = check(&serde_json::from_value(state.clone()).unwrap());
    let told: Vec<_> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "network acme/data: networks[acme/data].peers: 10.0.0.0/24 of peer beta/data overlaps 10.0.0.0/24 of network acme/data",
            "network beta/data: networks[beta/data].peers: 10.0.0.0/24 of peer acme/data overlaps 10.0.0.0/24 of network beta/data"
        ]
    );
    state["networks"][2][1]["subnets"][0] = json!({ "prefix": "10.7.0.0/24" });
    assert_eq!(check(&serde_json::from_value(state).unwrap()), []);
}

#[test]
fn the_gateways_own_hardware_address_is_no_ports() {
    let id = NetworkId { tenant: "acme".parse().unwrap(), name: "data".parse().unwrap() };
    let mac: MacAddr = gateway_mac(&id);
    let told = only("/ports/0/1/mac", json!(mac.to_string()));
    assert_eq!(told, format!("ports[acme/l:data].mac: {mac} is the address of the gateway"));
}

#[test]
fn a_card_with_a_name_of_ours_meets_it() {
    let id = NetworkId { tenant: "acme".parse().unwrap(), name: "data".parse().unwrap() };
    let name = LinkName::of_network(Role::Bridge, &id);
    let told = only("/underlay/uplink/members/0", json!(name.as_str()));
    assert_eq!(
        told,
        format!("networks[acme/data].name: link name {name} is that of a card of the uplink too")
    );
}
