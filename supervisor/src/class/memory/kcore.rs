//! `/proc/kcore`: the kernel's memory as an ELF core file (Linux, fs/proc/kcore.c). Only the headers are read here,
//! to find where in the file a page of physical memory is. Pure.

/// Of the file header and of each program header, in 64-bit ELF (elf(5)).
pub(super) const FILE_HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
/// `PT_LOAD`.
const LOAD: u32 = 1;

/// Where the program headers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Headers {
    /// First byte in the file.
    pub(super) offset: u64,
    /// Bytes of all of them.
    pub(super) length: usize,
}

/// A stretch of physical memory in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    physical: u64,
    length: u64,
    offset: u64,
}

fn bytes<const N: usize>(from: &[u8], at: usize) -> Option<[u8; N]> {
    from.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// Reads the file header.
pub(super) fn headers(file: &[u8]) -> Result<Headers, &'static str> {
    // Magic number, 64-bit, little-endian.
    if file.get(..6) != Some(&[0x7f, b'E', b'L', b'F', 2, 1]) {
        return Err("not a 64-bit ELF file");
    }
    let short = "its header is cut off";
    let offset = u64::from_le_bytes(bytes(file, 32).ok_or(short)?);
    let size = u16::from_le_bytes(bytes(file, 54).ok_or(short)?);
    let count = u16::from_le_bytes(bytes(file, 56).ok_or(short)?);
    if usize::from(size) != PROGRAM_HEADER {
        return Err("its program headers have another size");
    }
    Ok(Headers { offset, length: usize::from(count) * PROGRAM_HEADER })
}

/// Reads the program headers: what is loaded and has a physical address.
pub(super) fn segments(table: &[u8]) -> Vec<Segment> {
    let segment = |header: &[u8]| {
        let number = |at| Some(u64::from_le_bytes(bytes(header, at)?));
        let kind = u32::from_le_bytes(bytes(header, 0)?);
        let segment = Segment { offset: number(8)?, physical: number(24)?, length: number(40)? };
        // What has no physical address (vmalloc, modules) says -1.
        (kind == LOAD && segment.physical != u64::MAX).then_some(segment)
    };
    table.chunks_exact(PROGRAM_HEADER).filter_map(segment).collect()
}

/// Where `length` bytes of physical memory from `address` on are in the file; `None` where they are not in one piece.
pub(super) fn locate(segments: &[Segment], address: u64, length: u64) -> Option<u64> {
    segments.iter().find_map(|segment| {
        let into = address.checked_sub(segment.physical)?;
        let end = into.checked_add(length)?;
        (end <= segment.length).then(|| segment.offset.checked_add(into)).flatten()
    })
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(kind: u32, offset: u64, physical: u64, length: u64) -> Vec<u8> {
        let mut header = vec![0; PROGRAM_HEADER];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        for (at, number) in [(8, offset), (24, physical), (32, length), (40, length)] {
            header[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        header
    }

    /// A core file of that memory, which begins at physical address `physical`.
    pub(in super::super) fn core(physical: u64, memory: &[u8]) -> Vec<u8> {
        let length = u64::try_from(memory.len()).unwrap();
        let start = 64 + 3 * 56;
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
        file[32] = 64;
        file[54] = 56;
        file[56] = 3;
        file.extend(header(4, 0, 0, 0));
        file.extend(header(LOAD, 9, u64::MAX, 1 << 40));
        file.extend(header(LOAD, start, physical, length));
        file.extend(memory);
        file
    }

    #[test]
    fn a_page_is_found_where_the_kernel_says_and_nowhere_else() {
        let file = core(0x10_0000, &[0; 0x3000]);
        let headers = headers(&file).unwrap();
        assert_eq!(headers, Headers { offset: 64, length: 3 * 56 });
        let table = &file[64..64 + headers.length];
        let segments = segments(table);
        assert_eq!(segments.len(), 1, "notes and what has no physical address are left out");
        let start = 64 + 3 * 56;
        assert_eq!(locate(&segments, 0x10_0000, 4096), Some(start));
        assert_eq!(locate(&segments, 0x10_2000, 4096), Some(start + 0x2000));
        for outside in [0, 0xf_f000, 0x10_2001, 0x10_3000, u64::MAX, u64::MAX - 4095] {
            assert_eq!(locate(&segments, outside, 4096), None, "{outside:x}");
        }
    }

    #[test]
    fn what_is_no_core_file_is_refused() {
        let good = core(0, &[]);
        for (at, value) in [(0, 0), (4, 1), (5, 2), (54, 55)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert!(headers(&bad).is_err(), "{at}");
        }
        for length in 0..58 {
            assert!(headers(&good[..length]).is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            file in prop::collection::vec(any::<u8>(), 0..300), address: u64, length: u64,
        ) {
            let _ = headers(&file);
            let found = segments(&file);
            if let Some(offset) = locate(&found, address, length) {
                prop_assert!(found.iter().any(|s| s.offset <= offset && s.physical <= address));
            }
        }
    }
}
