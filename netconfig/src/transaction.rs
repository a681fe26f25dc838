//! Making a host's network what it should be, or leaving it as it was.
//!
//! ```text
//!   observe ─► plan ─► checkpoint ─► apply ─► read back ─► plan is empty ─► is there still contact? ─► commit
//!                                      │ a no              │ not empty         │ no, in the time given
//!                                      └───────────────────┴───────────────────┴─► back to the checkpoint
//! ```
//!
//! The checkpoint is what was ours before. It is on disk while the outcome is open, so that a supervisor that is killed
//! in between goes back when it starts again ([`recover`]): nobody may be left who could say that there is contact.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use tracing::{info, warn};

use crate::kernel::{ApplyError, Kernel, KernelError};
use crate::model::{LinkName, Observed, ObservedLink, Target, TargetLink, UsedLink};
use crate::plan::{Operation, Refusal, plan};

/// How often the difference is looked for: the kernel may take along more than what was deleted, such as addresses of
/// a subnet with the first of them.
const ROUNDS: usize = 4;

/// Whether the host can still be reached by those who command it.
pub trait Contact {
    /// Waits until somebody was reached over the network as it is now, at most so long; false = nobody was.
    fn confirmed(&mut self, within: Duration) -> bool;
}

/// There is nobody to lose, as in a namespace of a test or before the first uplink.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoContact;

impl Contact for NoContact {
    fn confirmed(&mut self, _: Duration) -> bool {
        true
    }
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Committed {
    /// Changes that were made; 0 = it was so already.
    pub operations: usize,
    /// What could not be done; everything else was.
    pub refused: Vec<Refusal>,
    /// The network as it was read back.
    pub observed: Observed,
}

/// Why a change was taken back.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The kernel said no.
    #[error(transparent)]
    Apply(ApplyError),
    /// It could not be read back.
    #[error("read the network back")]
    Observe(#[source] KernelError),
    /// The kernel said yes, and it is not so.
    #[error("read back otherwise than asked for, {left} changes left, the first: {first}")]
    Unsettled {
        /// How many changes are left.
        left: usize,
        /// The first.
        first: String,
    },
    /// Nobody could be reached.
    #[error("no contact within {0:?}")]
    NoContact(Duration),
}

/// Why there is no new network.
#[derive(Debug, thiserror::Error)]
pub enum TransactionError {
    /// Nothing was changed: the network could not be read.
    #[error("read the network")]
    Observe(#[source] KernelError),
    /// Nothing was changed: the checkpoint could not be kept.
    #[error("keep the checkpoint {path}")]
    Checkpoint {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is as it was before.
    #[error("taken back")]
    RolledBack {
        /// Why.
        #[source]
        cause: Cause,
        /// Links that were deleted and made anew: what a tenant had moved away of them is gone.
        remade: Vec<LinkName>,
    },
    /// It is neither as it should be nor as it was.
    #[error("not taken back after: {cause}")]
    Stuck {
        /// Why it was to be taken back.
        cause: Box<Cause>,
        /// Why it could not be.
        #[source]
        source: Box<Cause>,
    },
    /// A checkpoint was found at the start, and the network is not as it says.
    #[error("go back to the checkpoint {path}")]
    Recover {
        /// Where it is.
        path: PathBuf,
        /// Why not.
        source: Cause,
    },
}

/// Where a checkpoint is kept while the outcome is open.
#[derive(Debug, Clone)]
pub struct Journal {
    path: PathBuf,
}

impl Journal {
    /// Keeps it in this file, whose folder exists.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    fn keep(&self, checkpoint: &Target) -> io::Result<()> {
        let bytes = serde_json::to_vec(checkpoint)?;
        let beside = self.path.with_extension("new");
        fs::write(&beside, bytes)?;
        fs::File::open(&beside)?.sync_all()?;
        fs::rename(&beside, &self.path)
    }

    fn clear(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn read(&self) -> io::Result<Option<Target>> {
        match fs::read(&self.path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// What is ours of what was observed, and of the cards that `next` uses what it may change, as something to be wanted
/// again.
#[must_use]
pub fn checkpoint(observed: &Observed, next: &Target) -> Target {
    let mut target = Target::default();
    let name = |link: &ObservedLink| {
        let master = link.master.as_ref().and_then(|master| observed.links.get(&master.index));
        master.filter(|master| master.is_ours()).map(|master| master.name.clone())
    };
    let peers: BTreeSet<LinkName> = observed.ours().filter_map(|link| link.name.peer()).collect();
    for link in observed.ours().filter(|link| !peers.contains(&link.name)) {
        let Some(kind) = link.known() else { continue };
        let wanted = TargetLink {
            kind: kind.clone(),
            group: link.group,
            mtu: Some(link.mtu),
            mac: link.mac,
            master: name(link),
            port: link.port,
        };
        target.links.insert(link.name.clone(), wanted);
    }
    // Cards that are members of ours, or will be.
    for link in observed.links.values().filter(|link| !link.is_ours()) {
        let master = name(link);
        if master.is_some() || next.used.contains_key(&link.name) {
            let used = UsedLink { min_mtu: Some(link.mtu), master };
            target.used.insert(link.name.clone(), used);
        }
    }
    // And those that VLANs of ours stand on.
    for parent in observed.ours().filter_map(|link| observed.links.get(&link.parent?)) {
        if !parent.is_ours() {
            target.used.entry(parent.name.clone()).or_default();
        }
    }
    let ours = |link: &LinkName| target.links.contains_key(link);
    target.addresses = observed.addresses.iter().filter(|a| ours(&a.link)).cloned().collect();
    target.neighbours = observed.neighbours.iter().filter(|n| ours(n.link())).cloned().collect();
    target.routes = observed.routes.clone();
    target.rules = observed.rules.clone();
    target
}

/// Makes the network what `target` says, whole or not at all.
///
/// After the changes `contact` is asked, and given `within`; without it everything is taken back.
///
/// # Errors
/// [`TransactionError::Observe`] and [`TransactionError::Checkpoint`]: nothing was changed;
/// [`TransactionError::RolledBack`]: it is as before; [`TransactionError::Stuck`]: it is neither.
pub fn commit(
    kernel: &mut impl Kernel,
    target: &Target,
    journal: Option<&Journal>,
    contact: &mut impl Contact,
    within: Duration,
) -> Result<Committed, TransactionError> {
    let before = kernel.observe().map_err(TransactionError::Observe)?;
    let first = plan(target, &before);
    if first.operations.is_empty() {
        return Ok(Committed { operations: 0, refused: first.refused, observed: before });
    }
    let checkpoint = checkpoint(&before, target);
    if let Some(journal) = journal {
        journal.keep(&checkpoint).map_err(|source| TransactionError::Checkpoint {
            path: journal.path.clone(),
            source,
        })?;
    }
    let outcome = settle(kernel, target, first.operations).and_then(|settled| {
        if contact.confirmed(within) { Ok(settled) } else { Err(Cause::NoContact(within)) }
    });
    let result = match outcome {
        Ok(settled) => {
            info!(operations = settled.operations, "network changed");
            Ok(settled)
        }
        Err(cause) => Err(roll_back(kernel, &checkpoint, cause, &before)),
    };
    // A checkpoint of a network that is stuck stays: a start finds it and tries again.
    if let (Some(journal), false) = (journal, matches!(result, Err(TransactionError::Stuck { .. })))
        && let Err(error) = journal.clear()
    {
        warn!(%error, path = %journal.path.display(), "the checkpoint stays and would be gone back to");
    }
    result
}

/// Goes back to the checkpoint of a transaction whose outcome was open when its process ended; false = there is none.
///
/// # Errors
/// The checkpoint cannot be read, or the network not be taken back to it; the checkpoint stays then.
pub fn recover(kernel: &mut impl Kernel, journal: &Journal) -> Result<bool, TransactionError> {
    let keep = |source| TransactionError::Checkpoint { path: journal.path.clone(), source };
    let Some(checkpoint) = journal.read().map_err(keep)? else { return Ok(false) };
    let before = kernel.observe().map_err(TransactionError::Observe)?;
    let operations = plan(&checkpoint, &before).operations;
    settle(kernel, &checkpoint, operations)
        .map_err(|source| TransactionError::Recover { path: journal.path.clone(), source })?;
    warn!("went back to the network before a change that nobody confirmed");
    journal.clear().map_err(keep)?;
    Ok(true)
}

/// Applies, reads back, and does what is left, until nothing is.
fn settle(
    kernel: &mut impl Kernel,
    target: &Target,
    mut operations: Vec<Operation>,
) -> Result<Committed, Cause> {
    let mut made = 0;
    for _ in 0..ROUNDS {
        kernel.apply(&operations).map_err(Cause::Apply)?;
        made += operations.len();
        let observed = kernel.observe().map_err(Cause::Observe)?;
        let left = plan(target, &observed);
        if left.operations.is_empty() {
            return Ok(Committed { operations: made, refused: left.refused, observed });
        }
        operations = left.operations;
    }
    let first = operations.first().map(ToString::to_string).unwrap_or_default();
    Err(Cause::Unsettled { left: operations.len(), first })
}

fn roll_back(
    kernel: &mut impl Kernel,
    checkpoint: &Target,
    cause: Cause,
    before: &Observed,
) -> TransactionError {
    warn!(%cause, "the change of the network is taken back");
    let back = kernel.observe().map_err(Cause::Observe).and_then(|observed| {
        let operations = plan(checkpoint, &observed).operations;
        settle(kernel, checkpoint, operations)
    });
    match back {
        Ok(settled) => {
            let same = |link: &&ObservedLink| settled.observed.links.contains_key(&link.index);
            let remade = before.ours().filter(|link| !same(link)).map(|link| link.name.clone());
            TransactionError::RolledBack { cause, remade: remade.collect() }
        }
        Err(source) => TransactionError::Stuck { cause: Box::new(cause), source: Box::new(source) },
    }
}

#[cfg(test)]
mod tests;
