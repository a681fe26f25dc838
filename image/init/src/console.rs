//! What the operator sees: lines on the console, the same in the kernel's log, and the time of each phase.

use std::error::Error;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::Mutex;
use std::time::Duration;

use bulkhead_api::chain::Chain;
use nix::time::{ClockId, clock_gettime};

/// The console and the marks set so far.
#[derive(Debug, Default)]
pub struct Console {
    marks: Mutex<Vec<(String, u64)>>,
}

/// Time since the kernel started.
#[must_use]
pub fn uptime() -> Duration {
    // CLOCK_BOOTTIME exists on every kernel that this program runs on
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

impl Console {
    /// Prints a line: `stage1[12.34]: text`.
    pub fn say(&self, text: &str) {
        print(&format!("stage1[{:.2}]: {text}\n", uptime().as_secs_f64()));
    }

    /// Prints an error with its causes.
    pub fn fault(&self, text: &str, error: &dyn Error) {
        self.say(&format!("{text}: {}", Chain(error)));
    }

    /// Ends a phase: prints `bulkhead: mark NAME MILLISECONDS detail` and keeps the time for the supervisor. A phase that
    /// is done again counts from then.
    pub fn mark(&self, name: &str, detail: &str) {
        let now = u64::try_from(uptime().as_millis()).unwrap_or(u64::MAX);
        print(&format!("bulkhead: mark {name} {now} {detail}\n"));
        if let Ok(mut marks) = self.marks.lock() {
            marks.retain(|(before, _)| before != name);
            marks.push((name.to_owned(), now));
        }
    }

    /// The marks set so far, in order.
    #[must_use]
    pub fn marks(&self) -> Vec<(String, u64)> {
        self.marks.lock().map(|marks| marks.clone()).unwrap_or_default()
    }
}

/// Prints to the console, and to the kernel's log, which the journal takes over.
///
/// A console that cannot be written to is no reason to stop: there is nowhere to say so.
fn print(line: &str) {
    if let Ok(mut console) = OpenOptions::new().write(true).open("/dev/console") {
        let _ = console.write_all(line.as_bytes());
    }
    // level 6: `quiet` keeps it off the console, where the line is already
    if let Ok(mut log) = OpenOptions::new().write(true).open("/dev/kmsg") {
        let _ = log.write_all(format!("<6>{line}").as_bytes());
    }
}
