//! The table of family `bridge`: what a port may send, and whither frames go.

use std::net::IpAddr;

use bulkhead_api::network::PortKind;

use super::compile::{
    Builder, base, branch, count_by, fabric, ip_number, is, link, link_local, look_up, mac,
    not_among, of_any_tenant, of_tenant, tenants, then,
};
use super::ruleset::{
    Atom, Chain, DataKind, Datum, Field, HookPoint, Kind, Ranges, Rule, Statement, Table, Values,
    Verdict, number,
};
use crate::model::{Desired, LinkName, Port, Role};

/// Before every other hook of a bridge.
const GUARD_PRIORITY: i32 = -300;
/// Where filters of a bridge are (`NF_BR_PRI_FILTER_BRIDGED`).
const FILTER_PRIORITY: i32 = -200;

pub(super) fn table(desired: &Desired) -> Table {
    let mut build = Builder::default();
    declare(&mut build);
    for what in ["sent", "received", "refused"] {
        build.counters(what, tenants(desired));
    }
    for (id, network) in &desired.networks {
        let outside = fabric(id, network);
        let count = |what: &str| Datum::Counter(of_tenant(what, &id.tenant));
        let goto = |chain: &str| Datum::Verdict(Verdict::Goto(chain.to_owned()));
        build.element("guards", [link(&outside)], goto("from_fabric"));
        build.element("refused", [link(&outside)], count("refused"));
        let mut names = Vec::new();
        for (port_id, port) in desired.ports_in(id) {
            // A virtual function has no port of a bridge: its card keeps it apart.
            if port.kind == PortKind::Vf {
                continue;
            }
            let name = LinkName::of_port(Role::Port, port_id);
            build.element("guards", [link(&name)], goto("from_port"));
            for what in ["sent", "received", "refused"] {
                build.element(what, [link(&name)], count(what));
            }
            identity(&mut build, &name, port);
            for (from, to) in [(&name, &outside), (&outside, &name)] {
                build.element("paths", [link(from), link(to)], Datum::Verdict(Verdict::Accept));
            }
            names.push(name);
        }
        if network.ports_talk {
            for from in &names {
                for to in names.iter().filter(|to| *to != from) {
                    build.element("paths", [link(from), link(to)], Datum::Verdict(Verdict::Accept));
                }
            }
        }
    }
    build.table
}

/// As what a port may send.
fn identity(build: &mut Builder, name: &LinkName, port: &Port) {
    let one = |number: u128| Atom::Span(number, number);
    build.member("macs", [link(name), mac(port.mac)]);
    // A station asks with no address of its own whether one is free (RFC 5227, 1.1).
    build.member("arp_senders", [link(name), mac(port.mac), one(0)]);
    build.member("sources6", [link(name), one(link_local(port.mac))]);
    build.member("nd_targets", [link(name), one(link_local(port.mac))]);
    for address in &port.addresses {
        let number = one(ip_number(*address));
        match address {
            IpAddr::V4(_) => {
                build.member("arp_senders", [link(name), mac(port.mac), number.clone()]);
                build.member("sources4", [link(name), number]);
            }
            IpAddr::V6(_) => {
                build.member("sources6", [link(name), number.clone()]);
                build.member("nd_targets", [link(name), number]);
            }
        }
    }
}

fn declare(build: &mut Builder) {
    use Kind::{Ip4, Ip6, Link, Mac};
    build.set("guards", &[Link], DataKind::Verdict);
    build.set("paths", &[Link, Link], DataKind::Verdict);
    for counters in ["sent", "received", "refused"] {
        build.set(counters, &[Link], DataKind::Counter);
    }
    build.set("macs", &[Link, Mac], DataKind::Member);
    build.set("arp_senders", &[Link, Mac, Ip4], DataKind::Member);
    build.set("sources4", &[Link, Ip4], DataKind::Member);
    build.set("sources6", &[Link, Ip6], DataKind::Member);
    build.set("nd_targets", &[Link, Ip6], DataKind::Member);

    let guard = vec![look_up(&[Field::InLink], "guards"), refuse([of_any_tenant(Field::InGroup)])];
    build.chain("guard", base(HookPoint::Prerouting, GUARD_PRIORITY, true, guard));
    build.chain("from_port", from_port());
    let fabric = [known_types(), servers(), advertisements(), vec![accept()]].concat();
    build.chain("from_fabric", branch(fabric));
    let forward = vec![
        look_up(&[Field::InLink, Field::OutLink], "paths"),
        refuse([of_any_tenant(Field::InGroup)]),
        refuse([of_any_tenant(Field::OutGroup)]),
    ];
    build.chain("between", base(HookPoint::Forward, FILTER_PRIORITY, true, forward));
    let counts = vec![Rule(vec![count_by(Field::OutLink, "received")])];
    build.chain("leaving", base(HookPoint::Postrouting, FILTER_PRIORITY, true, counts));
    // A link without a counter ends the first rule and not the second.
    let refused = vec![Rule(vec![count_by(Field::InLink, "refused")]), then([], Verdict::Drop)];
    build.chain("refuse", branch(refused));
}

fn refuse<const N: usize>(statements: [Statement; N]) -> Rule {
    then(statements, Verdict::Goto("refuse".to_owned()))
}

fn accept() -> Rule {
    then([], Verdict::Accept)
}

/// Everything that a port may not send, then what is left.
fn from_port() -> Chain {
    use Field::{
        ArpSenderIp, ArpSenderMac, DestinationPort, EtherSource, Icmp6Type, InLink, Ip4Destination,
        Ip4Source, Ip6Fragment, Ip6Source, NeighbourTarget, Protocol,
    };
    let who = vec![
        refuse([not_among(&[InLink, EtherSource], "macs")]),
        refuse([not_among(&[InLink, ArpSenderMac, ArpSenderIp], "arp_senders")]),
    ];
    let neighbours = vec![
        // In pieces a message shows its type in the first alone (RFC 6980: nobody needs them).
        refuse([is(Protocol, [number::ICMP6]), is(Ip6Fragment, [1])]),
        refuse([
            is(Icmp6Type, [number::NEIGHBOUR_ADVERTISEMENT]),
            not_among(&[InLink, NeighbourTarget], "nd_targets"),
        ]),
    ];
    let sources = vec![
        // Who has no address yet may ask for one, and only that.
        then(
            [
                is(Ip4Source, [0]),
                is(Ip4Destination, [u32::MAX.into()]),
                is(Protocol, [number::UDP]),
                is(DestinationPort, [number::DHCP_SERVER]),
            ],
            Verdict::Accept,
        ),
        refuse([not_among(&[InLink, Ip4Source], "sources4")]),
        then(
            [
                is(Ip6Source, [0]),
                is(Icmp6Type, [number::NEIGHBOUR_SOLICITATION, number::LISTENER_REPORT]),
            ],
            Verdict::Accept,
        ),
        refuse([not_among(&[InLink, Ip6Source], "sources6")]),
    ];
    let rest = vec![Rule(vec![count_by(InLink, "sent")]), accept()];
    branch([known_types(), who, servers(), advertisements(), neighbours, sources, rest].concat())
}

/// IP and ARP without a tag, nothing else.
fn known_types() -> Vec<Rule> {
    let types = [number::ETHER_IP4, number::ETHER_ARP, number::ETHER_IP6];
    let values =
        Values::Numbers(types.into_iter().map(|number| (number, number)).collect::<Ranges>());
    vec![refuse([Statement::Match { fields: vec![Field::EtherType], negated: true, values }])]
}

/// A tenant's network has the host's DHCP server or none.
fn servers() -> Vec<Rule> {
    let ports = [number::DHCP_SERVER, number::DHCP6_SERVER];
    vec![refuse([is(Field::Protocol, [number::UDP]), is(Field::SourcePort, ports)])]
}

/// A tenant's network has the host as router or none.
fn advertisements() -> Vec<Rule> {
    vec![refuse([is(Field::Icmp6Type, [number::ROUTER_ADVERTISEMENT, number::REDIRECT])])]
}
