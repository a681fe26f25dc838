//! Classes of resources: how each is given to a lease, looked at, and sanitised. The engine ([`crate::tenant`])
//! knows none of them by name.
//!
//! ```text
//!  tenant::plan ──► Step::Attach { resource }   ──► Class::attach ─► seen attached
//!               ──► Step::Sanitise { resource } ──► Class::erase ──► Erased ──► receipt ──► free
//! ```
//!
//! A new class is a type that implements [`Class`] and a line where [`Classes`] is made.
//!
//! | module | class |
//! |---|---|
//! | [`instance`] | what ran: nothing of it is left |
//! | [`cpu`] | cores; [`partition`]: without load balancing |
//! | [`memory`], [`hugepages`] | pages are zeroed, shown by content |
//! | [`cache`] | last-level cache and memory bandwidth |

pub mod cache;
pub mod cpu;
pub mod hugepages;
pub mod instance;
pub mod memory;
pub mod partition;
mod sys;
#[cfg(test)]
mod testing;
mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bulkhead_api::id::LeaseId;
use bulkhead_api::lease::InstanceKind;
use bulkhead_api::receipt::Evidence;
use bulkhead_api::resource::{Resource, ResourceClass};

use crate::paths::Paths;

/// Why something could not be done with a resource.
#[derive(Debug, thiserror::Error)]
pub enum ClassError {
    /// The kernel or a file system refuses. It is tried again.
    #[error("{doing} {path}")]
    Files {
        /// What was done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Something else refuses. It is tried again.
    #[error("{doing}: {why}")]
    Refused {
        /// What was done.
        doing: String,
        /// Why not.
        why: String,
    },
    /// It was done, and what was read back is not what it should be. Of an erase: the resource is not clean.
    #[error("{what}: expected {expected}, found {found}")]
    ReadBack {
        /// What was read.
        what: String,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// This host cannot do that.
    #[error("{0}")]
    Unsupported(String),
}

/// What was seen of a resource that a lease is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attached {
    /// Not given yet.
    No,
    /// Given, and as it should be.
    Yes,
    /// Given, and not as it should be: a sentence part.
    Drifted(String),
    /// It could not be looked at: why. What runs on it is left alone.
    Unseen(String),
}

/// A resource after its erase, with what was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Erased {
    /// What was done, in order.
    pub methods: Vec<String>,
    /// What was looked at afterwards, and was as it should be.
    pub evidence: Vec<Evidence>,
    /// A weaker erase that policy let pass, with the reason.
    pub weaker: Option<String>,
}

/// Who has a resource, and what the site lets pass.
#[derive(Debug, Clone)]
pub struct Order {
    /// Whose it is.
    pub lease: LeaseId,
    /// What.
    pub resource: Resource,
    /// What runs in the lease.
    pub instance: InstanceKind,
    /// First of the lease's user and group ids on the host.
    pub first_id: u32,
    /// The site accepts a weaker erase of this class.
    pub weaker_erase: bool,
    /// Where whoever takes long says how far it is.
    pub progress: Progress,
}

/// How far a long work is, in bytes. Its clones are one: the work counts, the loop reads.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<(AtomicU64, AtomicU64)>);

impl Progress {
    /// There will be so much more to do.
    pub fn expect(&self, bytes: u64) {
        self.0.1.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So much more is done.
    pub fn advance(&self, bytes: u64) {
        self.0.0.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes done, and bytes in all; both 0 where nobody counts.
    #[must_use]
    pub fn read(&self) -> (u64, u64) {
        (self.0.0.load(Ordering::Relaxed), self.0.1.load(Ordering::Relaxed))
    }
}

/// One class on a real host. Every function may block, does nothing that was done before, and can be cut anywhere: called again, it
/// goes on from what is there. Called for two leases at the same time, each minds its own.
pub trait Class: fmt::Debug + Send + Sync {
    /// Resources that are there for leases, whether a record knows them or not. Classes without names of
    /// their own on the host have none.
    ///
    /// # Errors
    /// What could not be read.
    fn found(&self) -> Result<Vec<(LeaseId, Resource)>, ClassError> {
        Ok(Vec::new())
    }

    /// Looks at a resource that a lease is to have.
    ///
    /// # Errors
    /// What could not be read.
    fn observe(&self, order: &Order) -> Result<Attached, ClassError>;

    /// Gives it, or sets right what drifted; done when it was read back.
    ///
    /// # Errors
    /// [`ClassError`].
    fn attach(&self, order: &Order) -> Result<(), ClassError>;

    /// Takes it back and sanitises it; done when the evidence was seen. The lease's processes are gone.
    ///
    /// # Errors
    /// [`ClassError::ReadBack`] where it was erased and is not clean: nobody gets it. All others are tried again.
    fn erase(&self, order: &Order) -> Result<Erased, ClassError>;
}

/// All classes of a host.
#[derive(Debug, Clone, Default)]
pub struct Classes(BTreeMap<ResourceClass, Arc<dyn Class>>);

impl Classes {
    /// With one class more.
    #[must_use]
    pub fn with(mut self, class: ResourceClass, handler: Arc<dyn Class>) -> Self {
        self.0.insert(class, handler);
        self
    }

    /// The one for a resource.
    ///
    /// # Errors
    /// [`ClassError::Unsupported`].
    pub fn of(&self, resource: &Resource) -> Result<Arc<dyn Class>, ClassError> {
        self.0.get(&resource.class()).cloned().ok_or_else(|| {
            ClassError::Unsupported(format!("{resource} cannot be handled by this version"))
        })
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = (ResourceClass, &Arc<dyn Class>)> {
        self.0.iter().map(|(class, handler)| (*class, handler))
    }
}

/// The classes that every host has. Classes of devices and disks are added by those who know them.
#[must_use]
pub fn of_host(paths: &Paths) -> Classes {
    let root = || paths.root.clone();
    Classes::default()
        .with(ResourceClass::Instance, Arc::new(instance::Instance::new(paths.clone())))
        .with(ResourceClass::Cpu, Arc::new(cpu::Cpu::new(root())))
        .with(ResourceClass::Memory, Arc::new(memory::Memory::new(root())))
        .with(ResourceClass::Hugepages, Arc::new(hugepages::Hugepages::new(paths)))
        .with(ResourceClass::Cache, Arc::new(cache::Cache::new(root())))
}

/// A resource of another class than the one that was asked.
fn other(resource: &Resource) -> ClassError {
    ClassError::Unsupported(format!("{resource} is of another class"))
}
