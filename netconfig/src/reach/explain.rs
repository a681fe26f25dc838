//! Why one port reaches another, or what stops it.

use std::fmt;

use crate::firewall::ruleset::{Family, HookPoint, Ranges};
use crate::model::{LinkKind, LinkName, PortId, Role};

use super::flow::{Flow, Judged, Seen, Ways};
use super::route::leads;
use super::segment::{Segments, Spot, Wire, name_of, way, words};
use super::site::{Site, View, destination, ip, number_of, source};
use super::space::Space;
use super::walk::judge;

/// Why, or why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Whether packets get there, by frames or by routes.
    pub reaches: bool,
    /// Step by step; the last of the ways that were tried says what stops it.
    pub steps: Vec<String>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", if self.reaches { "reaches" } else { "does not reach" })?;
        self.steps.iter().try_for_each(|step| writeln!(f, "  {step}"))
    }
}

/// Why the first port reaches the second, or does not. Ports that no host has are said to be missing.
#[must_use]
pub fn explain(site: &Site<'_>, from: &PortId, to: &PortId) -> Explanation {
    let views: Vec<View<'_>> = site.views().collect();
    let (start, end) = (find(&views, from), find(&views, to));
    let (Some(start), Some(end)) = (start, end) else {
        let missing = |id: &PortId, spot: Option<Spot>| {
            spot.is_none().then(|| format!("port {id}: no host has a link of it"))
        };
        let steps = missing(from, start).into_iter().chain(missing(to, end)).collect();
        return Explanation { reaches: false, steps };
    };
    let mut steps = Vec::new();
    let by_frames = frames(&views, start, end, &mut steps);
    let reaches = by_frames || packets(&views, start, from, to, &mut steps);
    Explanation { reaches, steps }
}

fn find(views: &[View<'_>], port: &PortId) -> Option<Spot> {
    let name = LinkName::of_port(Role::Port, port);
    views.iter().enumerate().find_map(|(host, view)| {
        let known = view.host.desired.ports.contains_key(port);
        view.links.get(&name).filter(|_| known).map(|link| (host, link.index))
    })
}

/// Says what dropped packets, by the last rule of the first.
fn stopped(judged: &Judged<'_>, steps: &mut Vec<String>) {
    let flow = judged.dropped.iter().max_by_key(|flow| flow.trace.len());
    match flow {
        Some(flow) => {
            steps.push(format!("stopped: {} ({})", flow.path().join(", then "), flow.space))
        }
        None => steps.push("stopped: nothing comes here".to_owned()),
    }
}

/// Without being routed.
fn frames(views: &[View<'_>], start: Spot, end: Spot, steps: &mut Vec<String>) -> bool {
    let around = Segments::of(views).around(start);
    if !around.contains_key(&end) {
        steps.push("frames: no bridge, VNI or VLAN joins them".to_owned());
        return false;
    }
    let way = way(&around, end);
    steps.push(format!("frames: {}", words(views, &way).join(" -> ")));
    let mut flows = vec![Flow::of(Space::all())];
    // A bridge stands between the member that frames come in by and the one that they go out by.
    for hop in way.windows(3) {
        let [
            (incoming, Some(Wire::Member(first))),
            (bridge, Some(Wire::Member(last))),
            (outgoing, _),
        ] = hop
        else {
            continue;
        };
        let through = first == incoming && last == outgoing;
        let Some(view) = views.get(bridge.0).filter(|_| through) else { continue };
        let link = |spot: &Spot| view.host.observed.links.get(&spot.1);
        let (Some(from), Some(to)) = (link(incoming), link(outgoing)) else { continue };
        let isolated = [from, to].iter().all(|link| link.port.is_some_and(|port| port.isolated));
        if isolated {
            steps.push(format!("stopped: {} and {} are isolated", from.name, to.name));
            return false;
        }
        let incoming = Some(Seen { name: from.name.as_str(), group: from.group });
        let outgoing = Some(Seen { name: to.name.as_str(), group: to.group });
        for (point, ways) in [
            (HookPoint::Prerouting, Ways { incoming, outgoing: None }),
            (HookPoint::Forward, Ways { incoming, outgoing }),
        ] {
            let judged = judge(view.host.rules, Family::Bridge, point, ways, flows);
            if judged.passed.is_empty() {
                stopped(&judged, steps);
                return false;
            }
            flows = judged.passed;
        }
    }
    pass_by(&flows, steps);
    true
}

fn pass_by(flows: &[Flow<'_>], steps: &mut Vec<String>) {
    // The most is let through by the rule that asks the least.
    if let Some(flow) = flows.iter().min_by_key(|flow| flow.space.to_string().len()) {
        steps.extend(flow.trace.iter().map(|hop| format!("passes: {hop}")));
        steps.push(format!("what gets there: {}", flow.space));
    }
}

/// By the gateway.
fn packets(
    views: &[View<'_>],
    start: Spot,
    from: &PortId,
    to: &PortId,
    steps: &mut Vec<String>,
) -> bool {
    let Some(view) = views.get(start.0) else { return false };
    let port = view.host.observed.links.get(&start.1);
    let bridge = port.and_then(|port| view.master(port));
    let Some(bridge) = bridge.filter(|bridge| matches!(bridge.known(), Some(LinkKind::Bridge)))
    else {
        steps.push("packets: the port is on no bridge".to_owned());
        return false;
    };
    let target = views.iter().find_map(|view| view.host.desired.ports.get(to));
    let own = view.host.desired.ports.get(from);
    let (Some(own), Some(target)) = (own, target) else { return false };
    // Behind a VRF, that is the link which rules of routed packets see.
    let routed =
        view.master(bridge).filter(|vrf| matches!(vrf.known(), Some(LinkKind::Vrf { .. })));
    let routed = routed.unwrap_or(bridge);
    let mut reaches = false;
    for v4 in [true, false] {
        let of = |port: &crate::model::Port| -> Ranges {
            let all = port.addresses.iter().filter(|ip| ip.is_ipv4() == v4);
            all.map(|ip| (number_of(*ip), number_of(*ip))).collect()
        };
        let (sources, targets) = (of(own), of(target));
        if sources.is_empty() || targets.is_empty() {
            continue;
        }
        let space = ip(v4).with(source(v4), &sources).with(destination(v4), &targets);
        let routes = leads(view, bridge, v4);
        let lead = routes.into_iter().find(|lead| !lead.to.intersection(&targets).is_empty());
        let Some(lead) = lead else {
            steps.push(format!("packets ({space}): {}, no route", name_of(view, bridge)));
            continue;
        };
        let way =
            format!("packets ({space}): {} -> {}", name_of(view, bridge), lead.by.join(" -> "));
        steps.push(way);
        let Some(out) = lead.out else {
            steps.push("stopped: the route refuses".to_owned());
            continue;
        };
        let seen = Seen { name: routed.name.as_str(), group: routed.group };
        let incoming = Some(seen);
        let outgoing = Some(view.seen(out.as_str()));
        let entering = Ways { incoming, outgoing: None };
        let rules = view.host.rules;
        let judged =
            judge(rules, Family::Inet, HookPoint::Prerouting, entering, vec![Flow::of(space)]);
        if judged.passed.is_empty() {
            stopped(&judged, steps);
            continue;
        }
        let ways = Ways { incoming, outgoing };
        let judged = judge(rules, Family::Inet, HookPoint::Forward, ways, judged.passed);
        if judged.passed.is_empty() {
            stopped(&judged, steps);
            continue;
        }
        if out != LinkName::of_network(Role::Bridge, &to.network_id()) {
            steps.push(format!("leaves by {out}, which is not the network of {to}"));
            continue;
        }
        pass_by(&judged.passed, steps);
        reaches = true;
    }
    reaches
}
