//! Takes a mapping down so that nothing can read what was under it.
//!
//! ```text
//!  unmount ─► nobody has it open ─► suspend ─► "key wipe" ─► error table ─► resume ─► remove ─► seen gone
//! ```
//!
//! dm-crypt overwrites its copy of the key on "key wipe"; the error table drops what is left of the target and
//! lets programs that only peek at devices (udev) end, which would wait for ever on a suspended one.

use std::fs;
use std::path::Path;
use std::thread::sleep;

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use super::Refused;
use super::standing::Wanted;
use crate::class::ClassError;
use crate::storage::claim::{PAUSE, TRIES};
use crate::storage::dm::wire::{Device, Target};
use crate::storage::dm::{DeviceMapper, DmError};
use crate::storage::mounts::Mounts;

/// Takes a mapping down; whether there was one.
pub(super) fn take_down(
    root: &Path,
    dm: &DeviceMapper,
    wanted: &Wanted<'_>,
) -> Result<bool, ClassError> {
    let name = wanted.mapping.as_str();
    let refused = Refused::new("take down", wanted);
    let Some(device) = dm.status(name).map_err(|error| refused.because(&error))? else {
        return Ok(false);
    };
    unmount(root, &device)?;
    await_closed(dm, wanted)?;
    wipe(dm, name).map_err(|error| refused.because(&error))?;
    let mut tries = TRIES;
    loop {
        match dm.remove(name) {
            // udev looks at a device whenever its table changes.
            Err(DmError::Refused { source: Errno::EBUSY, .. }) if tries > 0 => sleep(PAUSE),
            done => break done.map_err(|error| refused.because(&error))?,
        }
        tries = tries.saturating_sub(1);
    }
    if dm.status(name).map_err(|error| refused.because(&error))?.is_some() {
        return Err(ClassError::ReadBack {
            what: format!("mapping {name}"),
            expected: "none".to_owned(),
            found: "there".to_owned(),
        });
    }
    // udev does it as well, a moment later.
    match fs::remove_file(root.join("dev/mapper").join(name)) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            let path = root.join("dev/mapper").join(name);
            Err(ClassError::Files { doing: "remove", path, source })
        }
        Ok(()) | Err(_) => Ok(true),
    }
}

fn unmount(root: &Path, device: &Device) -> Result<(), ClassError> {
    let path = root.join("proc/self/mountinfo");
    let mounts =
        Mounts::read(root).map_err(|source| ClassError::Files { doing: "read", path, source })?;
    for point in mounts.of(device.number) {
        umount2(point, MntFlags::UMOUNT_NOFOLLOW).map_err(|errno| ClassError::Files {
            doing: "unmount",
            path: point.to_owned(),
            source: errno.into(),
        })?;
    }
    Ok(())
}

fn await_closed(dm: &DeviceMapper, wanted: &Wanted<'_>) -> Result<(), ClassError> {
    let mut open = 0;
    for _ in 0..TRIES {
        let status = dm
            .status(&wanted.mapping)
            .map_err(|error| Refused::new("look at", wanted).because(&error))?;
        open = status.map_or(0, |device| device.open_count);
        if open == 0 {
            return Ok(());
        }
        sleep(PAUSE);
    }
    Err(ClassError::Refused {
        doing: format!("take down mapping {}", wanted.mapping),
        why: format!("it is still open {open} times"),
    })
}

fn wipe(dm: &DeviceMapper, name: &str) -> Result<(), DmError> {
    let table = dm.table(name)?;
    let crypt = || table.iter().filter(|target| target.kind == "crypt");
    if crypt().next().is_none() {
        // Never had a table, or has the error table of an earlier try.
        return Ok(());
    }
    dm.suspend(name)?;
    for target in crypt() {
        dm.message(name, target.start, "key wipe")?;
    }
    let length = table.iter().map(|target| target.length).fold(0, u64::saturating_add);
    let (kind, parameters) = ("error".to_owned(), String::new());
    dm.load(name, &[Target { start: 0, length, kind, parameters }])?;
    dm.resume(name)
}
