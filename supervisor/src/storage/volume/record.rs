//! What is remembered of a volume besides the ledger, in a file of its own in the state directory: which mapping
//! is the finished one, and what shows later that its key is gone.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use bulkhead_api::id::{LeaseId, VolumeName};
use bulkhead_api::resource::Extent;
use serde::{Deserialize, Serialize};

use super::name;
use crate::ledger::{LedgerError, Record, load_record, store_record};
use crate::paths::Paths;

/// A volume that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeRecord {
    /// Whose.
    pub lease: LeaseId,
    /// Which of the lease's.
    pub volume: VolumeName,
    /// Where: the pool.
    pub pool: String,
    /// Where in the pool.
    pub extents: Vec<Extent>,
    /// UUID of its mapping. After a reboot there is none, and the next one has another.
    pub mapping: String,
    /// 32 random bytes in hexadecimal: the canary's block is full of them, in plain.
    pub marker: String,
    /// SHA-256 of that block as it is on the disk.
    pub canary: String,
    /// How far it is.
    pub stage: Stage,
}

/// How far a volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    /// In use, or left by a reboot.
    Made,
    /// Its erase began, or it is being made anew after a reboot: the canary may be gone already.
    Erasing,
}

impl Record for VolumeRecord {
    const FORMAT: &'static str = "bulkhead-volume";
    const VERSION: u32 = 1;
}

fn directory(paths: &Paths) -> PathBuf {
    paths.state.join("volumes")
}

fn path(paths: &Paths, lease: &LeaseId, volume: &VolumeName) -> PathBuf {
    directory(paths).join(format!("{}.json", name::mapping(lease, volume)))
}

/// The record of a volume.
///
/// # Errors
/// It cannot be read.
pub fn load(
    paths: &Paths,
    lease: &LeaseId,
    volume: &VolumeName,
) -> Result<Option<VolumeRecord>, LedgerError> {
    load_record(&path(paths, lease, volume))
}

/// Keeps it.
///
/// # Errors
/// It cannot be written.
pub fn store(paths: &Paths, record: &VolumeRecord) -> Result<(), LedgerError> {
    let path = path(paths, &record.lease, &record.volume);
    crate::files::directory(&directory(paths), 0o700)
        .map_err(|source| LedgerError::Write { path: path.clone(), source })?;
    store_record(&path, record)
}

/// Forgets it; none is fine.
///
/// # Errors
/// It cannot be removed.
pub fn remove(paths: &Paths, lease: &LeaseId, volume: &VolumeName) -> Result<(), LedgerError> {
    let path = path(paths, lease, volume);
    let failed = |source| LedgerError::Write { path: path.clone(), source };
    match fs::remove_file(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
        Ok(()) => fs::File::open(directory(paths)).and_then(|d| d.sync_all()).map_err(failed),
    }
}

/// All records.
///
/// # Errors
/// One cannot be read.
pub fn all(paths: &Paths) -> Result<Vec<VolumeRecord>, LedgerError> {
    let directory = directory(paths);
    let failed = |source| LedgerError::Read { path: directory.clone(), source };
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut records = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        // A temporary file of a write that was cut is no record.
        if path.extension().is_some_and(|extension| extension == "json") {
            records.extend(load_record::<VolumeRecord>(&path)?);
        }
    }
    records.sort_by(|a, b| (&a.lease, &a.volume).cmp(&(&b.lease, &b.volume)));
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_kept_found_and_forgotten() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        assert_eq!(all(&paths).unwrap(), []);
        let record = VolumeRecord {
            lease: LeaseId { tenant: "acme".parse().unwrap(), name: "a".parse().unwrap() },
            volume: "scratch".parse().unwrap(),
            pool: "p".to_owned(),
            extents: vec![Extent { start: 0, length: 4 << 20 }],
            mapping: "BULKHEAD-VOLUME-1".to_owned(),
            marker: "00".repeat(32),
            canary: "11".repeat(32),
            stage: Stage::Made,
        };
        store(&paths, &record).unwrap();
        fs::write(paths.state.join("volumes/x.json.new"), b"{").unwrap();
        assert_eq!(all(&paths).unwrap(), std::slice::from_ref(&record));
        assert_eq!(load(&paths, &record.lease, &record.volume).unwrap(), Some(record.clone()));
        for _ in 0..2 {
            remove(&paths, &record.lease, &record.volume).unwrap();
            assert_eq!(load(&paths, &record.lease, &record.volume).unwrap(), None);
        }
        fs::write(paths.state.join("volumes/y.json"), b"{").unwrap();
        assert!(all(&paths).is_err());
    }
}
