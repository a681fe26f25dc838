//! Every placement there is, tried one by one: whether a refusal is true.

use std::collections::BTreeSet;

use bulkhead_api::inventory::Inventory;
use bulkhead_api::lease::{HeldHugepages, Holding};
use bulkhead_api::resource::{EXTENT, NodePages, Resource};

use super::oracle;
use crate::place::{Request, Taken};

/// Whether some placement of a request obeys the rules. For hosts of few cores.
pub(super) fn possible(host: &Inventory, taken: &Taken, request: &Request) -> bool {
    if request.whole {
        let memory: u64 = host.memory.iter().map(|node| node.total.get()).sum();
        return taken.held.is_empty()
            && taken.quarantined.is_empty()
            && host.cpu.cores.len() >= request.cores as usize
            && memory >= request.memory.get();
    }
    let wanted: u32 = request.devices.iter().map(|device| device.count).sum();
    let ways = request.cache.is_some() && host.cpu.resctrl.is_some();
    // Nothing is beside who has it all.
    let whole =
        taken.held.values().any(|h| h.cpus.contains(oracle::house(host).cpus.first().unwrap()));
    !whole
        && oracle::free_functions(host, taken).len() >= wanted as usize
        && (!ways || oracle::group_is_free(host, taken))
        && volumes(host, taken, request)
        && some_cores(host, taken, request)
}

fn some_cores(host: &Inventory, taken: &Taken, request: &Request) -> bool {
    let free: Vec<_> = host.cpu.cores.iter().filter(|core| is_free(taken, &core.cpus)).collect();
    (0_u32..1 << free.len()).filter(|set| set.count_ones() == request.cores).any(|set| {
        let chosen: Vec<_> =
            (0..free.len()).filter(|&n| set >> n & 1 == 1).map(|n| free[n]).collect();
        let near: BTreeSet<u32> = chosen.iter().map(|core| core.node).collect();
        let with_memory = host.memory.iter().filter(|node| node.total.get() > 0);
        let holding = Holding {
            cpus: chosen.iter().flat_map(|core| core.cpus.clone()).collect(),
            memory_nodes: with_memory.map(|node| node.id).filter(|id| near.contains(id)).collect(),
            memory: request.memory,
            isolation: request.isolation,
            ..Holding::default()
        };
        oracle::apart_from_house(host, &holding).is_ok()
            && taken.held.values().all(|other| oracle::apart(host, &holding, other).is_ok())
            && some_ways(host, taken, request, &holding)
            && some_pages(host, taken, request, &holding)
    })
}

fn is_free(taken: &Taken, cpus: &BTreeSet<u32>) -> bool {
    let is_gone = |resource: &Resource| {
        if let Resource::Cpu { cpus: gone } = resource { !gone.is_disjoint(cpus) } else { false }
    };
    let quarantined = taken.quarantined.iter().any(is_gone);
    !quarantined && taken.held.values().all(|holding| holding.cpus.is_disjoint(cpus))
}

fn some_ways(host: &Inventory, taken: &Taken, request: &Request, holding: &Holding) -> bool {
    let (Some(share), Some(resctrl)) = (request.cache, &host.cpu.resctrl) else { return true };
    let Some(caches) = oracle::caches(host, holding) else { return false };
    caches.iter().all(|&cache| {
        (1_u64..1 << resctrl.ways).any(|mask| {
            mask.count_ones() >= share.ways
                && oracle::mask_is_free(host, taken, cache, mask).is_ok()
        })
    })
}

/// Every way to spread the huge pages over the nodes.
fn some_pages(host: &Inventory, taken: &Taken, request: &Request, holding: &Holding) -> bool {
    let fits = |holding: &Holding| {
        oracle::memory_fits(host, &taken.held.values(), &taken.quarantined, holding).is_ok()
    };
    let Some(huge) = request.hugepages else { return fits(holding) };
    let pages = huge.amount.get() / huge.page_size.bytes().get();
    let mut spreads: Vec<Vec<NodePages>> = vec![Vec::new()];
    for &node in &holding.memory_nodes {
        let with = |spread: &Vec<NodePages>| {
            let spread = spread.clone();
            (0..=pages).map(move |pages| {
                let mut spread = spread.clone();
                spread.push(NodePages { node, pages });
                spread
            })
        };
        spreads = spreads.iter().flat_map(with).collect();
    }
    spreads.into_iter().filter(|s| s.iter().map(|n| n.pages).sum::<u64>() == pages).any(|pages| {
        let hugepages = Some(HeldHugepages { page_size: huge.page_size, pages });
        fits(&Holding { hugepages, ..holding.clone() })
    })
}

/// Every way to spread the volumes over the pools.
fn volumes(host: &Inventory, taken: &Taken, request: &Request) -> bool {
    let gone = oracle::stretches(taken);
    let free = |(id, size): (&String, &u64)| {
        let here = gone.iter().filter(|(pool, _)| pool == id);
        size / EXTENT - here.map(|(_, extent)| extent.length / EXTENT).sum::<u64>()
    };
    let rooms: Vec<u64> = oracle::pools(host).iter().map(free).collect();
    let mut ways = vec![rooms];
    for volume in &request.volumes {
        let extents = volume.size.get().div_ceil(EXTENT);
        let into = |rooms: &Vec<u64>| {
            let rooms = rooms.clone();
            (0..rooms.len())
                .filter(|&n| rooms[n] >= extents)
                .map(|n| {
                    let mut rooms = rooms.clone();
                    rooms[n] -= extents;
                    rooms
                })
                .collect::<Vec<_>>()
        };
        ways = ways.iter().flat_map(into).collect();
    }
    !ways.is_empty()
}
