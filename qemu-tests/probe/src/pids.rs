//! Processes of others: every number that there is.

use std::fs;
use std::io;

use crate::attempt::Report;
use crate::sys::{address, address_mut, call, kill, word};

/// Highest process id that is tried.
const HIGHEST: i32 = 65_536;

#[repr(C)]
struct IoVec {
    base: usize,
    length: usize,
}

pub(crate) fn probe(report: &mut Report) {
    let own = [std::process::id(), std::os::unix::process::parent_id()];
    let own = own.map(|id| i32::try_from(id).unwrap_or_default());
    // What exists answers with EPERM at the worst.
    let exists = |pid: &i32| {
        kill(*pid, 0).map_or_else(|error| error.raw_os_error() == Some(libc::EPERM), |()| true)
    };
    let others: Vec<i32> = (1..=HIGHEST).filter(|pid| !own.contains(pid)).filter(exists).collect();
    if others.is_empty() {
        report.note("see-others", Err(io::Error::from_raw_os_error(libc::ESRCH)));
    }
    // A handful is as good as all: the question is whether any can be reached.
    for &pid in others.iter().take(8) {
        report.attempt(&format!("kill-{pid}"), || kill(pid, 0));
        report.attempt(&format!("trace-{pid}"), || {
            const PTRACE_SEIZE: usize = 0x4206;
            call(libc::SYS_ptrace, [PTRACE_SEIZE, word(pid), 0, 0, 0, 0]).map(drop)
        });
        report.attempt(&format!("environ-{pid}"), || {
            let text = fs::read(format!("/proc/{pid}/environ"))?;
            if text.is_empty() { Err(io::Error::other("empty")) } else { Ok(()) }
        });
        report.attempt(&format!("read-memory-{pid}"), || read_memory(pid));
    }
}

/// The first bytes of a process's own program.
fn read_memory(pid: i32) -> io::Result<()> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let start = maps.split('-').next().and_then(|text| usize::from_str_radix(text, 16).ok());
    let start = start.ok_or_else(|| io::Error::other("no memory"))?;
    let mut bytes = [0_u8; 16];
    let local = IoVec { base: address_mut(&mut bytes), length: bytes.len() };
    let remote = IoVec { base: start, length: bytes.len() };
    let arguments = [word(pid), address(&local), 1, address(&remote), 1, 0];
    call(libc::SYS_process_vm_readv, arguments).map(drop)
}
