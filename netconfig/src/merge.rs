//! From networks, ports and underlay to the kernel's objects: one bridge a network, one table a tenant.
//!
//! ```text
//!   tenant's end ─ veth, tap ─┐                      ┌─ VXLAN (no learning, neighbour suppression) ─ underlay
//!        isolated, locked, ───┤ bridge, gateway ─────┤
//!        one station          │ address              └─ VLAN on the uplink
//!                             └─ rule "from this bridge" (or VRF) ─ table of the tenant, which ends in a route that
//!                                refuses, so that no packet of a tenant is ever judged by the host's own table
//! ```

use std::collections::BTreeSet;

use bulkhead_api::id::TenantName;
use bulkhead_api::network::{Egress, IpPrefix, NetworkId, PortKind};

use crate::model::{
    Address, BridgePort, Desired, Family, LinkKind, LinkName, Neighbour, Network, Port, PortId,
    Role, Route, RouteKind, Rule, Segment, Selector, Target, TargetLink, TenantNumber,
    UNDERLAY_GROUP, UsedLink, gateway_mac,
};

/// How a tenant's packets find its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routing {
    /// A VRF a tenant: the bridges are its members.
    Vrf,
    /// A rule for each bridge: kernels without VRF.
    Rules,
}

/// Priority of rules that go by the link. Behind the local table (0), before the main one (32766).
pub const LINK_PRIORITY: u32 = 10_000;
/// Priority of rules that go by the mark: answers from outside find their tenant by it.
pub const MARK_PRIORITY: u32 = 10_001;
/// Metric of our routes; a routing daemon's win with a lower one.
pub const METRIC: u32 = 1024;
/// Metric of the last word of a table.
pub const LAST_METRIC: u32 = 65_535;

/// A bridge's port on the tenant's side: heard only with its own address, sent only what is for it.
const ACCESS: BridgePort = BridgePort {
    isolated: true,
    locked: true,
    learning: false,
    flood: false,
    neigh_suppress: false,
};
/// A bridge's port to other hosts by VXLAN: who is where is told and never learnt.
const TUNNEL: BridgePort = BridgePort {
    isolated: false,
    locked: false,
    learning: false,
    flood: true,
    neigh_suppress: true,
};
/// A bridge's port to the switch: only the switch knows who is where.
const TRUNK: BridgePort = BridgePort::NEW;

/// The kernel's objects of a desired state without faults. What has a fault (see [`mod@crate::check`]) comes out
/// incomplete.
#[must_use]
pub fn merge(desired: &Desired, routing: Routing) -> Target {
    let mut target = Target::default();
    underlay(desired, &mut target);
    let with_network: BTreeSet<&TenantName> =
        desired.networks.keys().map(|id| &id.tenant).collect();
    for tenant in with_network {
        if let Some(number) = desired.tenants.get(tenant) {
            table(desired, tenant, *number, routing, &mut target);
        }
    }
    for (id, network) in &desired.networks {
        if let Some(number) = desired.tenants.get(&id.tenant) {
            segment(desired, id, network, *number, routing, &mut target);
        }
    }
    for peering in desired.peerings() {
        for (from, to) in [(peering.first, peering.second), (peering.second, peering.first)] {
            let number = desired.tenants.get(&from.tenant);
            let (Some(number), Some(network)) = (number, desired.networks.get(to)) else {
                continue;
            };
            target.routes.extend(connected(to, network, *number));
        }
    }
    for (id, port) in &desired.ports {
        access(desired, id, port, &mut target);
    }
    target
}

fn underlay(desired: &Desired, target: &mut Target) {
    let Some(uplink) = &desired.underlay.uplink else { return };
    let Some(name) = uplink.link() else { return };
    let mtu = u32::from(uplink.mtu);
    for member in &uplink.members {
        let master = uplink.bond.map(|_| name.clone());
        target.used.insert(member.clone(), UsedLink { min_mtu: Some(mtu), master });
    }
    let own = |kind: LinkKind, mtu: u32| TargetLink {
        kind,
        group: UNDERLAY_GROUP,
        mtu: Some(mtu),
        mac: None,
        master: None,
        port: None,
    };
    let addresses = |link: &LinkName, all: &[(std::net::IpAddr, u8)]| {
        let address = |&(ip, length): &(_, u8)| Address { link: link.clone(), ip, length };
        all.iter().map(address).collect::<Vec<_>>()
    };
    if let Some(bond) = uplink.bond {
        let kind = LinkKind::Bond { mode: bond.mode, miimon_ms: bond.miimon_ms };
        target.links.insert(name.clone(), own(kind, mtu));
        target.addresses.extend(addresses(&name, &uplink.addresses));
    }
    for host in &desired.underlay.vlans {
        let link = LinkName::of_host(Role::HostVlan, host.vlan.get());
        let kind = LinkKind::Vlan { parent: name.clone(), vlan: host.vlan };
        target.addresses.extend(addresses(&link, &host.addresses));
        target.links.insert(link, own(kind, u32::from(host.mtu)));
    }
}

/// The last word of a tenant's table, and the ways to it.
fn table(
    desired: &Desired,
    tenant: &TenantName,
    number: TenantNumber,
    routing: Routing,
    target: &mut Target,
) {
    let outward = |(id, network): (&NetworkId, &Network)| {
        id.tenant == *tenant && network.egress != Egress::Deny
    };
    // The firewall judges which of the tenant's networks goes whither; here it is only whether any does.
    let goes_out = desired.networks.iter().any(outward);
    for (family, prefix) in [(Family::V4, IpPrefix::ALL_V4), (Family::V6, IpPrefix::ALL_V6)] {
        let kind = if goes_out { RouteKind::Throw } else { RouteKind::Unreachable };
        let table = number.table();
        target.routes.insert(Route { table, prefix, metric: LAST_METRIC, kind });
        let selector = Selector::Mark(u32::from(number.get()));
        target.rules.insert(Rule { priority: MARK_PRIORITY, family, selector, table });
    }
    if routing == Routing::Vrf {
        let link = TargetLink {
            kind: LinkKind::Vrf { table: number.table() },
            group: number.group(),
            mtu: None,
            mac: None,
            master: None,
            port: None,
        };
        target.links.insert(LinkName::of_vrf(tenant), link);
    }
}

fn segment(
    desired: &Desired,
    id: &NetworkId,
    network: &Network,
    number: TenantNumber,
    routing: Routing,
    target: &mut Target,
) {
    let bridge = LinkName::of_network(Role::Bridge, id);
    let mtu = Some(u32::from(network.mtu));
    let group = number.group();
    let vrf = (routing == Routing::Vrf).then(|| LinkName::of_vrf(&id.tenant));
    let mac = Some(gateway_mac(id));
    let link = TargetLink { kind: LinkKind::Bridge, group, mtu, mac, master: vrf, port: None };
    target.links.insert(bridge.clone(), link);
    let outward = |kind: LinkKind, port: BridgePort| TargetLink {
        kind,
        group,
        mtu,
        mac: None,
        master: Some(bridge.clone()),
        port: Some(port),
    };
    let underlay = &desired.underlay;
    match network.segment {
        Segment::Vni(vni) => {
            if let Some(vxlan) = &underlay.vxlan {
                let name = LinkName::of_network(Role::Vxlan, id);
                let kind = LinkKind::Vxlan { vni, local: vxlan.address, port: vxlan.port };
                let remote = |remote: &_| Neighbour::Remote { link: name.clone(), remote: *remote };
                target.neighbours.extend(vxlan.remotes.iter().map(remote));
                target.links.insert(name, outward(kind, TUNNEL));
            }
        }
        Segment::Vlan(vlan) => {
            if let Some(parent) = underlay.uplink.as_ref().and_then(crate::model::Uplink::link) {
                let name = LinkName::of_network(Role::Vlan, id);
                target.links.insert(name, outward(LinkKind::Vlan { parent, vlan }, TRUNK));
            }
        }
    }
    for (ip, prefix) in network.gateways() {
        let link = bridge.clone();
        target.addresses.insert(Address { link, ip, length: prefix.length() });
    }
    target.routes.extend(connected(id, network, number));
    if routing == Routing::Rules {
        for family in [Family::V4, Family::V6] {
            let selector = Selector::Iif(bridge.clone());
            let table = number.table();
            target.rules.insert(Rule { priority: LINK_PRIORITY, family, selector, table });
        }
    }
}

/// Routes to the subnets of a network that have a gateway, for the table of a tenant that may go there.
fn connected<'a>(
    to: &NetworkId,
    network: &'a Network,
    of: TenantNumber,
) -> impl Iterator<Item = Route> + 'a {
    let link = LinkName::of_network(Role::Bridge, to);
    network.gateways().map(move |(_, prefix)| Route {
        table: of.table(),
        prefix,
        metric: METRIC,
        kind: RouteKind::Link { link: link.clone(), via: None },
    })
}

fn access(desired: &Desired, id: &PortId, port: &Port, target: &mut Target) {
    let network_id = id.network_id();
    let number = desired.tenants.get(&network_id.tenant);
    let (Some(number), Some(network)) = (number, desired.networks.get(&network_id)) else { return };
    let name = LinkName::of_port(Role::Port, id);
    let kind = match port.kind {
        // A VF is no port of a bridge: the card and the switch join it to its VLAN.
        PortKind::Vf => return,
        PortKind::Tap => LinkKind::Tap,
        PortKind::Veth => {
            let peer = LinkName::of_port(Role::Peer, id);
            LinkKind::Veth { peer, peer_mac: Some(port.mac) }
        }
    };
    let bridge = LinkName::of_network(Role::Bridge, &network_id);
    let link = TargetLink {
        kind,
        group: number.group(),
        mtu: Some(u32::from(network.mtu)),
        mac: None,
        master: Some(bridge.clone()),
        port: Some(BridgePort { isolated: !network.ports_talk, ..ACCESS }),
    };
    target.neighbours.insert(Neighbour::Station { link: name.clone(), mac: port.mac });
    let routed = |ip| network.gateways().any(|(_, prefix)| prefix.contains(ip));
    for ip in port.addresses.iter().copied().filter(|ip| routed(*ip)) {
        let link = bridge.clone();
        target.neighbours.insert(Neighbour::Address { link, ip, mac: port.mac });
    }
    target.links.insert(name, link);
}

#[cfg(test)]
mod tests;
