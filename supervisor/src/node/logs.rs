//! Answers to the registry's requests for the end of a lease's console.

use bulkhead_api::chain::Chain;
use bulkhead_api::id::{IdError, LeaseId};
use bulkhead_api::link::rpc::{LogReply, LogRequest};

use crate::paths::Paths;
use crate::tenant;

/// Most lines that are given at once.
pub const MOST_LINES: u32 = 10_000;

/// Reads the log, or says why there is none.
#[must_use]
pub fn answer(paths: &Paths, request: &LogRequest) -> LogReply {
    match read(paths, request) {
        Ok(text) => LogReply { id: request.id, text: text.into(), error: String::new() },
        Err(error) => refusal(request.id, error),
    }
}

/// The reply that says why there is no log.
#[must_use]
pub fn refusal(id: u64, error: String) -> LogReply {
    LogReply { id, text: Vec::new().into(), error }
}

fn read(paths: &Paths, request: &LogRequest) -> Result<Vec<u8>, String> {
    let id = lease(request).map_err(|e| e.to_string())?;
    let lines = request.lines.clamp(1, MOST_LINES);
    tenant::log(paths, &id, lines).map_err(|e| Chain(&e).to_string())
}

fn lease(request: &LogRequest) -> Result<LeaseId, IdError> {
    Ok(LeaseId { tenant: request.tenant.parse()?, name: request.lease.parse()? })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn answered(tenant: &str, lease: &str) -> String {
        let (tenant, lease) = (tenant.to_owned(), lease.to_owned());
        let request = LogRequest { id: 7, tenant, lease, lines: 5 };
        let dir = tempfile::tempdir().unwrap();
        let reply = answer(&Paths::below(Path::new(dir.path())), &request);
        assert_eq!((reply.id, reply.text.len()), (7, 0));
        reply.error
    }

    #[test]
    fn a_request_that_names_no_lease_is_answered_with_the_reason() {
        let said = answered("Acme", "a");
        assert!(said.starts_with("tenant name \"Acme\""), "{said}");
        let said = answered("acme", "../../etc");
        assert!(said.starts_with("lease name \"../../etc\""), "{said}");
    }

    #[test]
    fn a_lease_that_is_not_here_has_no_log() {
        let said = answered("acme", "a");
        assert!(said.contains("acme/a"), "{said}");
    }
}
