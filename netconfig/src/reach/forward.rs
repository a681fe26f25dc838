//! What the host passes on: to other tenants, out of the host, from outside.

use bulkhead_api::id::TenantName;
use bulkhead_api::network::{Egress, IpPrefix, NetworkId};

use super::flow::{Flow, Seen, Ways};
use super::named::named_ways_out;
use super::packet::{narrow, unasked};
use super::site::{Meaning, OUTSIDER, STRANGERS, View, beyond, destination, ip, ranges, source};
use super::space::Space;
use super::violation::{Class, Violation};
use crate::firewall::ruleset::{Family, Field, HookPoint, Ranges, number};
use crate::model::{LinkKind, Network, ObservedLink};

pub(super) fn check(view: &View<'_>, found: &mut Vec<Violation>) {
    for (link, tenant) in view.routed_links() {
        let incoming = view.seen(link.name.as_str());
        let named = named_ways_out(view.host.rules, Family::Inet, incoming.name);
        let ways_out = named.into_iter().map(|name| view.seen(name));
        for outgoing in ways_out.chain(STRANGERS).chain([OUTSIDER]) {
            let to = view.tenant_of(outgoing.name);
            if to == Some(tenant) {
                continue;
            }
            // By this layer alone: whatever sources the one before would let in.
            for v4 in [true, false] {
                let all = vec![Flow::of(ip(v4))];
                let flows = passed_on(view, incoming, outgoing, all);
                one_way(view, link, tenant, outgoing, v4, &flows, found);
            }
        }
    }
    inbound(view, found);
}

/// Packets that rules pass on from one link to another.
pub(super) fn passed_on<'a>(
    view: &View<'a>,
    incoming: Seen<'_>,
    outgoing: Seen<'_>,
    entering: Vec<Flow<'a>>,
) -> Vec<Flow<'a>> {
    let ways = Ways { incoming: Some(incoming), outgoing: Some(outgoing) };
    view.pass(Family::Inet, HookPoint::Forward, ways, entering)
}

fn one_way(
    view: &View<'_>,
    link: &ObservedLink,
    tenant: &TenantName,
    outgoing: Seen<'_>,
    v4: bool,
    flows: &[Flow<'_>],
    found: &mut Vec<Violation>,
) {
    let is_uplink = view.uplinks.iter().any(|uplink| uplink.as_str() == outgoing.name);
    let (class, allowed) = if is_uplink {
        (Class::Egress, egress(view, link, v4))
    } else {
        (Class::Forward, agreed(view, link, outgoing.name, v4))
    };
    let Some((packets, mut path)) = beyond(flows, &allowed) else { return };
    let to = view.tenant_of(outgoing.name);
    path.insert(0, format!("link {}", link.name));
    path.push(format!("link {}", outgoing.name));
    if is_uplink && reaches_tunnel(view, &packets) {
        let message = format!("{tenant} can put frames into VXLANs of the site ({packets})");
        found.push(view.violation(Class::Tunnel, &[tenant], message, path.clone()));
    }
    let whither =
        to.map_or_else(|| outgoing.name.to_owned(), |to| format!("{to} ({})", outgoing.name));
    let message = format!("packets of {tenant} are passed on to {whither} ({packets})");
    let whom: Vec<_> = std::iter::once(tenant).chain(to).collect();
    found.push(view.violation(class, &whom, message, path));
}

fn reaches_tunnel(view: &View<'_>, packets: &Space) -> bool {
    view.host.desired.underlay.vxlan.as_ref().is_some_and(|vxlan| {
        let ends = view.tunnel_ends().into_iter().map(|ip| IpPrefix::around(ip, 128));
        let ends: Vec<IpPrefix> = ends.collect();
        [true, false].into_iter().any(|v4| {
            let to = Space::all().with(destination(v4), &ranges(ends.iter().copied(), v4));
            let to = to.with_one(Field::Protocol, number::UDP);
            let to = to.with_one(Field::DestinationPort, vxlan.port.into());
            !packets.and(&to).is_empty()
        })
    })
}

fn subnets(network: &Network, v4: bool) -> Ranges {
    ranges(network.subnets.iter().map(|subnet| subnet.prefix), v4)
}

/// What a network may send out of the host.
fn egress(view: &View<'_>, link: &ObservedLink, v4: bool) -> Vec<Space> {
    let host = |ip| IpPrefix::around(ip, 128);
    let underlay = &view.host.desired.underlay;
    let own = underlay.uplink.iter().flat_map(|uplink| uplink.addresses.iter().map(|a| host(a.0)));
    let vlans = underlay.vlans.iter().flat_map(|vlan| &vlan.addresses);
    let vlans = vlans.map(|(ip, length)| IpPrefix::around(*ip, *length));
    let closed = view.host.access.closed.iter().chain(&view.host.access.tunnel_ends).copied();
    let closed = closed.chain(view.tunnel_ends().into_iter().map(host)).chain(own).chain(vlans);
    let closed = ranges(closed, v4).union(&nowhere(v4));
    let open = closed.complement(destination(v4).kind().largest());
    let mut allowed = Vec::new();
    for (_, network) in view.networks_behind(link) {
        let to = match &network.egress {
            Egress::Deny => continue,
            Egress::All => open.clone(),
            Egress::To(prefixes) => ranges(prefixes.iter().copied(), v4).intersection(&open),
        };
        allowed
            .push(Space::all().with(source(v4), &subnets(network, v4)).with(destination(v4), &to));
    }
    allowed
}

/// Addresses that mean nothing outside a host or a link.
fn nowhere(v4: bool) -> Ranges {
    let texts: &[&str] = if v4 {
        &["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"]
    } else {
        &["::/8", "fe80::/10", "ff00::/8"]
    };
    ranges(texts.iter().filter_map(|text| text.parse().ok()), v4)
}

/// What was agreed between the networks of two links.
fn agreed(view: &View<'_>, link: &ObservedLink, outgoing: &str, v4: bool) -> Vec<Space> {
    let Ok(name) = outgoing.parse() else { return Vec::new() };
    let Some(Meaning::Bridge(to)) = view.meaning(&name) else { return Vec::new() };
    let Some(target) = view.network(to) else { return Vec::new() };
    let peers = |from: &NetworkId, network: &Network| {
        network.peers.contains(to) && target.peers.contains(from)
    };
    let behind = view.networks_behind(link);
    let behind = behind.into_iter().filter(|(from, network)| peers(from, network));
    behind
        .map(|(_, network)| {
            let from = Space::all().with(source(v4), &subnets(network, v4));
            from.with(destination(v4), &subnets(target, v4))
        })
        .collect()
}

/// From outside, and from links that are nobody's, only answers come to a tenant.
fn inbound(view: &View<'_>, found: &mut Vec<Violation>) {
    let targets: Vec<_> = view
        .routed_links()
        .filter(|(link, _)| matches!(link.known(), Some(LinkKind::Bridge)))
        .collect();
    let uplinks = view.uplinks.iter().map(|name| view.seen(name.as_str()));
    for incoming in uplinks.chain(STRANGERS).chain([OUTSIDER]) {
        let is_uplink = view.uplinks.iter().any(|uplink| uplink.as_str() == incoming.name);
        let named = named_ways_out(view.host.rules, Family::Inet, incoming.name);
        // Rules that do not name a link treat all that they do not name alike.
        let mut others = 1;
        for (link, tenant) in &targets {
            if !named.contains(&link.name.as_str()) {
                if others == 0 {
                    continue;
                }
                others -= 1;
            }
            let open = view.networks_behind(link).iter().any(|(_, net)| net.egress != Egress::Deny);
            let outgoing = view.seen(link.name.as_str());
            for v4 in [true, false] {
                let all = vec![Flow::of(ip(v4))];
                let mut flows = passed_on(view, incoming, outgoing, all);
                if is_uplink && open {
                    flows = narrow(flows, &unasked());
                }
                if let Some(flow) = flows.into_iter().next() {
                    let message = format!(
                        "what comes in by {} is passed on to {tenant} ({}) unasked ({})",
                        incoming.name, link.name, flow.space
                    );
                    found.push(view.violation(Class::Inbound, &[tenant], message, flow.path()));
                }
            }
        }
    }
}
