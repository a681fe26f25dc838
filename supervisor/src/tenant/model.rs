//! What is wanted of the leases and what the machine shows of them, side by side. No I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bulkhead_api::id::LeaseId;
use bulkhead_api::lease::{
    CpuPartition, Holding, InstanceKind, Isolation, LeaseSpec, RestartPolicy, Workload,
};
use bulkhead_api::resource::{Quarantined, Resource};
use bulkhead_api::spec::HostSpec;
use bulkhead_api::time::Timestamp;
use bulkhead_api::units::Bytes;

use crate::class::Attached;
use crate::host::cpulist;
use crate::ledger::Entry;
use crate::tenant::repair;

/// Processes and threads of one lease. The kernel's default of 32768 process ids is shared by all.
pub const TASKS: u64 = 4096;

/// Leases wanted on the host; every other one is taken back.
pub type Desired = BTreeMap<LeaseId, LeaseSpec>;

/// The leases of a host spec that run beside each other; one that has the host to itself is no business of theirs
/// ([`crate::metal`]). Of two entries with one id the last counts.
#[must_use]
pub fn desired(spec: &HostSpec) -> Desired {
    let beside = spec.leases.iter().filter(|lease| lease.spec.instance != InstanceKind::BareMetal);
    beside.map(|lease| (lease.id.clone(), lease.spec.clone())).collect()
}

/// Limits of a lease's control group. `None` where there is none (`max`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// CPUs its processes can run on.
    pub cpus: BTreeSet<u32>,
    /// Nodes its memory comes from.
    pub memory_nodes: BTreeSet<u32>,
    /// Memory, rounded down to whole pages as the kernel does.
    pub memory: Option<Bytes>,
    /// Swap.
    pub swap: Option<Bytes>,
    /// Processes and threads.
    pub tasks: Option<u64>,
    /// Whether the kernel balances load over the CPUs.
    pub partition: CpuPartition,
}

/// `memory.max` counts pages (Linux, Documentation/admin-guide/cgroup-v2.rst).
const PAGE: u64 = 4096;

impl Limits {
    /// Those that a lease as recorded asks for.
    #[must_use]
    pub fn of(entry: &Entry) -> Self {
        let holding = &entry.holding;
        Self {
            cpus: holding.cpus.clone(),
            memory_nodes: holding.memory_nodes.clone(),
            memory: Some(Bytes::new(holding.memory.get() / PAGE * PAGE)),
            swap: Some(Bytes::new(0)),
            tasks: Some(TASKS),
            partition: entry.spec.cpu_partition,
        }
    }

    /// What is held under these limits, as far as they tell.
    #[must_use]
    pub fn holding(&self) -> Holding {
        Holding {
            cpus: self.cpus.clone(),
            memory_nodes: self.memory_nodes.clone(),
            memory: self.memory.unwrap_or(Bytes::new(u64::MAX)),
            ..Holding::default()
        }
    }

    /// One sentence part a limit that is not as in `wanted`.
    #[must_use]
    pub fn drift(&self, wanted: &Self) -> Vec<String> {
        fn amount<T: ToString>(value: Option<T>) -> String {
            value.map_or_else(|| "max".to_owned(), |value| value.to_string())
        }
        let rows = [
            ("cpuset.cpus", list(&self.cpus), list(&wanted.cpus)),
            ("cpuset.mems", list(&self.memory_nodes), list(&wanted.memory_nodes)),
            ("memory.max", amount(self.memory), amount(wanted.memory)),
            ("memory.swap.max", amount(self.swap), amount(wanted.swap)),
            ("pids.max", amount(self.tasks), amount(wanted.tasks)),
            (
                "cpuset.cpus.partition",
                partition(self.partition).to_owned(),
                partition(wanted.partition).to_owned(),
            ),
        ];
        rows.into_iter()
            .filter(|(_, is, wanted)| is != wanted)
            .map(|(what, is, wanted)| format!("{what} is {is}, wanted {wanted}"))
            .collect()
    }
}

/// As the kernel writes it.
fn partition(partition: CpuPartition) -> &'static str {
    match partition {
        CpuPartition::Member => "member",
        CpuPartition::Isolated => "isolated",
    }
}

fn list(numbers: &BTreeSet<u32>) -> String {
    if numbers.is_empty() { "none".to_owned() } else { cpulist::render(numbers) }
}

/// What systemd says of a lease's service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceState {
    /// On its way up.
    Starting,
    /// Its main process runs.
    Running,
    /// Its program ended with status 0 and is to be left so.
    Ended,
    /// Its program failed and is to be left so.
    Failed,
    /// Waits to be started again.
    Restarting,
    /// On its way down.
    Stopping,
    /// Loaded, and neither running nor to be started again.
    Stopped,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With a status.
    Status(i32),
    /// By a signal.
    Signal(i32),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "ended with status {status}"),
            Self::Signal(signal) => write!(f, "was ended by signal {signal}"),
        }
    }
}

/// A lease's service as observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObservedService {
    /// Where it stands.
    pub state: ServiceState,
    /// Process id of the program in the container, observed in the lease's control group.
    pub pid: Option<u32>,
    /// Automatic restarts since its start.
    pub restarts: u32,
    /// How its program ended last; absent while it has not ended.
    pub exit: Option<Exit>,
}

/// A lease's slice as observed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedSlice {
    /// As read back from the control group.
    pub limits: Limits,
    /// What of its bound of huge pages is not as recorded; absent where all is.
    pub hugepages: Option<String>,
    /// systemd holds its unit; without one the limits would not outlive the next change of a unit.
    pub active: bool,
    /// Processes are in it.
    pub populated: bool,
}

/// A lease's directory as observed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ObservedFiles {
    /// There is none.
    #[default]
    Absent,
    /// An image that is not complete, or another one than the bundle's.
    Partial,
    /// The image is unpacked.
    Fetched,
    /// The bundle made for this entry of the ledger is complete.
    Bundled(Box<Entry>),
}

/// What the machine shows of one lease. The default is nothing: gone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedLease {
    /// Its slice, or its control group without one.
    pub slice: Option<ObservedSlice>,
    /// Its service, if loaded.
    pub service: Option<ObservedService>,
    /// Mounts below its directory.
    pub mounts: usize,
    /// Its directory.
    pub files: ObservedFiles,
    /// Its image is being fetched.
    pub fetching: bool,
    /// Its program was started since its files are there.
    pub started: bool,
    /// Digest of the fetched image, `sha256:…`.
    pub image_digest: Option<String>,
    /// Resources that are there for it besides its control group; one that is not there is not listed.
    pub resources: BTreeMap<Resource, Attached>,
    /// Of a virtual machine that runs: every vCPU runs on its own CPU. Absent for all others.
    pub pinned: Option<bool>,
}

impl ObservedLease {
    /// Nothing of it is left.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        *self == Self::default()
    }

    /// The first of its resources that could not be looked at, and why.
    #[must_use]
    pub fn unseen(&self) -> Option<(&Resource, &str)> {
        self.resources.iter().find_map(|(resource, attached)| match attached {
            Attached::Unseen(why) => Some((resource, why.as_str())),
            Attached::No | Attached::Yes | Attached::Drifted(_) => None,
        })
    }

    /// An entry for what is there without one, to be taken back like any other lease; `None` where it holds
    /// nothing.
    #[must_use]
    pub fn stray(&self, id: &LeaseId) -> Option<Entry> {
        let mut holding = match &self.slice {
            Some(slice) => slice.limits.holding(),
            None => Holding::default(),
        };
        for resource in self.resources.keys() {
            // A second one of a kind that a lease has once is found again when the first is gone.
            let _later = repair::join(&mut holding, resource);
        }
        let spec = LeaseSpec {
            site: None,
            instance: InstanceKind::Container,
            cpus: u32::try_from(holding.cpus.len()).unwrap_or(u32::MAX),
            memory: holding.memory,
            isolation: Isolation::Core,
            cpu_partition: CpuPartition::Member,
            hugepages: None,
            cache: None,
            gpus: Vec::new(),
            networks: Vec::new(),
            volumes: Vec::new(),
            workload: Workload {
                image: String::new(),
                args: Vec::new(),
                restart: RestartPolicy::Never,
            },
            revocable: None,
        };
        let holds = self.slice.is_some() || !self.resources.is_empty();
        // The ids that its program really has: CPUs may have been changed since it was started.
        let ids_of = match &self.files {
            ObservedFiles::Bundled(entry) => entry.id_cpu(),
            ObservedFiles::Absent | ObservedFiles::Partial | ObservedFiles::Fetched => None,
        };
        let granted = Entry::granted(id.clone(), spec, holding);
        holds.then_some(Entry { releasing: true, ids_of, ..granted })
    }
}

/// Whether a resource is given by a step of its own: what ran, cores and memory come with the control group.
#[must_use]
pub fn given_apart(resource: &Resource) -> bool {
    !matches!(resource, Resource::Instance | Resource::Cpu { .. } | Resource::Memory { .. })
}

/// What the machine shows of all leases.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Leases of which anything was found.
    pub leases: BTreeMap<LeaseId, ObservedLease>,
    /// Leases that could not be read, with the reason: nothing is done to them, their resources stay taken.
    pub unreadable: BTreeMap<LeaseId, String>,
    /// What two leases were found to share: no new lease is granted while it is so. Absent where nothing is.
    pub shared: Option<String>,
    /// Why what leases have cannot be listed: no new lease is granted while it is so. Absent where all can.
    pub unlisted: Option<String>,
    /// Resources in quarantine that are to be erased again now.
    pub again: Vec<Quarantined>,
    /// Wanted leases whose grant was given up, and is not tried again yet.
    pub given_up: BTreeMap<LeaseId, GivenUp>,
}

/// What is done with a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// It is given to its lease.
    Attach,
    /// It is erased.
    Erase,
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Attach => "attach",
            Self::Erase => "erase",
        })
    }
}

/// A work on a resource that goes on beside the loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnderWay {
    /// Whose resource it is.
    pub lease: LeaseId,
    /// Which.
    pub resource: Resource,
    /// What is done with it.
    pub deed: Deed,
    /// Since when.
    pub since: Timestamp,
    /// Bytes done.
    pub done: u64,
    /// Bytes in all; 0 where nobody counts.
    pub total: u64,
}

impl fmt::Display for UnderWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, deed, since, done, total, .. } = self;
        let doing = match deed {
            Deed::Attach => "given",
            Deed::Erase => "erased",
        };
        write!(f, "{resource}: being {doing} since {since:.0}")?;
        if *total == 0 {
            return Ok(());
        }
        write!(f, ", {} of {} MiB", done >> 20, total >> 20)
    }
}

/// A grant that failed for so long that all of it was taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenUp {
    /// What was wanted.
    pub spec: LeaseSpec,
    /// The step that failed last.
    pub step: String,
    /// Why, a sentence.
    pub message: String,
    /// Who can help.
    pub owner: &'static str,
    /// How often it failed in a row.
    pub count: u32,
    /// How often the lease was given up in a row.
    pub rounds: u32,
    /// When it is tried anew, with whatever resources are free then.
    pub next: Timestamp,
}

impl fmt::Display for GivenUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, message, count, .. } = self;
        write!(f, "given up after {count} attempts: {step}: {message}")
    }
}

/// One change of the machine or the ledger. Each succeeds when it is done already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Stops fetching. After a crash nothing fetches.
    CancelFetch(LeaseId),
    /// SIGTERM, 10 s later SIGKILL, to all of the service; done when it is observed stopped.
    StopService(LeaseId),
    /// Stops the slice; done when its control group is gone, and with it every process.
    RemoveSlice(LeaseId),
    /// Unmounts what is below the lease's directory.
    Unmount(LeaseId),
    /// Removes the lease's directory. After a crash part of it is left, and is removed again.
    RemoveFiles(LeaseId),
    /// Erases a resource, sees that it is clean and keeps the receipt; or puts it into quarantine. Only now
    /// others can hold it. After a crash it is erased again.
    Sanitise {
        /// Who had it.
        id: LeaseId,
        /// What.
        resource: Box<Resource>,
    },
    /// Takes the lease out of the ledger, once every resource has a receipt or is in quarantine.
    Forget(LeaseId),
    /// Writes to the ledger what the lease will hold, before anything of it is there; or what was found
    /// without a record, to be taken back.
    Record(Box<Entry>),
    /// Writes to the ledger that the lease is being taken back, before anything of it is.
    Release(LeaseId),
    /// Gives the lease a resource, or sets right what drifted. After a crash it is gone on with.
    Attach {
        /// Whose.
        id: LeaseId,
        /// What.
        resource: Box<Resource>,
        /// What is not as it should be; absent for a resource that is new.
        drift: Option<String>,
    },
    /// Puts every vCPU on its own CPU. After a crash it is done again.
    PinVcpus(LeaseId),
    /// Fetches and unpacks the image, in the background. After a crash a part is left: fetched anew.
    Fetch {
        /// For whom.
        id: LeaseId,
        /// `oci://…`.
        image: String,
    },
    /// Writes the container's configuration. After a crash it is not complete and written again.
    Bundle(Box<Entry>),
    /// Starts the slice, or sets its limits again.
    SetSlice {
        /// Whose.
        id: LeaseId,
        /// As placed.
        limits: Limits,
        /// What a slice that is there has otherwise, a sentence part each; empty for a new one.
        drift: Vec<String>,
    },
    /// Starts the service. After a crash it runs or not; a running one is never started again.
    StartService {
        /// Whose.
        id: LeaseId,
        /// What systemd does when the program ends.
        restart: RestartPolicy,
    },
}

impl Step {
    /// The lease it is about.
    #[must_use]
    pub fn id(&self) -> &LeaseId {
        match self {
            Self::CancelFetch(id)
            | Self::StopService(id)
            | Self::RemoveSlice(id)
            | Self::Unmount(id)
            | Self::RemoveFiles(id)
            | Self::Forget(id)
            | Self::Release(id)
            | Self::PinVcpus(id)
            | Self::Sanitise { id, .. }
            | Self::Attach { id, .. }
            | Self::Fetch { id, .. }
            | Self::SetSlice { id, .. }
            | Self::StartService { id, .. } => id,
            Self::Record(entry) | Self::Bundle(entry) => &entry.id,
        }
    }

    /// What was not as it should be, and is set right by this step; `None` for all else.
    #[must_use]
    pub fn drift(&self) -> Option<String> {
        if let Self::SetSlice { drift, .. } = self {
            return (!drift.is_empty()).then(|| drift.join(", "));
        }
        if let Self::Attach { resource, drift: Some(drift), .. } = self {
            return Some(format!("{resource}: {drift}"));
        }
        None
    }

    /// Later steps of the same lease need not wait for this one, should it fail: what else is to be
    /// sanitised is.
    #[must_use]
    pub fn stands_alone(&self) -> bool {
        matches!(self, Self::Sanitise { resource, .. } if **resource != Resource::Instance)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CancelFetch(id) => write!(f, "stop fetching the image of {id}"),
            Self::StopService(id) => write!(f, "stop service of {id}"),
            Self::RemoveSlice(id) => write!(f, "remove slice of {id}"),
            Self::Unmount(id) => write!(f, "unmount directories of {id}"),
            Self::RemoveFiles(id) => write!(f, "remove files of {id}"),
            Self::Sanitise { id, resource } => write!(f, "sanitise {resource} of {id}"),
            Self::Forget(id) => write!(f, "forget {id}"),
            Self::Record(entry) => {
                let Holding { cpus, memory_nodes, memory, .. } = &entry.holding;
                let (cpus, nodes) = (list(cpus), list(memory_nodes));
                let found = if entry.releasing { "found without a record" } else { "record" };
                write!(f, "{found} {}: cpus {cpus}, nodes {nodes}, memory {memory}", entry.id)?;
                let others = entry.holding.resources();
                others.iter().filter(|r| given_apart(r)).try_for_each(|r| write!(f, ", {r}"))
            }
            Self::Release(id) => write!(f, "take back {id}"),
            Self::Attach { id, resource, drift: None } => write!(f, "give {resource} to {id}"),
            Self::Attach { id, resource, drift: Some(drift) } => {
                write!(f, "set {resource} of {id} right: {drift}")
            }
            Self::PinVcpus(id) => write!(f, "pin the vCPUs of {id}"),
            Self::Fetch { id, image } => write!(f, "fetch {image} for {id}"),
            Self::Bundle(entry) => write!(f, "write container of {}", entry.id),
            Self::SetSlice { id, drift, .. } if !drift.is_empty() => {
                write!(f, "set slice of {id} again: {}", drift.join(", "))
            }
            Self::SetSlice { id, limits, .. } => {
                let memory = limits.memory.unwrap_or_default();
                write!(f, "set slice of {id}: cpus {}, memory {memory}", list(&limits.cpus))
            }
            Self::StartService { id, .. } => write!(f, "start service of {id}"),
        }
    }
}

/// Why a wanted lease is not granted now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The spec asks for what this version cannot do, or is out of range.
    #[error("{field}: {message}")]
    Spec {
        /// Path of the field.
        field: String,
        /// What is wrong.
        message: String,
    },
    /// No room on the host.
    #[error("{0}")]
    Shortage(String),
    /// These are there, the ledger does not know them, and what they hold cannot be read.
    #[error("waits: what is held by {} cannot be read", names(.0))]
    Unknown(Vec<LeaseId>),
    /// What the host holds is not isolated: nobody else is let in.
    #[error("waits until the host is isolated again: {0}")]
    NotIsolated(String),
    /// A class of resources does not say what leases have.
    #[error("waits until it is known what leases have: {0}")]
    Unlisted(String),
    /// It was tried and failed; all of it was taken back.
    #[error("{0}; nothing is held for it, and it is tried anew")]
    GivenUp(Box<GivenUp>),
    /// A resource of an earlier lease of this name could not be shown to be clean.
    #[error("waits: {0} of an earlier lease of this name is in quarantine")]
    Quarantined(Box<Resource>),
    /// There will be room once these leases are gone.
    #[error("waits for room until {} gone", waiting(.0))]
    WaitsFor(Vec<LeaseId>),
}

fn names(ids: &[LeaseId]) -> String {
    let names: Vec<String> = ids.iter().map(ToString::to_string).collect();
    names.join(", ")
}

fn waiting(ids: &[LeaseId]) -> String {
    format!("{} {}", names(ids), if ids.len() == 1 { "is" } else { "are" })
}

impl Refusal {
    /// One word for conditions.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Spec { .. } => "SpecUnsupported",
            Self::Shortage(_) => "Shortage",
            Self::Unknown(_) => "HoldingsUnknown",
            Self::NotIsolated(_) => "HostNotIsolated",
            Self::Unlisted(_) => "ResourcesUnlisted",
            Self::GivenUp(_) => "GrantFailed",
            Self::Quarantined(_) => "NameInQuarantine",
            Self::WaitsFor(_) => "WaitsForRelease",
        }
    }
}
