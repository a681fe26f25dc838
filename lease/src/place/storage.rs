//! Storage: which pool each volume gets, and which stretches of it.
//!
//! A volume lies in one pool: on a disk near to the lease where it can be, else where the least room is that
//! suffices. The pools are searched until every volume has one or no way is left (of many volumes up to
//! [`TRIES`] steps).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use bulkhead_api::inventory::{DiskClaim, Inventory};
use bulkhead_api::lease::{HeldVolume, Volume};
use bulkhead_api::resource::{EXTENT, Extent, Resource};

use super::request::Taken;

/// Bound of the search. Volumes that fill pools to the last extent may then be refused although some order
/// of them fits.
const TRIES: u32 = 4096;

/// A pool with what is free of it.
#[derive(Debug, Clone)]
pub(super) struct Pool<'a> {
    id: &'a str,
    node: Option<u32>,
    /// Ascending, whole extents, none touching another.
    free: Vec<Extent>,
}

impl Pool<'_> {
    pub(super) fn room(&self) -> u64 {
        self.free.iter().map(|stretch| stretch.length).sum()
    }
}

/// Every pool of a host. A disk in quarantine gives none, and two disks that say they are the same pool
/// give none: nobody knows whose volumes are on which.
pub(super) fn pools<'a>(inventory: &'a Inventory, taken: &Taken) -> Vec<Pool<'a>> {
    let mut gone: BTreeMap<&str, Vec<Extent>> = BTreeMap::new();
    let mut disks = BTreeSet::new();
    let held = taken.held.values().flat_map(|holding| &holding.volumes);
    for HeldVolume { pool, extents, .. } in held {
        gone.entry(pool).or_default().extend(extents);
    }
    for resource in &taken.quarantined {
        if let Resource::Volume { pool, extents, .. } = resource {
            gone.entry(pool).or_default().extend(extents);
        }
        if let Resource::Disk { id } = resource {
            disks.insert(id.as_str());
        }
    }
    let mut count: BTreeMap<&str, u32> = BTreeMap::new();
    let mut pools = Vec::new();
    for disk in &inventory.disks {
        let DiskClaim::Pool { id, size } = &disk.claim else { continue };
        *count.entry(id).or_default() += 1;
        let name = if disk.serial.is_empty() { &disk.name } else { &disk.serial };
        if !disks.contains(name.as_str()) {
            let gone = gone.get(id.as_str()).cloned().unwrap_or_default();
            pools.push(Pool { id, node: disk.node, free: stretches(size.get(), gone) });
        }
    }
    pools.retain(|pool| count.get(pool.id) == Some(&1));
    pools
}

/// What is left of a pool, in whole extents.
fn stretches(size: u64, mut gone: Vec<Extent>) -> Vec<Extent> {
    gone.sort_unstable();
    gone.push(Extent { start: size, length: 0 });
    let (mut free, mut from) = (Vec::new(), 0);
    for taken in gone {
        let start = u64::div_ceil(from, EXTENT).saturating_mul(EXTENT);
        let end = taken.start.min(size) / EXTENT * EXTENT;
        if start < end {
            free.push(Extent { start, length: end - start });
        }
        from = from.max(taken.end());
    }
    free
}

/// Places all volumes, or says that no way was found. In the order of the lease's volumes.
pub(super) fn choose(
    mut pools: Vec<Pool<'_>>,
    volumes: &[Volume],
    nodes: &BTreeSet<u32>,
) -> Option<Vec<HeldVolume>> {
    let is_near = |pool: &Pool<'_>| pool.node.is_some_and(|node| nodes.contains(&node));
    let mut rooms: Vec<Left> =
        pools.iter().map(|pool| Left { far: !is_near(pool), bytes: pool.room() }).collect();
    // Large ones first: they have the fewest places.
    let mut order: Vec<(usize, &Volume)> = volumes.iter().enumerate().collect();
    order.sort_by_key(|(at, volume)| (Reverse(volume.extent_bytes()), *at));
    let sizes: Vec<u64> = order.iter().map(|(_, volume)| volume.extent_bytes()).collect();
    let (mut chosen, mut tries) = (Vec::new(), TRIES);
    if !pack(&sizes, &mut rooms, &mut chosen, &mut tries) {
        return None;
    }
    let mut held: Vec<(usize, HeldVolume)> = Vec::new();
    for ((at, volume), pool) in order.into_iter().zip(chosen) {
        let pool = pools.get_mut(pool)?;
        let extents = carve(&mut pool.free, volume.extent_bytes());
        let (name, pool) = (volume.name.clone(), pool.id.to_owned());
        held.push((at, HeldVolume { name, pool, extents }));
    }
    held.sort_by_key(|(at, _)| *at);
    Some(held.into_iter().map(|(_, volume)| volume).collect())
}

/// Room of a pool while volumes are tried in it.
#[derive(Debug, Clone, Copy)]
struct Left {
    far: bool,
    bytes: u64,
}

fn pack(sizes: &[u64], rooms: &mut [Left], chosen: &mut Vec<usize>, tries: &mut u32) -> bool {
    let Some((&size, rest)) = sizes.split_first() else { return true };
    let mut fitting: Vec<(bool, u64, usize)> = (0..)
        .zip(rooms.iter())
        .filter(|(_, left)| left.bytes >= size)
        .map(|(at, left)| (left.far, left.bytes, at))
        .collect();
    fitting.sort_unstable();
    let mut failed = BTreeSet::new();
    for (_, bytes, at) in fitting {
        // What failed with a pool of the same room fails with this one.
        if failed.contains(&bytes) {
            continue;
        }
        let Some(left) = tries.checked_sub(1) else { return false };
        *tries = left;
        let set = |rooms: &mut [Left], bytes| {
            if let Some(left) = rooms.get_mut(at) {
                left.bytes = bytes;
            }
        };
        set(rooms, bytes - size);
        chosen.push(at);
        if pack(rest, rooms, chosen, tries) {
            return true;
        }
        chosen.pop();
        set(rooms, bytes);
        failed.insert(bytes);
    }
    false
}

/// Takes the smallest stretch that does; where none does, the largest ones and of the last what is needed.
fn carve(free: &mut Vec<Extent>, bytes: u64) -> Vec<Extent> {
    let mut taken = Vec::new();
    let mut left = bytes;
    while left > 0 {
        let enough = free.iter().enumerate().filter(|(_, stretch)| stretch.length >= left);
        let smallest = enough.min_by_key(|(_, stretch)| stretch.length);
        let largest = || free.iter().enumerate().max_by_key(|(at, s)| (s.length, Reverse(*at)));
        let Some((at, &stretch)) = smallest.or_else(largest) else { break };
        let length = stretch.length.min(left);
        taken.push(Extent { start: stretch.start, length });
        left -= length;
        free.remove(at);
        if stretch.length > length {
            let rest = Extent { start: stretch.start + length, length: stretch.length - length };
            free.insert(at, rest);
        }
    }
    taken.sort_unstable();
    taken
}
