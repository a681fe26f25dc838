//! What the supervisor must not forget: the spec it accepted last and what it gave to whom.
//!
//! ```text
//!  {"format": "bulkhead-ledger", "version": 1, "sha256": "…", "body": { spec, holdings }}
//! ```
//!
//! The header is read first and alone, so that a ledger of a later version is named as such. A ledger that
//! cannot be read is never replaced by an empty one: an empty ledger would give held cores out again.
//! Entries are written before a resource is handed over and removed once it was observed free.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use bulkhead_api::id::LeaseId;
use bulkhead_api::lease::{Holding, LeaseSpec};
use bulkhead_api::spec::SignedSpec;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::files;

const FORMAT: &str = "bulkhead-ledger";
const VERSION: u32 = 1;

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
        "ledger {path} has version {version}, this supervisor reads up to {VERSION}: boot the later image"
    )]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
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

/// The contents of the ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ledger {
    /// The spec accepted last, as it was signed; absent until one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<SignedSpec>,
    /// Its generation; 0 = none.
    pub generation: u64,
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

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: String,
    version: u32,
    sha256: String,
    body: Ledger,
}

/// Reads the ledger; an absent file is an empty ledger.
///
/// # Errors
/// [`LedgerError::Read`], [`LedgerError::Damaged`], [`LedgerError::TooNew`].
pub fn load(path: &Path) -> Result<Ledger, LedgerError> {
    let here = || path.to_owned();
    let bytes = files::read_if_there(path)
        .map_err(|source| LedgerError::Read { path: here(), source })?;
    bytes.map_or_else(|| Ok(Ledger::default()), |bytes| decode(&bytes, path))
}

fn decode(bytes: &[u8], path: &Path) -> Result<Ledger, LedgerError> {
    let damaged = |why: String| LedgerError::Damaged { path: path.to_owned(), why };
    let header: Header = serde_json::from_slice(bytes).map_err(|e| damaged(e.to_string()))?;
    if header.format != FORMAT {
        return Err(damaged(format!("its format is {:?}", header.format)));
    }
    if header.version > VERSION {
        return Err(LedgerError::TooNew { path: path.to_owned(), version: header.version });
    }
    let file: File = serde_json::from_slice(bytes).map_err(|e| damaged(e.to_string()))?;
    let body = serde_json::to_vec(&file.body).map_err(|e| damaged(e.to_string()))?;
    if sha256(&body) != file.sha256 {
        return Err(damaged("its digest does not match its body".to_owned()));
    }
    Ok(file.body)
}

/// Writes the ledger; a crash leaves the old one or the new one.
///
/// # Errors
/// [`LedgerError::Write`].
pub fn store(path: &Path, ledger: &Ledger) -> Result<(), LedgerError> {
    let write = || {
        let body = serde_json::to_vec(ledger)?;
        let file = File {
            format: FORMAT.to_owned(),
            version: VERSION,
            sha256: sha256(&body),
            body: ledger.clone(),
        };
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
