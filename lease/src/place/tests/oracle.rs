//! The rules, counted out on their own: nothing here calls `place` or what it is made of.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_api::inventory::{Core, DiskClaim, Inventory};
use bulkhead_api::lease::{Holding, Isolation};
use bulkhead_api::resource::{EXTENT, Extent, Resource};

use crate::place::{HOUSE_MEMORY, Request, Taken};

pub(super) type Broken = Result<(), String>;

macro_rules! law {
    ($holds:expr, $($text:tt)*) => {
        if !$holds {
            return Err(format!($($text)*));
        }
    };
}

pub(super) fn house(host: &Inventory) -> &Core {
    host.cpu.cores.iter().min_by_key(|core| core.cpus.first().unwrap()).unwrap()
}

fn cores<'a>(host: &'a Inventory, cpus: &BTreeSet<u32>) -> Vec<&'a Core> {
    host.cpu.cores.iter().filter(|core| core.cpus.iter().any(|cpu| cpus.contains(cpu))).collect()
}

/// The one last-level cache around all of a core.
fn last_level(host: &Inventory, core: &Core) -> Option<u32> {
    let around: Vec<u32> = host
        .cpu
        .caches
        .iter()
        .filter(|cache| cache.level == 3 && core.cpus.iter().all(|cpu| cache.cpus.contains(cpu)))
        .filter_map(|cache| cache.id)
        .collect();
    if let [id] = around[..] { Some(id) } else { None }
}

fn share_cache(host: &Inventory, a: &Core, b: &Core) -> bool {
    match (last_level(host, a), last_level(host, b)) {
        (Some(a), Some(b)) => a == b,
        _ => a.socket == b.socket,
    }
}

fn sockets(host: &Inventory, holding: &Holding) -> BTreeSet<u32> {
    cores(host, &holding.cpus).iter().map(|core| core.socket).collect()
}

fn memory_of(holding: &Holding) -> BTreeSet<u32> {
    let pages = holding.hugepages.iter().flat_map(|huge| huge.pages.iter().map(|n| n.node));
    holding.memory_nodes.iter().copied().chain(pages).collect()
}

fn nodes_of_sockets(host: &Inventory, sockets: &BTreeSet<u32>) -> BTreeSet<u32> {
    let there = host.cpu.cores.iter().filter(|core| sockets.contains(&core.socket));
    there.map(|core| core.node).collect()
}

/// What two leases may not have in common.
pub(super) fn apart(host: &Inventory, a: &Holding, b: &Holding) -> Broken {
    law!(a.cpus.is_disjoint(&b.cpus), "a CPU is shared");
    let (of_a, of_b) = (cores(host, &a.cpus), cores(host, &b.cpus));
    let level = a.isolation.max(b.isolation);
    if level >= Isolation::L3 {
        let shared = of_a.iter().any(|a| of_b.iter().any(|b| share_cache(host, a, b)));
        law!(!shared, "a last-level cache is shared");
    }
    if level >= Isolation::Socket {
        law!(sockets(host, a).is_disjoint(&sockets(host, b)), "a socket is shared");
        for (one, other) in [(a, b), (b, a)] {
            if one.isolation == Isolation::Socket {
                let mut own = nodes_of_sockets(host, &sockets(host, one));
                own.extend(memory_of(one));
                law!(own.is_disjoint(&memory_of(other)), "memory of a socket is shared");
            }
        }
    }
    Ok(())
}

/// What a lease may not have in common with the host itself.
pub(super) fn apart_from_house(host: &Inventory, holding: &Holding) -> Broken {
    let house = house(host);
    law!(house.cpus.is_disjoint(&holding.cpus), "the host's core is given");
    let of = cores(host, &holding.cpus);
    if holding.isolation >= Isolation::L3 {
        law!(!of.iter().any(|core| share_cache(host, core, house)), "the host's cache is given");
    }
    if holding.isolation == Isolation::L3 {
        let known = of.iter().all(|core| last_level(host, core).is_some());
        law!(known, "nobody knows who shares the cache");
    }
    if holding.isolation == Isolation::Socket {
        let sockets = sockets(host, holding);
        law!(!sockets.contains(&house.socket), "the host's socket is given");
        let nodes = nodes_of_sockets(host, &sockets);
        law!(!nodes.contains(&house_node(host)), "the host's memory node is given");
    }
    Ok(())
}

/// Where the host's own memory is.
fn house_node(host: &Inventory) -> u32 {
    let with_memory = |id: u32| host.memory.iter().any(|n| n.id == id && n.total.get() > 0);
    let own = house(host).node;
    let first = host.memory.iter().map(|node| node.id).find(|&id| with_memory(id));
    if with_memory(own) { own } else { first.unwrap_or(own) }
}

/// Bytes of huge pages on a node.
pub(super) fn pages_on(holding: &Holding, node: u32) -> u64 {
    holding
        .hugepages
        .iter()
        .map(|huge| {
            let here = huge.pages.iter().filter(|pages| pages.node == node);
            here.map(|pages| pages.pages * huge.page_size.bytes().get()).sum::<u64>()
        })
        .sum()
}

/// What a node has for others than the given holdings and the quarantine, and whether somebody is there.
pub(super) fn room<'a>(
    host: &Inventory,
    held: impl Iterator<Item = &'a Holding>,
    quarantined: &[Resource],
    node: u32,
) -> (u64, bool) {
    let total = host.memory.iter().find(|n| n.id == node).map_or(0, |n| n.total.get());
    let house = if house_node(host) == node { HOUSE_MEMORY.get() } else { 0 };
    let (mut used, mut somebody) = (0, false);
    for holding in held {
        if memory_of(holding).contains(&node) {
            somebody = true;
            used += pages_on(holding, node);
        }
        if holding.memory_nodes.contains(&node) {
            used += holding.memory.get();
        }
    }
    for resource in quarantined {
        if let Resource::Memory { nodes, bytes } = resource
            && nodes.contains(&node)
        {
            (used, somebody) = (used + bytes.get(), true);
        }
        if let Resource::Hugepages { page_size, pages } = resource {
            for here in pages.iter().filter(|pages| pages.node == node) {
                (used, somebody) = (used + here.pages * page_size.bytes().get(), true);
            }
        }
    }
    (total.saturating_sub(house).saturating_sub(used), somebody)
}

/// A lease's memory beside everybody else's. Pages that do not move count where they are; the rest of a
/// lease that spans nodes may be all on any of them.
pub(super) fn memory_fits<'a>(
    host: &Inventory,
    others: &(impl Iterator<Item = &'a Holding> + Clone),
    quarantined: &[Resource],
    holding: &Holding,
) -> Broken {
    let mut together = 0;
    for &node in &holding.memory_nodes {
        let (room, somebody) = room(host, others.clone(), quarantined, node);
        let pages = pages_on(holding, node);
        law!(pages <= room, "huge pages beyond node {node}");
        if somebody {
            law!(holding.memory.get() + pages <= room, "node {node} is overcommitted");
        }
        together += room - pages;
    }
    law!(!holding.memory_nodes.is_empty(), "no memory node");
    law!(together >= holding.memory.get(), "less memory than promised");
    Ok(())
}

/// The last-level caches behind a lease, by id.
pub(super) fn caches(host: &Inventory, holding: &Holding) -> Option<BTreeSet<u32>> {
    cores(host, &holding.cpus).iter().map(|core| last_level(host, core)).collect()
}

fn ways_of(taken: &Taken) -> Vec<&Vec<bulkhead_api::resource::CacheWays>> {
    let quarantined = taken.quarantined.iter().filter_map(|resource| {
        if let Resource::Cache { ways } = resource { Some(ways) } else { None }
    });
    let held = taken.held.values().map(|holding| &holding.cache);
    held.chain(quarantined).filter(|ways| !ways.is_empty()).collect()
}

/// Whether a mask may be given on a cache beside what is taken.
pub(super) fn mask_is_free(host: &Inventory, taken: &Taken, cache: u32, mask: u64) -> Broken {
    let resctrl = host.cpu.resctrl.as_ref().unwrap();
    let bits: Vec<u32> = (0..64).filter(|bit| mask >> bit & 1 == 1).collect();
    law!(bits.windows(2).all(|two| two[1] == two[0] + 1), "a mask has a gap");
    law!(bits.len() >= resctrl.min_ways.max(1) as usize, "a mask is too small");
    law!(bits.iter().all(|&bit| bit < resctrl.ways), "a way does not exist");
    law!(mask & resctrl.shareable == 0, "a device fills the ways");
    let mut gone = mask;
    for ways in ways_of(taken).into_iter().flatten().filter(|ways| ways.cache == cache) {
        law!(ways.mask & mask == 0, "a way is shared");
        gone |= ways.mask;
    }
    let (mut run, mut longest) = (0, 0);
    for bit in 0..resctrl.ways {
        run = if gone >> bit & 1 == 0 { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    law!(longest >= resctrl.min_ways.max(1), "nothing is left for everybody else");
    Ok(())
}

/// Whether there is a group for one lease more.
pub(super) fn group_is_free(host: &Inventory, taken: &Taken) -> bool {
    let used = u32::try_from(ways_of(taken).len()).unwrap();
    host.cpu.resctrl.as_ref().is_some_and(|resctrl| used + 1 < resctrl.groups)
}

/// Pools with a name of their own, and their sizes.
pub(super) fn pools(host: &Inventory) -> BTreeMap<String, u64> {
    let mut pools: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for disk in &host.disks {
        if let DiskClaim::Pool { id, size } = &disk.claim {
            pools.entry(id.clone()).or_default().push(size.get());
        }
    }
    pools.into_iter().filter(|(_, sizes)| sizes.len() == 1).map(|(id, s)| (id, s[0])).collect()
}

/// Every stretch that is somebody's or in quarantine.
pub(super) fn stretches(taken: &Taken) -> Vec<(String, Extent)> {
    let mut all = Vec::new();
    for volume in taken.held.values().flat_map(|holding| &holding.volumes) {
        all.extend(volume.extents.iter().map(|&extent| (volume.pool.clone(), extent)));
    }
    for resource in &taken.quarantined {
        if let Resource::Volume { pool, extents, .. } = resource {
            all.extend(extents.iter().map(|&extent| (pool.clone(), extent)));
        }
    }
    all
}

/// Volumes of a new lease beside what is taken.
fn volumes(host: &Inventory, taken: &Taken, request: &Request, holding: &Holding) -> Broken {
    law!(holding.volumes.len() == request.volumes.len(), "volumes are missing");
    let mut gone = stretches(taken);
    for (held, wanted) in holding.volumes.iter().zip(&request.volumes) {
        law!(held.name == wanted.name, "volumes are in another order");
        let pools = pools(host);
        let Some(&size) = pools.get(&held.pool) else { return Err("no such pool".to_owned()) };
        let length: u64 = held.extents.iter().map(|extent| extent.length).sum();
        law!(length == wanted.size.get().div_ceil(EXTENT) * EXTENT, "volume of another size");
        law!(held.extents.windows(2).all(|two| two[0].start < two[1].start), "not ascending");
        for &extent in &held.extents {
            let whole = extent.start % EXTENT == 0 && extent.length % EXTENT == 0;
            law!(whole && extent.length > 0, "part of an extent");
            law!(extent.start + extent.length <= size, "beyond the pool");
            for (pool, other) in &gone {
                let apart = extent.start + extent.length <= other.start
                    || other.start + other.length <= extent.start;
                law!(*pool != held.pool || apart, "an extent is shared");
            }
            gone.push((held.pool.clone(), extent));
        }
    }
    Ok(())
}

/// Functions that a new lease may have.
pub(super) fn free_functions(host: &Inventory, taken: &Taken) -> BTreeSet<String> {
    let held = taken.held.values().flat_map(|holding| holding.devices.iter().map(|d| &d.id));
    let quarantined = taken.quarantined.iter().filter_map(|resource| {
        if let Resource::Device { id, .. } = resource { Some(id) } else { None }
    });
    let gone: BTreeSet<&String> = held.chain(quarantined).collect();
    let group = |id: &String| host.pci.iter().find(|f| f.bdf == *id).and_then(|f| f.iommu_group);
    let all = host.nics.iter().flat_map(|nic| &nic.vfs);
    all.filter(|id| {
        let joined = |other: &&String| group(id).is_some() && group(other) == group(id);
        !gone.contains(id) && !gone.iter().any(joined)
    })
    .cloned()
    .collect()
}

/// Everything that must be true of a new lease beside what is taken.
pub(super) fn judge(host: &Inventory, taken: &Taken, request: &Request, new: &Holding) -> Broken {
    if request.whole {
        return judge_whole(host, taken, new);
    }
    let chosen = cores(host, &new.cpus);
    law!(chosen.len() == request.cores as usize, "{} cores", chosen.len());
    let whole: BTreeSet<u32> = chosen.iter().flat_map(|core| core.cpus.clone()).collect();
    law!(whole == new.cpus, "a core is split");
    law!(new.isolation == request.isolation, "another level");
    apart_from_house(host, new)?;
    for other in taken.held.values() {
        apart(host, new, other)?;
    }
    for resource in &taken.quarantined {
        if let Resource::Cpu { cpus } = resource {
            law!(cpus.is_disjoint(&new.cpus), "a core is in quarantine");
        }
    }
    let near: BTreeSet<u32> = chosen.iter().map(|core| core.node).collect();
    let memory: BTreeSet<u32> = host
        .memory
        .iter()
        .filter(|node| node.total.get() > 0 && near.contains(&node.id))
        .map(|node| node.id)
        .collect();
    law!(new.memory_nodes == memory, "memory of other nodes than the cores'");
    law!(new.memory == request.memory, "another bound");
    let pages = new.hugepages.iter().flat_map(|huge| huge.pages.iter());
    law!(pages.clone().all(|here| memory.contains(&here.node) && here.pages > 0), "far pages");
    let bytes: u64 = memory.iter().map(|&node| pages_on(new, node)).sum();
    law!(bytes == request.hugepages.map_or(0, |huge| huge.amount.get()), "other huge pages");
    memory_fits(host, &taken.held.values(), &taken.quarantined, new)?;
    match request.cache.filter(|_| host.cpu.resctrl.is_some()) {
        None => law!(new.cache.is_empty(), "ways that nobody asked for"),
        Some(share) => {
            let behind: BTreeSet<u32> = new.cache.iter().map(|ways| ways.cache).collect();
            law!(caches(host, new) == Some(behind), "ways of other caches");
            law!(group_is_free(host, taken), "no group is left");
            for ways in &new.cache {
                law!(ways.mask.count_ones() >= share.ways, "fewer ways than wanted");
                mask_is_free(host, taken, ways.cache, ways.mask)?;
            }
        }
    }
    volumes(host, taken, request, new)?;
    let free = free_functions(host, taken);
    let ids: BTreeSet<String> = new.devices.iter().map(|device| device.id.clone()).collect();
    let wanted: u32 = request.devices.iter().map(|device| device.count).sum();
    law!(ids.len() == new.devices.len() && ids.len() == wanted as usize, "other devices");
    law!(ids.is_subset(&free), "a device is not free");
    Ok(())
}

fn judge_whole(host: &Inventory, taken: &Taken, new: &Holding) -> Broken {
    law!(taken.held.is_empty() && taken.quarantined.is_empty(), "somebody is there");
    let all: BTreeSet<u32> = host.cpu.cores.iter().flat_map(|core| core.cpus.clone()).collect();
    law!(new.cpus == all, "not every core");
    let memory: u64 = host.memory.iter().map(|node| node.total.get()).sum();
    law!(new.memory.get() == memory, "not all memory");
    Ok(())
}
