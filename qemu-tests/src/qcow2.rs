//! Empty qcow2 images, as QEMU keeps snapshots in nothing else.
//!
//! Written here rather than by `qemu-img`, which the machine may lack. Layout from QEMU's
//! docs/interop/qcow2.rst, version 3: header, refcount table, refcount block and first-level table,
//! a cluster each.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

const CLUSTER: u64 = 1 << CLUSTER_BITS;
const CLUSTER_BITS: u32 = 16;
const REFCOUNT_TABLE: u64 = CLUSTER;
const REFCOUNT_BLOCK: u64 = 2 * CLUSTER;
const FIRST_LEVEL: u64 = 3 * CLUSTER;
const CLUSTERS: usize = 4;
/// Bytes that one first-level entry stands for: a second-level table of 8192 clusters.
const PER_ENTRY: u64 = CLUSTER * (CLUSTER / 8);
const HEADER_LENGTH: u32 = 104;
const BACKING_FORMAT: u32 = 0xe279_2aca;

/// The bytes of an image of `size` bytes that reads as zeros, or as the raw file `backing`.
fn encode(size: u64, backing: Option<&str>) -> Result<Vec<u8>> {
    let entries = u32::try_from(size.div_ceil(PER_ENTRY))?;
    if u64::from(entries) * 8 > CLUSTER {
        bail!("qcow2 image of {size} bytes: at most 4 TiB");
    }
    let name = backing.unwrap_or_default();
    // Two extensions follow the header: "raw" in 16 bytes with its head, and the end mark in 8.
    let name_at = if backing.is_some() { u64::from(HEADER_LENGTH) + 16 + 8 } else { 0 };
    let mut header = Vec::new();
    header.extend(*b"QFI\xfb");
    header.extend(3_u32.to_be_bytes());
    header.extend(name_at.to_be_bytes());
    header.extend(u32::try_from(name.len())?.to_be_bytes());
    header.extend(CLUSTER_BITS.to_be_bytes());
    header.extend(size.to_be_bytes());
    header.extend(0_u32.to_be_bytes()); // not encrypted
    header.extend(entries.to_be_bytes());
    header.extend(FIRST_LEVEL.to_be_bytes());
    header.extend(REFCOUNT_TABLE.to_be_bytes());
    header.extend(1_u32.to_be_bytes()); // clusters of the refcount table
    header.extend([0; 4 + 8]); // no snapshots
    header.extend([0; 3 * 8]); // no feature bits
    header.extend(4_u32.to_be_bytes()); // refcounts of 2^4 bits
    header.extend(HEADER_LENGTH.to_be_bytes());
    if backing.is_some() {
        header.extend(BACKING_FORMAT.to_be_bytes());
        header.extend(3_u32.to_be_bytes());
        header.extend(*b"raw\0\0\0\0\0");
    }
    header.extend([0; 8]); // end of the extensions
    header.extend(name.bytes());
    if header.len() as u64 > CLUSTER {
        bail!("qcow2 image: backing file name of {} bytes", name.len());
    }
    let mut image = header;
    image.resize(usize::try_from(REFCOUNT_TABLE)?, 0);
    image.extend(REFCOUNT_BLOCK.to_be_bytes());
    image.resize(usize::try_from(REFCOUNT_BLOCK)?, 0);
    image.extend([0, 1].repeat(CLUSTERS));
    image.resize(CLUSTERS * usize::try_from(CLUSTER)?, 0);
    Ok(image)
}

/// Makes a blank disk of `size` bytes at `path`; it takes 256 KiB until it is written to.
///
/// # Errors
/// The size is above 4 TiB, or the file cannot be written.
pub fn create_blank(path: &Path, size: u64) -> Result<()> {
    fs::write(path, encode(size, None)?).with_context(|| format!("write {}", path.display()))
}

/// Makes a writable layer over the raw file `backing`, which must stay and not change.
///
/// # Errors
/// `backing` cannot be read, or the file cannot be written.
pub fn create_over(path: &Path, backing: &Path) -> Result<()> {
    let full = fs::canonicalize(backing).with_context(|| format!("find {}", backing.display()))?;
    let size = fs::metadata(&full).with_context(|| format!("look at {}", full.display()))?.len();
    let name = full.to_str().with_context(|| format!("name {} is not UTF-8", full.display()))?;
    fs::write(path, encode(size, Some(name))?).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_says_where_its_parts_are() {
        let image = encode(3 << 30, Some("/a/vars.fd")).unwrap();
        let word = |at: usize| u64::from_be_bytes(image[at..at + 8].try_into().unwrap());
        assert_eq!(image.len() as u64, 4 * CLUSTER);
        assert_eq!(word(24), 3 << 30);
        assert_eq!(u32::from_be_bytes(image[36..40].try_into().unwrap()), 6);
        let name_at = usize::try_from(word(8)).unwrap();
        assert_eq!(&image[name_at..name_at + 10], b"/a/vars.fd");
        assert_eq!(word(usize::try_from(word(48)).unwrap()), REFCOUNT_BLOCK);
    }

    #[test]
    fn an_image_beyond_one_table_cluster_is_refused() {
        assert!(encode(4 << 40, None).is_ok());
        assert!(encode((4 << 40) + 1, None).is_err());
    }
}
