//! What every exported function does first, and the state of this process.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::events::EventSet;
use crate::code::Code;
use crate::model::Machine;
use crate::state::{StateError, Store};

/// The state of this process.
pub(super) struct Library {
    /// `nvmlInit` less `nvmlShutdown`.
    pub(super) users: u32,
    /// [`crate::model::Driver::load`] when it was initialised last.
    pub(super) load: u32,
    pub(super) store: Option<Arc<Store>>,
    /// By handle; freed ones are empty.
    pub(super) event_sets: Vec<Option<Arc<EventSet>>>,
}

pub(super) static LIBRARY: Mutex<Library> =
    Mutex::new(Library { users: 0, load: 0, store: None, event_sets: Vec::new() });

pub(super) fn with_library<T>(act: impl FnOnce(&mut Library) -> T) -> T {
    act(&mut LIBRARY.lock().unwrap_or_else(PoisonError::into_inner))
}

/// One call of an initialised library.
pub(super) struct Call {
    pub(super) store: Arc<Store>,
    pub(super) machine: Arc<Machine>,
}

impl Call {
    /// Changes the machine; what is refused changes nothing.
    pub(super) fn update<T>(
        &self,
        change: impl FnOnce(&mut Machine) -> Result<T, Code>,
    ) -> Result<T, Code> {
        self.store.update(change).map_err(|error| unreadable(&error))?
    }

    /// The machine without processes that died.
    pub(super) fn live(&self) -> Result<Arc<Machine>, Code> {
        self.store.read_live().map_err(|error| unreadable(&error))
    }
}

/// A broken state file is the simulator's "unknown error"; the reason goes to standard error, once a
/// call, where whoever broke it will look.
pub(super) fn unreadable(error: &StateError) -> Code {
    use std::error::Error as _;
    match error.source() {
        Some(source) => eprintln!("nvml simulator: {error}: {source}"),
        None => eprintln!("nvml simulator: {error}"),
    }
    Code::UNKNOWN
}

/// Runs an exported function.
pub(super) fn call(name: &str, act: impl FnOnce(&Call) -> Result<(), Code>) -> u32 {
    guard(|| {
        let (store, load) = with_library(|library| {
            let store = library.store.clone().filter(|_| library.users > 0);
            store.map(|store| (store, library.load)).ok_or(Code::UNINITIALIZED)
        })?;
        let machine = enter(name, &store)?;
        // The driver that this process opened is gone, whatever was loaded since.
        if machine.driver.load != load {
            return Err(Code::DRIVER_NOT_LOADED);
        }
        act(&Call { store, machine })
    })
}

/// Latency, injected faults and whether there is a driver; also for `nvmlInit`.
pub(super) fn enter(name: &str, store: &Store) -> Result<Arc<Machine>, Code> {
    let mut machine = store.read().map_err(|error| unreadable(&error))?;
    let latency = machine.latency(name);
    if latency > 0 {
        std::thread::sleep(Duration::from_micros(latency));
    }
    if machine.failures.iter().any(|failure| failure.function == name) {
        let failed = store.update(|machine| Ok::<_, Code>(machine.failure(name)));
        if let Some(code) = failed.map_err(|error| unreadable(&error))?? {
            return Err(code);
        }
        machine = store.read().map_err(|error| unreadable(&error))?;
    }
    if machine.driver.loaded { Ok(machine) } else { Err(Code::DRIVER_NOT_LOADED) }
}

/// Turns results into NVML's numbers, and a panic into its "unknown error".
pub(super) fn guard(act: impl FnOnce() -> Result<(), Code>) -> u32 {
    match catch_unwind(AssertUnwindSafe(act)) {
        Ok(Ok(())) => 0,
        Ok(Err(code)) => code.0,
        Err(_) => Code::UNKNOWN.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_the_unknown_error() {
        assert_eq!(guard(|| panic!("inside")), 999);
        assert_eq!(guard(|| Err(Code::IN_USE)), 19);
        assert_eq!(guard(|| Ok(())), 0);
    }
}
