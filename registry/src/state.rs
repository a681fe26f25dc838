//! What every part of the registry shares.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use bulkhead_api::id::{HostId, SiteName};
use bulkhead_api::status::HostStatus;
use tokio::sync::{Notify, mpsc, watch};

use crate::link::sessions::Sessions;
use crate::presence::Presence;
use crate::signer::client::SignerClient;
use crate::store::Store;
use crate::token::TokenHash;

/// Reports that wait for the store; a site that sends more is held back by its stream.
const REPORTS: usize = 4096;

/// A host's report on its way into the store.
#[derive(Debug)]
pub struct Report {
    /// The site that passed it on.
    pub site: SiteName,
    /// What the host said.
    pub status: HostStatus,
}

/// The registry.
#[derive(Debug)]
pub struct Registry {
    /// What it remembers.
    pub store: Store,
    /// Who signs.
    pub signer: SignerClient,
    /// Who is connected.
    pub presence: Presence,
    /// Streams of sites.
    pub sessions: Sessions,
    /// Hosts whose spec may have to change.
    pub unsigned: Unsigned,
    /// Where reports go; see [`crate::ingest`].
    pub reports: mpsc::Sender<Report>,
    /// What the admin's bearer token is compared with.
    pub admin: TokenHash,
    changes: watch::Sender<u64>,
    stopping: watch::Sender<bool>,
}

impl Registry {
    /// With the end of the channel that [`crate::ingest::run`] reads.
    #[must_use]
    pub fn new(
        store: Store,
        signer: SignerClient,
        admin: TokenHash,
    ) -> (Self, mpsc::Receiver<Report>) {
        let (reports, receiver) = mpsc::channel(REPORTS);
        let registry = Self {
            store,
            signer,
            presence: Presence::default(),
            sessions: Sessions::default(),
            unsigned: Unsigned::default(),
            reports,
            admin,
            changes: watch::Sender::new(0),
            stopping: watch::Sender::new(false),
        };
        (registry, receiver)
    }

    /// Some document may be another one now.
    pub fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Tells when documents may have changed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Ends every stream.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Ends when the registry stops.
    #[must_use]
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }
}

/// Waits for [`Registry::stop`].
pub async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error means that the registry itself is gone.
    drop(stopping.wait_for(|stop| *stop).await);
}

/// Hosts whose spec may have to change, each once.
#[derive(Debug, Default)]
pub struct Unsigned {
    hosts: Mutex<BTreeSet<HostId>>,
    added: Notify,
}

impl Unsigned {
    /// What is wanted of a host may have changed.
    pub fn add(&self, host: &HostId) {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner).insert(host.clone());
        self.added.notify_one();
    }

    /// Waits until there are some and takes them.
    pub async fn take(&self) -> BTreeSet<HostId> {
        loop {
            let taken =
                std::mem::take(&mut *self.hosts.lock().unwrap_or_else(PoisonError::into_inner));
            if !taken.is_empty() {
                return taken;
            }
            self.added.notified().await;
        }
    }
}
