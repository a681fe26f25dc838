//! Processes that are named so that a recycled process id is never taken for them.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::cmd::Cmd;

/// A process id together with the process's start time, which a later process of the same id lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessId {
    /// The process id.
    pub pid: i32,
    /// Start of the process in clock ticks since the machine's boot (proc(5), `starttime`).
    pub start_ticks: u64,
}

/// What `/proc/PID/stat` says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    /// `Z` is a process that ended and was not yet waited for.
    state: char,
    /// User plus system time in clock ticks.
    cpu_ticks: u64,
    start_ticks: u64,
}

/// Reads proc(5) fields 3, 14, 15 and 22. The name in field 2 may hold spaces and brackets.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        cpu_ticks: number(11)?.checked_add(number(12)?)?,
        start_ticks: number(19)?,
    })
}

fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

impl ProcessId {
    /// The process that now has this id.
    ///
    /// # Errors
    /// There is none.
    pub fn of(pid: i32) -> Result<Self> {
        let stat = stat(pid).with_context(|| format!("read process {pid}"))?;
        Ok(Self { pid, start_ticks: stat.start_ticks })
    }

    /// Whether it still runs; a process that ended and waits for its parent does not.
    #[must_use]
    pub fn alive(self) -> bool {
        stat(self.pid).is_some_and(|now| now.start_ticks == self.start_ticks && now.state != 'Z')
    }

    /// Seconds of user and system time used so far, or `None` when it is gone.
    #[must_use]
    pub fn cpu_seconds(self) -> Option<f64> {
        let now = stat(self.pid).filter(|now| now.start_ticks == self.start_ticks)?;
        let hundredths = u32::try_from(now.cpu_ticks).ok()?;
        // USER_HZ is 100 on every Linux architecture that this runs on.
        Some(f64::from(hundredths) / 100.0)
    }

    /// Sends a signal; none where the process is gone.
    pub fn signal(self, signal: Signal) {
        if self.alive() {
            // It may end between the look and the signal: then there is nothing left to tell.
            let _gone = kill(Pid::from_raw(self.pid), signal);
        }
    }

    /// SIGTERM, then SIGKILL when it is not gone within `grace`.
    pub fn stop(self, grace: Duration) {
        self.signal(Signal::SIGTERM);
        let until = Instant::now() + grace;
        while self.alive() && Instant::now() < until {
            sleep(Duration::from_millis(20));
        }
        self.signal(Signal::SIGKILL);
        let until = Instant::now() + Duration::from_secs(5);
        while self.alive() && Instant::now() < until {
            sleep(Duration::from_millis(10));
        }
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.pid)
    }
}

/// A program in the background. It is stopped when this value goes, unless [`Daemon::let_run`].
#[derive(Debug)]
pub struct Daemon {
    /// What it is, for messages.
    pub name: String,
    /// Where its standard output and error go.
    pub log: PathBuf,
    /// The process.
    pub id: ProcessId,
    child: Option<Child>,
}

impl Daemon {
    /// Starts `cmd`, which must become the program without a fork in between.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(name: &str, cmd: &Cmd, log: &Path) -> Result<Self> {
        let child = cmd.spawn(log)?;
        let pid = i32::try_from(child.id()).context("process id")?;
        let id = ProcessId::of(pid)?;
        Ok(Self { name: name.to_owned(), log: log.to_owned(), id, child: Some(child) })
    }

    /// Whether it still runs.
    pub fn alive(&mut self) -> bool {
        if let Some(child) = &mut self.child {
            // Waiting for it lets the kernel forget it; the answer comes from `alive` below.
            let _status = child.try_wait();
        }
        self.id.alive()
    }

    /// SIGKILL and wait: what a power cut or a crash looks like from outside.
    pub fn kill(&mut self) {
        self.id.signal(Signal::SIGKILL);
        self.reap();
    }

    /// SIGTERM, SIGKILL after `grace`, and wait.
    pub fn stop(&mut self, grace: Duration) {
        self.id.stop(grace);
        self.reap();
    }

    /// Leaves the program running when this value goes.
    pub fn let_run(mut self) -> ProcessId {
        self.child = None;
        self.id
    }

    /// The last `lines` lines of its log, for messages.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }

    fn reap(&mut self) {
        if let Some(mut child) = self.child.take() {
            // The process is ours and was sent SIGKILL or ended: waiting cannot fail in a way that matters.
            let _status = child.wait();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.stop(Duration::from_secs(3));
        }
    }
}

/// The last `lines` lines of a text file, or why there are none.
#[must_use]
pub fn tail(path: &Path, lines: usize) -> String {
    match fs::read(path) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let all: Vec<&str> = text.lines().collect();
            let from = all.len().saturating_sub(lines);
            all.get(from..).unwrap_or_default().join("\n")
        }
        Err(error) => format!("({}: {error})", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_past_a_name_with_brackets() {
        let line =
            "12 (ld linux) x) S 1 12 12 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 9 0 777 1 2 3\n";
        let want = Stat { state: 'S', cpu_ticks: 200, start_ticks: 777 };
        assert_eq!(parse_stat(line), Some(want));
        assert_eq!(parse_stat("12 (x"), None);
    }

    #[test]
    fn a_recycled_process_id_is_not_taken_for_the_process() {
        let me = ProcessId::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(me.alive());
        assert!(!ProcessId { start_ticks: me.start_ticks + 1, ..me }.alive());
    }

    #[test]
    fn a_daemon_that_goes_out_of_scope_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let daemon =
            Daemon::start("sleeper", &Cmd::new("sleep").arg("60"), &dir.path().join("log"))
                .unwrap();
        let id = daemon.id;
        assert!(id.alive());
        drop(daemon);
        assert!(!id.alive());
    }
}
