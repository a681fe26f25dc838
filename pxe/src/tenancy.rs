//! Machines in the hands of tenants: what is remembered of each, and what changes it. Pure.
//!
//! ```text
//!  host asks ──► Leaving ──machine asks for anything by DHCP──► Given ──┐
//!                   └──────── a verified spec without the lease ────────┴──► Returning ──► forgotten
//! ```
//!
//! While a machine is `Leaving` or `Given` nothing of ours is for it: no ticket, no image, no enrolment, and the
//! key that its supervisor had counts for nothing once it left, as the tenant may find it in memory. Only a host
//! spec that the site verified ends that: nobody on the network can.

use std::collections::BTreeMap;

use bulkhead_api::boot::MetalBoot;
use bulkhead_api::id::{HostId, LeaseId, MacAddr};
use bulkhead_api::lease::InstanceKind;
use bulkhead_api::link::HandOverRefusal;
use bulkhead_api::machine::{self, TenancyStage};
use bulkhead_api::spec::HostSpec;
use bulkhead_api::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::tickets::KeyDigest;

/// A key of a host that another one may have read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostKey {
    /// Its digest.
    pub key: KeyDigest,
    /// End of the certificate for it.
    pub until: Timestamp,
}

/// A machine that a tenant has or had to itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tenancy {
    /// The host that it was.
    pub host: HostId,
    /// Whose it is.
    pub lease: LeaseId,
    /// When it boots the tenant's UKI.
    pub boot: MetalBoot,
    /// SHA-256 of the tenant's UKI, hexadecimal: its name on disk and in URLs.
    pub uki_sha256: String,
    /// Generation of the spec that it was handed over by.
    pub generation: u64,
    /// The key that its supervisor had.
    pub key: HostKey,
    /// Where it is on its way.
    pub stage: TenancyStage,
    /// When that was reached.
    pub since: Timestamp,
    /// How often the tenant's UKI went out whole.
    pub fetched: u64,
    /// It booted our image since it is `Returning`, or never left it.
    pub back: bool,
}

/// What a verified spec means for a tenancy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As it is.
    Stays,
    /// The next boot is ours.
    Returns,
    /// The registry knows that the machine is clean.
    Ends,
}

impl Tenancy {
    /// The machine is the tenant's, or about to be.
    #[must_use]
    pub fn is_held(&self) -> bool {
        match self.stage {
            TenancyStage::Leaving | TenancyStage::Given => true,
            TenancyStage::Returning => false,
        }
    }

    /// Its firmware is pointed to the tenant's UKI; else to nothing, while it is held.
    #[must_use]
    pub fn offers_uki(&self) -> bool {
        self.is_held() && (self.boot == MetalBoot::Always || self.fetched == 0)
    }

    /// What a spec of its host says. One that is not newer than the one that it was handed over by says nothing.
    #[must_use]
    pub fn judge(&self, spec: &HostSpec) -> Verdict {
        let wanted = spec.leases.iter().any(|lease| lease.id == self.lease);
        if spec.host != self.host || spec.generation <= self.generation || wanted {
            return Verdict::Stays;
        }
        match self.stage {
            TenancyStage::Leaving | TenancyStage::Given => Verdict::Returns,
            TenancyStage::Returning if spec.returning.as_ref() == Some(&self.lease) => {
                Verdict::Stays
            }
            // A registry that forgot the lease cannot know that the machine is clean.
            TenancyStage::Returning if !self.back => Verdict::Stays,
            TenancyStage::Returning => Verdict::Ends,
        }
    }

    /// As the registry and people see it.
    #[must_use]
    pub fn report(&self) -> machine::Tenancy {
        machine::Tenancy {
            lease: self.lease.clone(),
            stage: self.stage,
            uki_sha256: self.uki_sha256.clone(),
            fetched: self.fetched,
            since: self.since,
        }
    }
}

/// All of a site, and the keys that they made worthless.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Tenancies {
    machines: BTreeMap<MacAddr, Tenancy>,
    void: Vec<HostKey>,
}

impl Tenancies {
    /// That of a machine.
    #[must_use]
    pub fn get(&self, mac: MacAddr) -> Option<&Tenancy> {
        self.machines.get(&mac)
    }

    /// All, by address.
    pub fn iter(&self) -> impl Iterator<Item = (MacAddr, &Tenancy)> {
        self.machines.iter().map(|(mac, tenancy)| (*mac, tenancy))
    }

    /// Remembers one in place of any other of the machine.
    pub fn begin(&mut self, mac: MacAddr, tenancy: Tenancy) {
        self.machines.insert(mac, tenancy);
    }

    /// The machine asks for an address or a boot file: our image runs there no more. `true` when that is news.
    pub fn left(&mut self, mac: MacAddr, now: Timestamp) -> bool {
        let leaving = |tenancy: &&mut Tenancy| tenancy.stage == TenancyStage::Leaving;
        let Some(tenancy) = self.machines.get_mut(&mac).filter(leaving) else { return false };
        (tenancy.stage, tenancy.since) = (TenancyStage::Given, now);
        self.void.retain(|void| now < void.until);
        self.void.push(tenancy.key);
        true
    }

    /// The tenant's UKI went out whole. `true` when that is news.
    pub fn fetched(&mut self, mac: MacAddr) -> bool {
        let Some(tenancy) = self.machines.get_mut(&mac) else { return false };
        tenancy.fetched = tenancy.fetched.saturating_add(1);
        true
    }

    /// Our image enrolled there again. `true` when that is news.
    pub fn back(&mut self, mac: MacAddr) -> bool {
        let Some(tenancy) = self.machines.get_mut(&mac).filter(|t| !t.is_held()) else {
            return false;
        };
        !std::mem::replace(&mut tenancy.back, true)
    }

    /// Takes what a verified spec says of its host. `true` when that changed anything.
    pub fn judge(&mut self, spec: &HostSpec, now: Timestamp) -> bool {
        let judged: Vec<(MacAddr, Verdict)> =
            self.machines.iter().map(|(mac, tenancy)| (*mac, tenancy.judge(spec))).collect();
        let mut changed = false;
        for (mac, verdict) in judged {
            match verdict {
                Verdict::Stays => {}
                Verdict::Ends => changed |= self.machines.remove(&mac).is_some(),
                Verdict::Returns => {
                    if let Some(tenancy) = self.machines.get_mut(&mac) {
                        tenancy.back = tenancy.stage == TenancyStage::Leaving;
                        (tenancy.stage, tenancy.since) = (TenancyStage::Returning, now);
                        // In `Leaving` nobody else has run there, so nobody else has the key.
                        changed = true;
                    }
                }
            }
        }
        changed
    }

    /// A key that a tenant may have.
    #[must_use]
    pub fn is_void(&self, key: KeyDigest) -> bool {
        self.void.iter().any(|void| void.key == key)
    }
}

/// When the machine boots the UKI of `lease`, if a host that asks for the hand-over may have it by `spec`, which is
/// verified, and which image has the UKI.
///
/// # Errors
/// Why not.
pub fn wanted<'a>(
    spec: &'a HostSpec,
    lease: &LeaseId,
) -> Result<(&'a str, MetalBoot), HandOverRefusal> {
    let no = |reason: &str, message: String, owner: &str| {
        Err(HandOverRefusal { reason: reason.to_owned(), message, owner: owner.to_owned() })
    };
    let generation = spec.generation;
    let Some(found) = spec.leases.iter().find(|wanted| wanted.id == *lease) else {
        let message = format!("lease {lease} is not in generation {generation} of the host's spec");
        return no("NotWanted", message, "registry");
    };
    if found.spec.instance != InstanceKind::BareMetal {
        return no("NotBareMetal", format!("lease {lease} is not bareMetal"), "supervisor");
    }
    if let Some(other) = &spec.returning {
        let message = format!("the machine comes back from lease {other} and is not clean yet");
        return no("Returning", message, "supervisor");
    }
    if let Some(other) = spec.leases.iter().find(|wanted| wanted.id != *lease) {
        let message = format!("lease {} is on the host too", other.id);
        return no("NotAlone", message, "registry");
    }
    match MetalBoot::of(&found.spec.workload) {
        Ok(boot) => Ok((&found.spec.workload.image, boot)),
        Err((field, why)) => no("BadWorkload", format!("{field}: {why}"), "tenant"),
    }
}

#[cfg(test)]
mod tests;
