//! A new ledger in place of one that is damaged, from what is found on the host.
//!
//! ```text
//!  slices, bundles, classes ──look──► Found by lease ─┐
//!  inventory: pools of disks ─────────────────────────┼─ rebuild ─► Ledger: all of it being taken back,
//!  what can still be read of the damaged file ────────┘             or in quarantine
//! ```
//!
//! Nobody knows any more who was promised what, and what was clean. So every lease that is found is taken back
//! as a whole, and all else that may hold what a tenant left stands in quarantine: each is given out again when
//! it has a receipt (law 3). The damaged file is kept beside the new one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use bulkhead_api::id::{LeaseId, LeaseName, TenantName, VolumeName};
use bulkhead_api::inventory::{DiskClaim, Inventory};
use bulkhead_api::lease::{
    CpuPartition, HeldDevice, HeldHugepages, HeldVolume, Holding, InstanceKind, Isolation,
    LeaseSpec, RestartPolicy, Workload,
};
use bulkhead_api::local;
use bulkhead_api::resource::{Extent, Quarantined, Resource};
use bulkhead_api::time::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::class::{ClassError, Classes};
use crate::ledger::{Entry, Ledger};
use crate::tenant::model::{Observed, ObservedFiles};

/// Why a resource stands in quarantine after a repair.
const LOST: &str = "ledger was lost: nobody knows whether it is clean";

/// What was found of one lease.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The entry that its container was made for, where its bundle can be read.
    pub entry: Option<Entry>,
    /// What its control group holds; absent where there is none.
    pub slice: Option<Holding>,
    /// What the classes found of it.
    pub resources: Vec<Resource>,
}

/// The host could not be looked at as a whole: a ledger made now would miss something.
#[derive(Debug, thiserror::Error)]
pub enum Unseen {
    /// A lease.
    #[error("lease {id} cannot be looked at: {why}")]
    Lease {
        /// Which.
        id: LeaseId,
        /// Why not.
        why: String,
    },
    /// A class.
    #[error("look for resources of leases")]
    Class(#[from] ClassError),
}

/// What every class finds, by lease. Blocks.
///
/// # Errors
/// [`Unseen::Class`].
pub fn resources(classes: &Classes) -> Result<Vec<(LeaseId, Resource)>, Unseen> {
    let mut all = Vec::new();
    for (_, class) in classes.all() {
        all.extend(class.found()?);
    }
    Ok(all)
}

/// Puts together what a look at the leases and the classes found.
///
/// # Errors
/// [`Unseen::Lease`].
pub fn look(
    observed: &Observed,
    resources: Vec<(LeaseId, Resource)>,
) -> Result<BTreeMap<LeaseId, Found>, Unseen> {
    if let Some((id, why)) = observed.unreadable.first_key_value() {
        return Err(Unseen::Lease { id: id.clone(), why: why.clone() });
    }
    let mut found: BTreeMap<LeaseId, Found> = BTreeMap::new();
    for (id, lease) in &observed.leases {
        let entry = match &lease.files {
            ObservedFiles::Bundled(entry) => Some((**entry).clone()),
            ObservedFiles::Absent | ObservedFiles::Partial | ObservedFiles::Fetched => None,
        };
        let slice = lease.slice.as_ref().map(|slice| slice.limits.holding());
        found.insert(id.clone(), Found { entry, slice, resources: Vec::new() });
    }
    for (id, resource) in resources {
        found.entry(id).or_default().resources.push(resource);
    }
    Ok(found)
}

/// The new ledger. `damaged` are the bytes of the old one: what can still be read of them is not believed, and
/// yet nobody gets what they name.
#[must_use]
pub fn rebuild(
    found: &BTreeMap<LeaseId, Found>,
    inventory: &Inventory,
    damaged: &[u8],
    now: Timestamp,
) -> Ledger {
    let mut ledger = Ledger::default();
    let mut rest = Vec::new();
    for (id, found) in found {
        let (entry, others) = entry(id, found);
        rest.extend(others.into_iter().map(|resource| (id.clone(), resource)));
        ledger.entries.push(entry);
    }
    rest.extend(salvaged(damaged));
    for (lease, resource) in rest {
        let kept = |entry: &Entry| entry.holding.resources().contains(&resource);
        if !ledger.entry(&lease).is_some_and(kept) {
            let reason = LOST.to_owned();
            ledger.quarantined(Quarantined { resource, lease, reason, since: now });
        }
    }
    for quarantined in unaccounted(&ledger, inventory, now) {
        ledger.quarantined(quarantined);
    }
    ledger
}

/// One entry for all that was found of a lease, and what no holding can name.
fn entry(id: &LeaseId, found: &Found) -> (Entry, Vec<Resource>) {
    let recorded = found.entry.as_ref();
    let mut holding = recorded.map(|entry| entry.holding.clone()).unwrap_or_default();
    if let Some(slice) = &found.slice {
        holding.cpus.extend(&slice.cpus);
        holding.memory_nodes.extend(&slice.memory_nodes);
        holding.memory = holding.memory.max(slice.memory);
    }
    let mut others = Vec::new();
    for resource in &found.resources {
        others.extend(join(&mut holding, resource));
    }
    let spec = recorded.map_or_else(|| unknown(&holding), |entry| entry.spec.clone());
    let ids_of = recorded.and_then(Entry::id_cpu);
    let granted = Entry::granted(id.clone(), spec, holding);
    let entry = Entry { releasing: true, ids_of, ..granted };
    (entry, others)
}

/// Adds a resource to a holding; gives it back where the holding has another one in its place.
pub(super) fn join(holding: &mut Holding, resource: &Resource) -> Option<Resource> {
    match resource {
        Resource::Instance => None,
        Resource::Cpu { cpus } => {
            holding.cpus.extend(cpus);
            None
        }
        Resource::Memory { nodes, bytes } => {
            holding.memory_nodes.extend(nodes);
            holding.memory = holding.memory.max(*bytes);
            None
        }
        Resource::Hugepages { page_size, pages } => {
            let new = HeldHugepages { page_size: *page_size, pages: pages.clone() };
            match &holding.hugepages {
                Some(held) if *held != new => Some(resource.clone()),
                _ => {
                    holding.hugepages = Some(new);
                    None
                }
            }
        }
        Resource::Cache { ways } => {
            if !holding.cache.is_empty() && holding.cache != *ways {
                return Some(resource.clone());
            }
            holding.cache.clone_from(ways);
            None
        }
        Resource::Volume { name, pool, extents } => {
            let new =
                HeldVolume { name: name.clone(), pool: pool.clone(), extents: extents.clone() };
            match holding.volumes.iter().find(|held| held.name == *name) {
                Some(held) if *held != new => Some(resource.clone()),
                Some(_) => None,
                None => {
                    holding.volumes.push(new);
                    None
                }
            }
        }
        Resource::Device { kind, id } => {
            let new = HeldDevice { kind: kind.clone(), id: id.clone() };
            if !holding.devices.contains(&new) {
                holding.devices.push(new);
            }
            None
        }
        Resource::Gpu(gpu) => {
            if !holding.gpus.contains(gpu) {
                holding.gpus.push(gpu.clone());
            }
            None
        }
        Resource::Disk { .. } => Some(resource.clone()),
    }
}

/// Stands for the spec of a lease that nothing tells of any more. It is never granted: it only names what runs.
fn unknown(holding: &Holding) -> LeaseSpec {
    LeaseSpec {
        site: None,
        instance: InstanceKind::Container,
        cpus: u32::try_from(holding.cpus.len()).unwrap_or(u32::MAX).max(1),
        memory: holding.memory,
        isolation: Isolation::Core,
        cpu_partition: CpuPartition::Member,
        hugepages: None,
        cache: None,
        gpus: Vec::new(),
        networks: Vec::new(),
        volumes: Vec::new(),
        workload: Workload {
            image: "oci://bulkhead.site/unknown".to_owned(),
            args: Vec::new(),
            restart: RestartPolicy::Never,
        },
        revocable: None,
    }
}

/// Resources that the bytes of a damaged ledger still name, as far as they are JSON.
fn salvaged(damaged: &[u8]) -> Vec<(LeaseId, Resource)> {
    fn each<T: DeserializeOwned>(body: &Value, list: &str) -> Vec<T> {
        let items = body.get(list).and_then(Value::as_array);
        let read = |item: &Value| T::deserialize(item).ok();
        items.into_iter().flatten().filter_map(read).collect()
    }
    let file: Value = serde_json::from_slice(damaged).unwrap_or_default();
    let Some(body) = file.get("body") else { return Vec::new() };
    let mut all = Vec::new();
    for entry in each::<Entry>(body, "entries") {
        let resources = entry.holding.resources().into_iter();
        // What runs and has no name of its own is found by looking, or is not there.
        let lasting = resources.filter(|resource| *resource != Resource::Instance);
        let dirty = lasting.filter(|resource| !entry.clean.contains(resource));
        all.extend(dirty.map(|resource| (entry.id.clone(), resource)));
    }
    all.extend(each::<Quarantined>(body, "quarantine").into_iter().map(|q| (q.lease, q.resource)));
    all
}

/// What of the disks' pools is in nobody's volume: a volume that was given up and not yet erased may have been
/// there, and disks keep what is written to them.
fn unaccounted(ledger: &Ledger, inventory: &Inventory, now: Timestamp) -> Vec<Quarantined> {
    let Some((lease, name)) = nobody() else { return Vec::new() };
    let entries = ledger.entries.iter().flat_map(|entry| entry.holding.resources());
    let kept = ledger.quarantine.iter().map(|kept| kept.resource.clone());
    let known: Vec<(String, Extent)> = entries
        .chain(kept)
        .filter_map(|resource| {
            let Resource::Volume { pool, extents, .. } = resource else { return None };
            Some((pool, extents))
        })
        .flat_map(|(pool, extents)| extents.into_iter().map(move |extent| (pool.clone(), extent)))
        .collect();
    let mut all = Vec::new();
    for disk in &inventory.disks {
        let DiskClaim::Pool { id: pool, size } = &disk.claim else { continue };
        let here = known.iter().filter(|(of, _)| of == pool).map(|(_, extent)| *extent);
        let extents = gaps(size.get(), here.collect());
        if !extents.is_empty() {
            let resource = Resource::Volume { name: name.clone(), pool: pool.clone(), extents };
            let (lease, reason) = (lease.clone(), LOST.to_owned());
            all.push(Quarantined { resource, lease, reason, since: now });
        }
    }
    all
}

/// The names under which that is kept, which no lease of the registry has: tenants are people's.
fn nobody() -> Option<(LeaseId, VolumeName)> {
    let tenant: TenantName = "bulkhead".parse().ok()?;
    let name: LeaseName = "lost".parse().ok()?;
    Some((LeaseId { tenant, name }, "lost".parse().ok()?))
}

/// The stretches of `size` bytes that no extent meets, ascending.
fn gaps(size: u64, mut extents: Vec<Extent>) -> Vec<Extent> {
    extents.sort_by_key(|extent| extent.start);
    let (mut free, mut from) = (Vec::new(), 0);
    for extent in extents {
        let until = extent.start.min(size);
        if until > from {
            free.push(Extent { start: from, length: until - from });
        }
        from = from.max(extent.end());
    }
    if size > from {
        free.push(Extent { start: from, length: size - from });
    }
    free
}

/// Who holds what, as it is shown to people.
#[must_use]
pub fn shown(ledger: &Ledger) -> local::Ledger {
    let entry = |entry: &Entry| {
        let resources = entry.holding.resources().into_iter();
        let resource = |resource: Resource| {
            let clean = entry.clean.contains(&resource);
            local::LedgerResource { resource, clean }
        };
        local::LedgerEntry {
            id: entry.id.clone(),
            releasing: entry.releasing,
            resources: resources.map(resource).collect(),
        }
    };
    let quarantine = ledger.quarantine.clone();
    local::Ledger { entries: ledger.entries.iter().map(entry).collect(), quarantine }
}

/// Keeps the damaged file under a name of its own, before another one takes its place.
///
/// # Errors
/// As the file system says.
pub fn keep(ledger: &Path) -> io::Result<PathBuf> {
    for number in 1_u32.. {
        let mut name = ledger.file_name().unwrap_or_default().to_owned();
        name.push(format!(".damaged-{number}"));
        let kept = ledger.with_file_name(name);
        match fs::hard_link(ledger, &kept) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            linked => {
                linked?;
                File::open(ledger.parent().unwrap_or(Path::new(".")))?.sync_all()?;
                return Ok(kept);
            }
        }
    }
    Err(io::ErrorKind::QuotaExceeded.into())
}

#[cfg(test)]
#[path = "repair_tests.rs"]
mod tests;
