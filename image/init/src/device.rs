//! From an image in memory to a block device: loop device, and dm-verity over it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use bulkhead_api::boot::VerityImage;
use nix::errno::Errno;

use crate::sys;

/// A block device could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// It was never fetched: a mistake of this program.
    #[error("image {0} was not fetched")]
    NotFetched(String),
    /// A device node.
    #[error("open {0}")]
    Open(String, #[source] io::Error),
    /// A loop device.
    #[error("attach image {image} to a loop device")]
    Loop {
        /// The image.
        image: String,
        /// Why.
        source: Errno,
    },
    /// dm-verity.
    #[error("set up dm-verity for image {image}")]
    Verity {
        /// The image.
        image: String,
        /// Why.
        source: Errno,
    },
}

fn open(path: &str, write: bool) -> Result<File, DeviceError> {
    OpenOptions::new()
        .read(true)
        .write(write)
        .open(path)
        .map_err(|source| DeviceError::Open(path.to_owned(), source))
}

/// Makes the block device of an image in memory: read only, each block checked when it is read.
///
/// # Errors
/// [`DeviceError`].
pub fn verity(image: &VerityImage, memory: &OwnedFd) -> Result<PathBuf, DeviceError> {
    let control = open("/dev/loop-control", true)?;
    let failed = |source| DeviceError::Loop { image: image.name.clone(), source };
    let number = sys::free_loop(&control).map_err(failed)?;
    let node = format!("/dev/loop{number}");
    sys::attach_loop(&open(&node, false)?, memory.as_fd()).map_err(failed)?;

    let control = open("/dev/mapper/control", true)?;
    let name = format!("bulkhead-{}", image.name);
    let device = sys::map(&control, &name, sectors(image), "verity", &table(image, &node))
        .map_err(|source| DeviceError::Verity { image: image.name.clone(), source })?;
    // huge device numbers (kernel `include/linux/kdev_t.h`, new_encode_dev)
    let minor = (device & 0xff) | ((device >> 12) & 0xf_ff00);
    Ok(PathBuf::from(format!("/dev/dm-{minor}")))
}

/// Length of the data in sectors of 512 bytes.
fn sectors(image: &VerityImage) -> u64 {
    image.data_blocks.saturating_mul(8)
}

/// Parameters of the target (kernel `Documentation/admin-guide/device-mapper/verity.rst`). A block that goes bad in memory
/// restarts the machine: it must not run on with an unreadable file.
fn table(image: &VerityImage, node: &str) -> String {
    let VerityImage { root_hash, salt, data_blocks: n, .. } = image;
    format!("1 {node} {node} 4096 4096 {n} {n} sha256 {root_hash} {salt} 1 restart_on_corruption")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_the_tree_behind_the_data() {
        let image = VerityImage {
            name: "root".into(),
            root_hash: "ab".repeat(32),
            salt: "00ff".into(),
            data_blocks: 10,
            size: 0,
            crc32: None,
        };
        let hash = "ab".repeat(32);
        let table = table(&image, "/dev/loop3");
        let expected = format!(
            "1 /dev/loop3 /dev/loop3 4096 4096 10 10 sha256 {hash} 00ff 1 restart_on_corruption"
        );
        assert_eq!(table, expected);
        assert_eq!(sectors(&image), 80);
    }
}
