//! Observed sites for tests, built by hand from what was agreed: not by `merge`, of which the prover must know nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bulkhead_api::network::{Egress, IpPrefix, NetworkId, PortKind};

use super::{Host, Site};
use crate::firewall::ruleset::Ruleset;
use crate::firewall::{Access, compile, sample};
use crate::model::{
    BridgePort, Desired, Family, LinkKind, LinkName, Master, Neighbour, Network, Observed,
    ObservedKind, ObservedLink, Role, Route, RouteKind, Rule, Segment, Selector,
};

/// A host with what it owns.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) desired: Desired,
    pub(super) access: Access,
    pub(super) observed: Observed,
    pub(super) rules: Ruleset,
}

/// Hosts by name.
pub(super) type Worlds = BTreeMap<String, World>;

pub(super) fn site(worlds: &Worlds) -> Site<'_> {
    Site {
        hosts: worlds
            .iter()
            .map(|(name, world)| {
                let World { desired, access, observed, rules } = world;
                (name.clone(), Host { desired, access, observed, rules })
            })
            .collect(),
    }
}

/// A host that is as it should be.
pub(super) fn good(desired: Desired, access: Access) -> World {
    let rules = compile(&desired, &access).ruleset;
    let observed = observe(&desired, access.vrfs);
    World { desired, access, observed, rules }
}

/// One host with tenants 1 and 2, who talk, and 3, who does not; two networks each.
pub(super) fn one_host(vrfs: bool) -> Worlds {
    host_of(vrfs, 2)
}

/// The same with so many networks each, of which the last are peers.
pub(super) fn host_of(vrfs: bool, networks: u16) -> Worlds {
    let mut desired = sample::desired(3, networks, 1);
    let (one, two) = (sample::id(1, networks), sample::id(2, networks));
    desired.networks.get_mut(&one).unwrap().peers.insert(two.clone());
    desired.networks.get_mut(&two).unwrap().peers.insert(one);
    // Tenant 3 goes nowhere.
    desired.networks.get_mut(&sample::id(3, 1)).unwrap().egress = Egress::Deny;
    let to = Egress::To(vec![sample::prefix("203.0.113.0/24"), sample::prefix("2001:db8:1::/48")]);
    desired.networks.get_mut(&sample::id(2, 1)).unwrap().egress = to;
    let access = Access { vrfs, ..sample::access() };
    BTreeMap::from([("h1".to_owned(), good(desired, access))])
}

pub(super) fn index_of(observed: &Observed, name: &LinkName) -> u32 {
    observed.link(name).unwrap().index
}

pub(super) fn link_mut<'a>(observed: &'a mut Observed, name: &LinkName) -> &'a mut ObservedLink {
    observed.links.values_mut().find(|link| link.name == *name).unwrap()
}

struct Making {
    observed: Observed,
    next: u32,
}

impl Making {
    fn link(
        &mut self,
        name: LinkName,
        kind: ObservedKind,
        group: u32,
        master: Option<&LinkName>,
    ) -> u32 {
        let index = self.next;
        self.next += 1;
        let master = master
            .map(|name| Master { index: index_of(&self.observed, name), name: Some(name.clone()) });
        let link = ObservedLink {
            index,
            name,
            kind,
            group,
            mtu: 1450,
            mac: None,
            master,
            parent: None,
            port: None,
            up: true,
            carrier: true,
            makes_addresses: false,
            vfs: Vec::new(),
        };
        self.observed.links.insert(index, link);
        index
    }

    fn switches(&mut self, index: u32, port: BridgePort) {
        self.observed.links.get_mut(&index).unwrap().port = Some(port);
    }
}

fn observe(desired: &Desired, vrfs: bool) -> Observed {
    let mut making = Making { observed: Observed::default(), next: 1 };
    let lo: LinkName = "lo".parse().unwrap();
    making.link(lo, ObservedKind::Device, 0, None);
    let uplink = desired.underlay.uplink.as_ref().and_then(crate::model::Uplink::link);
    if let Some(uplink) = &uplink {
        making.link(uplink.clone(), ObservedKind::Device, 0, None);
        let kind = RouteKind::Link { link: uplink.clone(), via: Some([192, 0, 2, 254].into()) };
        let route = Route { table: 254, prefix: IpPrefix::ALL_V4, metric: 100, kind };
        making.observed.foreign_routes.insert(route);
    }
    for (tenant, number) in &desired.tenants {
        if vrfs {
            let kind = ObservedKind::Known(LinkKind::Vrf { table: number.table() });
            making.link(LinkName::of_vrf(tenant), kind, number.group(), None);
        }
        let own = || desired.networks.iter().filter(|(id, _)| id.tenant == *tenant);
        let open = own().any(|(_, network)| network.egress != Egress::Deny);
        for prefix in [IpPrefix::ALL_V4, IpPrefix::ALL_V6] {
            let kind = if open { RouteKind::Throw } else { RouteKind::Unreachable };
            let route = Route { table: number.table(), prefix, metric: 65_535, kind };
            making.observed.routes.insert(route);
        }
        for (id, network) in own() {
            making.network(desired, id, network, vrfs);
            making.ports(desired, id, network);
        }
    }
    making.observed
}

impl Making {
    fn network(&mut self, desired: &Desired, id: &NetworkId, network: &Network, vrfs: bool) {
        let number = desired.tenants[&id.tenant];
        let bridge = LinkName::of_network(Role::Bridge, id);
        let vrf = LinkName::of_vrf(&id.tenant);
        let kind = ObservedKind::Known(LinkKind::Bridge);
        self.link(bridge.clone(), kind, number.group(), vrfs.then_some(&vrf));
        if let (Segment::Vni(vni), Some(vxlan)) = (network.segment, &desired.underlay.vxlan) {
            let kind = LinkKind::Vxlan { vni, local: vxlan.address, port: vxlan.port };
            let name = LinkName::of_network(Role::Vxlan, id);
            let kind = ObservedKind::Known(kind);
            let index = self.link(name.clone(), kind, number.group(), Some(&bridge));
            let switches = BridgePort { learning: false, neigh_suppress: true, ..BridgePort::NEW };
            self.switches(index, switches);
            for remote in &vxlan.remotes {
                let entry = Neighbour::Remote { link: name.clone(), remote: *remote };
                self.observed.neighbours.insert(entry);
            }
        }
        let peer = |(from, net): &(&NetworkId, &Network)| {
            let agreed = net.peers.contains(id) && network.peers.contains(*from);
            from.tenant != id.tenant && agreed
        };
        let peers = desired.networks.iter().filter(peer);
        let tables = peers.map(|(from, _)| desired.tenants[&from.tenant].table());
        let tables: BTreeSet<u32> = tables.chain([number.table()]).collect();
        for (_, prefix) in network.gateways() {
            for &table in &tables {
                let kind = RouteKind::Link { link: bridge.clone(), via: None };
                self.observed.routes.insert(Route { table, prefix, metric: 1024, kind });
            }
        }
        for family in [Family::V4, Family::V6].into_iter().filter(|_| !vrfs) {
            let selector = Selector::Iif(bridge.clone());
            let rule = Rule { priority: 10_000, family, selector, table: number.table() };
            self.observed.rules.insert(rule);
        }
    }

    fn ports(&mut self, desired: &Desired, id: &NetworkId, network: &Network) {
        let group = desired.tenants[&id.tenant].group();
        let bridge = LinkName::of_network(Role::Bridge, id);
        for (port_id, port) in desired.ports_in(id).filter(|(_, p)| p.kind != PortKind::Vf) {
            let name = LinkName::of_port(Role::Port, port_id);
            let kind = ObservedKind::Known(LinkKind::Tap);
            let index = self.link(name.clone(), kind, group, Some(&bridge));
            let switches = BridgePort {
                isolated: !network.ports_talk,
                locked: true,
                learning: false,
                flood: false,
                neigh_suppress: false,
            };
            self.switches(index, switches);
            self.observed.neighbours.insert(Neighbour::Station { link: name, mac: port.mac });
            for ip in &port.addresses {
                let link = bridge.clone();
                let entry = Neighbour::Address { link, ip: *ip, mac: port.mac };
                self.observed.neighbours.insert(entry);
            }
        }
    }
}

/// Two hosts with the same tenants; each has the other as end of its VXLANs.
pub(super) fn two_hosts(vrfs: bool) -> Worlds {
    let mut worlds = one_host(vrfs);
    let mut second = worlds["h1"].clone();
    let (first_end, second_end): (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
    let vxlan = second.desired.underlay.vxlan.as_mut().unwrap();
    vxlan.address = second_end;
    vxlan.remotes = [first_end].into();
    second.desired.ports = second
        .desired
        .ports
        .into_iter()
        .map(|(mut id, mut port)| {
            // Other leases of the same tenants.
            id.lease.name = format!("{}b", id.lease.name).parse().unwrap();
            let [a, b, c, d, e, f] = port.mac.octets();
            port.mac = bulkhead_api::id::MacAddr::new([a, b, c, d + 1, e, f]);
            port.addresses = port.addresses.into_iter().map(later).collect();
            (id, port)
        })
        .collect();
    worlds.insert("h2".to_owned(), good(second.desired, second.access));
    worlds
}

fn later(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => IpAddr::V4(u32::from(v4).wrapping_add(100).into()),
        IpAddr::V6(v6) => IpAddr::V6(u128::from(v6).wrapping_add(100).into()),
    }
}
