//! Bytes of a block device as they are on it: around the page cache.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use super::sys;
use crate::class::Progress;

/// Offsets, lengths and memory of direct reads are multiples of this: the largest sector.
pub const ALIGN: usize = 4096;

/// How much is cleared by one call, so that a long one can be ended between two.
const STRIDE: u64 = 1 << 30;

/// A device that is read and written directly.
#[derive(Debug)]
pub struct Direct(File);

/// How a range was cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleared {
    /// It reads as zeros, by the device's promise.
    Zeroed,
    /// The device was told that it is not needed; what it reads as is the device's choice.
    Discarded,
    /// The device can do neither.
    Unable,
}

impl Direct {
    /// Opens for reading.
    ///
    /// # Errors
    /// The file system's.
    pub fn read_only(path: &Path) -> io::Result<Self> {
        OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path).map(Self)
    }

    /// Opens for reading and writing.
    ///
    /// # Errors
    /// The file system's.
    pub fn read_write(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_DIRECT).open(path).map(Self)
    }

    /// Reads exactly `length` bytes; both numbers are multiples of [`ALIGN`].
    ///
    /// # Errors
    /// The device's.
    pub fn read(&self, at: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; length.saturating_add(ALIGN)];
        let bytes = aligned(&mut buffer, length)?;
        self.0.read_exact_at(bytes, at)?;
        Ok(bytes.to_vec())
    }

    /// Writes and has it on the medium when this returns; offset and length are multiples of [`ALIGN`].
    ///
    /// # Errors
    /// The device's.
    pub fn write(&self, at: u64, data: &[u8]) -> io::Result<()> {
        let mut buffer = vec![0; data.len().saturating_add(ALIGN)];
        let bytes = aligned(&mut buffer, data.len())?;
        bytes.copy_from_slice(data);
        self.0.write_all_at(bytes, at)?;
        self.0.sync_all()
    }

    /// Has the device forget a range, the surest way that it has.
    ///
    /// # Errors
    /// The device's, but not that it cannot.
    pub fn clear(&self, start: u64, length: u64, progress: &Progress) -> io::Result<Cleared> {
        let mut how = Cleared::Zeroed;
        let end = start.saturating_add(length);
        let mut at = start;
        while at < end {
            let part = STRIDE.min(end.saturating_sub(at));
            how = worse(how, self.clear_part(at, part)?);
            progress.advance(part);
            at = at.saturating_add(part);
        }
        self.0.sync_all()?;
        Ok(how)
    }

    /// A hole in a block device reads as zeros, or the kernel refuses (`block/fops.c`, `blkdev_fallocate`).
    fn clear_part(&self, start: u64, length: u64) -> io::Result<Cleared> {
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        match fallocate(&self.0, hole, offset(start)?, offset(length)?) {
            Ok(()) => return Ok(Cleared::Zeroed),
            Err(Errno::EOPNOTSUPP) => {}
            Err(errno) => return Err(errno.into()),
        }
        match sys::discard(&self.0, start, length) {
            Ok(()) => Ok(Cleared::Discarded),
            Err(Errno::EOPNOTSUPP) => Ok(Cleared::Unable),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Writes zeros over a range, however long it takes.
    ///
    /// # Errors
    /// The device's.
    pub fn overwrite(&self, start: u64, length: u64, progress: &Progress) -> io::Result<()> {
        let zero = FallocateFlags::FALLOC_FL_ZERO_RANGE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let end = start.saturating_add(length);
        let mut at = start;
        while at < end {
            let part = STRIDE.min(end.saturating_sub(at));
            fallocate(&self.0, zero, offset(at)?, offset(part)?)?;
            progress.advance(part);
            at = at.saturating_add(part);
        }
        self.0.sync_all()
    }
}

fn worse(a: Cleared, b: Cleared) -> Cleared {
    match (a, b) {
        (Cleared::Unable, _) | (_, Cleared::Unable) => Cleared::Unable,
        (Cleared::Discarded, _) | (_, Cleared::Discarded) => Cleared::Discarded,
        (Cleared::Zeroed, Cleared::Zeroed) => Cleared::Zeroed,
    }
}

fn offset(value: u64) -> io::Result<i64> {
    i64::try_from(value).map_err(|_| Errno::EFBIG.into())
}

/// The part of a buffer that starts at a multiple of [`ALIGN`].
fn aligned(buffer: &mut [u8], length: usize) -> io::Result<&mut [u8]> {
    let skip = buffer.as_ptr().align_offset(ALIGN);
    let end = skip.saturating_add(length);
    buffer.get_mut(skip..end).ok_or_else(|| Errno::EINVAL.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file on a file system behaves as a device that can make holes.
    #[test]
    fn what_was_written_is_read_around_the_cache_and_a_cleared_range_is_zero() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, vec![7; 1 << 20]).unwrap();
        let disk = Direct::read_write(&path).unwrap();
        disk.write(8192, &[9; 4096]).unwrap();
        assert_eq!(disk.read(4096, 8192).unwrap(), [[7; 4096], [9; 4096]].concat());
        let progress = Progress::default();
        assert_eq!(disk.clear(8192, 4096, &progress).unwrap(), Cleared::Zeroed);
        assert_eq!(disk.read(8192, 8192).unwrap(), [[0; 4096], [7; 4096]].concat());
        disk.overwrite(0, 4096, &progress).unwrap();
        assert_eq!(progress.read(), (8192, 0));
        assert_eq!(disk.read(0, 8192).unwrap(), [[0; 4096], [7; 4096]].concat());
    }

    #[test]
    fn a_read_behind_the_end_is_an_error() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, vec![7; 4096]).unwrap();
        assert!(Direct::read_only(&path).unwrap().read(4096, 4096).is_err());
    }

    #[test]
    fn the_surest_way_of_a_range_is_that_of_its_worst_part() {
        use Cleared::{Discarded, Unable, Zeroed};
        for (a, b, both) in
            [(Zeroed, Zeroed, Zeroed), (Zeroed, Discarded, Discarded), (Unable, Discarded, Unable)]
        {
            assert_eq!((worse(a, b), worse(b, a)), (both, both));
        }
    }
}
