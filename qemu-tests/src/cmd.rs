//! Commands as values, and the one place that starts programs.
#![expect(clippy::disallowed_methods, reason = "this module is the crate's seam to other programs")]

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context as _, Result, bail};

/// A program with its arguments and additions to the environment. Nothing runs until it is told to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cmd {
    /// The program and its arguments.
    pub argv: Vec<OsString>,
    /// Variables set on top of the inherited environment.
    pub env: Vec<(OsString, OsString)>,
}

impl Cmd {
    /// A command without arguments.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self { argv: vec![program.as_ref().to_owned()], env: Vec::new() }
    }

    /// With one more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.argv.push(arg.as_ref().to_owned());
        self
    }

    /// With more arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.argv.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// With a variable of the environment set.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// With `words` before the program, as `ip netns exec NAME` and `setsid` want it. Both replace
    /// themselves by the program, so the process id stays that of the child.
    #[must_use]
    pub fn under<A: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = A>) -> Self {
        let before: Vec<OsString> = words.into_iter().map(|w| w.as_ref().to_owned()).collect();
        self.argv.splice(0..0, before);
        self
    }

    fn command(&self) -> Result<Command> {
        let (program, args) = self.argv.split_first().context("empty command")?;
        let mut command = Command::new(program);
        command.args(args).envs(self.env.iter().map(|(k, v)| (k, v)));
        Ok(command)
    }

    /// Runs to the end and gives what it wrote, whatever its exit status.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn output(&self) -> Result<Output> {
        self.command()?.stdin(Stdio::null()).output().with_context(|| format!("start {self}"))
    }

    /// Runs to the end and gives its standard output.
    ///
    /// # Errors
    /// The program cannot be started, or ends with a status other than 0: then with what it wrote.
    pub fn run(&self) -> Result<String> {
        let output = self.output()?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!("{self}: {}: {}{}", output.status, stdout, stderr.trim_end());
        }
        Ok(stdout)
    }

    /// Runs to the end with this program's own terminal, and gives the exit code (255 for a signal).
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn pass_through(&self) -> Result<u8> {
        let status = self.command()?.status().with_context(|| format!("start {self}"))?;
        Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(255))
    }

    /// Starts it in the background with standard output and error appended to `log`.
    ///
    /// # Errors
    /// The log cannot be opened, or the program cannot be started.
    pub fn spawn(&self, log: &Path) -> Result<Child> {
        let out = File::options().create(true).append(true).open(log);
        let out = out.with_context(|| format!("open {}", log.display()))?;
        let err = out.try_clone().with_context(|| format!("share {}", log.display()))?;
        let mut command = self.command()?;
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        command.spawn().with_context(|| format!("start {self}"))
    }
}

/// As a person would type it.
impl fmt::Display for Cmd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, word) in self.argv.iter().enumerate() {
            let space = if number == 0 { "" } else { " " };
            let word = word.to_string_lossy();
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./,:+@%".contains(c);
            if !word.is_empty() && word.chars().all(plain) {
                write!(f, "{space}{word}")?;
            } else {
                write!(f, "{space}'{}'", word.replace('\'', r"'\''"))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Cmd;

    #[test]
    fn a_command_prints_as_typed_and_wraps_in_order() {
        let cmd = Cmd::new("prog").args(["-a", "two words", "it's"]).under(["ip", "netns"]);
        assert_eq!(cmd.to_string(), r"ip netns prog -a 'two words' 'it'\''s'");
    }

    #[test]
    fn a_failing_command_reports_its_status_and_error_text() {
        let error =
            Cmd::new("sh").args(["-c", "echo why >&2; exit 3"]).run().unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("why"), "{error}");
    }
}
