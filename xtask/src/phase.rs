//! Long work with its name and time: a spinner with the latest line on a terminal, plain lines elsewhere.

use std::io::{BufRead, BufReader, IsTerminal as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// Lines of output that are kept to be shown when the work breaks off.
const KEPT_LINES: usize = 60;

/// A command of this machine; the one place that makes them.
#[expect(clippy::disallowed_methods, reason = "the task runner's command seam")]
pub(crate) fn command(program: &str) -> Command {
    Command::new(program)
}

/// A named piece of work.
pub(crate) struct Phase {
    name: String,
    started: Instant,
}

impl Phase {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), started: Instant::now() }
    }

    /// Runs a function as the phase.
    pub(crate) fn call(self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let result = work();
        self.end(result.is_ok());
        result
    }

    /// Runs a command with its output passed through.
    pub(crate) fn run_in_sight(self, command: &mut Command) -> Result<()> {
        println!("{}: begins", self.name);
        let status = command.status().with_context(|| format!("start {command:?}"))?;
        self.end(status.success());
        if status.success() { Ok(()) } else { bail!("{}: {command:?}: {status}", self.name) }
    }

    /// Runs a command; on a terminal its latest line is shown beside a spinner.
    pub(crate) fn run(self, command: &mut Command) -> Result<()> {
        if !std::io::stderr().is_terminal() {
            return self.run_in_sight(command);
        }
        let spinner = ProgressBar::new_spinner();
        spinner.set_style(ProgressStyle::with_template(
            "{spinner} {elapsed:>4} {prefix}: {wide_msg}",
        )?);
        spinner.set_prefix(self.name.clone());
        spinner.enable_steady_tick(Duration::from_millis(120));
        let (reader, writer) = std::io::pipe().context("make a pipe")?;
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
        // The command's copies of the pipe are closed with it, so that reading ends when the child does.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut kept = std::collections::VecDeque::new();
        for line in BufReader::new(reader).lines() {
            let line = line.context("read output")?;
            spinner.set_message(line.clone());
            kept.push_back(line);
            if kept.len() > KEPT_LINES {
                kept.pop_front();
            }
        }
        let status = child.wait().context("wait for the command")?;
        spinner.finish_and_clear();
        self.end(status.success());
        if status.success() {
            return Ok(());
        }
        for line in kept {
            eprintln!("  {line}");
        }
        bail!("{}: {command:?}: {status}", self.name)
    }

    fn end(&self, good: bool) {
        let seconds = self.started.elapsed().as_secs_f64();
        let word = if good { "done" } else { "FAILED" };
        println!("{}: {word} in {seconds:.1} s", self.name);
    }
}
