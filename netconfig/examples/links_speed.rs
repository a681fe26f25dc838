//! How long the links of 200 tenants take, beside `ip -batch` and `bridge -batch` doing the same: made, looked at when
//! nothing is to be done, and deleted. In a network namespace of its own. Prints the best of some rounds in
//! milliseconds as JSON; an argument is their number.
//!
//! That both make the same is not believed: after the peer is done, the plan for what we would have made is empty.
#![expect(clippy::unwrap_used, reason = "a bench on values that it makes itself")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bulkhead_api::id::{LeaseId, MacAddr};
use bulkhead_api::network::{Egress, IpPrefix, NetworkId, PortKind, Subnet};
use bulkhead_netconfig::check::check;
use bulkhead_netconfig::kernel::Kernel as _;
use bulkhead_netconfig::kernel::netlink::Netlink;
use bulkhead_netconfig::merge::{Routing, merge};
use bulkhead_netconfig::model::{
    BridgePort, Desired, Family, LinkKind, Neighbour, Network, PROTOCOL, Port, PortId, RouteKind,
    Segment, Selector, Target, TargetLink, TenantNumber, Vxlan,
};
use bulkhead_netconfig::plan::plan;
use bulkhead_netconfig::transaction::{NoContact, commit};
use nix::sched::{CloneFlags, unshare};
use nix::time::{ClockId, clock_gettime};
use serde_json::json;

const NETWORKS: u16 = 200;

/// A network of a tenant of its own, with a gateway, a port, and another host.
fn add(desired: &mut Desired, tenant: u16) {
    let id = NetworkId {
        tenant: format!("tenant-{tenant}").parse().unwrap(),
        name: "data".parse().unwrap(),
    };
    desired.tenants.insert(id.tenant.clone(), TenantNumber::try_from(tenant).unwrap());
    let [high, low] = tenant.to_be_bytes();
    let v4 = |host| IpAddr::V4(Ipv4Addr::new(10 + high, low, 1, host));
    let network = Network {
        segment: Segment::Vni(u32::from(tenant).try_into().unwrap()),
        subnets: vec![Subnet { prefix: IpPrefix::around(v4(0), 24), gateway: Some(v4(1)) }],
        mtu: 1400,
        ports_talk: false,
        peers: BTreeSet::new(),
        egress: Egress::Deny,
    };
    let lease = LeaseId { tenant: id.tenant.clone(), name: "llm".parse().unwrap() };
    let port = PortId { lease, network: id.name.clone() };
    desired.networks.insert(id, network);
    let own = Port {
        kind: PortKind::Veth,
        mac: MacAddr::new([0x52, 0x54, 0, 1, high, low]),
        addresses: vec![v4(10)],
        min_mbps: 0,
        max_mbps: 0,
        qos: 0,
        trust: false,
    };
    desired.ports.insert(port, own);
}

fn target() -> Target {
    let mut desired = Desired::default();
    let address = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
    let remotes = [IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2))].into();
    desired.underlay.vxlan = Some(Vxlan { address, port: 4789, remotes });
    (1..=NETWORKS).for_each(|tenant| add(&mut desired, tenant));
    assert_eq!(check(&desired), []);
    merge(&desired, Routing::Rules)
}

/// The same for `ip -batch`, `ip -6 -batch` (rules) and `bridge -batch`.
#[derive(Default)]
struct Scripts {
    ip: String,
    ip6: String,
    bridge: String,
}

fn scripts(target: &Target) -> Scripts {
    let mut scripts = Scripts::default();
    let mut links: Vec<_> = target.links.iter().collect();
    // Bridges before their ports.
    links.sort_by_key(|(_, link)| link.master.is_some());
    for (name, link) in links {
        link_lines(&mut scripts.ip, name.as_str(), link);
    }
    for address in &target.addresses {
        let (ip, length, link) = (address.ip, address.length, &address.link);
        writeln!(scripts.ip, "addr add {ip}/{length} dev {link} noprefixroute").unwrap();
    }
    for route in &target.routes {
        let (prefix, table, metric) = (route.prefix, route.table, route.metric);
        let tail = format!("{prefix} table {table} metric {metric} proto {PROTOCOL}");
        match &route.kind {
            RouteKind::Link { link, .. } => {
                writeln!(scripts.ip, "route add {tail} dev {link} scope link").unwrap();
            }
            RouteKind::Unreachable => {
                writeln!(scripts.ip, "route add unreachable {tail}").unwrap();
            }
            RouteKind::Throw => writeln!(scripts.ip, "route add throw {tail}").unwrap(),
        }
    }
    for rule in &target.rules {
        let selector = match &rule.selector {
            Selector::Iif(link) => format!("iif {link}"),
            Selector::Mark(mark) => format!("fwmark {mark}"),
            Selector::Other => String::new(),
        };
        let script = if rule.family == Family::V4 { &mut scripts.ip } else { &mut scripts.ip6 };
        let (priority, table) = (rule.priority, rule.table);
        writeln!(script, "rule add {selector} pref {priority} lookup {table} protocol {PROTOCOL}")
            .unwrap();
    }
    for neighbour in &target.neighbours {
        match neighbour {
            Neighbour::Station { link, mac } => {
                writeln!(scripts.bridge, "fdb add {mac} dev {link} master static").unwrap();
            }
            Neighbour::Remote { link, remote } => {
                let zero = "00:00:00:00:00:00";
                writeln!(
                    scripts.bridge,
                    "fdb append {zero} dev {link} dst {remote} self permanent"
                )
                .unwrap();
            }
            Neighbour::Address { link, ip, mac } => {
                writeln!(scripts.ip, "neigh add {ip} lladdr {mac} dev {link} nud permanent")
                    .unwrap();
            }
        }
    }
    scripts
}

fn link_lines(ip: &mut String, name: &str, link: &TargetLink) {
    let mut head = format!("link add name {name} group {}", link.group);
    if let Some(mac) = link.mac {
        write!(head, " address {mac}").unwrap();
    }
    let mtu = link.mtu.unwrap();
    write!(head, " mtu {mtu}").unwrap();
    if let Some(master) = &link.master {
        write!(head, " master {master}").unwrap();
    }
    let tail = match &link.kind {
        LinkKind::Bridge => "type bridge".to_owned(),
        LinkKind::Vxlan { vni, local, port } => {
            format!("type vxlan id {vni} local {local} dstport {port} nolearning")
        }
        LinkKind::Veth { peer, peer_mac } => {
            let (mac, group) = (peer_mac.unwrap(), link.group);
            format!("type veth peer name {peer} address {mac} mtu {mtu} group {group}")
        }
        LinkKind::Vlan { .. } | LinkKind::Vrf { .. } | LinkKind::Tap | LinkKind::Bond { .. } => {
            panic!("this bench makes no such link")
        }
    };
    writeln!(ip, "{head} {tail}").unwrap();
    if let Some(port) = link.port.filter(|port| *port != BridgePort::NEW) {
        let word = |set: bool| if set { "on" } else { "off" };
        writeln!(
            ip,
            "link set dev {name} type bridge_slave learning {} flood {} neigh_suppress {} isolated {} locked {}",
            word(port.learning),
            word(port.flood),
            word(port.neigh_suppress),
            word(port.isolated),
            word(port.locked)
        )
        .unwrap();
    }
    writeln!(ip, "link set dev {name} addrgenmode none").unwrap();
    writeln!(ip, "link set dev {name} up").unwrap();
}

/// One deletion a link, the other end of a pair with its first; rules, as they do not go with their links.
fn deletions(target: &Target) -> (String, String) {
    let (mut ip, mut ip6) = (String::new(), String::new());
    for rule in &target.rules {
        let script = if rule.family == Family::V4 { &mut ip } else { &mut ip6 };
        writeln!(script, "rule del pref {} lookup {}", rule.priority, rule.table).unwrap();
    }
    for route in target.routes.iter().filter(|r| !matches!(r.kind, RouteKind::Link { .. })) {
        let (prefix, table, metric) = (route.prefix, route.table, route.metric);
        writeln!(ip, "route del unreachable {prefix} table {table} metric {metric}").unwrap();
    }
    for name in target.links.keys() {
        writeln!(ip, "link del dev {name}").unwrap();
    }
    (ip, ip6)
}

#[expect(clippy::disallowed_methods, reason = "the peer is a program, and this one runs alone")]
fn batch(folder: &Path, program: &str, options: &[&str], script: &str) {
    let file = folder.join("script");
    std::fs::write(&file, script).unwrap();
    let done = Command::new(program).args(options).arg("-batch").arg(&file).output().unwrap();
    assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
}

fn milliseconds(run: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    run();
    begun.elapsed().as_secs_f64() * 1000.0
}

fn settle(kernel: &mut Netlink, target: &Target) -> usize {
    let done = commit(kernel, target, None, &mut NoContact, Duration::ZERO).unwrap();
    assert_eq!(done.refused, []);
    done.operations
}

/// Milliseconds of this thread's CPU, the kernel's part of it too.
fn cpu_ms() -> f64 {
    let now = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
    Duration::from(now).as_secs_f64() * 1000.0
}

fn main() {
    let rounds = std::env::args().nth(1).and_then(|word| word.parse().ok()).unwrap_or(3);
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut kernel = Netlink::open().unwrap();
    let (target, nothing) = (target(), Target::default());
    let (made_by_peer, deleted_by_peer) = (scripts(&target), deletions(&target));
    let mut best = [f64::MAX; 5];
    for _ in 0..rounds {
        let apply = milliseconds(|| assert!(settle(&mut kernel, &target) > 1000));
        let noop = (0..5).map(|_| {
            let begun = cpu_ms();
            assert_eq!(settle(&mut kernel, &target), 0);
            cpu_ms() - begun
        });
        let noop = noop.fold(f64::MAX, f64::min);
        let teardown = milliseconds(|| {
            settle(&mut kernel, &nothing);
            assert_eq!(kernel.observe().unwrap().ours().count(), 0);
        });
        let ip_apply = milliseconds(|| {
            batch(folder, "ip", &[], &made_by_peer.ip);
            batch(folder, "ip", &["-6"], &made_by_peer.ip6);
            batch(folder, "bridge", &[], &made_by_peer.bridge);
        });
        let left = plan(&target, &kernel.observe().unwrap());
        assert_eq!(left.operations, [], "the peer made something else");
        let ip_teardown = milliseconds(|| {
            batch(folder, "ip", &["-6"], &deleted_by_peer.1);
            batch(folder, "ip", &[], &deleted_by_peer.0);
        });
        assert_eq!(kernel.observe().unwrap().ours().count(), 0);
        let round = [apply, ip_apply, teardown, ip_teardown, noop];
        best.iter_mut().zip(round).for_each(|(best, now)| *best = best.min(now));
    }
    let [apply, ip_apply, teardown, ip_teardown, noop] = best;
    let figures = json!({ "networks": NETWORKS, "links": target.links.len() + usize::from(NETWORKS),
        "apply_ms": apply, "ip_apply_ms": ip_apply, "teardown_ms": teardown,
        "ip_teardown_ms": ip_teardown, "noop_cpu_ms": noop });
    println!("{figures}");
}
