//! The site's memory behind a lock, with its clock, its randomness and its disk: what all edges share.
//!
//! The state is on disk before [`Service::ask`] returns, so that no answer promises what a crash would
//! forget. The lock is held over the write: answers leave in the order of their states.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bulkhead_api::boot::SiteBoot;
use bulkhead_api::chain::Chain;
use bulkhead_api::id::{HostId, SiteName, TicketSecret};
use bulkhead_api::machine::Machine;
use bulkhead_api::time::Timestamp;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::artefacts::Artefacts;
use crate::policy::Decision;
use crate::site::{Opened, Outcome, Site};
use crate::store::{Store, StoreError};
use crate::tenant_uki::TenantUkis;
use crate::tickets::{KeyDigest, Secret};

/// What stage 1 is told besides its ticket.
#[derive(Debug, Clone)]
pub struct BootAnswers {
    /// The site's name.
    pub site: SiteName,
    /// `address:port` of the link.
    pub link: String,
    /// Layers to load.
    pub extensions: Vec<String>,
}

/// Shared by DHCP, TFTP, HTTP and the link.
#[derive(Debug)]
pub struct Service {
    site: Mutex<Site>,
    store: Store,
    random: SystemRandom,
    changes: watch::Sender<u64>,
    /// The image served.
    pub artefacts: Artefacts,
    /// What machines boot that tenants have to themselves.
    pub tenant_ukis: TenantUkis,
    boot: BootAnswers,
}

impl Service {
    /// Puts the parts together.
    #[must_use]
    pub fn new(
        site: Site,
        store: Store,
        artefacts: Artefacts,
        tenant_ukis: TenantUkis,
        boot: BootAnswers,
    ) -> Arc<Self> {
        let (site, random) = (Mutex::new(site), SystemRandom::new());
        let changes = watch::Sender::new(0);
        Arc::new(Self { site, store, random, changes, artefacts, tenant_ukis, boot })
    }

    /// Sixteen random octets as a ticket to be; `None` when the system gives none.
    #[must_use]
    pub fn random(&self) -> Option<Secret> {
        let mut octets = [0; 16];
        match self.random.fill(&mut octets) {
            Ok(()) => Some(Secret::new(octets)),
            Err(_) => {
                error!("no randomness from the system: no tickets");
                None
            }
        }
    }

    /// Asks the site one thing, saves what must not be forgotten, and logs the decision.
    ///
    /// # Errors
    /// [`StoreError`]: the state is not on disk, so nothing may be answered.
    pub fn ask<T>(
        &self,
        what: &'static str,
        question: impl FnOnce(&mut Site, Timestamp) -> Outcome<T>,
    ) -> Result<Outcome<T>, StoreError> {
        let outcome = {
            let mut site = self.lock();
            let outcome = question(&mut site, Timestamp::now());
            if outcome.save
                && let Err(error) = self.store.save(&site.state)
            {
                error!(what, error = %Chain(&error), "site state not saved, nothing answered");
                return Err(error);
            }
            outcome
        };
        match &outcome.decision {
            Decision::Quarantine(why, _) if outcome.report => {
                warn!(what, reason = %why, "machine quarantined");
            }
            Decision::Refuse(why) => warn!(what, reason = %why, "request refused"),
            Decision::Silence(why) => info!(what, reason = %why, "request not answered"),
            Decision::Reply(_) | Decision::Quarantine(..) => {}
        }
        if outcome.report {
            self.changes.send_modify(|count| *count += 1);
        }
        Ok(outcome)
    }

    /// Changes the site; saves and reports when the change says `true`. A failure to save is logged:
    /// what changed here can be learnt again.
    pub fn note(&self, change: impl FnOnce(&mut Site, Timestamp) -> bool) {
        let mut site = self.lock();
        if !change(&mut site, Timestamp::now()) {
            return;
        }
        if let Err(error) = self.store.save(&site.state) {
            error!(error = %Chain(&error), "site state not saved");
        }
        drop(site);
        self.changes.send_modify(|count| *count += 1);
    }

    /// Whether a tenant may have the key of a certificate.
    #[must_use]
    pub fn is_void(&self, key: KeyDigest) -> bool {
        self.lock().is_void(key)
    }

    /// Hosts whose machines tenants have or had, with the digests of their UKIs.
    #[must_use]
    pub fn tenancies(&self) -> Vec<(HostId, String)> {
        let site = self.lock();
        site.tenancies().map(|(host, sha256)| (host.clone(), sha256.to_owned())).collect()
    }

    /// Every machine seen.
    #[must_use]
    pub fn machines(&self) -> Vec<Machine> {
        self.lock().machines()
    }

    /// Counts up whenever the machine list changed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The answer to `boot.json`.
    #[must_use]
    pub fn site_boot(&self, opened: &Opened) -> SiteBoot {
        SiteBoot {
            site: self.boot.site.clone(),
            ticket: TicketSecret::new(opened.secret.expose()),
            link: self.boot.link.clone(),
            extensions: self.boot.extensions.clone(),
            boot: opened.boot,
            returning: opened.returning.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Site> {
        // No code under the lock leaves the state half changed when it panics: each question is one
        // pure method.
        self.site.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
