//! Receipts: the chain that says what was sanitised, in the host's state.
//!
//! ```text
//!  class::Erased ──► Receipt { sequence + 1, previous } ──sign with the host's key──► STATE/receipts/NNNNNNNNNN.json
//!                                                                                       │ fsync, then the ledger
//!                                                                       socket ◄────────┘ may say "clean"
//! ```
//!
//! The last [`KEPT`] are kept. The newest is the head of the chain: where it cannot be read nothing is appended, so
//! that nothing is given out again, until somebody looked ([`repair`]). A chain that is lost with its state begins anew.

pub mod repair;
pub mod shelf;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use ::ring::rand::SystemRandom;
use bulkhead_api::chain::Chain;
use bulkhead_api::id::{HostId, LeaseId};
use bulkhead_api::receipt::{MakeError, Receipt, SignedReceipt, sign};
use bulkhead_api::resource::Resource;
use bulkhead_api::time::Timestamp;
use tracing::warn;

use self::shelf::{Shelf, ShelfError};
use crate::class::Erased;
use crate::paths::Paths;
use crate::uplink::identity::{self, Identity, IdentityError};

/// Receipts that are kept: some hundred leases that came and went.
pub const KEPT: u64 = 4096;

/// Why no receipt was made or kept. The resource stays as it is: not given out.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptError {
    /// Before the host joined its fleet.
    #[error("the host has no certificate to sign receipts with yet")]
    NoIdentity,
    /// The identity cannot be read.
    #[error("read the host's identity")]
    Identity(#[source] IdentityError),
    /// An erase that shows nothing.
    #[error("the erase of {0} names no method or no evidence")]
    Empty(Resource),
    /// The file system refuses, or a file in the middle of the chain is damaged.
    #[error("keep the receipt")]
    Shelf(#[source] ShelfError),
    /// The head of the chain is not one.
    #[error(
        "the newest receipt, {path}, is damaged ({why}): nothing that was held is given out again; `bulkhead host \
         receipts repair` on this host keeps the chain beside and begins a new one"
    )]
    Damaged {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// It could not be signed.
    #[error("make the receipt")]
    Make(#[source] MakeError),
}

impl ReceiptError {
    /// One word for conditions and metrics.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::NoIdentity | Self::Identity(_) => "NoIdentity",
            Self::Empty(_) => "NoEvidence",
            Self::Shelf(_) => "ReceiptsUnwritable",
            Self::Damaged { .. } => "ReceiptsDamaged",
            Self::Make(_) => "ReceiptUnsigned",
        }
    }
}

/// A resource that was seen to be clean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sanitised {
    /// Counts the host's boots up.
    pub boot: u64,
    /// Who had it.
    pub lease: LeaseId,
    /// What.
    pub resource: Resource,
    /// How, and what was seen.
    pub erased: Erased,
    /// When it began, by the host's clock.
    pub started: Timestamp,
    /// When it was seen to be clean.
    pub finished: Timestamp,
}

/// A receipt that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its number.
    pub sequence: u64,
    /// Its digest, which the next one names.
    pub digest: String,
}

/// The chain of a host.
#[derive(Debug)]
pub struct Receipts {
    shelf: Shelf<Receipt>,
    identity: PathBuf,
    most: u64,
    /// One after the other: each names the one before.
    turn: Mutex<()>,
}

impl Receipts {
    /// Those of a host.
    #[must_use]
    pub fn new(paths: &Paths) -> Self {
        Self::keeping(paths, KEPT)
    }

    fn keeping(paths: &Paths, most: u64) -> Self {
        let shelf = Shelf::new(paths.receipts());
        Self { shelf, identity: paths.identity(), most, turn: Mutex::new(()) }
    }

    /// Signs a receipt and keeps it as the next of the chain. Once this returns it is on the disk; cut before, there
    /// is none, and the resource is erased again.
    ///
    /// # Errors
    /// [`ReceiptError`].
    pub fn append(&self, sanitised: Sanitised) -> Result<Kept, ReceiptError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let Sanitised { boot, lease, resource, mut erased, started, finished } = sanitised;
        if erased.methods.is_empty() || erased.evidence.is_empty() {
            return Err(ReceiptError::Empty(resource));
        }
        let identity = identity::load(&self.identity).map_err(ReceiptError::Identity)?;
        let identity = identity.ok_or(ReceiptError::NoIdentity)?;
        let head = self.head(&identity.named.host)?;
        let (sequence, previous) = match &head {
            Some((signed, last)) => (last.sequence.saturating_add(1), Some(signed.digest())),
            None => {
                erased.evidence.extend(self.before());
                (1, None)
            }
        };
        // The clock may be set back; receipts are in the order in which they were made.
        let finished = finished.max(started);
        let finished = head.map_or(finished, |(_, last)| last.finished.max(finished));
        let receipt = Receipt {
            api_version: bulkhead_api::document::API_VERSION.to_owned(),
            host: identity.named.host.clone(),
            boot,
            sequence,
            lease,
            resource,
            methods: erased.methods,
            evidence: erased.evidence,
            weaker: erased.weaker,
            started,
            finished,
            previous,
        };
        self.keep(&receipt, &identity)
    }

    fn keep(&self, receipt: &Receipt, identity: &Identity) -> Result<Kept, ReceiptError> {
        let signed = sign(receipt, &identity.key_pem, &identity.chain_pem, &SystemRandom::new())
            .map_err(ReceiptError::Make)?;
        let sequence = receipt.sequence;
        self.shelf.write(sequence, &signed).map_err(ReceiptError::Shelf)?;
        let oldest = sequence.saturating_sub(self.most);
        for old in self.shelf.numbers().map_err(ReceiptError::Shelf)? {
            if old > oldest {
                break;
            }
            // The receipt is kept all the same, and the next one tries again.
            if let Err(error) = self.shelf.remove(old) {
                warn!(error = %Chain(&error), "old receipt stays");
            }
        }
        Ok(Kept { sequence, digest: signed.digest() })
    }

    /// The newest receipt; `None` where there is none at all.
    fn head(&self, host: &HostId) -> Result<Option<(SignedReceipt, Receipt)>, ReceiptError> {
        let numbers = self.shelf.numbers().map_err(ReceiptError::Shelf)?;
        let Some(&number) = numbers.last() else { return Ok(None) };
        let damaged = |why: String| {
            let path = self.shelf.path(number);
            Err(ReceiptError::Damaged { path, why })
        };
        let signed = match self.shelf.read(number) {
            Ok(signed) => signed,
            Err(ShelfError::Damaged { source, .. }) => return damaged(source.to_string()),
            Err(error @ ShelfError::Files { .. }) => return Err(ReceiptError::Shelf(error)),
        };
        let receipt = match signed.unchecked() {
            Ok(receipt) => receipt,
            Err(refusal) => return damaged(refusal.to_string()),
        };
        if receipt.sequence != number {
            return damaged(format!("it holds receipt {}", receipt.sequence));
        }
        if receipt.host != *host {
            return damaged(format!("it is of host {}, this is {host}", receipt.host));
        }
        Ok(Some((signed, receipt)))
    }

    /// All that are kept, oldest first, or those of one lease.
    ///
    /// # Errors
    /// [`ShelfError`].
    pub fn all(&self, lease: Option<&LeaseId>) -> Result<Vec<SignedReceipt>, ShelfError> {
        let mut all = self.shelf.all()?;
        if let Some(lease) = lease {
            all.retain(|signed| signed.unchecked().is_ok_and(|receipt| receipt.lease == *lease));
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests;
