//! Which huge pages were given to whom, and how many the host had before: `RUN/hugepages.json`. Pools are as long-lived
//! as a boot, and so is the record. Pure but for [`load`] and [`store`].

use std::path::Path;

use bulkhead_api::chain::Chain;
use bulkhead_api::id::LeaseId;
use bulkhead_api::resource::{NodePages, PageSize};
use serde::{Deserialize, Serialize};

use super::super::ClassError;
use crate::ledger::{self, Record};

/// The record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Given {
    /// Pages that the host had of its own, by size and node.
    own: Vec<Pool>,
    /// What leases have.
    pub(super) leases: Vec<GivenPages>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Pool {
    page_size: PageSize,
    node: u32,
    pages: u64,
}

/// What one lease has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct GivenPages {
    /// Whose.
    pub(super) lease: LeaseId,
    /// Size of each.
    pub(super) page_size: PageSize,
    /// By node.
    pub(super) pages: Vec<NodePages>,
}

impl Record for Given {
    const FORMAT: &'static str = "bulkhead-hugepages";
    const VERSION: u32 = 1;
}

impl Given {
    /// Notes what the host has of its own, once, before the first lease has any: later totals hold leases' pages.
    pub(super) fn note_own(&mut self, page_size: PageSize, node: u32, pages: u64) {
        if !self.own.iter().any(|pool| (pool.page_size, pool.node) == (page_size, node)) {
            self.own.push(Pool { page_size, node, pages });
        }
    }

    /// Notes what a lease is given, in place of what was noted before.
    pub(super) fn give(&mut self, given: GivenPages) {
        self.take(&given.lease.clone(), given.page_size);
        self.leases.push(given);
    }

    /// What a lease has of a size.
    pub(super) fn of(&self, lease: &LeaseId, size: PageSize) -> Option<&GivenPages> {
        self.leases.iter().find(|given| given.lease == *lease && given.page_size == size)
    }

    /// Forgets what a lease was given.
    pub(super) fn take(&mut self, lease: &LeaseId, size: PageSize) {
        self.leases.retain(|given| given.lease != *lease || given.page_size != size);
    }

    /// Pages that a pool is to have: the host's own and those of all leases.
    pub(super) fn target(&self, size: PageSize, node: u32) -> u64 {
        let own = self.own.iter().filter(|pool| (pool.page_size, pool.node) == (size, node));
        let own: u64 = own.map(|pool| pool.pages).sum();
        let given = self.leases.iter().filter(|given| given.page_size == size);
        let given = given.flat_map(|given| &given.pages).filter(|pages| pages.node == node);
        given.fold(own, |sum, pages| sum.saturating_add(pages.pages))
    }
}

pub(super) fn load(path: &Path) -> Result<Given, ClassError> {
    let loaded = ledger::load_record(path);
    loaded.map(Option::unwrap_or_default).map_err(|error| ClassError::Refused {
        doing: "read which huge pages were given".to_owned(),
        why: Chain(&error).to_string(),
    })
}

pub(super) fn store(path: &Path, given: &Given) -> Result<(), ClassError> {
    ledger::store_record(path, given).map_err(|error| ClassError::Refused {
        doing: "write which huge pages were given".to_owned(),
        why: Chain(&error).to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(name: &str, node: u32, pages: u64) -> GivenPages {
        let lease = LeaseId { tenant: "acme".parse().unwrap(), name: name.parse().unwrap() };
        GivenPages { lease, page_size: PageSize::TwoMiB, pages: vec![NodePages { node, pages }] }
    }

    #[test]
    fn a_pool_is_the_hosts_own_pages_and_those_of_all_leases() {
        let mut record = Given::default();
        record.note_own(PageSize::TwoMiB, 0, 3);
        record.give(given("a", 0, 10));
        record.note_own(PageSize::TwoMiB, 0, 13);
        record.give(given("b", 0, 4));
        record.give(given("c", 1, 100));
        record.give(given("a", 0, 11));
        assert_eq!(record.target(PageSize::TwoMiB, 0), 3 + 11 + 4);
        assert_eq!(record.target(PageSize::OneGiB, 0), 0);
        record.take(&given("a", 0, 0).lease, PageSize::OneGiB);
        assert_eq!(record.target(PageSize::TwoMiB, 0), 18);
        record.take(&given("a", 0, 0).lease, PageSize::TwoMiB);
        assert_eq!(record.target(PageSize::TwoMiB, 0), 7);
    }

    #[test]
    fn a_record_that_is_damaged_is_not_taken_for_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hugepages.json");
        assert_eq!(load(&path).unwrap(), Given::default());
        let mut record = Given::default();
        record.give(given("a", 0, 10));
        store(&path, &record).unwrap();
        assert_eq!(load(&path).unwrap(), record);
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            load(&path).unwrap_err();
        }
    }
}
