//! Which links go, and how: together, in one group, as the kernel waits for each deletion anew and for a group once.

use std::collections::BTreeSet;

use super::{Draft, LinkRef, Operation, Refusal, reference};
use crate::model::{LinkKind, LinkName, ObservedKind, ObservedLink, TRASH_GROUP};

/// Chooses the links that go, names those that cannot, and puts the deletions into the draft.
pub(super) fn choose(draft: &mut Draft<'_>) {
    let peers: BTreeSet<&LinkName> = draft.target.links.values().filter_map(peer).collect();
    for link in draft.observed.ours() {
        let wanted = match draft.target.links.get(&link.name) {
            Some(wanted) => {
                let same = link.known().is_some_and(|kind| kind.fits(&wanted.kind));
                same && link.group == wanted.group
            }
            // The tenant's end is here until it is moved to the tenant.
            None => {
                peers.contains(&link.name) && matches!(link.known(), Some(LinkKind::Veth { .. }))
            }
        };
        if !wanted {
            draft.doomed.insert(link.index);
        }
    }
    spread(draft);
    keep_what_others_stand_on(draft);
    delete(draft);
}

fn peer(link: &crate::model::TargetLink) -> Option<&LinkName> {
    match &link.kind {
        LinkKind::Veth { peer, .. } => Some(peer),
        LinkKind::Bridge
        | LinkKind::Vxlan { .. }
        | LinkKind::Vlan { .. }
        | LinkKind::Vrf { .. }
        | LinkKind::Tap
        | LinkKind::Bond { .. } => None,
    }
}

/// What stands on a doomed link goes with it, and so does the other end of a doomed pair.
fn spread(draft: &mut Draft<'_>) {
    loop {
        let before = draft.doomed.len();
        let names: BTreeSet<&LinkName> = draft
            .observed
            .ours()
            .filter(|l| draft.doomed.contains(&l.index))
            .map(|l| &l.name)
            .collect();
        for link in draft.observed.ours() {
            let on_doomed = link.parent.is_some_and(|parent| draft.doomed.contains(&parent));
            let other_end = match link.known() {
                Some(LinkKind::Veth { peer, .. }) => names.contains(peer),
                _ => false,
            };
            if on_doomed || other_end {
                draft.doomed.insert(link.index);
            }
        }
        if draft.doomed.len() == before {
            return;
        }
    }
}

/// A foreign link that stands on one of ours keeps it, and what that stands on in turn.
fn keep_what_others_stand_on(draft: &mut Draft<'_>) {
    loop {
        let keeper = draft.observed.links.values().find(|link| {
            !draft.doomed.contains(&link.index)
                && link.parent.is_some_and(|parent| draft.doomed.contains(&parent))
        });
        let Some(keeper) = keeper else { return };
        let Some(parent) = keeper.parent.and_then(|parent| draft.observed.links.get(&parent))
        else {
            return;
        };
        draft.doomed.remove(&parent.index);
        let by = keeper.name.clone();
        draft.refused.push(Refusal::StoodOn { name: parent.name.clone(), by });
    }
}

fn delete(draft: &mut Draft<'_>) {
    let doomed: Vec<&ObservedLink> =
        draft.observed.links.values().filter(|l| draft.doomed.contains(&l.index)).collect();
    let groups: BTreeSet<u32> = doomed.iter().map(|link| link.group).collect();
    let whole = |group: u32| {
        let mut members = draft.observed.links.values().filter(|link| link.group == group);
        members.all(|link| draft.doomed.contains(&link.index))
    };
    let links = doomed.len();
    if let (1, Some(&group)) = (groups.len(), groups.first())
        && whole(group)
        && links > 1
    {
        draft.put(Operation::DeleteGroup { group, links }, 0);
        return;
    }
    // One card in the group, and the kernel deletes nothing of it.
    let in_trash = |link: &&ObservedLink| link.group == TRASH_GROUP;
    let barred = draft.observed.links.values().filter(in_trash);
    let barred = barred.into_iter().any(|link| matches!(link.kind, ObservedKind::Device));
    if barred || pairs(&doomed) < 2 {
        let mut gone: BTreeSet<&LinkName> = BTreeSet::new();
        for link in doomed {
            // The other end went with the first.
            if let Some(LinkKind::Veth { peer, .. }) = link.known()
                && gone.contains(peer)
            {
                continue;
            }
            gone.insert(&link.name);
            let storey = u8::MAX - crate::order::storey(link.known());
            draft.put(Operation::DeleteLink(reference(link)), storey);
        }
        return;
    }
    for link in doomed.iter().filter(|link| link.group != TRASH_GROUP) {
        let LinkRef { index, name } = reference(link);
        draft.put(Operation::Discard(LinkRef { index, name }), 0);
    }
    draft.put(Operation::DeleteGroup { group: TRASH_GROUP, links }, 0);
}

/// How many deletions it takes one by one.
fn pairs(doomed: &[&ObservedLink]) -> usize {
    let ends = doomed.iter().filter(|link| link.name.peer().is_none() || link.known().is_none());
    let peers: BTreeSet<_> = doomed.iter().filter_map(|link| link.name.peer()).collect();
    let alone = ends.filter(|link| !peers.contains(&link.name)).count();
    alone + peers.len()
}
