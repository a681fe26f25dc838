//! The changes that make what is observed what is wanted. Pure and total.
//!
//! Only what is ours is compared and changed: a link of our groups, a route of our protocol in a table of ours, a rule
//! of our protocol, an entry or address on a link of ours. Of cards that are used, master, MTU (upwards) and "up". A
//! foreign link that somebody made a port of ours is released: who is on a tenant's bridge is ours to say.
//!
//! What cannot be done is refused by name and holds up nothing else.

mod doomed;
mod links;
mod operation;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

pub use operation::{LinkChange, LinkRef, NewLink, Operation};

use crate::model::{
    Address, LinkName, Neighbour, Observed, ObservedLink, RouteKind, Selector, Target,
    UNDERLAY_GROUP,
};
use crate::order::{Placed, order};

/// What is to be done, and what cannot be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order.
    pub operations: Vec<Operation>,
    /// Each with the reason.
    pub refused: Vec<Refusal>,
}

/// What cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// A foreign link has the name of one of ours.
    NameTaken {
        /// The name.
        name: LinkName,
    },
    /// There is no such card.
    NoSuchCard {
        /// Its name.
        name: LinkName,
    },
    /// A card is a port or member of something that is not ours.
    CardTaken {
        /// The card.
        name: LinkName,
        /// What it is part of.
        master: LinkName,
    },
    /// Deleting a link of ours would take along a foreign one that stands on it.
    StoodOn {
        /// The link.
        name: LinkName,
        /// The foreign one.
        by: LinkName,
    },
    /// It needs a link that cannot be made.
    Missing {
        /// What: a link, an address, a route, a rule.
        object: String,
        /// The link that it needs.
        link: LinkName,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameTaken { name } => {
                write!(f, "link {name}: the name is taken by a link that Bulkhead did not make")
            }
            Self::NoSuchCard { name } => write!(f, "card {name}: there is none of that name"),
            Self::CardTaken { name, master } => {
                write!(f, "card {name}: it is part of {master}, which Bulkhead did not make")
            }
            Self::StoodOn { name, by } => {
                write!(f, "link {name}: with it {by} would be deleted, which Bulkhead did not make")
            }
            Self::Missing { object, link } => write!(f, "{object}: it needs link {link}"),
        }
    }
}

/// The changes that make `observed` what `target` says.
#[must_use]
pub fn plan(target: &Target, observed: &Observed) -> Plan {
    let mut draft = Draft::new(target, observed);
    doomed::choose(&mut draft);
    links::make(&mut draft);
    links::change(&mut draft);
    links::cards(&mut draft);
    addresses(&mut draft);
    routes(&mut draft);
    neighbours(&mut draft);
    rules(&mut draft);
    draft.refused.sort();
    draft.refused.dedup();
    Plan { operations: order(draft.changes), refused: draft.refused }
}

/// A plan in the making.
struct Draft<'a> {
    target: &'a Target,
    observed: &'a Observed,
    by_name: BTreeMap<&'a LinkName, &'a ObservedLink>,
    /// Numbers of links that go.
    doomed: BTreeSet<u32>,
    /// Links that will be there when all is done, by name.
    there: BTreeMap<LinkName, u32>,
    /// Links that exist and stay, and lose their last address of IPv4: the kernel takes their routes of IPv4 along.
    dry: BTreeSet<&'a LinkName>,
    /// Links that exist and stay, and change what they are part of: entries go with that.
    moved: BTreeSet<LinkName>,
    next_index: u32,
    changes: Vec<Placed>,
    refused: Vec<Refusal>,
}

impl<'a> Draft<'a> {
    fn new(target: &'a Target, observed: &'a Observed) -> Self {
        let last = observed.links.keys().next_back().copied().unwrap_or_default();
        Self {
            target,
            observed,
            by_name: observed.links.values().map(|link| (&link.name, link)).collect(),
            doomed: BTreeSet::new(),
            there: BTreeMap::new(),
            dry: BTreeSet::new(),
            moved: BTreeSet::new(),
            next_index: last.saturating_add(1),
            changes: Vec::new(),
            refused: Vec::new(),
        }
    }

    fn put(&mut self, operation: Operation, storey: u8) {
        self.changes.push(Placed { operation, storey, shrinks: false });
    }

    /// A number that no link of this namespace has.
    fn free_index(&mut self) -> u32 {
        let index = self.next_index;
        self.next_index = index.saturating_add(1);
        index
    }

    /// The link as it will be when all is done.
    fn link(&self, name: &LinkName) -> Option<LinkRef> {
        self.there.get(name).map(|index| LinkRef { index: *index, name: name.clone() })
    }

    /// The link as it is and stays.
    fn standing(&self, name: &LinkName) -> Option<&'a ObservedLink> {
        self.by_name.get(name).copied().filter(|link| !self.doomed.contains(&link.index))
    }

    /// The link as it is, where it is ours and stays.
    fn ours(&self, name: &LinkName) -> Option<&'a ObservedLink> {
        self.standing(name).filter(|link| link.is_ours())
    }

    fn miss(&mut self, object: &impl fmt::Display, link: &LinkName) {
        self.refused.push(Refusal::Missing { object: object.to_string(), link: link.clone() });
    }
}

fn reference(link: &ObservedLink) -> LinkRef {
    LinkRef { index: link.index, name: link.name.clone() }
}

fn addresses<'a>(draft: &mut Draft<'a>) {
    let (target, observed) = (draft.target, draft.observed);
    for address in observed.addresses.difference(&target.addresses) {
        if let Some(link) = draft.ours(&address.link) {
            draft.put(Operation::DeleteAddress(address.clone(), reference(link)), 3);
        }
    }
    let v4 = |set: &'a BTreeSet<Address>| set.iter().filter(|address| address.ip.is_ipv4());
    let stay: BTreeSet<_> =
        v4(&observed.addresses).filter(|a| target.addresses.contains(a)).map(|a| &a.link).collect();
    draft.dry = v4(&observed.addresses).map(|a| &a.link).filter(|l| !stay.contains(l)).collect();
    for address in &target.addresses {
        let Some(link) = draft.link(&address.link) else {
            draft.miss(address, &address.link);
            continue;
        };
        // A bridge that changes its VRF is set down and up on the way, and loses those of IPv6.
        let lost = address.ip.is_ipv6() && draft.moved.contains(&address.link);
        let stands = draft.ours(&address.link).is_some() && !lost;
        if !stands || !observed.addresses.contains(address) {
            let group = target.links.get(&address.link).map(|link| link.group);
            let with_route = group == Some(UNDERLAY_GROUP);
            let address: Address = address.clone();
            draft.put(Operation::AddAddress { address, link, with_route }, 0);
        }
    }
}

fn routes(draft: &mut Draft<'_>) {
    let (target, observed) = (draft.target, draft.observed);
    for route in observed.routes.difference(&target.routes) {
        let link = match &route.kind {
            // A route goes with its link.
            RouteKind::Link { link, .. } => match draft.standing(link) {
                Some(link) => Some(reference(link)),
                None => continue,
            },
            RouteKind::Unreachable | RouteKind::Throw => None,
        };
        draft.put(Operation::DeleteRoute(route.clone(), link), 1);
    }
    for route in &target.routes {
        let (link, stands) = match &route.kind {
            RouteKind::Link { link, .. } => {
                let Some(there) = draft.link(link) else {
                    draft.miss(route, link);
                    continue;
                };
                // A link that is set up only now has no routes, whatever was read.
                let stands = draft.standing(link).is_some_and(|link| link.up);
                let dry = route.prefix.address().is_ipv4() && draft.dry.contains(link);
                (Some(there), stands && !dry && !draft.moved.contains(link))
            }
            RouteKind::Unreachable | RouteKind::Throw => (None, true),
        };
        if !stands || !observed.routes.contains(route) {
            draft.put(Operation::AddRoute(route.clone(), link), 0);
        }
    }
}

fn neighbours(draft: &mut Draft<'_>) {
    let (target, observed) = (draft.target, draft.observed);
    // Entries go when a port changes its bridge, and a bridge its VRF.
    let kept = |draft: &Draft<'_>, neighbour: &Neighbour| {
        draft.ours(neighbour.link()).is_some() && !draft.moved.contains(neighbour.link())
    };
    for neighbour in observed.neighbours.difference(&target.neighbours) {
        if kept(draft, neighbour)
            && let Some(link) = draft.ours(neighbour.link())
        {
            draft.put(Operation::DeleteNeighbour(neighbour.clone(), reference(link)), 2);
        }
    }
    for neighbour in &target.neighbours {
        let Some(link) = draft.link(neighbour.link()) else {
            draft.miss(neighbour, neighbour.link());
            continue;
        };
        if !kept(draft, neighbour) || !observed.neighbours.contains(neighbour) {
            draft.put(Operation::AddNeighbour(neighbour.clone(), link), 0);
        }
    }
}

fn rules(draft: &mut Draft<'_>) {
    let (target, observed) = (draft.target, draft.observed);
    for rule in observed.rules.difference(&target.rules) {
        draft.put(Operation::DeleteRule(rule.clone()), 0);
    }
    for rule in target.rules.difference(&observed.rules) {
        if let Selector::Iif(link) = &rule.selector
            && draft.link(link).is_none()
        {
            draft.miss(rule, link);
            continue;
        }
        draft.put(Operation::AddRule(rule.clone()), 0);
    }
}

#[cfg(test)]
mod tests;
