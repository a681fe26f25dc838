//! What can stand, by brute force over profiles and starts.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_api::mig::{Geometry, Placement};

/// Contents: how many of each profile.
pub(super) type Content = BTreeMap<u32, u64>;

pub(super) fn content(profiles: impl IntoIterator<Item = u32>) -> Content {
    let mut content = Content::new();
    for profile in profiles {
        *content.entry(profile).or_default() += 1;
    }
    content
}

/// Bounds of instances and engines.
pub(super) fn in_bounds(geometry: &Geometry, content: &Content) -> bool {
    let count = |(id, count): (&u32, &u64)| {
        *count <= u64::from(geometry.profile(*id).unwrap().max_instances)
    };
    let engines = geometry.engine_limits().iter().all(|(kind, limit)| {
        let each = |id: &u32| geometry.profile(*id).unwrap().engines.get(kind).copied();
        let all: u64 =
            content.iter().map(|(id, n)| n * u64::from(each(id).unwrap_or_default())).sum();
        all <= u64::from(*limit)
    });
    content.iter().all(count) && engines
}

/// Whether `wanted` can be placed in what is free, one after the other, every place tried.
pub(super) fn placeable(geometry: &Geometry, taken: u64, wanted: &[u32]) -> bool {
    let Some((first, rest)) = wanted.split_first() else { return true };
    let profile = geometry.profile(*first).unwrap();
    profile.starts.iter().any(|start| {
        let mask = ((1_u64 << profile.size) - 1) << start;
        taken & mask == 0 && placeable(geometry, taken | mask, rest)
    })
}

/// Every set of slices that can stand.
pub(super) fn states(geometry: &Geometry) -> Vec<Vec<Placement>> {
    let places: Vec<Placement> =
        geometry.profiles().iter().flat_map(|profile| profile.placements()).collect();
    let mut found = Vec::new();
    extend(geometry, &places, &mut Vec::new(), &mut found);
    found
}

fn extend(
    geometry: &Geometry,
    places: &[Placement],
    now: &mut Vec<Placement>,
    found: &mut Vec<Vec<Placement>>,
) {
    found.push(now.clone());
    for (at, place) in places.iter().enumerate() {
        if now.iter().any(|other| other.meets(*place)) {
            continue;
        }
        now.push(*place);
        if in_bounds(geometry, &content(now.iter().map(|place| place.profile))) {
            extend(geometry, &places[at + 1..], now, found);
        }
        now.pop();
    }
}

/// Every content that can stand on an empty GPU, as a list of profiles.
pub(super) fn contents(states: &[Vec<Placement>]) -> Vec<Vec<u32>> {
    let all: BTreeSet<Vec<u32>> = states
        .iter()
        .map(|state| {
            let mut profiles: Vec<u32> = state.iter().map(|place| place.profile).collect();
            profiles.sort_unstable();
            profiles
        })
        .collect();
    all.into_iter().collect()
}

pub(super) fn mask(places: &[Placement]) -> u64 {
    places.iter().fold(0, |all, place| {
        all | (place.start..place.end()).fold(0, |bits, slice| bits | 1 << slice)
    })
}

/// The fewest slices of `movable` that must go elsewhere for `wanted` to be placed; absent where none helps.
pub(super) fn fewest_moves(
    geometry: &Geometry,
    fixed: &[Placement],
    movable: &[Placement],
    wanted: &[u32],
) -> Option<u32> {
    let all: Vec<u32> = fixed
        .iter()
        .chain(movable)
        .map(|place| place.profile)
        .chain(wanted.iter().copied())
        .collect();
    if !in_bounds(geometry, &content(all)) {
        return None;
    }
    let mut least = None;
    for moved in 0_u32..1 << movable.len() {
        if least.is_some_and(|least| moved.count_ones() >= least) {
            continue;
        }
        let is_moved = |at: &usize| moved & 1 << at != 0;
        let stay: Vec<Placement> = (0..movable.len())
            .filter(|at| !is_moved(at))
            .map(|at| movable[at])
            .chain(fixed.iter().copied())
            .collect();
        let mut items: Vec<u32> =
            (0..movable.len()).filter(is_moved).map(|at| movable[at].profile).collect();
        items.extend(wanted);
        let size = |id: &u32| geometry.profile(*id).unwrap().size;
        items.sort_by_key(|id| std::cmp::Reverse(size(id)));
        if placeable(geometry, mask(&stay), &items) {
            least = Some(moved.count_ones());
        }
    }
    least
}
