//! The site's memory on disk: one file, replaced whole, with a digest.
//!
//! ```text
//!  line 1   {"format":"bulkhead-site-state","version":1,"sha256":"…"}     reads alone
//!  line 2   the state as JSON, covered by the digest
//! ```
//!
//! Written beside, synced, renamed, directory synced: after a kill or a power cut the file is the old
//! state or the new one. A file that is neither is refused, never guessed at.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::site::State;

const FORMAT: &str = "bulkhead-site-state";
const VERSION: u32 = 1;

/// Why the state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A system call on a file.
    #[error("{doing} {}", path.display())]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The first line is not a header of ours.
    #[error("{}: first line is not the header of a state file", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: serde_json::Error,
    },
    /// Of a version that this program does not know.
    #[error("{}: {format:?} version {version}, this program reads {FORMAT:?} version {VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says.
        format: String,
        /// What it says.
        version: u32,
    },
    /// The bytes are not those that were written.
    #[error(
        "{}: state is damaged: its SHA-256 is {found}, the header says {expected}. Restore the file, or \
         move it away to forget bindings and boot counters",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Of the bytes there.
        found: String,
        /// In the header.
        expected: String,
    },
    /// Undamaged and yet not a state.
    #[error("{}: state", path.display())]
    Body {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: serde_json::Error,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: String,
    version: u32,
    sha256: String,
}

/// Hexadecimal SHA-256.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Makes `path` and its parents, readable by this user alone.
///
/// # Errors
/// [`StoreError::Io`].
pub fn private_dir(path: &Path) -> Result<(), StoreError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| StoreError::Io { doing: "create directory", path: path.into(), source })
}

/// Replaces `path` by `bytes`, durably and with mode 0600.
///
/// # Errors
/// [`StoreError::Io`]; the old content is then still there.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let io = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| StoreError::Io { doing, path, source }
    };
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)
        .map_err(io("create", &beside))?;
    file.write_all(bytes).map_err(io("write", &beside))?;
    file.sync_all().map_err(io("sync", &beside))?;
    fs::rename(&beside, path).map_err(io("rename to", path))?;
    if let Some(dir) = path.parent() {
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(io("sync", dir))?;
    }
    Ok(())
}

/// The bytes of `path`; `None` when it does not exist.
///
/// # Errors
/// [`StoreError::Io`] for all else.
pub fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StoreError::Io { doing: "read", path: path.to_owned(), source }),
    }
}

/// The state file.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
}

impl Store {
    /// The state file in `dir`, which is made when missing, and what it holds; an empty state when
    /// there is none yet.
    ///
    /// # Errors
    /// See [`StoreError`]; a damaged file is an error, not an empty state.
    pub fn open(dir: &Path) -> Result<(Self, State), StoreError> {
        private_dir(dir)?;
        let path = dir.join("state.json");
        let state = match read_if_there(&path)? {
            Some(bytes) => parse(&path, &bytes)?,
            None => State::default(),
        };
        Ok((Self { path }, state))
    }

    /// Writes the state; it is on disk when this returns.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Body`].
    pub fn save(&self, state: &State) -> Result<(), StoreError> {
        let json = |source| StoreError::Body { path: self.path.clone(), source };
        let body = serde_json::to_vec(state).map_err(json)?;
        let header =
            Header { format: FORMAT.to_owned(), version: VERSION, sha256: sha256_hex(&body) };
        let mut bytes = serde_json::to_vec(&header).map_err(json)?;
        bytes.push(b'\n');
        bytes.extend_from_slice(&body);
        bytes.push(b'\n');
        replace(&self.path, &bytes)
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<State, StoreError> {
    let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
    let (first, rest) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let path = path.to_owned();
    let header: Header = match serde_json::from_slice(first) {
        Ok(header) => header,
        Err(source) => return Err(StoreError::Header { path, source }),
    };
    if header.format != FORMAT || header.version != VERSION {
        return Err(StoreError::Version { path, format: header.format, version: header.version });
    }
    let body = rest.strip_suffix(b"\n").unwrap_or(rest);
    let found = sha256_hex(body);
    if found != header.sha256 {
        return Err(StoreError::Damaged { path, found, expected: header.sha256 });
    }
    serde_json::from_slice(body).map_err(|source| StoreError::Body { path, source })
}

#[cfg(test)]
mod tests {
    use bulkhead_api::id::MacAddr;
    use bulkhead_api::time::Timestamp;

    use super::*;
    use crate::tickets::Secret;

    fn some_state() -> State {
        let mut state = State::default();
        let mac = MacAddr::new([2, 0, 0, 0, 0, 1]);
        let now = Timestamp::UNIX_EPOCH;
        state.bindings.bind(mac, [10, 9, 0, 100].into());
        state.bindings.offer(MacAddr::new([2, 0, 0, 0, 0, 2]), [10, 9, 0, 101].into(), now);
        state.tickets.mint(Secret::new([7; 16]), mac, None, now);
        state.machines.see(mac, now);
        state
    }

    #[test]
    fn what_was_saved_is_read_back_and_only_the_owner_may_read_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let (store, empty) = Store::open(&dir.path().join("state")).unwrap();
        assert_eq!(empty, State::default());
        store.save(&some_state()).unwrap();
        let (store, again) = Store::open(&dir.path().join("state")).unwrap();
        assert_eq!(again, some_state());
        let mode = fs::metadata(&store.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_half_written_file_beside_it_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(dir.path()).unwrap();
        store.save(&some_state()).unwrap();
        fs::write(dir.path().join("state.new"), b"{\"for").unwrap();
        assert_eq!(Store::open(dir.path()).unwrap().1, some_state());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_refused_with_its_reason() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(dir.path()).unwrap();
        store.save(&some_state()).unwrap();
        let good = fs::read(&store.path).unwrap();
        for at in 0..good.len() - 1 {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(parse(&store.path, &bad).is_err(), "bit flipped at {at}");
            assert!(parse(&store.path, &good[..at]).is_err(), "cut at {at}");
        }
        let mut bad = good.clone();
        let middle = good.len() - 20;
        bad[middle] ^= 1;
        fs::write(&store.path, bad).unwrap();
        let error = Store::open(dir.path()).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("state.json"), "{error}");
    }
}
