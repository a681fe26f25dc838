//! Other cores than the lease's: by affinity, by control group, by a clone into another one.

use std::fs;
use std::io;

use crate::attempt::Report;
use crate::sys::{address, affinity, call, open_call, text, word};

const GROUPS: &str = "/sys/fs/cgroup";

/// `clone_args` of clone3(2), version 2.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    unused: [u64; 3],
    exit_signal: u64,
    more: [u64; 5],
    cgroup: u64,
}

pub(crate) fn escape(report: &mut Report) {
    report.attempt("affinity", all_cpus);
    report.attempt("cgroup.procs", || fs::write(format!("{GROUPS}/cgroup.procs"), "0"));
    report.attempt("controllers", || {
        let path = format!("{GROUPS}/cgroup.subtree_control");
        fs::OpenOptions::new().write(true).open(path).map(drop)
    });
    report.attempt("new-cgroup", || {
        let path = format!("{GROUPS}/probe");
        fs::create_dir(&path)?;
        fs::remove_dir(&path)
    });
    report.attempt("clone-into-cgroup", clone_into);
    report.attempt("nice", || call(libc::SYS_setpriority, [0, 0, word(-20), 0, 0, 0]).map(drop));
    report.attempt("real-time", || {
        let priority: i32 = 50;
        let fifo = word(libc::SCHED_FIFO);
        call(libc::SYS_sched_setscheduler, [0, fifo, address(&priority), 0, 0, 0]).map(drop)
    });
}

/// A success is a core that was not allowed before.
fn all_cpus() -> io::Result<()> {
    let before = affinity()?;
    let all = [0xff_u8; 128];
    call(libc::SYS_sched_setaffinity, [0, all.len(), address(&all), 0, 0, 0])?;
    let after = affinity()?;
    if after.iter().any(|cpu| !before.contains(cpu)) {
        return Ok(());
    }
    Err(io::Error::other("same cores"))
}

fn clone_into() -> io::Result<()> {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    const SIGCHLD: u64 = 17;
    let path = text(GROUPS)?;
    let flags = word(libc::O_PATH | libc::O_DIRECTORY);
    let at = word(libc::AT_FDCWD);
    let group = open_call(libc::SYS_openat, [at, path.as_ptr() as usize, flags, 0, 0, 0])?;
    let fd = u64::try_from(std::os::fd::AsRawFd::as_raw_fd(&group)).unwrap_or_default();
    let arguments = CloneArgs {
        flags: CLONE_INTO_CGROUP,
        exit_signal: SIGCHLD,
        cgroup: fd,
        ..CloneArgs::default()
    };
    let size = std::mem::size_of::<CloneArgs>();
    let pid = call(libc::SYS_clone3, [address(&arguments), size, 0, 0, 0, 0])?;
    if pid == 0 {
        // The child is in the other group: that is all it wanted.
        std::process::exit(0);
    }
    Ok(())
}
