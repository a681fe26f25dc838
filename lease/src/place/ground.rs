//! One look at a host: which cores are free and for whom, and how much memory each node has left.

use std::collections::BTreeMap;

use bulkhead_api::inventory::{Core, Inventory};
use bulkhead_api::lease::{Holding, Isolation};
use bulkhead_api::resource::{NodePages, PageSize, Resource};
use bulkhead_api::units::Bytes;

use super::reach::{Reach, Spot};
use super::request::Taken;
use super::{HOUSE_MEMORY, last_level};

/// Memory of a node.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Room {
    /// The node has memory at all.
    pub(super) any: bool,
    /// What is left.
    pub(super) memory: Bytes,
    /// Somebody may use memory of it.
    pub(super) shared: bool,
}

/// Who has what.
#[derive(Debug, Default)]
pub(super) struct Ground<'a> {
    /// Cores that have a CPU, in the order of the inventory.
    pub(super) spots: Vec<Spot<'a>>,
    /// Memory by node.
    pub(super) rooms: BTreeMap<u32, Room>,
    /// All leases together.
    busy: Reach,
    /// Leases that share no last-level cache.
    no_cache: Reach,
    /// Leases that share no socket.
    no_socket: Reach,
    /// The host's own core and memory.
    house: Reach,
    /// A lease has the host as a whole.
    pub(super) whole: bool,
}

impl<'a> Ground<'a> {
    pub(super) fn of(inventory: &'a Inventory, taken: &Taken) -> Self {
        let cores: Vec<&Core> =
            inventory.cpu.cores.iter().filter(|core| !core.cpus.is_empty()).collect();
        let by_cpu = Cpus::of(&cores);
        let caches = last_level::of(&inventory.cpu.caches, &cores, &by_cpu);
        let spot = |(&core, l3): (&&'a Core, Option<usize>)| Spot { core, l3, free: true };
        let mut ground =
            Self { spots: cores.iter().zip(caches).map(spot).collect(), ..Self::default() };
        ground.memory_of(inventory);
        let house = ground.keep_house();
        for holding in taken.held.values() {
            ground.hold(holding, &by_cpu, house);
        }
        for resource in &taken.quarantined {
            ground.quarantine(resource, &by_cpu);
        }
        ground.fence();
        ground
    }

    fn memory_of(&mut self, inventory: &Inventory) {
        for node in &inventory.memory {
            let room = self.rooms.entry(node.id).or_default();
            room.any |= node.total.get() > 0;
            room.memory = room.memory.saturating_add(node.total);
        }
        for spot in &self.spots {
            self.rooms.entry(spot.core.node).or_default();
        }
    }

    /// The core with the lowest CPU number is the host's, with memory of its node; where that node has
    /// none, of the first that has.
    fn keep_house(&mut self) -> Option<usize> {
        let number = |(_, spot): &(usize, &mut Spot<'_>)| spot.core.cpus.first().copied();
        let (at, spot) = self.spots.iter_mut().enumerate().min_by_key(number)?;
        spot.free = false;
        self.house.core(spot);
        let own = self.rooms.get(&spot.core.node).filter(|room| room.any).map(|_| spot.core.node);
        let first = || self.rooms.iter().find(|(_, room)| room.any).map(|(&node, _)| node);
        if let Some(node) = own.or_else(first) {
            self.house.node(node);
            if let Some(room) = self.rooms.get_mut(&node) {
                room.memory = room.memory.saturating_sub(HOUSE_MEMORY);
            }
        }
        Some(at)
    }

    fn hold(&mut self, holding: &Holding, by_cpu: &Cpus, house: Option<usize>) {
        let level = holding.isolation;
        for at in holding.cpus.iter().flat_map(|&cpu| by_cpu.cores(cpu)) {
            let Some(spot) = self.spots.get_mut(at) else { continue };
            spot.free = false;
            self.busy.core(spot);
            if level >= Isolation::L3 {
                self.no_cache.core(spot);
            }
            if level >= Isolation::Socket {
                self.no_socket.core(spot);
            }
            // No lease but one over the whole host is given the host's own core.
            self.whole |= level == Isolation::Socket && house == Some(at);
        }
        let of_pages = holding.hugepages.iter().flat_map(|huge| huge.pages.iter().map(|p| p.node));
        for node in holding.memory_nodes.iter().copied().chain(of_pages) {
            self.busy.node(node);
            if level >= Isolation::Socket {
                self.no_socket.node(node);
            }
        }
        self.charge_memory(holding.memory_nodes.iter().copied(), holding.memory);
        if let Some(huge) = &holding.hugepages {
            self.charge_pages(huge.page_size, &huge.pages);
        }
    }

    /// What is in quarantine is nobody's, so it shares nothing with anybody: only its amount is gone.
    fn quarantine(&mut self, resource: &Resource, by_cpu: &Cpus) {
        match resource {
            Resource::Cpu { cpus } => {
                for at in cpus.iter().flat_map(|&cpu| by_cpu.cores(cpu)) {
                    if let Some(spot) = self.spots.get_mut(at) {
                        spot.free = false;
                    }
                }
            }
            Resource::Memory { nodes, bytes } => self.charge_memory(nodes.iter().copied(), *bytes),
            Resource::Hugepages { page_size, pages } => self.charge_pages(*page_size, pages),
            Resource::Instance
            | Resource::Cache { .. }
            | Resource::Volume { .. }
            | Resource::Gpu(_)
            | Resource::Device { .. }
            | Resource::Disk { .. } => {}
        }
    }

    /// In full on each node, as control groups bound memory in all and not node by node. Without a node
    /// named it may be of any.
    fn charge_memory(&mut self, nodes: impl Iterator<Item = u32>, bytes: Bytes) {
        let mut named = false;
        for node in nodes {
            named = true;
            self.charge(node, bytes);
        }
        if !named && bytes.get() > 0 {
            for room in self.rooms.values_mut() {
                room.memory = room.memory.saturating_sub(bytes);
                room.shared = true;
            }
        }
    }

    /// Where they are: huge pages do not move.
    fn charge_pages(&mut self, page_size: PageSize, pages: &[NodePages]) {
        let page = page_size.bytes().get();
        for NodePages { node, pages } in pages {
            self.charge(*node, Bytes::new(pages.saturating_mul(page)));
        }
    }

    fn charge(&mut self, node: u32, bytes: Bytes) {
        if let Some(room) = self.rooms.get_mut(&node) {
            room.memory = room.memory.saturating_sub(bytes);
            room.shared = true;
        }
    }

    fn fence(&mut self) {
        self.busy.widen(&self.spots);
        self.no_socket.widen(&self.spots);
        self.house.widen(&self.spots);
        for (&node, room) in &mut self.rooms {
            if self.whole || self.no_socket.has_node(node) {
                room.memory = Bytes::default();
            }
        }
    }

    /// Whether some lease of level `core` could have the core.
    pub(super) fn is_open(&self, spot: &Spot<'_>) -> bool {
        spot.free
            && !self.whole
            && !self.no_cache.shares_cache(spot)
            && !self.no_socket.shares_socket(spot)
    }

    /// Whether the host itself stands in the way of a lease of this level on the core.
    pub(super) fn is_house(&self, spot: &Spot<'_>, level: Isolation) -> bool {
        match level {
            Isolation::Core => false,
            Isolation::L3 => self.house.shares_cache(spot),
            Isolation::Socket => self.house.shares_socket(spot),
        }
    }

    /// Whether a lease of this level could have the core.
    pub(super) fn admits(&self, spot: &Spot<'_>, level: Isolation) -> bool {
        let alone = match level {
            Isolation::Core => true,
            Isolation::L3 => spot.l3.is_some() && !self.busy.shares_cache(spot),
            Isolation::Socket => !self.busy.shares_socket(spot),
        };
        alone && self.is_open(spot) && !self.is_house(spot, level)
    }
}

/// Which core a CPU is of.
#[derive(Debug)]
pub(super) struct Cpus(Vec<(u32, usize)>);

impl Cpus {
    fn of(cores: &[&Core]) -> Self {
        let mut list = Vec::with_capacity(cores.len().saturating_mul(2));
        for (at, core) in cores.iter().enumerate() {
            list.extend(core.cpus.iter().map(|&cpu| (cpu, at)));
        }
        list.sort_unstable();
        Self(list)
    }

    /// One core; none where it is not known, all where an inventory names it twice.
    pub(super) fn cores(&self, cpu: u32) -> impl Iterator<Item = usize> {
        let from = self.0.partition_point(|&(known, _)| known < cpu);
        let rest = self.0.get(from..).unwrap_or_default();
        rest.iter().take_while(move |&&(known, _)| known == cpu).map(|&(_, at)| at)
    }
}
