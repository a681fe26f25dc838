//! When a lease is gone: its host was observed without it (law 5), never before.

use bulkhead_api::id::LeaseId;
use bulkhead_api::lease::InstanceKind;
use bulkhead_api::status::HostStatus;

use crate::store::leases::LeaseRow;

/// Whether a report shows a host without a lease that was taken out of its spec in generation `without`.
///
/// A report of an older generation proves nothing: the grant may still be under way. And a lease that is
/// listed is there, whatever has settled.
#[must_use]
pub fn is_gone(id: &LeaseId, without: u64, status: &HostStatus) -> bool {
    status.settled_generation >= without && !status.leases.iter().any(|lease| lease.id == *id)
}

/// The same of a lease that had the host to itself: the host must say besides that it was sanitised after that
/// lease. Its own ledger knows nothing of it after the tenant's boots.
#[must_use]
pub fn is_sanitised(id: &LeaseId, without: u64, status: &HostStatus) -> bool {
    status.accepted_generation >= without
        && status.sanitised.as_ref() == Some(id)
        && !status.leases.iter().any(|lease| lease.id == *id)
}

/// The lease whose tenant a host comes back from: one that had the host to itself and is not gone. It goes into
/// the host's spec with the generation that is without the lease, whether the tenant ever ran there or not: that
/// the host alone can tell.
#[must_use]
pub fn returning(on_it: &[LeaseRow]) -> Option<&LeaseRow> {
    let metal = |row: &&LeaseRow| row.spec.instance == InstanceKind::BareMetal;
    on_it.iter().filter(metal).find(|row| row.deleting_at.is_some())
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

    #[test]
    fn a_lease_that_had_the_host_is_gone_when_the_host_says_that_it_is_clean_of_it() {
        let id = LeaseId { tenant: "acme".parse().unwrap(), name: "llm".parse().unwrap() };
        let other = LeaseId { name: "other".parse().unwrap(), ..id.clone() };
        for (gone, case, accepted, sanitised, leases) in [
            (true, "clean of it", 3, Some(id.clone()), &[][..]),
            (false, "settled without it, and blank after the tenant's boots", 3, None, &[]),
            (false, "clean of another one", 3, Some(other), &[]),
            (false, "said before the spec without it", 2, Some(id.clone()), &[]),
            (false, "still listed", 3, Some(id.clone()), &["llm"]),
        ] {
            let status = HostStatus { sanitised, ..status(accepted, 3, leases) };
            assert_eq!(is_sanitised(&id, 3, &status), gone, "{case}");
        }
    }
}
