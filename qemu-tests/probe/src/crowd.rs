//! So much of everything that is looked at for the isolation statement that nobody can look at all of it.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use crate::attempt::Report;
use crate::sys::{self, address, address_mut, call, word};

/// Files in `/dev`, and directories in directories there.
const MANY: usize = 2000;
const DEEP: usize = 12;

/// Devices of a container are in its `/dev`: what else is there is looked at too.
pub(crate) fn dev(report: &mut Report) {
    report.attempt("many", || {
        let path = |number: usize| format!("/dev/probe-{number}");
        let made = (0..MANY).take_while(|number| File::create(path(*number)).is_ok()).count();
        let why = io::Error::last_os_error();
        for number in 0..made {
            fs::remove_file(path(number))?;
        }
        if made == MANY { Ok(()) } else { Err(why) }
    });
    report.attempt("deep", || {
        let top = PathBuf::from("/dev/probe");
        fs::create_dir_all((0..DEEP).fold(top.clone(), |path, _| path.join("d")))?;
        fs::remove_dir_all(top)
    });
}

/// All open files that a process may have, in as many processes; they stay until they are ended.
pub(crate) fn files(processes: usize) -> Result<(), String> {
    let failed = |error: io::Error| format!("open files: {error}");
    let mut limit = [0_u64; 2];
    let which = word(i64::from(libc::RLIMIT_NOFILE));
    call(libc::SYS_prlimit64, [0, which, 0, address_mut(&mut limit), 0, 0]).map_err(failed)?;
    let most = [limit[1]; 2];
    call(libc::SYS_prlimit64, [0, which, address(&most), 0, 0, 0]).map_err(failed)?;
    let mut open = 0_usize;
    while call(libc::SYS_dup, [0; 6]).is_ok() {
        open += 1;
    }
    // A fork has a table of its own, with all that is in this one.
    for _ in 1..processes {
        sys::spawn(|| sys::wait_for_ever()).map_err(failed)?;
    }
    println!("PROBE open-files SUCCEEDED {open} in each of {processes} processes");
    sys::wait_for_ever();
}
