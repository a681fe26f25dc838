//! From the bytes of an offered spec to the spec in force: judged, kept on disk, then applied.

use std::path::Path;
use std::time::Instant;

use bulkhead_api::chain::Chain;
use bulkhead_api::document::from_json;
use bulkhead_api::inventory::Inventory;
use bulkhead_api::spec::SpecKeys;
use bulkhead_api::time::Timestamp;
use tracing::{info, warn};

use super::Node;
use super::acceptance::{self, Accepted, Kept, Offer, Refusal};
use super::state::{State, Trouble};
use crate::ledger;
use crate::paths::Paths;
use crate::tenant::SiteAccess;
use crate::uplink::enrol::boot_facts;
use crate::uplink::identity::{self, Identity};

/// What the files of stage 1 say.
pub(super) fn start(paths: &Paths) -> State {
    // Their absence is said by the uplink, which cannot do without.
    let facts = boot_facts(&paths.boot_facts()).ok();
    let image = facts.as_ref().map(|facts| facts.image_version.clone()).unwrap_or_default();
    let boot = facts.map_or(0, |facts| facts.site.boot);
    State::new(boot, Inventory { image, ..Inventory::default() })
}

impl Node {
    /// Finds identity and spec of an earlier run: leases are looked after before the site answers.
    pub(super) fn remember(&mut self) {
        match identity::load(&self.paths.identity()) {
            Ok(Some(identity)) => self.enrolled(&identity),
            Ok(None) => {}
            Err(error) => warn!(error = %Chain(&error), "identity of an earlier run not used"),
        }
    }

    pub(super) fn enrolled(&mut self, identity: &Identity) {
        self.state.host = Some(identity.named.host.clone());
        self.state.site = Some(identity.named.site.clone());
        self.state.certified = Some(identity.begins);
        self.state.not_renewed = None;
        match std::fs::read_to_string(self.paths.fleet_ca()) {
            Ok(ca_pem) => {
                self.access = Some(SiteAccess {
                    link: identity.named.link.clone(),
                    ca_pem,
                    chain_pem: identity.chain_pem.clone(),
                    key_pem: identity.key_pem.clone(),
                });
            }
            Err(error) => warn!(%error, "no fleet CA: images cannot be pulled"),
        }
        if self.state.accepted.is_none() {
            match self.restored() {
                Ok(accepted) => self.state.accepted = accepted,
                Err(refusal) => self.refuse(&refusal),
            }
        }
        self.pass_due = Instant::now();
    }

    fn restored(&self) -> Result<Option<Accepted>, Refusal> {
        let kept: Option<Kept> = ledger::load_record(&self.paths.accepted_spec())?;
        let (Some(kept), Some(ours)) = (kept, &self.state.host) else { return Ok(None) };
        let accepted = acceptance::restore(kept, &keys(&self.paths.spec_keys())?, ours)?;
        info!(generation = accepted.spec.generation, "spec of an earlier run is in force");
        Ok(Some(accepted))
    }

    pub(super) fn offered(&mut self, json: &[u8]) {
        match self.taken(json) {
            Ok(Offer::Same) => self.state.refused = None,
            Ok(Offer::New(accepted)) => {
                info!(generation = accepted.spec.generation, "spec accepted");
                self.state.accepted = Some(accepted);
                self.state.refused = None;
                self.pass_due = Instant::now();
            }
            Err(refusal) => self.refuse(&refusal),
        }
    }

    /// Judges, and keeps what is taken before anybody applies it.
    fn taken(&self, json: &[u8]) -> Result<Offer, Refusal> {
        let ours = self.state.host.as_ref().ok_or(Refusal::NotEnrolled)?;
        let path = self.paths.accepted_spec();
        let accepted = self.state.accepted.as_ref();
        if accepted.is_none() {
            // A record that cannot be read may hold a later generation than the one offered.
            ledger::load_record::<Kept>(&path)?;
        }
        let trusted = keys(&self.paths.spec_keys())?;
        let clock = self.state.clock(Timestamp::now());
        let offer = acceptance::judge(json, &trusted, ours, accepted, clock)?;
        if let Offer::New(accepted) = &offer {
            ledger::store_record(&path, &Kept { signed: accepted.signed.clone() })?;
        }
        Ok(offer)
    }

    fn refuse(&mut self, refusal: &Refusal) {
        let (reason, message) = (refusal.label(), Chain(refusal).to_string());
        warn!(reason, error = message, "spec refused");
        let owner = refusal.owner();
        self.state.refused = Some(Trouble { reason, message, owner, next: None });
    }
}

fn keys(path: &Path) -> Result<SpecKeys, Refusal> {
    let bad = |why: String| Refusal::NoKeys(format!("{}: {why}", path.display()));
    let bytes = std::fs::read(path).map_err(|e| bad(e.to_string()))?;
    from_json(&bytes).map_err(|e| bad(e.to_string()))
}

#[cfg(test)]
#[path = "spec_tests.rs"]
pub(super) mod tests;
