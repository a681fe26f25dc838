//! The one door to other programs: each run is logged by its error with the command line and the end of its output.

#![expect(clippy::disallowed_methods, reason = "this module is the command seam")]

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

/// A program that could not be started or ended badly.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It could not be started.
    #[error("start {program}")]
    Start {
        /// Its name.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It ended with another status than 0.
    #[error("{command}: {status}\n{output}")]
    Status {
        /// The whole command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines that it printed.
        output: String,
    },
}

/// A program to run, with nothing on its standard input.
#[derive(Debug)]
pub struct Program(Command);

impl Program {
    /// `name` is looked up in `PATH`.
    #[must_use]
    pub fn new(name: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(name);
        command.stdin(Stdio::null()).env("LC_ALL", "C").env("TZ", "UTC");
        Self(command)
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.0.arg(arg);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.0.args(args);
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.0.env(key, value);
        self
    }

    /// Removes a variable of its environment.
    #[must_use]
    pub fn without_env(mut self, key: &str) -> Self {
        self.0.env_remove(key);
        self
    }

    /// Runs it in this folder.
    #[must_use]
    pub fn folder(mut self, folder: &Path) -> Self {
        self.0.current_dir(folder);
        self
    }

    /// Runs it to its end and returns what it wrote to standard output.
    ///
    /// # Errors
    /// [`CommandError::Start`], or [`CommandError::Status`] with the last 30 lines of its output.
    pub fn run(mut self) -> Result<String, CommandError> {
        let program = self.0.get_program().to_string_lossy().into_owned();
        let done = self.0.output().map_err(|source| CommandError::Start { program, source })?;
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        if done.status.success() {
            return Ok(text);
        }
        let all = text + &String::from_utf8_lossy(&done.stderr);
        let lines: Vec<_> = all.lines().filter(|l| !l.trim().is_empty()).collect();
        let tail = lines.get(lines.len().saturating_sub(30)..).unwrap_or_default().join("\n");
        Err(CommandError::Status { command: self.line(), status: done.status, output: tail })
    }

    /// Whether it can be started and ends with status 0.
    #[must_use]
    pub fn succeeds(mut self) -> bool {
        self.0.output().is_ok_and(|done| done.status.success())
    }

    fn line(&self) -> String {
        let words = std::iter::once(self.0.get_program()).chain(self.0.get_args());
        words.map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_end_names_the_command_and_shows_its_last_words() {
        let error =
            Program::new("sh").args(["-c", "echo one; echo two >&2; exit 3"]).run().unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("sh -c echo one") && text.contains("two") && text.contains('3'),
            "{text}"
        );
    }

    #[test]
    fn a_missing_program_is_a_start_error() {
        let error = Program::new("no-such-program-at-all").run().unwrap_err();
        assert_eq!(error.to_string(), "start no-such-program-at-all");
    }
}
