//! `/proc/self/pagemap`: which frame of physical memory is behind a page of ours (Linux,
//! Documentation/admin-guide/mm/pagemap.rst). Pure.

/// Bytes of an entry.
pub(super) const ENTRY: usize = 8;
/// The page is present.
const PRESENT: u64 = 1 << 63;
/// Bits 0 to 54: the frame's number.
const FRAME: u64 = (1 << 55) - 1;

/// Reads entries; `None` where one is not present, or where the kernel hides the numbers (it says 0 to whoever has no
/// `CAP_SYS_ADMIN`).
pub(super) fn frames(entries: &[u8]) -> Option<Vec<u64>> {
    let whole = entries.chunks_exact(ENTRY);
    if !whole.remainder().is_empty() {
        return None;
    }
    whole
        .map(|entry| {
            let entry = u64::from_le_bytes(entry.try_into().ok()?);
            let frame = entry & FRAME;
            (entry & PRESENT != 0 && frame != 0).then_some(frame)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_present_pages_with_a_number_have_a_frame() {
        let entries =
            |list: &[u64]| list.iter().flat_map(|entry| entry.to_le_bytes()).collect::<Vec<_>>();
        let other = 0x7f << 55;
        assert_eq!(frames(&entries(&[PRESENT | 7, PRESENT | other | FRAME])), Some(vec![7, FRAME]));
        for bad in [7, PRESENT, 1 << 62 | 7, 0] {
            assert_eq!(frames(&entries(&[PRESENT | 7, bad])), None, "{bad:x}");
        }
        assert_eq!(frames(&entries(&[PRESENT | 7])[..7]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Some(frames) = frames(&bytes) {
                prop_assert_eq!(frames.len() * ENTRY, bytes.len());
            }
        }
    }
}
