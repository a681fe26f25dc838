//! A whole disk that a tenant had to itself: marked, erased by its controller, zeroed by the kernel, read back.
//!
//! What the tenant left is not known, so blocks of our own are written all over the disk first (and its first and
//! last blocks, where partition tables are, among them). An erase that the device only pretends shows in them.
//! Where the disk is an NVMe namespace and its controller has a format or a sanitize that reaches no other namespace, it
//! is told to; no mark may be read after it. Then the kernel is asked for zeroes, by the device where it can (`fallocate(2)`, `FALLOC_FL_PUNCH_HOLE` of a
//! block device: it must read as zeroes afterwards or fail), else written (`FALLOC_FL_ZERO_RANGE`). Small disks are
//! read back whole, large ones at those places and at both ends.
//!
//! Without an erase by the controller this reaches what can be addressed, and spare cells of a flash disk can not: the
//! receipt's methods say which it was.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use bulkhead_api::receipt::Evidence;
use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};
use ring::digest::{Context, SHA256};

use crate::class::{ClassError, Erased};

/// A block that is marked and read back.
const BLOCK: u64 = 4096;
/// Marked blocks of a disk, at most.
const MARKS: u64 = 256;
/// Zeroed at a time.
const PIECE: u64 = 1 << 30;
/// A disk up to this size is read back whole.
const SMALL: u64 = 1 << 30;
/// Read back at each end of a larger one.
const END: u64 = 16 << 20;
/// Read at a time.
const READ: usize = 1 << 20;

/// Offsets of the blocks that are marked: the first, the last, and others anywhere, by `seed`. Ascending.
fn places(size: u64, seed: u64) -> Vec<u64> {
    let blocks = size / BLOCK;
    let Some(last) = blocks.checked_sub(1) else { return Vec::new() };
    let mut state = seed;
    let anywhere = (0..MARKS.min(blocks)).map(|_| {
        // SplitMix64: spreads any seed evenly.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % blocks
    });
    let mut all: Vec<u64> = [0, last].into_iter().chain(anywhere).map(|at| at * BLOCK).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The path of a disk, for errors.
struct Disk {
    path: PathBuf,
    file: File,
    size: u64,
}

impl Disk {
    fn error(&self, doing: &'static str) -> impl FnOnce(io::Error) -> ClassError {
        let path = self.path.clone();
        move |source| ClassError::Files { doing, path, source }
    }

    /// Alone: not while anything is mounted from it or stands on it.
    fn open(path: &Path) -> Result<Self, ClassError> {
        let error = |doing| {
            let path = path.to_owned();
            move |source| ClassError::Files { doing, path, source }
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_EXCL | libc::O_CLOEXEC)
            .open(path)
            .map_err(error("open alone"))?;
        let size = file.seek(SeekFrom::End(0)).map_err(error("measure"))?;
        Ok(Self { path: path.to_owned(), file, size })
    }

    fn sync(&self) -> Result<(), ClassError> {
        self.file.sync_all().map_err(self.error("write back"))?;
        // What is read from here on comes from the device.
        posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
            .map_err(|errno| self.error("drop what is cached of")(errno.into()))
    }

    /// Whether all of a stretch is zero; else where it is not.
    fn zero(&self, from: u64, to: u64) -> Result<Result<(), u64>, ClassError> {
        let mut buffer = vec![0; READ];
        let mut at = from;
        while at < to {
            let count = usize::try_from(to - at).unwrap_or(READ).min(READ);
            let part = buffer.get_mut(..count).unwrap_or_default();
            self.file.read_exact_at(part, at).map_err(self.error("read"))?;
            if let Some(index) = part.iter().position(|byte| *byte != 0) {
                return Ok(Err(at.saturating_add(index as u64)));
            }
            at = at.saturating_add(count as u64);
        }
        Ok(Ok(()))
    }

    fn clear(&self) -> Result<&'static str, ClassError> {
        let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let write = FallocateFlags::FALLOC_FL_ZERO_RANGE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let mut by_device = true;
        let mut at = 0;
        while at < self.size {
            let length = PIECE.min(self.size - at);
            let (from, count) = (signed(at), signed(length));
            if by_device {
                match fallocate(&self.file, punch, from, count) {
                    Ok(()) => {
                        at += length;
                        continue;
                    }
                    Err(nix::Error::EINTR) => continue,
                    // The device has no such command: the kernel writes.
                    Err(nix::Error::EOPNOTSUPP) => by_device = false,
                    Err(errno) => return Err(self.error("zero")(errno.into())),
                }
            }
            match fallocate(&self.file, write, from, count) {
                Ok(()) => at += length,
                Err(nix::Error::EINTR) => {}
                Err(errno) => return Err(self.error("write zeroes to")(errno.into())),
            }
        }
        Ok(if by_device { "zeroByDevice" } else { "zeroWritten" })
    }
}

fn signed(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}

fn mark(seed: u64, at: u64) -> Vec<u8> {
    let mut mark = Vec::new();
    while (mark.len() as u64) < BLOCK {
        let mut context = Context::new(&SHA256);
        for part in [seed, at, mark.len() as u64] {
            context.update(&part.to_le_bytes());
        }
        mark.extend_from_slice(context.finish().as_ref());
    }
    mark
}

/// Erases the disk at `path` whole. `seed` is random. `by_controller` has the disk's controller erase it, where it can, and
/// names how. Blocks, for a long time.
///
/// # Errors
/// [`ClassError::ReadBack`] where it was erased and something is left; [`ClassError::Files`] where it could not be,
/// for instance because something still stands on it; those of `by_controller`.
pub fn erase(
    path: &Path,
    seed: u64,
    by_controller: impl FnOnce() -> Result<Option<&'static str>, ClassError>,
) -> Result<Erased, ClassError> {
    let disk = Disk::open(path)?;
    let places = places(disk.size, seed);
    let mut held = 0_usize;
    let mut before = Context::new(&SHA256);
    let mut block = vec![0; usize::try_from(BLOCK).unwrap_or_default()];
    for &at in &places {
        disk.file.read_exact_at(&mut block, at).map_err(disk.error("read"))?;
        held += usize::from(block.iter().any(|byte| *byte != 0));
        before.update(&block);
        disk.file.write_all_at(&mark(seed, at), at).map_err(disk.error("mark"))?;
    }
    disk.sync()?;
    for &at in &places {
        disk.file.read_exact_at(&mut block, at).map_err(disk.error("read"))?;
        if block != mark(seed, at) {
            let doing = format!("mark disk {} at byte {at}", path.display());
            let why = "it does not keep what is written".to_owned();
            return Err(ClassError::Refused { doing, why });
        }
    }
    let mut methods = vec!["marked".to_owned()];
    if let Some(method) = by_controller()? {
        disk.sync()?;
        for &at in &places {
            disk.file.read_exact_at(&mut block, at).map_err(disk.error("read"))?;
            if block == mark(seed, at) {
                return Err(ClassError::ReadBack {
                    what: format!("byte {at} of disk {} after {method}", path.display()),
                    expected: "anything else than was there".to_owned(),
                    found: "what was there".to_owned(),
                });
            }
        }
        methods.push(method.to_owned());
    }
    methods.push(disk.clear()?.to_owned());
    disk.sync()?;
    let stretches: Vec<(u64, u64)> = if disk.size <= SMALL {
        vec![(0, disk.size)]
    } else {
        let marks = places.iter().map(|at| (*at, at.saturating_add(BLOCK)));
        [(0, END), (disk.size - END, disk.size)].into_iter().chain(marks).collect()
    };
    for &(from, to) in &stretches {
        if let Err(at) = disk.zero(from, to)? {
            return Err(ClassError::ReadBack {
                what: format!("byte {at} of disk {}", path.display()),
                expected: "0".to_owned(),
                found: "something else".to_owned(),
            });
        }
    }
    let (count, size) = (places.len(), disk.size);
    let digest: String = before.finish().as_ref().iter().map(|b| format!("{b:02x}")).collect();
    let evidence = |what: String, found: String| Evidence { what, found };
    let read_back = if disk.size <= SMALL {
        evidence(format!("all {size} bytes"), "zero".to_owned())
    } else {
        evidence(format!("first and last {END} of {size} bytes"), "zero".to_owned())
    };
    Ok(Erased {
        methods,
        evidence: vec![
            evidence(
                format!("{count} blocks before the erase"),
                format!("{held} held data, SHA-256 of all {digest}"),
            ),
            evidence(format!("marks in {count} blocks"), "read back, then zero".to_owned()),
            read_back,
        ],
        weaker: None,
    })
}

#[cfg(test)]
mod tests;
