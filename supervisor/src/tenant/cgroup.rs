//! Reads a control group back: the limits that hold, and who is in it.
//!
//! Files: Linux, Documentation/admin-guide/cgroup-v2.rst.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use bulkhead_api::lease::CpuPartition;
use bulkhead_api::units::Bytes;

use crate::host::cpulist;
use crate::tenant::model::{Limits, ObservedSlice};
use crate::tenant::name::ROOT_SLICE;

/// A control group could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The file system refuses.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Text of another form.
    #[error("{path} is {text:?}")]
    Form {
        /// The file.
        path: PathBuf,
        /// Its text.
        text: String,
    },
}

/// The control group of the slice above all leases.
#[must_use]
pub fn tenants(root: &Path) -> PathBuf {
    root.join("sys/fs/cgroup").join(ROOT_SLICE)
}

fn text(path: &Path) -> Result<String, CgroupError> {
    fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .map_err(|source| CgroupError::Read { path: path.to_owned(), source })
}

fn form(path: &Path, text: &str) -> CgroupError {
    CgroupError::Form { path: path.to_owned(), text: text.to_owned() }
}

/// `max` is `None`.
fn amount(path: &Path) -> Result<Option<u64>, CgroupError> {
    match text(path)?.as_str() {
        "max" => Ok(None),
        number => number.parse().map(Some).map_err(|_| form(path, number)),
    }
}

fn numbers(path: &Path) -> Result<BTreeSet<u32>, CgroupError> {
    let text = text(path)?;
    cpulist::parse(&text).ok_or_else(|| form(path, &text))
}

/// What holds for a slice; `None` where there is no such control group.
///
/// CPUs and nodes are the effective ones; `active` and `hugepages` are left empty, they are systemd's and the record's to say; a file that a controller would give and does not is no limit.
///
/// # Errors
/// [`CgroupError`].
pub fn slice(dir: &Path) -> Result<Option<ObservedSlice>, CgroupError> {
    let unless_absent = |result: Result<Option<u64>, CgroupError>| match result {
        Err(CgroupError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
        other => other,
    };
    let set = |file: &str| match numbers(&dir.join(file)) {
        Err(CgroupError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => {
            Ok(BTreeSet::new())
        }
        other => other,
    };
    let Some(populated) = populated(dir)? else {
        return Ok(None);
    };
    let limits = Limits {
        cpus: set("cpuset.cpus.effective")?,
        memory_nodes: set("cpuset.mems.effective")?,
        memory: unless_absent(amount(&dir.join("memory.max")))?.map(Bytes::new),
        swap: unless_absent(amount(&dir.join("memory.swap.max")))?.map(Bytes::new),
        tasks: unless_absent(amount(&dir.join("pids.max")))?,
        partition: partition(&dir.join("cpuset.cpus.partition"))?,
    };
    Ok(Some(ObservedSlice { limits, hugepages: None, active: false, populated }))
}

/// A partition that the kernel calls invalid does not hold: it is none.
fn partition(path: &Path) -> Result<CpuPartition, CgroupError> {
    match text(path) {
        Ok(text) if text == "isolated" => Ok(CpuPartition::Isolated),
        Ok(_) => Ok(CpuPartition::Member),
        Err(CgroupError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => {
            Ok(CpuPartition::Member)
        }
        Err(error) => Err(error),
    }
}

/// Whether any process is in a control group or below it; `None` where there is none.
///
/// # Errors
/// [`CgroupError`].
pub fn populated(dir: &Path) -> Result<Option<bool>, CgroupError> {
    let path = dir.join("cgroup.events");
    match text(&path) {
        Ok(events) => Ok(Some(events.lines().any(|line| line == "populated 1"))),
        Err(CgroupError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
        // The group went away between open and read.
        Err(CgroupError::Read { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Process ids in a control group; none where there is none.
///
/// # Errors
/// [`CgroupError`].
pub fn processes(dir: &Path) -> Result<BTreeSet<u32>, CgroupError> {
    let path = dir.join("cgroup.procs");
    let text = match text(&path) {
        Err(CgroupError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => {
            return Ok(BTreeSet::new());
        }
        other => other?,
    };
    text.lines().map(|line| line.parse().map_err(|_| form(&path, line))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    #[test]
    fn limits_are_read_as_the_kernel_writes_them() {
        let dir = group(&[
            ("cgroup.events", "populated 1\nfrozen 0\n"),
            ("cpuset.cpus.effective", "2-3,6\n"),
            ("cpuset.mems.effective", "1\n"),
            ("memory.max", "536870912\n"),
            ("memory.swap.max", "0\n"),
            ("pids.max", "max\n"),
        ]);
        let slice = slice(dir.path()).unwrap().unwrap();
        assert!(slice.populated);
        assert_eq!(
            slice.limits,
            Limits {
                cpus: BTreeSet::from([2, 3, 6]),
                memory_nodes: BTreeSet::from([1]),
                memory: Some(Bytes::new(512 << 20)),
                swap: Some(Bytes::new(0)),
                tasks: None,
                partition: CpuPartition::Member,
            }
        );
    }

    #[test]
    fn a_controller_that_is_off_is_no_limit_and_a_missing_group_is_none() {
        let dir = group(&[("cgroup.events", "populated 0\n")]);
        let found = slice(dir.path()).unwrap().unwrap();
        assert_eq!(
            found,
            ObservedSlice {
                limits: Limits::default(),
                hugepages: None,
                active: false,
                populated: false,
            }
        );
        assert_eq!(slice(&dir.path().join("none")).unwrap(), None);
    }

    #[test]
    fn text_of_another_form_is_an_error_that_names_the_file() {
        let dir = group(&[("cgroup.events", "populated 0\n"), ("memory.max", "much\n")]);
        let error = slice(dir.path()).unwrap_err();
        assert!(error.to_string().ends_with("memory.max is \"much\""), "{error}");
    }
}
