//! Puts every vCPU on its own CPU, and the emulator's own threads on the lease's first core.
//!
//! QEMU names its threads (`-name …,debug-threads=on`): `CPU n/KVM` runs vCPU n. It denies itself to change affinities; the host
//! sets them. Whatever a thread calls itself, the lease's control group holds it on the lease's CPUs.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use bulkhead_api::lease::Holding;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::host::cpulist;
use crate::tenant::vm::topology::{self, Topology, TopologyError};

/// Threads could not be seen or pinned.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The CPUs' own places.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// The file system refuses.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Text of another form.
    #[error("{path} has no Cpus_allowed_list")]
    Form {
        /// The file.
        path: PathBuf,
    },
    /// The machine has not as many vCPUs as its lease has CPUs.
    #[error("QEMU has {found} vCPU threads for the {wanted} CPUs of the lease")]
    Count {
        /// Threads seen.
        found: usize,
        /// CPUs held.
        wanted: usize,
    },
    /// The kernel refuses.
    #[error("put thread {thread} ({name}) on CPUs {cpus}")]
    Set {
        /// Thread id.
        thread: i32,
        /// Its name.
        name: String,
        /// Where to.
        cpus: String,
        /// Why not.
        source: nix::Error,
    },
    /// Set, and not so.
    #[error("threads are on other CPUs than they were put on: {0}")]
    ReadBack(String),
}

/// A thread of QEMU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    /// As it calls itself.
    pub name: String,
    /// The vCPU that it runs; `None` for the emulator's own.
    pub vcpu: Option<usize>,
    /// Where it may run.
    pub allowed: BTreeSet<u32>,
}

/// Where the threads of a virtual machine run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pins {
    /// By thread id.
    pub threads: BTreeMap<i32, Thread>,
    /// Where they should.
    pub topology: Topology,
}

impl Pins {
    /// Every vCPU is on its own CPU and every other thread on the first core.
    #[must_use]
    pub fn hold(&self) -> bool {
        self.vcpus() == self.topology.order.len() && self.astray().is_empty()
    }

    /// vCPUs that have a thread.
    #[must_use]
    pub fn vcpus(&self) -> usize {
        let all: BTreeSet<usize> = self.threads.values().filter_map(|thread| thread.vcpu).collect();
        all.len()
    }

    /// Threads that are not where they should be, with where that is.
    #[must_use]
    pub fn astray(&self) -> Vec<(i32, BTreeSet<u32>)> {
        let first = self.topology.first_core();
        let astray = |(&id, thread): (&i32, &Thread)| {
            let own = thread.vcpu.and_then(|number| self.topology.order.get(number));
            let wanted = own.map_or_else(|| first.clone(), |&cpu| BTreeSet::from([cpu]));
            (thread.allowed != wanted).then_some((id, wanted))
        };
        self.threads.iter().filter_map(astray).collect()
    }
}

/// `CPU 3/KVM` runs vCPU 3 (QEMU accel/kvm/kvm-accel-ops.c).
fn vcpu(name: &str) -> Option<usize> {
    name.strip_prefix("CPU ")?.strip_suffix("/KVM")?.parse().ok()
}

/// Looks where the threads of a machine run. A process that ends meanwhile has the fewer.
///
/// # Errors
/// [`PinError::Topology`], [`PinError::Read`], [`PinError::Form`].
pub fn pins(root: &Path, pid: u32, holding: &Holding) -> Result<Pins, PinError> {
    let topology = topology::read(root, &holding.cpus)?;
    let tasks = root.join(format!("proc/{pid}/task"));
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| PinError::Read { path, source }
    };
    let mut threads = BTreeMap::new();
    for entry in std::fs::read_dir(&tasks).map_err(failed(&tasks))? {
        let path = entry.map_err(failed(&tasks))?.path();
        let id = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        let (Some(id), Some(name), Some(status)) =
            (id, text(&path.join("comm"))?, text(&path.join("status"))?)
        else {
            continue;
        };
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let allowed = allowed.and_then(|list| cpulist::parse(list.trim()));
        let allowed = allowed.ok_or_else(|| PinError::Form { path: path.join("status") })?;
        let name = name.trim_end().to_owned();
        threads.insert(id, Thread { vcpu: vcpu(&name), name, allowed });
    }
    Ok(Pins { threads, topology })
}

/// `None` of a thread that has ended.
fn text(path: &Path) -> Result<Option<String>, PinError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
        Err(source) => Err(PinError::Read { path: path.to_owned(), source }),
    }
}

/// Puts the threads of a machine where they should be, and looks again. Done already, it changes nothing.
///
/// # Errors
/// Every variant of [`PinError`].
pub fn pin(root: &Path, pid: u32, holding: &Holding) -> Result<Pins, PinError> {
    let found = pins(root, pid, holding)?;
    let wanted = found.topology.order.len();
    if found.vcpus() != wanted {
        return Err(PinError::Count { found: found.vcpus(), wanted });
    }
    for (thread, cpus) in found.astray() {
        let name = found.threads.get(&thread).map(|thread| thread.name.clone()).unwrap_or_default();
        let set = set(&cpus).and_then(|set| sched_setaffinity(Pid::from_raw(thread), &set));
        match set {
            // It ended meanwhile.
            Ok(()) | Err(nix::Error::ESRCH) => {}
            Err(source) => {
                return Err(PinError::Set { thread, name, cpus: cpulist::render(&cpus), source });
            }
        }
    }
    let after = pins(root, pid, holding)?;
    if after.hold() {
        return Ok(after);
    }
    let astray = after.astray().into_iter().filter_map(|(thread, wanted)| {
        let Thread { name, allowed, .. } = after.threads.get(&thread)?;
        let (is, wanted) = (cpulist::render(allowed), cpulist::render(&wanted));
        Some(format!("{thread} ({name}) on {is} instead of {wanted}"))
    });
    Err(PinError::ReadBack(astray.collect::<Vec<_>>().join(", ")))
}

fn set(cpus: &BTreeSet<u32>) -> Result<CpuSet, nix::Error> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        set.set(usize::try_from(cpu).map_err(|_| nix::Error::EINVAL)?)?;
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::vm::topology::tests::sysfs;

    fn holding(cpus: &[u32]) -> Holding {
        Holding { cpus: cpus.iter().copied().collect(), ..Holding::default() }
    }

    fn process(root: &Path, threads: &[(u32, &str, &str)]) {
        for (id, name, allowed) in threads {
            let below = root.join(format!("proc/7/task/{id}"));
            std::fs::create_dir_all(&below).unwrap();
            std::fs::write(below.join("comm"), format!("{name}\n")).unwrap();
            let status =
                format!("Name:\t{name}\nCpus_allowed_list:\t{allowed}\nMems_allowed:\t1\n");
            std::fs::write(below.join("status"), status).unwrap();
        }
    }

    #[test]
    fn a_machine_is_pinned_when_every_thread_is_where_it_should_be() {
        let root = tempfile::tempdir().unwrap();
        sysfs(root.path(), &[(2, "2,6", 0), (3, "3,7", 0), (6, "2,6", 0), (7, "3,7", 0)]);
        let holding = holding(&[2, 3, 6, 7]);
        let look = |threads: &[(u32, &str, &str)]| {
            process(root.path(), threads);
            pins(root.path(), 7, &holding).unwrap()
        };
        let before = look(&[
            (7, "qemu-system-x86", "2-3,6-7"),
            (10, "CPU 0/KVM", "2-3,6-7"),
            (11, "CPU 1/KVM", "6"),
            (12, "CPU 2/KVM", "3"),
        ]);
        assert!(!before.hold());
        let astray = BTreeSet::from([7, 10]);
        assert_eq!(before.astray().into_iter().map(|(id, _)| id).collect::<BTreeSet<_>>(), astray);
        // All but one vCPU are where they should be, and one is not there yet.
        assert!(!look(&[(7, "qemu-system-x86", "2,6"), (10, "CPU 0/KVM", "2")]).hold());
        assert!(look(&[(13, "CPU 3/KVM", "7")]).hold());
        // A thread that came later.
        assert!(!look(&[(14, "worker", "2-3,6-7")]).hold());
    }

    #[test]
    fn fewer_vcpus_than_cpus_are_an_error_with_both_numbers() {
        let root = tempfile::tempdir().unwrap();
        sysfs(root.path(), &[(2, "2", 0), (3, "3", 0)]);
        process(root.path(), &[(10, "CPU 0/KVM", "2")]);
        let why = pin(root.path(), 7, &holding(&[2, 3])).unwrap_err().to_string();
        assert_eq!(why, "QEMU has 1 vCPU threads for the 2 CPUs of the lease");
    }

    #[test]
    fn threads_of_this_process_are_put_on_a_cpu_and_read_back() {
        let first = *cpulist::parse(
            std::fs::read_to_string("/proc/self/status")
                .unwrap()
                .lines()
                .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
                .unwrap()
                .trim(),
        )
        .unwrap()
        .first()
        .unwrap();
        let (say, hear) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        // A process of its own would do as well; its threads are all that is looked at.
        let thread = std::thread::Builder::new().name("CPU 0/KVM".to_owned()).spawn(move || {
            say.send(nix::unistd::gettid().as_raw()).unwrap();
            ended.recv().unwrap_err();
        });
        let id = hear.recv().unwrap();
        let cpus = BTreeSet::from([first]);
        sched_setaffinity(Pid::from_raw(id), &set(&cpus).unwrap()).unwrap();
        let seen = pins(Path::new("/"), std::process::id(), &holding(&[first])).unwrap();
        let found = &seen.threads[&id];
        assert_eq!((found.vcpu, &found.allowed), (Some(0), &cpus));
        drop(end);
        thread.unwrap().join().unwrap();
    }
}
