//! Which disks are ours. A blank one is claimed by itself; a stranger's is never written to.
//!
//! ```text
//!  sysfs, mounts, swap, both ends of the disk ─► check ─► Blank, Begun ─► write ─► Pool
//!                                                     └─► Foreign: what was found, for people
//! ```
//!
//! The way out of Foreign is an operator's: whoever is sure that a disk holds nothing of worth clears its
//! first and last MiB elsewhere, after which it is blank.

pub mod check;
pub mod sniff;
pub mod write;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use bulkhead_api::id::SystemUuid;
use bulkhead_api::inventory::{DiskClaim, Inventory};
use bulkhead_api::units::Bytes;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use ring::rand::{SecureRandom as _, SystemRandom};
use tracing::info;

use self::check::{END, Probe, START, Verdict, verdict};
use super::block::{ALIGN, Direct};
use super::disk::{self, BlockDisk, Partition};
use super::gpt::{Guid, LEAST_DISK, Layout, POOL_START, STATE_START};
use super::mark::{BLOCK, OWNER_AT, STATE_AT};
use super::mounts::Mounts;
use super::sys;

/// How often something that is a matter of a moment is tried, a tenth of a second apart.
pub(super) const TRIES: u32 = 50;
pub(super) const PAUSE: Duration = Duration::from_millis(100);

/// Why a disk could not be looked at or claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The machine's disks, mounts or UUID cannot be read.
    #[error("read {path}")]
    Read {
        /// What.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The disk refuses; a claim that was begun is finished later.
    #[error("claim disk {disk}")]
    Write {
        /// Which.
        disk: String,
        /// Why.
        source: io::Error,
    },
    /// It is not blank, seen while nobody else had it.
    #[error("disk {disk} is not blank any more: {what}")]
    NotBlank {
        /// Which.
        disk: String,
        /// What it is.
        what: String,
    },
    /// The kernel does not show its partitions.
    #[error("disk {0}: the kernel does not see its partitions")]
    NoPartitions(String),
}

/// A pool of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Its disk.
    pub disk: BlockDisk,
    /// Its table.
    pub layout: Layout,
    /// Whether its state partition was formatted.
    pub state: check::StateMark,
}

impl Pool {
    /// The pool's id: GUID of the disk's table, lower case.
    #[must_use]
    pub fn id(&self) -> String {
        self.layout.disk.to_string()
    }

    /// The partition for volumes.
    ///
    /// # Errors
    /// [`ClaimError::NoPartitions`].
    pub fn volumes(&self) -> Result<&Partition, ClaimError> {
        let found = self.disk.partition(POOL_START);
        found.ok_or_else(|| ClaimError::NoPartitions(self.disk.name.clone()))
    }

    /// The partition for the host's state.
    ///
    /// # Errors
    /// [`ClaimError::NoPartitions`].
    pub fn state(&self) -> Result<&Partition, ClaimError> {
        let found = self.disk.partition(STATE_START);
        found.ok_or_else(|| ClaimError::NoPartitions(self.disk.name.clone()))
    }
}

/// Looks at disks; what does not change meanwhile is read once.
#[derive(Debug)]
pub struct Look<'a> {
    root: &'a Path,
    host: String,
    mounts: Mounts,
    swaps: String,
}

impl<'a> Look<'a> {
    /// At the machine below a root.
    ///
    /// # Errors
    /// [`ClaimError::Read`].
    pub fn new(root: &'a Path) -> Result<Self, ClaimError> {
        let failed = |path: &str| {
            let path = root.join(path);
            move |source| ClaimError::Read { path, source }
        };
        let mounts = Mounts::read(root).map_err(failed("proc/self/mountinfo"))?;
        // A kernel without swap has no such file.
        let swaps = std::fs::read_to_string(root.join("proc/swaps")).unwrap_or_default();
        let uuid = "sys/class/dmi/id/product_uuid";
        let host = match std::fs::read_to_string(root.join(uuid)) {
            Ok(text) => match text.trim().parse::<SystemUuid>() {
                Ok(uuid) if !uuid.is_unset() => uuid.to_string(),
                Ok(_) | Err(_) => String::new(),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(failed(uuid)(source)),
        };
        Ok(Self { root, host, mounts, swaps })
    }

    /// Whose a disk is.
    ///
    /// # Errors
    /// The disk's.
    pub fn at(&self, disk: &BlockDisk) -> io::Result<Verdict> {
        let around = disk.surroundings(&self.mounts, &self.swaps);
        if disk.size < LEAST_DISK {
            return Ok(Verdict::Foreign(format!("{} bytes, too small", disk.size)));
        }
        let file = Direct::read_only(&disk.node)?;
        let mut probe = Probe {
            size: disk.size,
            sector: disk.sector,
            head: file.read(0, START)?,
            tail: Vec::new(),
            owner: file.read(OWNER_AT, BLOCK)?,
            state: file.read(STATE_AT, BLOCK)?,
        };
        // Pools are looked at often, and known by little.
        if let (None, Some(pool)) = (&disk.unfit, check::pool(&probe, &self.host)) {
            return Ok(pool);
        }
        probe.head = file.read(0, END)?;
        probe.tail = read_tail(&file, disk.size)?;
        Ok(verdict(&probe, &around, &self.host))
    }

    /// All pools of this host, by id, and what kept a disk from being looked at.
    ///
    /// # Errors
    /// [`ClaimError::Read`].
    pub fn pools(&self) -> Result<(Vec<Pool>, Vec<ClaimError>), ClaimError> {
        let (mut pools, mut failed) = (Vec::new(), Vec::new());
        for disk in self.disks()? {
            match self.at(&disk) {
                Ok(Verdict::Pool { layout, state }) => pools.push(Pool { disk, layout, state }),
                Ok(Verdict::Blank | Verdict::Begun(_) | Verdict::Foreign(_)) => {}
                Err(source) => failed.push(ClaimError::Read { path: disk.node.clone(), source }),
            }
        }
        pools.sort_by_key(Pool::id);
        Ok((pools, failed))
    }

    fn disks(&self) -> Result<Vec<BlockDisk>, ClaimError> {
        let path = self.root.join("sys/block");
        disk::all(self.root).map_err(|source| ClaimError::Read { path, source })
    }

    /// Claims every disk that is blank or was begun; how it went by disk.
    ///
    /// # Errors
    /// [`ClaimError::Read`].
    pub fn claim_blank(&self) -> Result<Vec<Result<Layout, ClaimError>>, ClaimError> {
        let mut done = Vec::new();
        for disk in self.disks()? {
            match self.at(&disk) {
                Ok(Verdict::Blank | Verdict::Begun(_)) => done.push(self.claim(&disk)),
                Ok(Verdict::Pool { .. } | Verdict::Foreign(_)) => {}
                Err(source) => {
                    done.push(Err(ClaimError::Read { path: disk.node.clone(), source }));
                }
            }
        }
        Ok(done)
    }

    fn claim(&self, disk: &BlockDisk) -> Result<Layout, ClaimError> {
        let failed = |source| ClaimError::Write { disk: disk.name.clone(), source };
        let mut file = exclusive(&disk.node).map_err(failed)?;
        // Nobody else can have it open for themselves now; what it holds may have changed before.
        let layout = match self.at(disk).map_err(failed)? {
            Verdict::Begun(layout) => layout,
            Verdict::Blank => {
                let guid = random_guid().map_err(failed)?;
                Layout::new(guid, disk.size, disk.sector)
                    .ok_or_else(|| failed(Errno::EINVAL.into()))?
            }
            Verdict::Pool { layout, .. } => return Ok(layout),
            Verdict::Foreign(what) => {
                return Err(ClaimError::NotBlank { disk: disk.name.clone(), what });
            }
        };
        write::claim(&mut *file, &layout, &self.host).map_err(failed)?;
        for _ in 0..TRIES {
            match sys::reread_partitions(&file) {
                Err(Errno::EBUSY) => sleep(PAUSE),
                Ok(()) => break,
                Err(errno) => return Err(failed(errno.into())),
            }
        }
        info!(disk = %disk.name, pool = %layout.disk, "claimed a blank disk");
        self.await_partitions(&disk.name)?;
        Ok(layout)
    }

    fn await_partitions(&self, name: &str) -> Result<(), ClaimError> {
        for _ in 0..TRIES {
            let parts = disk::one(self.root, name).map(|disk| disk.partitions).unwrap_or_default();
            let there = |start| parts.iter().any(|part| part.start == start && part.node.exists());
            if there(STATE_START) && there(POOL_START) {
                return Ok(());
            }
            sleep(PAUSE);
        }
        Err(ClaimError::NoPartitions(name.to_owned()))
    }
}

/// The last [`END`] bytes. A disk of 512-byte sectors may end within a unit of direct reads, which then starts
/// before them.
fn read_tail(file: &Direct, size: u64) -> io::Result<Vec<u8>> {
    let from = size.saturating_sub(END as u64);
    let skew = from % ALIGN as u64;
    let from = from.saturating_sub(skew);
    let length = usize::try_from(size.saturating_sub(from)).unwrap_or(usize::MAX);
    let bytes = file.read(from, length)?;
    Ok(bytes.get(bytes.len().saturating_sub(END)..).unwrap_or_default().to_vec())
}

/// Opens a disk so that no file system, mapping or swap can have it, and locks udev out while it changes
/// (systemd's "Locking Block Device Access").
fn exclusive(node: &Path) -> io::Result<Flock<File>> {
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_EXCL).open(node)?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
}

fn random_guid() -> io::Result<Guid> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("no random bytes"))?;
    Ok(Guid::random(bytes))
}

/// Fills in what is on each disk of an inventory. A disk that cannot be read is a problem and stays unknown.
pub fn fill(root: &Path, inventory: &mut Inventory) {
    if inventory.disks.is_empty() {
        return;
    }
    let look = match Look::new(root) {
        Ok(look) => look,
        Err(error) => {
            inventory.problems.push(bulkhead_api::chain::Chain(&error).to_string());
            return;
        }
    };
    for listed in &mut inventory.disks {
        let Some(disk) = disk::one(root, &listed.name) else { continue };
        match look.at(&disk) {
            Ok(verdict) => listed.claim = claim_of(verdict),
            // Its node comes a moment after it does.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => inventory.problems.push(format!("read {}: {error}", listed.name)),
        }
    }
}

fn claim_of(verdict: Verdict) -> DiskClaim {
    match verdict {
        Verdict::Blank | Verdict::Begun(_) => DiskClaim::Blank,
        Verdict::Pool { layout, .. } => {
            DiskClaim::Pool { id: layout.disk.to_string(), size: Bytes::new(layout.pool_length()) }
        }
        Verdict::Foreign(what) => DiskClaim::Foreign { what },
    }
}

#[cfg(test)]
mod tests;
