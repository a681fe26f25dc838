//! A host as a whole, for one lease of bare metal.

use bulkhead_api::inventory::Inventory;
use bulkhead_api::lease::{Holding, Isolation};
use bulkhead_api::units::Bytes;

use super::request::{Request, Taken};
use super::shortage::{Amount, Lack, Shortage};

/// Every core, the host's own too, and all memory: only where nobody is and nothing is in quarantine. Its
/// level is [`Isolation::Socket`], so that nothing is placed beside it.
///
/// # Errors
/// Who is there, and what the host is too small for.
pub(super) fn place(
    inventory: &Inventory,
    taken: &Taken,
    request: &Request,
    free: Amount,
) -> Result<Holding, Shortage> {
    let cores = inventory.cpu.cores.iter().filter(|core| !core.cpus.is_empty());
    let count = u32::try_from(cores.clone().count()).unwrap_or(u32::MAX);
    let memory =
        inventory.memory.iter().fold(Bytes::default(), |sum, node| sum.saturating_add(node.total));
    let mut lacks = Vec::new();
    if !taken.held.is_empty() {
        lacks.push(Lack::Occupied { leases: taken.held.keys().cloned().collect() });
    }
    if !taken.quarantined.is_empty() {
        lacks.push(Lack::Quarantined { resources: taken.quarantined.len() });
    }
    // A host without cores is no host.
    if request.cores.max(1) > count {
        lacks.push(Lack::Cores { wanted: request.cores, free: count, offered: count });
    }
    if request.memory > memory {
        lacks.push(Lack::Memory { wanted: request.memory, free: memory, offered: memory });
    }
    if !lacks.is_empty() {
        let offered = Amount { cores: count, memory, ..free };
        return Err(Shortage { lacks, free, offered });
    }
    let with_memory = inventory.memory.iter().filter(|node| node.total.get() > 0);
    Ok(Holding {
        cpus: cores.flat_map(|core| core.cpus.iter().copied()).collect(),
        memory_nodes: with_memory.map(|node| node.id).collect(),
        memory,
        isolation: Isolation::Socket,
        ..Holding::default()
    })
}
