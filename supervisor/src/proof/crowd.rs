//! Leases with so many open files that not all can be looked at: their programs are ended.
//!
//! The kernel bounds the open files of a process and the processes of a lease, and nothing bounds the product: a tenant with all
//! of both would have more than can be looked at in time. A host with a lease that was not seen whole is not proved isolated, and
//! lets nobody else in; one tenant must not have that in its hands. So what makes itself unobservable ends, alone (law 4). Its
//! service comes back as the lease's restart policy says, with growing pauses; to whoever looks on, the program was killed.

use std::fs;
use std::path::PathBuf;

use bulkhead_api::chain::Chain;
use bulkhead_api::id::LeaseId;
use tracing::warn;

use super::reach::MOST_OPEN;

/// Ends everything in these control groups, all at once, so that no fork gets away (Linux,
/// Documentation/admin-guide/cgroup-v2.rst, `cgroup.kill`).
///
/// Where that cannot be done the lease stays unobservable, and that is stated.
pub fn end(crowded: &[(LeaseId, PathBuf)]) {
    for (lease, group) in crowded {
        match fs::write(group.join("cgroup.kill"), "1") {
            Ok(()) => warn!(%lease, most = MOST_OPEN, "ended: more open files than are looked at"),
            Err(error) => {
                warn!(%lease, error = %Chain(&error), "has too many open files, not ended")
            }
        }
    }
}
