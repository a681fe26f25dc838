//! `place`: whole cores and memory nodes for one lease, never moving another.
//!
//! ```text
//!  inventory ── minus house-keeping ── minus what leases hold ──► free, node by node
//!  request ──► the smallest set of NUMA nodes that has cores and memory for it ──► Holding | Shortage
//! ```
//!
//! Rules: cores are given whole, with all SMT siblings; the core with the lowest CPU number and
//! [`HOUSE_MEMORY`] of its node stay with the host; memory comes from the nodes of the cores, and each of
//! them gives a core. A lease that spans nodes may fill any of them, as cgroups bound memory in all and not
//! node by node: it is charged to each of its nodes in full, and joins a neighbour on a node only where all
//! of it fits beside it. So whoever fills what it may, no neighbour is starved.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bulkhead_api::id::LeaseId;
use bulkhead_api::inventory::{Core, Inventory};
use bulkhead_api::lease::Holding;
use bulkhead_api::units::Bytes;

/// Memory that stays with the host: kernel, root image, supervisor.
pub const HOUSE_MEMORY: Bytes = Bytes::new(768 << 20);

/// What a lease wants of the classes that are placed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Whole physical cores.
    pub cores: u32,
    /// Memory.
    pub memory: Bytes,
}

/// An amount of each class: what a host offers, or what is left of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Whole physical cores.
    pub cores: u32,
    /// Memory over all nodes.
    pub memory: Bytes,
}

/// Why a request does not fit, with the numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// What was wanted.
    pub wanted: Request,
    /// What is free.
    pub free: Amount,
    /// What the host offers to leases in all.
    pub offered: Amount,
}

impl Shortage {
    /// One sentence a class that is short. Where every class has enough in sum, the sentence says that no
    /// set of nodes has all of it together.
    #[must_use]
    pub fn short(&self) -> Vec<String> {
        let Self { wanted, free, offered } = self;
        let mut short = Vec::new();
        if wanted.cores > free.cores {
            let (want, left, all) = (wanted.cores, free.cores, offered.cores);
            short.push(format!("cpus: {want} cores wanted, {left} free of {all}"));
        }
        if wanted.memory > free.memory {
            let (want, left, all) = (wanted.memory, free.memory, offered.memory);
            let mib = |b: Bytes| format!("{} MiB", b.get() >> 20);
            short.push(format!("memory: {} wanted, {} free of {}", mib(want), mib(left), mib(all)));
        }
        if short.is_empty() {
            short.push(format!(
                "no set of NUMA nodes has {} cores and {} MiB free together",
                wanted.cores,
                wanted.memory.get() >> 20
            ));
        }
        short
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short().join("; "))
    }
}

impl std::error::Error for Shortage {}

/// What a node has left.
#[derive(Debug, Default)]
struct NodeRoom<'a> {
    cores: Vec<&'a Core>,
    memory: Bytes,
    /// A lease holds memory of it.
    shared: bool,
}

/// Cores that have a CPU.
fn cores(inventory: &Inventory) -> impl Iterator<Item = &Core> {
    inventory.cpu.cores.iter().filter(|core| !core.cpus.is_empty())
}

fn house_core(inventory: &Inventory) -> Option<&Core> {
    cores(inventory).min_by_key(|core| core.cpus.first().copied())
}

/// Room by node, less what the host keeps and what `held` holds.
fn rooms<'a>(
    inventory: &'a Inventory,
    held: &BTreeMap<LeaseId, Holding>,
) -> BTreeMap<u32, NodeRoom<'a>> {
    let house = house_core(inventory);
    let taken: BTreeSet<u32> = held.values().flat_map(|h| h.cpus.iter().copied()).collect();
    let mut rooms: BTreeMap<u32, NodeRoom<'a>> = BTreeMap::new();
    for node in &inventory.memory {
        rooms.entry(node.id).or_default().memory = node.total;
    }
    for core in cores(inventory) {
        let free = house.is_none_or(|house| house.cpus != core.cpus);
        if free && core.cpus.is_disjoint(&taken) {
            rooms.entry(core.node).or_default().cores.push(core);
        }
    }
    if let Some(room) = house.and_then(|house| rooms.get_mut(&house.node)) {
        room.memory = room.memory.saturating_sub(HOUSE_MEMORY);
    }
    for holding in held.values() {
        for node in &holding.memory_nodes {
            if let Some(room) = rooms.get_mut(node) {
                room.memory = room.memory.saturating_sub(holding.memory);
                room.shared = true;
            }
        }
    }
    rooms
}

fn sum(rooms: &BTreeMap<u32, NodeRoom<'_>>) -> Amount {
    rooms.values().fold(Amount::default(), |sum, room| Amount {
        cores: sum.cores.saturating_add(count(&room.cores)),
        memory: sum.memory.saturating_add(room.memory),
    })
}

fn count(cores: &[&Core]) -> u32 {
    u32::try_from(cores.len()).unwrap_or(u32::MAX)
}

/// What the host offers to leases when none is there.
#[must_use]
pub fn offered(inventory: &Inventory) -> Amount {
    sum(&rooms(inventory, &BTreeMap::new()))
}

/// What is left beside the leases in `held`.
#[must_use]
pub fn free(inventory: &Inventory, held: &BTreeMap<LeaseId, Holding>) -> Amount {
    sum(&rooms(inventory, held))
}

/// Chooses cores and nodes for a lease beside those in `held`, which stay as they are.
///
/// The same arguments always give the same holding: the smallest number of nodes that do, then the set
/// with the fewest cores left over, then the lowest numbers.
///
/// # Errors
/// What is short.
pub fn place(
    inventory: &Inventory,
    held: &BTreeMap<LeaseId, Holding>,
    request: Request,
) -> Result<Holding, Shortage> {
    let rooms = rooms(inventory, held);
    let short = || Shortage { wanted: request, free: sum(&rooms), offered: offered(inventory) };
    let nodes: Vec<u32> = rooms.keys().copied().collect();
    for size in 1..=nodes.len() {
        let best = sets(&nodes, size)
            .into_iter()
            .filter_map(|set| {
                let here = || set.iter().filter_map(|node| rooms.get(node));
                let cores: u32 = here().map(|room| count(&room.cores)).sum();
                let memory = here().fold(Bytes::default(), |m, r| m.saturating_add(r.memory));
                // Each node must give a core: memory alone from a far node is not "near".
                let spread = here().all(|room| !room.cores.is_empty())
                    && request.cores >= u32::try_from(size).unwrap_or(u32::MAX);
                let beside = here().all(|room| !room.shared || room.memory >= request.memory);
                let enough = cores >= request.cores && memory >= request.memory;
                let fits = enough && spread && beside;
                fits.then_some((cores, set))
            })
            .min();
        if let Some((_, set)) = best {
            return Ok(hold(&rooms, &set, request));
        }
    }
    Err(short())
}

fn hold(rooms: &BTreeMap<u32, NodeRoom<'_>>, set: &[u32], request: Request) -> Holding {
    let wanted = usize::try_from(request.cores).unwrap_or(usize::MAX);
    let here = || set.iter().filter_map(|node| rooms.get(node));
    // One of each node first, then node by node.
    let first = here().filter_map(|room| room.cores.first());
    let others = here().flat_map(|room| room.cores.iter().skip(1));
    Holding {
        cpus: first.chain(others).take(wanted).flat_map(|core| core.cpus.iter().copied()).collect(),
        memory_nodes: set.iter().copied().collect(),
        memory: request.memory,
    }
}

/// Sets of `size` nodes in order. Beyond 8 nodes only neighbouring ones, to bound the work.
fn sets(nodes: &[u32], size: usize) -> Vec<Vec<u32>> {
    if nodes.len() > 8 {
        return nodes.windows(size).map(<[u32]>::to_vec).collect();
    }
    let mut found = vec![Vec::new()];
    for &node in nodes {
        let with: Vec<Vec<u32>> = found
            .iter()
            .filter(|set| set.len() < size)
            .map(|set| set.iter().copied().chain([node]).collect())
            .collect();
        found.extend(with);
    }
    found.retain(|set| set.len() == size);
    found.sort();
    found
}
