//! Requests for the end of a lease's console, from the site and from the local socket.

use bulkhead_api::chain::Chain;
use bulkhead_api::id::{IdError, LeaseId};
use bulkhead_api::link::rpc::{LogReply, LogRequest};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use crate::tenant::{LogError, Tenants};

/// Most lines that are given at once.
pub const MOST_LINES: u32 = 10_000;
/// Most bytes that are given at once: below the 4 MiB that a receiver of gRPC takes by default.
pub const MOST_BYTES: usize = 2 << 20;

/// A request and where its answer goes.
#[derive(Debug)]
pub struct LogAsk {
    /// Whose console.
    pub id: LeaseId,
    /// Lines wanted, from the end.
    pub lines: u32,
    /// Who waits.
    pub asker: Asker,
}

/// Who waits for a log.
#[derive(Debug)]
pub enum Asker {
    /// The registry; the number is its own.
    Site(u64),
    /// A request on the local socket.
    Local(oneshot::Sender<Result<Vec<u8>, LogError>>),
}

/// A request of the registry, read.
///
/// # Errors
/// The reply that says why not.
pub fn asked(request: &LogRequest) -> Result<LogAsk, LogReply> {
    let id = || -> Result<LeaseId, IdError> {
        Ok(LeaseId { tenant: request.tenant.parse()?, name: request.lease.parse()? })
    };
    match id() {
        Ok(id) => Ok(LogAsk { id, lines: request.lines, asker: Asker::Site(request.id) }),
        Err(error) => Err(refusal(request.id, error.to_string())),
    }
}

/// The reply that says why there is no log.
#[must_use]
pub fn refusal(id: u64, error: String) -> LogReply {
    LogReply { id, text: Vec::new().into(), error }
}

/// Reads the log and gives it to whoever asked. An asker who went away, or a link that takes no more, loses
/// the answer: it is asked for again.
pub fn answer(ask: LogAsk, tenants: &Tenants, site: &mpsc::Sender<LogReply>) {
    let LogAsk { id, lines, asker } = ask;
    let log = tenants.log(&id, lines.clamp(1, MOST_LINES)).map(tail);
    match asker {
        Asker::Local(reply) => {
            let _ = reply.send(log);
        }
        Asker::Site(number) => {
            let reply = match log {
                Ok(text) => LogReply { id: number, text: text.into(), error: String::new() },
                Err(error) => refusal(number, Chain(&error).to_string()),
            };
            if site.try_send(reply).is_err() {
                warn!(lease = %id, "log not sent: the link takes no more");
            }
        }
    }
}

/// At most [`MOST_BYTES`] of the end, beginning with a whole line where there is one.
fn tail(mut text: Vec<u8>) -> Vec<u8> {
    let cut = text.len().saturating_sub(MOST_BYTES);
    if cut > 0 {
        text.drain(..cut);
        if let Some(end) = text.iter().position(|&byte| byte == b'\n') {
            text.drain(..=end);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_names_no_lease_is_answered_with_the_reason() {
        let request =
            LogRequest { id: 7, tenant: "Acme".to_owned(), lease: "a".to_owned(), lines: 5 };
        let reply = asked(&request).unwrap_err();
        assert_eq!(reply.id, 7);
        assert!(reply.error.starts_with("tenant name \"Acme\""), "{}", reply.error);
    }

    #[test]
    fn a_long_log_keeps_its_last_whole_lines() {
        let line = [vec![b'x'; 99], vec![b'\n']].concat();
        let text = line.repeat(MOST_BYTES / 100 + 2);
        let kept = tail(text.clone());
        assert!(kept.len() <= MOST_BYTES && kept.len() > MOST_BYTES - 200);
        assert_eq!(kept.len() % 100, 0);
        assert!(text.ends_with(&kept));
        assert_eq!(tail(b"short".to_vec()), b"short");
    }
}
