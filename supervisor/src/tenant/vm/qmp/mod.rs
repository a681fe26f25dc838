//! A client of QEMU's monitor: a blocking one, with a deadline on everything.
//!
//! The socket is where the tenant's emulator made it, and a guest that took its emulator over could have put anything in its
//! place. So it is opened without following a link, must be a socket, and what comes over it is bounded ([`message`]).

pub mod message;

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;

use message::{MOST_LINE, Message, NotQmp};

/// Events that are kept while an answer is waited for. More are dropped, the oldest first.
const MOST_EVENTS: usize = 64;

/// QEMU cannot be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// Not there, or nobody listens.
    #[error("connect to QEMU's monitor {path}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The connection broke.
    #[error("{doing} of QEMU's monitor")]
    Broken {
        /// `read` or `write`.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// QEMU ended, or closed the connection.
    #[error("QEMU closed its monitor")]
    Closed,
    /// Not in time.
    #[error("QEMU's monitor did not answer {0} in time")]
    Late(String),
    /// More than a line can have.
    #[error("QEMU's monitor sent a line of more than {MOST_LINE} bytes")]
    TooLong,
    /// Not QMP.
    #[error(transparent)]
    Form(#[from] NotQmp),
    /// A command was refused.
    #[error("QEMU refuses {command}: {why}")]
    Refused {
        /// The command.
        command: String,
        /// In QEMU's words.
        why: String,
    },
}

impl QmpError {
    /// There is no QEMU: it has not begun to listen, or has ended.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        let gone = |source: &io::Error| {
            matches!(
                source.kind(),
                ErrorKind::NotFound
                    | ErrorKind::ConnectionRefused
                    | ErrorKind::ConnectionReset
                    | ErrorKind::BrokenPipe
            )
        };
        match self {
            Self::Closed => true,
            Self::Connect { source, .. } | Self::Broken { source, .. } => gone(source),
            Self::Late(_) | Self::TooLong | Self::Form(_) | Self::Refused { .. } => false,
        }
    }
}

/// An event of QEMU's.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// What happened, such as `POWERDOWN`.
    pub name: String,
    /// Its particulars.
    pub data: Value,
}

/// A connection that can be spoken over. QEMU serves one at a time; others wait.
#[derive(Debug)]
pub struct Monitor {
    stream: UnixStream,
    /// Read and not taken yet.
    read: Vec<u8>,
    /// Happened while an answer was waited for.
    events: Vec<Event>,
    last_id: u64,
}

impl Monitor {
    /// Connects and negotiates.
    ///
    /// # Errors
    /// Every variant of [`QmpError`]; see [`QmpError::is_gone`].
    pub fn connect(path: &Path, deadline: Instant) -> Result<Self, QmpError> {
        let failed = |source| QmpError::Connect { path: path.to_owned(), source };
        let stream = open(path).map_err(failed)?;
        let mut monitor = Self { stream, read: Vec::new(), events: Vec::new(), last_id: 0 };
        match monitor.next("with a greeting", deadline)? {
            Message::Greeting => {}
            other @ (Message::Return { .. } | Message::Refused { .. } | Message::Event { .. }) => {
                return Err(unexpected(&other));
            }
        }
        monitor.execute("qmp_capabilities", deadline)?;
        Ok(monitor)
    }

    /// Has a command without arguments done and gives its answer.
    ///
    /// # Errors
    /// Every variant of [`QmpError`] but [`QmpError::Connect`].
    pub fn execute(&mut self, command: &str, deadline: Instant) -> Result<Value, QmpError> {
        self.last_id = self.last_id.saturating_add(1);
        let id = self.last_id;
        self.bound(command, deadline)?;
        self.stream
            .write_all(&message::command(command, id))
            .map_err(|source| late_or("write", command, source))?;
        loop {
            match self.next(command, deadline)? {
                Message::Return { id: Some(of), value } if of == id => return Ok(value),
                Message::Refused { id: Some(of), why } if of == id => {
                    return Err(QmpError::Refused { command: command.to_owned(), why });
                }
                Message::Event { name, data } => self.keep(Event { name, data }),
                other @ (Message::Greeting | Message::Return { .. } | Message::Refused { .. }) => {
                    return Err(unexpected(&other));
                }
            }
        }
    }

    /// The machine's state, such as `running` (`query-status`).
    ///
    /// # Errors
    /// As [`Monitor::execute`].
    pub fn status(&mut self, deadline: Instant) -> Result<String, QmpError> {
        let answer = self.execute("query-status", deadline)?;
        let status = answer.get("status").and_then(Value::as_str).map(ToOwned::to_owned);
        status.ok_or_else(|| unexpected(&Message::Return { id: None, value: answer }))
    }

    /// Presses the power button. That is all: see [`Monitor::event`] for what comes of it.
    ///
    /// # Errors
    /// As [`Monitor::execute`].
    pub fn press_power(&mut self, deadline: Instant) -> Result<(), QmpError> {
        self.execute("system_powerdown", deadline).map(drop)
    }

    /// The next event; `None` when there is none in time.
    ///
    /// # Errors
    /// As [`Monitor::execute`] but for [`QmpError::Late`].
    pub fn event(&mut self, deadline: Instant) -> Result<Option<Event>, QmpError> {
        if !self.events.is_empty() {
            return Ok(Some(self.events.remove(0)));
        }
        match self.next("", deadline) {
            Ok(Message::Event { name, data }) => Ok(Some(Event { name, data })),
            Ok(other @ (Message::Greeting | Message::Return { .. } | Message::Refused { .. })) => {
                Err(unexpected(&other))
            }
            Err(QmpError::Late(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn keep(&mut self, event: Event) {
        if self.events.len() >= MOST_EVENTS {
            self.events.remove(0);
        }
        self.events.push(event);
    }

    /// Lets the next read or write last until the deadline at most.
    fn bound(&self, what: &str, deadline: Instant) -> Result<(), QmpError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(QmpError::Late(what.to_owned()));
        }
        self.stream
            .set_read_timeout(Some(left))
            .and_then(|()| self.stream.set_write_timeout(Some(left)))
            .map_err(|source| QmpError::Broken { doing: "setting up", source })
    }

    fn next(&mut self, what: &str, deadline: Instant) -> Result<Message, QmpError> {
        loop {
            if let Some(end) = self.read.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Ok(message::parse(&line)?);
            }
            if self.read.len() > MOST_LINE {
                return Err(QmpError::TooLong);
            }
            self.bound(what, deadline)?;
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(QmpError::Closed),
                Ok(count) => self.read.extend_from_slice(buffer.get(..count).unwrap_or_default()),
                Err(source) if source.kind() == ErrorKind::Interrupted => {}
                Err(source) => return Err(late_or("read", what, source)),
            }
        }
    }
}

fn late_or(doing: &'static str, what: &str, source: io::Error) -> QmpError {
    if matches!(source.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) {
        QmpError::Late(what.to_owned())
    } else {
        QmpError::Broken { doing, source }
    }
}

fn unexpected(message: &Message) -> QmpError {
    let kind = match message {
        Message::Greeting => "a second greeting",
        Message::Return { .. } => "an answer that was not asked for",
        Message::Refused { .. } => "a refusal of nothing",
        Message::Event { .. } => "an event before its greeting",
    };
    QmpError::Refused { command: "to keep to QMP".to_owned(), why: format!("it sent {kind}") }
}

/// Connects to a socket that is not behind a link. By its descriptor, the path is as short as a socket's must be, and is the one
/// that was looked at.
fn open(path: &Path) -> io::Result<UnixStream> {
    let there = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)?;
    if !there.metadata()?.file_type().is_socket() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "not a socket"));
    }
    UnixStream::connect(format!("/proc/self/fd/{}", there.as_raw_fd()))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
