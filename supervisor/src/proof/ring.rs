//! The last statements in `/run/bulkhead/isolation/` (0700), one file each, so that their chain survives the supervisor.
//!
//! ```text
//!  0000000001.json … 0000000120.json      0600; the oldest goes when a new one comes
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bulkhead_api::statement::{SignedStatement, Statement};

use crate::files;

/// Statements that are kept: an hour of a host on which nothing changes.
pub const KEPT: usize = 120;

/// The ring cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The file system refuses.
    #[error("{doing} {path}")]
    Files {
        /// What was done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{path} holds no isolation statement")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: serde_json::Error,
    },
}

/// The directory, and how many it keeps.
#[derive(Debug, Clone)]
pub struct Ring {
    dir: PathBuf,
    most: usize,
}

impl Ring {
    /// A ring in that directory, which is made with the first statement.
    #[must_use]
    pub fn new(dir: PathBuf, most: usize) -> Self {
        Self { dir, most }
    }

    fn failed<'a>(
        doing: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(io::Error) -> RingError + use<'a> {
        move |source| RingError::Files { doing, path: path.to_owned(), source }
    }

    /// Numbers of the statements that are there, ascending.
    fn numbers(&self) -> Result<Vec<u64>, RingError> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(Self::failed("list", &self.dir))?,
        };
        let mut numbers = Vec::new();
        for entry in entries {
            let name = entry.map_err(Self::failed("list", &self.dir))?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".json"));
            numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:010}.json"))
    }

    fn read(&self, number: u64) -> Result<SignedStatement, RingError> {
        let path = self.path(number);
        let bytes = fs::read(&path).map_err(Self::failed("read", &path))?;
        serde_json::from_slice(&bytes).map_err(|source| RingError::Damaged { path, source })
    }

    /// The latest statement with what it says. A damaged one is none: the chain begins anew behind it.
    ///
    /// # Errors
    /// [`RingError::Files`].
    pub fn last(&self) -> Result<Option<(SignedStatement, Statement)>, RingError> {
        let Some(&number) = self.numbers()?.last() else { return Ok(None) };
        match self.read(number) {
            Ok(signed) => {
                let statement = signed.unchecked();
                Ok(statement.ok().map(|statement| (signed, statement)))
            }
            Err(RingError::Damaged { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All that are kept, oldest first. One that goes away meanwhile is not among them.
    ///
    /// # Errors
    /// [`RingError`].
    pub fn all(&self) -> Result<Vec<SignedStatement>, RingError> {
        let mut all = Vec::new();
        for number in self.numbers()? {
            match self.read(number) {
                Err(RingError::Files { source, .. })
                    if source.kind() == io::ErrorKind::NotFound => {}
                read => all.push(read?),
            }
        }
        Ok(all)
    }

    /// Keeps a statement; those that do not belong before it, and the oldest beyond the bound, go.
    ///
    /// # Errors
    /// [`RingError::Files`].
    pub fn keep(&self, number: u64, signed: &SignedStatement) -> Result<(), RingError> {
        files::directory(&self.dir, 0o700).map_err(Self::failed("make", &self.dir))?;
        let path = self.path(number);
        let bytes = serde_json::to_vec(signed)
            .map_err(|source| RingError::Damaged { path: path.clone(), source })?;
        files::replace(&path, &bytes, 0o600).map_err(Self::failed("write", &path))?;
        let bound = u64::try_from(self.most).unwrap_or(u64::MAX);
        let kept = number.saturating_sub(bound)..=number;
        for old in self.numbers()?.into_iter().filter(|n| !kept.contains(n) || *n == *kept.start())
        {
            let path = self.path(old);
            fs::remove_file(&path).map_err(Self::failed("remove", &path))?;
        }
        Ok(())
    }
}
