//! Real frames against real rules. Each attack is followed by a frame that must arrive, so that silence means refusal and
//! not a dead link; and each is done again with its guard taken away, when it must get through.

use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use super::frame::{BROADCAST, Wire, advertisement, arp, ethernet, has, ip6, udp4};
use super::lab::{Lab, ROUTER_MAC, address, bridge, gateway, inside, station};
use crate::firewall::ruleset::{Family, Limit, Ruleset};
use crate::firewall::{Access, HostService, Traffic, sample};

/// What an attack carries, and what the frame after it does.
const MARK: [u8; 8] = *b"attacker";
const FENCE: [u8; 8] = *b"harmless";

/// A packet that its port may send.
fn harmless(tenant: u16, lease: u8) -> Vec<u8> {
    let packet = udp4((address(tenant, lease), 9), (address(tenant, 99), 9), &FENCE);
    ethernet(BROADCAST, station(tenant, lease.into()), 0x0800, &packet)
}

/// Whether a frame gets from one wire to another, where the one after it must.
fn arrives(from: &Wire, attack: &[u8], fence: &[u8], to: &Wire) -> bool {
    from.send(attack);
    from.send(fence);
    to.hear_until(&FENCE).iter().any(|frame| has(frame, &MARK))
}

fn v6(tenant: u16, lease: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, tenant, 1, 0, 0, 0, 0, 10 + lease)
}

fn frame6(payload: &[u8], source: Ipv6Addr) -> Vec<u8> {
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let packet = ip6(source, all_nodes, 58, &[payload, &MARK].concat());
    ethernet([0x33, 0x33, 0, 0, 0, 1], station(1, 1), 0x86dd, &packet)
}

/// What lease 1 of tenant 1 must not send into its network, and the words of the rule that stops it.
fn attacks() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let (own, other) = (station(1, 1), station(1, 2));
    let (me, them) = (address(1, 1), address(1, 2));
    let packet = |from: (Ipv4Addr, u16), to: u16| udp4(from, (address(1, 99), to), &MARK);
    let frame = |kind: u16, payload: &[u8]| ethernet(BROADCAST, own, kind, payload);
    let mut marked_arp = arp(own, other, me, 0);
    marked_arp.truncate(42);
    marked_arp.extend(MARK);
    let mut false_arp = arp(own, own, them, 0);
    false_arp.truncate(42);
    false_arp.extend(MARK);
    let inner = [&[0x00, 0x07, 0x08, 0x00][..], &packet((me, 9), 9)].concat();
    let double =
        [&[0x00, 0x07, 0x81, 0x00, 0x00, 0x08, 0x08, 0x00][..], &packet((me, 9), 9)].concat();
    let dhcp6 =
        [&547_u16.to_be_bytes()[..], &546_u16.to_be_bytes(), &[0, 16, 0, 0], &MARK].concat();
    let dhcp6 = ip6(v6(1, 1), v6(1, 99), 17, &dhcp6);
    let fragment =
        [&[58, 0, 0, 1, 0, 0, 0, 7][..], &advertisement(v6(1, 2), own, 0), &MARK].concat();
    let fragment = ip6(v6(1, 1), v6(1, 99), 44, &fragment);
    vec![
        ("another station", ethernet(BROADCAST, other, 0x0800, &packet((me, 9), 9)), "@macs"),
        ("ARP for another station", marked_arp, "@arp_senders"),
        ("ARP for another address", false_arp, "@arp_senders"),
        ("another source", frame(0x0800, &packet((them, 9), 9)), "@sources4"),
        ("a DHCP server", frame(0x0800, &packet((me, 67), 68)), "th sport"),
        ("a tag", frame(0x8100, &inner), "ether type"),
        ("two tags", frame(0x88a8, &double), "ether type"),
        ("another type", frame(0x88cc, &MARK), "ether type"),
        ("a router", frame6(&[134, 0, 0, 0, 64, 0, 7, 8], v6(1, 1)), "icmpv6 type { 134, 137 }"),
        ("a redirect", frame6(&[137, 0, 0, 0, 0, 0, 0, 0], v6(1, 1)), "icmpv6 type { 134, 137 }"),
        ("advertising another", frame6(&advertisement(v6(1, 2), own, 0), v6(1, 1)), "@nd_targets"),
        ("another IPv6 source", frame6(&[128, 0, 0, 0], v6(1, 2)), "@sources6"),
        ("a DHCPv6 server", frame(0x86dd, &dhcp6), "th sport"),
        ("a fragment", frame(0x86dd, &fragment), "exthdr frag"),
    ]
}

#[test]
fn real_kernel_a_port_sends_as_itself_only() {
    let lab = Lab::new(&sample::access());
    let (port, listener) = (lab.port(1, 1), lab.port(1, 2));
    let fence = harmless(1, 1);
    for (what, frame, _) in attacks() {
        assert!(!arrives(&port, &frame, &fence, &listener), "{what} arrives");
    }
    for (what, frame, words) in attacks() {
        let mut open = lab.without("from_port", words);
        if words == "ether type" || words == "exthdr frag" {
            // What the rule stands before would be stopped by rules behind it, too.
            open = without_sources(&open);
        }
        lab.apply(&open);
        assert!(
            arrives(&port, &frame, &fence, &listener),
            "{what} does not arrive without {words}"
        );
    }
}

fn without_sources(rules: &Ruleset) -> Ruleset {
    let mut rules = rules.clone();
    let bridge = rules.tables.get_mut(&Family::Bridge).unwrap();
    let chain = bridge.chains.get_mut("from_port").unwrap();
    chain.rules.retain(|rule| !rule.to_string().contains("icmpv6 type 136"));
    rules
}

#[test]
fn real_kernel_what_a_port_may_send_arrives_and_is_counted() {
    let lab = Lab::new(&sample::access());
    let (port, listener) = (lab.port(1, 1), lab.port(1, 2));
    let own = station(1, 1);
    let neighbour = frame6(&advertisement(v6(1, 1), own, 0), v6(1, 1));
    let mut announcement = arp(own, own, address(1, 1), 0);
    announcement.extend(MARK);
    for frame in [neighbour, announcement] {
        assert!(arrives(&port, &frame, &harmless(1, 1), &listener));
    }
    let before = counted(&lab, "refused/t1");
    let spoof = &attacks()[0].1;
    assert!(!arrives(&port, spoof, &harmless(1, 1), &listener));
    assert_eq!(counted(&lab, "refused/t1"), before + 1);
    assert_eq!(counted(&lab, "refused/t2"), 0);
    assert!(counted(&lab, "sent/t1") >= 5);
    assert!(counted(&lab, "received/t1") >= 5);
}

fn counted(lab: &Lab, name: &str) -> u64 {
    let all = inside(&lab.host, || lab.nft.counters()).unwrap();
    all[&(Family::Bridge, name.to_owned())].packets
}

/// A packet to be routed by the host.
fn routed(lab: &Lab, tenant: u16, to: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let packet = udp4((address(tenant, 1), 1000), to, payload);
    ethernet(lab.mac(bridge(tenant).as_str()), station(tenant, 1), 0x0800, &packet)
}

/// One's own packet after an attack, by a way of its own: on one CPU it cannot overtake, but may be heard elsewhere.
fn reaches(lab: &Lab, from: &Wire, attack: &[u8], to: &Wire, fence_way: &Wire) -> bool {
    from.send(attack);
    from.send(&harmless(1, 1));
    fence_way.hear_until(&FENCE);
    // What is routed was handed on before the fence came back: the next frame there ends the wait.
    let end = harmless(2, 2);
    lab.port(2, 2).send(&end);
    to.hear_until(&FENCE).iter().any(|frame| has(frame, &MARK))
}

#[test]
fn real_kernel_tenants_are_apart_until_they_agree() {
    let lab = Lab::new(&sample::access());
    let (mine, own_listener, theirs) = (lab.port(1, 1), lab.port(1, 2), lab.port(2, 1));
    let attack = routed(&lab, 1, (address(2, 1), 7), &MARK);
    assert!(!reaches(&lab, &mine, &attack, &theirs, &own_listener));
    lab.apply(&lab.open("between"));
    assert!(reaches(&lab, &mine, &attack, &theirs, &own_listener));
    // As peers they reach each other, and with the agreement gone no longer.
    let mut peers = lab.desired.clone();
    let (one, two) = (sample::id(1, 1), sample::id(2, 1));
    peers.networks.get_mut(&one).unwrap().peers.insert(two.clone());
    peers.networks.get_mut(&two).unwrap().peers.insert(one);
    lab.apply(&crate::firewall::compile(&peers, &sample::access()).ruleset);
    assert!(reaches(&lab, &mine, &attack, &theirs, &own_listener));
    lab.apply(&lab.wanted);
    assert!(!reaches(&lab, &mine, &attack, &theirs, &own_listener));
}

#[test]
fn real_kernel_answers_come_in_and_nothing_that_was_not_asked() {
    let lab = Lab::new(&sample::access());
    let (port, router) = (lab.port(1, 1), lab.router());
    let outside = Ipv4Addr::new(203, 0, 113, 9);
    let from_outside = |port_number: u16, payload: &[u8]| {
        let packet = udp4((outside, port_number), (address(1, 1), 1000), payload);
        ethernet(lab.mac("eno1"), ROUTER_MAC, 0x0800, &packet)
    };
    // The answer to a question gets in; what came before it, to the same port from another, does not.
    port.send(&routed(&lab, 1, (outside, 53), &FENCE));
    router.hear_until(&FENCE);
    router.send(&from_outside(54, &MARK));
    router.send(&from_outside(53, &FENCE));
    assert!(!port.hear_until(&FENCE).iter().any(|frame| has(frame, &MARK)));
    lab.apply(&lab.open("returning"));
    router.send(&from_outside(54, &MARK));
    router.send(&from_outside(53, &FENCE));
    assert!(port.hear_until(&FENCE).iter().any(|frame| has(frame, &MARK)));
}

#[test]
fn real_kernel_egress_leaves_out_what_is_closed_and_the_ends_of_tunnels() {
    let lab = Lab::new(&sample::access());
    let (port, router) = (lab.port(1, 1), lab.router());
    let closed = [(Ipv4Addr::new(198, 51, 100, 7), 443), (Ipv4Addr::new(192, 0, 2, 2), 4789)];
    let open = Ipv4Addr::new(203, 0, 113, 9);
    let end_outside = || routed(&lab, 1, (open, 53), &FENCE);
    for to in closed {
        assert!(!arrives(&port, &routed(&lab, 1, to, &MARK), &end_outside(), &router), "{to:?}");
    }
    // The control needs a neighbour for the other end of the tunnel: the first only.
    lab.apply(&lab.without("egress", "@closed4"));
    assert!(arrives(&port, &routed(&lab, 1, closed[0], &MARK), &end_outside(), &router));
}

/// A service of the host with a listener on it, in the host's namespace.
fn listen(lab: &Lab, port: u16) -> UdpSocket {
    inside(&lab.host, || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        socket
    })
}

fn heard(socket: &UdpSocket) -> usize {
    let mut buffer = [0; 64];
    std::iter::from_fn(|| socket.recv(&mut buffer).ok()).count()
}

#[test]
fn real_kernel_a_tenant_asks_the_host_for_what_it_offers_at_its_rate() {
    let limit = Limit { packets_a_second: 1, burst: 5 };
    let service = HostService { traffic: Traffic::Udp(53), addresses: [].into(), limit };
    let lab = Lab::new(&Access { services: vec![service], ..sample::access() });
    let (port, own_listener) = (lab.port(1, 1), lab.port(1, 2));
    let offered = listen(&lab, 53);
    let others = [4789, 22].map(|number| (number, listen(&lab, number)));
    let ask = |number: u16, times: usize| {
        for _ in 0..times {
            port.send(&routed(&lab, 1, (gateway(1), number), &MARK));
        }
        // The host has what came before the fence.
        port.send(&harmless(1, 1));
        own_listener.hear_until(&FENCE);
    };
    let ask_all = |asked: &UdpSocket| {
        let to_host: Vec<_> = (0..100).map(|_| routed(&lab, 1, (gateway(1), 53), &MARK)).collect();
        to_host.iter().for_each(|frame| port.send(frame));
        heard(asked)
    };
    let within_rate = ask_all(&offered);
    assert!((5..50).contains(&within_rate), "{within_rate} of 100");
    for (number, socket) in &others {
        ask(*number, 3);
        assert_eq!(heard(socket), 0, "port {number}");
    }
    // Neither does another tenant's gateway answer, nor the host's own address.
    let elsewhere = [gateway(2), Ipv4Addr::new(192, 0, 2, 1)];
    for at in elsewhere {
        port.send(&routed(&lab, 1, (at, 53), &MARK));
        ask(22, 1);
        assert_eq!(heard(&offered), 0, "{at}");
    }
    // Controls: without the rate all of them come, without the chain's end everything does.
    lab.apply(&lab.without("asking", "limit rate over"));
    assert_eq!(ask_all(&offered), 100);
    lab.apply(&lab.open("asking"));
    for (number, socket) in &others {
        ask(*number, 3);
        assert_eq!(heard(socket), 3, "port {number}");
    }
}

#[test]
fn real_kernel_a_link_of_a_tenant_that_nobody_agreed_on_passes_nothing() {
    let lab = Lab::new(&sample::access());
    let (port, listener) = (lab.port(1, 1), lab.port(1, 2));
    // The second lease is gone from the spec, but its link is still there.
    let mut fewer = lab.desired.clone();
    fewer.ports.remove(&sample::port(1, 1, 1));
    lab.apply(&crate::firewall::compile(&fewer, &sample::access()).ruleset);
    let mut attack = harmless(1, 1);
    attack.extend(MARK);
    port.send(&attack);
    lab.apply(&lab.wanted);
    port.send(&harmless(1, 1));
    assert!(!listener.hear_until(&FENCE).iter().any(|frame| has(frame, &MARK)));
}
