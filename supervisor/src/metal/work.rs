//! What takes long with the host as a whole: erases with their receipts, the reboot.

use std::collections::BTreeSet;

use bulkhead_api::chain::Chain;
use bulkhead_api::id::LeaseId;
use bulkhead_api::inventory::Disk;
use bulkhead_api::receipt::Evidence;
use bulkhead_api::resource::Resource;
use bulkhead_api::time::Timestamp;
use bulkhead_api::units::Bytes;
use ring::rand::{SecureRandom as _, SystemRandom};
use tracing::{info, warn};

use super::erase::erase;
use super::model::{REST, disk_name};
use crate::class::memory::zeroing;
use crate::class::{ClassError, Erased};
use crate::host::systemd::{Systemd, SystemdError};
use crate::paths::Paths;
use crate::receipts::{ReceiptError, Receipts, Sanitised};
use crate::storage::nvme::{Erase, tool as nvme};

/// Something to run beside the loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// Erase a disk and keep the receipt.
    Erase {
        /// Who had it.
        lease: LeaseId,
        /// Which.
        disk: Disk,
    },
    /// See that memory and whatever ran are gone and keep the receipts.
    Rest {
        /// Who had it.
        lease: LeaseId,
        /// All memory nodes.
        nodes: BTreeSet<u32>,
        /// All memory.
        memory: Bytes,
    },
    /// Reboot into what the site says.
    Reboot {
        /// Whose the machine will be.
        lease: LeaseId,
    },
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// There is a receipt.
    Clean {
        /// Who had it.
        lease: LeaseId,
        /// As in [`super::model::Record::clean`].
        what: String,
    },
    /// There is none.
    Failed {
        /// As in [`super::model::Record::clean`].
        what: String,
        /// Why, with causes.
        why: String,
        /// It was erased and is not clean.
        quarantine: bool,
    },
    /// systemd shuts down.
    Rebooting,
    /// It does not; why.
    NotRebooting(String),
}

/// Why something is not sanitised.
#[derive(Debug, thiserror::Error)]
enum WorkError {
    #[error(transparent)]
    Class(#[from] ClassError),
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    #[error("no randomness from the system")]
    Random,
}

/// What is needed for it.
#[derive(Debug, Clone, Copy)]
pub struct Means<'a> {
    /// Where everything is.
    pub paths: &'a Paths,
    /// The chain of receipts.
    pub receipts: &'a Receipts,
    /// Counts the host's boots up.
    pub boot: u64,
}

impl Job {
    /// The end of a job that could not begin.
    #[must_use]
    pub fn not_run(&self, why: String) -> Ended {
        let what = match self {
            Self::Erase { disk, .. } => disk_name(disk),
            Self::Rest { .. } => REST,
            Self::Reboot { .. } => return Ended::NotRebooting(why),
        };
        Ended::Failed { what: what.to_owned(), why, quarantine: false }
    }

    /// Erases and keeps the receipt; blocks. For a reboot there is [`reboot`].
    #[must_use]
    pub fn sanitise(&self, means: Means<'_>) -> Ended {
        let (what, done, lease) = match self {
            Self::Erase { lease, disk } => (disk_name(disk), erase_disk(means, lease, disk), lease),
            Self::Rest { lease, nodes, memory } => {
                (REST, rest(means, lease, nodes, *memory), lease)
            }
            Self::Reboot { .. } => return self.not_run("it is no erase".to_owned()),
        };
        let what = what.to_owned();
        match done {
            Ok(()) => Ended::Clean { lease: lease.clone(), what },
            Err(error) => {
                let quarantine = matches!(error, WorkError::Class(ClassError::ReadBack { .. }));
                Ended::Failed { what, why: Chain(&error).to_string(), quarantine }
            }
        }
    }
}

fn erase_disk(means: Means<'_>, lease: &LeaseId, disk: &Disk) -> Result<(), WorkError> {
    let mut seed = [0; 8];
    SystemRandom::new().fill(&mut seed).map_err(|_| WorkError::Random)?;
    let started = Timestamp::now();
    leave_disks(means.paths)?;
    info!(disk = disk.name, serial = disk.serial, size = %disk.size, %lease, "disk is erased");
    let node = means.paths.root.join("dev").join(&disk.name);
    let erased = erase(&node, u64::from_le_bytes(seed), || by_controller(means, disk))?;
    let resource = Resource::Disk { id: disk_name(disk).to_owned() };
    append(means, lease, resource, erased, started)
}

/// The erase of an NVMe disk's controller. Other disks are erased at the same time, each for itself.
fn by_controller(means: Means<'_>, disk: &Disk) -> Result<Option<&'static str>, ClassError> {
    if disk.transport != "nvme" {
        return Ok(None);
    }
    let (root, name) = (&means.paths.root, &disk.name);
    let others = nvme::has_others(root, name).map_err(|source| {
        let path = root.join("sys/block");
        ClassError::Files { doing: "read", path, source }
    })?;
    let erase = nvme::erase(&root.join("dev").join(name), others)?;
    Ok(erase.map(Erase::label))
}

/// Where the site forgot to say at boot that a tenant had the disks, the host's state was taken from one of them: it
/// is left now, so that nothing stands on a disk that is erased.
fn leave_disks(paths: &Paths) -> Result<(), ClassError> {
    if paths.state == paths.run {
        return Ok(());
    }
    match nix::mount::umount(&paths.state) {
        // EINVAL: nothing is mounted there (umount(2)).
        Ok(()) | Err(nix::Error::EINVAL) => Ok(()),
        Err(errno) => {
            let path = paths.state.clone();
            Err(ClassError::Files { doing: "unmount", path, source: errno.into() })
        }
    }
}

/// The tenant's system is gone with its boot: what runs is our image, in memory that its kernel zeroed as it took it.
fn rest(
    means: Means<'_>,
    lease: &LeaseId,
    nodes: &BTreeSet<u32>,
    memory: Bytes,
) -> Result<(), WorkError> {
    let started = Timestamp::now();
    let read = |name: &str| {
        let path = means.paths.root.join(name);
        let error = |source| ClassError::Files { doing: "read", path: path.clone(), source };
        std::fs::read_to_string(&path).map(|text| text.trim().to_owned()).map_err(error)
    };
    let evidence = |what: &str, found: String| Evidence { what: what.to_owned(), found };
    let boot = evidence("boot of the kernel", read("proc/sys/kernel/random/boot_id")?);
    let zeroing = zeroing::observe(&means.paths.root)?;
    let zeroes = format!("init_on_free, as {} says", zeroing.said_by);
    if !zeroing.on_free {
        let (expected, found) = ("on".to_owned(), "off".to_owned());
        return Err(ClassError::ReadBack { what: zeroes, expected, found }.into());
    }
    let instance =
        Erased { methods: vec!["reboot".to_owned()], evidence: vec![boot.clone()], weaker: None };
    append(means, lease, Resource::Instance, instance, started)?;
    let fresh = Erased {
        methods: vec!["reboot".to_owned(), "zeroOnFree".to_owned()],
        evidence: vec![boot, evidence(&zeroes, "on".to_owned())],
        weaker: None,
    };
    let resource = Resource::Memory { nodes: nodes.clone(), bytes: memory };
    append(means, lease, resource, fresh, started)
}

fn append(
    means: Means<'_>,
    lease: &LeaseId,
    resource: Resource,
    erased: Erased,
    started: Timestamp,
) -> Result<(), WorkError> {
    let finished = Timestamp::now();
    let (boot, lease) = (means.boot, lease.clone());
    info!(%lease, %resource, "sanitised");
    means.receipts.append(Sanitised { boot, lease, resource, erased, started, finished })?;
    Ok(())
}

/// Has systemd reboot the host in order. The tenant may look through memory: the host's key is overwritten there.
pub async fn reboot(paths: &Paths) -> Ended {
    let asked: Result<(), SystemdError> = async { Systemd::connect().await?.reboot().await }.await;
    if let Err(error) = asked {
        return Ended::NotRebooting(Chain(&error).to_string());
    }
    // The site takes this key for nothing from the reboot on; this is besides.
    let key = paths.identity().join("key.pem");
    let wiped = std::fs::metadata(&key).and_then(|found| {
        let length = usize::try_from(found.len()).unwrap_or_default();
        std::fs::OpenOptions::new()
            .write(true)
            .open(&key)
            .and_then(|mut file| std::io::Write::write_all(&mut file, &vec![0; length]))
    });
    if let Err(error) = wiped {
        warn!(error = %Chain(&error), "key of the host is not overwritten");
    }
    Ended::Rebooting
}
