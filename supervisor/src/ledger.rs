//! What the supervisor must not forget, in files that are there whole or not at all.
//!
//! ```text
//!  {"format": "bulkhead-ledger", "version": 1, "sha256": "…", "body": { … }}
//! ```
//!
//! The header is read first and alone, so that a record of a later version is named as such. A record that
//! cannot be read is never replaced by an empty one: an empty ledger would give held cores out again, an
//! empty spec cache would take an old spec. Entries are written before a resource is handed over and removed
//! once it was observed free.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use bulkhead_api::id::LeaseId;
use bulkhead_api::lease::{Holding, LeaseSpec};
use ring::digest::{SHA256, digest};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::files;

/// Something kept in a file of its own.
pub trait Record: Serialize + DeserializeOwned {
    /// Names the kind of record in its file.
    const FORMAT: &'static str;
    /// Highest version that is read, and the one that is written.
    const VERSION: u32;
}

/// Why the ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file system refuses.
    #[error("read ledger {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file system refuses.
    #[error("write ledger {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not a ledger, cut off or changed.
    #[error(
        "ledger {path} is damaged ({why}): nothing is granted or taken back; look at the leases on this \
         host, then move the file away and reboot the host"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Written by a later supervisor.
    #[error(
        "ledger {path} has version {version}, this supervisor reads up to {known}: boot the later image"
    )]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
        /// The highest version known here.
        known: u32,
    },
}

impl LedgerError {
    /// One word for conditions and metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Read { .. } => "LedgerUnreadable",
            Self::Write { .. } => "LedgerUnwritable",
            Self::Damaged { .. } => "LedgerDamaged",
            Self::TooNew { .. } => "LedgerTooNew",
        }
    }
}

/// What this host gave to whom.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ledger {
    /// What is held, each entry once.
    pub entries: Vec<Entry>,
}

/// What one lease holds, or may hold after a crash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Entry {
    /// Which lease.
    pub id: LeaseId,
    /// What was asked for as it was placed.
    pub spec: LeaseSpec,
    /// The exact resources.
    pub holding: Holding,
}

impl Record for Ledger {
    const FORMAT: &'static str = "bulkhead-ledger";
    const VERSION: u32 = 1;
}

impl Ledger {
    /// The entry of a lease.
    #[must_use]
    pub fn entry(&self, id: &LeaseId) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.id == *id)
    }

    /// What every lease holds.
    #[must_use]
    pub fn held(&self) -> BTreeMap<LeaseId, Holding> {
        self.entries.iter().map(|entry| (entry.id.clone(), entry.holding.clone())).collect()
    }

    /// Puts an entry in, in place of the lease's older one.
    pub fn record(&mut self, entry: Entry) {
        self.forget(&entry.id.clone());
        self.entries.push(entry);
    }

    /// Takes an entry out. None is fine.
    pub fn forget(&mut self, id: &LeaseId) {
        self.entries.retain(|entry| entry.id != *id);
    }
}

#[derive(Deserialize)]
struct Header {
    format: String,
    version: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept<T> {
    #[serde(rename = "format")]
    _format: String,
    #[serde(rename = "version")]
    _version: u32,
    sha256: String,
    body: T,
}

#[derive(Serialize)]
struct Keeping<'a, T> {
    format: &'static str,
    version: u32,
    sha256: String,
    body: &'a T,
}

/// Reads the ledger; an absent file is an empty ledger.
///
/// # Errors
/// [`LedgerError::Read`], [`LedgerError::Damaged`], [`LedgerError::TooNew`].
pub fn load(path: &Path) -> Result<Ledger, LedgerError> {
    Ok(load_record(path)?.unwrap_or_default())
}

/// Writes the ledger; a crash leaves the old one or the new one.
///
/// # Errors
/// [`LedgerError::Write`].
pub fn store(path: &Path, ledger: &Ledger) -> Result<(), LedgerError> {
    store_record(path, ledger)
}

/// Reads a record; `None` where there is no file.
///
/// # Errors
/// [`LedgerError::Read`], [`LedgerError::Damaged`], [`LedgerError::TooNew`].
pub fn load_record<T: Record>(path: &Path) -> Result<Option<T>, LedgerError> {
    let bytes = files::read_if_there(path)
        .map_err(|source| LedgerError::Read { path: path.to_owned(), source })?;
    bytes.map(|bytes| decode(&bytes, path)).transpose()
}

fn decode<T: Record>(bytes: &[u8], path: &Path) -> Result<T, LedgerError> {
    let damaged = |why: String| LedgerError::Damaged { path: path.to_owned(), why };
    let header: Header = serde_json::from_slice(bytes).map_err(|e| damaged(e.to_string()))?;
    if header.format != T::FORMAT {
        return Err(damaged(format!("its format is {:?}", header.format)));
    }
    if header.version > T::VERSION {
        let (path, version) = (path.to_owned(), header.version);
        return Err(LedgerError::TooNew { path, version, known: T::VERSION });
    }
    let kept: Kept<T> = serde_json::from_slice(bytes).map_err(|e| damaged(e.to_string()))?;
    let body = serde_json::to_vec(&kept.body).map_err(|e| damaged(e.to_string()))?;
    if sha256(&body) != kept.sha256 {
        return Err(damaged("its digest does not match its body".to_owned()));
    }
    Ok(kept.body)
}

/// Writes a record and syncs it; a crash leaves the old one or the new one.
///
/// # Errors
/// [`LedgerError::Write`].
pub fn store_record<T: Record>(path: &Path, record: &T) -> Result<(), LedgerError> {
    let write = || {
        let sha256 = sha256(&serde_json::to_vec(record)?);
        let file = Keeping { format: T::FORMAT, version: T::VERSION, sha256, body: record };
        files::replace(path, &serde_json::to_vec(&file)?, 0o600)
    };
    write().map_err(|source| LedgerError::Write { path: path.to_owned(), source })
}

fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
