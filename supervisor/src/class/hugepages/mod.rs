//! Huge pages: pools of each node grow by what a lease holds and shrink when it is gone; a bound of its control group
//! keeps it from those of others.
//!
//! ```text
//!  attach   record (RUN/hugepages.json) ──► nr_hugepages += pages ──► hugetlb.*.max of the slice
//!  erase    as many pages as it had are taken: the kernel zeroes each ──► looked at, marked, given back, taken again:
//!           no marker ──► given back ──► nr_hugepages -= pages ──► record
//! ```
//!
//! The pool's target is always the host's own pages and those of all leases in the record, so that a step that was cut
//! is done again and nothing is counted twice.

mod examine;
pub mod limit;
mod pool;
mod record;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use bulkhead_api::id::LeaseId;
use bulkhead_api::lease::HeldHugepages;
use bulkhead_api::receipt::Evidence;
use bulkhead_api::resource::{NodePages, PageSize, Resource};

use self::record::{Given, GivenPages};
use super::{Attached, Class, ClassError, Erased, Order, Progress};
use crate::paths::Paths;

/// Takes pages of a node, looks at their content and gives them back.
type Examine = fn(u32, PageSize, u64, &Progress) -> Result<Vec<Evidence>, ClassError>;

/// The class.
#[derive(Debug)]
pub struct Hugepages {
    root: PathBuf,
    record: PathBuf,
    examine: Examine,
    /// Pools and record are changed by one at a time. Nobody has it while pages are looked at, which takes long.
    turn: Mutex<()>,
}

impl Hugepages {
    /// On that host.
    #[must_use]
    pub fn new(paths: &Paths) -> Self {
        Self {
            root: paths.root.clone(),
            record: paths.run.join("hugepages.json"),
            examine: examine::examine,
            turn: Mutex::new(()),
        }
    }

    fn held(order: &Order) -> Result<HeldHugepages, ClassError> {
        if let Resource::Hugepages { page_size, pages } = &order.resource {
            return Ok(HeldHugepages { page_size: *page_size, pages: pages.clone() });
        }
        Err(super::other(&order.resource))
    }

    /// How many pages of a lease there are still on each node, all of them free.
    fn left(
        &self,
        lease: &LeaseId,
        size: PageSize,
        pages: &[NodePages],
    ) -> Result<Vec<NodePages>, ClassError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut given = record::load(&self.record)?;
        let known = given.of(lease, size).is_some();
        given.take(lease, size);
        let of_node = |&NodePages { node, pages }: &NodePages| {
            let total = pool::total(&self.root, node, size)?;
            let rest = if known { given.target(size, node) } else { total };
            // What is beyond the host's own and the other leases'. None where it was cut after the pool shrank.
            let left = total.saturating_sub(rest).min(pages);
            let free = pool::free(&self.root, node, size)?;
            if free < left {
                return Err(ClassError::Refused {
                    doing: format!("take back {left} huge pages of {size} on node {node}"),
                    why: format!("{free} are free: somebody still has the others"),
                });
            }
            Ok(NodePages { node, pages: left })
        };
        pages.iter().map(of_node).collect()
    }

    /// Shrinks or grows a pool to its target; an error where it is not there then.
    fn settle(&self, given: &Given, size: PageSize, node: u32) -> Result<u64, ClassError> {
        let target = given.target(size, node);
        let total = pool::total(&self.root, node, size)?;
        if total == target { Ok(total) } else { pool::set(&self.root, node, size, target) }
    }
}

impl Class for Hugepages {
    fn found(&self) -> Result<Vec<(LeaseId, Resource)>, ClassError> {
        let found = record::load(&self.record)?.leases.into_iter().map(|given| {
            let GivenPages { lease, page_size, pages } = given;
            (lease, Resource::Hugepages { page_size, pages })
        });
        Ok(found.collect())
    }

    fn observe(&self, order: &Order) -> Result<Attached, ClassError> {
        let HeldHugepages { page_size, pages } = Self::held(order)?;
        let given = record::load(&self.record)?;
        match given.of(&order.lease, page_size) {
            None => return Ok(Attached::No),
            Some(known) if known.pages != pages => {
                return Ok(Attached::Drifted("other huge pages were given".to_owned()));
            }
            Some(_) => {}
        }
        for NodePages { node, .. } in &pages {
            let (target, total) =
                (given.target(page_size, *node), pool::total(&self.root, *node, page_size)?);
            if total < target {
                let drift =
                    format!("node {node} has {total} huge pages of {page_size}, not {target}");
                return Ok(Attached::Drifted(drift));
            }
        }
        let held = HeldHugepages { page_size, pages };
        let drift = limit::drift(&self.root, &order.lease, Some(&held))?;
        Ok(drift.map_or(Attached::Yes, Attached::Drifted))
    }

    fn attach(&self, order: &Order) -> Result<(), ClassError> {
        let held = Self::held(order)?;
        let size = held.page_size;
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut given = record::load(&self.record)?;
        for NodePages { node, .. } in &held.pages {
            given.note_own(size, *node, pool::total(&self.root, *node, size)?);
        }
        let (lease, pages) = (order.lease.clone(), held.pages.clone());
        given.give(GivenPages { lease, page_size: size, pages });
        // First the record: pages that are there and in no record would never be given back.
        record::store(&self.record, &given)?;
        for NodePages { node, pages } in &held.pages {
            let (target, got) = (given.target(size, *node), self.settle(&given, size, *node)?);
            if got < target {
                return Err(ClassError::Refused {
                    doing: format!("have {pages} more huge pages of {size} on node {node}"),
                    why: format!(
                        "asked for {target} in all, the kernel got {got}: its free memory is too little or in too \
                         small pieces"
                    ),
                });
            }
        }
        limit::set(&self.root, &order.lease, Some(&held))
    }

    fn erase(&self, order: &Order) -> Result<Erased, ClassError> {
        let HeldHugepages { page_size: size, pages } = Self::held(order)?;
        let left = self.left(&order.lease, size, &pages)?;
        let mut erased = Erased::default();
        if left.iter().any(|left| left.pages > 0) {
            erased.methods.push("zeroOnFault".to_owned());
        }
        erased.methods.push("returnToKernel".to_owned());
        for NodePages { node, pages } in left {
            if pages == 0 {
                // They were given back by an erase that was cut afterwards, or the lease never got them.
                let what = format!("huge pages of {size} of the lease on node {node} before");
                erased.evidence.push(Evidence { what, found: "none".to_owned() });
            }
            erased.evidence.extend((self.examine)(node, size, pages, &order.progress)?);
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut given = record::load(&self.record)?;
        let known = given.of(&order.lease, size).is_some();
        given.take(&order.lease, size);
        for NodePages { node, .. } in &pages {
            let total = if known {
                self.settle(&given, size, *node)?
            } else {
                pool::total(&self.root, *node, size)?
            };
            if known && total != given.target(size, *node) {
                return Err(ClassError::Refused {
                    doing: format!("give huge pages of {size} on node {node} back to the kernel"),
                    why: format!("{total} are left, not {}", given.target(size, *node)),
                });
            }
            let what = format!("huge pages of {size} on node {node} with those of the lease gone");
            erased.evidence.push(Evidence { what, found: total.to_string() });
        }
        // Last: cut before, it is all done again.
        record::store(&self.record, &given)?;
        Ok(erased)
    }
}

#[cfg(test)]
mod tests;
