//! Files of `/proc` and `/sys` that show or change the host.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};

use crate::attempt::Report;
use crate::sys::{address_mut, call};

/// Opened for writing and left alone: the right to write is what counts.
const WRITABLE: [&str; 9] = [
    "/proc/sysrq-trigger",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/vm/drop_caches",
    "/proc/sys/kernel/randomize_va_space",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/kernel/uevent_helper",
    "/sys/bus/pci/rescan",
    "/proc/irq/default_smp_affinity",
];

pub(crate) fn proc_sys(report: &mut Report) {
    report.attempt("read-kcore", || some("/proc/kcore"));
    report.attempt("read-keys", || some("/proc/keys"));
    report.attempt("read-timer-list", || some("/proc/timer_list"));
    report.attempt("kernel-addresses", || {
        let symbols = fs::read_to_string("/proc/kallsyms")?;
        let shown = symbols.lines().any(|line| {
            line.split(' ').next().is_some_and(|word| word.bytes().any(|byte| byte != b'0'))
        });
        if shown { Ok(()) } else { Err(io::Error::other("hidden")) }
    });
    for path in WRITABLE {
        report.attempt(&format!("write-{path}"), || {
            OpenOptions::new().write(true).open(path).map(drop)
        });
    }
    report.attempt("shield-from-oom", || fs::write("/proc/self/oom_score_adj", "-1000"));
}

pub(crate) fn kernel_log(report: &mut Report) {
    const READ_ALL: usize = 3;
    report.attempt("syslog", || {
        let mut text = [0_u8; 256];
        let (at, length) = (address_mut(&mut text), text.len());
        call(libc::SYS_syslog, [READ_ALL, at, length, 0, 0, 0]).map(drop)
    });
    report.attempt("dev-kmsg", || some("/dev/kmsg"));
    report.attempt("proc-kmsg", || File::open("/proc/kmsg").map(drop));
    report.attempt("write-kmsg", || OpenOptions::new().write(true).open("/dev/kmsg").map(drop));
}

/// A file that gives at least a byte.
fn some(path: &str) -> io::Result<()> {
    let mut bytes = [0; 512];
    match File::open(path)?.read(&mut bytes)? {
        0 => Err(io::Error::other("empty")),
        _ => Ok(()),
    }
}
