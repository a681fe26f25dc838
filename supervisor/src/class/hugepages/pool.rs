//! The kernel's pool of huge pages, node by node (Linux, Documentation/admin-guide/mm/hugetlbpage.rst).

use std::path::{Path, PathBuf};

use bulkhead_api::resource::PageSize;

use super::super::ClassError;
use super::super::text;

/// `hugepages-2048kB` of a node.
fn dir(root: &Path, node: u32, size: PageSize) -> PathBuf {
    let kib = size.bytes().get() >> 10;
    root.join(format!("sys/devices/system/node/node{node}/hugepages/hugepages-{kib}kB"))
}

/// Pages of the pool, used ones among them.
pub(super) fn total(root: &Path, node: u32, size: PageSize) -> Result<u64, ClassError> {
    text::number(&dir(root, node, size).join("nr_hugepages"))
}

/// Pages that nobody has.
pub(super) fn free(root: &Path, node: u32, size: PageSize) -> Result<u64, ClassError> {
    text::number(&dir(root, node, size).join("free_hugepages"))
}

/// Sets how many there are to be; the kernel goes as far as it can. How many there are then.
pub(super) fn set(root: &Path, node: u32, size: PageSize, pages: u64) -> Result<u64, ClassError> {
    let path = dir(root, node, size).join("nr_hugepages");
    text::write(&path, &pages.to_string())?;
    let got = text::number(&path)?;
    let compact = root.join(format!("sys/devices/system/node/node{node}/compact"));
    if got >= pages || !compact.exists() {
        return Ok(got);
    }
    // Memory in small pieces is moved together, once.
    text::write(&compact, "1")?;
    text::write(&path, &pages.to_string())?;
    text::number(&path)
}
