//! What this host's own people ask of the engine, over the socket ([`crate::socket`]).
//!
//! ```text
//!  socket ──Ask──► loop ──between two passes──► answer ──oneshot──► socket
//! ```
//!
//! An answer is never about half a step.

use bulkhead_api::inventory::Inventory;
use bulkhead_api::local::{ReceiptsRepair, Repair, Retry};
use bulkhead_api::resource::Resource;
use bulkhead_api::time::Timestamp;
use tokio::sync::{mpsc, oneshot};

use crate::tenant::Tenants;

/// Questions that wait before an asker is told to come again.
pub const QUEUE: usize = 4;

/// The askers' end.
pub type Asks = mpsc::Sender<Ask>;

/// A question with the way of its answer. Who does not wait for it any more is no failure.
#[derive(Debug)]
pub enum Ask {
    /// Make a new ledger from what is found on the host, in place of one that is damaged.
    RepairLedger {
        /// Do it; else only say what it would be.
        apply: bool,
        /// The answer.
        reply: oneshot::Sender<Result<Repair, Declined>>,
    },
    /// Put a damaged chain of receipts aside, so that a new one begins.
    RepairReceipts {
        /// Do it; else only say what is wrong.
        apply: bool,
        /// The answer.
        reply: oneshot::Sender<Result<ReceiptsRepair, Declined>>,
    },
    /// Erase what is in quarantine again, in the next pass.
    RetryQuarantine {
        /// Only this; absent = all of it.
        resource: Option<Resource>,
        /// The answer.
        reply: oneshot::Sender<Result<Retry, Declined>>,
    },
}

/// Why nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Declined {
    /// There is nothing to repair.
    #[error("the ledger is whole: nothing is repaired")]
    LedgerWhole,
    /// There is nothing to repair.
    #[error("the chain of receipts is whole: nothing is repaired")]
    ReceiptsWhole,
    /// The resource is not in quarantine.
    #[error("{0} is not in quarantine: see bulkhead host quarantine")]
    NotInQuarantine(Resource),
    /// Not in this state of the host: a sentence with the way out.
    #[error("{0}")]
    NotNow(String),
    /// It was tried and failed: a sentence with its causes. The host is as it was.
    #[error("{0}")]
    Failed(String),
}

impl Ask {
    /// Says that nothing is done, and why.
    pub fn decline(self, why: Declined) {
        // Whoever does not wait for it any more needs no answer.
        match self {
            Self::RepairLedger { reply, .. } => drop(reply.send(Err(why))),
            Self::RepairReceipts { reply, .. } => drop(reply.send(Err(why))),
            Self::RetryQuarantine { reply, .. } => drop(reply.send(Err(why))),
        }
    }
}

/// Answers a question while no pass is under way. After it a pass is due.
pub async fn answer(ask: Ask, tenants: &mut Tenants, inventory: &Inventory, now: Timestamp) {
    match ask {
        Ask::RepairLedger { apply, reply } => {
            // Whoever does not wait for it any more finds it in the events.
            let _ = reply.send(tenants.repair_ledger(apply, inventory, now).await);
        }
        Ask::RepairReceipts { apply, reply } => {
            let _ = reply.send(tenants.repair_receipts(apply).await);
        }
        Ask::RetryQuarantine { resource, reply } => {
            let _ = reply.send(tenants.erase_again(resource.as_ref()));
        }
    }
}
