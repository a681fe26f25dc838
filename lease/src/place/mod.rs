//! `place`: the exact resources of a host for one lease, never moving another.
//!
//! ```text
//!  inventory ── minus the host's own ── minus what leases hold and what is in quarantine ──► Ground
//!  Ground ── cores that the level of isolation and the cache admit ──► the best set of NUMA nodes
//!         ──► its cores, huge pages, cache ways, devices, volumes ──► Holding | Shortage
//! ```
//!
//! - **Cores** are given whole, with all SMT siblings. The core with the lowest CPU number and
//!   [`HOUSE_MEMORY`] of its node stay with the host.
//! - **Memory** comes from the nodes of the cores, and each of them gives a core. A lease that spans nodes
//!   may fill any of them, as control groups bound memory in all and not node by node: it is charged to each
//!   of its nodes in full, and joins a neighbour on a node only where all of it fits beside it. So whoever
//!   fills what it may, no neighbour is starved. Huge pages do not move: they are charged where they are.
//! - **Isolation** holds against every other lease, whatever the other's level is. `l3`: no other lease has
//!   a core behind a last-level cache of this one; where the inventory does not say which cores share one,
//!   the level is refused. `socket`: no other lease has a core or memory of its sockets; the cores beyond
//!   those asked for stay idle. The host's own core runs the supervisor and everybody's interrupts, so neither
//!   level is given behind its cache, or on its socket and its memory node: on a host with one
//!   such domain they are always refused.
//! - **Cache ways**, **devices**, **GPUs**, **volumes**: see the modules. Where the processor has no cache control a
//!   lease that asks for ways is placed without.
//! - A **whole host** goes to a lease alone.
//!
//! The same arguments always give the same holding.

mod device;
mod gpu;
mod ground;
mod last_level;
mod nodes;
mod reach;
mod request;
mod shortage;
mod storage;
mod whole;

use std::collections::BTreeSet;

use bulkhead_api::inventory::Inventory;
use bulkhead_api::lease::{HeldHugepages, Holding, Isolation};
use bulkhead_api::units::Bytes;

pub use self::device::{Offered, offered as offered_devices};
pub use self::request::{Request, Taken, WantedDevice};
pub use self::shortage::{Amount, Lack, Shortage};

use self::device::Near;
use self::gpu::Gpus;
use self::ground::Ground;
use self::last_level::Ways;
use self::nodes::Chosen;
use self::reach::Spot;
use self::storage::Pool;

/// Memory that stays with the host: kernel, root image, supervisor.
pub const HOUSE_MEMORY: Bytes = Bytes::new(768 << 20);

/// What the host offers to leases when none is there.
#[must_use]
pub fn offered(inventory: &Inventory) -> Amount {
    free(inventory, &Taken::default())
}

/// What is left beside what is taken, for leases of level `core`.
#[must_use]
pub fn free(inventory: &Inventory, taken: &Taken) -> Amount {
    let ground = Ground::of(inventory, taken);
    amount(&ground, &pools_of(&ground, inventory, taken))
}

/// Chooses the resources of a lease beside what is taken, which stays as it is.
///
/// # Errors
/// What is short, class by class.
pub fn place(inventory: &Inventory, taken: &Taken, request: &Request) -> Result<Holding, Shortage> {
    let ground = Ground::of(inventory, taken);
    if request.whole {
        let free = amount(&ground, &pools_of(&ground, inventory, taken));
        return whole::place(inventory, taken, request, free);
    }
    let ways = Ways::of(inventory, taken, request.cache);
    let near = Near::of(inventory, taken, &request.devices);
    let gpus = Gpus::of(inventory, taken, !request.gpus.is_empty());
    let admitted: Vec<&Spot<'_>> = ground
        .spots
        .iter()
        .filter(|spot| ground.admits(spot, request.isolation))
        .filter(|spot| ways.as_ref().is_none_or(|ways| ways.admits(spot)))
        .collect();
    let grouped = ways.as_ref().is_none_or(|ways| ways.groups().1 > 0);
    let far = |nodes: &BTreeSet<u32>| near.far(nodes) + gpus.far(&request.gpus, nodes);
    let chosen = nodes::choose(&admitted, &ground.rooms, request, &far);
    if let Some(chosen) = chosen
        && grouped
        && near.short().is_empty()
        && let Some(volumes) = volumes(&ground, inventory, taken, request, &chosen)
        && let Ok(gpus) = gpus.choose(&request.gpus, &chosen.nodes)
    {
        return Ok(Holding { gpus, ..hold(request, chosen, ways.as_ref(), &near, volumes) });
    }
    let mut shortage = explain(inventory, taken, request, &ground, ways.as_ref(), &near);
    shortage.add(gpus.choose(&request.gpus, &BTreeSet::new()).err());
    Err(shortage)
}

fn volumes(
    ground: &Ground<'_>,
    inventory: &Inventory,
    taken: &Taken,
    request: &Request,
    chosen: &Chosen<'_>,
) -> Option<Vec<bulkhead_api::lease::HeldVolume>> {
    if request.volumes.is_empty() {
        return Some(Vec::new());
    }
    storage::choose(pools_of(ground, inventory, taken), &request.volumes, &chosen.nodes)
}

fn hold(
    request: &Request,
    chosen: Chosen<'_>,
    ways: Option<&Ways<'_>>,
    near: &Near<'_>,
    volumes: Vec<bulkhead_api::lease::HeldVolume>,
) -> Holding {
    let pages = chosen.pages;
    let page_size = request.hugepages.map(|huge| huge.page_size);
    Holding {
        cpus: chosen.spots.iter().flat_map(|spot| spot.core.cpus.iter().copied()).collect(),
        memory_nodes: chosen.memory_nodes,
        memory: request.memory,
        isolation: request.isolation,
        hugepages: page_size.map(|page_size| HeldHugepages { page_size, pages }),
        cache: ways.map(|ways| ways.choose(&chosen.spots)).unwrap_or_default(),
        volumes,
        devices: near.choose(&chosen.nodes),
        gpus: Vec::new(),
    }
}

/// Nothing of a host that a lease has as a whole is left.
fn pools_of<'a>(ground: &Ground<'_>, inventory: &'a Inventory, taken: &Taken) -> Vec<Pool<'a>> {
    if ground.whole { Vec::new() } else { storage::pools(inventory, taken) }
}

fn amount(ground: &Ground<'_>, pools: &[Pool<'_>]) -> Amount {
    let memory = ground.rooms.values().fold(Bytes::default(), |m, r| m.saturating_add(r.memory));
    let storage =
        pools.iter().fold(Bytes::default(), |sum, p| sum.saturating_add(Bytes::new(p.room())));
    Amount { cores: count(ground, |spot| ground.is_open(spot)), memory, storage }
}

fn count(ground: &Ground<'_>, of: impl Fn(&Spot<'_>) -> bool) -> u32 {
    u32::try_from(ground.spots.iter().filter(|spot| of(spot)).count()).unwrap_or(u32::MAX)
}

fn explain(
    inventory: &Inventory,
    taken: &Taken,
    request: &Request,
    ground: &Ground<'_>,
    ways: Option<&Ways<'_>>,
    near: &Near<'_>,
) -> Shortage {
    let pools = pools_of(ground, inventory, taken);
    let (free, offered) = (amount(ground, &pools), offered(inventory));
    let (level, cores) = (request.isolation, request.cores);
    let (pages, page) = request.pages();
    let memory = request.memory.saturating_add(Bytes::new(pages.saturating_mul(page)));
    let mut lacks = Vec::new();
    if cores > free.cores {
        lacks.push(Lack::Cores { wanted: cores, free: free.cores, offered: offered.cores });
    }
    if memory > free.memory {
        let (free, offered) = (free.memory, offered.memory);
        lacks.push(Lack::Memory { wanted: memory, free, offered });
    }
    let alone = count(ground, |spot| ground.admits(spot, level));
    if cores > alone && cores <= free.cores {
        let open = |of: &dyn Fn(&Spot<'_>) -> bool| count(ground, |s| ground.is_open(s) && of(s));
        let house = open(&|spot| ground.is_house(spot, level));
        let unknown = open(&|spot| level == Isolation::L3 && spot.l3.is_none());
        lacks.push(Lack::Alone { level, wanted: cores, free: alone, house, unknown });
    }
    if let Some((ways, share)) = ways.zip(request.cache) {
        let free = count(ground, |spot| ground.admits(spot, level) && ways.admits(spot));
        if cores > free && cores <= alone {
            lacks.push(Lack::Ways { ways: share.ways, cores, free });
        }
        if let (offered, 0) = ways.groups() {
            lacks.push(Lack::Groups { offered });
        }
    }
    if let Some(huge) = request.hugepages {
        let fit: u64 = ground.rooms.values().map(|room| room.memory.get() / page).sum();
        if pages > fit {
            lacks.push(Lack::Hugepages { page_size: huge.page_size, wanted: pages, free: fit });
        }
    }
    lacks.extend(explain_volumes(request, pools, free, offered));
    lacks.extend(near.short().into_iter().map(|(kind, wanted, free, offered)| Lack::Devices {
        kind,
        wanted,
        free,
        offered,
    }));
    if lacks.is_empty() {
        lacks.push(Lack::Together { cores, memory });
    }
    Shortage { lacks, free, offered }
}

fn explain_volumes(
    request: &Request,
    pools: Vec<Pool<'_>>,
    free: Amount,
    offered: Amount,
) -> Option<Lack> {
    let sizes = || request.volumes.iter().map(|volume| Bytes::new(volume.extent_bytes()));
    let wanted = sizes().fold(Bytes::default(), Bytes::saturating_add);
    if wanted > free.storage {
        return Some(Lack::Storage { wanted, free: free.storage, offered: offered.storage });
    }
    let most = Bytes::new(pools.iter().map(Pool::room).max().unwrap_or(0));
    let volumes = request.volumes.len();
    let nowhere = BTreeSet::new();
    let fits = storage::choose(pools, &request.volumes, &nowhere).is_some();
    let largest = sizes().max().unwrap_or_default();
    (!fits).then_some(Lack::Pools { largest, most, volumes })
}

#[cfg(test)]
mod tests;
