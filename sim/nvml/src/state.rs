//! The state file that all processes share.
//!
//! Readers open the file and need no lock, because writers replace it whole: lock
//! `<state>.lock`, read, change, write `<state>.new`, rename. A process that dies in between
//! leaves the old state. Where there is no file, the machine is [`Machine::standard`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{FlockOperation, flock};

use crate::model::check::Impossible;
use crate::model::{Machine, Process};

/// Names the state file.
pub const VARIABLE: &str = "NVML_SIM_STATE";
/// The state file where the variable is not set.
pub const STANDARD: &str = "/run/nvml-sim/state.json";
/// Greatest state that is read, in bytes.
const LIMIT: u64 = 16 << 20;

/// Why bytes are no state.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not the JSON of a machine.
    #[error("state is no machine's JSON")]
    Json(#[source] serde_json::Error),
    /// A machine that cannot be.
    #[error(transparent)]
    Impossible(#[from] Impossible),
}

/// Why the state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// An operation on a file.
    #[error("{operation} {}", path.display())]
    Io {
        /// Such as `read`.
        operation: &'static str,
        /// On this.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not a state.
    #[error("decode {}", path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: DecodeError,
    },
}

/// The machine in these bytes.
///
/// # Errors
/// [`DecodeError`]; arbitrary bytes never panic.
pub fn decode(bytes: &[u8]) -> Result<Machine, DecodeError> {
    let machine: Machine = serde_json::from_slice(bytes).map_err(DecodeError::Json)?;
    machine.check()?;
    Ok(machine)
}

#[derive(Debug)]
struct Cached {
    // Kept open so that no later file can have the same inode number.
    _file: File,
    version: Version,
    machine: Arc<Machine>,
}

/// Device, inode, size and time of the last change. A replaced file has another inode; one that an
/// editor wrote in place has another time.
type Version = (u64, u64, u64, i64, i64);

fn version(of: &fs::Metadata) -> Version {
    (of.dev(), of.ino(), of.size(), of.mtime(), of.mtime_nsec())
}

/// A state file.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    cache: Mutex<Option<Cached>>,
}

impl Store {
    /// The state in this file, which need not exist.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), cache: Mutex::new(None) }
    }

    /// The state that the environment names.
    #[must_use]
    pub fn from_env() -> Self {
        Self::at(std::env::var_os(VARIABLE).map_or_else(|| STANDARD.into(), PathBuf::from))
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file or folder beside the state, by what is appended to its name.
    #[must_use]
    pub fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(suffix);
        name.into()
    }

    /// The folder of the state.
    #[must_use]
    pub fn folder(&self) -> &Path {
        match self.path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        }
    }

    /// The machine now.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn read(&self) -> Result<Arc<Machine>, StateError> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Arc::new(Machine::standard()));
            }
            Err(source) => return Err(self.io("open", source)),
        };
        let now = file.metadata().map_err(|source| self.io("look at", source))?;
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cached) = cache.as_ref().filter(|cached| cached.version == version(&now)) {
            return Ok(Arc::clone(&cached.machine));
        }
        let mut bytes = Vec::new();
        let read = (&mut file).take(LIMIT + 1).read_to_end(&mut bytes);
        read.map_err(|source| self.io("read", source))?;
        let machine = decode(&bytes)
            .map_err(|source| StateError::Decode { path: self.path.clone(), source })?;
        let machine = Arc::new(machine);
        *cache =
            Some(Cached { _file: file, version: version(&now), machine: Arc::clone(&machine) });
        Ok(machine)
    }

    /// Changes the machine while nobody else does; nothing is written where `change` refuses.
    /// Processes whose lock is free are taken off first.
    ///
    /// # Errors
    /// [`StateError`] outside, the refusal of `change` inside.
    pub fn update<T, E>(
        &self,
        change: impl FnOnce(&mut Machine) -> Result<T, E>,
    ) -> Result<Result<T, E>, StateError> {
        let folder = self.folder();
        fs::create_dir_all(folder).map_err(|source| self.io("make the folder of", source))?;
        let lock =
            OpenOptions::new().create(true).append(true).mode(0o666).open(self.beside(".lock"));
        let lock = lock.map_err(|source| self.io("open the lock of", source))?;
        flock(&lock, FlockOperation::LockExclusive)
            .map_err(|error| self.io("lock", error.into()))?;
        let before = self.read()?;
        let mut machine = Machine::clone(&before);
        self.drop_dead(&mut machine);
        let outcome = change(&mut machine);
        if outcome.is_ok() && machine != *before {
            self.write(&machine)?;
        }
        Ok(outcome)
    }

    /// The machine now, without the processes that died.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn read_live(&self) -> Result<Arc<Machine>, StateError> {
        let machine = self.read()?;
        let locked = |(process, _): (&Process, _)| process.lock.is_some();
        if !machine.gpus.iter().any(|gpu| gpu.all_processes().any(locked)) {
            return Ok(machine);
        }
        let mut live = Machine::clone(&machine);
        self.drop_dead(&mut live);
        Ok(Arc::new(live))
    }

    fn drop_dead(&self, machine: &mut Machine) {
        for gpu in &mut machine.gpus {
            gpu.retain_processes(|process| {
                process.lock.as_ref().is_none_or(|name| self.is_held(name))
            });
        }
    }

    /// Whether somebody has locked this file of the folder. One that is not there is held by nobody.
    fn is_held(&self, name: &str) -> bool {
        let Ok(file) = File::open(self.folder().join(name)) else { return false };
        flock(&file, FlockOperation::NonBlockingLockShared).is_err()
    }

    fn write(&self, machine: &Machine) -> Result<(), StateError> {
        let bytes = serde_json::to_vec_pretty(machine).map_err(|source| StateError::Decode {
            path: self.path.clone(),
            source: DecodeError::Json(source),
        })?;
        let new = self.beside(".new");
        fs::write(&new, bytes).map_err(|source| self.io("write the next", source))?;
        fs::rename(&new, &self.path).map_err(|source| self.io("replace", source))
    }

    fn io(&self, operation: &'static str, source: io::Error) -> StateError {
        StateError::Io { operation, path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::code::Code;
    use crate::model::events::XID;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path().join("state.json"));
        (folder, store)
    }

    #[test]
    fn a_change_is_seen_by_another_store_and_a_refused_one_is_not() {
        let (_folder, store) = store();
        let other = Store::at(store.path());
        assert_eq!(*other.read().unwrap(), Machine::standard());
        let id = store.update(|machine| {
            let gpu = machine.gpu_mut(0)?;
            gpu.set_mig_mode(true)?;
            gpu.create_instance(9, None)
        });
        assert_eq!(id.unwrap(), Ok(2));
        assert_eq!(other.read().unwrap().gpus[0].instances[0].start, 4);
        let refused: Result<(), Code> = store
            .update(|machine| {
                machine.report(0, XID, 79, None)?;
                Err(Code::IN_USE)
            })
            .unwrap();
        assert_eq!(refused, Err(Code::IN_USE));
        assert_eq!(other.read().unwrap().sequence, 0);
    }

    #[test]
    fn a_process_is_gone_when_its_lock_is() {
        let (folder, store) = store();
        let lock = File::create(folder.path().join("holder")).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        let process = Process {
            pid: 1,
            name: "cuda".into(),
            kind: crate::model::ProcessKind::Compute,
            memory_mib: 512,
            lock: Some("holder".into()),
        };
        store.update(|machine| machine.gpu_mut(0)?.add_process(None, process)).unwrap().unwrap();
        assert_eq!(store.read_live().unwrap().gpus[0].used_mib(None), 512);
        drop(lock);
        assert_eq!(store.read_live().unwrap().gpus[0].used_mib(None), 0);
        store.update(|machine| machine.gpu_mut(0)?.reset()).unwrap().unwrap();
    }

    #[test]
    fn a_file_that_is_cut_short_or_impossible_is_refused_by_name() {
        let (_folder, store) = store();
        let whole = serde_json::to_vec(&Machine::standard()).unwrap();
        fs::write(store.path(), &whole[..whole.len() / 2]).unwrap();
        assert!(matches!(store.read(), Err(StateError::Decode { .. })));
        let mut twins = Machine::standard();
        twins.gpus[1].uuid = twins.gpus[0].uuid.clone();
        fs::write(store.path(), serde_json::to_vec(&twins).unwrap()).unwrap();
        let error = store.read().unwrap_err();
        assert!(matches!(
            error,
            StateError::Decode { source: DecodeError::Impossible(Impossible::Twin(_)), .. }
        ));
    }

    #[test]
    fn a_state_survives_being_written_and_read() {
        let mut machine = Machine::standard();
        let gpu = machine.gpu_mut(1).unwrap();
        gpu.set_mig_mode(true).unwrap();
        let id = gpu.create_instance(14, None).unwrap();
        gpu.create_compute(id, 1, None).unwrap();
        machine.report(1, XID, 31, Some((id, 0))).unwrap();
        assert_eq!(decode(&serde_json::to_vec(&machine).unwrap()).unwrap(), machine);
    }

    /// A state with one number or word replaced: close to the real thing, unlike random bytes.
    fn nearly_a_state() -> impl Strategy<Value = Vec<u8>> {
        let mut machine = Machine::standard();
        let gpu = &mut machine.gpus[0];
        gpu.set_mig_mode(true).unwrap();
        let id = gpu.create_instance(9, None).unwrap();
        gpu.create_compute(id, 2, None).unwrap();
        let bytes = serde_json::to_vec(&machine).unwrap();
        let length = bytes.len();
        prop::collection::vec((0..length, any::<u8>()), 1..4).prop_map(move |changes| {
            let mut bytes = bytes.clone();
            for (at, byte) in changes {
                bytes[at] = if byte < 128 { b'0' + byte % 10 } else { byte };
            }
            bytes
        })
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn a_damaged_state_is_refused_or_possible(bytes in nearly_a_state()) {
            if let Ok(machine) = decode(&bytes) {
                prop_assert_eq!(machine.check(), Ok(()));
            }
        }
    }
}
