//! Links that come and links that change.

use std::collections::BTreeMap;

use super::{Draft, LinkChange, LinkRef, NewLink, Operation, Refusal, reference};
use crate::model::{BridgePort, LinkKind, LinkName, ObservedLink, TargetLink};
use crate::order::{Placed, storey};

/// Links that are not there are made, from the ground up; each is known by its number to those that stand on it.
pub(super) fn make(draft: &mut Draft<'_>) {
    let target = draft.target;
    // Cards first: they are there or they are not.
    for name in target.used.keys() {
        match draft.standing(name) {
            Some(link) => drop(draft.there.insert(name.clone(), link.index)),
            None => draft.refused.push(Refusal::NoSuchCard { name: name.clone() }),
        }
    }
    let mut wanted: Vec<(&LinkName, &TargetLink)> = target.links.iter().collect();
    wanted.sort_by_key(|(_, link)| storey(Some(&link.kind)));
    for (name, link) in wanted {
        if let Some(standing) = draft.standing(name) {
            let ours = standing.is_ours() && standing.known().is_some_and(|k| k.fits(&link.kind));
            if ours {
                draft.there.insert(name.clone(), standing.index);
            } else if !standing.is_ours() {
                draft.refused.push(Refusal::NameTaken { name: name.clone() });
            }
            // One of ours that could not be deleted is refused already.
            continue;
        }
        if let Some(new) = new_link(draft, name, link) {
            draft.there.insert(name.clone(), new.link.index);
            draft.put(Operation::Create(new), storey(Some(&link.kind)));
        }
    }
}

fn new_link(draft: &mut Draft<'_>, name: &LinkName, link: &TargetLink) -> Option<NewLink> {
    let object = format!("link {name}");
    let mut needed = |other: &LinkName| {
        let found = draft.link(other);
        if found.is_none() {
            draft.miss(&object, other);
        }
        found
    };
    let master = match &link.master {
        Some(master) => Some(needed(master)?),
        None => None,
    };
    let parent = match &link.kind {
        LinkKind::Vlan { parent, .. } => Some(needed(parent)?),
        LinkKind::Bridge
        | LinkKind::Vxlan { .. }
        | LinkKind::Vrf { .. }
        | LinkKind::Veth { .. }
        | LinkKind::Tap
        | LinkKind::Bond { .. } => None,
    };
    let index = draft.free_index();
    let peer_index = matches!(link.kind, LinkKind::Veth { .. }).then(|| draft.free_index());
    Some(NewLink {
        link: LinkRef { index, name: name.clone() },
        kind: link.kind.clone(),
        group: link.group,
        mtu: link.mtu,
        mac: link.mac,
        master,
        parent,
        peer_index,
    })
}

/// Links that will be there are compared field by field; of those that are made now, what making them does not give.
pub(super) fn change(draft: &mut Draft<'_>) {
    let target = draft.target;
    for (name, wanted) in &target.links {
        let Some(link) = draft.link(name) else { continue };
        let floor = storey(Some(&wanted.kind));
        let standing = draft.standing(name);
        let quiet = standing.is_none_or(|now| now.makes_addresses);
        let mut change = LinkChange { quiet, ..LinkChange::default() };
        match standing {
            None => change.port = wanted.port.filter(|port| *port != BridgePort::NEW),
            Some(now) => {
                let moved = move_link(draft, name, now, wanted.master.as_ref());
                let fresh = moved.then_some(BridgePort::NEW).or(now.port);
                change.port = wanted.port.filter(|port| fresh != Some(*port));
                change.mtu = wanted.mtu.filter(|mtu| *mtu != now.mtu);
                change.mac = wanted.mac.filter(|mac| Some(*mac) != now.mac);
            }
        }
        if change != LinkChange::default() {
            let shrinks = change.mtu.zip(standing).is_some_and(|(mtu, now)| mtu < now.mtu);
            let operation = Operation::Change(link.clone(), change);
            draft.changes.push(Placed { operation, storey: floor, shrinks });
        }
        if standing.is_none_or(|now| !now.up) {
            draft.put(Operation::SetUp(link), floor);
        }
    }
    foreign_ports(draft);
}

/// Puts a link that stays where it belongs; true where its master changes.
fn move_link(
    draft: &mut Draft<'_>,
    name: &LinkName,
    now: &ObservedLink,
    wanted: Option<&LinkName>,
) -> bool {
    let current = now.master.as_ref().map(|master| master.index);
    let goal = wanted.and_then(|master| draft.link(master));
    if let (Some(master), None) = (wanted, &goal) {
        draft.miss(&format!("link {name}"), master);
        return false;
    }
    if current == goal.as_ref().map(|master| master.index) {
        return false;
    }
    draft.moved.insert(name.clone());
    let floor = storey(now.known());
    // A master that goes releases its own.
    if current.is_some_and(|master| !draft.doomed.contains(&master)) {
        draft.put(Operation::Release(reference(now)), floor);
    }
    if let Some(master) = goal {
        draft.put(Operation::Enslave(reference(now), master), floor);
    }
    true
}

/// Foreign links that are ports of ours without being wanted there.
fn foreign_ports(draft: &mut Draft<'_>) {
    let masters: BTreeMap<u32, &LinkName> = draft
        .observed
        .ours()
        .filter(|link| !draft.doomed.contains(&link.index))
        .map(|link| (link.index, &link.name))
        .collect();
    for link in draft.observed.links.values() {
        let wanted = draft.target.links.contains_key(&link.name) && link.is_ours();
        let used = draft.target.used.contains_key(&link.name);
        let on_ours =
            link.master.as_ref().is_some_and(|master| masters.contains_key(&master.index));
        if on_ours && !wanted && !used && !draft.doomed.contains(&link.index) {
            draft.put(Operation::Release(reference(link)), 0);
        }
    }
}

/// Cards: up, at least this MTU, and members of the bond.
pub(super) fn cards(draft: &mut Draft<'_>) {
    let target = draft.target;
    for (name, wanted) in &target.used {
        let Some(now) = draft.standing(name) else { continue };
        let current = now.master.as_ref();
        let foreign = current.filter(|master| {
            let link = draft.observed.links.get(&master.index);
            !link.is_some_and(ObservedLink::is_ours)
        });
        let mut down = false;
        match (&wanted.master, foreign) {
            (Some(_), Some(foreign)) => {
                let master = foreign.name.clone().unwrap_or_else(|| name.clone());
                draft.refused.push(Refusal::CardTaken { name: name.clone(), master });
                continue;
            }
            (Some(master), None) => {
                let moved = move_link(draft, name, now, Some(master));
                // A bond takes members that are down only, and sets them up itself.
                if moved && now.up {
                    draft.put(Operation::SetDown(reference(now)), 0);
                    down = true;
                }
            }
            (None, Some(_)) => {}
            (None, None) => {
                move_link(draft, name, now, None);
            }
        }
        if let Some(mtu) = wanted.min_mtu.filter(|mtu| *mtu > now.mtu) {
            let change = LinkChange { mtu: Some(mtu), ..LinkChange::default() };
            draft.put(Operation::Change(reference(now), change), 0);
        }
        if down || !now.up {
            draft.put(Operation::SetUp(reference(now)), 0);
        }
    }
}
