//! CPUs without load balancing and without unbound work of the kernel: an isolated partition of the lease's control group
//! (Linux, Documentation/admin-guide/cgroup-v2.rst, `cpuset.cpus.partition`).
//!
//! The slice above is no partition, so this is a remote one: the CPUs are named as exclusive in every group from the
//! top down, then the lease's group becomes the partition. A kernel that cannot make it one says `isolated invalid`,
//! which is read back.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bulkhead_api::id::LeaseId;
use bulkhead_api::lease::CpuPartition;

use super::ClassError;
use super::text;
use crate::host::cpulist;
use crate::tenant::cgroup;
use crate::tenant::name::{self, Kind};

/// Sets of exclusive CPUs follow from those of all leases: they are changed by one at a time.
static TURN: Mutex<()> = Mutex::new(());

const PARTITION: &str = "cpuset.cpus.partition";
const EXCLUSIVE: &str = "cpuset.cpus.exclusive";

/// What a control group is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Partition {
    /// Part of the one above.
    Member,
    /// A partition with load balancing.
    Root,
    /// A partition without.
    Isolated,
    /// It is to be a partition and cannot.
    Invalid {
        /// Which kind.
        kind: String,
        /// Why not, as the kernel says; empty where it does not.
        why: String,
    },
}

/// Reads the text of `cpuset.cpus.partition`; `None` where it is none that the kernel writes.
#[must_use]
pub fn parse(text: &str) -> Option<Partition> {
    match text.trim() {
        "member" => Some(Partition::Member),
        "root" => Some(Partition::Root),
        "isolated" => Some(Partition::Isolated),
        other => {
            let (kind, rest) = other.split_once(" invalid")?;
            if !matches!(kind, "root" | "isolated") {
                return None;
            }
            let rest = rest.trim();
            let why = match rest.strip_prefix('(') {
                Some(why) => why.strip_suffix(')')?,
                None if rest.is_empty() => rest,
                None => return None,
            };
            Some(Partition::Invalid { kind: kind.to_owned(), why: why.to_owned() })
        }
    }
}

fn group(root: &Path, lease: &LeaseId) -> PathBuf {
    cgroup::tenants(root).join(name::unit(lease, Kind::Slice))
}

fn set_of(path: &Path) -> Result<BTreeSet<u32>, ClassError> {
    let Some(list) = text::read_if_there(path)? else { return Ok(BTreeSet::new()) };
    cpulist::parse(&list).ok_or_else(|| text::odd(path, "a list of CPUs", &list))
}

/// What the control group of a lease is; a member where there is none, or no such controller.
///
/// # Errors
/// It cannot be read.
pub fn observe(root: &Path, lease: &LeaseId) -> Result<Partition, ClassError> {
    let path = group(root, lease).join(PARTITION);
    let Some(text) = text::read_if_there(&path)? else { return Ok(Partition::Member) };
    parse(&text).ok_or_else(|| text::odd(&path, "a kind of partition", &text))
}

/// Whether a lease's control group is what the lease asked for.
///
/// # Errors
/// It cannot be read.
pub fn is(root: &Path, lease: &LeaseId, wanted: CpuPartition) -> Result<bool, ClassError> {
    let (seen, group) = (observe(root, lease)?, group(root, lease));
    let named = set_of(&group.join(EXCLUSIVE))?;
    Ok(match wanted {
        CpuPartition::Member => seen == Partition::Member && named.is_empty(),
        CpuPartition::Isolated => {
            // The CPUs of a partition are those that it names, whatever its set of CPUs becomes later.
            seen == Partition::Isolated && named == set_of(&group.join("cpuset.cpus"))?
        }
    })
}

/// Makes the control group of a lease what it is to be, after its CPUs were set, and reads it back. Done again, it
/// changes nothing.
///
/// # Errors
/// [`ClassError::ReadBack`] where the kernel says that it cannot be.
pub fn set(root: &Path, lease: &LeaseId, wanted: CpuPartition) -> Result<(), ClassError> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let group = group(root, lease);
    if is(root, lease, wanted)? {
        return Ok(());
    }
    let cpus = match wanted {
        CpuPartition::Member => BTreeSet::new(),
        CpuPartition::Isolated => set_of(&group.join("cpuset.cpus"))?,
    };
    match wanted {
        CpuPartition::Member => {
            text::write(&group.join(PARTITION), "member")?;
            exclude(&group, &cpus)?;
            settle_now(root)?;
        }
        CpuPartition::Isolated => {
            if cpus.is_empty() {
                let doing = format!("make a partition of {}", group.display());
                let why = "its control group has no CPUs of its own".to_owned();
                return Err(ClassError::Refused { doing, why });
            }
            // From the top down: a group can only name what the one above names.
            let mut all = exclusive(root, Some(&group))?;
            all.extend(&cpus);
            exclude(&cgroup::tenants(root), &all)?;
            exclude(&group, &cpus)?;
            text::write(&group.join(PARTITION), "isolated")?;
        }
    }
    let path = group.join(PARTITION);
    let found = text::read(&path)?;
    let expected = match wanted {
        CpuPartition::Member => "member",
        CpuPartition::Isolated => "isolated",
    };
    if found != expected {
        let (what, expected) = (path.display().to_string(), expected.to_owned());
        return Err(ClassError::ReadBack { what, expected, found });
    }
    Ok(())
}

/// Names no CPUs as exclusive in the slice above but those of the leases that are there: the group of a lease that was
/// taken back is gone, and what was named for it above is not.
///
/// # Errors
/// It cannot be read or written.
pub fn settle(root: &Path) -> Result<(), ClassError> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    settle_now(root)
}

fn settle_now(root: &Path) -> Result<(), ClassError> {
    exclude(&cgroup::tenants(root), &exclusive(root, None)?)
}

/// CPUs that groups of leases name as exclusive, but for one group.
fn exclusive(root: &Path, but: Option<&Path>) -> Result<BTreeSet<u32>, ClassError> {
    let tenants = cgroup::tenants(root);
    let mut all = BTreeSet::new();
    for name in text::names(&tenants)? {
        let group = tenants.join(&name);
        if group.is_dir() && Some(group.as_path()) != but {
            all.extend(set_of(&group.join(EXCLUSIVE))?);
        }
    }
    Ok(all)
}

/// The line feed makes it a write even where there are none.
fn exclude(group: &Path, cpus: &BTreeSet<u32>) -> Result<(), ClassError> {
    let path = group.join(EXCLUSIVE);
    if set_of(&path)? == *cpus {
        return Ok(());
    }
    text::write(&path, &format!("{}\n", cpulist::render(cpus)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    struct Host(tempfile::TempDir);

    impl Host {
        fn new() -> Self {
            let host = Self(tempfile::tempdir().unwrap());
            host.write("cpuset.cpus.exclusive", "\n");
            host
        }

        fn lease(&self, stem: &str, cpus: &str) {
            for (file, text) in [("cpuset.cpus", cpus), (EXCLUSIVE, "\n"), (PARTITION, "member\n")]
            {
                self.write(&format!("tenant-{stem}.slice/{file}"), text);
            }
        }

        fn write(&self, below: &str, text: &str) {
            let path = cgroup::tenants(self.0.path()).join(below);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn read(&self, below: &str) -> String {
            let text = fs::read_to_string(cgroup::tenants(self.0.path()).join(below)).unwrap();
            text.trim().to_owned()
        }
    }

    fn id(name: &str) -> LeaseId {
        LeaseId { tenant: "acme".parse().unwrap(), name: name.parse().unwrap() }
    }

    #[test]
    fn partitions_name_their_cpus_from_the_top_down_and_give_them_back() {
        let host = Host::new();
        let set = |name, wanted| set(host.0.path(), &id(name), wanted);
        host.lease("acme.a", "2-3");
        host.lease("acme.b", "6-7");
        set("a", CpuPartition::Isolated).unwrap();
        set("b", CpuPartition::Isolated).unwrap();
        assert_eq!(host.read("cpuset.cpus.exclusive"), "2-3,6-7");
        assert_eq!(host.read("tenant-acme.b.slice/cpuset.cpus.exclusive"), "6-7");
        assert!(is(host.0.path(), &id("b"), CpuPartition::Isolated).unwrap());
        set("b", CpuPartition::Isolated).unwrap();
        host.write("tenant-acme.b.slice/cpuset.cpus", "6\n");
        assert!(!is(host.0.path(), &id("b"), CpuPartition::Isolated).unwrap());
        set("b", CpuPartition::Isolated).unwrap();
        assert_eq!(host.read("cpuset.cpus.exclusive"), "2-3,6");
        set("a", CpuPartition::Member).unwrap();
        assert_eq!(host.read("cpuset.cpus.exclusive"), "6");
        assert_eq!(host.read("tenant-acme.a.slice/cpuset.cpus.partition"), "member");
        set("a", CpuPartition::Member).unwrap();
    }

    #[test]
    fn a_group_that_is_gone_leaves_no_cpus_named_above() {
        let host = Host::new();
        for (name, cpus) in [("a", "2-3"), ("b", "6-7")] {
            host.lease(&format!("acme.{name}"), cpus);
            set(host.0.path(), &id(name), CpuPartition::Isolated).unwrap();
        }
        fs::remove_dir_all(cgroup::tenants(host.0.path()).join("tenant-acme.a.slice")).unwrap();
        settle(host.0.path()).unwrap();
        assert_eq!(host.read("cpuset.cpus.exclusive"), "6-7");
        settle(tempfile::tempdir().unwrap().path()).unwrap();
    }

    #[test]
    fn a_lease_without_cpus_of_its_own_is_no_partition() {
        let host = Host::new();
        host.lease("acme.a", "\n");
        let error = set(host.0.path(), &id("a"), CpuPartition::Isolated).unwrap_err().to_string();
        assert!(error.ends_with("its control group has no CPUs of its own"), "{error}");
        assert_eq!(observe(host.0.path(), &id("none")).unwrap(), Partition::Member);
    }

    #[test]
    fn what_the_kernel_could_not_make_is_read_back_with_its_reason() {
        let host = Host::new();
        host.lease("acme.a", "2-3");
        let text = "isolated invalid (Cpu list in cpuset.cpus not exclusive)\n";
        host.write("tenant-acme.a.slice/cpuset.cpus.partition", text);
        let invalid = Partition::Invalid {
            kind: "isolated".to_owned(),
            why: "Cpu list in cpuset.cpus not exclusive".to_owned(),
        };
        assert_eq!(observe(host.0.path(), &id("a")).unwrap(), invalid);
        assert!(!is(host.0.path(), &id("a"), CpuPartition::Isolated).unwrap());
        assert!(!is(host.0.path(), &id("a"), CpuPartition::Member).unwrap());
    }

    #[test]
    fn only_the_kernels_own_words_are_read() {
        assert_eq!(parse("root\n"), Some(Partition::Root));
        let bare = Partition::Invalid { kind: "root".to_owned(), why: String::new() };
        assert_eq!(parse("root invalid"), Some(bare));
        for bad in ["", "isolate", "member invalid", "isolated invalid (x", "isolated invalid x"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(isolated|root)?( invalid)?[\\s\\S]{0,40}") {
            let _ = parse(&text);
        }
    }
}
