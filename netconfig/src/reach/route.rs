//! Do a tenant's routes lead to another tenant, and are its packets judged by its own table.

use std::collections::BTreeMap;

use bulkhead_api::id::TenantName;
use bulkhead_api::network::{Egress, IpPrefix};

use super::forward::passed_on;
use super::segment::name_of;
use super::site::{Meaning, View, destination, ip, ranges};
use super::violation::{Class, Violation};
use crate::firewall::ruleset::{Family as Table, Ranges};
use crate::model::{Family, LinkKind, LinkName, ObservedLink, Route, RouteKind};

/// The host's own table (`RT_TABLE_MAIN`).
const MAIN: u32 = 254;

/// Where packets of some destinations go.
#[derive(Debug, Clone)]
pub(super) struct Lead {
    /// Which destinations.
    pub(super) to: Ranges,
    /// By what they are led there: `table 1000007`, the route.
    pub(super) by: Vec<String>,
    /// By which link they leave; absent = they are refused.
    pub(super) out: Option<LinkName>,
}

/// The tables that judge packets of a link, in order, and how each comes to it.
fn tables(view: &View<'_>, link: &ObservedLink, family: Family) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    let vrf = match link.known() {
        Some(LinkKind::Vrf { .. }) => Some(link),
        _ => view.master(link),
    };
    if let Some((vrf, LinkKind::Vrf { table })) = vrf.and_then(|vrf| Some((vrf, vrf.known()?))) {
        found.push((*table, format!("VRF {}", vrf.name)));
    }
    let mut rules: Vec<_> = view.rules_from(&link.name).filter(|r| r.family == family).collect();
    rules.sort();
    found.extend(rules.into_iter().map(|rule| (rule.table, rule.to_string())));
    found.push((MAIN, "main table".to_owned()));
    found
}

/// Where packets that came in by a link go, by destination.
pub(super) fn leads(view: &View<'_>, link: &ObservedLink, v4: bool) -> Vec<Lead> {
    let family = if v4 { Family::V4 } else { Family::V6 };
    let mut left = Ranges::span(0, destination(v4).kind().largest());
    let mut found = Vec::new();
    for (table, by) in tables(view, link, family) {
        let routes = view.routes_in(table);
        let mut routes: Vec<&Route> =
            routes.filter(|route| route.prefix.address().is_ipv4() == v4).collect();
        // The longest prefix wins, then the lowest metric.
        routes.sort_by_key(|route| (u8::MAX - route.prefix.length(), route.metric));
        let mut thrown = Ranges::none();
        for route in routes {
            let own = ranges([route.prefix], v4);
            let to = own.intersection(&left);
            if to.is_empty() {
                continue;
            }
            left = left.without(&own);
            let by = vec![by.clone(), route.to_string()];
            match &route.kind {
                RouteKind::Throw => thrown = thrown.union(&to),
                RouteKind::Unreachable => found.push(Lead { to, by, out: None }),
                RouteKind::Link { link, .. } => {
                    found.push(Lead { to, by, out: Some(link.clone()) });
                }
            }
        }
        left = left.union(&thrown);
    }
    found
}

pub(super) fn check(view: &View<'_>, found: &mut Vec<Violation>) {
    let mut owners: BTreeMap<(u32, Family), &TenantName> = BTreeMap::new();
    for (link, tenant) in view.routed_links() {
        for (family, v4) in [(Family::V4, true), (Family::V6, false)] {
            let tables = tables(view, link, family);
            let own = tables.first().filter(|(table, _)| *table != MAIN);
            let addressed = view
                .networks_behind(link)
                .iter()
                .any(|(_, network)| network.gateways().any(|(ip, _)| ip.is_ipv4() == v4));
            let Some((table, by)) = own else {
                if addressed {
                    let message = format!(
                        "{family} packets of {tenant} that come in by {} are judged by the host's own table",
                        link.name
                    );
                    found.push(view.violation(Class::Table, &[tenant], message, Vec::new()));
                }
                continue;
            };
            let owner = *owners.entry((*table, family)).or_insert(tenant);
            if owner != tenant {
                let message = format!("{tenant} and {owner} share table {table} for {family}");
                found.push(view.violation(
                    Class::Table,
                    &[tenant, owner],
                    message,
                    vec![by.clone()],
                ));
            }
            falls_through(view, link, tenant, v4, *table, found);
            leaks(view, link, tenant, v4, found);
        }
    }
}

/// Without egress, a tenant's table has the last word about every destination.
fn falls_through(
    view: &View<'_>,
    link: &ObservedLink,
    tenant: &TenantName,
    v4: bool,
    table: u32,
    found: &mut Vec<Violation>,
) {
    if view.networks_of(tenant).iter().any(|(_, network)| network.egress != Egress::Deny) {
        return;
    }
    let judged = view.routes_in(table).filter(|route| route.kind != RouteKind::Throw);
    let judged = ranges(judged.map(|route| route.prefix), v4);
    let all = if v4 { IpPrefix::ALL_V4 } else { IpPrefix::ALL_V6 };
    if !ranges([all], v4).is_within(&judged) {
        let message = format!(
            "{tenant} has no egress, and table {table} leaves packets that come in by {} to the host's own table",
            link.name
        );
        found.push(view.violation(Class::Table, &[tenant], message, Vec::new()));
    }
}

/// Destinations for which routes lead to a link of another tenant that did not agree.
fn leaks(
    view: &View<'_>,
    link: &ObservedLink,
    tenant: &TenantName,
    v4: bool,
    found: &mut Vec<Violation>,
) {
    for lead in leads(view, link, v4) {
        let Some(out) = &lead.out else { continue };
        let Some(to) = view.tenant_of(out.as_str()).filter(|to| *to != tenant) else { continue };
        let agreed = match view.meaning(out) {
            Some(Meaning::Bridge(target)) => peer_subnets(view, link, target, v4),
            Some(Meaning::Fabric(_) | Meaning::Vrf(_) | Meaning::Port(..)) | None => Ranges::none(),
        };
        if lead.to.is_within(&agreed) {
            continue;
        }
        let mut path = vec![name_of(view, link)];
        path.extend(lead.by.clone());
        let message = format!("routes of {tenant} lead to {to} ({out})");
        found.push(view.violation(Class::Route, &[tenant, to], message, path.clone()));
        let incoming = view.seen(link.name.as_str());
        let strange = ip(v4).with(destination(v4), &lead.to.without(&agreed));
        let entering = view.entering(Table::Inet, incoming, strange);
        if let Some(flow) = passed_on(view, incoming, view.seen(out.as_str()), entering).first() {
            path.extend(flow.path());
            path.push(
                view.links.get(out).map_or_else(|| out.to_string(), |out| name_of(view, out)),
            );
            let message = format!("{tenant} reaches {to} ({})", flow.space);
            found.push(view.violation(Class::Reach, &[tenant, to], message, path));
        }
    }
}

/// Addresses of a network that networks behind a link agreed with.
fn peer_subnets(
    view: &View<'_>,
    link: &ObservedLink,
    target: &bulkhead_api::network::NetworkId,
    v4: bool,
) -> Ranges {
    let Some(network) = view.network(target) else { return Ranges::none() };
    let mut own = view.tenant(link).into_iter().flat_map(|tenant| view.networks_of(tenant));
    // A route has no source: one agreement of the tenant is enough for it; sources are the rules' affair.
    if own.any(|(id, own)| own.peers.contains(target) && network.peers.contains(id)) {
        ranges(network.subnets.iter().map(|subnet| subnet.prefix), v4)
    } else {
        Ranges::none()
    }
}
