//! System calls that reach into the kernel or change the host.

use std::io;

use crate::attempt::Report;
use crate::sys::{address, address_mut, call, open_call, text, word};

pub(crate) fn keyrings(report: &mut Report) {
    const USER_SESSION: i64 = -5;
    const SESSION: i64 = -3;
    const GET_KEYRING: usize = 0;
    let kind = text("user").unwrap_or_default();
    let name = text("bulkhead-probe").unwrap_or_default();
    let (kind, name) = (kind.as_ptr() as usize, name.as_ptr() as usize);
    let payload = *b"secret";
    report.attempt("add-key", || {
        let arguments = [kind, name, address(&payload), payload.len(), word(SESSION), 0];
        call(libc::SYS_add_key, arguments).map(drop)
    });
    report.attempt("get-keyring", || {
        call(libc::SYS_keyctl, [GET_KEYRING, word(USER_SESSION), 1, 0, 0, 0]).map(drop)
    });
    report.attempt("request-key", || {
        // A key that is not there is looked for only by those who may.
        let result = call(libc::SYS_request_key, [kind, name, 0, word(SESSION), 0, 0]);
        let missing = |error: &io::Error| error.raw_os_error() == Some(126);
        match result {
            Err(error) if !missing(&error) => Err(error),
            _ => Ok(()),
        }
    });
}

pub(crate) fn io_uring(report: &mut Report) {
    report.attempt("setup", || {
        let mut parameters = [0_u8; 120];
        open_call(libc::SYS_io_uring_setup, [8, address_mut(&mut parameters), 0, 0, 0, 0]).map(drop)
    });
}

pub(crate) fn bpf(report: &mut Report) {
    const MAP_CREATE: usize = 0;
    report.attempt("map", || {
        // An array of one value of four bytes: kind, size of key, size of value, entries.
        let attributes: [u32; 32] = std::array::from_fn(|at| match at {
            0 => 2,
            1 | 2 => 4,
            3 => 1,
            _ => 0,
        });
        let size = std::mem::size_of_val(&attributes);
        open_call(libc::SYS_bpf, [MAP_CREATE, address(&attributes), size, 0, 0, 0]).map(drop)
    });
}

pub(crate) fn userfaultfd(report: &mut Report) {
    const USER_MODE_ONLY: usize = 1;
    report.attempt("whole", || open_call(libc::SYS_userfaultfd, [0; 6]).map(drop));
    report.attempt("user-mode", || {
        open_call(libc::SYS_userfaultfd, [USER_MODE_ONLY, 0, 0, 0, 0, 0]).map(drop)
    });
}

pub(crate) fn perf(report: &mut Report) {
    // PERF_TYPE_SOFTWARE, size of the first version, PERF_COUNT_SW_CPU_CLOCK.
    let attributes: [u32; 32] = std::array::from_fn(|at| match at {
        0 => 1,
        1 => 64,
        _ => 0,
    });
    let open = |pid: i64, cpu: i64| {
        let arguments = [address(&attributes), word(pid), word(cpu), word(-1), 0, 0];
        open_call(libc::SYS_perf_event_open, arguments).map(drop)
    };
    report.attempt("self", || open(0, -1));
    report.attempt("whole-cpu", || open(-1, 0));
}

pub(crate) fn modules(report: &mut Report) {
    let nothing = text("").unwrap_or_default();
    // No module at all: refused for its form only after the right to load one was granted.
    report.attempt("init-module", || {
        let image = [0_u8; 64];
        let arguments = [address(&image), image.len(), nothing.as_ptr() as usize, 0, 0, 0];
        form(call(libc::SYS_init_module, arguments))
    });
    report.attempt("finit-module", || {
        let file = std::fs::File::open("/proc/self/exe")?;
        let fd = word(std::os::fd::AsRawFd::as_raw_fd(&file));
        form(call(libc::SYS_finit_module, [fd, nothing.as_ptr() as usize, 0, 0, 0, 0]))
    });
    report.attempt("delete-module", || {
        let name = text("no_such_module").unwrap_or_default();
        match call(libc::SYS_delete_module, [name.as_ptr() as usize, 0, 0, 0, 0, 0]) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            other => other.map(drop),
        }
    });
}

/// Whether a call got as far as to look at what it was given.
fn form(result: io::Result<usize>) -> io::Result<()> {
    match result {
        // "Key was rejected by service": looked at, and not signed.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOEXEC | libc::EKEYREJECTED)) => {
            Ok(())
        }
        other => other.map(drop),
    }
}

pub(crate) fn host(report: &mut Report) {
    const MAGIC: [usize; 2] = [0xfee1_dead, 672_274_793];
    let [first, second] = MAGIC;
    report.attempt("reboot-by-keys-off", || {
        call(libc::SYS_reboot, [first, second, 0, 0, 0, 0]).map(drop)
    });
    report.attempt("set-clock", || {
        let mut now = [0_i64; 2];
        let realtime = word(libc::CLOCK_REALTIME);
        call(libc::SYS_clock_gettime, [realtime, address_mut(&mut now), 0, 0, 0, 0])?;
        call(libc::SYS_clock_settime, [realtime, address(&now), 0, 0, 0, 0]).map(drop)
    });
    report.attempt("kexec", || {
        // No segments: unloads what is loaded, which is nothing.
        call(libc::SYS_kexec_load, [0, 0, 0, 0, 0, 0]).map(drop)
    });
    report.attempt("io-ports", || call(libc::SYS_ioperm, [0x80, 1, 1, 0, 0, 0]).map(drop));
    report.attempt("accounting", || call(libc::SYS_acct, [0; 6]).map(drop));
    report.attempt("set-user", || {
        // An id that this program was not given.
        call(libc::SYS_setresuid, [4_000_000, 4_000_000, 4_000_000, 0, 0, 0]).map(drop)
    });
}
