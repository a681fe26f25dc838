//! Which generation was signed last for each host: a small file a host, written before the reply.

use std::io;
use std::path::{Path, PathBuf};

use bulkhead_api::id::HostId;
use serde::{Deserialize, Serialize};

use crate::files::{self, FileError};

/// What was signed last for a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Signed {
    /// Its generation.
    pub generation: u64,
    /// SHA-256 of the signed body, hexadecimal.
    pub body_sha256: String,
}

/// Whether a spec may be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Above the last one: write it down, then sign.
    New,
    /// The last one again, byte for byte: sign.
    Same,
    /// Neither.
    Old {
        /// Signed before.
        last: u64,
    },
}

/// Compares what is to be signed with what was signed last.
#[must_use]
pub fn judge(last: Option<&Signed>, next: &Signed) -> Verdict {
    match last {
        None => Verdict::New,
        Some(last) if next.generation > last.generation => Verdict::New,
        Some(last) if next == last => Verdict::Same,
        Some(last) => Verdict::Old { last: last.generation },
    }
}

/// The files.
#[derive(Debug, Clone)]
pub struct Ledger {
    folder: PathBuf,
}

impl Ledger {
    /// In an existing folder.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    fn path(&self, host: &HostId) -> PathBuf {
        // A host id is a DNS label: no separator, no dot.
        self.folder.join(format!("{host}.json"))
    }

    /// What was signed last for a host; `None` if nothing was.
    ///
    /// # Errors
    /// The file is there and cannot be read: nothing may be signed for this host.
    pub fn last(&self, host: &HostId) -> Result<Option<Signed>, FileError> {
        let path = self.path(host);
        match files::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map(Some).map_err(|e| FileError::content(&path, e))
            }
            Err(FileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Writes down what is about to be signed; durable when this returns.
    ///
    /// # Errors
    /// The file cannot be written: the spec must not be signed.
    pub fn record(&self, host: &HostId, signed: &Signed) -> Result<(), FileError> {
        let path = self.path(host);
        let bytes = serde_json::to_vec(signed).map_err(|e| FileError::content(&path, e))?;
        files::replace(&path, &bytes, 0o600)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(generation: u64, body: &str) -> Signed {
        Signed { generation, body_sha256: body.to_owned() }
    }

    #[test]
    fn generations_only_grow_and_the_same_body_may_be_signed_again() {
        let last = signed(4, "aa");
        assert_eq!(judge(None, &signed(1, "aa")), Verdict::New);
        assert_eq!(judge(Some(&last), &signed(5, "bb")), Verdict::New);
        assert_eq!(judge(Some(&last), &signed(4, "aa")), Verdict::Same);
        assert_eq!(judge(Some(&last), &signed(4, "bb")), Verdict::Old { last: 4 });
        assert_eq!(judge(Some(&last), &signed(3, "aa")), Verdict::Old { last: 4 });
    }

    #[test]
    fn what_was_recorded_is_found_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let host: HostId = "a-123456".parse().unwrap();
        let ledger = Ledger::new(folder.path());
        assert_eq!(ledger.last(&host).unwrap(), None);
        ledger.record(&host, &signed(7, "aa")).unwrap();
        assert_eq!(Ledger::new(folder.path()).last(&host).unwrap(), Some(signed(7, "aa")));
    }

    #[test]
    fn a_damaged_file_is_an_error_and_not_a_first_generation() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a-123456.json"), b"{").unwrap();
        assert!(Ledger::new(folder.path()).last(&"a-123456".parse().unwrap()).is_err());
    }
}
