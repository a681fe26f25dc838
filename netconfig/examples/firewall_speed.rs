//! How long the firewall of 1000 tenants takes: made, replaced whole, one tenant more and one less, read back. In a network
//! namespace of its own, by the `nft` given: a program and what stands before its arguments. Prints the best of some rounds
//! in milliseconds as JSON.
#![expect(clippy::unwrap_used, reason = "a bench on values that it makes itself")]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use bulkhead_api::id::{LeaseId, MacAddr};
use bulkhead_api::network::{Egress, IpPrefix, NetworkId, PortKind, Subnet};
use bulkhead_netconfig::firewall::ruleset::{Limit, change, differences, render};
use bulkhead_netconfig::firewall::{Access, HostService, Traffic, compile};
use bulkhead_netconfig::kernel::nft::Nft;
use bulkhead_netconfig::model::{Desired, Network, Port, PortId, Segment, TenantNumber, Uplink};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;

const TENANTS: u16 = 1000;
const ROUNDS: usize = 7;

/// One network with a gateway of both families, egress, and a port.
fn add(desired: &mut Desired, tenant: u16) {
    let id = NetworkId {
        tenant: format!("tenant-{tenant}").parse().unwrap(),
        name: "data".parse().unwrap(),
    };
    let number = TenantNumber::try_from(tenant).unwrap();
    desired.tenants.insert(id.tenant.clone(), number);
    let [high, low] = tenant.to_be_bytes();
    let v4 = |host| IpAddr::V4(Ipv4Addr::new(10 + high, low, 1, host));
    let v6 = |host| IpAddr::V6(Ipv6Addr::new(0xfd00, tenant, 0, 0, 0, 0, 0, host));
    let network = Network {
        segment: Segment::Vni(u32::from(tenant).try_into().unwrap()),
        subnets: vec![
            Subnet { prefix: IpPrefix::around(v4(0), 24), gateway: Some(v4(1)) },
            Subnet { prefix: IpPrefix::around(v6(0), 64), gateway: Some(v6(1)) },
        ],
        mtu: 1450,
        ports_talk: false,
        peers: BTreeSet::new(),
        egress: Egress::All,
    };
    let lease = LeaseId { tenant: id.tenant.clone(), name: "llm".parse().unwrap() };
    let port = PortId { lease, network: id.name.clone() };
    desired.networks.insert(id, network);
    let own = Port {
        kind: PortKind::Veth,
        mac: MacAddr::new([0x52, 0x54, 0, 1, high, low]),
        addresses: vec![v4(10), v6(16)],
        min_mbps: 0,
        max_mbps: 0,
        qos: 0,
        trust: false,
    };
    desired.ports.insert(port, own);
}

fn milliseconds<T>(run: impl FnOnce() -> T) -> (f64, T) {
    let begun = Instant::now();
    let done = run();
    (begun.elapsed().as_secs_f64() * 1000.0, done)
}

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let nft =
        Nft::by(arguments.next().unwrap_or_else(|| "/usr/sbin/nft".into()), arguments.collect());
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    nft.version().unwrap();
    let mut desired = Desired::default();
    let members = vec!["eno1".parse().unwrap()];
    desired.underlay.uplink =
        Some(Uplink { members, bond: None, mtu: 9000, addresses: Vec::new() });
    (1..=TENANTS).for_each(|tenant| add(&mut desired, tenant));
    let limit = Limit { packets_a_second: 100, burst: 200 };
    let service = |traffic| HostService { traffic, addresses: BTreeSet::new(), limit };
    let services = vec![service(Traffic::Udp(53)), service(Traffic::Echo)];
    let access = Access { services, ..Access::default() };
    let mut more = desired.clone();
    add(&mut more, TENANTS + 1);

    let mut best = [f64::MAX; 6];
    let mut bytes = 0;
    for _ in 0..ROUNDS {
        let (made, text) = milliseconds(|| render(&compile(&desired, &access).ruleset));
        bytes = text.len();
        let (few, many) = (compile(&desired, &access).ruleset, compile(&more, &access).ruleset);
        let (replaced, ()) = milliseconds(|| nft.apply(&text).unwrap());
        let come = change(&few, &many).unwrap();
        let (added, ()) = milliseconds(|| nft.apply(&come).unwrap());
        let go = change(&many, &few).unwrap();
        let (removed, ()) = milliseconds(|| nft.apply(&go).unwrap());
        let (read, found) = milliseconds(|| nft.read().unwrap());
        assert!(differences(&found, &few).is_empty());
        let (compared, none) = milliseconds(|| change(&found, &few));
        assert!(none.is_none());
        let round = [made, replaced, added, removed, read, compared];
        best.iter_mut().zip(round).for_each(|(best, now)| *best = best.min(now));
    }
    let [made, replaced, added, removed, read, compared] = best;
    let figures = json!({ "tenants": TENANTS, "bytes": bytes, "make_ms": made, "replace_ms": replaced,
        "add_ms": added, "remove_ms": removed, "read_ms": read, "compare_ms": compared });
    println!("{figures}");
}
