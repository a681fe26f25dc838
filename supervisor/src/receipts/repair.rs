//! A new chain in place of one that is damaged. The damaged one is kept beside it, as it is.
//!
//! ```text
//!  STATE/receipts ──rename──► STATE/receipts.damaged-N      the next receipt is number 1, and says where the others are
//! ```
//!
//! Nothing is given out for it: what has no receipt is still dirty, and is erased with one of the new chain.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use bulkhead_api::local::ReceiptsRepair;
use bulkhead_api::receipt::Evidence;

use super::{ReceiptError, Receipts};
use crate::receipts::shelf::ShelfError;
use crate::uplink::identity;

/// Damaged chains that are kept beside each other at most.
const MOST: u32 = 1000;

/// Why a chain is not repaired.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// There is nothing to repair.
    #[error("the chain of receipts is whole: nothing is repaired")]
    Whole,
    /// It is not known whether it is damaged.
    #[error(transparent)]
    Unread(ReceiptError),
    /// It cannot be put aside.
    #[error("keep {path} beside")]
    Keep {
        /// Which directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Receipts {
    /// Puts a damaged chain aside, so that a new one begins; without `apply`, only says what is wrong.
    ///
    /// # Errors
    /// [`RepairError`]; everything is then as it was.
    pub fn repair(&self, apply: bool) -> Result<ReceiptsRepair, RepairError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let problem = self.problem()?.ok_or(RepairError::Whole)?;
        let dir = self.shelf.dir();
        let numbers = self.shelf.numbers().map_err(|e| RepairError::Unread(ReceiptError::Shelf(e)));
        let receipts = u64::try_from(numbers?.len()).unwrap_or(u64::MAX);
        let kept = match apply {
            true => {
                let failed = |source| RepairError::Keep { path: dir.to_owned(), source };
                Some(put_aside(dir).map_err(failed)?)
            }
            false => None,
        };
        Ok(ReceiptsRepair { applied: apply, problem, receipts, kept })
    }

    /// What is wrong with the chain: its newest receipt, or one in the middle.
    fn problem(&self) -> Result<Option<String>, RepairError> {
        let identity = identity::load(&self.identity).map_err(ReceiptError::Identity);
        let identity = identity.and_then(|identity| identity.ok_or(ReceiptError::NoIdentity));
        let identity = identity.map_err(RepairError::Unread)?;
        match self.head(&identity.named.host) {
            Err(error @ ReceiptError::Damaged { .. }) => return Ok(Some(error.to_string())),
            Err(error) => return Err(RepairError::Unread(error)),
            Ok(_) => {}
        }
        match self.shelf.all() {
            Err(ShelfError::Damaged { path, source, .. }) => {
                Ok(Some(format!("the receipt {} is damaged ({source})", path.display())))
            }
            Err(error) => Err(RepairError::Unread(ReceiptError::Shelf(error))),
            Ok(_) => Ok(None),
        }
    }

    /// What the first receipt of a chain says of one that was put aside; nothing where there was none.
    pub(super) fn before(&self) -> Vec<Evidence> {
        let aside = (1..=MOST).map(|number| aside(self.shelf.dir(), number));
        let newest = aside.take_while(|path| path.exists()).last();
        let found = newest.map(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            format!("damaged, kept as {name}; a new chain begins here")
        });
        let line = |found| Evidence { what: "receipts before this one".to_owned(), found };
        found.map(line).into_iter().collect()
    }
}

fn aside(dir: &Path, number: u32) -> PathBuf {
    let mut name: OsString = dir.file_name().unwrap_or_default().to_owned();
    name.push(format!(".damaged-{number}"));
    dir.with_file_name(name)
}

/// One rename: a cut leaves the old place or the new one.
fn put_aside(dir: &Path) -> io::Result<PathBuf> {
    let free = (1..=MOST).map(|number| aside(dir, number)).find(|path| !path.exists());
    let kept = free.ok_or(io::ErrorKind::QuotaExceeded)?;
    fs::rename(dir, &kept)?;
    File::open(dir.parent().unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(kept)
}
