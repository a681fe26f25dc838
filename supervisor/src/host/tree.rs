//! Reads small files of sysfs and procfs below a root given by value, so that tests read directories.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A file tree with what could not be read of it.
///
/// Absent files are absent facts; every other failure is a sentence in `problems` and the fact is
/// absent (law 4: an unreadable device fails alone).
#[derive(Debug)]
pub(super) struct Tree<'a> {
    root: &'a Path,
    /// One sentence an object.
    pub(super) problems: Vec<String>,
}

impl<'a> Tree<'a> {
    pub(super) fn new(root: &'a Path) -> Self {
        Self { root, problems: Vec::new() }
    }

    pub(super) fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    pub(super) fn exists(&self, below: &str) -> bool {
        self.path(below).exists()
    }

    /// The trimmed text of a file.
    pub(super) fn text(&mut self, below: &str) -> Option<String> {
        let bytes = self.bytes(below)?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// The bytes of a file.
    pub(super) fn bytes(&mut self, below: &str) -> Option<Vec<u8>> {
        match fs::read(self.path(below)) {
            Ok(bytes) => Some(bytes),
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            Err(e) => {
                self.problems.push(format!("read {below}: {e}"));
                None
            }
        }
    }

    /// As [`Tree::text`], for attributes whose reading fails in normal states (`speed` without carrier).
    pub(super) fn quiet_text(&self, below: &str) -> Option<String> {
        let bytes = fs::read(self.path(below)).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// A file's text read as a value; text of another form is a problem.
    pub(super) fn parse<T: FromStr>(&mut self, below: &str) -> Option<T> {
        let text = self.text(below)?;
        let value = text.parse().ok();
        if value.is_none() {
            self.problems.push(format!("read {below}: {text:?} is not of the expected form"));
        }
        value
    }

    /// `0x1af4` as a number of the wanted width.
    pub(super) fn hex<T: TryFrom<u32>>(&mut self, below: &str) -> Option<T> {
        let text = self.text(below)?;
        let digits = text.strip_prefix("0x").unwrap_or(&text);
        let value = u32::from_str_radix(digits, 16).ok().and_then(|value| value.try_into().ok());
        if value.is_none() {
            self.problems
                .push(format!("read {below}: {text:?} is not a hexadecimal number of that width"));
        }
        value
    }

    /// Names in a directory, sorted; none where it is absent.
    pub(super) fn names(&mut self, below: &str) -> Vec<String> {
        let entries = match fs::read_dir(self.path(below)) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Vec::new(),
            Err(e) => {
                self.problems.push(format!("list {below}: {e}"));
                return Vec::new();
            }
        };
        let mut names: Vec<String> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// Last component of a symbolic link's target (`driver`, `iommu_group`).
    pub(super) fn link(&self, below: &str) -> Option<String> {
        let target = fs::read_link(self.path(below)).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    }

    /// Where a path leads once every symbolic link is followed.
    pub(super) fn real(&self, below: &str) -> Option<PathBuf> {
        fs::canonicalize(self.path(below)).ok()
    }
}

/// Numbers of directories named `{prefix}{number}`, ascending.
pub(super) fn numbers(names: &[String], prefix: &str) -> Vec<u32> {
    let mut numbers: Vec<u32> =
        names.iter().filter_map(|name| name.strip_prefix(prefix)?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}
