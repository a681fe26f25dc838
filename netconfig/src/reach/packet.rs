//! Is a packet's tenant known when it comes in, and what reaches the host itself.

use std::net::IpAddr;

use bulkhead_api::id::TenantName;

use super::flow::{Flow, Seen, Ways};
use super::forward::passed_on;
use super::port::from_nobody;
use super::site::{OUTSIDER, STRANGERS, View, beyond, destination, inside, ip, ranges, source};
use super::space::Space;
use super::violation::{Class, Violation};
use crate::firewall::Traffic;
use crate::firewall::ruleset::{Family, Field, HookPoint, Ranges, number};
use crate::model::{LinkName, ObservedLink, Role};
use bulkhead_api::network::{Egress, IpPrefix};

/// Neighbour discovery but redirects: router solicitation to neighbour advertisement (RFC 4861, 4.1 to 4.4).
const NEIGHBOURS: (u128, u128) = (133, number::NEIGHBOUR_ADVERTISEMENT);
const DHCP6_CLIENT: u128 = 546;

pub(super) fn check(view: &View<'_>, found: &mut Vec<Violation>) {
    for (link, tenant) in view.routed_links() {
        let seen = view.seen(link.name.as_str());
        for v4 in [true, false] {
            let flows = view.entering(Family::Inet, seen, ip(v4));
            sources(view, link, tenant, v4, &flows, found);
            zone(view, link, tenant, &flows, found);
            host(view, link, tenant, v4, flows, found);
        }
        leaving_zone(view, link, tenant, found);
    }
    answers(view, found);
    for stranger in STRANGERS {
        for v4 in [true, false] {
            let flows = view.entering(Family::Inet, stranger, ip(v4));
            if let Some((packets, path)) = beyond(&flows, &from_nobody(v4)) {
                let message =
                    format!("packets of a tenant's link that nobody agreed on come in ({packets})");
                found.push(view.violation(Class::Stranger, &[], message, path));
            }
        }
    }
    underlay(view, found);
}

/// Sources that a tenant's packets may have: its subnets, link-local, or none yet.
fn sources(
    view: &View<'_>,
    link: &ObservedLink,
    tenant: &TenantName,
    v4: bool,
    flows: &[Flow<'_>],
    found: &mut Vec<Violation>,
) {
    let subnets = view.networks_behind(link);
    let subnets = subnets.iter().flat_map(|(_, network)| &network.subnets);
    let mut own = ranges(subnets.map(|subnet| subnet.prefix), v4);
    if !v4 {
        let local = 0xfe80 << 112;
        own = own.union(&Ranges::span(local, local | u128::from(u64::MAX)));
    }
    let mut allowed = from_nobody(v4);
    allowed.push(Space::all().with(source(v4), &own));
    if let Some((packets, path)) = beyond(flows, &allowed) {
        let message = format!(
            "{tenant}: packets that come in by {} have sources outside its subnets ({packets})",
            link.name
        );
        found.push(view.violation(Class::RoutedSource, &[tenant], message, path));
    }
}

fn zone(
    view: &View<'_>,
    link: &ObservedLink,
    tenant: &TenantName,
    flows: &[Flow<'_>],
    found: &mut Vec<Violation>,
) {
    let own = view.host.desired.tenants.get(tenant).map(|number| number.get());
    if let Some(flow) = flows.iter().find(|flow| Some(flow.zone) != own) {
        let message =
            format!("{tenant}: flows that come in by {} are in zone {}", link.name, flow.zone);
        found.push(view.violation(Class::Zone, &[tenant], message, flow.path()));
    }
}

/// The host's own packets to a tenant are in the tenant's zone, too.
fn leaving_zone(
    view: &View<'_>,
    link: &ObservedLink,
    tenant: &TenantName,
    found: &mut Vec<Violation>,
) {
    let ways = Ways { incoming: None, outgoing: Some(view.seen(link.name.as_str())) };
    let flows = view.pass(Family::Inet, HookPoint::Output, ways, vec![Flow::of(Space::all())]);
    let own = view.host.desired.tenants.get(tenant).map(|number| number.get());
    if let Some(flow) = flows.iter().find(|flow| Some(flow.zone) != own) {
        let message =
            format!("{tenant}: the host's flows to {} are in zone {}", link.name, flow.zone);
        found.push(view.violation(Class::Zone, &[tenant], message, flow.path()));
    }
}

/// Answers to a tenant's egress are looked up in its zone.
fn answers(view: &View<'_>, found: &mut Vec<Violation>) {
    let Some(uplink) = view.uplinks.first() else { return };
    let incoming = view.seen(uplink.as_str());
    let open = view.host.desired.networks.iter().filter(|(_, net)| net.egress != Egress::Deny);
    for (id, network) in open {
        let own = view.host.desired.tenants.get(&id.tenant).map(|number| number.get());
        for v4 in [true, false] {
            let to = ranges(network.subnets.iter().map(|subnet| subnet.prefix), v4);
            let back = ip(v4).with(destination(v4), &to);
            if back.is_empty() {
                continue;
            }
            let bridge = LinkName::of_network(Role::Bridge, id);
            let outgoing = view.seen(bridge.as_str());
            let all = vec![Flow::of(back.clone())];
            if passed_on(view, incoming, outgoing, all).is_empty() {
                continue;
            }
            let flows = view.entering(Family::Inet, incoming, back);
            if let Some(flow) = flows.iter().find(|flow| Some(flow.zone) != own) {
                let message =
                    format!("{id}: answers that come in by {uplink} are in zone {}", flow.zone);
                found.push(view.violation(Class::Zone, &[&id.tenant], message, flow.path()));
            }
        }
    }
}

fn to_host<'a>(view: &View<'a>, incoming: Seen<'_>, flows: Vec<Flow<'a>>) -> Vec<Flow<'a>> {
    let ways = Ways { incoming: Some(incoming), outgoing: None };
    view.pass(Family::Inet, HookPoint::Input, ways, flows)
}

/// Packets by which something is asked.
fn asked(traffic: Traffic, v4: bool) -> Space {
    let to = |protocol, port: u16| {
        let asked = ip(v4).with_one(Field::Protocol, protocol);
        asked.with_one(Field::DestinationPort, port.into())
    };
    match traffic {
        Traffic::Udp(port) => to(number::UDP, port),
        Traffic::Tcp(port) => to(number::TCP, port),
        Traffic::Echo if v4 => Space::all().with_one(Field::Icmp4Type, number::ECHO_REQUEST),
        Traffic::Echo => Space::all().with_one(Field::Icmp6Type, number::ECHO_REQUEST6),
    }
}

/// What a tenant may ask of the host, and at a rate only.
fn host<'a>(
    view: &View<'a>,
    link: &ObservedLink,
    tenant: &TenantName,
    v4: bool,
    entering: Vec<Flow<'a>>,
    found: &mut Vec<Violation>,
) {
    let flows = to_host(view, view.seen(link.name.as_str()), entering);
    let mut allowed = Vec::new();
    if !v4 {
        let kinds = [number::NEIGHBOUR_SOLICITATION, number::NEIGHBOUR_ADVERTISEMENT];
        allowed.extend(kinds.map(|kind| Space::all().with_one(Field::Icmp6Type, kind)));
    }
    for service in &view.host.access.services {
        let networks = view.networks_behind(link);
        let gateways = networks.iter().flat_map(|(_, network)| network.gateways());
        let at = gateways.map(|(gateway, _)| gateway).chain(service.addresses.iter().copied());
        let at: Vec<IpPrefix> = at.map(|ip: IpAddr| IpPrefix::around(ip, 128)).collect();
        let asked = asked(service.traffic, v4);
        allowed.push(asked.with(destination(v4), &ranges(at, v4)));
    }
    if let Some((packets, path)) = beyond(&flows, &allowed) {
        let message = format!("{tenant} reaches the host by {} ({packets})", link.name);
        found.push(view.violation(Class::Host, &[tenant], message, path));
    }
    if let Some(flow) = flows.iter().find(|flow| !flow.limited) {
        let message =
            format!("{tenant} asks the host by {} at any rate ({})", link.name, flow.space);
        found.push(view.violation(Class::Rate, &[tenant], message, flow.path()));
    }
    if let Some(vxlan) = &view.host.desired.underlay.vxlan {
        let tunnel = ip(v4).with_one(Field::Protocol, number::UDP);
        let tunnel = tunnel.with_one(Field::DestinationPort, vxlan.port.into());
        if let Some((packets, path)) = inside(&flows, &tunnel) {
            let message = format!(
                "{tenant} can put frames into the host's VXLANs by {} ({packets})",
                link.name
            );
            found.push(view.violation(Class::Tunnel, &[tenant], message, path));
        }
    }
}

/// What others of the site, and links that are nobody's, reach of the host.
fn underlay(view: &View<'_>, found: &mut Vec<Violation>) {
    let uplinks = view.uplinks.iter().map(|name| view.seen(name.as_str()));
    for incoming in uplinks.chain([OUTSIDER]) {
        for v4 in [true, false] {
            let flows = to_host(view, incoming, view.entering(Family::Inet, incoming, ip(v4)));
            let (flows, allowed) = if incoming == OUTSIDER {
                (flows, Vec::new())
            } else {
                (narrow(flows, &unasked()), offered(view, v4))
            };
            if let Some((packets, path)) = beyond(&flows, &allowed) {
                let message =
                    format!("what comes in by {} reaches the host ({packets})", incoming.name);
                found.push(view.violation(Class::Underlay, &[], message, path));
            }
            let neighbours =
                Space::all().with(Field::Icmp6Type, &Ranges::span(NEIGHBOURS.0, NEIGHBOURS.1));
            let unlimited: Vec<Flow<'_>> = flows.into_iter().filter(|flow| !flow.limited).collect();
            if let Some((packets, path)) = inside(&unlimited, &neighbours) {
                let message =
                    format!("neighbour discovery by {} at any rate ({packets})", incoming.name);
                found.push(view.violation(Class::Rate, &[], message, path));
            }
        }
    }
}

/// What of some packets is in a space.
pub(super) fn narrow<'r>(flows: Vec<Flow<'r>>, space: &Space) -> Vec<Flow<'r>> {
    let both = flows.into_iter().map(|flow| Flow { space: flow.space.and(space), ..flow });
    both.filter(|flow| !flow.space.is_empty()).collect()
}

/// Packets of flows that nobody here began: conntrack says neither established (2) nor related (4).
pub(super) fn unasked() -> Space {
    let answers = [number::ESTABLISHED, number::RELATED].into_iter();
    let answers: Ranges = answers.map(|state| (state, state)).collect();
    Space::all().with(Field::CtState, &answers.complement(Field::CtState.kind().largest()))
}

/// What the host offers to its site.
fn offered(view: &View<'_>, v4: bool) -> Vec<Space> {
    let udp = || ip(v4).with_one(Field::Protocol, number::UDP);
    let (server, client) = if v4 {
        (number::DHCP_SERVER, number::DHCP_CLIENT)
    } else {
        (number::DHCP6_SERVER, DHCP6_CLIENT)
    };
    let dhcp = udp().with_one(Field::SourcePort, server).with_one(Field::DestinationPort, client);
    let mut allowed = vec![dhcp];
    if !v4 {
        let kinds = Ranges::span(NEIGHBOURS.0, NEIGHBOURS.1);
        allowed.push(Space::all().with(Field::Icmp6Type, &kinds));
    }
    if let Some(vxlan) = &view.host.desired.underlay.vxlan {
        let ends = vxlan.remotes.iter().map(|ip| IpPrefix::around(*ip, 128));
        let ends = ends.chain(view.host.access.tunnel_ends.iter().copied());
        let tunnel = udp().with_one(Field::DestinationPort, vxlan.port.into());
        allowed.push(tunnel.with(source(v4), &ranges(ends, v4)));
    }
    for service in &view.host.access.uplink_services {
        let from = ranges(service.from.iter().copied(), v4);
        allowed.push(asked(service.traffic, v4).with(source(v4), &from));
    }
    allowed
}
