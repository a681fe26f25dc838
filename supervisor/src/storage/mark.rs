//! Two blocks beside the partitions that say whose disk it is and whether it holds the host's state: pure.
//!
//! ```text
//!  magic, 16 bytes │ disk's GUID, 16 │ length of the text, 4 │ text │ SHA-256 of all before, 32 │ zeros
//! ```

use ring::digest::{SHA256, digest};

use super::gpt::Guid;

/// Length of a block: no disk writes less than a sector.
pub const BLOCK: usize = 4096;
/// Where the block is that names the host.
pub const OWNER_AT: u64 = 1 << 20;
/// Where the block is that says that the state partition holds a file system of ours.
pub const STATE_AT: u64 = 2 << 20;

const TEXT_AT: usize = 36;
const MOST_TEXT: usize = 256;

/// Which block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Names the host, by its system UUID; empty text where the firmware has none.
    Owner,
    /// The state partition was formatted: it is never formatted again. No text.
    State,
}

impl Kind {
    const fn magic(self) -> [u8; 16] {
        match self {
            Self::Owner => *b"bulkhead-owner-1",
            Self::State => *b"bulkhead-state-1",
        }
    }
}

/// What a place for a block holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Block {
    /// Only zeros.
    Absent,
    /// A whole block of that kind for that disk, with its text.
    Whole(String),
    /// Anything else.
    Damaged,
}

/// The bytes of a block; text above 256 bytes is cut, which no UUID is.
#[must_use]
pub fn encode(kind: Kind, disk: Guid, text: &str) -> Vec<u8> {
    let text = text.get(..text.len().min(MOST_TEXT)).unwrap_or_default();
    let mut bytes = kind.magic().to_vec();
    bytes.extend(disk.on_disk());
    bytes.extend(u32::try_from(text.len()).unwrap_or_default().to_le_bytes());
    bytes.extend(text.as_bytes());
    let sum = digest(&SHA256, &bytes);
    bytes.extend(sum.as_ref());
    bytes.resize(BLOCK, 0);
    bytes
}

/// Reads a block of that kind and disk.
#[must_use]
pub fn decode(kind: Kind, disk: Guid, bytes: &[u8]) -> Block {
    if bytes.iter().all(|&byte| byte == 0) {
        return Block::Absent;
    }
    let text = || {
        let length: [u8; 4] = bytes.get(32..TEXT_AT)?.try_into().ok()?;
        let length = usize::try_from(u32::from_le_bytes(length)).ok()?;
        let text = bytes.get(TEXT_AT..TEXT_AT.checked_add(length)?)?;
        let text = std::str::from_utf8(text).ok()?;
        (encode(kind, disk, text) == bytes).then(|| text.to_owned())
    };
    text().map_or(Block::Damaged, Block::Whole)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DISK: Guid = Guid::random([3; 16]);

    #[test]
    fn a_block_of_another_disk_or_kind_is_damaged() {
        let bytes = encode(Kind::Owner, DISK, "x");
        assert_eq!(decode(Kind::Owner, DISK, &bytes), Block::Whole("x".to_owned()));
        assert_eq!(decode(Kind::State, DISK, &bytes), Block::Damaged);
        assert_eq!(decode(Kind::Owner, Guid::random([4; 16]), &bytes), Block::Damaged);
        assert_eq!(decode(Kind::Owner, DISK, &[0; BLOCK]), Block::Absent);
    }

    proptest! {
        #[test]
        fn any_text_that_fits_comes_back(text in ".{0,60}") {
            let bytes = encode(Kind::State, DISK, &text);
            prop_assert_eq!(decode(Kind::State, DISK, &bytes), Block::Whole(text));
        }

        #[test]
        fn one_other_byte_is_damage(at in 0_usize..BLOCK, by in 1_u8..) {
            let mut bytes = encode(Kind::Owner, DISK, "4c4c4544");
            bytes[at] ^= by;
            prop_assert_eq!(decode(Kind::Owner, DISK, &bytes), Block::Damaged);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(Kind::Owner, DISK, &bytes);
        }
    }
}
