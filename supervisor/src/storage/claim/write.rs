//! Puts our table on a disk, in an order in which a cut anywhere leaves a blank disk, a begun claim or a pool.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use crate::storage::gpt::{Layout, STATE_START};
use crate::storage::mark::{self, BLOCK, Kind, OWNER_AT, STATE_AT};

/// What a file system could take for its own: the start of the state partition is cleared.
const CLEARED: usize = 128 << 10;

/// A block device: what is written may come to it in any order until it was flushed.
pub trait Blocks {
    /// Writes whole sectors.
    ///
    /// # Errors
    /// The device's.
    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Returns when everything written is on the medium.
    ///
    /// # Errors
    /// The device's.
    fn flush(&mut self) -> io::Result<()>;
}

impl Blocks for File {
    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

/// Claims a disk that is blank or begun.
///
/// # Errors
/// The device's; the claim is then begun, or not even that.
pub fn claim(disk: &mut impl Blocks, layout: &Layout, host: &str) -> io::Result<()> {
    // By this sector alone all others are known as ours.
    disk.write(layout.primary_header_at(), &layout.primary_header())?;
    disk.flush()?;
    disk.write(OWNER_AT, &mark::encode(Kind::Owner, layout.disk, host))?;
    disk.write(STATE_AT, &[0; BLOCK])?;
    disk.write(STATE_START, &vec![0; CLEARED])?;
    disk.write(0, &layout.protective_mbr())?;
    disk.write(layout.backup_entries_at(), &layout.entries())?;
    disk.write(layout.backup_header_at(), &layout.backup_header())?;
    disk.flush()?;
    // Everything that is not zero of the entries is in one sector, which makes the disk a pool.
    disk.write(layout.primary_entries_at(), &layout.entries())?;
    disk.flush()
}
