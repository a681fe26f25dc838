//! More than its share: processes, memory, files.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::PathBuf;

use crate::sys::{self, Ended, Mapping};

const MIB: usize = 1 << 20;

/// The kernel takes those first that say so.
fn first_to_die() {
    // Without it others of this program may be taken: the outcome is the same, only less tidy.
    let _unshielded = fs::write("/proc/self/oom_score_adj", "1000");
}

fn line(name: &str, succeeded: bool, detail: &str) -> String {
    let word = if succeeded { "SUCCEEDED" } else { "refused" };
    format!("PROBE {name} {word} {detail}")
}

/// Processes until one is refused, or there are `wanted`.
pub(crate) fn fork_bomb(wanted: usize) -> String {
    let mut children = Vec::new();
    let mut refused = None;
    while children.len() < wanted {
        let child = sys::spawn(|| {
            first_to_die();
            sys::wait_for_ever();
        });
        match child {
            Ok(pid) => children.push(pid),
            Err(error) => {
                refused = Some(error.raw_os_error().map(sys::name).unwrap_or_default());
                break;
            }
        }
    }
    // One that ended meanwhile was ended by the bound on memory.
    let killed = children.iter().filter(|pid| sys::kill(**pid, libc::SIGKILL).is_err()).count();
    for pid in &children {
        // Ours, and killed: nothing to be told.
        let _ended = sys::wait(*pid);
    }
    let detail = format!(
        "{} of {wanted} processes, then {}, {killed} gone before",
        children.len(),
        refused.as_deref().unwrap_or("no refusal")
    );
    line("fork-bomb", refused.is_none(), &detail)
}

/// Memory until the kernel ends the process that takes it, or it has `mib`.
pub(crate) fn memory_hog(mib: usize) -> String {
    let child = sys::spawn(|| {
        first_to_die();
        let status = take(mib).map_or(1, |()| 0);
        std::process::exit(status)
    });
    match child.and_then(sys::wait) {
        Ok(Ended::Status(0)) => line("memory-hog", true, &format!("{mib} MiB were written")),
        Ok(Ended::Status(_)) => line("memory-hog", false, "not mapped"),
        Ok(Ended::Signal(signal)) => {
            line("memory-hog", false, &format!("ended by signal {signal}"))
        }
        Err(error) => line("memory-hog", false, &error.to_string()),
    }
}

fn take(mib: usize) -> io::Result<()> {
    let mut memory = Mapping::new(mib * MIB)?;
    memory.bytes().chunks_mut(4096).for_each(|page| {
        if let Some(first) = page.first_mut() {
            *first = 1;
        }
    });
    Ok(())
}

/// Where a tenant can write.
fn folders() -> Vec<PathBuf> {
    ["/dev/shm", "/tmp", "/run", "/data"]
        .map(PathBuf::from)
        .into_iter()
        .filter(|p| p.is_dir())
        .collect()
}

/// Each file system by itself, filled until it refuses or `mib` were written to it, and emptied again.
pub(crate) fn disk_filler(mib: usize) -> String {
    let mut words = Vec::new();
    let mut unbounded = false;
    for folder in folders() {
        let path = folder.join("filler");
        let (written, why) = fill(&path, mib);
        // What it is about is that there is room again.
        let _kept = fs::remove_file(&path);
        unbounded |= why.is_none();
        let why = why.unwrap_or_else(|| "no refusal".to_owned());
        words.push(format!("{}: {written} MiB, then {why}", folder.display()));
    }
    line("disk-filler", unbounded, &words.join("; "))
}

fn fill(path: &std::path::Path, mib: usize) -> (usize, Option<String>) {
    let name = |error: &io::Error| error.raw_os_error().map(sys::name).unwrap_or_default();
    let mut file = match File::create(path) {
        Ok(file) => file,
        Err(error) => return (0, Some(name(&error))),
    };
    let block = vec![0xa5; MIB];
    for written in 0..mib {
        if let Err(error) = file.write_all(&block) {
            return (written, Some(name(&error)));
        }
    }
    (mib, None)
}

/// Everything at once, over and over: what a neighbour must not feel.
pub(crate) fn hog(mib: usize) -> ! {
    sys::end_when_told();
    loop {
        let spinner = sys::spawn(|| {
            let mut memory = Mapping::new(MIB * 8).ok();
            loop {
                if let Some(memory) = &mut memory {
                    memory
                        .bytes()
                        .iter_mut()
                        .for_each(|byte| *byte = byte.wrapping_mul(31).wrapping_add(7));
                }
            }
        });
        println!("{}", fork_bomb(64));
        for folder in folders() {
            let path = folder.join("filler");
            let _written = fill(&path, mib / 4);
            let _kept = fs::remove_file(&path);
        }
        // Below its bound: above it the kernel would end the lease's program, and the hog with it.
        let _taken = sys::in_child(20, || take(mib / 2));
        if let Ok(pid) = spinner {
            let _gone = sys::kill(pid, libc::SIGKILL);
            let _ended = sys::wait(pid);
        }
    }
}
