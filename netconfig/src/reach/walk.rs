//! What a host's rules do with a set of packets: every rule asked with every packet at once.
//!
//! Own code, on purpose: it knows what nftables does with a rule and nothing of how the rules came to be. Where a rule
//! cannot be followed (a chain or map that is not there), packets are taken to pass: the kernel has no such rule, and a
//! proof must not stand on what was not understood.

use super::flow::{Flow, Hop, Judged, Seen, Ways};
use super::space::{Space, implied};
use crate::firewall::ruleset::{
    Atom, Chain, Datum, Family, Field, HookPoint, Kind, Ranges, Ruleset, Shape, Statement, Table,
    Values, Verdict,
};

/// Chains in chains; the kernel allows 16 (`NFT_JUMP_STACK_SIZE`).
const DEPTH: usize = 16;

/// Packets that pass every base chain of a hook.
#[must_use]
pub(super) fn pass<'r>(
    rules: &'r Ruleset,
    family: Family,
    point: HookPoint,
    ways: Ways<'_>,
    flows: Vec<Flow<'r>>,
) -> Vec<Flow<'r>> {
    judge(rules, family, point, ways, flows).passed
}

/// What the base chains of a hook do with packets, in the order of their priorities.
#[must_use]
pub(super) fn judge<'r>(
    rules: &'r Ruleset,
    family: Family,
    point: HookPoint,
    ways: Ways<'_>,
    flows: Vec<Flow<'r>>,
) -> Judged<'r> {
    let mut dropped = Vec::new();
    let Some(table) = rules.tables.get(&family) else { return Judged { passed: flows, dropped } };
    let mut chains: Vec<(i32, &String, &Chain, bool)> = Vec::new();
    for (name, chain) in &table.chains {
        if let Some(hook) = chain.hook.filter(|hook| hook.point == point) {
            chains.push((hook.priority, name, chain, hook.accepts));
        }
    }
    chains.sort_by_key(|(priority, name, ..)| (*priority, (*name).clone()));
    let mut passing = flows;
    for (_, name, chain, accepts) in chains {
        let walk = Walk { family, table, ways };
        let mut next = Vec::new();
        for flow in passing {
            let mut ended = Vec::new();
            let mut ends = Ends { accepted: &mut next, dropped: &mut dropped };
            walk.chain(name, chain, flow, DEPTH, &mut ends, &mut ended);
            let policy = Hop { family, chain: name, verdict: None, rule: None, accepts };
            let ended = ended.into_iter().map(|mut flow| {
                flow.trace.push(policy);
                flow
            });
            if accepts { next.extend(ended) } else { dropped.extend(ended) }
        }
        passing = next;
    }
    Judged { passed: passing, dropped }
}

/// Where packets end for good.
struct Ends<'e, 'r> {
    accepted: &'e mut Vec<Flow<'r>>,
    dropped: &'e mut Vec<Flow<'r>>,
}

struct Walk<'r, 'w> {
    family: Family,
    table: &'r Table,
    ways: Ways<'w>,
}

/// A way in which the fields of a rule fit, and what belongs to it.
type Fit<'a> = (Space, Option<&'a Datum>);

impl<'r, 'w> Walk<'r, 'w> {
    /// Packets that come to a chain's end go to `ended`.
    fn chain(
        &self,
        name: &'r str,
        chain: &'r Chain,
        flow: Flow<'r>,
        depth: usize,
        ends: &mut Ends<'_, 'r>,
        ended: &mut Vec<Flow<'r>>,
    ) {
        let mut current = vec![flow];
        for (at, rule) in chain.rules.iter().enumerate() {
            let (family, rule_at) = (self.family, Some((at, rule)));
            let hop = Hop { family, chain: name, verdict: None, rule: rule_at, accepts: false };
            let mut next = Vec::new();
            for flow in current {
                let mut inside = vec![flow];
                for statement in &rule.0 {
                    let mut fitting = Vec::new();
                    for flow in inside {
                        let mut exits =
                            Exits { depth, ends: &mut *ends, ended: &mut *ended, next: &mut next };
                        self.statement(statement, flow, hop, &mut exits, &mut fitting);
                    }
                    inside = fitting;
                }
                // Every statement fitted and none decided.
                next.extend(inside);
            }
            current = next;
        }
        ended.extend(current);
    }

    fn statement(
        &self,
        statement: &'r Statement,
        flow: Flow<'r>,
        hop: Hop<'r>,
        exits: &mut Exits<'_, '_, 'r>,
        fitting: &mut Vec<Flow<'r>>,
    ) {
        match statement {
            Statement::Count | Statement::CountIn(_) => fitting.push(flow),
            Statement::Limit(_) => {
                // Above the rate they go on to the next rule.
                exits.next.push(flow.clone());
                fitting.push(Flow { limited: true, ..flow });
            }
            Statement::Above { .. } => {
                exits.next.push(Flow { limited: true, ..flow.clone() });
                fitting.push(flow);
            }
            Statement::Match { fields, negated, values } => {
                let (fits, applies) = self.values(fields, values, &flow.space);
                let (within, without) = split(&flow, &applies, &fits);
                let (matched, inside_rest): (Vec<Flow<'r>>, Vec<Flow<'r>>) = if *negated {
                    (without, within.into_iter().map(|(flow, _)| flow).collect())
                } else {
                    (within.into_iter().map(|(flow, _)| flow).collect(), without)
                };
                fitting.extend(matched);
                exits.next.extend(inside_rest);
                exits.next.extend(not_applying(&flow, &applies));
            }
            Statement::CountBy { fields, map }
            | Statement::ZoneBy { fields, map }
            | Statement::MarkBy { fields, map } => {
                let (fits, applies) = self.elements(fields, map, &flow.space);
                let (within, without) = split(&flow, &applies, &fits);
                exits.next.extend(without);
                exits.next.extend(not_applying(&flow, &applies));
                for (mut flow, datum) in within {
                    if let Some(Datum::Zone(zone)) = datum {
                        flow.zone = *zone;
                    }
                    fitting.push(flow);
                }
            }
            Statement::VerdictMap { fields, map } => {
                let (fits, applies) = self.elements(fields, map, &flow.space);
                let (within, without) = split(&flow, &applies, &fits);
                exits.next.extend(without);
                exits.next.extend(not_applying(&flow, &applies));
                for (flow, datum) in within {
                    if let Some(Datum::Verdict(verdict)) = datum {
                        self.verdict(verdict, flow, hop, exits);
                    } else {
                        exits.next.push(flow);
                    }
                }
            }
            Statement::Verdict(verdict) => self.verdict(verdict, flow, hop, exits),
        }
    }

    fn verdict(
        &self,
        verdict: &'r Verdict,
        mut flow: Flow<'r>,
        hop: Hop<'r>,
        exits: &mut Exits<'_, '_, 'r>,
    ) {
        let (target, comes_back) = match verdict {
            Verdict::Drop => {
                flow.trace.push(hop);
                exits.ends.dropped.push(flow);
                return;
            }
            Verdict::Accept => {
                flow.trace.push(hop);
                exits.ends.accepted.push(flow);
                return;
            }
            Verdict::Return => {
                exits.ended.push(flow);
                return;
            }
            Verdict::Goto(chain) => (chain, false),
            Verdict::Jump(chain) => (chain, true),
        };
        flow.trace.push(Hop { verdict: Some(verdict), ..hop });
        let known = self.table.chains.get(target).zip(exits.depth.checked_sub(1));
        let Some((chain, depth)) = known else {
            exits.ends.accepted.push(flow);
            return;
        };
        let mut ended = Vec::new();
        self.chain(target, chain, flow, depth, exits.ends, &mut ended);
        if comes_back { exits.next.extend(ended) } else { exits.ended.extend(ended) }
    }

    /// The ways in which fields are among the values, and the packets that have the fields at all.
    fn values(
        &self,
        fields: &[Field],
        values: &'r Values,
        packets: &Space,
    ) -> (Vec<Fit<'r>>, Option<Space>) {
        let one = |ranges: &Ranges| {
            fields.iter().fold(Space::all(), |space, field| space.with(*field, ranges))
        };
        match (fields, values) {
            (_, Values::Set(set)) => self.elements(fields, set, packets),
            ([Field::InLink | Field::OutLink], Values::Names(names)) => {
                let seen = fields.iter().find_map(|field| self.seen(*field));
                let fits =
                    seen.filter(|seen| names.contains(seen.name)).map(|_| (Space::all(), None));
                (fits.into_iter().collect(), seen.map(|_| Space::all()))
            }
            ([Field::InGroup | Field::OutGroup], Values::Numbers(groups)) => {
                let seen = fields.iter().find_map(|field| self.seen(*field));
                let fits = seen.filter(|seen| groups.contains(seen.group.into()));
                (
                    fits.map(|_| (Space::all(), None)).into_iter().collect(),
                    seen.map(|_| Space::all()),
                )
            }
            (_, Values::Numbers(ranges)) => (vec![(one(ranges), None)], self.applies(fields)),
            (_, Values::Names(_)) => (Vec::new(), None),
        }
    }

    /// The elements of a set or map that these links leave, as packets.
    fn elements(
        &self,
        fields: &[Field],
        name: &str,
        packets: &Space,
    ) -> (Vec<Fit<'r>>, Option<Space>) {
        let applies = self.applies(fields);
        let Some(set) = self.table.sets.get(name) else { return (Vec::new(), applies) };
        let links = fields
            .iter()
            .map_while(|field| self.seen(*field).filter(|_| field.kind() == Kind::Link));
        let own: Vec<Atom> = links.map(|seen| Atom::Name(seen.name.to_owned())).collect();
        let fits = |element: (&'r Vec<Atom>, &'r Datum)| -> Option<Fit<'r>> {
            let mut space = Space::all();
            for (field, atom) in fields.iter().zip(element.0) {
                match atom {
                    Atom::Name(name) => {
                        self.seen(*field).filter(|seen| seen.name == name)?;
                    }
                    Atom::Span(first, last) if field.kind() == Kind::Group => {
                        let group = u128::from(self.seen(*field)?.group);
                        (*first..=*last).contains(&group).then_some(())?;
                    }
                    Atom::Span(first, last) => {
                        space = space.with(*field, &Ranges::span(*first, *last));
                    }
                }
            }
            Some((space, Some(element.1)))
        };
        let found = match (fields, set.shape) {
            // Of ranges that do not meet, those around the packets' own stand together.
            ([field], Shape::Interval) if own.is_empty() => {
                let own = packets.field(*field);
                let (least, most) = own
                    .iter()
                    .fold((u128::MAX, 0), |all, one| (all.0.min(one.0), all.1.max(one.1)));
                let around = set.elements.range(..=vec![Atom::Span(most, u128::MAX)]).rev();
                let ends = |key: &Vec<Atom>| match key.first() {
                    Some(Atom::Span(_, last)) => *last < least,
                    Some(Atom::Name(_)) | None => false,
                };
                around.take_while(|(key, _)| !ends(key)).filter_map(fits).collect()
            }
            // Elements are sorted: those of the same links stand together.
            _ => {
                let from = set.elements.range(own.clone()..);
                from.take_while(|(key, _)| key.starts_with(&own)).filter_map(fits).collect()
            }
        };
        (found, applies)
    }

    /// Packets that have all these fields; none where a link is not known here.
    fn applies(&self, fields: &[Field]) -> Option<Space> {
        let mut space = Space::all();
        for field in fields {
            match field.kind() {
                Kind::Link | Kind::Group => {
                    self.seen(*field)?;
                }
                Kind::Mac
                | Kind::EtherType
                | Kind::Ip4
                | Kind::Ip6
                | Kind::Protocol
                | Kind::Port
                | Kind::Byte
                | Kind::CtState => {
                    for (implied, ranges) in implied(*field) {
                        space = space.with(implied, &ranges);
                    }
                }
            }
        }
        Some(space)
    }

    const fn seen(&self, field: Field) -> Option<Seen<'w>> {
        if matches!(field, Field::InLink | Field::InGroup) {
            self.ways.incoming
        } else if matches!(field, Field::OutLink | Field::OutGroup) {
            self.ways.outgoing
        } else {
            None
        }
    }
}

/// Where packets go that leave a rule.
struct Exits<'e, 'f, 'r> {
    depth: usize,
    ends: &'e mut Ends<'f, 'r>,
    ended: &'e mut Vec<Flow<'r>>,
    next: &'e mut Vec<Flow<'r>>,
}

/// Packets that have the fields: those that fit, each with what belongs to the fit, and those that do not.
fn split<'r>(
    flow: &Flow<'r>,
    applies: &Option<Space>,
    fits: &[Fit<'r>],
) -> (Vec<(Flow<'r>, Option<&'r Datum>)>, Vec<Flow<'r>>) {
    let Some(applies) = applies else { return (Vec::new(), Vec::new()) };
    let mut rest = vec![flow.space.and(applies)];
    rest.retain(|space| !space.is_empty());
    let mut within = Vec::new();
    for (fit, datum) in fits {
        let mut left = Vec::new();
        for space in rest {
            let both = space.and(fit);
            if both.is_empty() {
                left.push(space);
            } else {
                within.push((flow.narrowed(both), *datum));
                left.extend(space.without(fit));
            }
        }
        rest = left;
    }
    (within, rest.into_iter().map(|space| flow.narrowed(space)).collect())
}

/// Packets that do not have the fields.
fn not_applying<'r>(flow: &Flow<'r>, applies: &Option<Space>) -> Vec<Flow<'r>> {
    match applies {
        None => vec![flow.clone()],
        Some(applies) => {
            flow.space.without(applies).into_iter().map(|space| flow.narrowed(space)).collect()
        }
    }
}
