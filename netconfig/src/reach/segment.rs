//! Which bridges are one segment, over all hosts, and whether frames pass between links of two tenants.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bulkhead_api::id::TenantName;

use super::flow::{Flow, Ways};
use super::named::named_ways_out;
use super::site::{Meaning, OUTSIDER, STRANGERS, View};
use super::space::Space;
use super::violation::{Class, Violation};
use crate::firewall::ruleset::{Family, HookPoint};
use crate::model::{LinkKind, ObservedKind, ObservedLink};

/// A link of a host: place of the host among the views, and index of the link.
pub(super) type Spot = (usize, u32);

/// What joins a spot to others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wire {
    /// This member and its bridge.
    Member(Spot),
    /// Links of one VXLAN network, by VNI and UDP port.
    Vxlan(u32, u16),
    /// Links of one VLAN of the site's switches.
    Vlan(u16),
    /// Both ends of a pair that are on one host.
    Pair(Spot, Spot),
}

/// Everything that frames can cross without being routed.
#[derive(Debug)]
pub(super) struct Segments {
    wires: BTreeMap<Wire, BTreeSet<Spot>>,
    of: BTreeMap<Spot, BTreeSet<Wire>>,
}

impl Segments {
    pub(super) fn of(views: &[View<'_>]) -> Self {
        let mut segments = Self { wires: BTreeMap::new(), of: BTreeMap::new() };
        for (host, view) in views.iter().enumerate() {
            let uplinks: BTreeSet<u32> = view
                .uplinks
                .iter()
                .filter_map(|name| view.links.get(name))
                .map(|l| l.index)
                .collect();
            for link in view.links.values() {
                let spot = (host, link.index);
                if let Some(master) = view.master(link)
                    && matches!(master.known(), Some(LinkKind::Bridge))
                {
                    let bridge = (host, master.index);
                    segments.join(Wire::Member(spot), [spot, bridge]);
                }
                match link.known() {
                    Some(LinkKind::Vxlan { vni, port, .. }) => {
                        segments.join(Wire::Vxlan(vni.get(), *port), [spot]);
                    }
                    Some(LinkKind::Vlan { parent, vlan }) => {
                        let parent = view.links.get(parent).map(|parent| parent.index);
                        if parent.is_some_and(|parent| uplinks.contains(&parent)) {
                            segments.join(Wire::Vlan(vlan.get()), [spot]);
                        }
                    }
                    Some(LinkKind::Veth { peer, .. }) => {
                        if let Some(peer) = view.links.get(peer) {
                            let ends = [spot, (host, peer.index)];
                            let [first, second] = ends;
                            let wire = Wire::Pair(first.min(second), first.max(second));
                            segments.join(wire, ends);
                        }
                    }
                    Some(
                        LinkKind::Bridge
                        | LinkKind::Vrf { .. }
                        | LinkKind::Tap
                        | LinkKind::Bond { .. },
                    )
                    | None => {}
                }
            }
        }
        segments
    }

    fn join<const N: usize>(&mut self, wire: Wire, spots: [Spot; N]) {
        for spot in spots {
            self.of.entry(spot).or_default().insert(wire.clone());
        }
        self.wires.entry(wire).or_default().extend(spots);
    }

    /// Every spot of a spot's segment with the one before it on the shortest way there.
    pub(super) fn around(&self, start: Spot) -> BTreeMap<Spot, Option<(Spot, Wire)>> {
        let mut seen = BTreeMap::from([(start, None)]);
        let mut waiting = VecDeque::from([start]);
        while let Some(here) = waiting.pop_front() {
            for wire in self.of.get(&here).into_iter().flatten() {
                for next in self.wires.get(wire).into_iter().flatten() {
                    if !seen.contains_key(next) {
                        seen.insert(*next, Some((here, wire.clone())));
                        waiting.push_back(*next);
                    }
                }
            }
        }
        seen
    }
}

/// The spots from a segment's start to one of it.
pub(super) fn way(
    around: &BTreeMap<Spot, Option<(Spot, Wire)>>,
    to: Spot,
) -> Vec<(Spot, Option<Wire>)> {
    let mut way = vec![(to, None)];
    let mut here = to;
    while let Some(Some((before, wire))) = around.get(&here) {
        way.push((*before, Some(wire.clone())));
        here = *before;
    }
    way.reverse();
    way
}

/// A way in words: `port …`, `bridge …`, `VNI 7`.
pub(super) fn words(views: &[View<'_>], way: &[(Spot, Option<Wire>)]) -> Vec<String> {
    let mut said = Vec::new();
    for ((host, index), wire) in way {
        let Some(view) = views.get(*host) else { continue };
        let Some(link) = view.host.observed.links.get(index) else { continue };
        said.push(format!("{}: {}", view.name, name_of(view, link)));
        match wire {
            Some(Wire::Vxlan(vni, _)) => said.push(format!("VNI {vni}")),
            Some(Wire::Vlan(vlan)) => said.push(format!("VLAN {vlan}")),
            Some(Wire::Member(_) | Wire::Pair(..)) | None => {}
        }
    }
    said
}

/// A link in words.
pub(super) fn name_of(view: &View<'_>, link: &ObservedLink) -> String {
    match view.meaning(&link.name) {
        Some(Meaning::Port(id, _)) => format!("port {id} ({})", link.name),
        Some(Meaning::Bridge(id)) => format!("bridge of {id} ({})", link.name),
        Some(Meaning::Fabric(id)) => format!("tunnel of {id} ({})", link.name),
        Some(Meaning::Vrf(tenant)) => format!("VRF of {tenant} ({})", link.name),
        None => format!("link {}", link.name),
    }
}

/// Segments that join two tenants, and bridges with members of others.
pub(super) fn check(views: &[View<'_>], found: &mut Vec<Violation>) {
    let segments = Segments::of(views);
    let mut done: BTreeSet<Spot> = BTreeSet::new();
    for (host, view) in views.iter().enumerate() {
        for unreadable in &view.host.observed.unreadable {
            let message = format!("{}: {}", unreadable.object, unreadable.reason);
            found.push(view.violation(Class::Unreadable, &[], message, Vec::new()));
        }
        for link in view.links.values() {
            let start = (host, link.index);
            let Some(tenant) = view.tenant(link) else { continue };
            members(view, link, tenant, found);
            if done.contains(&start) {
                continue;
            }
            let around = segments.around(start);
            done.extend(around.keys());
            joined(views, start, tenant, &around, found);
        }
    }
}

/// The first link of each other tenant in a segment.
fn joined(
    views: &[View<'_>],
    start: Spot,
    tenant: &TenantName,
    around: &BTreeMap<Spot, Option<(Spot, Wire)>>,
    found: &mut Vec<Violation>,
) {
    let mut others: BTreeSet<&TenantName> = BTreeSet::new();
    for spot in around.keys() {
        let Some(view) = views.get(spot.0) else { continue };
        let Some(link) = view.host.observed.links.get(&spot.1) else { continue };
        let Some(other) = view.tenant(link) else { continue };
        if other == tenant || !others.insert(other) {
            continue;
        }
        let path = words(views, &way(around, *spot));
        let message = format!("{tenant} and {other} are on one segment");
        let Some(first) = views.get(start.0) else { continue };
        found.push(first.violation(Class::Segment, &[tenant, other], message, path));
    }
}

/// Members of a tenant's bridge that are nobody's, and links of a tenant on a bridge of another of its networks.
fn members(
    view: &View<'_>,
    bridge: &ObservedLink,
    tenant: &TenantName,
    found: &mut Vec<Violation>,
) {
    if !matches!(bridge.kind, ObservedKind::Known(LinkKind::Bridge)) {
        return;
    }
    for member in view.members(bridge.index) {
        let wrong = match (view.meaning(&bridge.name), view.meaning(&member.name)) {
            (Some(Meaning::Bridge(id)), Some(Meaning::Port(port, _))) => port.network_id() != *id,
            (Some(Meaning::Bridge(id)), Some(Meaning::Fabric(other))) => id != other,
            (None, Some(_)) | (Some(_), None) => true,
            _ => view.tenant(member) != Some(tenant),
        };
        if wrong {
            let message = format!(
                "{} is a member of {}, to which it does not belong",
                name_of(view, member),
                name_of(view, bridge)
            );
            let mut whom = vec![tenant];
            whom.extend(view.tenant(member).filter(|other| *other != tenant));
            found.push(view.violation(Class::Member, &whom, message, Vec::new()));
        }
    }
}

/// Frames that a bridge would pass from a link of a tenant to a link of another, whatever bridges they are on.
pub(super) fn check_filter(view: &View<'_>, found: &mut Vec<Violation>) {
    for (link, meaning) in view.known() {
        if matches!(meaning, Meaning::Bridge(_) | Meaning::Vrf(_)) {
            continue;
        }
        let name = link.name.as_str();
        let incoming = view.seen(name);
        let flows = view.entering(Family::Bridge, incoming, Space::all());
        let named = named_ways_out(view.host.rules, Family::Bridge, name);
        let outgoing = named.into_iter().map(|out| view.seen(out));
        for outgoing in outgoing.chain(STRANGERS).chain([OUTSIDER]) {
            let to = view.tenant_of(outgoing.name);
            if to == Some(meaning.tenant()) {
                continue;
            }
            let ways = Ways { incoming: Some(incoming), outgoing: Some(outgoing) };
            let passing = view.pass(Family::Bridge, HookPoint::Forward, ways, flows.clone());
            if let Some(flow) = passing.first() {
                let whose = to.map_or_else(|| "somebody else".to_owned(), ToString::to_string);
                let message = format!(
                    "bridges pass frames from {} to {} of {whose} ({})",
                    name_of(view, link),
                    outgoing.name,
                    flow.space
                );
                let whom: Vec<_> = std::iter::once(meaning.tenant()).chain(to).collect();
                found.push(view.violation(Class::Frames, &whom, message, flow.path()));
                break;
            }
        }
    }
    // From links that nobody agreed on, and from the host's own, to a link of a tenant.
    let Some((target, meaning)) =
        view.known().find(|(_, meaning)| matches!(meaning, Meaning::Port(..) | Meaning::Fabric(_)))
    else {
        return;
    };
    for incoming in STRANGERS.into_iter().chain([OUTSIDER]) {
        let outgoing = Some(view.seen(target.name.as_str()));
        let ways = Ways { incoming: Some(incoming), outgoing };
        let all = vec![Flow::of(Space::all())];
        let passing = view.pass(Family::Bridge, HookPoint::Forward, ways, all);
        if let Some(flow) = passing.first() {
            let message = format!(
                "bridges pass frames from {} to {} ({})",
                incoming.name,
                name_of(view, target),
                flow.space
            );
            found.push(view.violation(Class::Frames, &[meaning.tenant()], message, flow.path()));
        }
    }
}
