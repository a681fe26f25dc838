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
