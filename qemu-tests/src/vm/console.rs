//! The serial console: lines with the time since power-on and the emulator's processor seconds.
//!
//! QEMU writes the console to a file, which goes on growing when this program ends; a [`Console`] is a
//! reader of that file. A line is stamped when it is read, so whoever wants times must keep reading.

use std::fmt;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// One line of the console, without escape sequences.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Time since power-on at which it was read.
    pub at: Duration,
    /// Processor seconds that QEMU had used by then.
    pub cpu_seconds: f64,
    /// The text.
    pub text: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:8.2} {:7.2}  {}", self.at.as_secs_f64(), self.cpu_seconds, self.text)
    }
}

/// Cuts a byte stream into lines without terminal control: pure.
#[derive(Debug, Default)]
struct Splitter {
    pending: Vec<u8>,
}

impl Splitter {
    fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        self.pending.extend_from_slice(bytes);
        let mut lines = Vec::new();
        while let Some(end) = self.pending.iter().position(|&b| b == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            let text = plain(&line);
            if !text.is_empty() {
                lines.push(text);
            }
        }
        lines
    }
}

/// Drops escape sequences (ECMA-48 CSI, and the two-character ones) and other control characters.
fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut chars = text.chars();
    let mut out = String::new();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next() {
                // A CSI sequence ends with a character from '@' to '~'.
                Some('[') => while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
                Some('(' | ')') => drop(chars.next()),
                _ => {}
            },
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out.trim_end().to_owned()
}

/// A reader of a server's console.
#[derive(Debug)]
pub struct Console {
    path: PathBuf,
    offset: u64,
    splitter: Splitter,
    lines: Vec<Line>,
    /// Lines before this one were already waited for.
    seen: usize,
}

impl Console {
    pub(crate) fn new(path: &Path) -> Self {
        let (path, splitter) = (path.to_owned(), Splitter::default());
        Self { path, offset: 0, splitter, lines: Vec::new(), seen: 0 }
    }

    /// Reads what QEMU wrote since the last call.
    pub(crate) fn poll(&mut self, at: Duration, cpu_seconds: f64) -> Result<()> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            // QEMU has not come so far yet.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                return Err(error).with_context(|| format!("open {}", self.path.display()));
            }
        };
        let reading = || format!("read {}", self.path.display());
        file.seek(SeekFrom::Start(self.offset)).with_context(reading)?;
        let mut bytes = Vec::new();
        self.offset += file.read_to_end(&mut bytes).with_context(reading)? as u64;
        let texts = self.splitter.feed(&bytes);
        self.lines.extend(texts.into_iter().map(|text| Line { at, cpu_seconds, text }));
        Ok(())
    }

    /// The first line not yet waited for that holds one of `patterns`; lines up to it count as seen.
    pub(crate) fn find(&mut self, patterns: &[&str]) -> Option<Line> {
        let rest = self.lines.get(self.seen..).unwrap_or_default();
        let hit = rest.iter().position(|line| patterns.iter().any(|p| line.text.contains(p)));
        let hit = hit?;
        self.seen += hit + 1;
        rest.get(hit).cloned()
    }

    /// All lines read so far.
    #[must_use]
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// The last `count` lines, one below the other.
    #[must_use]
    pub fn tail(&self, count: usize) -> String {
        let from = self.lines.len().saturating_sub(count);
        let last = self.lines.get(from..).unwrap_or_default();
        last.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_and_without_escape_sequences() {
        let mut splitter = Splitter::default();
        assert!(splitter.feed(b"\x1b[2J\x1b[01;01HBdsDxe: load").is_empty());
        let lines = splitter.feed(b"ing Boot0001\r\n\r\n\x1b[0;32m[  OK  ]\x1b[0m Started\r\nrest");
        assert_eq!(lines, ["BdsDxe: loading Boot0001", "[  OK  ] Started"]);
    }

    #[test]
    fn bytes_that_are_not_text_do_not_end_the_reading() {
        let lines = Splitter::default().feed(b"\xff\xfe\x1b\na\n");
        assert_eq!(lines, ["\u{fffd}\u{fffd}", "a"]);
    }

    #[test]
    fn a_line_is_waited_for_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        std::fs::write(&path, "boot\nready\nboot\n").unwrap();
        let mut console = Console::new(&path);
        console.poll(Duration::from_secs(1), 0.5).unwrap();
        assert_eq!(console.find(&["ready"]).map(|line| line.text), Some("ready".to_owned()));
        assert_eq!(console.find(&["ready"]), None);
        assert!(console.find(&["boot"]).is_some());
    }
}
