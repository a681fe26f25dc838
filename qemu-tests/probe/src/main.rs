//! What an attacker tries from inside a lease: a static program that is a container's only one.
//!
//! ```text
//!  probe tenant            every probe of the list, a line each, then waits to be ended
//!  probe NAME              one of them
//!  probe mark HEX MIB      fills memory and the temporary file systems with a marker, then waits
//!  probe scan HEX MIB      looks for that marker in all memory it can get
//!  probe fork-bomb N       more processes than its bound; likewise memory-hog MIB, disk-filler MIB
//!  probe open-files N      all open files that it may have, in N processes, then waits
//!  probe count             a fixed loop over processor and memory; how often, in /dev/shm/count
//!  probe hog MIB           processor, memory, processes and files as busy as they go, without an end
//! ```
//!
//! Each prints `PROBE name RESULT detail`: `refused` where every attempt was, else `SUCCEEDED`. A probe that is refused
//! in a lease and succeeds without the guard is a proof; one that is always refused is none.

mod attempt;
mod calls;
mod count;
mod crowd;
mod devices;
mod files;
mod host;
mod marker;
mod mounts;
mod pids;
mod processor;
mod resources;
mod sockets;
mod sys;

use std::process::ExitCode;

use crate::attempt::Report;

/// A probe: adds its attempts.
type Probe = fn(&mut Report);

/// Probes that need no argument and leave nothing behind.
const PROBES: [(&str, Probe); 17] = [
    ("processor", processor::escape),
    ("devices", devices::nodes),
    ("volumes", devices::volumes),
    ("crowded-dev", crowd::dev),
    ("mounts", mounts::probe),
    ("pids", pids::probe),
    ("proc-sys", files::proc_sys),
    ("kernel-log", files::kernel_log),
    ("keyrings", calls::keyrings),
    ("io-uring", calls::io_uring),
    ("bpf", calls::bpf),
    ("userfaultfd", calls::userfaultfd),
    ("perf", calls::perf),
    ("modules", calls::modules),
    ("host-calls", calls::host),
    ("sockets", sockets::families),
    ("host-sockets", host::sockets),
];

fn report(name: &str, probe: Probe) {
    let mut report = Report::new(name);
    probe(&mut report);
    println!("{report}");
}

fn number(word: Option<&String>) -> Result<usize, String> {
    let word = word.ok_or("a number is missing")?;
    word.parse().map_err(|_| format!("{word}: expected a number"))
}

fn run(words: &[String]) -> Result<(), String> {
    let name = words.first().map(String::as_str).unwrap_or_default();
    let (first, second) = (words.get(1), words.get(2));
    match name {
        "tenant" => {
            PROBES.iter().for_each(|(name, probe)| report(name, *probe));
            println!("PROBES done");
            sys::wait_for_ever();
        }
        "mark" => marker::mark(first, number(second)?)?,
        "scan" => marker::scan(first, number(second)?)?,
        "fork-bomb" => println!("{}", resources::fork_bomb(number(first)?)),
        "memory-hog" => println!("{}", resources::memory_hog(number(first)?)),
        "disk-filler" => println!("{}", resources::disk_filler(number(first)?)),
        "open-files" => return crowd::files(number(first)?),
        "count" => return count::run(),
        "hog" => resources::hog(number(first)?),
        _ => {
            let found = PROBES.iter().find(|(known, _)| *known == name);
            let (name, probe) = found.ok_or_else(|| {
                let known: Vec<&str> = PROBES.iter().map(|(name, _)| *name).collect();
                format!("{name}: expected one of {}", known.join(", "))
            })?;
            report(name, *probe);
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("probe: {error}");
            ExitCode::from(2)
        }
    }
}
