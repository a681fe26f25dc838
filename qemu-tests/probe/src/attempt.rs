//! Attempts, each in a process of its own, so that one that succeeds changes nothing for the next.

use std::fmt;
use std::io;

use crate::sys;

/// A child that does not come back within this time was held up: refused.
const SECONDS: u32 = 20;

/// What one probe tried.
pub(crate) struct Report {
    name: String,
    succeeded: Vec<String>,
    refused: Vec<String>,
}

impl Report {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), succeeded: Vec::new(), refused: Vec::new() }
    }

    /// Tries it in a child: `Ok` is a success of the attacker.
    pub(crate) fn attempt(&mut self, what: &str, work: impl FnOnce() -> io::Result<()>) {
        let outcome = sys::in_child(SECONDS, work);
        self.note(what, outcome);
    }

    /// Notes what came of an attempt that was made in this process.
    pub(crate) fn note(&mut self, what: &str, outcome: io::Result<()>) {
        match outcome {
            Ok(()) => self.succeeded.push(what.to_owned()),
            Err(error) => {
                let why = error.raw_os_error().map_or_else(|| error.to_string(), sys::name);
                self.refused.push(format!("{what}={why}"));
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, list) = if self.succeeded.is_empty() {
            ("refused", &self.refused)
        } else {
            ("SUCCEEDED", &self.succeeded)
        };
        let tried = self.succeeded.len() + self.refused.len();
        write!(f, "PROBE {} {word} {} of {tried}: {}", self.name, list.len(), list.join(" "))
    }
}
