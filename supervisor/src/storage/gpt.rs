//! The partition table of a disk of ours, byte for byte (UEFI specification, 5.3: GUID Partition Table): pure.
//!
//! ```text
//!  0            1 MiB   2 MiB   4 MiB             68 MiB                                  end
//!  │ MBR, table │ owner │ state │ bulkhead-state  │ bulkhead-pool, a multiple of 4 MiB │ table │
//!                block   mark     64 MiB
//! ```
//!
//! Everything follows from the disk's GUID, size and sector size, so that any piece of a table can be told
//! from a stranger's: it is equal to what is rendered here, or it is not ours.

use std::fmt;

use bulkhead_api::resource::EXTENT;
use ring::digest::{SHA256, digest};

/// Where the state partition starts.
pub const STATE_START: u64 = EXTENT;
/// How long it is.
pub const STATE_LENGTH: u64 = 64 << 20;
/// Where the pool starts.
pub const POOL_START: u64 = STATE_START + STATE_LENGTH;
/// The smallest disk that is claimed: state and room for a volume.
pub const LEAST_DISK: u64 = 128 << 20;

/// Type of the state partition: ours alone.
const STATE_TYPE: Guid = Guid::from_fields(0x5f6f_730b, 0xea4f, 0x494a, 0xace9_1501_8333_1123);
/// Type of the pool: ours alone.
const POOL_TYPE: Guid = Guid::from_fields(0x6a47_0816, 0x79af, 0x4aba, 0x8523_37a4_7608_0c55);

const ENTRY: usize = 128;
const ENTRIES: u32 = 128;
const ENTRIES_BYTES: u64 = 128 * 128;
const HEADER_BYTES: usize = 92;

/// A GUID in the byte order of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid([u8; 16]);

impl Guid {
    /// From the fields of the text; the last two together.
    const fn from_fields(a: u32, b: u16, c: u16, d: u64) -> Self {
        let ([a0, a1, a2, a3], [b0, b1], [c0, c1]) =
            (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
        let [d0, d1, d2, d3, d4, d5, d6, d7] = d.to_be_bytes();
        Self([a0, a1, a2, a3, b0, b1, c0, c1, d0, d1, d2, d3, d4, d5, d6, d7])
    }

    /// As it is on the disk.
    #[must_use]
    pub const fn from_disk(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// As it is on the disk.
    #[must_use]
    pub const fn on_disk(self) -> [u8; 16] {
        self.0
    }

    /// A random one (RFC 9562, version 4) of 16 random bytes.
    #[must_use]
    pub const fn random(bytes: [u8; 16]) -> Self {
        Self::numbered(bytes, 4)
    }

    /// Of a disk's GUID and a name, always the same (RFC 9562, version 8).
    fn derived(self, name: &str) -> Self {
        let mut text = self.0.to_vec();
        text.extend(name.as_bytes());
        let mut bytes = [0; 16];
        for (to, from) in bytes.iter_mut().zip(digest(&SHA256, &text).as_ref()) {
            *to = *from;
        }
        Self::numbered(bytes, 8)
    }

    const fn numbered(bytes: [u8; 16], version: u8) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Self([a, b, c, d, e, f, g, h & 0x0f | version << 4, i & 0x3f | 0x80, j, k, l, m, n, o, p])
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a0, a1, a2, a3, b0, b1, c0, c1, rest @ ..] = self.0;
        let a = u32::from_le_bytes([a0, a1, a2, a3]);
        let (b, c) = (u16::from_le_bytes([b0, b1]), u16::from_le_bytes([c0, c1]));
        let rest = rest.iter().fold(0_u64, |all, byte| all << 8 | u64::from(*byte));
        write!(f, "{a:08x}-{b:04x}-{c:04x}-{:04x}-{:012x}", rest >> 48, rest & 0xffff_ffff_ffff)
    }
}

/// The table of one disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The disk's GUID, which is the pool's id.
    pub disk: Guid,
    /// Bytes of the disk when it was claimed, a multiple of the sector.
    pub size: u64,
    /// Bytes of a logical sector.
    pub sector: u32,
}

impl Layout {
    /// `None` where the disk is too small or has sectors that no disk has.
    #[must_use]
    pub fn new(disk: Guid, size: u64, sector: u32) -> Option<Self> {
        let sectors = matches!(sector, 512 | 1024 | 2048 | 4096);
        (sectors && size >= LEAST_DISK && size.is_multiple_of(u64::from(sector))).then_some(Self {
            disk,
            size,
            sector,
        })
    }

    /// Reads which layout a primary header is of; `None` where it is not exactly one of ours.
    #[must_use]
    pub fn of_header(header: &[u8], sector: u32) -> Option<Self> {
        let disk: [u8; 16] = header.get(56..72)?.try_into().ok()?;
        let last: [u8; 8] = header.get(32..40)?.try_into().ok()?;
        let size = u64::from_le_bytes(last).checked_add(1)?.checked_mul(u64::from(sector))?;
        let layout = Self::new(Guid::from_disk(disk), size, sector)?;
        (layout.primary_header() == header).then_some(layout)
    }

    /// Bytes of the pool, a multiple of [`EXTENT`].
    #[must_use]
    pub const fn pool_length(&self) -> u64 {
        let end = self.backup_entries_at() / EXTENT * EXTENT;
        end.saturating_sub(POOL_START)
    }

    /// Where the primary header is.
    #[must_use]
    pub const fn primary_header_at(&self) -> u64 {
        self.sector as u64
    }

    /// Where the primary entries are.
    #[must_use]
    pub const fn primary_entries_at(&self) -> u64 {
        2 * self.sector as u64
    }

    /// Where the backup header is.
    #[must_use]
    pub const fn backup_header_at(&self) -> u64 {
        self.size.saturating_sub(self.sector as u64)
    }

    /// Where the backup entries are.
    #[must_use]
    pub const fn backup_entries_at(&self) -> u64 {
        self.backup_header_at().saturating_sub(ENTRIES_BYTES)
    }

    /// The primary header: one sector.
    #[must_use]
    pub fn primary_header(&self) -> Vec<u8> {
        self.header(self.primary_header_at(), self.backup_header_at(), self.primary_entries_at())
    }

    /// The backup header: one sector.
    #[must_use]
    pub fn backup_header(&self) -> Vec<u8> {
        self.header(self.backup_header_at(), self.primary_header_at(), self.backup_entries_at())
    }

    /// The MBR that keeps other tools away (5.2.3).
    #[must_use]
    pub fn protective_mbr(&self) -> Vec<u8> {
        let last = self.lba(self.backup_header_at());
        let mut bytes = Vec::with_capacity(self.sector as usize);
        bytes.resize(446, 0);
        bytes.extend([0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff]);
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(u32::try_from(last).unwrap_or(u32::MAX).to_le_bytes());
        bytes.resize(510, 0);
        bytes.extend([0x55, 0xaa]);
        bytes.resize(self.sector as usize, 0);
        bytes
    }

    /// The array of entries: all that is not zero is in its first sector.
    #[must_use]
    pub fn entries(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.entry(&mut bytes, STATE_TYPE, "bulkhead-state", STATE_START, STATE_LENGTH);
        self.entry(&mut bytes, POOL_TYPE, "bulkhead-pool", POOL_START, self.pool_length());
        bytes.resize(ENTRY.saturating_mul(ENTRIES as usize), 0);
        bytes
    }

    fn entry(&self, to: &mut Vec<u8>, kind: Guid, name: &str, start: u64, length: u64) {
        let from = to.len();
        to.extend(kind.on_disk());
        to.extend(self.disk.derived(name).on_disk());
        to.extend(self.lba(start).to_le_bytes());
        to.extend(self.lba(start.saturating_add(length)).saturating_sub(1).to_le_bytes());
        to.extend(0_u64.to_le_bytes());
        to.extend(name.encode_utf16().flat_map(u16::to_le_bytes));
        to.resize(from.saturating_add(ENTRY), 0);
    }

    fn header(&self, own: u64, other: u64, entries: u64) -> Vec<u8> {
        let first_usable = self.primary_entries_at().saturating_add(ENTRIES_BYTES);
        let last_usable = self.lba(self.backup_entries_at()).saturating_sub(1);
        let mut bytes = Vec::with_capacity(self.sector as usize);
        bytes.extend(b"EFI PART");
        bytes.extend(0x0001_0000_u32.to_le_bytes());
        bytes.extend(92_u32.to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend(self.lba(own).to_le_bytes());
        bytes.extend(self.lba(other).to_le_bytes());
        bytes.extend(self.lba(first_usable).to_le_bytes());
        bytes.extend(last_usable.to_le_bytes());
        bytes.extend(self.disk.on_disk());
        bytes.extend(self.lba(entries).to_le_bytes());
        bytes.extend(ENTRIES.to_le_bytes());
        bytes.extend(128_u32.to_le_bytes());
        bytes.extend(crc32fast::hash(&self.entries()).to_le_bytes());
        debug_assert_eq!(bytes.len(), HEADER_BYTES, "the header has the length that it says");
        let sum = crc32fast::hash(&bytes).to_le_bytes();
        for (to, from) in bytes.iter_mut().skip(16).zip(sum) {
            *to = from;
        }
        bytes.resize(self.sector as usize, 0);
        bytes
    }

    const fn lba(&self, byte: u64) -> u64 {
        byte / self.sector as u64
    }
}

/// Entries of any table that are in use, for people.
#[must_use]
pub fn count_entries(table: &[u8]) -> usize {
    table.chunks_exact(ENTRY).filter(|entry| entry.iter().take(16).any(|&byte| byte != 0)).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layout(size: u64, sector: u32) -> Layout {
        Layout::new(Guid::random([7; 16]), size, sector).unwrap()
    }

    #[test]
    fn guids_are_written_as_everybody_writes_them() {
        assert_eq!(STATE_TYPE.to_string(), "5f6f730b-ea4f-494a-ace9-150183331123");
        assert_eq!(STATE_TYPE.on_disk()[..8], [0x0b, 0x73, 0x6f, 0x5f, 0x4f, 0xea, 0x4a, 0x49]);
        assert_eq!(Guid::random([0xff; 16]).to_string(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[test]
    fn the_pool_is_whole_extents_between_state_and_backup_table() {
        for (size, sector) in [(LEAST_DISK, 512), (4 << 30, 4096), ((1 << 30) + 512, 512)] {
            let layout = layout(size, sector);
            assert!(layout.pool_length() >= 32 << 20);
            assert!(layout.pool_length().is_multiple_of(EXTENT));
            let end = POOL_START + layout.pool_length();
            assert!(end <= layout.backup_entries_at());
            assert!(layout.backup_entries_at() - end < EXTENT);
        }
    }

    #[test]
    fn only_the_first_sector_of_the_entries_holds_anything() {
        let entries = layout(1 << 30, 512).entries();
        assert_eq!(count_entries(&entries), 2);
        assert!(entries[512..].iter().all(|&byte| byte == 0));
        assert_eq!(entries.len(), 16384);
    }

    #[test]
    fn disks_that_are_too_small_or_odd_have_no_layout() {
        let guid = Guid::random([1; 16]);
        assert_eq!(Layout::new(guid, LEAST_DISK - 512, 512), None);
        assert_eq!(Layout::new(guid, LEAST_DISK + 1, 512), None);
        assert_eq!(Layout::new(guid, 1 << 30, 520), None);
        assert_eq!(Layout::new(guid, 1 << 30, 0), None);
    }

    /// The checks of the UEFI specification, 5.3.2, on both headers.
    #[test]
    fn both_headers_pass_the_checks_of_any_reader() {
        let layout = layout(1 << 30, 4096);
        for (header, at) in [
            (layout.primary_header(), layout.primary_header_at()),
            (layout.backup_header(), layout.backup_header_at()),
        ] {
            assert_eq!(header.len(), 4096);
            assert_eq!(header[..8], *b"EFI PART");
            assert_eq!(header[24..32], (at / 4096).to_le_bytes());
            let mut summed = header[..HEADER_BYTES].to_vec();
            let sum = summed[16..20].to_vec();
            summed[16..20].fill(0);
            assert_eq!(sum, crc32fast::hash(&summed).to_le_bytes());
            assert_eq!(header[88..92], crc32fast::hash(&layout.entries()).to_le_bytes());
        }
    }

    proptest! {
        #[test]
        fn a_header_leads_back_to_its_layout(
            guid in any::<[u8; 16]>(), sectors in (LEAST_DISK / 512)..(1 << 40),
        ) {
            let layout = Layout::new(Guid::from_disk(guid), sectors * 512, 512).unwrap();
            prop_assert_eq!(Layout::of_header(&layout.primary_header(), 512), Some(layout));
        }

        #[test]
        fn a_header_with_one_other_byte_is_not_ours(at in 0_usize..512, by in 1_u8..) {
            let mut header = layout(1 << 30, 512).primary_header();
            header[at] ^= by;
            prop_assert_eq!(Layout::of_header(&header, 512), None);
        }

        #[test]
        fn any_bytes_are_read_or_refused(
            bytes in prop::collection::vec(any::<u8>(), 0..600), sector in any::<u32>(),
        ) {
            prop_assert_eq!(Layout::of_header(&bytes, sector), None);
            prop_assert!(count_entries(&bytes) <= 4);
        }
    }
}
