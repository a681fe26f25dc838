//! Tenants: leases from the host spec to running containers and back.
//!
//! ```text
//!  HostSpec ──► Desired ┐
//!  systemd, cgroupfs ──►├ plan ──► steps ──► apply ──► look again ──► Pass { leases, settled, retry }
//!  ledger ──────────────┘
//! ```

use std::future::Future;
use std::sync::Arc;

use bulkhead_api::id::LeaseId;
use bulkhead_api::inventory::Inventory;
use bulkhead_api::lease::ReportedLease;
use bulkhead_api::spec::HostSpec;
use bulkhead_api::time::Timestamp;
use tokio::sync::Notify;

use crate::host::systemd::Systemd;
use crate::ledger::{self, Ledger, LedgerError};
use crate::paths::Paths;

/// How images are pulled: the site's link, and who asks.
#[derive(Clone, PartialEq, Eq)]
pub struct SiteAccess {
    /// `address:port` of the site's link.
    pub link: String,
    /// Certificates that the site's must chain to, PEM.
    pub ca_pem: String,
    /// The host's certificate chain, leaf first, PEM.
    pub chain_pem: String,
    /// The host's PKCS#8 key, PEM.
    pub key_pem: String,
}

impl std::fmt::Debug for SiteAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SiteAccess").field("link", &self.link).finish_non_exhaustive()
    }
}

/// What one pass over the leases found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pass {
    /// Every lease that is wanted or observed; one that is not listed is gone.
    pub leases: Vec<ReportedLease>,
    /// Every wanted lease was read back as wanted and every other one observed gone.
    pub settled: bool,
    /// Run another pass at this time at the latest; [`Tenants::changed`] may ask for one before.
    pub retry: Option<Timestamp>,
    /// What was changed on the host in this pass, a sentence each.
    pub changes: Vec<String>,
}

/// Why a lease's console log cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// No such lease on this host, or it never started.
    #[error("lease {0} has no console log on this host")]
    Absent(LeaseId),
    /// The file system refuses.
    #[error("read the console log of lease {id}")]
    Read {
        /// Whose log.
        id: LeaseId,
        /// Why.
        source: std::io::Error,
    },
}

/// All leases of the host, and the ledger that remembers them.
#[derive(Debug)]
pub struct Tenants {
    paths: Paths,
    systemd: Systemd,
    /// An unusable ledger closes the domain: nothing is granted or taken back.
    ledger: Result<Ledger, LedgerError>,
    wake: Arc<Notify>,
}

impl Tenants {
    /// Reads the ledger. An unusable one is no failure here: see [`Tenants::ledger_problem`].
    #[must_use]
    pub fn open(paths: Paths, systemd: Systemd) -> Self {
        let ledger = ledger::load(&paths.ledger());
        let wake = systemd.wakeups();
        Self { paths, systemd, ledger, wake }
    }

    /// Why the ledger cannot be used; nothing is granted or taken back while it is so.
    #[must_use]
    pub fn ledger_problem(&self) -> Option<&LedgerError> {
        self.ledger.as_ref().err()
    }

    /// One pass: look, plan, apply, look again. `wanted = None` (no spec yet since boot) changes nothing.
    ///
    /// Never waits for a download or for a tenant's program to end: those go on in the background and
    /// [`Tenants::changed`] tells when to run the next pass.
    pub async fn converge(
        &mut self,
        wanted: Option<&HostSpec>,
        site: Option<&SiteAccess>,
        inventory: &Inventory,
        now: Timestamp,
    ) -> Pass {
        let _ = (&self.systemd, wanted, site, inventory, now);
        Pass::default()
    }

    /// Resolves when something changed that a pass should look at: a tenant's unit, a finished download.
    /// A change between two calls is not lost.
    pub fn changed(&self) -> impl Future<Output = ()> + use<> {
        let wake = Arc::clone(&self.wake);
        async move { wake.notified().await }
    }

    /// The last `lines` lines of a lease's console.
    ///
    /// # Errors
    /// [`LogError::Absent`], [`LogError::Read`].
    pub fn log(&self, id: &LeaseId, lines: u32) -> Result<Vec<u8>, LogError> {
        let _ = lines;
        Err(LogError::Absent(id.clone()))
    }
}
