//! Commands inside a test image, over a virtio serial port.
//!
//! Only the test layer of the image answers: one command a line goes in, its output comes back, then
//! `__RC=n`. The product's image has no such channel.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

/// What a command wrote and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Exit status.
    pub status: i32,
    /// Standard output and error, as they came.
    pub text: String,
}

/// The end of the channel on this side.
#[derive(Debug)]
pub struct Guest {
    stream: UnixStream,
}

/// Cuts a finished answer from what was read, or `None` while it is not finished.
fn parse(text: &str) -> Option<Answer> {
    let body = text.strip_suffix('\n')?;
    let (before, last) = body.rsplit_once('\n').unwrap_or(("", body));
    // A command whose output does not end with a newline has the mark behind it on the same line.
    let at = last.rfind("__RC=")?;
    let (rest, mark) = last.split_at(at);
    let status = mark.strip_prefix("__RC=")?.trim().parse().ok()?;
    let text = if before.is_empty() { rest.to_owned() } else { format!("{before}\n{rest}") };
    Some(Answer { status, text: text.trim_end().to_owned() })
}

impl Guest {
    pub(crate) fn connect(socket: &Path, limit: Duration) -> Result<Self> {
        let name = || format!("connect {}", socket.display());
        let until = Instant::now() + limit;
        // QEMU opens its sockets one after the other.
        let stream = loop {
            match UnixStream::connect(socket) {
                Err(_early) if Instant::now() < until => sleep(Duration::from_millis(20)),
                done => break done.with_context(name)?,
            }
        };
        let mut guest = Self { stream };
        // The shell may not run yet, and what is sent before it does is lost or queued. Answers come in the
        // order of the questions, so that behind the newest one's nothing is left to read.
        for number in 0_u32.. {
            let word = format!("here-{number}");
            if guest.hears(&word, Duration::from_secs(2)).with_context(name)? {
                return Ok(guest);
            }
            if Instant::now() > until {
                break;
            }
        }
        bail!("no test shell answers on {} within {} s", socket.display(), limit.as_secs())
    }

    /// Whether an `echo` of `word` is answered within `limit`; what came before it is thrown away.
    fn hears(&mut self, word: &str, limit: Duration) -> Result<bool> {
        writeln!(self.stream, "echo {word}")?;
        let answer = format!("{word}\n__RC=0\n");
        let until = Instant::now() + limit;
        let mut text = Vec::new();
        while !String::from_utf8_lossy(&text).ends_with(&answer) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => bail!("QEMU closed the channel"),
                Ok(count) => text.extend_from_slice(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Runs one line of shell.
    ///
    /// # Errors
    /// No answer within 60 s.
    pub fn ask(&mut self, line: &str) -> Result<Answer> {
        self.try_ask(line, Duration::from_secs(60))
    }

    /// Runs one line of shell and gives its output.
    ///
    /// # Errors
    /// No answer within 60 s, or an exit status other than 0: then with the output.
    pub fn run(&mut self, line: &str) -> Result<String> {
        let answer = self.ask(line)?;
        ensure!(answer.status == 0, "guest: {line}: status {}: {}", answer.status, answer.text);
        Ok(answer.text)
    }

    fn try_ask(&mut self, line: &str, limit: Duration) -> Result<Answer> {
        ensure!(!line.contains('\n'), "guest command of several lines: {line:?}");
        let waiting = || format!("guest: await the answer to {line}");
        writeln!(self.stream, "{line}").with_context(|| format!("guest: send {line}"))?;
        let until = Instant::now() + limit;
        let mut text = Vec::new();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "guest: no answer to {line} within {} s", limit.as_secs());
            self.stream.set_read_timeout(Some(left)).with_context(waiting)?;
            let mut buffer = [0; 4096];
            let count = match self.stream.read(&mut buffer) {
                Ok(0) => bail!("guest: QEMU closed the channel at {line}"),
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error).with_context(waiting),
            };
            text.extend_from_slice(buffer.get(..count).unwrap_or_default());
            if let Some(answer) = parse(&String::from_utf8_lossy(&text)) {
                return Ok(answer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_at_its_mark() {
        let answer = |status, text: &str| Some(Answer { status, text: text.to_owned() });
        assert_eq!(parse("a\nb\n__RC=0\n"), answer(0, "a\nb"));
        assert_eq!(parse("no newline__RC=3\n"), answer(3, "no newline"));
        assert_eq!(parse("__RC=1\n"), answer(1, ""));
        assert_eq!(parse("a\n__RC=0"), None);
        assert_eq!(parse("a\n"), None);
    }
}
