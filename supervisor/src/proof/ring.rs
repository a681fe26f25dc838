//! The last statements in `/run/bulkhead/isolation/`, so that their chain survives the supervisor. The oldest goes when
//! a new one comes.

use std::path::PathBuf;

use bulkhead_api::statement::{SignedStatement, Statement};

use crate::receipts::shelf::{Shelf, ShelfError};

/// Statements that are kept: an hour of a host on which nothing changes.
pub const KEPT: usize = 120;

/// The directory, and how many it keeps.
#[derive(Debug, Clone)]
pub struct Ring {
    shelf: Shelf<Statement>,
    most: usize,
}

impl Ring {
    /// A ring in that directory, which is made with the first statement.
    #[must_use]
    pub const fn new(dir: PathBuf, most: usize) -> Self {
        Self { shelf: Shelf::new(dir), most }
    }

    /// The latest statement with what it says. A damaged one is none: the chain begins anew behind it.
    ///
    /// # Errors
    /// [`ShelfError::Files`].
    pub fn last(&self) -> Result<Option<(SignedStatement, Statement)>, ShelfError> {
        let Some(&number) = self.shelf.numbers()?.last() else { return Ok(None) };
        match self.shelf.read(number) {
            Ok(signed) => {
                let statement = signed.unchecked();
                Ok(statement.ok().map(|statement| (signed, statement)))
            }
            Err(ShelfError::Damaged { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All that are kept, oldest first. One that goes away meanwhile is not among them.
    ///
    /// # Errors
    /// [`ShelfError`].
    pub fn all(&self) -> Result<Vec<SignedStatement>, ShelfError> {
        self.shelf.all()
    }

    /// Keeps a statement; those that do not belong before it, and the oldest beyond the bound, go.
    ///
    /// # Errors
    /// [`ShelfError`].
    pub fn keep(&self, number: u64, signed: &SignedStatement) -> Result<(), ShelfError> {
        self.shelf.write(number, signed)?;
        let bound = u64::try_from(self.most).unwrap_or(u64::MAX);
        let kept = number.saturating_sub(bound)..=number;
        let mut old = self.shelf.numbers()?;
        old.retain(|n| !kept.contains(n) || n == kept.start());
        old.into_iter().try_for_each(|old| self.shelf.remove(old))
    }
}
