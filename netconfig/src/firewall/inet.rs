//! The table of family `inet`: whose a packet is, what the host answers, and whither packets go.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bulkhead_api::id::TenantName;
use bulkhead_api::network::{Egress, IpPrefix, NetworkId};

use super::access::Access;
use super::compile::{
    Builder, addresses, among, base, branch, count_by, ip_number, is, link, look_up, not_among,
    of_any_tenant, of_tenant, tenants, then,
};
use super::input;
use super::ruleset::{
    Atom, DataKind, Datum, Field, HookPoint, Kind, Ranges, Rule, Statement, Table, Verdict, number,
};
use crate::model::{Desired, LinkName, Network, Role, Uplink};

/// Before conntrack (`NF_IP_PRI_RAW`).
const RAW_PRIORITY: i32 = -300;
const FILTER_PRIORITY: i32 = 0;

/// Prefixes that no egress means: the host itself, links, groups.
const NEVER: [(u128, u128); 4] = [
    (0, 0x00ff_ffff),
    (0x7f00_0000, 0x7fff_ffff),
    (0xa9fe_0000, 0xa9fe_ffff),
    (0xe000_0000, 0xffff_ffff),
];
/// The same of IPv6: `::/8` with loopback and mapped IPv4, link-local, groups.
const NEVER6: [(u128, u128); 3] =
    [(0, (1 << 120) - 1), (0xfe80 << 112, (0xfec0 << 112) - 1), (0xff << 120, u128::MAX)];

/// IPv4 and IPv6 with the suffix of their sets.
pub(super) const FAMILIES: [(bool, &str); 2] = [(true, "4"), (false, "6")];

pub(super) const fn source(v4: bool) -> Field {
    if v4 { Field::Ip4Source } else { Field::Ip6Source }
}

pub(super) const fn destination(v4: bool) -> Field {
    if v4 { Field::Ip4Destination } else { Field::Ip6Destination }
}

/// Links by which the host is in its site.
pub(super) fn uplinks(desired: &Desired) -> Vec<LinkName> {
    let vlans = desired.underlay.vlans.iter();
    let vlans = vlans.map(|own| LinkName::of_host(Role::HostVlan, own.vlan.get()));
    way_out(desired).into_iter().chain(vlans).collect()
}

/// The link that egress leaves by.
fn way_out(desired: &Desired) -> Option<LinkName> {
    desired.underlay.uplink.as_ref().and_then(Uplink::link)
}

pub(super) fn table(desired: &Desired, access: &Access) -> Table {
    let mut inet = Inet { build: Builder::default(), desired, access };
    inet.declare();
    inet.build.counters("refused", tenants(desired));
    for name in uplinks(desired) {
        inet.build.member("uplinks", [link(&name)]);
    }
    inet.underlay();
    let input = input::to_host(&inet.build, desired, access);
    inet.build.chain("to_host", base(HookPoint::Input, FILTER_PRIORITY, false, input));
    for tenant in tenants(desired) {
        inet.tenant(tenant);
    }
    inet.peerings();
    inet.build.table
}

struct Inet<'a> {
    build: Builder,
    desired: &'a Desired,
    access: &'a Access,
}

fn subnets(network: &Network) -> impl Iterator<Item = IpPrefix> + '_ {
    network.subnets.iter().map(|subnet| subnet.prefix)
}

fn bridge(id: &NetworkId) -> LinkName {
    LinkName::of_network(Role::Bridge, id)
}

const fn span((first, last): (u128, u128)) -> Atom {
    Atom::Span(first, last)
}

fn goto(chain: &str) -> Datum {
    Datum::Verdict(Verdict::Goto(chain.to_owned()))
}

impl<'a> Inet<'a> {
    fn declare(&mut self) {
        use Kind::{Ip4, Ip6, Link};
        let (build, access) = (&mut self.build, self.access);
        build.set("zones", &[Link], DataKind::Zone);
        for (ip, suffix) in [(Ip4, "4"), (Ip6, "6")] {
            let named = |what: &str| format!("{what}{suffix}");
            build.interval_set(&named("return_zones"), &[ip], DataKind::Zone);
            build.interval_set(&named("return_marks"), &[ip], DataKind::Mark);
            build.interval_set(&named("sources"), &[Link, ip], DataKind::Member);
            build.interval_set(&named("closed"), &[ip], DataKind::Member);
            build.interval_set(&named("tunnel_ends"), &[ip], DataKind::Member);
            build.interval_set(&named("egress"), &[Link, ip, ip], DataKind::Member);
            build.interval_set(&named("peers"), &[Link, Link, ip, ip], DataKind::Member);
            build.set(&named("gateways"), &[Link, ip], DataKind::Member);
        }
        build.set("uplinks", &[Link], DataKind::Member);
        build.set("tenant_links", &[Link], DataKind::Verdict);
        build.set("paths", &[Link, Link], DataKind::Verdict);
        build.set("refused", &[Link], DataKind::Counter);
        build.chain("entering", base(HookPoint::Prerouting, RAW_PRIORITY, true, entering()));
        let zone = Rule(vec![zone_by(Field::OutLink, "zones")]);
        build.chain("from_host", base(HookPoint::Output, RAW_PRIORITY, true, vec![zone]));
        input::asking(build, access);
        let between = vec![
            look_up(&[Field::InLink, Field::OutLink], "paths"),
            Rule(vec![count_by(Field::InLink, "refused")]),
        ];
        build.chain("between", base(HookPoint::Forward, FILTER_PRIORITY, false, between));
        branches(build);
    }

    fn underlay(&mut self) {
        let underlay = &self.desired.underlay;
        let host = |ip: IpAddr| IpPrefix::around(ip, 128);
        let ends = underlay.vxlan.iter().flat_map(|vxlan| vxlan.remotes.iter().copied().map(host));
        let ends: Vec<_> = ends.chain(self.access.tunnel_ends.iter().copied()).collect();
        let own = underlay.vxlan.iter().map(|vxlan| vxlan.address);
        let own = own.chain(underlay.uplink.iter().flat_map(|up| up.addresses.iter().map(|a| a.0)));
        let vlans = underlay.vlans.iter().flat_map(|vlan| &vlan.addresses);
        let vlans = vlans.map(|(ip, length)| IpPrefix::around(*ip, *length));
        let closed = self.access.closed.iter().copied().chain(own.map(host)).chain(vlans);
        let closed: Vec<_> = closed.chain(ends.iter().copied()).collect();
        for (v4, suffix) in FAMILIES {
            let never = if v4 { NEVER.into_iter().collect() } else { NEVER6.into_iter().collect() };
            for range in addresses(closed.iter().copied(), v4).union(&never).iter() {
                self.build.member(&format!("closed{suffix}"), [span(range)]);
            }
            for range in addresses(ends.iter().copied(), v4).iter() {
                self.build.member(&format!("tunnel_ends{suffix}"), [span(range)]);
            }
        }
    }

    /// Links by which a network's packets come in.
    fn incoming(&self, id: &NetworkId) -> Vec<LinkName> {
        let vrf = self.access.vrfs.then(|| LinkName::of_vrf(&id.tenant));
        std::iter::once(bridge(id)).chain(vrf).collect()
    }

    fn tenant(&mut self, tenant: &'a TenantName) {
        let desired = self.desired;
        let networks: Vec<(&NetworkId, &Network)> =
            desired.networks.iter().filter(|(id, _)| id.tenant == *tenant).collect();
        let zone = desired.tenants.get(tenant).map_or(0, |number| number.get());
        let mut sources: BTreeMap<LinkName, Vec<IpPrefix>> = BTreeMap::new();
        for (id, network) in &networks {
            for name in self.incoming(id) {
                for (gateway, _) in network.gateways() {
                    let suffix = if gateway.is_ipv4() { "4" } else { "6" };
                    let number = ip_number(gateway);
                    let key = [link(&name), span((number, number))];
                    self.build.member(&format!("gateways{suffix}"), key);
                }
                sources.entry(name).or_default().extend(subnets(network));
            }
        }
        for (name, prefixes) in sources {
            self.build.element("zones", [link(&name)], Datum::Zone(zone));
            self.build.element("tenant_links", [link(&name)], goto("asking"));
            let counter = Datum::Counter(of_tenant("refused", tenant));
            self.build.element("refused", [link(&name)], counter);
            for (v4, suffix) in FAMILIES {
                let mut own = addresses(prefixes.iter().copied(), v4);
                if !v4 {
                    let local = 0xfe80 << 112;
                    own = own.union(&Ranges::span(local, local | u128::from(u64::MAX)));
                }
                for range in own.iter() {
                    self.build.member(&format!("sources{suffix}"), [link(&name), span(range)]);
                }
            }
        }
        for (from, _) in &networks {
            for (to, _) in networks.iter().filter(|(to, _)| to != from) {
                for name in self.incoming(from) {
                    let key = [link(&name), link(&bridge(to))];
                    self.build.element("paths", key, Datum::Verdict(Verdict::Accept));
                }
            }
        }
        if let Some(uplink) = way_out(desired) {
            for (id, network) in networks.iter().filter(|(_, net)| net.egress != Egress::Deny) {
                self.egress(id, network, &uplink, zone);
            }
        }
    }

    fn egress(&mut self, id: &NetworkId, network: &Network, uplink: &LinkName, zone: u16) {
        for (v4, suffix) in FAMILIES {
            let from = addresses(subnets(network), v4);
            let to = match &network.egress {
                Egress::To(prefixes) => addresses(prefixes.iter().copied(), v4),
                Egress::All | Egress::Deny => {
                    let kind = if v4 { Kind::Ip4 } else { Kind::Ip6 };
                    Ranges::span(0, kind.largest())
                }
            };
            for source in from.iter() {
                let key = [span(source)];
                let zones = format!("return_zones{suffix}");
                self.build.element(&zones, key.clone(), Datum::Zone(zone));
                let marks = format!("return_marks{suffix}");
                self.build.element(&marks, key, Datum::Mark(zone.into()));
                for name in self.incoming(id) {
                    for target in to.iter() {
                        let key = [link(&name), span(source), span(target)];
                        self.build.member(&format!("egress{suffix}"), key);
                    }
                }
            }
        }
        for incoming in self.incoming(id) {
            self.build.element("paths", [link(&incoming), link(uplink)], goto("egress"));
        }
        self.build.element("paths", [link(uplink), link(&bridge(id))], goto("returning"));
    }

    /// Networks of two tenants that agreed: both ways, their own addresses only.
    fn peerings(&mut self) {
        let desired = self.desired;
        for peering in desired.peerings() {
            for (from, to) in [(peering.first, peering.second), (peering.second, peering.first)] {
                let both = desired.networks.get(from).zip(desired.networks.get(to));
                let Some((source_network, target_network)) = both else { continue };
                for name in self.incoming(from) {
                    let ends = [link(&name), link(&bridge(to))];
                    self.build.element("paths", ends.clone(), goto("peers"));
                    self.peers(&ends, source_network, target_network);
                }
            }
        }
    }

    fn peers(&mut self, [from, to]: &[Atom; 2], source: &Network, target: &Network) {
        for (v4, suffix) in FAMILIES {
            let targets = addresses(subnets(target), v4);
            for source in addresses(subnets(source), v4).iter() {
                for target in targets.iter() {
                    let key = [from.clone(), to.clone(), span(source), span(target)];
                    self.build.member(&format!("peers{suffix}"), key);
                }
            }
        }
    }
}

/// Chains that pairs of links lead to.
fn branches(build: &mut Builder) {
    let (incoming, outgoing) = (Field::InLink, Field::OutLink);
    let refused = |field| Rule(vec![count_by(field, "refused")]);
    let mut egress = Vec::new();
    let mut peers = Vec::new();
    for (v4, suffix) in FAMILIES {
        let named = |what: &str| format!("{what}{suffix}");
        let to_closed = || among(&[destination(v4)], &named("closed"));
        // A link without a counter ends the first rule and not the second.
        egress.push(Rule(vec![to_closed(), count_by(incoming, "refused")]));
        egress.push(then([to_closed()], Verdict::Drop));
        let ends = [incoming, outgoing, source(v4), destination(v4)];
        peers.push(then([among(&ends, &named("peers"))], Verdict::Accept));
    }
    for (v4, suffix) in FAMILIES {
        let ends = among(&[incoming, source(v4), destination(v4)], &format!("egress{suffix}"));
        egress.push(then([ends], Verdict::Accept));
    }
    egress.push(refused(incoming));
    peers.push(refused(incoming));
    let answers = is(Field::CtState, [number::ESTABLISHED, number::RELATED]);
    let returning = vec![then([answers], Verdict::Accept), refused(outgoing)];
    build.chain("egress", branch(egress));
    build.chain("peers", branch(peers));
    build.chain("returning", branch(returning));
}

fn zone_by(field: Field, map: &str) -> Statement {
    Statement::ZoneBy { fields: vec![field], map: map.to_owned() }
}

/// Every packet that comes in: its zone, and whether it may have its source.
fn entering() -> Vec<Rule> {
    let mut rules = vec![Rule(vec![zone_by(Field::InLink, "zones")])];
    for (v4, suffix) in FAMILIES {
        let from_site = among(&[Field::InLink], "uplinks");
        let zone = zone_by(destination(v4), &format!("return_zones{suffix}"));
        rules.push(Rule(vec![from_site.clone(), zone]));
        // Rules of routing know the table of answers by it.
        let map = format!("return_marks{suffix}");
        rules.push(Rule(vec![from_site, Statement::MarkBy { fields: vec![destination(v4)], map }]));
    }
    // Who has no address yet may ask for one, and only that.
    let nobody = [
        is(Field::Ip4Source, [0]),
        is(Field::Ip4Destination, [u32::MAX.into()]),
        is(Field::Protocol, [number::UDP]),
        is(Field::DestinationPort, [number::DHCP_SERVER]),
    ];
    rules.push(then(nobody, Verdict::Accept));
    let asking = [number::NEIGHBOUR_SOLICITATION, number::LISTENER_REPORT];
    rules.push(then([is(Field::Ip6Source, [0]), is(Field::Icmp6Type, asking)], Verdict::Accept));
    for (v4, suffix) in FAMILIES {
        let strange = not_among(&[Field::InLink, source(v4)], &format!("sources{suffix}"));
        let tenant = || of_any_tenant(Field::InGroup);
        rules.push(Rule(vec![tenant(), strange.clone(), count_by(Field::InLink, "refused")]));
        rules.push(then([tenant(), strange], Verdict::Drop));
    }
    rules
}
