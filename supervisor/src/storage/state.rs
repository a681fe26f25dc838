//! The host's state (ledger, accepted spec, receipts) on a disk, so that it outlives a reboot.
//!
//! ```text
//!  disks settle ─► blank ones claimed ─► pools of this host
//!    one with the state mark ────────────► checked, mounted
//!    none with it ─► the first by id ─► formatted, marked, checked, mounted
//!    two with it, one damaged, a failed check ─► nothing is used, and why
//!    no pool, or none with it and a disk that cannot be read ─► memory, and why
//! ```
//!
//! A boot that keeps its state in memory does so to its end: a supervisor that starts again and finds a disk by then
//! would take an empty or older ledger for that of the leases that run.
//!
//! A file is replaced by fsync, rename and fsync of its directory ([`crate::files::replace`]). ext4 in its
//! default mode with barriers, which nothing here turns off, keeps each of the two on the medium.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;

use bulkhead_api::chain::Chain;
use bulkhead_api::condition::{Condition, Truth};
use bulkhead_api::time::Timestamp;
use nix::mount::MsFlags;
use tracing::{info, warn};

use super::block::Direct;
use super::claim::check::StateMark;
use super::claim::{ClaimError, Look, PAUSE, Pool, TRIES};
use super::mark::{self, Kind, STATE_AT};
use super::mounts::Mounts;
use super::tool;
use crate::paths::Paths;

/// How the file system is mounted, besides no set-uid programs, devices and programs at all.
const OPTIONS: &str = "errors=remount-ro";

/// Where the state is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateHome {
    /// On a disk.
    Disk {
        /// The pool that the disk is.
        pool: String,
        /// The disk's name.
        disk: String,
        /// Where it is mounted.
        directory: PathBuf,
    },
    /// In memory: a reboot forgets it.
    Memory {
        /// Where.
        directory: PathBuf,
        /// Why, a sentence.
        why: String,
    },
}

/// Why the state of a host that has one cannot be used. Nothing is granted then.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Disks cannot be looked at.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// Two disks say that they hold it.
    #[error(
        "disks {one} and {other} both hold this host's state: take out the older one, or clear its \
         first and last MiB, and reboot"
    )]
    Two {
        /// One.
        one: String,
        /// The other.
        other: String,
    },
    /// The mark cannot be read.
    #[error(
        "the state mark of disk {0} is damaged: if its state may be lost, clear the disk's first and \
         last MiB and reboot"
    )]
    Mark(String),
    /// The file system could not be made or marked.
    #[error("make the state file system on disk {disk}")]
    Make {
        /// Which.
        disk: String,
        /// Why.
        source: io::Error,
    },
    /// The check found what it must not repair.
    #[error(
        "the state file system on disk {disk} is damaged ({said}): repair it elsewhere, or, if its \
         state may be lost, clear the disk's first and last MiB, and reboot"
    )]
    Damaged {
        /// Which.
        disk: String,
        /// What the check said.
        said: String,
        /// It could not look at all of it, which may be the device's doing.
        unsure: bool,
    },
    /// It could not be checked or mounted.
    #[error("{doing} the state file system of disk {disk}")]
    Mount {
        /// What was done.
        doing: &'static str,
        /// Which.
        disk: String,
        /// Why.
        source: io::Error,
    },
    /// Something else is there.
    #[error("{0} is a mount of something that is no state partition")]
    Stranger(PathBuf),
}

impl StateError {
    /// A disk that was claimed a moment ago shows its partitions, and lets go of them, when the kernel and udev come to it.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Claim(ClaimError::NoPartitions(_))
                | Self::Make { .. }
                | Self::Mount { .. }
                | Self::Damaged { unsure: true, .. }
        )
    }

    /// One word for conditions and metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Claim(_) => "DisksUnreadable",
            Self::Two { .. } => "TwoStates",
            Self::Mark(_) | Self::Damaged { .. } => "StateDamaged",
            Self::Make { .. } => "StateNotMade",
            Self::Mount { .. } | Self::Stranger(_) => "StateNotMounted",
        }
    }
}

impl StateHome {
    /// Where records are kept.
    #[must_use]
    pub fn directory(&self) -> &Path {
        match self {
            Self::Disk { directory, .. } | Self::Memory { directory, .. } => directory,
        }
    }

    /// `StatePersistent`: whether a reboot leaves the state.
    #[must_use]
    pub fn condition(&self, now: Timestamp) -> Condition {
        let (status, reason, message) = match self {
            Self::Disk { pool, disk, .. } => {
                (Truth::True, "OnDisk", format!("the state is on disk {disk}, pool {pool}"))
            }
            Self::Memory { why, .. } => (
                Truth::False,
                "InMemory",
                format!("{why}; a reboot forgets the state until a blank disk is put in"),
            ),
        };
        Condition {
            kind: "StatePersistent".to_owned(),
            status,
            reason: reason.to_owned(),
            message,
            owner: "operator".to_owned(),
            since: now,
            next_retry: None,
        }
    }
}

/// Which pool holds the state: `Err` fails closed. While some disk cannot be read none is made: that one may have it,
/// and would be a second one as soon as it answers.
fn choose(pools: Vec<Pool>, all_read: bool) -> Result<Option<Pool>, StateError> {
    if let Some(pool) = pools.iter().find(|pool| pool.state == StateMark::Damaged) {
        return Err(StateError::Mark(pool.disk.name.clone()));
    }
    let mut formatted = pools.iter().filter(|pool| pool.state == StateMark::Formatted);
    match (formatted.next(), formatted.next()) {
        (Some(one), Some(other)) => {
            Err(StateError::Two { one: one.disk.name.clone(), other: other.disk.name.clone() })
        }
        (Some(one), None) => Ok(Some(one.clone())),
        (None, _) => Ok(pools.into_iter().min_by_key(Pool::id).filter(|_| all_read)),
    }
}

/// Claims blank disks and mounts the state below [`Paths::data`]. Called once, before any record is read; after
/// a restart of the supervisor it finds what is mounted.
///
/// # Errors
/// [`StateError`]: the host has a state that cannot be used, and must grant nothing.
pub fn mount(paths: &Paths) -> Result<StateHome, StateError> {
    let directory = paths.data.join("state");
    let look = Look::new(&paths.root)?;
    if let Some(home) = mounted(paths, &look, &directory)? {
        return Ok(home);
    }
    // The accepted spec is no sign: it is kept there as well while a state that cannot be used is waited for.
    if paths.ledger().exists() || paths.receipts().exists() {
        let why = "this boot began without a disk for the state".to_owned();
        return Ok(StateHome::Memory { directory: paths.state.clone(), why });
    }
    super::settle::settle(&paths.root);
    for claimed in look.claim_blank()? {
        if let Err(error) = claimed {
            warn!(error = %Chain(&error), "a disk was not claimed");
        }
    }
    let (pools, failed) = look.pools()?;
    for error in &failed {
        warn!(error = %Chain(error), "a disk cannot be looked at");
    }
    let Some(pool) = choose(pools, failed.is_empty())? else {
        let why = match failed.first() {
            None => "no disk of this host is blank or a pool of Bulkhead".to_owned(),
            Some(error) => format!(
                "no disk that can be read has the state, and one cannot be read that may have it: {}",
                Chain(error)
            ),
        };
        return Ok(StateHome::Memory { directory: paths.state.clone(), why });
    };
    if pool.state != StateMark::Formatted {
        make(&pool)?;
    }
    mount_pool(&pool, &directory)?;
    info!(disk = %pool.disk.name, pool = %pool.id(), "state mounted");
    Ok(StateHome::Disk { pool: pool.id(), disk: pool.disk.name, directory })
}

/// What an earlier supervisor of this boot mounted.
fn mounted(
    paths: &Paths,
    look: &Look<'_>,
    directory: &Path,
) -> Result<Option<StateHome>, StateError> {
    let path = paths.root.join("proc/self/mountinfo");
    let mounts = Mounts::read(&paths.root).map_err(|source| ClaimError::Read { path, source })?;
    let Some(device) = mounts.at(directory) else { return Ok(None) };
    let (pools, _) = look.pools()?;
    let of = |pool: &Pool| pool.state().is_ok_and(|state| state.number == device);
    let pool = pools.into_iter().find(of);
    let pool = pool.ok_or_else(|| StateError::Stranger(directory.to_owned()))?;
    let directory = directory.to_owned();
    Ok(Some(StateHome::Disk { pool: pool.id(), disk: pool.disk.name, directory }))
}

/// Makes the file system and says so on the disk, in this order: a cut between the two makes it again, and
/// nothing was kept in it yet.
fn make(pool: &Pool) -> Result<(), StateError> {
    let failed = |source| StateError::Make { disk: pool.disk.name.clone(), source };
    let node = &pool.state()?.node;
    settled(node).and_then(|()| tool::make_ext4(node, "bulkhead-state", 0)).map_err(failed)?;
    fs::File::open(node).and_then(|device| device.sync_all()).map_err(failed)?;
    let disk = Direct::read_write(&pool.disk.node).map_err(failed)?;
    disk.write(STATE_AT, &mark::encode(Kind::State, pool.layout.disk, "")).map_err(failed)
}

/// udev reads the partitions of a disk again when it sees it change, and their nodes go and come.
fn settled(node: &Path) -> io::Result<()> {
    for _ in 0..TRIES {
        if node.exists() {
            return Ok(());
        }
        sleep(PAUSE);
    }
    Err(io::ErrorKind::NotFound.into())
}

fn mount_pool(pool: &Pool, directory: &Path) -> Result<(), StateError> {
    let failed =
        |doing| move |source| StateError::Mount { doing, disk: pool.disk.name.clone(), source };
    let node = &pool.state()?.node;
    let said = settled(node).and_then(|()| tool::check_ext4(node)).map_err(failed("check"))?;
    if !said.is_good() {
        let (disk, unsure) = (pool.disk.name.clone(), said.is_unsure());
        return Err(StateError::Damaged { disk, said: said.text, unsure });
    }
    crate::files::directory(directory, 0o700).map_err(failed("make a place for"))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_NOATIME;
    nix::mount::mount(Some(node), directory, Some("ext4"), flags, Some(OPTIONS))
        .map_err(|errno| failed("mount")(errno.into()))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(directory, mode).map_err(failed("close"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::disk::{BlockDisk, DeviceNumber};
    use crate::storage::gpt::{Guid, Layout};

    fn pool(name: &str, id: u8, state: StateMark) -> Pool {
        let disk = BlockDisk {
            name: name.to_owned(),
            node: PathBuf::from("/dev").join(name),
            number: DeviceNumber { major: 254, minor: 0 },
            size: 1 << 30,
            sector: 512,
            partitions: Vec::new(),
            unfit: None,
            holders: Vec::new(),
        };
        let layout = Layout::new(Guid::random([id; 16]), 1 << 30, 512).unwrap();
        Pool { disk, layout, state }
    }

    fn name(pool: Option<Pool>) -> Option<String> {
        pool.map(|pool| pool.disk.name)
    }

    #[test]
    fn the_disk_that_has_the_state_is_taken_whatever_its_id() {
        use StateMark::{Formatted, Never};
        let chosen = choose(vec![pool("vda", 1, Never), pool("vdb", 9, Formatted)], false).unwrap();
        assert_eq!(name(chosen).as_deref(), Some("vdb"));
    }

    #[test]
    fn without_a_state_the_first_by_id_gets_it_and_without_pools_none() {
        let pools = vec![pool("vda", 9, StateMark::Never), pool("vdb", 1, StateMark::Never)];
        assert_eq!(name(choose(pools, true).unwrap()).as_deref(), Some("vdb"));
        assert_eq!(choose(Vec::new(), true).unwrap(), None);
    }

    #[test]
    fn while_a_disk_cannot_be_read_no_second_state_is_made() {
        assert_eq!(choose(vec![pool("vda", 1, StateMark::Never)], false).unwrap(), None);
    }

    #[test]
    fn a_boot_that_keeps_its_state_in_memory_does_so_whatever_disk_comes() {
        for there in ["ledger.json", "receipts"] {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir_all(root.path().join("proc/self")).unwrap();
            fs::write(root.path().join("proc/self/mountinfo"), "").unwrap();
            let paths = Paths::below(root.path());
            fs::create_dir_all(paths.run.join(there)).unwrap();
            let StateHome::Memory { why, .. } = mount(&paths).unwrap() else { panic!("{there}") };
            assert_eq!(why, "this boot began without a disk for the state");
        }
    }

    #[test]
    fn two_states_and_a_damaged_mark_fail_closed_and_say_what_to_do() {
        use StateMark::{Damaged, Formatted, Never};
        for (other, label) in [(Formatted, "TwoStates"), (Damaged, "StateDamaged")] {
            let pools = vec![pool("vda", 1, Formatted), pool("vdb", 2, other)];
            let error = choose(pools, true).unwrap_err();
            assert_eq!(error.label(), label);
            assert!(error.to_string().contains("first and last MiB"), "{error}");
        }
        assert!(choose(vec![pool("vda", 1, Never), pool("vdb", 2, Damaged)], true).is_err());
    }

    #[test]
    fn a_machine_without_disks_keeps_its_state_in_memory_and_says_so() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("proc/self")).unwrap();
        fs::write(root.path().join("proc/self/mountinfo"), "").unwrap();
        let paths = Paths::below(root.path());
        let home = mount(&paths).unwrap();
        assert_eq!(home.directory(), paths.run);
        let condition = home.condition(Timestamp::UNIX_EPOCH);
        assert_eq!((condition.status, condition.reason.as_str()), (Truth::False, "InMemory"));
    }
}
