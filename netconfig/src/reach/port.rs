//! Can a port send as somebody else, and does its bridge keep it apart.

use super::site::{Meaning, STRANGERS, View, beyond, inside, number_of};
use super::space::Space;
use super::violation::{Class, Violation};
use crate::firewall::ruleset::{Family, Field, Ranges, number};
use crate::model::{LinkKind, Neighbour, ObservedLink, Port, PortId};

pub(super) fn check(view: &View<'_>, found: &mut Vec<Violation>) {
    for (link, meaning) in view.known() {
        group(view, link, meaning, found);
        match meaning {
            Meaning::Port(id, port) => {
                spoofs(view, link, id, port, found);
                switches(view, link, id, port, found);
            }
            Meaning::Fabric(_) => {
                let tenant = meaning.tenant();
                let flows =
                    view.entering(Family::Bridge, view.seen(link.name.as_str()), Space::all());
                for (class, space, what) in common_spoofs() {
                    if let Some((packets, mut path)) = inside(&flows, &space) {
                        let message =
                            format!("frames from other hosts on {}: {what} ({packets})", link.name);
                        path.insert(0, format!("link {}", link.name));
                        found.push(view.violation(class, &[tenant], message, path));
                    }
                }
                let learns = link.port.is_some_and(|port| port.learning);
                if learns && matches!(link.known(), Some(LinkKind::Vxlan { .. })) {
                    let message = format!("{} learns stations from the underlay", link.name);
                    found.push(view.violation(Class::PortSwitch, &[tenant], message, Vec::new()));
                }
            }
            Meaning::Bridge(_) | Meaning::Vrf(_) => {}
        }
    }
    strangers(view, found);
    entries(view, found);
}

fn group(view: &View<'_>, link: &ObservedLink, meaning: Meaning<'_>, found: &mut Vec<Violation>) {
    let tenant = meaning.tenant();
    let wanted = view.host.desired.tenants.get(tenant).map(|number| number.group());
    if wanted != Some(link.group) {
        let message =
            format!("link {} of {tenant} has group {}, not the tenant's", link.name, link.group);
        found.push(view.violation(Class::Group, &[tenant], message, Vec::new()));
    }
}

/// A link of a tenant's group that nobody agreed on.
fn strangers(view: &View<'_>, found: &mut Vec<Violation>) {
    for stranger in STRANGERS {
        let flows = view.entering(Family::Bridge, stranger, Space::all());
        if let Some(flow) = flows.into_iter().next() {
            let message =
                "a bridge takes frames of a tenant's link that nobody agreed on".to_owned();
            found.push(view.violation(Class::Stranger, &[], message, flow.path()));
            return;
        }
    }
}

type Spoof = (Class, Space, &'static str);

fn udp(v4: bool) -> Space {
    super::site::ip(v4).with_one(Field::Protocol, number::UDP)
}

/// What neither a port nor another host may send into a network.
fn common_spoofs() -> Vec<Spoof> {
    let known = [number::ETHER_IP4, number::ETHER_ARP, number::ETHER_IP6];
    let known: Ranges = known.into_iter().map(|number| (number, number)).collect();
    let odd = known.complement(Field::EtherType.kind().largest());
    let message = |kind| Space::all().with_one(Field::Icmp6Type, kind);
    vec![
        (
            Class::EtherType,
            Space::all().with(Field::EtherType, &odd),
            "tags and other types of frames pass",
        ),
        (
            Class::DhcpServer,
            udp(true).with_one(Field::SourcePort, number::DHCP_SERVER),
            "answers of a DHCP server pass",
        ),
        (
            Class::DhcpServer,
            udp(false).with_one(Field::SourcePort, number::DHCP6_SERVER),
            "answers of a DHCPv6 server pass",
        ),
        (Class::Router, message(number::ROUTER_ADVERTISEMENT), "router advertisements pass"),
        (Class::Router, message(number::REDIRECT), "redirects pass"),
    ]
}

/// What a port of this identity may not send.
fn own_spoofs(port: &Port) -> Vec<Spoof> {
    let mac = port.mac.octets().iter().fold(0, |number, octet| number << 8 | u128::from(*octet));
    let other_mac = Ranges::one(mac).complement(Field::EtherSource.kind().largest());
    let of = |v4: bool| {
        let own = port.addresses.iter().filter(move |ip| ip.is_ipv4() == v4);
        own.map(|ip| (number_of(*ip), number_of(*ip))).collect::<Ranges>()
    };
    let [a, b, c, d, e, f] = port.mac.octets();
    let local = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    let own6 = of(false).union(&Ranges::one(0xfe80 << 112 | u128::from(local)));
    let nobody = Ranges::one(0);
    let not = |own: &Ranges, field: Field| own.complement(field.kind().largest());
    let strange4 = not(&of(true), Field::Ip4Source);
    let strange6 = not(&own6, Field::Ip6Source);
    let advertisement = Space::all().with_one(Field::Icmp6Type, number::NEIGHBOUR_ADVERTISEMENT);
    let fragment = Space::all().with_one(Field::Protocol, number::ICMP6);
    vec![
        (
            Class::Station,
            Space::all().with(Field::EtherSource, &other_mac),
            "frames from another station pass",
        ),
        (
            Class::Arp,
            Space::all().with(Field::ArpSenderMac, &other_mac),
            "ARP of another station passes",
        ),
        (
            Class::Arp,
            Space::all()
                .with(Field::ArpSenderIp, &not(&of(true).union(&nobody), Field::ArpSenderIp)),
            "ARP of another address passes",
        ),
        (
            Class::Neighbour,
            advertisement.with(Field::NeighbourTarget, &not(&own6, Field::NeighbourTarget)),
            "advertisements of another's address pass",
        ),
        (
            Class::Fragment,
            fragment.with_one(Field::Ip6Fragment, 1),
            "neighbour discovery in fragments passes",
        ),
        (
            Class::Source,
            Space::all().with(Field::Ip4Source, &strange4.without(&nobody)),
            "packets from another address pass",
        ),
        (
            Class::Source,
            Space::all().with(Field::Ip6Source, &strange6.without(&nobody)),
            "packets from another address pass",
        ),
    ]
}

/// What a station without an address may send from none.
pub(super) fn from_nobody(v4: bool) -> Vec<Space> {
    if v4 {
        let asking = Space::all().with_one(Field::Ip4Source, 0);
        let asking = asking.with_one(Field::Ip4Destination, u32::MAX.into());
        let asking = asking.with_one(Field::Protocol, number::UDP);
        return vec![asking.with_one(Field::DestinationPort, number::DHCP_SERVER)];
    }
    let asking = Space::all().with_one(Field::Ip6Source, 0);
    let kinds = [number::NEIGHBOUR_SOLICITATION, number::LISTENER_REPORT];
    kinds.into_iter().map(|kind| asking.with_one(Field::Icmp6Type, kind)).collect()
}

fn spoofs(
    view: &View<'_>,
    link: &ObservedLink,
    id: &PortId,
    port: &Port,
    found: &mut Vec<Violation>,
) {
    let flows = view.entering(Family::Bridge, view.seen(link.name.as_str()), Space::all());
    let mut say = |class, what: &str, (packets, mut path): (Space, Vec<String>)| {
        path.insert(0, format!("port {id} ({})", link.name));
        let message = format!("port {id}: {what} ({packets})");
        found.push(view.violation(class, &[&id.lease.tenant], message, path));
    };
    for (class, space, what) in common_spoofs().into_iter().chain(own_spoofs(port)) {
        if let Some(example) = inside(&flows, &space) {
            say(class, what, example);
        }
    }
    for v4 in [true, false] {
        let nobody = Space::all().with_one(super::site::source(v4), 0);
        let from: Vec<_> = flows
            .iter()
            .map(|flow| super::flow::Flow { space: flow.space.and(&nobody), ..flow.clone() })
            .filter(|flow| !flow.space.is_empty())
            .collect();
        if let Some(example) = beyond(&from, &from_nobody(v4)) {
            say(Class::Source, "packets from no address pass", example);
        }
    }
}

fn switches(
    view: &View<'_>,
    link: &ObservedLink,
    id: &PortId,
    _: &Port,
    found: &mut Vec<Violation>,
) {
    let tenant = &id.lease.tenant;
    let mut say = |what: &str| {
        let message = format!("port {id} ({}): {what}", link.name);
        found.push(view.violation(Class::PortSwitch, &[tenant], message, Vec::new()));
    };
    let Some(switches) = link.port else { return };
    let talk = view.network(&id.network_id()).is_some_and(|network| network.ports_talk);
    if !switches.isolated && !talk {
        say("not isolated from other ports of its bridge");
    }
    if !switches.locked {
        say("not locked to its station");
    }
    if switches.learning {
        say("its bridge learns stations from it");
    }
    if switches.flood {
        say("frames for unknown stations go to it");
    }
}

/// Entries that send what is for one station to another.
fn entries(view: &View<'_>, found: &mut Vec<Violation>) {
    let ends = view.tunnel_ends();
    let by_routing = &view.host.access.tunnel_ends;
    for entry in &view.host.observed.neighbours {
        let meaning = view.meaning(entry.link());
        let wrong = match (entry, meaning) {
            (Neighbour::Station { mac, .. }, Some(Meaning::Port(_, port))) => *mac != port.mac,
            (Neighbour::Remote { remote, .. }, Some(Meaning::Fabric(_))) => {
                let known = ends.contains(remote) || by_routing.iter().any(|p| p.contains(*remote));
                !known
            }
            (Neighbour::Address { ip, mac, .. }, Some(Meaning::Bridge(id))) => {
                let owner = |(_, port): &(&PortId, &Port)| port.addresses.contains(ip);
                let owner = view.host.desired.ports_in(id).find(owner);
                owner.is_some_and(|(_, port)| port.mac != *mac)
            }
            _ => false,
        };
        if wrong {
            let tenants: Vec<_> = meaning.map(Meaning::tenant).into_iter().collect();
            let message = format!("{entry}: not as was agreed");
            found.push(view.violation(Class::Entry, &tenants, message, Vec::new()));
        }
    }
}
