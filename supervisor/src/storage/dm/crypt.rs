//! Tables of encrypted mappings (kernel `Documentation/admin-guide/device-mapper/dm-crypt.rst`): pure.
//!
//! One `crypt` target for each run of neighbouring extents. The initialisation vector counts the volume's own
//! sectors, so that a volume does not depend on where it lies. Discards of the tenant do not pass: which
//! sectors are free would be seen on the disk, and a volume is cleared as a whole when it is taken back.

use bulkhead_api::resource::{EXTENT, Extent};

use super::wire::Target;
use crate::storage::disk::DeviceNumber;
use crate::storage::key::KEY_BYTES;

/// Sectors of 512 bytes, in which tables count.
const SECTOR: u64 = 512;

/// End of a volume that the tenant does not get: it holds what shows that the key is gone.
pub const RESERVED: u64 = 1 << 20;

const CIPHER: &str = "aes-xts-plain64";

/// A run of a volume that lies together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// First byte within the volume.
    pub at: u64,
    /// Bytes.
    pub length: u64,
    /// Device that it is on.
    pub device: DeviceNumber,
    /// First byte on that device.
    pub start: u64,
}

/// Runs of a volume on a pool, without the last `less` bytes.
#[must_use]
pub fn segments(extents: &[Extent], device: DeviceNumber, less: u64) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    let mut at = 0_u64;
    for extent in extents {
        match segments.last_mut() {
            Some(last) if last.start.saturating_add(last.length) == extent.start => {
                last.length = last.length.saturating_add(extent.length);
            }
            _ => segments.push(Segment { at, length: extent.length, device, start: extent.start }),
        }
        at = at.saturating_add(extent.length);
    }
    if let Some(last) = segments.last_mut() {
        last.length = last.length.saturating_sub(less);
    }
    segments
}

/// A target that encrypts a segment with the key of that description.
#[must_use]
pub fn target(segment: &Segment, key: &str) -> Target {
    let Segment { at, length, device, start } = segment;
    let (at, start) = (at / SECTOR, start / SECTOR);
    Target {
        start: at,
        length: length / SECTOR,
        kind: "crypt".to_owned(),
        parameters: format!(
            "{CIPHER} :{KEY_BYTES}:logon:{key} {at} {device} {start} 1 sector_size:4096"
        ),
    }
}

/// Reads a target as the kernel tells it; `None` where it is none of ours.
#[must_use]
pub fn segment(target: &Target) -> Option<Segment> {
    let mut words = target.parameters.split(' ');
    let (cipher, _key, iv) = (words.next()?, words.next()?, words.next()?);
    let (device, start) = (DeviceNumber::parse(words.next()?)?, words.next()?.parse::<u64>().ok()?);
    let ours = target.kind == "crypt" && cipher == CIPHER && iv.parse() == Ok(target.start);
    let bytes = |sectors: u64| sectors.checked_mul(SECTOR);
    let (at, length) = (bytes(target.start)?, bytes(target.length)?);
    ours.then_some(Segment { at, length, device, start: bytes(start)? })
}

/// The extents that a mapping's segments lie on: the reserved end is counted in again.
#[must_use]
pub fn extents(segments: &[Segment]) -> Vec<Extent> {
    let whole = |length: u64| length.div_ceil(EXTENT).saturating_mul(EXTENT);
    segments.iter().map(|s| Extent { start: s.start, length: whole(s.length) }).collect()
}

/// The same extents with neighbours as one, for comparing.
#[must_use]
pub fn runs(extents: &[Extent]) -> Vec<Extent> {
    let segments = segments(extents, DeviceNumber { major: 0, minor: 0 }, 0);
    segments.iter().map(|s| Extent { start: s.start, length: s.length }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POOL: DeviceNumber = DeviceNumber { major: 254, minor: 2 };

    fn extent(start: u64, count: u64) -> Extent {
        Extent { start: start * EXTENT, length: count * EXTENT }
    }

    #[test]
    fn neighbours_are_one_segment_and_the_end_is_reserved() {
        let extents = [extent(2, 1), extent(3, 2), extent(9, 8)];
        let segments = segments(&extents, POOL, RESERVED);
        let targets: Vec<Target> = segments.iter().map(|s| target(s, "bulkhead:a.b.c")).collect();
        assert_eq!(targets.len(), 2);
        assert_eq!((targets[0].start, targets[0].length), (0, 24576));
        assert_eq!(
            targets[0].parameters,
            "aes-xts-plain64 :64:logon:bulkhead:a.b.c 0 254:2 16384 1 sector_size:4096"
        );
        assert_eq!((targets[1].start, targets[1].length), (24576, 65536 - 2048));
        assert_eq!(
            targets[1].parameters,
            "aes-xts-plain64 :64:logon:bulkhead:a.b.c 24576 254:2 73728 1 sector_size:4096"
        );
    }

    #[test]
    fn tables_of_others_are_not_ours() {
        let good = target(&segments(&[extent(0, 8)], POOL, 0)[0], "bulkhead:x");
        assert!(segment(&good).is_some());
        assert_eq!(segment(&Target { kind: "linear".to_owned(), ..good.clone() }), None);
        assert_eq!(segment(&Target { start: 8, ..good.clone() }), None);
        let other = good.parameters.replace("xts", "cbc");
        assert_eq!(segment(&Target { parameters: other, ..good }), None);
    }

    proptest! {
        #[test]
        fn a_mapping_leads_back_to_its_extents(
            gaps in prop::collection::vec((0_u64..5, 1_u64..9), 1..8),
        ) {
            let mut next = 0;
            let extents: Vec<Extent> = gaps.iter().map(|(gap, count)| {
                let extent = extent(next + gap, *count);
                next += gap + count;
                extent
            }).collect();
            let segments = segments(&extents, POOL, RESERVED);
            let read: Vec<Segment> =
                segments.iter().map(|s| segment(&target(s, "bulkhead:k")).unwrap()).collect();
            prop_assert_eq!(&read, &segments);
            prop_assert_eq!(super::extents(&read), runs(&extents));
            let bytes: u64 = extents.iter().map(|e| e.length).sum();
            prop_assert_eq!(read.iter().map(|s| s.length).sum::<u64>(), bytes - RESERVED);
        }

        #[test]
        fn any_table_is_read_or_refused(parameters in ".{0,120}", start in any::<u64>()) {
            let kind = "crypt".to_owned();
            let _ = segment(&Target { start, length: start, kind, parameters });
        }
    }
}
