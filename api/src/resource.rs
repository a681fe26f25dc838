//! Resources of a host that a lease holds and that are sanitised before anybody else gets them (law 3).

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::gpu::HeldGpu;
use crate::id::VolumeName;
use crate::units::Bytes;

/// Size of a huge page that x86-64 has (Linux, Documentation/admin-guide/mm/hugetlbpage.rst).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum PageSize {
    /// 2 MiB.
    #[serde(rename = "2Mi")]
    TwoMiB,
    /// 1 GiB.
    #[serde(rename = "1Gi")]
    OneGiB,
}

impl PageSize {
    /// Both.
    pub const ALL: [Self; 2] = [Self::TwoMiB, Self::OneGiB];

    /// Bytes of one page.
    #[must_use]
    pub const fn bytes(self) -> Bytes {
        match self {
            Self::TwoMiB => Bytes::new(2 << 20),
            Self::OneGiB => Bytes::new(1 << 30),
        }
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::TwoMiB => "2Mi",
            Self::OneGiB => "1Gi",
        })
    }
}

/// Huge pages of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodePages {
    /// NUMA node.
    pub node: u32,
    /// How many.
    pub pages: u64,
}

/// A stretch of a storage pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Extent {
    /// First byte within the pool, a multiple of [`EXTENT`].
    pub start: u64,
    /// Length in bytes, a multiple of [`EXTENT`], above 0.
    pub length: u64,
}

/// Storage is given out in multiples of this.
pub const EXTENT: u64 = 4 << 20;

impl Extent {
    /// First byte behind it.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.start.saturating_add(self.length)
    }

    /// Whether a byte is in both.
    #[must_use]
    pub const fn meets(self, other: Self) -> bool {
        self.start < other.end() && other.start < self.end()
    }
}

/// Ways of one last-level cache, and a share of the memory bandwidth behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CacheWays {
    /// Number of the cache (`cache/indexN/id`).
    pub cache: u32,
    /// Neighbouring bits, one a way (Linux, Documentation/arch/x86/resctrl.rst).
    pub mask: u64,
    /// Share of the memory bandwidth in percent; absent = no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_percent: Option<u8>,
}

/// What is granted, sanitised and receipted as one. NICs come as [`Resource::Device`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(tag = "class", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Resource {
    /// What ran: processes, mounts, namespaces, IPC objects, keys, files, control group.
    Instance,
    /// Cores, with what their private caches hold.
    Cpu {
        /// Logical CPUs, whole cores.
        cpus: BTreeSet<u32>,
    },
    /// Ordinary memory.
    Memory {
        /// Nodes.
        nodes: BTreeSet<u32>,
        /// At most.
        bytes: Bytes,
    },
    /// Huge pages.
    Hugepages {
        /// Size of each.
        #[serde(rename = "pageSize")]
        page_size: PageSize,
        /// How many by node, ascending.
        pages: Vec<NodePages>,
    },
    /// Last-level cache and memory bandwidth.
    Cache {
        /// By cache, ascending.
        ways: Vec<CacheWays>,
    },
    /// Storage on a local disk.
    Volume {
        /// Name within the lease.
        name: VolumeName,
        /// The pool: GUID of the disk's partition table, lower case.
        pool: String,
        /// Where, ascending.
        extents: Vec<Extent>,
    },
    /// A GPU or a slice of one.
    Gpu(HeldGpu),
    /// A function of a device: a VF.
    Device {
        /// Kind of device, one word: `vf`.
        kind: String,
        /// Its stable name on this host, such as a PCI address.
        id: String,
    },
    /// A whole disk that a tenant had to itself.
    Disk {
        /// Serial number, or the kernel's name where it has none.
        id: String,
    },
}

impl Resource {
    /// Its class in one word, as in its JSON.
    #[must_use]
    pub const fn class(&self) -> ResourceClass {
        match self {
            Self::Instance => ResourceClass::Instance,
            Self::Cpu { .. } => ResourceClass::Cpu,
            Self::Memory { .. } => ResourceClass::Memory,
            Self::Hugepages { .. } => ResourceClass::Hugepages,
            Self::Cache { .. } => ResourceClass::Cache,
            Self::Volume { .. } => ResourceClass::Volume,
            Self::Gpu(_) => ResourceClass::Gpu,
            Self::Device { .. } => ResourceClass::Device,
            Self::Disk { .. } => ResourceClass::Disk,
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list =
            |set: &BTreeSet<u32>| set.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        match self {
            Self::Instance => f.write_str("instance"),
            Self::Cpu { cpus } => write!(f, "cpus {}", list(cpus)),
            Self::Memory { nodes, bytes } => write!(f, "memory {bytes} of nodes {}", list(nodes)),
            Self::Hugepages { page_size, pages } => {
                let pages: u64 = pages.iter().map(|node| node.pages).sum();
                write!(f, "{pages} huge pages of {page_size}")
            }
            Self::Cache { ways } => {
                let ways: u32 = ways.iter().map(|cache| cache.mask.count_ones()).sum();
                write!(f, "{ways} cache ways")
            }
            Self::Volume { name, pool, extents } => {
                let bytes: u64 = extents.iter().map(|extent| extent.length).sum();
                write!(f, "volume {name}, {} of pool {pool}", Bytes::new(bytes))
            }
            Self::Gpu(gpu) => gpu.fmt(f),
            Self::Device { kind, id } => write!(f, "{kind} {id}"),
            Self::Disk { id } => write!(f, "disk {id}"),
        }
    }
}

/// The classes of [`Resource`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum ResourceClass {
    /// [`Resource::Instance`].
    Instance,
    /// [`Resource::Cpu`].
    Cpu,
    /// [`Resource::Memory`].
    Memory,
    /// [`Resource::Hugepages`].
    Hugepages,
    /// [`Resource::Cache`].
    Cache,
    /// [`Resource::Volume`].
    Volume,
    /// [`Resource::Gpu`].
    Gpu,
    /// [`Resource::Device`].
    Device,
    /// [`Resource::Disk`].
    Disk,
}

impl fmt::Display for ResourceClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Instance => "instance",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Hugepages => "hugepages",
            Self::Cache => "cache",
            Self::Volume => "volume",
            Self::Gpu => "gpu",
            Self::Device => "device",
            Self::Disk => "disk",
        })
    }
}

/// A resource that nobody gets: it could not be shown to be clean.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Quarantined {
    /// What.
    pub resource: Resource,
    /// Who had it last.
    pub lease: crate::id::LeaseId,
    /// Why it is not given out, a sentence.
    pub reason: String,
    /// Since when.
    #[cfg_attr(feature = "schema", schema(value_type = String, format = DateTime))]
    pub since: crate::time::Timestamp,
}
