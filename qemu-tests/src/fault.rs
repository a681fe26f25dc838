//! Damage done on purpose.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

/// Flips bit `bit` (0..=7) of the byte at `offset` in place.
///
/// # Errors
/// The file has no such byte or cannot be written.
pub fn flip_bit(path: &Path, offset: u64, bit: u8) -> Result<()> {
    let name = || format!("flip a bit of {}", path.display());
    let file = File::options().read(true).write(true).open(path).with_context(name)?;
    let mut byte = [0_u8];
    file.read_exact_at(&mut byte, offset).with_context(name)?;
    let flipped = byte.map(|b| b ^ (1_u8 << (bit % 8)));
    file.write_all_at(&flipped, offset).with_context(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_bit_changes_and_flipping_twice_restores() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, [0, 0b100, 0]).unwrap();
        flip_bit(&path, 1, 3).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), [0, 0b1100, 0]);
        flip_bit(&path, 1, 3).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), [0, 0b100, 0]);
        assert!(flip_bit(&path, 3, 0).is_err());
    }
}
