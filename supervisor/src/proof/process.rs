//! One process as `/proc` shows it (proc_pid_status(5), user_namespaces(7), proc_pid_ns(5)).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use bulkhead_api::isolation::{IdRange, Namespace, ProcessFacts};

use crate::host::cpulist;

/// What `status` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Its name, which it can choose.
    pub name: String,
    /// It has ended and holds nothing.
    pub dead: bool,
    /// Its parent; 0 where there is none that is visible.
    pub parent: u32,
    /// Real, effective, saved and file system user id.
    pub users: Vec<u32>,
    /// Process id namespaces that it is in, the host's counted.
    pub depth: usize,
    /// CPUs that it may run on.
    pub cpus: Option<BTreeSet<u32>>,
    /// Nodes that its memory may come from.
    pub memory_nodes: Option<BTreeSet<u32>>,
}

/// Reads the text of `status`. What is not in it is absent.
#[must_use]
pub fn status(text: &str) -> Status {
    let mut status = Status::default();
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        match key {
            "Name" => value.clone_into(&mut status.name),
            "State" => status.dead = value.starts_with(['Z', 'X']),
            "PPid" => status.parent = value.parse().unwrap_or_default(),
            "Uid" => status.users = value.split('\t').filter_map(|id| id.parse().ok()).collect(),
            "NSpid" => status.depth = value.split('\t').count(),
            "Cpus_allowed_list" => status.cpus = cpulist::parse(value),
            "Mems_allowed_list" => status.memory_nodes = cpulist::parse(value),
            _ => {}
        }
    }
    status
}

impl Status {
    /// The host's own program that runs the container: started by init, as root, in no namespace of process ids
    /// but the host's. No tenant's process is like that: the ids of its user namespace begin far above.
    #[must_use]
    pub fn is_runtime(&self) -> bool {
        let root = !self.users.is_empty() && self.users.iter().all(|&user| user == 0);
        root && self.parent == 1 && self.depth == 1 && self.name == "crun"
    }
}

/// Reads `uid_map` or `gid_map` of a process: the host's ids in it. `None` where the text is not one.
///
/// A file that is read from the host's own namespace has lines of inner first id, outer first id, count.
#[must_use]
pub fn id_map(text: &str) -> Option<Vec<IdRange>> {
    let mut ranges = Vec::new();
    for line in text.lines() {
        let numbers: Option<Vec<u32>> =
            line.split_whitespace().map(|number| number.parse().ok()).collect();
        let &[_, first, count] = numbers?.as_slice() else { return None };
        ranges.push(IdRange { first, count });
    }
    ranges.sort_unstable();
    Some(ranges)
}

/// Reads a link of `/proc/PID/ns`: `net:[4026531840]`.
#[must_use]
pub fn namespace(link: &str, kind: Namespace) -> Option<u64> {
    let rest = link.strip_prefix(kind.name())?;
    rest.strip_prefix(":[")?.strip_suffix(']')?.parse().ok()
}

/// Ends between two looks, or is about to: it has no files any more.
fn ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// One process, with what could not be read of it; `None` where it has ended.
///
/// `dir` is its directory in `/proc`.
#[must_use]
pub fn facts(dir: &Path, pid: u32) -> Option<(ProcessFacts, Vec<String>)> {
    let mut unreadable = Vec::new();
    let mut refused = |file: &str, error: &dyn std::fmt::Display| {
        unreadable.push(format!("read {file} of process {pid}: {error}"));
    };
    let mut seen = ProcessFacts { pids: vec![pid], ..ProcessFacts::default() };
    match fs::read(dir.join("status")) {
        Ok(text) => {
            let status = status(&String::from_utf8_lossy(&text));
            if status.dead {
                return None;
            }
            seen.runtime = status.is_runtime();
            (seen.cpus, seen.memory_nodes) = (status.cpus, status.memory_nodes);
        }
        Err(error) if ended(&error) => return None,
        Err(error) => refused("status", &error),
    }
    if !seen.runtime {
        let mut map = |file: &str| match fs::read_to_string(dir.join(file)) {
            Ok(text) => id_map(&text).unwrap_or_else(|| {
                refused(file, &"not of the expected form");
                Vec::new()
            }),
            Err(error) => {
                refused(file, &error);
                Vec::new()
            }
        };
        (seen.user_ids, seen.group_ids) = (map("uid_map"), map("gid_map"));
        match namespaces(dir) {
            Ok(namespaces) => seen.namespaces = namespaces,
            Err(error) => refused("ns", &error),
        }
        match root(dir) {
            Ok(root) => seen.root = Some(root),
            Err(error) => refused("root", &error),
        }
    }
    // What ended while it was looked at could not be read for that reason.
    if !unreadable.is_empty() && is_gone(dir) {
        return None;
    }
    Some((seen, unreadable))
}

/// Whether a process has ended by now.
#[must_use]
pub fn is_gone(dir: &Path) -> bool {
    match fs::read(dir.join("status")) {
        Err(error) => ended(&error),
        Ok(text) => status(&String::from_utf8_lossy(&text)).dead,
    }
}

/// The namespaces of a process.
///
/// # Errors
/// One cannot be read, or is of another form.
pub fn namespaces(dir: &Path) -> io::Result<BTreeMap<Namespace, u64>> {
    let mut namespaces = BTreeMap::new();
    for kind in Namespace::ALL {
        let link = fs::read_link(dir.join("ns").join(kind.name()))?;
        let number = namespace(&link.to_string_lossy(), kind);
        namespaces.insert(kind, number.ok_or(io::ErrorKind::InvalidData)?);
    }
    Ok(namespaces)
}

/// The root directory of a process, as `DEVICE:INODE`.
///
/// # Errors
/// It cannot be looked at.
pub fn root(dir: &Path) -> io::Result<String> {
    let root = fs::metadata(dir.join("root"))?;
    Ok(format!("{}:{}", root.dev(), root.ino()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CRUN: &str = "Name:\tcrun\nState:\tS (sleeping)\nPPid:\t1\nUid:\t0\t0\t0\t0\nNSpid:\t812\n\
        Cpus_allowed_list:\t2-3\nMems_allowed_list:\t0\n";

    #[test]
    fn the_runtime_is_told_by_what_a_tenant_cannot_have() {
        assert!(status(CRUN).is_runtime());
        for (from, to) in [
            ("Name:\tcrun", "Name:\tsh"),
            ("PPid:\t1", "PPid:\t812"),
            ("Uid:\t0\t0\t0\t0", "Uid:\t0\t268435456\t0\t0"),
            ("Uid:\t0\t0\t0\t0", "Uid:"),
            ("NSpid:\t812", "NSpid:\t813\t1"),
        ] {
            assert!(!status(&CRUN.replace(from, to)).is_runtime(), "{to}");
        }
    }

    #[test]
    fn a_map_gives_the_ids_of_the_host() {
        let map = id_map("         0  268500992      65536\n").unwrap();
        assert_eq!(map, [IdRange { first: 268_500_992, count: 65536 }]);
        assert_eq!(id_map("0 0 4294967295\n").unwrap(), [IdRange { first: 0, count: u32::MAX }]);
        assert_eq!(id_map("0 0\n"), None);
        assert_eq!(id_map("a b c\n"), None);
    }

    #[test]
    fn a_namespace_is_a_number_of_its_kind() {
        assert_eq!(namespace("net:[4026531840]", Namespace::Net), Some(4_026_531_840));
        assert_eq!(namespace("net:[4026531840]", Namespace::Mnt), None);
        assert_eq!(namespace("net:[]", Namespace::Net), None);
    }

    #[test]
    fn our_own_process_is_read_whole() {
        let pid = std::process::id();
        let (seen, unreadable) = facts(Path::new("/proc/self"), pid).unwrap();
        assert_eq!(unreadable, Vec::<String>::new());
        assert_eq!(seen.namespaces.len(), Namespace::ALL.len());
        assert!(seen.root.is_some() && seen.cpus.is_some() && !seen.user_ids.is_empty());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(Uid|NSpid|State|Name|PPid)?:?[\\s\\S]{0,60}") {
            let _ = (status(&text), id_map(&text), namespace(&text, Namespace::Net));
        }
    }
}
