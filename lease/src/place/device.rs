//! Functions of devices for a lease: near to its nodes, and an IOMMU group never in two hands.
//!
//! The seam for NICs and GPUs: a class of devices is a function in [`SOURCES`] that lists what an inventory
//! offers. Placement, the engine and the registry know no kind by name.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_api::inventory::{Inventory, PciFunction};
use bulkhead_api::lease::HeldDevice;
use bulkhead_api::resource::Resource;

use super::request::{Taken, WantedDevice};

/// A function that leases can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// Kind: `vf`, `gpu`.
    pub kind: &'static str,
    /// Its stable name on this host, a PCI address.
    pub id: String,
    /// NUMA node; absent where the platform does not say.
    pub node: Option<u32>,
    /// IOMMU group: what is in it goes to one lease. Absent where the IOMMU is off.
    pub group: Option<u32>,
}

/// Lists PCI addresses of one kind.
type Source = fn(&Inventory) -> Vec<&str>;

/// Every kind.
const SOURCES: [(&str, Source); 2] = [("vf", virtual_functions), ("gpu", whole_gpus)];

fn virtual_functions(inventory: &Inventory) -> Vec<&str> {
    inventory.nics.iter().flat_map(|nic| nic.vfs.iter().map(String::as_str)).collect()
}

/// GPUs that are not cut into slices.
fn whole_gpus(inventory: &Inventory) -> Vec<&str> {
    let whole = inventory.gpus.iter().filter(|gpu| gpu.mig != Some(true));
    whole.map(|gpu| gpu.bdf.as_str()).collect()
}

/// What a host offers when nothing is taken, in the order of kinds and addresses.
#[must_use]
pub fn offered(inventory: &Inventory) -> Vec<Offered> {
    list(inventory, |_| true)
}

/// What a host offers of some kinds.
fn list(inventory: &Inventory, wanted: impl Fn(&str) -> bool) -> Vec<Offered> {
    let mut functions: Vec<&PciFunction> = inventory.pci.iter().collect();
    functions.sort_by(|a, b| a.bdf.cmp(&b.bdf));
    let offer = |kind: &'static str, id: &str| {
        let at = functions.binary_search_by(|function| function.bdf.as_str().cmp(id));
        let function = at.ok().and_then(|at| functions.get(at));
        Offered {
            kind,
            id: id.to_owned(),
            node: function.and_then(|function| function.node),
            group: function.and_then(|function| function.iommu_group),
        }
    };
    let mut all: Vec<Offered> = SOURCES
        .iter()
        .filter(|(kind, _)| wanted(kind))
        .flat_map(|(kind, list)| list(inventory).into_iter().map(|id| offer(kind, id)))
        .collect();
    all.sort_by(|a, b| (a.kind, &a.id).cmp(&(b.kind, &b.id)));
    all.dedup_by(|a, b| a.kind == b.kind && a.id == b.id);
    all
}

/// Devices for one lease.
#[derive(Debug, Default)]
pub(super) struct Near<'r> {
    /// How many of each kind.
    wanted: BTreeMap<&'r str, u32>,
    /// All of the wanted kinds that the host has.
    offered: BTreeMap<&'r str, u32>,
    /// Those of them that nobody has, and none of their group.
    free: Vec<Offered>,
}

impl<'r> Near<'r> {
    pub(super) fn of(inventory: &Inventory, taken: &Taken, wanted: &'r [WantedDevice]) -> Self {
        let mut near = Self::default();
        for WantedDevice { kind, count } in wanted.iter().filter(|device| device.count > 0) {
            let sum = near.wanted.entry(kind.as_str()).or_default();
            *sum = sum.saturating_add(*count);
        }
        if near.wanted.is_empty() {
            return near;
        }
        let held = taken.held.values().flat_map(|h| h.devices.iter().map(|d| d.id.as_str()));
        let quarantined = taken.quarantined.iter().filter_map(|resource| {
            if let Resource::Device { id, .. } = resource { Some(id.as_str()) } else { None }
        });
        let gone: BTreeSet<&str> = held.chain(quarantined).collect();
        let of_gone = inventory.pci.iter().filter(|function| gone.contains(function.bdf.as_str()));
        let groups: BTreeSet<u32> = of_gone.filter_map(|function| function.iommu_group).collect();
        near.free = list(inventory, |kind| near.wanted.contains_key(kind));
        for &kind in near.wanted.keys() {
            let all = near.free.iter().filter(|device| device.kind == kind).count();
            near.offered.insert(kind, u32::try_from(all).unwrap_or(u32::MAX));
        }
        near.free.retain(|device| {
            !gone.contains(device.id.as_str())
                && device.group.is_none_or(|group| !groups.contains(&group))
        });
        near
    }

    /// Kinds of which there are not enough: wanted, free, offered.
    pub(super) fn short(&self) -> Vec<(String, u32, u32, u32)> {
        let numbers = |(&kind, &wanted): (&&str, &u32)| {
            let free = self.free.iter().filter(|device| device.kind == kind).count();
            let free = u32::try_from(free).unwrap_or(u32::MAX);
            let offered = self.offered.get(kind).copied().unwrap_or(0);
            (free < wanted).then(|| (kind.to_owned(), wanted, free, offered))
        };
        self.wanted.iter().filter_map(numbers).collect()
    }

    /// How many of the wanted devices cannot be on these nodes.
    pub(super) fn far(&self, nodes: &BTreeSet<u32>) -> u32 {
        let far = |(&kind, &wanted): (&&str, &u32)| {
            let is_near = |device: &&Offered| {
                device.kind == kind && device.node.is_some_and(|node| nodes.contains(&node))
            };
            let near = u32::try_from(self.free.iter().filter(is_near).count()).unwrap_or(u32::MAX);
            wanted.saturating_sub(near)
        };
        self.wanted.iter().map(far).sum()
    }

    /// Devices: on the nodes first, then of groups that the lease has something of, then of small groups,
    /// then by address. In the order of kinds, then addresses.
    pub(super) fn choose(&self, nodes: &BTreeSet<u32>) -> Vec<HeldDevice> {
        let mut free: Vec<&Offered> = self.free.iter().collect();
        let mut chosen: Vec<&Offered> = Vec::new();
        for (&kind, &wanted) in &self.wanted {
            for _ in 0..wanted {
                let rank = |device: &Offered| {
                    let far = device.node.is_none_or(|node| !nodes.contains(&node));
                    let same =
                        |other: &&&Offered| device.group.is_some() && other.group == device.group;
                    let strange = chosen.iter().find(same).is_none();
                    (far, strange, self.free.iter().filter(|other| same(&other)).count())
                };
                let candidates = free.iter().enumerate().filter(|(_, device)| device.kind == kind);
                let best = candidates.min_by_key(|(at, device)| (rank(device), *at));
                let Some(at) = best.map(|(at, _)| at) else { break };
                chosen.push(free.remove(at));
            }
        }
        let hold =
            |device: &&Offered| HeldDevice { kind: device.kind.to_owned(), id: device.id.clone() };
        let mut held: Vec<HeldDevice> = chosen.iter().map(hold).collect();
        held.sort();
        held
    }
}
