//! The supervisor of this host: HTTP over its unix socket.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bulkhead_api::document::{ApiError, FieldError, from_json};
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::config::Config;
use ureq::http::{Response, Uri};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};
use ureq::{Agent, Body};

/// The supervisor answers from memory.
const PATIENCE: Duration = Duration::from_secs(10);
/// A change waits for the end of a pass, and then for a look at the whole host.
const PATIENCE_FOR_CHANGES: Duration = Duration::from_secs(330);
const MAX_REPLY: u64 = 64 << 20;

/// The supervisor could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// No connection.
    #[error("ask the supervisor at {}", path.display())]
    Ask {
        /// Its socket.
        path: PathBuf,
        /// Why not.
        source: Box<ureq::Error>,
    },
    /// It says no.
    #[error("supervisor at {} refuses with status {status}: {message}", path.display())]
    Refused {
        /// Its socket.
        path: PathBuf,
        /// The HTTP status.
        status: u16,
        /// Why.
        message: String,
    },
    /// An order cannot be written as JSON.
    #[error("write the order as JSON")]
    Write(#[source] serde_json::Error),
    /// The reply is not what was asked for.
    #[error("reply of the supervisor at {}", path.display())]
    Reply {
        /// Its socket.
        path: PathBuf,
        /// Where it is not.
        source: FieldError,
    },
}

impl LocalError {
    /// The way out; none where the message says it.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        let Self::Ask { source, .. } = self else { return None };
        let ureq::Error::Io(cause) = source.as_ref() else { return None };
        let kind = cause.kind();
        if matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
            let text = "is this a host of the fleet, and does bulkheadd run? \
                        systemctl status bulkheadd";
            return Some(text.to_owned());
        }
        (kind == io::ErrorKind::PermissionDenied).then(|| "ask as root".to_owned())
    }
}

/// Asks for a document.
///
/// # Errors
/// [`LocalError`].
pub fn ask<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T, LocalError> {
    let request = |agent: Agent| agent.get(format!("http://localhost{path}")).call();
    answered(socket, PATIENCE, request)
}

/// Asks for a change, and for what became of it.
///
/// # Errors
/// [`LocalError`].
pub fn order<T: DeserializeOwned>(
    socket: &Path,
    path: &str,
    order: &impl Serialize,
) -> Result<T, LocalError> {
    let body = serde_json::to_vec(order).map_err(LocalError::Write)?;
    let request = |agent: Agent| {
        let request = agent.post(format!("http://localhost{path}"));
        request.content_type("application/json").send(&body[..])
    };
    answered(socket, PATIENCE_FOR_CHANGES, request)
}

fn answered<T: DeserializeOwned>(
    socket: &Path,
    patience: Duration,
    request: impl FnOnce(Agent) -> Result<Response<Body>, ureq::Error>,
) -> Result<T, LocalError> {
    let config = Config::builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .timeout_global(Some(patience))
        .build();
    let agent = Agent::with_parts(config, Socket { path: socket.to_owned() }, Nowhere);
    let failed = |source| LocalError::Ask { path: socket.to_owned(), source: Box::new(source) };
    let mut reply = request(agent).map_err(failed)?;
    let body = reply.body_mut().with_config().limit(MAX_REPLY).read_to_vec().map_err(failed)?;
    if !reply.status().is_success() {
        let plain = || String::from_utf8_lossy(&body).trim().to_owned();
        let message =
            serde_json::from_slice(&body).map_or_else(|_| plain(), |e: ApiError| e.message);
        let status = reply.status().as_u16();
        return Err(LocalError::Refused { path: socket.to_owned(), status, message });
    }
    from_json(&body).map_err(|source| LocalError::Reply { path: socket.to_owned(), source })
}

/// Connects to a path, whatever the URL says.
#[derive(Debug)]
struct Socket {
    path: PathBuf,
}

impl Connector<()> for Socket {
    type Out = Stream;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<Stream>, ureq::Error> {
        let stream = UnixStream::connect(&self.path)?;
        let (input, output) =
            (details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Stream { stream, buffers: LazyBuffers::new(input, output) }))
    }
}

/// There is no address to look up.
#[derive(Debug)]
struct Nowhere;

impl Resolver for Nowhere {
    fn resolve(
        &self,
        _: &Uri,
        _: &Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        Ok(self.empty())
    }
}

#[derive(Debug)]
struct Stream {
    stream: UnixStream,
    buffers: LazyBuffers,
}

impl Transport for Stream {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let limit = timeout.for_write();
        self.stream.set_write_timeout(limit.not_zero().map(|time| *time))?;
        let output = self.buffers.output().get(..amount).unwrap_or_default();
        self.stream.write_all(output).map_err(|error| expired(error, limit))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let limit = timeout.for_read();
        self.stream.set_read_timeout(limit.not_zero().map(|time| *time))?;
        let read = self.stream.read(self.buffers.input_append_buf());
        let amount = read.map_err(|error| expired(error, limit))?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        // One question a connection: it is never kept for another.
        false
    }
}

/// A socket whose time is over reports that it would block (socket(7), `SO_RCVTIMEO`).
fn expired(error: io::Error, limit: NextTimeout) -> ureq::Error {
    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
        return ureq::Error::Timeout(limit.reason);
    }
    error.into()
}
