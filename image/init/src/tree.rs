//! The dm-verity hash tree (kernel `Documentation/admin-guide/device-mapper/verity.rst`, version 1 without superblock).
//!
//! ```text
//!  data block 0 .. N-1 │ top level: 1 block │ ... │ level 0: a digest of each data block
//!                        SHA-256 of it with the salt before it = root hash
//! ```
//!
//! A block of a level holds the digests of 128 blocks of the level below it. dm-verity checks the same when a block is read.
//! Checked here, a damaged image is refused before anything of it runs, by block number, and can be fetched again.

use sha2::{Digest as _, Sha256};

/// Bytes of a data or hash block.
pub const BLOCK: usize = 4096;
/// Digests in a hash block.
const FAN: u64 = 128;

/// SHA-256 of a block.
pub type Digest = [u8; 32];

/// An image that is not what the root hash stands for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    /// A hash block.
    #[error("verity: hash block {block} of level {level} is corrupted")]
    Tree {
        /// Level above the data, from 0.
        level: usize,
        /// Block of that level, from 0.
        block: usize,
    },
    /// A data block.
    #[error("verity: data block {block} is corrupted")]
    Data {
        /// Block, from 0.
        block: u64,
    },
    /// Data or tree have another length.
    #[error("verity: the image has another number of blocks than its hash tree")]
    Length,
}

/// Hash blocks of each level, the one above the data first. One data block needs no tree: the root hash is its digest.
#[must_use]
pub fn levels(data_blocks: u64) -> Vec<u64> {
    let mut levels = Vec::new();
    let mut blocks = data_blocks;
    while blocks > 1 {
        blocks = blocks.div_ceil(FAN);
        levels.push(blocks);
    }
    levels
}

/// Bytes of an image of so many data blocks with its tree; `None` if that is no number.
#[must_use]
pub fn image_size(data_blocks: u64) -> Option<u64> {
    let tree: u64 = levels(data_blocks).iter().sum();
    data_blocks.checked_add(tree)?.checked_mul(BLOCK as u64)
}

/// Hashes blocks behind one salt.
#[derive(Debug, Clone)]
pub struct Hasher {
    salted: Sha256,
}

impl Hasher {
    /// With this salt.
    #[must_use]
    pub fn new(salt: &[u8]) -> Self {
        Self { salted: Sha256::new_with_prefix(salt) }
    }

    /// Digest of a block.
    #[must_use]
    pub fn digest(&self, block: &[u8]) -> Digest {
        self.salted.clone().chain_update(block).finalize().into()
    }

    /// Checks the bytes behind the data against the root hash, from the root down: the first block named is damaged itself.
    /// Returns what the digests of the data blocks must be; there may be more, by the padding of the last hash block.
    ///
    /// # Errors
    /// [`Corrupt::Tree`], [`Corrupt::Length`].
    pub fn check_tree(
        &self,
        root: Digest,
        data_blocks: u64,
        tree: &[u8],
    ) -> Result<Vec<Digest>, Corrupt> {
        let (mut expected, mut rest) = (vec![root], tree);
        for (level, &blocks) in levels(data_blocks).iter().enumerate().rev() {
            let length = usize::try_from(blocks).ok().and_then(|blocks| blocks.checked_mul(BLOCK));
            let (this, below) =
                length.and_then(|length| rest.split_at_checked(length)).ok_or(Corrupt::Length)?;
            if let Some(block) = self.first_damaged(&expected, this)? {
                return Err(Corrupt::Tree { level, block });
            }
            expected = this.as_chunks::<32>().0.to_vec();
            rest = below;
        }
        if rest.is_empty() { Ok(expected) } else { Err(Corrupt::Length) }
    }

    /// The first of `blocks` that has not its expected digest.
    ///
    /// # Errors
    /// [`Corrupt::Length`]: there are more blocks than digests, or none.
    pub fn first_damaged(
        &self,
        expected: &[Digest],
        blocks: &[u8],
    ) -> Result<Option<usize>, Corrupt> {
        if blocks.is_empty() || expected.len() < blocks.len().div_ceil(BLOCK) {
            return Err(Corrupt::Length);
        }
        let mut found = blocks.chunks(BLOCK).zip(expected);
        Ok(found.position(|(block, expected)| self.digest(block) != *expected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SALT: &[u8] = b"salt of the test, any length";

    fn sha256(parts: &[&[u8]]) -> Vec<u8> {
        let mut hash = Sha256::new();
        parts.iter().for_each(|part| hash.update(part));
        hash.finalize().to_vec()
    }

    /// The tree made bottom-up, as the kernel's documentation describes it; returns (root hash, tree bytes).
    fn made(data: &[u8]) -> (Digest, Vec<u8>) {
        let mut below = data.to_vec();
        let mut levels: Vec<Vec<u8>> = Vec::new();
        while below.len() > BLOCK {
            let mut level: Vec<u8> =
                below.chunks(BLOCK).flat_map(|block| sha256(&[SALT, block])).collect();
            level.resize(level.len().next_multiple_of(BLOCK), 0);
            levels.push(level.clone());
            below = level;
        }
        let tree = levels.into_iter().rev().flatten().collect();
        (sha256(&[SALT, &below]).try_into().unwrap(), tree)
    }

    fn data(blocks: usize) -> Vec<u8> {
        (0..blocks * BLOCK).map(|at| ((at / 7 + at / BLOCK) % 251).try_into().unwrap()).collect()
    }

    fn check(root: Digest, data: &[u8], tree: &[u8]) -> Result<(), Corrupt> {
        let hasher = Hasher::new(SALT);
        let expected = hasher.check_tree(root, data.len().div_ceil(BLOCK) as u64, tree)?;
        match hasher.first_damaged(&expected, data)? {
            Some(block) => Err(Corrupt::Data { block: block as u64 }),
            None => Ok(()),
        }
    }

    #[test]
    fn trees_of_no_one_and_two_levels_are_accepted() {
        for blocks in [1, 2, 127, 128, 129, 300] {
            let data = data(blocks);
            let (root, tree) = made(&data);
            assert_eq!(check(root, &data, &tree), Ok(()), "{blocks} blocks");
            let whole = (data.len() + tree.len()) as u64;
            assert_eq!(image_size(blocks as u64), Some(whole), "{blocks} blocks");
        }
    }

    #[test]
    fn the_damaged_block_is_named() {
        let (mut data, flip) = (data(300), |bytes: &mut [u8], at: usize| bytes[at] ^= 1);
        let (root, mut tree) = made(&data);
        flip(&mut data, 200 * BLOCK + 17);
        assert_eq!(check(root, &data, &tree), Err(Corrupt::Data { block: 200 }));
        flip(&mut data, 200 * BLOCK + 17);
        flip(&mut tree, 5);
        assert_eq!(check(root, &data, &tree), Err(Corrupt::Tree { level: 1, block: 0 }));
        flip(&mut tree, 5);
        flip(&mut tree, BLOCK + 2 * BLOCK);
        assert_eq!(check(root, &data, &tree), Err(Corrupt::Tree { level: 0, block: 2 }));
    }

    #[test]
    fn another_length_is_refused() {
        let data = data(130);
        let (root, tree) = made(&data);
        assert_eq!(check(root, &data, &tree[..tree.len() - 1]), Err(Corrupt::Length));
        assert_eq!(check(root, &data, &[&tree[..], &[0]].concat()), Err(Corrupt::Length));
        assert_eq!(check(root, &[], &[]), Err(Corrupt::Length));
        assert!(check(root, &data[..BLOCK], &tree).is_err());
    }

    #[test]
    fn sizes_beyond_all_numbers_are_none() {
        assert_eq!(image_size(u64::MAX), None);
        assert_eq!(image_size(u64::MAX / 4096), None);
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_found(blocks in 1usize..140, at: prop::sample::Index, bit in 0u8..8) {
            let data = data(blocks);
            let (root, tree) = made(&data);
            let mut whole = [data.clone(), tree].concat();
            let at = at.index(whole.len());
            whole[at] ^= 1 << bit;
            let (data, tree) = whole.split_at(data.len());
            prop_assert!(check(root, data, tree).is_err());
        }

        #[test]
        fn any_bytes_are_refused(root: Digest, data in prop::collection::vec(any::<u8>(), 0..9000), tree in prop::collection::vec(any::<u8>(), 0..9000)) {
            prop_assert!(check(root, &data, &tree).is_err());
        }
    }
}
