//! Cores: nothing is given but the control group's set of CPUs, and what a lease left in a core's private caches is
//! pushed out of them.
//!
//! A thread goes to each CPU in turn and reads and writes a buffer of twice the caches that no other core shares, a
//! few times over. Branch predictors are not reached from here: the kernel flushes them when it switches between
//! users where its mitigations say so, and no more is claimed.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::path::PathBuf;
use std::thread;

use bulkhead_api::chain::Chain;
use bulkhead_api::receipt::Evidence;
use bulkhead_api::resource::Resource;
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;
use tracing::warn;

use super::partition;
use super::text;
use super::{Attached, Class, ClassError, Erased, Order};
use crate::host::cpulist;
use crate::tenant::cgroup;

/// Bytes of a cache line of x86-64.
const LINE: usize = 64;
/// Walks over the buffer: caches replace lines by other rules than "the oldest".
const PASSES: usize = 4;
/// The buffer where the kernel tells no sizes of caches.
const UNTOLD: usize = 8 << 20;
/// Bounds of the buffer.
const LEAST: usize = 256 << 10;
const MOST: usize = 64 << 20;

/// The class.
#[derive(Debug, Clone)]
pub struct Cpu {
    root: PathBuf,
}

impl Cpu {
    /// On the host below that root.
    #[must_use]
    pub const fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Control groups of leases that have one of the CPUs in effect.
    fn groups(&self, cpus: &BTreeSet<u32>) -> Result<Vec<String>, ClassError> {
        let tenants = cgroup::tenants(&self.root);
        let mut with = Vec::new();
        for name in text::names(&tenants)? {
            let group = tenants.join(&name);
            if !group.is_dir() {
                continue;
            }
            let path = group.join("cpuset.cpus.effective");
            let Some(list) = text::read_if_there(&path)? else { continue };
            let set = cpulist::parse(&list).ok_or_else(|| text::odd(&path, "CPUs", &list))?;
            let common: BTreeSet<u32> = set.intersection(cpus).copied().collect();
            if !common.is_empty() {
                with.push(format!("{name} has CPUs {}", cpulist::render(&common)));
            }
        }
        Ok(with)
    }

    /// Bytes of the caches that only the CPU's own core uses.
    fn private(&self, cpu: u32) -> Result<usize, ClassError> {
        let below = self.root.join(format!("sys/devices/system/cpu/cpu{cpu}"));
        let set = |path: PathBuf| -> Result<Option<BTreeSet<u32>>, ClassError> {
            Ok(text::read_if_there(&path)?.and_then(|list| cpulist::parse(&list)))
        };
        let alone = BTreeSet::from([cpu]);
        let core = set(below.join("topology/thread_siblings_list"))?.unwrap_or(alone);
        let mut bytes = 0_usize;
        let names = text::names(&below.join("cache"))?;
        // Files of the device model lie beside them: `uevent`, `power`.
        for index in names.iter().filter(|name| name.starts_with("index")) {
            let cache = below.join("cache").join(index);
            let shared = set(cache.join("shared_cpu_list"))?;
            let size = text::read_if_there(&cache.join("size"))?.and_then(|size| kibibytes(&size));
            if let (Some(shared), Some(size)) = (shared, size)
                && shared.is_subset(&core)
            {
                bytes = bytes.saturating_add(size);
            }
        }
        Ok(bytes)
    }
}

/// `32K`, `1024K` (`Documentation/ABI/testing/sysfs-devices-system-cpu`); `None` for text of another form.
fn kibibytes(text: &str) -> Option<usize> {
    text.strip_suffix('K')?.parse::<usize>().ok()?.checked_mul(1024)
}

/// Bytes to walk over for so many bytes of cache.
fn buffer(private: usize) -> usize {
    match private {
        0 => UNTOLD,
        bytes => bytes.saturating_mul(2).clamp(LEAST, MOST),
    }
}

/// Walks over a buffer on one CPU; how many lines were touched.
fn evict(cpu: u32, bytes: usize) -> Result<usize, String> {
    let index = usize::try_from(cpu).map_err(|error| error.to_string())?;
    let mut set = CpuSet::new();
    set.set(index).map_err(|error| error.to_string())?;
    // The calling thread alone.
    sched_setaffinity(Pid::from_raw(0), &set).map_err(|error| format!("go to the CPU: {error}"))?;
    let there = || match sched_getcpu() {
        Ok(now) if now == index => Ok(()),
        Ok(now) => Err(format!("the kernel runs the thread on CPU {now}")),
        Err(error) => Err(error.to_string()),
    };
    there()?;
    let mut memory = vec![0_u8; bytes];
    let mut touched = 0_usize;
    for pass in 0..PASSES {
        for line in memory.chunks_mut(LINE) {
            if let Some(byte) = line.first_mut() {
                *byte = black_box(byte.wrapping_add(u8::try_from(pass).unwrap_or(1)));
                touched += 1;
            }
        }
        black_box(&memory);
    }
    there()?;
    Ok(touched)
}

impl Class for Cpu {
    fn observe(&self, _: &Order) -> Result<Attached, ClassError> {
        // The engine writes the set of the control group and reads it back.
        Ok(Attached::Yes)
    }

    fn attach(&self, _: &Order) -> Result<(), ClassError> {
        Ok(())
    }

    fn erase(&self, order: &Order) -> Result<Erased, ClassError> {
        let Resource::Cpu { cpus } = &order.resource else {
            return Err(super::other(&order.resource));
        };
        let list = cpulist::render(cpus);
        let refused = |doing: String, why: String| ClassError::Refused { doing, why };
        let with = self.groups(cpus)?;
        if !with.is_empty() {
            let doing = format!("see that no lease has CPUs {list}");
            return Err(refused(doing, with.join(", ")));
        }
        if let Err(error) = partition::settle(&self.root) {
            // They are nobody's all the same, and the next lease with CPUs of its own has them named anew.
            warn!(error = %Chain(&error), "CPUs of a lease that is gone stay named as exclusive");
        }
        let mut erased =
            Erased { methods: vec!["evictPrivateCaches".to_owned()], ..Erased::default() };
        let found = "none".to_owned();
        erased
            .evidence
            .push(Evidence { what: format!("control groups of leases with CPUs {list}"), found });
        for &cpu in cpus {
            let bytes = buffer(self.private(cpu)?);
            let doing = || format!("walk over {bytes} bytes on CPU {cpu}");
            let walk = thread::Builder::new()
                .name(format!("evict-{cpu}"))
                .spawn(move || evict(cpu, bytes));
            let walk = walk.map_err(|error| refused(doing(), error.to_string()))?;
            let ended = walk.join().unwrap_or_else(|_| Err("the thread ended early".to_owned()));
            let lines = ended.map_err(|why| refused(doing(), why))?;
            erased.evidence.push(Evidence {
                what: format!("CPU {cpu}: lines written by the walk over {bytes} bytes"),
                found: format!("{lines} in {PASSES} passes, begun and ended there"),
            });
        }
        Ok(erased)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::class::testing::order;

    fn erase(class: &Cpu, cpus: &[u32]) -> Result<Erased, ClassError> {
        class.erase(&order(Resource::Cpu { cpus: cpus.iter().copied().collect() }))
    }

    fn write(root: &std::path::Path, below: &str, text: &str) {
        let path = root.join(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn each_cpu_is_walked_on_by_twice_its_private_caches() {
        let root = tempfile::tempdir().unwrap();
        let cpu = |below: &str, text: &str| {
            write(root.path(), &format!("sys/devices/system/cpu/cpu0/{below}"), text);
        };
        cpu("topology/thread_siblings_list", "0-1\n");
        cpu("cache/uevent", "");
        for (index, size, shared) in
            [(0, "48K", "0-1"), (1, "32K", "0"), (2, "512K", "0-1"), (3, "32768K", "0-7")]
        {
            cpu(&format!("cache/index{index}/size"), size);
            cpu(&format!("cache/index{index}/shared_cpu_list"), shared);
        }
        let class = Cpu::new(root.path().to_owned());
        let erased = erase(&class, &[0]).unwrap();
        assert_eq!(erased.methods, ["evictPrivateCaches"]);
        let bytes = 2 * (48 + 32 + 512) * 1024;
        let told = &erased.evidence[1];
        assert_eq!(told.what, format!("CPU 0: lines written by the walk over {bytes} bytes"));
        assert_eq!(told.found, format!("{} in 4 passes, begun and ended there", 4 * bytes / 64));
    }

    #[test]
    fn a_cpu_that_a_lease_still_has_is_not_walked_on() {
        let root = tempfile::tempdir().unwrap();
        let file = "sys/fs/cgroup/tenant.slice/tenant-other.b.slice/cpuset.cpus.effective";
        write(root.path(), file, "0,4-5\n");
        // Beside the groups are the files of the slice above them.
        write(root.path(), "sys/fs/cgroup/tenant.slice/cgroup.controllers", "cpuset memory\n");
        let class = Cpu::new(root.path().to_owned());
        let error = erase(&class, &[0]).unwrap_err().to_string();
        assert_eq!(error, "see that no lease has CPUs 0: tenant-other.b.slice has CPUs 0");
        write(root.path(), file, "4-5\n");
        let above = "sys/fs/cgroup/tenant.slice/cpuset.cpus.exclusive";
        write(root.path(), above, "0\n");
        erase(&class, &[0]).unwrap();
        let named = fs::read_to_string(root.path().join(above)).unwrap();
        assert_eq!(named.trim(), "", "what was named for the lease is not any more");
    }

    #[test]
    fn a_cpu_that_is_not_there_is_tried_again() {
        let root = tempfile::tempdir().unwrap();
        let error = erase(&Cpu::new(root.path().to_owned()), &[1000]).unwrap_err();
        assert!(
            matches!(&error, ClassError::Refused { doing, .. } if doing.ends_with("on CPU 1000")),
            "{error}"
        );
    }

    #[test]
    fn the_walk_is_bounded() {
        assert_eq!(buffer(0), UNTOLD);
        assert_eq!(buffer(1), LEAST);
        assert_eq!(buffer(1 << 20), 2 << 20);
        assert_eq!(buffer(usize::MAX), MOST);
        assert_eq!(kibibytes("32K"), Some(32_768));
        for bad in ["32", "K", "1M", "-1K", "99999999999999999999K"] {
            assert_eq!(kibibytes(bad), None, "{bad}");
        }
    }
}
