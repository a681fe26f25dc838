//! Which vCPU stands for which CPU, so that what the guest believes of its cores is so.
//!
//! ```text
//!  holding  CPUs 2 3 66 67, of which 2 and 66, 3 and 67 are siblings
//!  guest    1 socket, 2 cores, 2 threads:   vCPU 0 1 2 3
//!                                           CPU  2 66 3 67
//! ```
//!
//! QEMU numbers vCPUs thread by thread, then core by core (`-smp`, QEMU docs), Linux mostly the other way round.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use crate::host::cpulist;

/// The CPUs of a lease could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
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

/// The CPUs of a lease as a guest sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// CPU of the host by vCPU.
    pub order: Vec<u32>,
    /// Sockets.
    pub sockets: usize,
    /// Cores of each socket.
    pub cores: usize,
    /// Threads of each core.
    pub threads: usize,
}

/// Where a CPU is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Socket.
    pub socket: u32,
    /// Lowest CPU of its core.
    pub core: u32,
}

impl Topology {
    /// Of a lease's CPUs. Sockets or cores that are not all alike are shown as one socket of cores with one thread each.
    #[must_use]
    pub fn of(cpus: &BTreeMap<u32, Place>) -> Self {
        let mut sockets: BTreeMap<u32, BTreeMap<u32, Vec<u32>>> = BTreeMap::new();
        for (&cpu, place) in cpus {
            sockets.entry(place.socket).or_default().entry(place.core).or_default().push(cpu);
        }
        let cores: Vec<&Vec<u32>> = sockets.values().flat_map(BTreeMap::values).collect();
        let order: Vec<u32> = cores.iter().copied().flatten().copied().collect();
        let threads = cores.first().map_or(1, |core| core.len());
        let each = sockets.values().next().map_or(1, BTreeMap::len);
        let alike = cores.iter().all(|core| core.len() == threads);
        let (sockets, cores, threads) = if !alike {
            (1, order.len(), 1)
        } else if sockets.values().any(|socket| socket.len() != each) {
            (1, cores.len(), threads)
        } else {
            (sockets.len(), each, threads)
        };
        Self { order, sockets, cores, threads }
    }

    /// CPUs of the first core: where the emulator's own threads run.
    #[must_use]
    pub fn first_core(&self) -> BTreeSet<u32> {
        self.order.iter().take(self.threads).copied().collect()
    }
}

/// Reads where a lease's CPUs are (`/sys/devices/system/cpu`, Linux, Documentation/admin-guide/cputopology.rst).
///
/// # Errors
/// [`TopologyError`].
pub fn read(root: &Path, cpus: &BTreeSet<u32>) -> Result<Topology, TopologyError> {
    let mut places = BTreeMap::new();
    for &cpu in cpus {
        let below = root.join(format!("sys/devices/system/cpu/cpu{cpu}/topology"));
        let text = |name: &str| {
            let path = below.join(name);
            match std::fs::read_to_string(&path) {
                Ok(text) => Ok((path, text.trim().to_owned())),
                Err(source) => Err(TopologyError::Read { path, source }),
            }
        };
        let (path, siblings) = text("thread_siblings_list")?;
        let lowest = cpulist::parse(&siblings).and_then(|siblings| siblings.first().copied());
        let core = lowest.ok_or(TopologyError::Form { path, text: siblings })?;
        let (path, socket) = text("physical_package_id")?;
        let socket = socket.parse().map_err(|_| TopologyError::Form { path, text: socket })?;
        places.insert(cpu, Place { socket, core });
    }
    Ok(Topology::of(&places))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn topology(cpus: &[(u32, u32, u32)]) -> Topology {
        let place = |&(cpu, socket, core): &(u32, u32, u32)| (cpu, Place { socket, core });
        Topology::of(&cpus.iter().map(place).collect())
    }

    #[test]
    fn siblings_of_the_host_are_siblings_of_the_guest() {
        let found = topology(&[(2, 0, 2), (3, 0, 3), (66, 0, 2), (67, 0, 3)]);
        let order = vec![2, 66, 3, 67];
        assert_eq!(found, Topology { order, sockets: 1, cores: 2, threads: 2 });
        assert_eq!(found.first_core(), BTreeSet::from([2, 66]));
    }

    #[test]
    fn sockets_are_shown_where_they_are_alike() {
        let found = topology(&[(1, 0, 1), (2, 0, 2), (4, 1, 4), (5, 1, 5)]);
        assert_eq!((found.sockets, found.cores, found.threads), (2, 2, 1));
        let found = topology(&[(1, 0, 1), (4, 1, 4), (5, 1, 5)]);
        assert_eq!((found.sockets, found.cores, found.threads), (1, 3, 1));
        // A core with a sibling that is offline.
        let found = topology(&[(1, 0, 1), (9, 0, 1), (2, 0, 2)]);
        assert_eq!((found.sockets, found.cores, found.threads), (1, 3, 1));
        assert_eq!(found.order, [1, 9, 2]);
    }

    /// sysfs of CPUs with their siblings' list and socket.
    pub(crate) fn sysfs(root: &Path, cpus: &[(u32, &str, u32)]) {
        for (cpu, siblings, socket) in cpus {
            let below = root.join(format!("sys/devices/system/cpu/cpu{cpu}/topology"));
            std::fs::create_dir_all(&below).unwrap();
            std::fs::write(below.join("thread_siblings_list"), format!("{siblings}\n")).unwrap();
            std::fs::write(below.join("physical_package_id"), format!("{socket}\n")).unwrap();
        }
    }

    #[test]
    fn the_kernels_files_are_read_and_named_when_they_cannot_be() {
        let root = tempfile::tempdir().unwrap();
        sysfs(root.path(), &[(2, "2,6", 0), (6, "2,6", 0), (3, "much", 0)]);
        let found = read(root.path(), &BTreeSet::from([2, 6])).unwrap();
        assert_eq!((found.cores, found.threads), (1, 2));
        let why = read(root.path(), &BTreeSet::from([3])).unwrap_err().to_string();
        assert!(why.ends_with("cpu3/topology/thread_siblings_list is \"much\""), "{why}");
        let why = read(root.path(), &BTreeSet::from([9])).unwrap_err().to_string();
        assert!(why.contains("cpu9/topology"), "{why}");
    }

    proptest! {
        #[test]
        fn every_cpu_is_one_vcpu_and_their_number_is_the_product(
            cpus in prop::collection::btree_map(0_u32..64, (0_u32..3, 0_u32..8), 1..20),
        ) {
            let places = cpus.iter().map(|(&cpu, &(socket, core))| (cpu, Place { socket, core }));
            let found = Topology::of(&places.collect());
            prop_assert_eq!(found.order.len(), found.sockets * found.cores * found.threads);
            let all: BTreeSet<u32> = found.order.iter().copied().collect();
            prop_assert_eq!(all, cpus.keys().copied().collect());
        }
    }
}
