//! Work on resources beside the loop, each in a thread of its own: what takes hours, or never ends because a disk
//! does not answer, holds up nobody else.
//!
//! ```text
//!  Step::Attach, Sanitise ─► thread: Class::attach, erase ─► ended, wakes the loop ─► taken by the step, planned again
//!                    └─ under way: Outcome::Pending       └─ no progress for STALLED: told, and still under way
//! ```
//!
//! There is one work on a resource at a time, and one erase of a pool, or of a class that has no devices. The threads are
//! not of the runtime's pool, which those that hang would use up, and whose end a supervisor that stops would wait for.
//! Such a supervisor takes them along: nothing is recorded before the step takes what ended, so it all begins again.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bulkhead_api::id::LeaseId;
use bulkhead_api::resource::{Resource, ResourceClass};
use bulkhead_api::time::Timestamp;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use crate::class::{Class, ClassError, Erased, Order, Progress};
use crate::tenant::error::StepError;
use crate::tenant::model::{Deed, UnderWay};

/// A work without progress for so long is told as one that hangs.
pub const STALLED: Duration = Duration::from_secs(600);

/// A work that is older is not waited for: it wakes the loop.
const YOUNG: Duration = Duration::from_millis(1500);

/// Longest name of a thread (pthread_setname_np(3)).
const NAME: usize = 15;

/// Runs something in a thread of its own, which may never end. What it returns comes after `wake` was notified at the
/// latest; nothing does where it panics.
///
/// # Errors
/// The kernel gives no thread.
pub fn aside<T: Send + 'static>(
    name: &str,
    wake: Option<Arc<Notify>>,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<oneshot::Receiver<T>> {
    struct Wakes(Option<Arc<Notify>>);
    impl Drop for Wakes {
        fn drop(&mut self) {
            if let Some(wake) = &self.0 {
                wake.notify_one();
            }
        }
    }
    let (sender, receiver) = oneshot::channel();
    let name: String = name.chars().take(NAME).collect();
    let wakes = Wakes(wake);
    thread::Builder::new().name(name).spawn(move || {
        // Dropped in this order: first it is said, then it is woken.
        let wakes = wakes;
        // Who asked may be gone.
        let _ = sender.send(work());
        drop(wakes);
    })?;
    Ok(receiver)
}

/// How a work went.
#[derive(Debug)]
pub struct Finished {
    /// What was seen; of an attach, nothing.
    pub result: Result<Erased, ClassError>,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
}

#[derive(Debug)]
enum State {
    Running(oneshot::Receiver<(Result<Erased, ClassError>, Timestamp)>),
    Ended(Result<Erased, ClassError>, Timestamp),
}

#[derive(Debug)]
struct Work {
    deed: Deed,
    started: Timestamp,
    begun: Instant,
    progress: Progress,
    /// Bytes that were done when it was seen to go on last, and when that was.
    last: (u64, Instant, Timestamp),
    state: State,
}

/// What must not go on at the same time.
#[derive(Debug, PartialEq, Eq)]
enum Lane<'a> {
    /// A disk is not faster for two.
    Pool(&'a str),
    Class(ResourceClass),
    /// Nobody else is in the way.
    Own,
}

fn lane(resource: &Resource) -> Lane<'_> {
    match resource {
        Resource::Volume { pool, .. } => Lane::Pool(pool),
        Resource::Hugepages { .. }
        | Resource::Gpu(_)
        | Resource::Device { .. }
        | Resource::Disk { .. } => Lane::Own,
        Resource::Instance
        | Resource::Cpu { .. }
        | Resource::Memory { .. }
        | Resource::Cache { .. } => Lane::Class(resource.class()),
    }
}

type Key = (LeaseId, Resource);

/// What is being done, and what ended and was not taken yet.
#[derive(Debug)]
pub struct Beside {
    works: BTreeMap<Key, Work>,
    wake: Arc<Notify>,
    stalled: Duration,
}

impl Beside {
    /// Nothing. `wake` is notified when something ends.
    #[must_use]
    pub const fn new(wake: Arc<Notify>) -> Self {
        Self { works: BTreeMap::new(), wake, stalled: STALLED }
    }

    /// What is going on now.
    pub fn under_way(&self) -> impl Iterator<Item = UnderWay> {
        self.works.iter().filter(|(_, work)| matches!(work.state, State::Running(_))).map(
            |((lease, resource), work)| {
                let (done, total) = work.progress.read();
                let (lease, resource) = (lease.clone(), resource.clone());
                UnderWay { lease, resource, deed: work.deed, since: work.started, done, total }
            },
        )
    }

    /// Erases whose end nobody took yet, or that are under way.
    pub fn erases(&self) -> impl Iterator<Item = &Key> {
        self.works.iter().filter(|(_, work)| work.deed == Deed::Erase).map(|(key, _)| key)
    }

    /// Notes what ended, and forgets of it what nobody will ask for: what was attached is seen where it is, and erases
    /// of what is not dirty any more.
    pub fn reap(&mut self, dirty: impl Fn(&LeaseId, &Resource) -> bool) {
        self.works.retain(|(lease, resource), work| {
            work.settle();
            match (&work.state, work.deed) {
                (State::Running(_), _) | (State::Ended(Err(_), _), Deed::Attach) => true,
                (State::Ended(Ok(_), _), Deed::Attach) => false,
                (State::Ended(..), Deed::Erase) => dirty(lease, resource),
            }
        });
    }

    /// Begins a work, goes on waiting for it until `patience` ends, and takes its end; `None` while it is under way.
    ///
    /// # Errors
    /// [`StepError::Silent`] where it, or what is in its way, makes no progress; [`StepError::Class`] where no thread
    /// can be had.
    pub async fn turn(
        &mut self,
        deed: Deed,
        class: Arc<dyn Class>,
        order: Order,
        patience: Instant,
    ) -> Result<Option<Finished>, StepError> {
        let key = (order.lease.clone(), order.resource.clone());
        let other = self.works.get(&key).is_some_and(|work| work.deed != deed);
        if other {
            if !self.ended(&key, patience).await {
                return self.silent(&key).map(|()| None);
            }
            // How it ended matters to nobody: what is there is what counts.
            self.works.remove(&key);
        }
        if !self.works.contains_key(&key) {
            if let Some(before) = self.in_the_way(deed, &key) {
                return self.silent(&before).map(|()| None);
            }
            let work = self.start(deed, class, order)?;
            self.works.insert(key.clone(), work);
        }
        if !self.ended(&key, patience).await {
            return self.silent(&key).map(|()| None);
        }
        Ok(self.works.remove(&key).and_then(Work::finished))
    }

    fn start(&self, deed: Deed, class: Arc<dyn Class>, order: Order) -> Result<Work, StepError> {
        let (started, begun, progress) = (Timestamp::now(), Instant::now(), order.progress.clone());
        let resource = order.resource.clone();
        let work = move || {
            let result = match deed {
                Deed::Attach => class.attach(&order).map(|()| Erased::default()),
                Deed::Erase => class.erase(&order),
            };
            (result, Timestamp::now())
        };
        let name = format!("{deed}-{}", resource.class());
        let ended = aside(&name, Some(Arc::clone(&self.wake)), work).map_err(|error| {
            StepError::Class(ClassError::Refused {
                doing: format!("have a thread for {resource}"),
                why: error.to_string(),
            })
        })?;
        let (last, state) = ((0, begun, started), State::Running(ended));
        Ok(Work { deed, started, begun, progress, last, state })
    }

    /// Waits for a work, unless it is known to take long.
    async fn ended(&mut self, key: &Key, patience: Instant) -> bool {
        let Some(work) = self.works.get_mut(key) else { return true };
        if let State::Running(ended) = &mut work.state {
            let until = patience.min(work.begun + YOUNG);
            if let Ok(said) = timeout_at(until, ended).await {
                work.end(said.ok());
            }
        }
        matches!(work.state, State::Ended(..))
    }

    /// What goes on where this would, if it must not go on beside it.
    fn in_the_way(&mut self, deed: Deed, key: &Key) -> Option<Key> {
        let own = lane(&key.1);
        if deed == Deed::Attach || own == Lane::Own {
            return None;
        }
        let busy = |(other, work): (&Key, &mut Work)| {
            work.settle();
            let running = matches!(work.state, State::Running(_));
            let same = work.deed == Deed::Erase && lane(&other.1) == own;
            (running && same).then(|| other.clone())
        };
        self.works.iter_mut().find_map(busy)
    }

    /// An error where a work makes no progress.
    fn silent(&mut self, key: &Key) -> Result<(), StepError> {
        let Some(work) = self.works.get_mut(key) else { return Ok(()) };
        match work.silent_since(self.stalled) {
            None => Ok(()),
            Some(since) => {
                let ((lease, resource), deed) = (key.clone(), work.deed);
                warn!(%lease, %resource, %deed, %since, "no progress");
                Err(StepError::Silent { deed, lease, resource: Box::new(resource), since })
            }
        }
    }
}

impl Work {
    /// Sees whether it ended.
    fn settle(&mut self) {
        if let State::Running(ended) = &mut self.state {
            match ended.try_recv() {
                Ok(said) => self.end(Some(said)),
                Err(oneshot::error::TryRecvError::Closed) => self.end(None),
                Err(oneshot::error::TryRecvError::Empty) => {}
            }
        }
    }

    /// A thread that says nothing panicked.
    fn end(&mut self, said: Option<(Result<Erased, ClassError>, Timestamp)>) {
        let (result, finished) = said.unwrap_or_else(|| {
            let (doing, why) = (self.deed.to_string(), "its thread broke".to_owned());
            (Err(ClassError::Refused { doing, why }), Timestamp::now())
        });
        self.state = State::Ended(result, finished);
    }

    fn finished(self) -> Option<Finished> {
        match self.state {
            State::Running(_) => None,
            State::Ended(result, finished) => {
                Some(Finished { result, started: self.started, finished })
            }
        }
    }

    fn silent_since(&mut self, stalled: Duration) -> Option<Timestamp> {
        let (done, _) = self.progress.read();
        let (before, at, since) = self.last;
        if done != before {
            self.last = (done, Instant::now(), Timestamp::now());
            return None;
        }
        (at.elapsed() >= stalled).then_some(since)
    }
}

#[cfg(test)]
#[path = "beside_tests.rs"]
mod tests;
