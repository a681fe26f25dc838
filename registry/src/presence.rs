//! Who is connected now and when it was last heard: in memory, as it changes with every message.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bulkhead_api::id::{HostId, SiteName};
use bulkhead_api::time::Timestamp;

/// A host's stream, as its site told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostLink {
    /// Open, in this boot of the host; 0 while it has not said which.
    Open {
        /// Counts boots of the host up.
        boot: u64,
    },
    /// Ended.
    Ended,
}

/// What is known of a host's stream since the registry started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostLive {
    /// Last message of the host, or about its stream.
    pub seen: Timestamp,
    /// Its stream.
    pub link: HostLink,
}

/// What is known of a site's stream since the registry started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SiteLive {
    /// Last message of the site.
    pub seen: Timestamp,
    /// Its stream is open.
    pub connected: bool,
}

/// Why a host's spec is not signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// One word.
    pub reason: &'static str,
    /// One sentence.
    pub message: String,
    /// Since when.
    pub since: Timestamp,
    /// When it is tried again.
    pub next_retry: Timestamp,
}

/// A moment's picture.
#[derive(Debug, Clone, Default)]
pub struct Live {
    /// Sites heard since the start.
    pub sites: BTreeMap<SiteName, SiteLive>,
    /// Hosts heard since the start.
    pub hosts: BTreeMap<HostId, HostLive>,
    /// Hosts whose spec could not be signed at the last try.
    pub signing: BTreeMap<HostId, Trouble>,
}

/// The picture that changes.
#[derive(Debug, Default)]
pub struct Presence(Mutex<Live>);

impl Presence {
    fn live(&self) -> MutexGuard<'_, Live> {
        // Each change is one assignment: a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of it.
    #[must_use]
    pub fn snapshot(&self) -> Live {
        self.live().clone()
    }

    /// A message of a site arrived, or its stream opened or ended.
    pub fn site(&self, site: &SiteName, connected: bool, seen: Timestamp) {
        self.live().sites.insert(site.clone(), SiteLive { seen, connected });
    }

    /// A host opened its stream. `true` if that changed anything.
    pub fn opened(&self, host: &HostId, boot: u64, seen: Timestamp) -> bool {
        let link = HostLink::Open { boot };
        let before = self.live().hosts.insert(host.clone(), HostLive { seen, link });
        before.map(|before| before.link) != Some(link)
    }

    /// A message of a host arrived.
    pub fn heard(&self, host: &HostId, seen: Timestamp) {
        let mut live = self.live();
        let known = live.hosts.entry(host.clone());
        let link = HostLink::Open { boot: 0 };
        let known = known.or_insert(HostLive { seen, link });
        known.seen = seen;
        if known.link == HostLink::Ended {
            known.link = link;
        }
    }

    /// A host's stream ended.
    pub fn ended(&self, host: &HostId, seen: Timestamp) {
        self.live().hosts.insert(host.clone(), HostLive { seen, link: HostLink::Ended });
    }

    /// A host is forgotten.
    pub fn forget(&self, host: &HostId) {
        let mut live = self.live();
        live.hosts.remove(host);
        live.signing.remove(host);
    }

    /// Whether a host's spec could be signed. `true` if that changed anything.
    pub fn signing(&self, host: &HostId, trouble: Option<Trouble>) -> bool {
        let mut live = self.live();
        match trouble {
            None => live.signing.remove(host).is_some(),
            Some(mut trouble) => {
                if let Some(before) = live.signing.get(host) {
                    trouble.since = before.since;
                }
                live.signing.insert(host.clone(), trouble);
                true
            }
        }
    }
}
