//! Signed records in a directory (0700), one file each, named by their number.
//!
//! ```text
//!  0000000001.json  0000000002.json  …      0600; each is there whole or not at all
//! ```

use std::fs;
use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use bulkhead_api::signed::{Record, Signed};

use crate::files;

/// A shelf cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
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
    #[error("{path} holds no {record}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        record: &'static str,
        /// Why not.
        source: serde_json::Error,
    },
}

fn failed<'a>(
    doing: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> ShelfError + use<'a> {
    move |source| ShelfError::Files { doing, path: path.to_owned(), source }
}

/// A directory of records of one kind.
#[derive(Debug, Clone)]
pub struct Shelf<R> {
    dir: PathBuf,
    record: PhantomData<fn() -> R>,
}

impl<R: Record> Shelf<R> {
    /// In that directory, which is made with the first record.
    #[must_use]
    pub const fn new(dir: PathBuf) -> Self {
        Self { dir, record: PhantomData }
    }

    /// Where they are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Numbers of the records that are there, ascending. Other files are left alone.
    ///
    /// # Errors
    /// [`ShelfError::Files`].
    pub fn numbers(&self) -> Result<Vec<u64>, ShelfError> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed("list", &self.dir))?,
        };
        let mut numbers = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed("list", &self.dir))?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".json"));
            numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Where the record of a number is.
    #[must_use]
    pub fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:010}.json"))
    }

    /// Reads one; its signature is not checked.
    ///
    /// # Errors
    /// [`ShelfError`].
    pub fn read(&self, number: u64) -> Result<Signed<R>, ShelfError> {
        let path = self.path(number);
        let bytes = fs::read(&path).map_err(failed("read", &path))?;
        let damaged = |source| ShelfError::Damaged { path, record: R::NOUN, source };
        serde_json::from_slice(&bytes).map_err(damaged)
    }

    /// All of them, oldest first. One that goes away meanwhile is not among them.
    ///
    /// # Errors
    /// [`ShelfError`].
    pub fn all(&self) -> Result<Vec<Signed<R>>, ShelfError> {
        let mut all = Vec::new();
        for number in self.numbers()? {
            match self.read(number) {
                Err(ShelfError::Files { source, .. })
                    if source.kind() == io::ErrorKind::NotFound => {}
                read => all.push(read?),
            }
        }
        Ok(all)
    }

    /// Writes one and syncs it. A crash leaves the old file or the new one.
    ///
    /// # Errors
    /// [`ShelfError`].
    pub fn write(&self, number: u64, signed: &Signed<R>) -> Result<(), ShelfError> {
        files::directory(&self.dir, 0o700).map_err(failed("make", &self.dir))?;
        let path = self.path(number);
        let bytes = serde_json::to_vec(signed).map_err(|source| ShelfError::Damaged {
            path: path.clone(),
            record: R::NOUN,
            source,
        })?;
        files::replace(&path, &bytes, 0o600).map_err(failed("write", &path))
    }

    /// Removes one.
    ///
    /// # Errors
    /// [`ShelfError::Files`].
    pub fn remove(&self, number: u64) -> Result<(), ShelfError> {
        let path = self.path(number);
        fs::remove_file(&path).map_err(failed("remove", &path))
    }
}
