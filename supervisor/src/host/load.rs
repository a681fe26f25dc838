//! What the supervisor and the start of user space cost, from procfs and control groups.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// The slice that holds every lease.
const TENANTS: &str = "tenant.slice";

/// Time since the kernel started, sleep included (`CLOCK_BOOTTIME`).
#[must_use]
pub fn since_kernel_start() -> Duration {
    // This clock exists on every kernel that the supervisor runs on.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// Resident memory of this process in bytes (`VmRSS` of `/proc/self/status`); 0 where unknown.
#[must_use]
pub fn resident(root: &Path) -> u64 {
    let status = fs::read_to_string(root.join("proc/self/status")).unwrap_or_default();
    let kib = status.lines().find_map(|line| {
        line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    kib.unwrap_or(0).saturating_mul(1024)
}

/// CPU time in milliseconds that user space took since systemd started: of everything that ever ran below
/// the top control groups but the tenants' (`usage_usec` of `cpu.stat`); 0 where unknown.
///
/// Unlike sums over `/proc`, it holds processes that ended, and counts neither stage 1, which was process 1
/// before, nor the kernel's threads.
#[must_use]
pub fn user_space_ms(root: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(root.join("sys/fs/cgroup")) else { return 0 };
    let usec: u64 = entries
        .flatten()
        .filter(|entry| entry.file_name() != TENANTS)
        .filter_map(|entry| fs::read_to_string(entry.path().join("cpu.stat")).ok())
        .filter_map(|stat| usage_usec(&stat))
        .fold(0, u64::saturating_add);
    usec / 1000
}

fn usage_usec(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("usage_usec ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_top_group_counts_but_the_tenants() {
        let dir = tempfile::tempdir().unwrap();
        let groups = dir.path().join("sys/fs/cgroup");
        for (group, usec) in [("init.scope", 2_500), ("system.slice", 4_000), (TENANTS, 900_000)] {
            fs::create_dir_all(groups.join(group)).unwrap();
            let stat = format!("usage_usec {usec}\nuser_usec 1\nsystem_usec 2\n");
            fs::write(groups.join(group).join("cpu.stat"), stat).unwrap();
        }
        fs::write(groups.join("cpu.stat"), "usage_usec 99000000\n").unwrap();
        fs::write(groups.join("cgroup.procs"), "1\n").unwrap();
        assert_eq!(user_space_ms(dir.path()), 6);
    }

    #[test]
    fn a_host_without_control_groups_has_an_unknown_start() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(user_space_ms(dir.path()), 0);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_left_out(text in ".{0,80}") {
            let _ = usage_usec(&text);
        }
    }

    #[test]
    fn this_process_has_memory() {
        assert!(resident(Path::new("/")) > 100_000);
    }
}
