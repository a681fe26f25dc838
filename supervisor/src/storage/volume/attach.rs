//! Makes a volume and hands it to its lease.
//!
//! ```text
//!  key ─► mapping, whole ─► canary written, read raw ─► mapping without its end ─► key gone
//!      ─► file system (container) ─► record ─► mounted | device node (virtual machine)
//! ```
//!
//! The record comes last: a mapping without one was never anybody's and is made anew, with another key.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::thread::sleep;

use bulkhead_api::lease::InstanceKind;
use nix::mount::MsFlags;
use ring::rand::{SecureRandom as _, SystemRandom};

use super::check::{SAMPLE, canary_place, contains};
use super::record::{self, Stage, VolumeRecord};
use super::standing::{PoolDevice, Standing, Trust, Wanted, pool, standing};
use super::teardown::take_down;
use super::{Refused, name, sha256};
use crate::class::{Attached, ClassError, Order};
use crate::paths::Paths;
use crate::storage::block::Direct;
use crate::storage::claim::{PAUSE, TRIES};
use crate::storage::dm::DeviceMapper;
use crate::storage::dm::crypt::{self, RESERVED};
use crate::storage::dm::wire::{Device, Target};
use crate::storage::key::{self, Key};
use crate::storage::mounts::Mounts;
use crate::storage::pools::Pools;
use crate::storage::{hex, tool};
use crate::tenant::files::LeaseDir;

/// Length of the marker.
const MARKER: usize = 32;

/// Looks at a volume that a lease is to have.
pub(super) fn observe(paths: &Paths, pools: &Pools, order: &Order) -> Result<Attached, ClassError> {
    let wanted = Wanted::of(order)?;
    let dm = DeviceMapper::open(&paths.root)
        .map_err(|error| Refused::new("look at", &wanted).because(&error))?;
    let pool = pool(pools, &wanted, Trust::Known)?;
    let record = record::load(paths, wanted.lease, wanted.volume)
        .map_err(|error| Refused::new("read the record of", &wanted).because(&error))?;
    Ok(match standing(&dm, &wanted, pool.number, record.as_ref())? {
        Standing::Absent | Standing::Partial => Attached::No,
        Standing::Drifted(why) => Attached::Drifted(why),
        Standing::Whole(device) => match handed_over(paths, order, &wanted, &device)? {
            None => Attached::Yes,
            Some(lacking) => Attached::Drifted(lacking),
        },
    })
}

/// Gives it.
pub(super) fn attach(paths: &Paths, pools: &Pools, order: &Order) -> Result<(), ClassError> {
    let wanted = Wanted::of(order)?;
    let dm = DeviceMapper::open(&paths.root)
        .map_err(|error| Refused::new("attach", &wanted).because(&error))?;
    let pool = pool(pools, &wanted, Trust::ReadNow)?;
    let record = record::load(paths, wanted.lease, wanted.volume)
        .map_err(|error| Refused::new("read the record of", &wanted).because(&error))?;
    let device = match standing(&dm, &wanted, pool.number, record.as_ref())? {
        Standing::Whole(device) => device,
        Standing::Drifted(why) => {
            // Its content is the tenant's: nothing is made anew over it.
            let doing = format!("attach volume {} of lease {}", wanted.volume, wanted.lease);
            return Err(ClassError::Refused { doing, why });
        }
        Standing::Partial => {
            take_down(&paths.root, &dm, &wanted)?;
            make(paths, order, &dm, &wanted, &pool)?
        }
        Standing::Absent => make(paths, order, &dm, &wanted, &pool)?,
    };
    hand_over(paths, order, &wanted, &device)?;
    match handed_over(paths, order, &wanted, &device)? {
        None => Ok(()),
        Some(found) => Err(ClassError::ReadBack {
            what: format!("volume {} of lease {}", wanted.volume, wanted.lease),
            expected: "handed over".to_owned(),
            found,
        }),
    }
}

fn make(
    paths: &Paths,
    order: &Order,
    dm: &DeviceMapper,
    wanted: &Wanted<'_>,
    pool: &PoolDevice,
) -> Result<Device, ClassError> {
    let name = wanted.mapping.as_str();
    let refused = Refused::new("make", wanted);
    set_aside(paths, wanted)?;
    let key = Key::fresh(&wanted.key).map_err(|error| refused.because(&error))?;
    let table = |less| -> Vec<Target> {
        let segments = crypt::segments(wanted.extents, pool.number, less);
        segments.iter().map(|segment| crypt::target(segment, key.description())).collect()
    };
    let uuid = format!("{}{}", name::UUID_PREFIX, hex(&random::<16>()?));
    dm.create(name, &uuid).map_err(|error| refused.because(&error))?;
    dm.load(name, &table(0)).map_err(|error| refused.because(&error))?;
    dm.resume(name).map_err(|error| refused.because(&error))?;
    let device = device(dm, wanted)?;
    let node = await_node(&paths.root, &device)?;
    let marker = random::<MARKER>()?;
    let canary = plant(&node, pool, wanted, &marker)?;
    dm.load(name, &table(RESERVED)).map_err(|error| refused.because(&error))?;
    dm.resume(name).map_err(|error| refused.because(&error))?;
    key.end().map_err(|error| refused.because(&error))?;
    see_no_key(wanted)?;
    if order.instance == InstanceKind::Container {
        tool::make_ext4(&node, "", order.first_id).map_err(|source| {
            let (doing, path) = ("make a file system on", node.clone());
            ClassError::Files { doing, path, source }
        })?;
        let point = mount_point(paths, wanted);
        mount(&node, &point)?;
        // What e2fsck would put there belongs to nobody in the lease.
        match fs::remove_dir(point.join("lost+found")) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(ClassError::Files { doing: "clean", path: point, source });
            }
            Ok(()) | Err(_) => {}
        }
    }
    let record = VolumeRecord {
        lease: wanted.lease.clone(),
        volume: wanted.volume.clone(),
        pool: wanted.pool.to_owned(),
        extents: wanted.extents.to_vec(),
        mapping: uuid,
        marker: hex(&marker),
        canary,
        stage: Stage::Made,
    };
    record::store(paths, &record).map_err(|error| refused.because(&error))?;
    match standing(dm, wanted, pool.number, Some(&record))? {
        Standing::Whole(device) => Ok(device),
        other @ (Standing::Absent | Standing::Partial | Standing::Drifted(_)) => {
            Err(ClassError::ReadBack {
                what: format!("mapping {name}"),
                expected: "as granted".to_owned(),
                found: format!("{other:?}"),
            })
        }
    }
}

/// The canary that is remembered from before a reboot is about to be written over: cut before the new one is, an erase
/// must not look for it. A record of another place is a volume that was not taken back.
pub(super) fn set_aside(paths: &Paths, wanted: &Wanted<'_>) -> Result<(), ClassError> {
    let refused = Refused::new("make", wanted);
    let old = record::load(paths, wanted.lease, wanted.volume)
        .map_err(|error| refused.because(&error))?;
    let Some(old) = old else { return Ok(()) };
    if old.pool != wanted.pool || old.extents != wanted.extents {
        let why = format!("an earlier one of that name, in pool {}, is not erased yet", old.pool);
        return Err(ClassError::Refused { doing: refused.0, why });
    }
    let record = VolumeRecord { stage: Stage::Erasing, ..old };
    record::store(paths, &record).map_err(|error| refused.because(&error))
}

/// Writes the canary through the mapping and reads it raw; the digest of what is on the disk.
fn plant(
    node: &Path,
    pool: &PoolDevice,
    wanted: &Wanted<'_>,
    marker: &[u8],
) -> Result<String, ClassError> {
    let files = |doing: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| ClassError::Files { doing, path, source }
    };
    let block: Vec<u8> = marker.iter().copied().cycle().take(SAMPLE).collect();
    let at = wanted.bytes().saturating_sub(RESERVED);
    let mapped = Direct::read_write(node).map_err(files("open", node))?;
    mapped.write(at, &block).map_err(files("write", node))?;
    let back = mapped.read(at, SAMPLE).map_err(files("read", node))?;
    let place = canary_place(wanted.extents);
    let raw = Direct::read_only(&pool.node)
        .and_then(|disk| disk.read(place, SAMPLE))
        .map_err(files("read", &pool.node))?;
    let contradiction = |expected: &str, found: &str| ClassError::ReadBack {
        what: format!("canary of mapping {} at byte {place} of its pool", wanted.mapping),
        expected: expected.to_owned(),
        found: found.to_owned(),
    };
    if back != block {
        return Err(contradiction("what was written", "something else"));
    }
    if contains(&raw, marker) || raw.iter().all(|&byte| byte == 0) {
        return Err(contradiction("ciphertext", "plain text or nothing"));
    }
    Ok(sha256(&raw))
}

fn see_no_key(wanted: &Wanted<'_>) -> Result<(), ClassError> {
    if key::is_there(&wanted.key)
        .map_err(|error| Refused::new("look for the key of", wanted).because(&error))?
    {
        return Err(ClassError::ReadBack {
            what: format!("key {}", wanted.key),
            expected: "none after the mapping has it".to_owned(),
            found: "there".to_owned(),
        });
    }
    Ok(())
}

fn device(dm: &DeviceMapper, wanted: &Wanted<'_>) -> Result<Device, ClassError> {
    let found = dm
        .status(&wanted.mapping)
        .map_err(|error| Refused::new("look at", wanted).because(&error))?;
    found.ok_or_else(|| ClassError::ReadBack {
        what: format!("mapping {}", wanted.mapping),
        expected: "there".to_owned(),
        found: "none".to_owned(),
    })
}

fn node_of(root: &Path, device: &Device) -> PathBuf {
    root.join(format!("dev/dm-{}", device.number.minor))
}

fn await_node(root: &Path, device: &Device) -> Result<PathBuf, ClassError> {
    let node = node_of(root, device);
    for _ in 0..TRIES {
        if node.exists() {
            return Ok(node);
        }
        sleep(PAUSE);
    }
    Err(ClassError::Files { doing: "open", path: node, source: io::ErrorKind::NotFound.into() })
}

fn mount_point(paths: &Paths, wanted: &Wanted<'_>) -> PathBuf {
    LeaseDir::new(paths, wanted.lease).path().join("volumes").join(wanted.volume.as_str())
}

fn mount(node: &Path, point: &Path) -> Result<(), ClassError> {
    let files = |source| ClassError::Files { doing: "mount", path: point.to_owned(), source };
    crate::files::directory(point, 0o711).map_err(files)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOATIME;
    nix::mount::mount(Some(node), point, Some("ext4"), flags, Some("errors=remount-ro"))
        .map_err(|errno| files(errno.into()))
}

fn hand_over(
    paths: &Paths,
    order: &Order,
    wanted: &Wanted<'_>,
    device: &Device,
) -> Result<(), ClassError> {
    if handed_over(paths, order, wanted, device)?.is_none() {
        return Ok(());
    }
    let node = await_node(&paths.root, device)?;
    if order.instance == InstanceKind::Container {
        return mount(&node, &mount_point(paths, wanted));
    }
    let link = paths.root.join("dev/mapper").join(&wanted.mapping);
    let target = PathBuf::from(format!("../dm-{}", device.number.minor));
    let files = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| ClassError::Files { doing, path, source }
    };
    if fs::read_link(&link).ok().as_ref() != Some(&target) {
        // udev makes the same link.
        match fs::remove_file(&link).and_then(|()| std::os::unix::fs::symlink(&target, &link)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::os::unix::fs::symlink(&target, &link).map_err(files("link", &link))?;
            }
            done => done.map_err(files("link", &link))?,
        }
    }
    let id = Some(order.first_id);
    chown(&node, id, id).map_err(files("give", &node))?;
    fs::set_permissions(&node, fs::Permissions::from_mode(0o600)).map_err(files("close", &node))
}

/// What is lacking for the lease to use it; `None` where it can.
fn handed_over(
    paths: &Paths,
    order: &Order,
    wanted: &Wanted<'_>,
    device: &Device,
) -> Result<Option<String>, ClassError> {
    match order.instance {
        InstanceKind::Container => {
            let path = paths.root.join("proc/self/mountinfo");
            let mounts = Mounts::read(&paths.root).map_err(|source| ClassError::Files {
                doing: "read",
                path,
                source,
            })?;
            let mounted = mounts.at(&mount_point(paths, wanted)) == Some(device.number);
            Ok((!mounted).then(|| format!("volume {} is not mounted", wanted.volume)))
        }
        InstanceKind::Vm => {
            let node = node_of(&paths.root, device);
            let link = paths.root.join("dev/mapper").join(&wanted.mapping);
            let linked = fs::read_link(&link).is_ok_and(|to| to.file_name() == node.file_name());
            let owner = fs::metadata(&node).map(|about| about.uid());
            let own = owner.is_ok_and(|uid| uid == order.first_id);
            let lacking = || format!("{} is not the lease's", link.display());
            Ok((!(linked && own)).then(lacking))
        }
        InstanceKind::BareMetal => {
            Err(ClassError::Unsupported("a bareMetal lease has disks and no volumes".to_owned()))
        }
    }
}

fn random<const N: usize>() -> Result<[u8; N], ClassError> {
    let mut bytes = [0; N];
    let failed = |_| ClassError::Refused {
        doing: "make a volume".to_owned(),
        why: "no random bytes".to_owned(),
    };
    SystemRandom::new().fill(&mut bytes).map_err(failed)?;
    Ok(bytes)
}
