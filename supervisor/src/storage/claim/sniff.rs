//! What a stranger's disk seems to hold, in words for people: pure. Decides nothing.

use crate::storage::gpt::count_entries;

/// Where a signature is, what it looks like, and what it means.
const SIGNATURES: [(usize, &[u8], &str); 12] = [
    (0x438, &[0x53, 0xef], "ext4"),
    (0, b"XFSB", "XFS"),
    (0x1_0040, b"_BHRfS_M", "btrfs"),
    (0, b"LUKS\xba\xbe", "LUKS"),
    (512, b"LABELONE", "LVM"),
    (0, b"LABELONE", "LVM"),
    (4096, &[0xfc, 0x4e, 0x2b, 0xa9], "Linux RAID"),
    (4086, b"SWAPSPACE2", "swap"),
    (3, b"NTFS    ", "NTFS"),
    (82, b"FAT32   ", "FAT"),
    (0x8001, b"CD001", "an ISO 9660 image"),
    (0, b"bluestore block device", "Ceph BlueStore"),
];

/// `head` are the first bytes of the disk, `tail` the last ones.
#[must_use]
pub fn name(head: &[u8], tail: &[u8], size: u64, sector: u32) -> String {
    let at = |from: usize, what: &[u8]| head.get(from..).is_some_and(|rest| rest.starts_with(what));
    let sector = usize::try_from(sector).unwrap_or(512);
    if at(sector, b"EFI PART") {
        let from = sector.saturating_mul(2);
        let table = head.get(from..from.saturating_add(16384)).unwrap_or_default();
        return match count_entries(table) {
            1 => "GPT with 1 partition".to_owned(),
            count => format!("GPT with {count} partitions"),
        };
    }
    if let Some((_, _, what)) = SIGNATURES.iter().find(|(from, what, _)| at(*from, what)) {
        return (*what).to_owned();
    }
    if at(510, &[0x55, 0xaa]) {
        let table = head.get(446..510).unwrap_or_default();
        let used = table.chunks_exact(16).filter(|entry| entry.get(4) != Some(&0)).count();
        return format!("MBR with {used} partitions");
    }
    let last_header = tail.len().checked_sub(sector).and_then(|from| tail.get(from..));
    if last_header.is_some_and(|rest| rest.starts_with(b"EFI PART")) {
        return "a GPT backup table at its end".to_owned();
    }
    let first = |bytes: &[u8]| bytes.iter().position(|&byte| byte != 0).map(|n| n as u64);
    let tail_from = size.saturating_sub(tail.len() as u64);
    let byte = first(head).or_else(|| first(tail).map(|n| n.saturating_add(tail_from)));
    byte.map_or_else(|| "nothing that was read".to_owned(), |n| format!("not zero at byte {n}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: u64 = 1 << 30;

    fn with(at: usize, what: &[u8]) -> Vec<u8> {
        let mut head = vec![0; 1 << 20];
        head[at..at + what.len()].copy_from_slice(what);
        head
    }

    #[test]
    fn well_known_contents_are_named() {
        let empty = vec![0; 1 << 20];
        for (at, what, name_) in SIGNATURES {
            assert_eq!(name(&with(at, what), &empty, SIZE, 512), name_);
        }
        let mut gpt = with(512, b"EFI PART");
        gpt[1024] = 1;
        gpt[1024 + 128] = 1;
        gpt[1024 + 256] = 1;
        assert_eq!(name(&gpt, &empty, SIZE, 512), "GPT with 3 partitions");
        let mut mbr = with(510, &[0x55, 0xaa]);
        mbr[450] = 0x83;
        assert_eq!(name(&mbr, &empty, SIZE, 512), "MBR with 1 partitions");
    }

    #[test]
    fn what_is_unknown_is_said_by_its_first_byte() {
        let empty = vec![0; 1 << 20];
        assert_eq!(name(&with(77, &[1]), &empty, SIZE, 512), "not zero at byte 77");
        let byte = SIZE - (1 << 20) + 5;
        assert_eq!(name(&empty, &with(5, &[1]), SIZE, 512), format!("not zero at byte {byte}"));
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_name(
            head in prop::collection::vec(any::<u8>(), 0..2000),
            tail in prop::collection::vec(any::<u8>(), 0..2000),
            size in any::<u64>(), sector in any::<u32>(),
        ) {
            prop_assert!(!name(&head, &tail, size, sector).is_empty());
        }
    }
}
