//! What a host was seen to give to whom, and what of it two can reach. No I/O.
//!
//! ```text
//!  control groups, /proc ──► Facts ──lease::prove──► Finding { violations, notes } ──► statement
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::LeaseId;
use crate::inventory::{Cache, Core, NumaNode};
use crate::units::Bytes;

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
    /// The host and every control group among those of leases.
    pub holders: Vec<HolderFacts>,
    /// Processes of tenants elsewhere.
    pub strays: Vec<Stray>,
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
    /// Something could not be observed, so that it cannot be called isolated.
    NotObservable,
    /// A note: a cache.
    SharedCache,
    /// A note: the memory controllers of a node.
    SharedNode,
    /// A note: the host's own processes may run on CPUs of a lease.
    HostCpus,
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
    /// Shared at isolation level `core`, by design.
    pub notes: Vec<Sharing>,
}
