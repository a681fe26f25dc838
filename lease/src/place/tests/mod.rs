//! `place` by tables, and through random lives of random hosts.

mod brute;
mod classes;
mod gpus;
mod hosts;
mod oracle;
mod properties;

use bulkhead_api::id::LeaseId;

pub(super) fn id(number: usize) -> LeaseId {
    LeaseId { tenant: "t".parse().unwrap(), name: format!("l{number}").parse().unwrap() }
}
