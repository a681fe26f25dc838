//! What a host was seen to give to whom, and what of it two can reach. No I/O.
//!
//! ```text
//!  control groups, /proc ──► Facts ──lease::prove──► Finding { violations, notes } ──► statement
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::LeaseId;
use crate::inventory::{Cache, Core, NumaNode, PciFunction};
use crate::lease::Isolation;
use crate::resource::PageSize;
use crate::units::Bytes;

mod device;

pub use device::{DeviceFacts, DeviceFile, DeviceKind, Port, Reach, Stretch, Way};

/// Who holds something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Holder {
    /// The host itself: kernel, init, supervisor.
    Host,
    /// The control group of a lease.
    Lease(LeaseId),
    /// A control group among those of leases whose name is no lease's: its path.
    Unknown(String),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.pad("the host"),
            Self::Lease(id) => f.pad(&id.to_string()),
            Self::Unknown(path) => f.pad(path),
        }
    }
}

/// A kind of namespace that every lease must have of its own (namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Namespace {
    /// Control group roots.
    Cgroup,
    /// System V IPC, POSIX message queues.
    Ipc,
    /// Mounts.
    Mnt,
    /// Network.
    Net,
    /// Process ids.
    Pid,
    /// Users and groups.
    User,
    /// Host name.
    Uts,
}

impl Namespace {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Cgroup, Self::Ipc, Self::Mnt, Self::Net, Self::Pid, Self::User, Self::Uts];

    /// Its name in `/proc/PID/ns`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::Ipc => "ipc",
            Self::Mnt => "mnt",
            Self::Net => "net",
            Self::Pid => "pid",
            Self::User => "user",
            Self::Uts => "uts",
        }
    }
}

/// User or group ids of the host that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IdRange {
    /// The first.
    pub first: u32,
    /// How many.
    pub count: u32,
}

impl IdRange {
    /// Whether an id is in both.
    #[must_use]
    pub fn meets(self, other: Self) -> bool {
        let end = |range: Self| u64::from(range.first) + u64::from(range.count);
        u64::from(self.first) < end(other) && u64::from(other.first) < end(self)
    }

    /// Whether an id is in it.
    #[must_use]
    pub fn contains(self, id: u32) -> bool {
        id.checked_sub(self.first).is_some_and(|offset| offset < self.count)
    }
}

impl fmt::Display for IdRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.first, self.count)
    }
}

/// Processes that are alike in all that is observed of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProcessFacts {
    /// Their numbers on the host, ascending.
    pub pids: Vec<u32>,
    /// The host's own program that runs a container: in the lease's control group, as root, not in the lease's
    /// namespaces. Nothing below is observed of it but `cpus` and `memory_nodes`.
    #[serde(default)]
    pub runtime: bool,
    /// CPUs that they may run on; absent where not observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<BTreeSet<u32>>,
    /// Nodes that their memory may come from; absent where not observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_nodes: Option<BTreeSet<u32>>,
    /// User ids of the host that they can have.
    #[serde(default)]
    pub user_ids: Vec<IdRange>,
    /// Group ids of the host that they can have.
    #[serde(default)]
    pub group_ids: Vec<IdRange>,
    /// Their namespaces, by the kernel's number. A kind that is missing was not observed.
    #[serde(default)]
    pub namespaces: BTreeMap<Namespace, u64>,
    /// Their root directory, `DEVICE:INODE`; absent where not observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
}

/// Huge pages of one size of a control group (`hugetlb.SIZE.max`, `hugetlb.SIZE.current`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HugepageFacts {
    /// Bound; absent = none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Bytes>,
    /// In use.
    pub used: Bytes,
}

/// A group of resctrl: ways of last-level caches that programs on its CPUs fill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CacheGroup {
    /// Its directory; empty for the default group, which whatever is in no other is in.
    pub name: String,
    /// The lease that its name is of; absent for the default group and for nobody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseId>,
    /// CPUs that are in it.
    pub cpus: BTreeSet<u32>,
    /// Ways by cache, as a mask.
    pub ways: BTreeMap<u32, u64>,
}

/// What one holder was seen to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HolderFacts {
    /// Who.
    pub holder: Holder,
    /// CPUs in effect for its control group; absent where not observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<BTreeSet<u32>>,
    /// Memory nodes in effect for its control group; absent where not observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_nodes: Option<BTreeSet<u32>>,
    /// Bound of its memory; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_max: Option<Bytes>,
    /// Huge pages of its control group, by size; a size that is missing has no bound that could be read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hugepages: BTreeMap<PageSize, HugepageFacts>,
    /// Its processes. Of the host only the one that observes, for its namespaces.
    #[serde(default)]
    pub processes: Vec<ProcessFacts>,
    /// What could not be read of it, a sentence each.
    #[serde(default)]
    pub unreadable: Vec<String>,
}

impl HolderFacts {
    /// Nothing is known of it yet.
    #[must_use]
    pub fn new(holder: Holder) -> Self {
        Self {
            holder,
            cpus: None,
            memory_nodes: None,
            memory_max: None,
            hugepages: BTreeMap::new(),
            processes: Vec::new(),
            unreadable: Vec::new(),
        }
    }
}

/// A process outside the control groups of leases with a user id of tenants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Stray {
    /// Its number.
    pub pid: u32,
    /// Its user id on the host.
    pub user: u32,
    /// Its control group; empty where not observed.
    #[serde(default)]
    pub cgroup: String,
}

/// A whole host as observed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Facts {
    /// Physical cores.
    pub cores: Vec<Core>,
    /// Caches.
    pub caches: Vec<Cache>,
    /// Memory nodes.
    pub memory: Vec<NumaNode>,
    /// Names of the leases that this host granted. A name only: nothing else of them is taken from records.
    pub granted: BTreeSet<LeaseId>,
    /// What each lease is to have to itself, as its record says: like `granted` a claim that is checked against what
    /// was observed. A lease that is missing has whole cores.
    #[serde(default, with = "levels", skip_serializing_if = "BTreeMap::is_empty")]
    pub levels: BTreeMap<LeaseId, Isolation>,
    /// The host and every control group among those of leases.
    pub holders: Vec<HolderFacts>,
    /// Processes of tenants elsewhere.
    pub strays: Vec<Stray>,
    /// Devices that leases reach, and those that theirs lie on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceFacts>,
    /// PCI functions in groups of those, the host's own and the bridges above. Empty where no lease has one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub functions: Vec<PciFunction>,
    /// Groups of resctrl; empty where no cache is parted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cache_groups: Vec<CacheGroup>,
    /// What could not be read of the host as a whole, a sentence each.
    pub unreadable: Vec<String>,
}

/// How two come to share something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Class {
    /// One CPU, two control groups.
    Cpu,
    /// Two CPUs of one core, two control groups.
    SmtSibling,
    /// A CPU that the topology does not know: its siblings are not known either.
    UnknownCpu,
    /// A process may run on other CPUs than its control group.
    ProcessCpus,
    /// A process may use memory of other nodes than its control group.
    ProcessNodes,
    /// User ids.
    UserIds,
    /// Group ids.
    GroupIds,
    /// A namespace.
    Namespace,
    /// A root directory.
    Root,
    /// Memory without a bound.
    MemoryUnbounded,
    /// Bounds that together are above what the nodes have.
    MemoryOversubscribed,
    /// Processes in a control group of nobody.
    Stranger,
    /// Processes of a lease that was not granted here.
    NotGranted,
    /// A process of a tenant outside the control groups of leases.
    OutsideSlice,
    /// More of the host's own processes in a lease's control group than the one that runs its container.
    Runtime,
    /// A last-level cache of a lease that is to have it alone, or of which it cannot be shown.
    LastLevelCache,
    /// A socket or a memory node of a lease that is to have it alone.
    Socket,
    /// A device.
    Device,
    /// A device of the host's own in the hands of a lease.
    HostDevice,
    /// A device of which nothing is known in the hands of a lease.
    UnknownDevice,
    /// Functions of one IOMMU group.
    IommuGroup,
    /// Functions that reach each other behind a bridge.
    PeerToPeer,
    /// A virtual function that may pose as its neighbours.
    TrustedFunction,
    /// One network of two tenants.
    Network,
    /// One MIG GPU instance.
    GpuInstance,
    /// A GPU and a part of it.
    GpuSlice,
    /// A part of a disk, two volumes.
    VolumeExtent,
    /// A key, two volumes.
    VolumeKey,
    /// What another's volume lies on.
    BeneathVolume,
    /// Huge pages without a bound.
    HugepagesUnbounded,
    /// Bounds of huge pages that together are above what there is.
    HugepagesOversubscribed,
    /// Ways of a cache.
    CacheWays,
    /// CPUs of a lease in the cache group of another.
    CacheGroup,
    /// Something could not be observed, so that it cannot be called isolated.
    NotObservable,
    /// A note: a cache.
    SharedCache,
    /// A note: the memory controllers of a node.
    SharedNode,
    /// A note: the host's own processes may run on CPUs of a lease.
    HostCpus,
    /// A note: `/dev/kvm`, by which each makes virtual machines of its own.
    Kvm,
}

/// Something that more than one can reach, or may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sharing {
    /// How.
    pub class: Class,
    /// Who: two, or one where nobody else is known to be concerned.
    pub holders: Vec<Holder>,
    /// What is shared: `CPUs 2-3`, `network namespace 4026531840`.
    pub resource: String,
    /// The whole, for people: who, what and by which way.
    pub message: String,
}

/// What is to be said of a host's isolation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Finding {
    /// Isolation does not hold, or cannot be shown to.
    pub violations: Vec<Sharing>,
    /// Shared by design: what the isolation levels of those concerned leave shared.
    pub notes: Vec<Sharing>,
}

/// Pairs: a lease's name is two words, which no key of JSON is.
mod levels {
    use std::collections::BTreeMap;

    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::{Isolation, LeaseId};

    pub(super) fn serialize<S: Serializer>(
        levels: &BTreeMap<LeaseId, Isolation>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(levels)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<LeaseId, Isolation>, D::Error> {
        Ok(Vec::deserialize(deserializer)?.into_iter().collect())
    }
}
