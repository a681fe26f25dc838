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

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use bulkhead_api::id::LeaseId;
use bulkhead_api::lease::{Holding, LeaseSpec};
use bulkhead_api::resource::{Quarantined, Resource};
use bulkhead_lease::place::Taken;
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
        "ledger {path} is damaged ({why}): nothing is granted or taken back; `bulkhead host ledger repair` on \
         this host rebuilds it from what is there"
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
    /// What nobody gets: it was erased and could not be shown to be clean.
    #[serde(default)]
    pub quarantine: Vec<Quarantined>,
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
    /// It is being taken back. Never undone: what was given up halfway is not a lease any more.
    #[serde(default)]
    pub releasing: bool,
    /// Which of its resources have a receipt: others may hold them.
    #[serde(default)]
    pub clean: BTreeSet<Resource>,
    /// The CPU of which its user ids are made, where that is not the lowest that it holds: of what was found without a
    /// record, and has other CPUs now than when it was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids_of: Option<u32>,
}

impl Entry {
    /// The CPU of which its user ids are made ([`crate::tenant::bundle::first_id`]); none without CPUs.
    #[must_use]
    pub fn id_cpu(&self) -> Option<u32> {
        self.ids_of.or_else(|| self.holding.cpus.first().copied())
    }

    /// What nobody else can have yet: all of its holding that has no receipt, and until everything has one the CPU of which
    /// its ids are made. Files on a volume that is still dirty are the same ids', and whoever had that CPU would have those.
    #[must_use]
    pub fn kept(&self) -> Holding {
        let mut kept = self.holding.without(&self.clean);
        if !self.holding.resources().iter().all(|resource| self.clean.contains(resource)) {
            kept.cpus.extend(self.id_cpu());
        }
        kept
    }

    /// What a lease that is granted holds.
    #[must_use]
    pub fn granted(id: LeaseId, spec: LeaseSpec, holding: Holding) -> Self {
        Self { id, spec, holding, releasing: false, clean: BTreeSet::new(), ids_of: None }
    }
}

impl Record for Ledger {
    const FORMAT: &'static str = "bulkhead-ledger";
    const VERSION: u32 = 2;
}

impl Ledger {
    /// The entry of a lease.
    #[must_use]
    pub fn entry(&self, id: &LeaseId) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.id == *id)
    }

    /// What cannot be given out: what leases hold, without what has a receipt, and what nobody gets.
    #[must_use]
    pub fn taken(&self) -> Taken {
        let left = |entry: &Entry| (entry.id.clone(), entry.kept());
        let quarantined = self.quarantine.iter().map(|kept| kept.resource.clone());
        Taken { held: self.entries.iter().map(left).collect(), quarantined: quarantined.collect() }
    }

    /// Resources of an entry that are neither clean nor in quarantine, in the order in which they are sanitised.
    #[must_use]
    pub fn dirty(&self, entry: &Entry) -> Vec<Resource> {
        let kept = |resource: &Resource| {
            self.quarantine.iter().any(|q| q.lease == entry.id && q.resource == *resource)
        };
        let mut all = entry.holding.resources();
        all.retain(|resource| !entry.clean.contains(resource) && !kept(resource));
        all
    }

    /// Marks a lease as being taken back. None is fine.
    pub fn release(&mut self, id: &LeaseId) {
        for entry in self.entries.iter_mut().filter(|entry| entry.id == *id) {
            entry.releasing = true;
        }
    }

    /// Notes that a resource has a receipt; one in quarantine leaves it. A lease that is not being taken back keeps what
    /// it has: the receipt is for the same amount of an earlier lease of its name.
    pub fn cleaned(&mut self, id: &LeaseId, resource: &Resource) {
        self.quarantine.retain(|kept| kept.lease != *id || kept.resource != *resource);
        for entry in self.entries.iter_mut().filter(|entry| entry.id == *id && entry.releasing) {
            if entry.holding.resources().contains(resource) {
                entry.clean.insert(resource.clone());
            }
        }
    }

    /// Notes that a resource was erased and is not clean. The first reason stays.
    pub fn quarantined(&mut self, kept: Quarantined) {
        let same = |q: &Quarantined| q.lease == kept.lease && q.resource == kept.resource;
        if !self.quarantine.iter().any(same) {
            self.quarantine.push(kept);
        }
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
    if header.version == 0 {
        return Err(damaged("its version is 0".to_owned()));
    }
    if header.version > T::VERSION {
        let (path, version) = (path.to_owned(), header.version);
        return Err(LedgerError::TooNew { path, version, known: T::VERSION });
    }
    let kept: Kept<T> = serde_json::from_slice(bytes).map_err(|e| damaged(e.to_string()))?;
    if body(bytes).map(sha256).as_ref() != Some(&kept.sha256) {
        return Err(damaged("its digest does not match its body".to_owned()));
    }
    Ok(kept.body)
}

/// The body of a record as it was written, byte for byte: an earlier version's has no fields that came later, and
/// some changed bytes would read as the same value.
fn body(bytes: &[u8]) -> Option<&[u8]> {
    const MARK: &[u8] = b",\"body\":";
    let at = bytes.windows(MARK.len()).position(|window| window == MARK)?;
    bytes.get(at.saturating_add(MARK.len())..)?.strip_suffix(b"}")
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
#[path = "ledger_damage_tests.rs"]
mod damage_tests;
#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
