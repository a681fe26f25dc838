//! `observe`: everything in [`Inventory`], from a file-system root given by value and from NVML.

use std::path::Path;

use bulkhead_api::inventory::Inventory;

use super::tree::Tree;
use super::{device, pci, processor};
use crate::gpu;
use crate::gpu::nvml::Nvml;
use crate::storage::claim;

/// Reads the host below `root` (`/` on a host). Never fails: what cannot be read is in `problems`.
#[must_use]
pub fn observe(root: &Path, nvml: &Nvml, image: &str) -> Inventory {
    let mut inventory = observe_tree(root, image);
    inventory.gpus = gpu::inventory::observe(nvml, &mut inventory.problems);
    inventory
}

/// [`observe`] without NVML, which is no file.
fn observe_tree(root: &Path, image: &str) -> Inventory {
    let mut tree = Tree::new(root);
    let memory = processor::memory(&mut tree);
    let cpu = processor::topology(&mut tree, &memory);
    let mut inventory = Inventory {
        system_uuid: device::system_uuid(&mut tree),
        firmware: device::firmware(&mut tree),
        kernel: tree.text("proc/sys/kernel/osrelease").unwrap_or_default(),
        image: image.to_owned(),
        cpu,
        memory,
        nics: device::nics(&mut tree),
        disks: device::disks(&mut tree),
        pci: pci::pci(&mut tree),
        ptp_clocks: device::ptp_clocks(&mut tree),
        tpm: device::tpm(&mut tree),
        gpus: Vec::new(),
        problems: tree.problems,
    };
    claim::fill(root, &mut inventory);
    inventory
}

#[cfg(test)]
#[path = "inventory_tests.rs"]
mod tests;
