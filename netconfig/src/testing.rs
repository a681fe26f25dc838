//! Desired states by the thousand, and an oracle that judges what was read back without `merge` and `plan`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bulkhead_api::id::{LeaseId, MacAddr};
use bulkhead_api::network::{Egress, IpPrefix, NetworkId, PortKind, Subnet, VlanId, Vni};
use proptest::prelude::*;

use crate::check::check;
use crate::merge::{LINK_PRIORITY, MARK_PRIORITY, METRIC, Routing};
use crate::model::*;

/// A network in few numbers.
#[derive(Debug, Clone)]
pub(crate) struct NetworkRecipe {
    tenant: u8,
    vlan: bool,
    v4: bool,
    v6: bool,
    gateway: bool,
    short: bool,
    talk: bool,
    egress: u8,
    peer: Option<prop::sample::Index>,
    ports: Vec<(u8, bool, u8, bool)>,
}

/// A host in few numbers.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    uplink: u8,
    mtu: bool,
    vxlan: u8,
    vlans: u8,
    networks: Vec<NetworkRecipe>,
}

/// What the kernel at hand can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kit {
    /// Everything.
    All,
    /// Bridges, VXLAN, pairs, taps, rules: no VLAN, VRF or bond.
    Plain,
}

pub(crate) fn recipe(kit: Kit) -> impl Strategy<Value = Recipe> {
    let all = kit == Kit::All;
    let ports = prop::collection::vec((0_u8..3, any::<bool>(), 0_u8..4, any::<bool>()), 0..4);
    let peer = prop::option::weighted(0.3, any::<prop::sample::Index>());
    let network = (
        (0_u8..4, any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()),
        (any::<bool>(), any::<bool>(), 0_u8..3, peer, ports),
    );
    let network = network.prop_map(move |((tenant, vlan, v4, v6, gateway), rest)| {
        let (short, talk, egress, peer, ports) = rest;
        let vlan = vlan && all;
        NetworkRecipe { tenant, vlan, v4, v6, gateway, short, talk, egress, peer, ports }
    });
    let uplinks = if all { 0_u8..3 } else { 1..2 };
    let networks = prop::collection::vec(network, 0..8);
    (uplinks, any::<bool>(), 0_u8..4, 0_u8..3, networks).prop_map(
        move |(uplink, mtu, vxlan, vlans, networks)| {
            let vlans = if all { vlans } else { 0 };
            Recipe { uplink, mtu, vxlan, vlans, networks }
        },
    )
}

/// The state of a recipe: never with a fault.
pub(crate) fn desired(recipe: &Recipe) -> Desired {
    let mut desired = Desired { underlay: underlay(recipe), ..Desired::default() };
    let uplink = desired.underlay.uplink.is_some();
    let mut ids = Vec::new();
    for (at, recipe) in (0_u8..).zip(&recipe.networks) {
        let tenant = format!("tenant-{}", recipe.tenant).parse().unwrap();
        let number = TenantNumber::try_from(u16::from(recipe.tenant) + 1).unwrap();
        let tenant = desired.tenants.entry(tenant).insert_entry(number).key().clone();
        let id = NetworkId { tenant, name: format!("net-{at}").parse().unwrap() };
        let segment = if recipe.vlan && uplink {
            Segment::Vlan(VlanId::try_from(u16::from(at) + 200).unwrap())
        } else {
            Segment::Vni(Vni::try_from(u32::from(at) + 7000).unwrap())
        };
        // The same addresses with every tenant, but where networks are peers.
        let of_tenant = ids.iter().filter(|(other, _): &&(NetworkId, _)| other.tenant == id.tenant);
        let own = u8::try_from(of_tenant.count()).unwrap();
        let octet = if recipe.peer.is_some() { 100 + at } else { own };
        let network = Network {
            segment,
            subnets: subnets(recipe, octet),
            mtu: if recipe.short { 1280 } else { 1400 },
            ports_talk: recipe.talk,
            peers: BTreeSet::new(),
            egress: match recipe.egress {
                0 => Egress::Deny,
                1 => Egress::All,
                _ => Egress::To(vec!["192.0.2.0/24".parse().unwrap()]),
            },
        };
        desired.networks.insert(id.clone(), network);
        for port in &recipe.ports {
            self::port(&mut desired, &id, recipe, at, octet, *port);
        }
        ids.push((id, recipe));
    }
    peers(&mut desired, &ids);
    assert_eq!(check(&desired), []);
    desired
}

fn underlay(recipe: &Recipe) -> Underlay {
    let mtu = if recipe.mtu { 1500 } else { 9000 };
    let card = |name: &str| name.parse::<LinkName>().unwrap();
    let address = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
    let uplink = match recipe.uplink {
        0 => None,
        1 => Some(Uplink { members: vec![card("up0")], bond: None, mtu, addresses: vec![] }),
        _ => Some(Uplink {
            members: vec![card("up0"), card("up1")],
            bond: Some(Bond { mode: BondMode::Lacp, miimon_ms: 100 }),
            mtu,
            addresses: vec![(address, 24)],
        }),
    };
    let vxlan = (recipe.vxlan > 0).then(|| Vxlan {
        address,
        port: 4789,
        remotes: (2..recipe.vxlan + 1).map(|n| Ipv4Addr::new(198, 51, 100, n).into()).collect(),
    });
    let count = if uplink.is_some() { recipe.vlans } else { 0 };
    let vlans = (0..count).map(|n| HostVlan {
        vlan: VlanId::try_from(u16::from(n) + 10).unwrap(),
        mtu: 1500,
        addresses: vec![(Ipv4Addr::new(203, 0, 113, n + 1).into(), 32)],
    });
    Underlay { uplink, vxlan, vlans: vlans.collect() }
}

fn subnets(recipe: &NetworkRecipe, octet: u8) -> Vec<Subnet> {
    let v4 = Ipv4Addr::new(10, octet, 0, 0);
    let v6 = Ipv6Addr::new(0xfd00, u16::from(octet), 0, 0, 0, 0, 0, 0);
    let gateway = |ip: IpAddr| recipe.gateway.then_some(ip);
    let first = Subnet {
        prefix: IpPrefix::around(v4.into(), 24),
        gateway: gateway(Ipv4Addr::new(10, octet, 0, 1).into()),
    };
    let second = Subnet {
        prefix: IpPrefix::around(v6.into(), 64),
        gateway: gateway(Ipv6Addr::new(0xfd00, u16::from(octet), 0, 0, 0, 0, 0, 1).into()),
    };
    let both = [(recipe.v4, first), (recipe.v6, second)];
    both.into_iter().filter(|(there, _)| *there).map(|(_, subnet)| subnet).collect()
}

fn port(
    desired: &mut Desired,
    network: &NetworkId,
    recipe: &NetworkRecipe,
    at: u8,
    octet: u8,
    (lease, tap, mac, addressed): (u8, bool, u8, bool),
) {
    let name = format!("lease-{lease}").parse().unwrap();
    let lease_id = LeaseId { tenant: network.tenant.clone(), name };
    let id = PortId { lease: lease_id, network: network.name.clone() };
    let mut addresses: Vec<IpAddr> = Vec::new();
    if addressed && recipe.v4 {
        addresses.push(Ipv4Addr::new(10, octet, 0, 10 + lease).into());
    }
    if addressed && recipe.v6 {
        let host = 10 + u16::from(lease);
        addresses.push(Ipv6Addr::new(0xfd00, u16::from(octet), 0, 0, 0, 0, 0, host).into());
    }
    let port = Port {
        kind: if tap { PortKind::Tap } else { PortKind::Veth },
        mac: MacAddr::new([2, 1, at, lease, mac, 1]),
        addresses,
        min_mbps: 0,
        max_mbps: 0,
        qos: 0,
        trust: false,
    };
    desired.ports.insert(id, port);
}

fn peers(desired: &mut Desired, ids: &[(NetworkId, &NetworkRecipe)]) {
    let willing: Vec<_> = ids.iter().filter_map(|(id, r)| Some((id, r.peer?))).collect();
    for (id, choice) in &willing {
        let other = willing[choice.index(willing.len())].0;
        if other.tenant != id.tenant {
            desired.networks.get_mut(*id).unwrap().peers.insert(other.clone());
            desired.networks.get_mut(other).unwrap().peers.insert((*id).clone());
        }
    }
}

/// What a look at the kernel must show for the desired state.
pub(crate) fn judge(desired: &Desired, routing: Routing, seen: &Observed) {
    let mut count = Count::default();
    for (id, network) in &desired.networks {
        judge_network(desired, id, network, routing, seen, &mut count);
    }
    judge_tenants(desired, routing, seen, &mut count);
    judge_underlay(desired, seen, &mut count);
    for (id, port) in &desired.ports {
        judge_port(desired, id, port, seen, &mut count);
    }
    let peers: BTreeSet<_> =
        desired.ports.keys().map(|id| LinkName::of_port(Role::Peer, id)).collect();
    let ours: BTreeSet<_> = seen.ours().map(|link| link.name.clone()).collect();
    let host_side: BTreeSet<_> = ours.difference(&peers).cloned().collect();
    assert_eq!(host_side, count.links);
    assert_eq!(seen.routes, count.routes);
    assert_eq!(seen.rules, count.rules);
    assert_eq!(seen.neighbours, count.neighbours);
    let on_ours = seen.addresses.iter().filter(|a| ours.contains(&a.link)).cloned();
    assert_eq!(on_ours.collect::<BTreeSet<_>>(), count.addresses);
}

/// Everything that is to be, so that nothing else is.
#[derive(Default)]
struct Count {
    links: BTreeSet<LinkName>,
    routes: BTreeSet<Route>,
    rules: BTreeSet<Rule>,
    neighbours: BTreeSet<Neighbour>,
    addresses: BTreeSet<Address>,
}

fn find<'a>(seen: &'a Observed, name: &LinkName, count: &mut Count) -> &'a ObservedLink {
    let link = seen.link(name).unwrap_or_else(|| panic!("there is no link {name}"));
    assert!(link.up, "{name} is down");
    assert!(!link.makes_addresses, "{name} makes addresses");
    assert!(count.links.insert(name.clone()), "two things are one link, {name}");
    link
}

fn master(link: &ObservedLink) -> Option<&LinkName> {
    link.master.as_ref().and_then(|master| master.name.as_ref())
}

fn judge_network(
    desired: &Desired,
    id: &NetworkId,
    network: &Network,
    routing: Routing,
    seen: &Observed,
    count: &mut Count,
) {
    let number = desired.tenants[&id.tenant];
    let bridge = LinkName::of_network(Role::Bridge, id);
    let link = find(seen, &bridge, count);
    assert_eq!((link.known(), link.group), (Some(&LinkKind::Bridge), number.group()));
    assert_eq!((link.mtu, link.mac), (u32::from(network.mtu), Some(gateway_mac(id))));
    match routing {
        Routing::Vrf => assert_eq!(master(link), Some(&LinkName::of_vrf(&id.tenant))),
        Routing::Rules => {
            assert_eq!(master(link), None);
            for family in [Family::V4, Family::V6] {
                let selector = Selector::Iif(bridge.clone());
                let (priority, table) = (LINK_PRIORITY, number.table());
                count.rules.insert(Rule { priority, family, selector, table });
            }
        }
    }
    let outward = match network.segment {
        Segment::Vni(vni) => desired.underlay.vxlan.as_ref().map(|vxlan| {
            let name = LinkName::of_network(Role::Vxlan, id);
            let ends = vxlan
                .remotes
                .iter()
                .map(|remote| Neighbour::Remote { link: name.clone(), remote: *remote });
            count.neighbours.extend(ends);
            (name, LinkKind::Vxlan { vni, local: vxlan.address, port: vxlan.port })
        }),
        Segment::Vlan(vlan) => {
            let uplink = desired.underlay.uplink.as_ref().unwrap();
            let parent = match uplink.bond {
                Some(_) => "bo0".parse().unwrap(),
                None => uplink.members[0].clone(),
            };
            Some((LinkName::of_network(Role::Vlan, id), LinkKind::Vlan { parent, vlan }))
        }
    };
    if let Some((name, kind)) = outward {
        let learns = matches!(kind, LinkKind::Vlan { .. });
        let link = find(seen, &name, count);
        assert_eq!((link.known(), master(link)), (Some(&kind), Some(&bridge)));
        assert_eq!(link.group, number.group());
        let port = link.port.unwrap();
        assert_eq!((port.learning, port.neigh_suppress), (learns, !learns), "{name}");
        assert!(!port.isolated && !port.locked && port.flood, "{name}");
    }
    let mut tables = vec![number.table()];
    for peering in desired.peerings() {
        let other = match (peering.first == id, peering.second == id) {
            (true, _) => peering.second,
            (_, true) => peering.first,
            _ => continue,
        };
        tables.push(desired.tenants[&other.tenant].table());
    }
    for subnet in network.subnets.iter().filter(|subnet| subnet.gateway.is_some()) {
        let (ip, length) = (subnet.gateway.unwrap(), subnet.prefix.length());
        count.addresses.insert(Address { link: bridge.clone(), ip, length });
        for table in &tables {
            let kind = RouteKind::Link { link: bridge.clone(), via: None };
            let prefix = subnet.prefix;
            count.routes.insert(Route { table: *table, prefix, metric: METRIC, kind });
        }
    }
}

fn judge_tenants(desired: &Desired, routing: Routing, seen: &Observed, count: &mut Count) {
    let mut outward: BTreeMap<_, bool> = BTreeMap::new();
    for (id, network) in &desired.networks {
        *outward.entry(&id.tenant).or_default() |= network.egress != Egress::Deny;
    }
    for (tenant, outward) in outward {
        let number = desired.tenants[tenant];
        let table = number.table();
        for family in [Family::V4, Family::V6] {
            let prefix = if family == Family::V4 { "0.0.0.0/0" } else { "::/0" };
            let kind = if outward { RouteKind::Throw } else { RouteKind::Unreachable };
            let prefix = prefix.parse().unwrap();
            count.routes.insert(Route { table, prefix, metric: 65_535, kind });
            let selector = Selector::Mark(number.get().into());
            count.rules.insert(Rule { priority: MARK_PRIORITY, family, selector, table });
        }
        if routing == Routing::Vrf {
            let link = find(seen, &LinkName::of_vrf(tenant), count);
            assert_eq!(link.known(), Some(&LinkKind::Vrf { table }));
            assert_eq!(link.group, number.group());
        }
    }
}

fn judge_underlay(desired: &Desired, seen: &Observed, count: &mut Count) {
    let Some(uplink) = &desired.underlay.uplink else { return };
    let bond: LinkName = "bo0".parse().unwrap();
    for member in &uplink.members {
        let card = seen.link(member).unwrap();
        assert!(card.up && card.mtu >= u32::from(uplink.mtu), "{member}");
        assert_eq!(master(card), uplink.bond.map(|_| &bond), "{member}");
    }
    if uplink.bond.is_some() {
        let link = find(seen, &bond, count);
        assert_eq!((link.group, link.mtu), (UNDERLAY_GROUP, u32::from(uplink.mtu)));
        let all = uplink.addresses.iter();
        count.addresses.extend(all.map(|&(ip, length)| Address { link: bond.clone(), ip, length }));
    }
    for host in &desired.underlay.vlans {
        let name: LinkName = format!("bh{}", host.vlan).parse().unwrap();
        let link = find(seen, &name, count);
        assert!(matches!(link.known(), Some(LinkKind::Vlan { vlan, .. }) if *vlan == host.vlan));
        let all = host.addresses.iter();
        count.addresses.extend(all.map(|&(ip, length)| Address { link: name.clone(), ip, length }));
    }
}

fn judge_port(desired: &Desired, id: &PortId, port: &Port, seen: &Observed, count: &mut Count) {
    let network = &desired.networks[&id.network_id()];
    let bridge = LinkName::of_network(Role::Bridge, &id.network_id());
    let name = LinkName::of_port(Role::Port, id);
    let link = find(seen, &name, count);
    assert_eq!(master(link), Some(&bridge), "{name}");
    assert_eq!(link.group, desired.tenants[&id.lease.tenant].group());
    assert_eq!(link.mtu, u32::from(network.mtu));
    match (port.kind, link.known()) {
        (PortKind::Tap, Some(LinkKind::Tap)) => {}
        (PortKind::Veth, Some(LinkKind::Veth { peer, .. })) => {
            if let Some(end) = seen.link(peer) {
                assert_eq!(end.mac, Some(port.mac), "{peer}");
            }
        }
        other => panic!("{name} is {other:?}"),
    }
    let flags = link.port.unwrap();
    assert!(flags.locked && !flags.learning && !flags.flood, "{name}: {flags:?}");
    assert_eq!(flags.isolated, !network.ports_talk, "{name}");
    count.neighbours.insert(Neighbour::Station { link: name, mac: port.mac });
    for ip in &port.addresses {
        let subnet = network.subnets.iter().find(|subnet| subnet.prefix.contains(*ip)).unwrap();
        if subnet.gateway.is_some() {
            let link = bridge.clone();
            count.neighbours.insert(Neighbour::Address { link, ip: *ip, mac: port.mac });
        }
    }
}

/// What is not ours of what was seen, less what a card that we use may change.
pub(crate) fn foreign(seen: &Observed) -> impl PartialEq + std::fmt::Debug + use<> {
    let links: Vec<_> = seen
        .links
        .values()
        .filter(|link| !link.is_ours())
        .map(|link| (link.index, link.name.clone(), link.kind.clone(), link.group, link.mac))
        .collect();
    let ours: BTreeSet<_> = seen.ours().map(|link| link.name.clone()).collect();
    let addresses: BTreeSet<_> =
        seen.addresses.iter().filter(|a| !ours.contains(&a.link)).cloned().collect();
    (links, addresses, seen.foreign_rules.clone())
}
