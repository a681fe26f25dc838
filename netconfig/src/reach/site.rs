//! A site as it is proved: what was agreed and what was read back.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bulkhead_api::id::TenantName;
use bulkhead_api::network::{NetworkId, PortKind};

use super::flow::{Flow, Seen, Ways};
use super::space::Space;
use super::violation::{Class, Violation};
use crate::firewall::Access;
use crate::firewall::ruleset::{Family, Field, HookPoint, Ranges, Ruleset, number};
use crate::model::{
    Desired, GROUP_LAST, LinkKind, LinkName, Network, Observed, ObservedLink, Port, PortId, Role,
    Route, Rule, Segment, Selector, UNDERLAY_GROUP,
};

/// Hosts that one underlay joins.
#[derive(Debug, Clone, Default)]
pub struct Site<'a> {
    /// By name.
    pub hosts: BTreeMap<String, Host<'a>>,
}

/// One host.
#[derive(Debug, Clone, Copy)]
pub struct Host<'a> {
    /// Which tenants, networks and ports were agreed.
    pub desired: &'a Desired,
    /// What the host offers.
    pub access: &'a Access,
    /// Links, entries and routes, read back.
    pub observed: &'a Observed,
    /// Rules, read back.
    pub rules: &'a Ruleset,
}

/// What a link is by its name.
#[derive(Debug, Clone, Copy)]
pub(super) enum Meaning<'a> {
    Bridge(&'a NetworkId),
    Fabric(&'a NetworkId),
    Vrf(&'a TenantName),
    Port(&'a PortId, &'a Port),
}

impl<'a> Meaning<'a> {
    pub(super) const fn tenant(self) -> &'a TenantName {
        match self {
            Self::Bridge(id) | Self::Fabric(id) => &id.tenant,
            Self::Vrf(tenant) => tenant,
            Self::Port(id, _) => &id.lease.tenant,
        }
    }
}

/// A host with its links by name.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) name: &'a str,
    pub(super) host: Host<'a>,
    pub(super) links: BTreeMap<&'a LinkName, &'a ObservedLink>,
    meanings: BTreeMap<LinkName, Meaning<'a>>,
    groups: BTreeMap<u32, &'a TenantName>,
    members: BTreeMap<u32, Vec<&'a ObservedLink>>,
    networks: BTreeMap<&'a TenantName, Vec<(&'a NetworkId, &'a Network)>>,
    routes: BTreeMap<u32, Vec<&'a Route>>,
    rules: BTreeMap<&'a LinkName, Vec<&'a Rule>>,
    pub(super) uplinks: Vec<LinkName>,
}

impl<'a> Site<'a> {
    pub(super) fn views(&'a self) -> impl Iterator<Item = View<'a>> + 'a {
        self.hosts.iter().map(|(name, host)| View::of(name.as_str(), *host))
    }
}

/// A link that nobody agreed on, with a group of tenants.
pub(super) const STRANGERS: [Seen<'static>; 2] = [
    Seen { name: "(any other link of a tenant)", group: UNDERLAY_GROUP + 1 },
    Seen { name: "(any other link of a tenant)", group: GROUP_LAST },
];

/// A link that is no tenant's and that no rule names.
pub(super) const OUTSIDER: Seen<'static> = Seen { name: "(any other link)", group: 0 };

impl<'a> View<'a> {
    fn of(name: &'a str, host: Host<'a>) -> Self {
        let desired = host.desired;
        let mut meanings = BTreeMap::new();
        for (id, network) in &desired.networks {
            let fabric = match network.segment {
                Segment::Vlan(_) => Role::Vlan,
                Segment::Vni(_) => Role::Vxlan,
            };
            meanings.insert(LinkName::of_network(Role::Bridge, id), Meaning::Bridge(id));
            meanings.insert(LinkName::of_network(fabric, id), Meaning::Fabric(id));
            meanings.insert(LinkName::of_vrf(&id.tenant), Meaning::Vrf(&id.tenant));
        }
        for (id, port) in desired.ports.iter().filter(|(_, port)| port.kind != PortKind::Vf) {
            meanings.insert(LinkName::of_port(Role::Port, id), Meaning::Port(id, port));
        }
        let vlans = desired.underlay.vlans.iter();
        let vlans = vlans.map(|own| LinkName::of_host(Role::HostVlan, own.vlan.get()));
        let uplink = desired.underlay.uplink.iter().filter_map(crate::model::Uplink::link);
        let observed = host.observed;
        let mut members: BTreeMap<u32, Vec<&ObservedLink>> = BTreeMap::new();
        for link in observed.links.values() {
            if let Some(master) = &link.master {
                members.entry(master.index).or_default().push(link);
            }
        }
        let mut networks: BTreeMap<&TenantName, Vec<_>> = BTreeMap::new();
        for (id, network) in &desired.networks {
            networks.entry(&id.tenant).or_default().push((id, network));
        }
        let mut routes: BTreeMap<u32, Vec<&Route>> = BTreeMap::new();
        for route in observed.routes.iter().chain(&observed.foreign_routes) {
            routes.entry(route.table).or_default().push(route);
        }
        let mut rules: BTreeMap<&LinkName, Vec<&Rule>> = BTreeMap::new();
        for rule in observed.rules.iter().chain(&observed.foreign_rules) {
            if let Selector::Iif(link) = &rule.selector {
                rules.entry(link).or_default().push(rule);
            }
        }
        View {
            name,
            host,
            members,
            networks,
            routes,
            rules,
            links: host.observed.links.values().map(|link| (&link.name, link)).collect(),
            meanings,
            groups: desired.tenants.iter().map(|(name, number)| (number.group(), name)).collect(),
            uplinks: uplink.chain(vlans).collect(),
        }
    }

    pub(super) fn meaning(&self, link: &LinkName) -> Option<Meaning<'a>> {
        self.meanings.get(link).copied()
    }

    /// Links that are here and that were agreed on.
    pub(super) fn known(&self) -> impl Iterator<Item = (&'a ObservedLink, Meaning<'a>)> + '_ {
        self.links.values().filter_map(|link| Some((*link, self.meaning(&link.name)?)))
    }

    /// Whose a link is: by its name where that was agreed on, else by its group.
    pub(super) fn tenant(&self, link: &ObservedLink) -> Option<&'a TenantName> {
        let by_group = || self.groups.get(&link.group).copied();
        self.meaning(&link.name).map(Meaning::tenant).or_else(by_group)
    }

    /// Whose the link of a name is, here or not.
    pub(super) fn tenant_of(&self, name: &str) -> Option<&'a TenantName> {
        let parsed: LinkName = name.parse().ok()?;
        match self.links.get(&parsed) {
            Some(link) => self.tenant(link),
            None => self.meaning(&parsed).map(Meaning::tenant),
        }
    }

    /// A link by name as rules see it; one that is not here with the group that it should have.
    pub(super) fn seen<'n>(&self, name: &'n str) -> Seen<'n> {
        let here = name.parse::<LinkName>().ok().and_then(|name| self.links.get(&name).copied());
        let group = here.map_or_else(
            || {
                let number = self.tenant_of(name).and_then(|t| self.host.desired.tenants.get(t));
                number.map_or(0, |number| number.group())
            },
            |link| link.group,
        );
        Seen { name, group }
    }

    pub(super) fn network(&self, id: &NetworkId) -> Option<&'a Network> {
        self.host.desired.networks.get(id)
    }

    /// The bridge that a link is a member of.
    pub(super) fn master(&self, link: &ObservedLink) -> Option<&'a ObservedLink> {
        let index = link.master.as_ref()?.index;
        self.host.observed.links.get(&index)
    }

    pub(super) fn members(&self, of: u32) -> impl Iterator<Item = &'a ObservedLink> + '_ {
        self.members.get(&of).into_iter().flatten().copied()
    }

    /// Networks of a tenant.
    pub(super) fn networks_of(&self, tenant: &TenantName) -> &[(&'a NetworkId, &'a Network)] {
        self.networks.get(tenant).map_or(&[], Vec::as_slice)
    }

    /// Routes of a table.
    pub(super) fn routes_in(&self, table: u32) -> impl Iterator<Item = &'a Route> + '_ {
        self.routes.get(&table).into_iter().flatten().copied()
    }

    /// Rules for packets that come in by a link.
    pub(super) fn rules_from(&self, link: &LinkName) -> impl Iterator<Item = &'a Rule> + '_ {
        self.rules.get(link).into_iter().flatten().copied()
    }

    /// Links by which a tenant's packets come in to be routed: bridges, and VRFs.
    pub(super) fn routed_links(
        &self,
    ) -> impl Iterator<Item = (&'a ObservedLink, &'a TenantName)> + '_ {
        self.links.values().filter_map(|link| {
            let routed = matches!(link.known(), Some(LinkKind::Bridge | LinkKind::Vrf { .. }));
            let tenant = self.tenant(link).filter(|_| routed)?;
            Some((*link, tenant))
        })
    }

    /// Networks of the packets that come in by a routed link.
    pub(super) fn networks_behind(&self, link: &ObservedLink) -> Vec<(&'a NetworkId, &'a Network)> {
        match self.meaning(&link.name) {
            Some(Meaning::Bridge(id)) => {
                self.host.desired.networks.get_key_value(id).into_iter().collect()
            }
            Some(Meaning::Vrf(tenant)) => self.networks_of(tenant).to_vec(),
            Some(Meaning::Fabric(_) | Meaning::Port(..)) | None => Vec::new(),
        }
    }

    /// Packets that come in by a link, after every rule before routing.
    pub(super) fn entering(
        &self,
        family: Family,
        incoming: Seen<'_>,
        space: Space,
    ) -> Vec<Flow<'a>> {
        let ways = Ways { incoming: Some(incoming), outgoing: None };
        self.pass(family, HookPoint::Prerouting, ways, vec![Flow::of(space)])
    }

    pub(super) fn pass(
        &self,
        family: Family,
        point: HookPoint,
        ways: Ways<'_>,
        flows: Vec<Flow<'a>>,
    ) -> Vec<Flow<'a>> {
        super::walk::pass(self.host.rules, family, point, ways, flows)
    }

    /// Ends of VXLANs: this host's and the others'.
    pub(super) fn tunnel_ends(&self) -> Vec<IpAddr> {
        let vxlan = self.host.desired.underlay.vxlan.iter();
        vxlan.flat_map(|vxlan| vxlan.remotes.iter().copied().chain([vxlan.address])).collect()
    }

    pub(super) fn violation(
        &self,
        class: Class,
        tenants: &[&TenantName],
        message: String,
        path: Vec<String>,
    ) -> Violation {
        let tenants = tenants.iter().map(|tenant| (*tenant).clone()).collect();
        Violation { class, host: self.name.to_owned(), tenants, message, path }
    }
}

/// IPv4 or IPv6 packets.
pub(super) fn ip(v4: bool) -> Space {
    let kind = if v4 { number::ETHER_IP4 } else { number::ETHER_IP6 };
    Space::all().with_one(Field::EtherType, kind)
}

pub(super) const fn source(v4: bool) -> Field {
    if v4 { Field::Ip4Source } else { Field::Ip6Source }
}

pub(super) const fn destination(v4: bool) -> Field {
    if v4 { Field::Ip4Destination } else { Field::Ip6Destination }
}

pub(super) fn number_of(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

/// Addresses of one family in prefixes.
pub(super) fn ranges(
    prefixes: impl IntoIterator<Item = bulkhead_api::network::IpPrefix>,
    v4: bool,
) -> Ranges {
    let own = prefixes.into_iter().filter(|prefix| prefix.address().is_ipv4() == v4);
    own.map(|prefix| (number_of(prefix.address()), number_of(prefix.last()))).collect()
}

/// What of some packets is in none of the spaces, as one example and the rules that let it pass.
pub(super) fn beyond(flows: &[Flow<'_>], allowed: &[Space]) -> Option<(Space, Vec<String>)> {
    flows.iter().find_map(|flow| {
        let rest = flow.space.without_all(allowed).into_iter().next()?;
        Some((rest, flow.path()))
    })
}

/// What of some packets is in the space.
pub(super) fn inside(flows: &[Flow<'_>], space: &Space) -> Option<(Space, Vec<String>)> {
    flows.iter().find_map(|flow| {
        let both = flow.space.and(space);
        (!both.is_empty()).then(|| (both, flow.path()))
    })
}
