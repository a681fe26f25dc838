//! When a lease is gone: its host was observed without it (law 5), never before.

use bulkhead_api::id::LeaseId;
use bulkhead_api::status::HostStatus;

/// Whether a report shows a host without a lease that was taken out of its spec in generation `without`.
///
/// A report of an older generation proves nothing: the grant may still be under way. And a lease that is
/// listed is there, whatever has settled.
#[must_use]
pub fn is_gone(id: &LeaseId, without: u64, status: &HostStatus) -> bool {
    status.settled_generation >= without && !status.leases.iter().any(|lease| lease.id == *id)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(accepted: u64, settled: u64, leases: &[&str]) -> HostStatus {
        let leases: Vec<_> = leases
            .iter()
            .map(|name| json!({ "id": { "tenant": "acme", "name": name }, "status": {} }))
            .collect();
        let status = json!({
            "host": "a-000001", "boot": 1, "seq": 1, "observed": "2026-11-22T12:00:00Z",
            "acceptedGeneration": accepted, "settledGeneration": settled, "conditions": [],
            "leases": leases, "inventory": {},
        });
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn a_lease_is_gone_when_a_report_that_settled_without_it_does_not_list_it() {
        let id = LeaseId { tenant: "acme".parse().unwrap(), name: "llm".parse().unwrap() };
        for (gone, case, status) in [
            (true, "settled without it", status(3, 3, &["other"])),
            (true, "settled later", status(4, 4, &[])),
            (false, "not yet settled: its grant may be under way", status(3, 2, &[])),
            (false, "still listed", status(3, 3, &["other", "llm"])),
        ] {
            assert_eq!(is_gone(&id, 3, &status), gone, "{case}");
        }
    }
}
