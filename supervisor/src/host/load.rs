//! What the supervisor and the start of user space cost, from procfs.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// `sysconf(_SC_CLK_TCK)`: Linux reports process times in 1/100 s on every architecture we run on
/// (`include/asm-generic/param.h`, `USER_HZ`).
const TICK_MS: u64 = 10;

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

/// CPU time in milliseconds that user-space processes took since boot: of the living ones and of the
/// children they waited for. Kernel threads do not count; 0 where unknown.
#[must_use]
pub fn user_space_ms(root: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(root.join("proc")) else { return 0 };
    let ticks: u64 = entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            name.to_str().is_some_and(|name| name.bytes().all(|c| c.is_ascii_digit()))
        })
        .filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok())
        .filter_map(|stat| process_ticks(&stat))
        .sum();
    ticks.saturating_mul(TICK_MS)
}

/// `utime + stime + cutime + cstime` of a line of `/proc/PID/stat` (proc_pid_stat(5), fields 14-17);
/// `None` for kernel threads (parent or self is `kthreadd`, process 2).
fn process_ticks(stat: &str) -> Option<u64> {
    let (head, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let parent = fields.get(1)?;
    if *parent == "2" || head.starts_with("2 ") {
        return None;
    }
    let times = fields.get(11..15)?;
    times.iter().map(|ticks| ticks.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_of_a_process_and_its_waited_children_are_summed() {
        let stat = "1 (init (x) y) S 0 1 1 0 -1 4194560 9 8 7 6 100 20 3 4 20 0 1 0 1 1 1";
        assert_eq!(process_ticks(stat), Some(127));
    }

    #[test]
    fn kernel_threads_do_not_count() {
        let stat = "33 (kworker/0:1) I 2 0 0 0 -1 69238880 0 0 0 0 5 5 0 0 20 0 1 0 1 0 0";
        assert_eq!(process_ticks(stat), None);
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_left_out(line in ".{0,80}", name in "[ -~]{0,16}") {
            let _ = process_ticks(&line);
            let stat = format!("5 ({name}) S 1 1 1 0 -1 0 9 8 7 6 1 2 3 4 20 0 1 0 1 1 1");
            prop_assert_eq!(process_ticks(&stat), Some(10));
        }
    }

    #[test]
    fn this_process_has_memory() {
        assert!(resident(Path::new("/")) > 100_000);
    }
}
