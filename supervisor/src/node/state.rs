//! What the node knows. Plain data: the loop writes it, [`super::report`] reads it.

use bulkhead_api::id::{HostId, SiteName};
use bulkhead_api::inventory::Inventory;
use bulkhead_api::time::Timestamp;

use super::acceptance::{Accepted, Clock};
use crate::metal::model::View;
use crate::proof::Round;
use crate::tenant::Pass;

/// Why something is not as it should be, and when it is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// One word.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
    /// Who has to act next.
    pub owner: &'static str,
    /// When it is tried again; absent where only somebody's act helps.
    pub next: Option<Timestamp>,
}

/// The stream to the site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// Not tried to its end yet.
    Starting,
    /// Open.
    Up,
    /// Not open.
    Down(Trouble),
}

/// The tenants' domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Domain {
    /// Not looked at yet.
    Starting,
    /// Looked at; grants and takes back.
    Open,
    /// Grants and takes back nothing.
    Closed(Trouble),
}

/// Where the ledger, the accepted spec and the receipts are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Home {
    /// On a disk: the message says which.
    Disk(String),
    /// In memory, with the reason: a reboot forgets them.
    Memory(String),
    /// On a disk that cannot be used: nothing is granted or taken back.
    Closed(Trouble),
}

/// Everything that a report is made of.
#[derive(Debug, Clone)]
pub struct State {
    /// This host; absent until enrolled.
    pub host: Option<HostId>,
    /// Its site; absent until enrolled.
    pub site: Option<SiteName>,
    /// Counts boots; 0 where stage 1 left no facts.
    pub boot: u64,
    /// Start of the host's certificate.
    pub certified: Option<Timestamp>,
    /// The spec in force.
    pub accepted: Option<Accepted>,
    /// Why the spec offered last, or kept from before, was not taken.
    pub refused: Option<Trouble>,
    /// Generation whose every lease was read back as wanted.
    pub settled_generation: u64,
    /// The stream.
    pub link: Link,
    /// Why the certificate has no successor though half of its time is over.
    pub not_renewed: Option<Trouble>,
    /// Where what must not be forgotten is.
    pub home: Home,
    /// The tenants.
    pub domain: Domain,
    /// The last pass over them.
    pub pass: Pass,
    /// What the last look at the isolation of leases found; absent before the first.
    pub isolation: Option<Round>,
    /// The hardware, as it was read last.
    pub inventory: Inventory,
    /// It is being read again, and does not answer.
    pub hardware_hangs: bool,
    /// CPU time of user space at readiness.
    pub userspace_start_ms: u64,
    /// The host as a whole: who gets it, whom it comes back from.
    pub whole: View,
}

impl State {
    /// At the start of the supervisor.
    #[must_use]
    pub fn new(boot: u64, inventory: Inventory) -> Self {
        Self {
            host: None,
            site: None,
            boot,
            certified: None,
            accepted: None,
            refused: None,
            settled_generation: 0,
            link: Link::Starting,
            not_renewed: None,
            home: Home::Memory("no disk was looked at".to_owned()),
            domain: Domain::Starting,
            pass: Pass::default(),
            isolation: None,
            inventory,
            hardware_hangs: false,
            userspace_start_ms: 0,
            whole: View::default(),
        }
    }

    /// Generation of the spec in force; 0 = none.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.accepted.as_ref().map_or(0, |accepted| accepted.spec.generation)
    }

    /// What is known of the time.
    #[must_use]
    pub fn clock(&self, system: Timestamp) -> Clock {
        let spec = self.accepted.as_ref().map(|accepted| accepted.spec.not_before);
        Clock { system, certified: self.certified.max(spec) }
    }
}
