//! What a tenant asks of a host, and what it got.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::condition::Condition;
use crate::gpu::{self, GpuRequest, HeldGpu};
use crate::id::{HostId, LeaseId, SiteName, VolumeName};
use crate::resource::{CacheWays, EXTENT, Extent, NodePages, PageSize, Resource};
use crate::time::Timestamp;
use crate::units::Bytes;

/// A tenant's share of one host over every resource class, plus what runs in it.
///
/// Classes that this version cannot grant (networks) are read, so that they can be refused by name
/// rather than as unknown fields; see [`LeaseSpec::check`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LeaseSpec {
    /// Where the lease must be; absent = any site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<SiteName>,
    /// What runs in the lease.
    pub instance: InstanceKind,
    /// Whole physical cores, SMT siblings together: 1 or more. Of a `bareMetal` host: at least so many.
    pub cpus: u32,
    /// Memory, at least 16 MiB. Of a `vm`: what the guest has. Of a `bareMetal` host: at least so much.
    pub memory: Bytes,
    /// What no other lease shares with this one.
    #[serde(default)]
    pub isolation: Isolation,
    /// Whether the kernel balances load over the lease's CPUs.
    #[serde(default)]
    pub cpu_partition: CpuPartition,
    /// Huge pages besides `memory`; of a `vm` they are its memory and as much.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hugepages: Option<Hugepages>,
    /// A part of the last-level cache and memory bandwidth of its own; absent = as others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheShare>,
    /// GPUs, slices of them or whole; empty = none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<GpuRequest>,
    /// Networks; empty = none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schema(value_type = Vec<Object>))]
    pub networks: Vec<serde_json::Value>,
    /// Storage; empty = none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// What to run.
    pub workload: Workload,
    /// Opportunistic lease: may be taken back within this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocable: Option<String>,
}

impl LeaseSpec {
    /// The smallest memory of a lease: below it a container's first process is killed before it says why.
    pub const MIN_MEMORY: Bytes = Bytes::new(16 << 20);

    /// The smallest memory of a virtual machine: firmware and a kernel.
    pub const MIN_VM_MEMORY: Bytes = Bytes::new(64 << 20);

    /// What a virtual machine takes besides its guest's memory, whatever that is: the emulator's own.
    const VM_BASE: u64 = 160 << 20;

    /// Bytes of a guest for each of which a virtual machine takes one more: two tables of eight bytes a page of 4 KiB, those of
    /// the emulator's address space and those of the guest, which the kernel counts as the lease's as well.
    const VM_SHARE: u64 = 256;

    /// Most volumes of one lease.
    pub const MOST_VOLUMES: usize = 16;

    /// What a virtual machine takes besides its guest's memory: 160 MiB for the emulator and 1/256 of the guest's for page
    /// tables, in whole MiB. Placement, the control group's bound and every estimate use this.
    #[must_use]
    pub const fn vm_overhead(guest: Bytes) -> Bytes {
        let tables = (guest.get() / Self::VM_SHARE).div_ceil(1 << 20) << 20;
        Bytes::new(Self::VM_BASE.saturating_add(tables))
    }

    /// Bound of the lease's control group: its memory, and for a virtual machine the emulator's besides.
    #[must_use]
    pub fn memory_bound(&self) -> Bytes {
        match (self.instance, &self.hugepages) {
            (InstanceKind::Vm, Some(_)) => Self::vm_overhead(self.memory),
            (InstanceKind::Vm, None) => self.memory.saturating_add(Self::vm_overhead(self.memory)),
            (InstanceKind::Container | InstanceKind::BareMetal, _) => self.memory,
        }
    }

    /// The first field that asks for what this version cannot do, with the reason; and values out of range.
    ///
    /// # Errors
    /// The field's path and a sentence.
    pub fn check(&self) -> Result<(), (String, String)> {
        let not_yet = |what: &str| format!("{what} cannot be leased by this version of Bulkhead");
        if self.cpus == 0 {
            return Err(("spec.cpus".to_owned(), "0 cores: expected 1 or more".to_owned()));
        }
        let least = match self.instance {
            InstanceKind::Vm => Self::MIN_VM_MEMORY,
            InstanceKind::Container | InstanceKind::BareMetal => Self::MIN_MEMORY,
        };
        if self.memory < least {
            return Err((
                "spec.memory".to_owned(),
                format!("{}: expected at least {least}", self.memory),
            ));
        }
        gpu::check(&self.gpus, self.instance)?;
        if !self.networks.is_empty() {
            return Err(("spec.networks".to_owned(), not_yet("networks")));
        }
        if self.revocable.is_some() {
            return Err(("spec.revocable".to_owned(), not_yet("opportunistic leases")));
        }
        self.check_shares()?;
        self.check_volumes()?;
        if !self.workload.image.starts_with("oci://") {
            let message = format!("{:?}: expected oci://HOST/NAME:TAG", self.workload.image);
            return Err(("spec.workload.image".to_owned(), message));
        }
        Ok(())
    }

    fn check_shares(&self) -> Result<(), (String, String)> {
        let whole = self.instance == InstanceKind::BareMetal;
        let needless = |what: &str| format!("{what}: a bareMetal lease has the whole host");
        if whole && self.isolation != Isolation::Core {
            return Err(("spec.isolation".to_owned(), needless("isolation")));
        }
        if whole && self.cpu_partition != CpuPartition::Member {
            return Err(("spec.cpuPartition".to_owned(), needless("cpuPartition")));
        }
        if let Some(huge) = &self.hugepages {
            let page = huge.page_size.bytes();
            if whole {
                return Err(("spec.hugepages".to_owned(), needless("hugepages")));
            }
            if huge.amount.get() == 0 || !huge.amount.get().is_multiple_of(page.get()) {
                let message = format!("{}: expected a multiple of {page} above 0", huge.amount);
                return Err(("spec.hugepages.amount".to_owned(), message));
            }
            if self.instance == InstanceKind::Vm && huge.amount != self.memory {
                let message = format!(
                    "{}: the memory of a vm lies in its huge pages, expected spec.memory, {}",
                    huge.amount, self.memory
                );
                return Err(("spec.hugepages.amount".to_owned(), message));
            }
        }
        if let Some(cache) = &self.cache {
            if whole {
                return Err(("spec.cache".to_owned(), needless("cache")));
            }
            if !(1..=32).contains(&cache.ways) {
                return Err((
                    "spec.cache.ways".to_owned(),
                    format!("{}: expected 1 to 32", cache.ways),
                ));
            }
            if let Some(percent) = cache.bandwidth_percent
                && !(1..=100).contains(&percent)
            {
                let message = format!("{percent}: expected 1 to 100");
                return Err(("spec.cache.bandwidthPercent".to_owned(), message));
            }
        }
        Ok(())
    }

    fn check_volumes(&self) -> Result<(), (String, String)> {
        if self.instance == InstanceKind::BareMetal && !self.volumes.is_empty() {
            let message = "volumes: a bareMetal lease has the disks of the host".to_owned();
            return Err(("spec.volumes".to_owned(), message));
        }
        if self.volumes.len() > Self::MOST_VOLUMES {
            let (count, most) = (self.volumes.len(), Self::MOST_VOLUMES);
            return Err((
                "spec.volumes".to_owned(),
                format!("{count} volumes: expected at most {most}"),
            ));
        }
        let mut names = BTreeSet::new();
        let mut total = Bytes::default();
        for (at, volume) in self.volumes.iter().enumerate() {
            let field = |name: &str| format!("spec.volumes[{at}].{name}");
            if !names.insert(&volume.name) {
                return Err((field("name"), format!("two volumes are called {}", volume.name)));
            }
            if volume.size < Volume::MIN_SIZE {
                let (name, size, least) = (&volume.name, volume.size, Volume::MIN_SIZE);
                let message = format!("{size} of volume {name}: expected at least {least}");
                return Err((field("size"), message));
            }
            if !volume.local {
                let message = format!("volume {}: network volumes are not there yet", volume.name);
                return Err((field("local"), message));
            }
            if let Some(path) = &volume.path {
                let parts = path.strip_prefix('/').map(|rest| rest.split('/'));
                let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
                let good = parts.is_some_and(|mut parts| parts.all(plain));
                let first = path.split('/').nth(1).unwrap_or_default();
                if !good || matches!(first, "proc" | "sys" | "dev") || path.len() > 1024 {
                    let message = format!(
                        "{path:?} of volume {}: expected an absolute path outside /proc, /sys and /dev",
                        volume.name
                    );
                    return Err((field("path"), message));
                }
                if self.instance == InstanceKind::Vm {
                    let message = format!("volume {}: a vm sees its volumes as disks", volume.name);
                    return Err((field("path"), message));
                }
            }
            total = total.saturating_add(volume.size);
        }
        if total.get() == u64::MAX {
            return Err((
                "spec.volumes".to_owned(),
                "the sizes together are above 16 EiB".to_owned(),
            ));
        }
        Ok(())
    }
}

/// What no two leases share.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum Isolation {
    /// Cores. Last-level caches and memory controllers may be shared.
    #[default]
    Core,
    /// Cores and last-level caches.
    L3,
    /// Cores, last-level caches, memory nodes: whole sockets.
    Socket,
}

/// How the kernel's scheduler treats a lease's CPUs (`cpuset.cpus.partition`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum CpuPartition {
    /// As usual: load is balanced over the lease's CPUs.
    #[default]
    Member,
    /// No load balancing and no unbound work of the kernel: for programs that pin their own threads.
    Isolated,
}

/// Huge pages of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hugepages {
    /// Size of each.
    pub page_size: PageSize,
    /// In all, a multiple of `pageSize`.
    pub amount: Bytes,
}

/// Last-level cache and memory bandwidth of a lease's own, where the processor can part them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CacheShare {
    /// Ways of each last-level cache that the lease's cores are behind: 1 to 32.
    pub ways: u32,
    /// Bound of memory bandwidth in percent, 1 to 100; absent or 100 = none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_percent: Option<u8>,
}

/// Storage of a lease. Its content lasts as long as the lease and ends with a reboot of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Volume {
    /// Name within the lease.
    pub name: VolumeName,
    /// Size, at least 32 MiB; rounded up to 4 MiB.
    pub size: Bytes,
    /// On a disk of the host, encrypted with a key that is only in its memory.
    #[serde(default = "yes")]
    pub local: bool,
    /// Where a container sees it; absent = `/volumes/NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

fn yes() -> bool {
    true
}

impl Volume {
    /// The smallest volume: a file system with room in it.
    pub const MIN_SIZE: Bytes = Bytes::new(32 << 20);

    /// What it takes of a pool.
    #[must_use]
    pub const fn extent_bytes(&self) -> u64 {
        self.size.get().div_ceil(EXTENT).saturating_mul(EXTENT)
    }

    /// Where a container sees it.
    #[must_use]
    pub fn mount_path(&self) -> String {
        self.path.clone().unwrap_or_else(|| format!("/volumes/{}", self.name))
    }
}

/// What runs in a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum InstanceKind {
    /// An OCI image run by crun.
    Container,
    /// A QEMU virtual machine.
    Vm,
    /// The whole host.
    BareMetal,
}

/// The program of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Workload {
    /// `oci://HOST/NAME:TAG` or `oci://HOST/NAME@sha256:…`; HOST `bulkhead.site` is the site's own cache.
    pub image: String,
    /// Arguments in place of the image's `Cmd`; empty = the image's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// What happens when the program ends.
    #[serde(default)]
    pub restart: RestartPolicy,
}

/// What happens when a lease's program ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum RestartPolicy {
    /// Start it again, whatever its exit status.
    #[default]
    Always,
    /// Start it again unless it ended with status 0.
    OnFailure,
    /// Leave it ended.
    Never,
}

/// Where a lease is on its way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum LeasePhase {
    /// Accepted, not yet observed on its host.
    #[default]
    Pending,
    /// The host is granting it.
    Granting,
    /// Granted, its program observed running.
    Running,
    /// Granted; its program ended and its restart policy leaves it so.
    Ended,
    /// Could not be granted; the conditions say why and when it is tried again.
    Failed,
    /// Deletion was asked for; the host has not been observed without it yet.
    Releasing,
    /// The host does not report; the lease is as last seen.
    Unknown,
}

/// The exact resources of a lease on its host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Holding {
    /// Logical CPUs: whole cores with all their siblings.
    pub cpus: BTreeSet<u32>,
    /// NUMA nodes its memory comes from.
    pub memory_nodes: BTreeSet<u32>,
    /// Upper bound of its memory.
    pub memory: Bytes,
    /// What no other lease may share with it.
    #[serde(skip_serializing_if = "is_core")]
    pub isolation: Isolation,
    /// Huge pages; absent = none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hugepages: Option<HeldHugepages>,
    /// Cache of its own; empty = none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cache: Vec<CacheWays>,
    /// Storage, in the order of the lease's volumes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<HeldVolume>,
    /// Functions of devices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<HeldDevice>,
    /// GPUs and slices of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<HeldGpu>,
}

fn is_core(isolation: &Isolation) -> bool {
    *isolation == Isolation::Core
}

/// Huge pages that a lease holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct HeldHugepages {
    /// Size of each.
    pub page_size: PageSize,
    /// How many by node, ascending.
    pub pages: Vec<NodePages>,
}

/// Storage that a lease holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct HeldVolume {
    /// Name within the lease.
    pub name: VolumeName,
    /// The pool: GUID of the disk's partition table, lower case.
    pub pool: String,
    /// Where, ascending.
    pub extents: Vec<Extent>,
}

/// A function of a device that a lease holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct HeldDevice {
    /// Kind of device, one word: `vf`, `gpu`, `mig`.
    pub kind: String,
    /// Its stable name on this host: a PCI address, or of a device that a vendor describes, `vendor/class=name`.
    pub id: String,
}

impl Holding {
    /// Without resources that have a receipt: others may hold those.
    #[must_use]
    pub fn without(&self, clean: &BTreeSet<Resource>) -> Self {
        let mut left = self.clone();
        for resource in clean {
            match resource {
                Resource::Instance | Resource::Disk { .. } => {}
                Resource::Cpu { cpus } => left.cpus.retain(|cpu| !cpus.contains(cpu)),
                Resource::Memory { .. } => left.memory = Bytes::default(),
                Resource::Hugepages { .. } => left.hugepages = None,
                Resource::Cache { .. } => left.cache.clear(),
                Resource::Volume { name, pool, .. } => {
                    left.volumes.retain(|held| held.name != *name || held.pool != *pool);
                }
                Resource::Device { kind, id } => {
                    left.devices.retain(|held| held.kind != *kind || held.id != *id);
                }
                Resource::Gpu(gpu) => left.gpus.retain(|held| held != gpu),
            }
        }
        if left.cpus.is_empty() {
            // Nothing of it runs or can: what it shared a socket or a cache with is not near it any more.
            left.isolation = Isolation::Core;
        }
        if left.memory == Bytes::default() && left.hugepages.is_none() {
            left.memory_nodes.clear();
        }
        left
    }

    /// Everything that is sanitised, one by one, when the lease is taken back: [`Resource::Instance`] first.
    #[must_use]
    pub fn resources(&self) -> Vec<Resource> {
        let mut all = vec![Resource::Instance];
        let volume = |held: &HeldVolume| Resource::Volume {
            name: held.name.clone(),
            pool: held.pool.clone(),
            extents: held.extents.clone(),
        };
        let device =
            |held: &HeldDevice| Resource::Device { kind: held.kind.clone(), id: held.id.clone() };
        all.extend(self.devices.iter().map(device));
        all.extend(self.gpus.iter().cloned().map(Resource::Gpu));
        all.extend(self.volumes.iter().map(volume));
        if !self.cache.is_empty() {
            all.push(Resource::Cache { ways: self.cache.clone() });
        }
        all.extend(self.hugepages.as_ref().map(|held| Resource::Hugepages {
            page_size: held.page_size,
            pages: held.pages.clone(),
        }));
        let (nodes, bytes) = (self.memory_nodes.clone(), self.memory);
        all.push(Resource::Memory { nodes, bytes });
        all.push(Resource::Cpu { cpus: self.cpus.clone() });
        all
    }
}

/// What is known of a lease. Said by its host, kept by the registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct LeaseStatus {
    /// Where it is on its way.
    pub phase: LeasePhase,
    /// Where it was placed; absent until placed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<HostId>,
    /// What it holds, as read back from the host; absent until granted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holding: Option<Holding>,
    /// Digest of the image that runs, `sha256:…`; absent until fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    /// Starts of the program since the grant.
    pub starts: u32,
    /// Host-side process id of the program; absent while it does not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Why it is so.
    pub conditions: Vec<Condition>,
    /// When it was last observed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
    pub observed: Option<Timestamp>,
}

/// A lease as a host reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ReportedLease {
    /// Which lease.
    pub id: LeaseId,
    /// What the host observed.
    pub status: LeaseStatus,
}
