//! An order for the lease acme/a.

use bulkhead_api::id::LeaseId;
use bulkhead_api::lease::InstanceKind;
use bulkhead_api::resource::Resource;

use super::{Order, Progress};

/// First of the lease's ids: of no user of a machine that runs tests.
pub(super) const FIRST_ID: u32 = 0x6000_0000;

pub(super) fn order(resource: Resource) -> Order {
    Order {
        lease: LeaseId { tenant: "acme".parse().unwrap(), name: "a".parse().unwrap() },
        resource,
        instance: InstanceKind::Container,
        first_id: FIRST_ID,
        weaker_erase: false,
        progress: Progress::default(),
    }
}
