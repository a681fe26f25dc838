//! What a lease holds on its host, read back from the kernel, and what is left when it is gone.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use anyhow::Result;
use bulkhead_api::lease::LeasePhase;
use bulkhead_qemu_tests::fixture::{SOON, lease, scene};
use bulkhead_qemu_tests::guest::Guest;

/// `0-2,5` of the kernel's CPU and node lists.
fn list(text: &str) -> BTreeSet<u32> {
    let ranges = text.trim().split(',').filter(|range| !range.is_empty());
    let both = ranges.map(|range| range.split_once('-').unwrap_or((range, range)));
    both.flat_map(|(a, b)| a.parse::<u32>().unwrap()..=b.parse::<u32>().unwrap()).collect()
}

/// The slice that a process is in: the topmost control group below `/sys/fs/cgroup` that is the lease's own.
fn slice_of(guest: &mut Guest, pid: u32, lease: &str) -> Result<String> {
    let group = guest.run(&format!("cut -d: -f3 /proc/{pid}/cgroup"))?;
    let mut path = String::new();
    for part in group.trim().trim_start_matches('/').split('/') {
        path = format!("{path}/{part}");
        if part.contains(lease) && part.ends_with(".slice") {
            return Ok(format!("/sys/fs/cgroup{path}"));
        }
    }
    anyhow::bail!("process {pid} is in {group}, not in a slice of lease {lease}")
}

#[test]
fn control_groups_hold_exactly_what_was_granted_and_nothing_is_left_of_a_deleted_lease()
-> Result<()> {
    scene("lease-cgroup", |scene, host| {
        scene.running.apply(&lease("pair", 2, "192Mi"))?;
        let granted = scene.await_phase("pair", LeasePhase::Running, SOON)?.status.unwrap();
        let base = scene.lease("base")?.unwrap().status.unwrap();
        let (holding, pid) = (granted.holding.unwrap(), granted.pid.unwrap());
        assert_eq!(holding.cpus.len(), 2);
        assert!(holding.cpus.is_disjoint(&base.holding.unwrap().cpus));
        assert!(!holding.cpus.contains(&0), "the first core stays with the host");

        let slice = slice_of(&mut host.guest, pid, "pair")?;
        let mut read = |file: &str| host.guest.run(&format!("cat {slice}/{file}"));
        assert_eq!(list(&read("cpuset.cpus")?), holding.cpus);
        assert_eq!(list(&read("cpuset.cpus.effective")?), holding.cpus);
        assert_eq!(list(&read("cpuset.mems.effective")?), holding.memory_nodes);
        assert_eq!(read("memory.max")?.trim(), (192_u64 << 20).to_string());
        assert_eq!(read("memory.swap.max")?.trim(), "0");
        assert!(read("pids.max")?.trim().parse::<u32>().is_ok());
        // What the program itself may use, as the kernel sees it.
        let allowed = host.guest.run(&format!("grep Cpus_allowed_list /proc/{pid}/status"))?;
        assert_eq!(list(allowed.split(':').nth(1).unwrap()), holding.cpus);

        // Its mounts are in a namespace of its own, its root is read-only and from the lease's folder.
        let root = host.guest.run(&format!("grep ' / ' /proc/{pid}/mountinfo"))?;
        assert!(root.contains("demo") && root.contains("pair"), "{root}");
        assert!(root.contains(" ro,") || root.contains(" ro "), "{root}");
        scene.running.bulkhead(["delete", "lease", "demo/pair", "--wait"])?;
        assert!(scene.lease("pair")?.is_none());
        let left = host.guest.run(&format!(
            "test -e {slice} && echo slice; test -e /proc/{pid} && echo process; \
             grep -l leases/demo/pair /proc/[0-9]*/mountinfo 2>/dev/null; ls -d /var/lib/bulkhead/leases/demo/pair 2>/dev/null; \
             systemctl list-units --all --plain --no-legend '*pair*'; true"
        ))?;
        assert_eq!(left, "");
        assert!(host.status()?.leases.iter().all(|lease| lease.id.name.as_str() != "pair"));
        // The neighbour noticed nothing (law 7).
        let after = scene.lease("base")?.unwrap().status.unwrap();
        assert_eq!((after.pid, after.starts), (base.pid, base.starts));
        Ok(())
    })
}

#[test]
fn a_lease_larger_than_the_host_is_refused_with_numbers_and_changes_nothing() -> Result<()> {
    scene("lease-large", |scene, host| {
        let refused = scene.running.apply(&lease("large", 64, "999Gi")).unwrap_err().to_string();
        // Two sockets of two cores, one of them the host's, one held by the lease of the base.
        assert!(refused.contains("64 cores wanted, 2 free of 3"), "{refused}");
        assert!(refused.contains("1022976 MiB wanted"), "{refused}");
        assert!(scene.lease("large")?.is_none());
        assert_eq!(host.status()?.leases.len(), 1);
        Ok(())
    })
}
