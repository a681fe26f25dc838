//! One thread has the library open and does one call at a time; whoever asks waits so long and no longer.
//!
//! ```text
//!  class, inventory, health ─► Nvml::ask(gpu, call, …) ─► thread: Session ─► answer
//!                                    │ no answer in time
//!                                    └─► the GPU is suspect until the call comes back; the next call has a new thread
//! ```
//!
//! A call that hangs in the kernel cannot be cancelled. Its thread is left with it, and with a session of its own: NVML counts
//! how often it was initialised.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::warn;

use super::error::GpuError;
use super::session::Session;

/// No call of NVML takes so long where the GPU is well; creating instances takes up to a few seconds.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// The library itself, in place of a GPU's address.
pub const LIBRARY: &str = "(library)";

type Work = Box<dyn FnOnce(&mut Option<Session>) + Send>;

/// A call that did not come back.
#[derive(Debug)]
struct Stuck {
    call: &'static str,
    back: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct Owner {
    /// To the thread; absent before the first call, and after one that did not come back.
    thread: Option<Sender<Work>>,
    suspects: BTreeMap<String, Stuck>,
}

/// The library of a host.
#[derive(Debug)]
pub struct Nvml {
    path: PathBuf,
    deadline: Duration,
    /// Held through each call: nobody waits behind a call that hangs for longer than its deadline.
    owner: Mutex<Owner>,
}

impl Nvml {
    /// A library that is opened when it is needed.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self::with_deadline(path, DEADLINE)
    }

    /// The same with another deadline for each call.
    #[must_use]
    pub fn with_deadline(path: &Path, deadline: Duration) -> Self {
        Self { path: path.to_owned(), deadline, owner: Mutex::default() }
    }

    /// Where the library is looked for.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// PCI addresses of all GPUs, and of those that do not answer why not.
    ///
    /// # Errors
    /// What keeps the library from being opened.
    pub fn listed(&self) -> Result<Vec<Result<String, GpuError>>, GpuError> {
        let count = self.ask(LIBRARY, "nvmlDeviceGetCount_v2", Session::count)?;
        let address = |index: u32| {
            let name = format!("number {index}");
            self.ask(&name, "nvmlDeviceGetPciInfo_v3", move |session| session.address(index))
        };
        Ok((0..count).map(address).collect())
    }

    /// Does something with an open library, for one GPU.
    ///
    /// # Errors
    /// What the work says; [`GpuError::Silent`] and [`GpuError::Suspect`] where the GPU does not answer; what keeps the library
    /// from being opened.
    pub fn ask<T: Send + 'static>(
        &self,
        gpu: &str,
        call: &'static str,
        work: impl FnOnce(&mut Session) -> Result<T, GpuError> + Send + 'static,
    ) -> Result<T, GpuError> {
        let mut owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner);
        owner.suspects.retain(|_, stuck| !stuck.back.load(Ordering::Acquire));
        if let Some(stuck) = owner.suspects.get(gpu) {
            return Err(GpuError::Suspect { gpu: gpu.to_owned(), call: stuck.call });
        }
        let (answer, answered) = mpsc::channel();
        let back = Arc::new(AtomicBool::new(false));
        let (path, done) = (self.path.clone(), Arc::clone(&back));
        let job = move |session: &mut Option<Session>| {
            let result = with_session(session, &path, work);
            done.store(true, Ordering::Release);
            // Who asked may not wait any more.
            let _ = answer.send(result);
        };
        let thread = match owner.thread.take() {
            Some(thread) => thread,
            None => start()?,
        };
        let broke = || GpuError::Thread("it ended".to_owned());
        thread.send(Box::new(job)).map_err(|_| broke())?;
        match answered.recv_timeout(self.deadline) {
            Ok(result) => {
                owner.thread = Some(thread);
                result
            }
            Err(RecvTimeoutError::Disconnected) => Err(broke()),
            Err(RecvTimeoutError::Timeout) => {
                warn!(gpu, call, "a call of NVML does not come back");
                owner.suspects.insert(gpu.to_owned(), Stuck { call, back });
                Err(GpuError::Silent { call, gpu: gpu.to_owned(), after: self.deadline })
            }
        }
    }
}

/// Opens the library where it is not open, and closes it where what it knew is of another time.
fn with_session<T>(
    session: &mut Option<Session>,
    path: &Path,
    work: impl FnOnce(&mut Session) -> Result<T, GpuError>,
) -> Result<T, GpuError> {
    let open = match session {
        Some(open) => open,
        None => session.insert(Session::open(path)?),
    };
    let result = work(open);
    if result.as_ref().is_err_and(GpuError::ends_session) {
        *session = None;
    }
    result
}

fn start() -> Result<Sender<Work>, GpuError> {
    let (sender, works) = mpsc::channel::<Work>();
    let run = move || {
        let mut session = None;
        for work in works {
            work(&mut session);
        }
    };
    let started = thread::Builder::new().name("nvml".to_owned()).spawn(run);
    started.map(|_| sender).map_err(|error| GpuError::Thread(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_the_library_says_so_and_is_asked_again() {
        let nvml = Nvml::new(Path::new("/nonexistent/libnvidia-ml.so.1"));
        for _ in 0..2 {
            let error = nvml.ask(LIBRARY, "count", Session::count).unwrap_err();
            assert!(matches!(&error, GpuError::NoLibrary { .. }), "{error}");
        }
    }
}
