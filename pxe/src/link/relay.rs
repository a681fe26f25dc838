//! Who is attached, and what of it the registry does not know yet.
//!
//! ```text
//!   host stream ──up──► HostLine { latest hello, latest status, answers } ──take──► uplink
//!   host stream ◄─queue── HostLine ◄──down── uplink
//! ```
//!
//! Of a status only the latest is kept: a slow or absent registry costs no memory and delays no host.
//! A new connection to the registry ([`Relay::connected`]) makes everything due again, and ends what an
//! older connection would still take.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bulkhead_api::id::HostId;
use bulkhead_api::link::rpc::{Answer, Detached, Down, Up, up};
use bytes::Bytes;
use tokio::sync::{mpsc, watch};

/// Messages on their way to one host. A host that lets so many wait is not reading.
const DOWN_QUEUE: usize = 16;
/// Answers of one host that wait for the registry; older ones nobody waits for any more.
const ANSWER_QUEUE: usize = 16;

/// What a host says that may be passed on.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum HostSays {
    Hello(Bytes),
    Status(Bytes),
    Answer(Answer),
}

/// Why a message did not reach its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotDelivered {
    #[error("host has no stream here")]
    NotAttached,
    #[error("host lets {DOWN_QUEUE} messages wait: its stream is ended")]
    NotReading,
}

/// What an uplink finds when it looks.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Taken {
    /// Send this.
    Message(Up),
    /// Everything is sent; wait for news.
    Nothing,
    /// A newer connection took over: this one is to end.
    Superseded,
}

#[derive(Debug, Default)]
struct HostLine {
    /// Which stream of the host this is; 0 = it has ended.
    serial: u64,
    down: Option<mpsc::Sender<Down>>,
    hello: Option<Bytes>,
    status: Option<Bytes>,
    hello_due: bool,
    status_due: bool,
    detached_due: bool,
    /// The registry was told, or is about to be told, of a stream of this host.
    announced: bool,
    answers: VecDeque<Answer>,
}

#[derive(Debug, Default)]
struct Inner {
    hosts: BTreeMap<HostId, HostLine>,
    last_serial: u64,
    connection: u64,
    /// The host that was served last: the next one goes first.
    last_taken: Option<HostId>,
}

/// The relay of a site.
#[derive(Debug)]
pub(super) struct Relay {
    inner: Mutex<Inner>,
    news: watch::Sender<u64>,
}

impl Relay {
    pub(super) fn new() -> Self {
        Self { inner: Mutex::default(), news: watch::Sender::new(0) }
    }

    /// Opens a stream of `host`; an older one of the same host ends. Gives the stream's number.
    pub(super) fn attach(&self, host: &HostId) -> (u64, mpsc::Receiver<Down>) {
        let (down, queue) = mpsc::channel(DOWN_QUEUE);
        let mut inner = self.lock();
        inner.last_serial += 1;
        let serial = inner.last_serial;
        let announced = inner.hosts.get(host).is_some_and(|line| line.announced);
        let line = HostLine { serial, down: Some(down), announced, ..HostLine::default() };
        inner.hosts.insert(host.clone(), line);
        (serial, queue)
    }

    /// A host's stream ended; tells the registry so unless a newer stream took over.
    pub(super) fn detach(&self, host: &HostId, serial: u64) {
        let mut inner = self.lock();
        let Some(line) = inner.hosts.get_mut(host).filter(|line| line.serial == serial) else {
            return;
        };
        // Of a host that never said hello the registry knows nothing.
        let announced = line.announced;
        *line = HostLine { detached_due: announced, announced, ..HostLine::default() };
        drop(inner);
        self.tell();
    }

    /// Takes what a host says on stream `serial`; `false` when a newer stream took over.
    pub(super) fn up(&self, host: &HostId, serial: u64, says: HostSays) -> bool {
        let mut inner = self.lock();
        let Some(line) = inner.hosts.get_mut(host).filter(|line| line.serial == serial) else {
            return false;
        };
        match says {
            HostSays::Hello(json) => {
                (line.hello, line.hello_due, line.announced) = (Some(json), true, true);
            }
            HostSays::Status(json) => (line.status, line.status_due) = (Some(json), true),
            HostSays::Answer(answer) => {
                if line.answers.len() >= ANSWER_QUEUE {
                    line.answers.pop_front();
                }
                line.answers.push_back(answer);
            }
        }
        drop(inner);
        self.tell();
        true
    }

    /// Passes a message on to its host.
    pub(super) fn down(&self, host: &HostId, message: Down) -> Result<(), NotDelivered> {
        let mut inner = self.lock();
        let line = inner.hosts.get_mut(host).ok_or(NotDelivered::NotAttached)?;
        let down = line.down.as_ref().ok_or(NotDelivered::NotAttached)?;
        match down.try_send(message) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(NotDelivered::NotAttached),
            Err(mpsc::error::TrySendError::Full(_)) => {
                // It comes back and is given the spec from the cache.
                line.down = None;
                Err(NotDelivered::NotReading)
            }
        }
    }

    /// The registry is there: says hello and status of every attached host again. Gives the number of
    /// the connection and a receiver that tells when [`Relay::take`] has something.
    pub(super) fn connected(&self) -> (u64, watch::Receiver<u64>) {
        let mut inner = self.lock();
        inner.connection += 1;
        // A stream that ended is unknown to a connection that never heard of it.
        inner.hosts.retain(|_, line| line.serial != 0);
        for line in inner.hosts.values_mut() {
            line.hello_due = line.hello.is_some();
            line.announced = line.hello_due;
            line.status_due = line.status.is_some();
            line.answers.clear();
        }
        let connection = inner.connection;
        drop(inner);
        self.tell();
        (connection, self.news.subscribe())
    }

    /// The next message for connection `connection`; hosts take turns.
    pub(super) fn take(&self, connection: u64) -> Taken {
        let mut inner = self.lock();
        if inner.connection != connection {
            return Taken::Superseded;
        }
        let after = inner.last_taken.take();
        let turn = |(host, line): (&HostId, &mut HostLine)| {
            line.take().map(|body| (host.clone(), Up { host: host.to_string(), body: Some(body) }))
        };
        let found = match &after {
            None => None,
            Some(last) => {
                let behind = (std::ops::Bound::Excluded(last), std::ops::Bound::Unbounded);
                inner.hosts.range_mut::<HostId, _>(behind).find_map(turn)
            }
        };
        let found = found.or_else(|| inner.hosts.iter_mut().find_map(turn));
        inner.hosts.retain(|_, line| line.serial != 0 || line.detached_due);
        match found {
            Some((host, message)) => {
                inner.last_taken = Some(host);
                Taken::Message(message)
            }
            None => Taken::Nothing,
        }
    }

    fn tell(&self) {
        self.news.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing under the lock panics half-way through a change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HostLine {
    fn take(&mut self) -> Option<up::Body> {
        if std::mem::take(&mut self.detached_due) {
            return Some(up::Body::Detached(Detached {}));
        }
        if std::mem::take(&mut self.hello_due) {
            return self.hello.clone().map(up::Body::HelloJson);
        }
        if std::mem::take(&mut self.status_due) {
            return self.status.clone().map(up::Body::StatusJson);
        }
        self.answers.pop_front().map(up::Body::Answer)
    }
}

#[cfg(test)]
mod tests;
