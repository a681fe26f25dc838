//! The bound of huge pages of a lease's control group (Linux, Documentation/admin-guide/cgroup-v2.rst, "HugeTLB").
//!
//! Without it any program could take pages of the pool that are another lease's, so it holds for leases without huge
//! pages too: theirs is 0.

use std::path::{Path, PathBuf};

use bulkhead_api::id::LeaseId;
use bulkhead_api::lease::HeldHugepages;
use bulkhead_api::resource::PageSize;

use super::super::ClassError;
use super::super::text;
use crate::tenant::cgroup;
use crate::tenant::name::{self, Kind};

const CONTROLLER: &str = "hugetlb";

/// As the kernel writes the size in names of files.
const fn written(size: PageSize) -> &'static str {
    match size {
        PageSize::TwoMiB => "2MB",
        PageSize::OneGiB => "1GB",
    }
}

fn group(root: &Path, lease: &LeaseId) -> PathBuf {
    cgroup::tenants(root).join(name::unit(lease, Kind::Slice))
}

/// Files of the bounds with what is to be in them; sizes that the kernel does not offer have none.
fn wanted(root: &Path, lease: &LeaseId, held: Option<&HeldHugepages>) -> Vec<(PathBuf, u64)> {
    let group = group(root, lease);
    let mut files = Vec::new();
    for size in PageSize::ALL {
        let held = held.filter(|held| held.page_size == size);
        let pages: u64 = held.iter().flat_map(|held| &held.pages).map(|node| node.pages).sum();
        let bytes = pages.saturating_mul(size.bytes().get());
        for file in ["rsvd.max", "max"] {
            let path = group.join(format!("{CONTROLLER}.{}.{file}", written(size)));
            if path.exists() {
                files.push((path, bytes));
            }
        }
    }
    files
}

/// Bounds the huge pages of a lease whose control group is there, and reads it back. Done again, it changes nothing.
///
/// # Errors
/// [`ClassError`]; [`ClassError::Unsupported`] where the kernel has no such bound.
pub fn set(root: &Path, lease: &LeaseId, held: Option<&HeldHugepages>) -> Result<(), ClassError> {
    let tenants = cgroup::tenants(root);
    for dir in [root.join("sys/fs/cgroup"), tenants] {
        let has = |file: &str| -> Result<bool, ClassError> {
            Ok(text::read(&dir.join(file))?.split_whitespace().any(|word| word == CONTROLLER))
        };
        if !has("cgroup.controllers")? {
            let why = "the kernel has no control groups for huge pages: leases cannot have any";
            return match held {
                Some(_) => Err(ClassError::Unsupported(why.to_owned())),
                // Then there are none to take either: without leases that have them the pools are empty.
                None => Ok(()),
            };
        }
        if !has("cgroup.subtree_control")? {
            text::write(&dir.join("cgroup.subtree_control"), &format!("+{CONTROLLER}"))?;
        }
    }
    let wanted = wanted(root, lease, held);
    if wanted.is_empty() && held.is_some() {
        let what = format!("bounds of huge pages in {}", group(root, lease).display());
        return Err(ClassError::ReadBack {
            what,
            expected: "there".to_owned(),
            found: "none".to_owned(),
        });
    }
    for (path, bytes) in wanted {
        if bound(&path)? != Some(bytes) {
            text::write(&path, &bytes.to_string())?;
        }
        let found = bound(&path)?;
        if found != Some(bytes) {
            return Err(ClassError::ReadBack {
                what: path.display().to_string(),
                expected: bytes.to_string(),
                found: found.map_or_else(|| "max".to_owned(), |found| found.to_string()),
            });
        }
    }
    Ok(())
}

/// What of a lease's bounds is not as it should be; `None` where all are.
///
/// # Errors
/// What could not be read.
pub fn drift(
    root: &Path,
    lease: &LeaseId,
    held: Option<&HeldHugepages>,
) -> Result<Option<String>, ClassError> {
    let wanted = wanted(root, lease, held);
    if wanted.is_empty() && held.is_some() {
        return Ok(Some("its control group has no bound of huge pages".to_owned()));
    }
    for (path, bytes) in wanted {
        let found = bound(&path)?;
        if found != Some(bytes) {
            let found = found.map_or_else(|| "max".to_owned(), |found| found.to_string());
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            return Ok(Some(format!("{file} is {found}, not {bytes}")));
        }
    }
    Ok(None)
}

/// `max` is `None`.
fn bound(path: &Path) -> Result<Option<u64>, ClassError> {
    let text = text::read(path)?;
    if text == "max" {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| text::odd(path, "a number or max", &text))
}
