//! Machines that tenants get to themselves: asked for, booted, taken back.

use std::net::Ipv4Addr;

use bulkhead_api::boot::MetalBoot;
use bulkhead_api::id::{HostId, LeaseId, MacAddr};
use bulkhead_api::link::HandOverRefusal;
use bulkhead_api::machine::TenancyStage;
use bulkhead_api::spec::HostSpec;
use bulkhead_api::time::Timestamp;

use super::{Outcome, Site};
use crate::policy::{Answer, Ask, Decision, Host, admission, decide};
use crate::tenancy::{HostKey, Tenancy, Verdict};
use crate::tickets::KeyDigest;

/// What a host asks for, checked against the spec that the site verified, with the UKI on the site's disk.
#[derive(Debug, Clone, Copy)]
pub struct Departure<'a> {
    /// Who asks.
    pub host: &'a HostId,
    /// Whose the machine will be.
    pub lease: &'a LeaseId,
    /// The verified spec.
    pub spec: &'a HostSpec,
    /// When the UKI is booted.
    pub boot: MetalBoot,
    /// Its digest.
    pub uki_sha256: &'a str,
    /// The key of the host that asks.
    pub key: HostKey,
}

impl Site {
    /// Remembers that the machine of a host goes to a tenant at its next boot. The reply is the refusal, if any;
    /// without one the caller says yes once the state is saved.
    pub fn hand_over(
        &mut self,
        departure: &Departure<'_>,
        now: Timestamp,
    ) -> Outcome<Option<HandOverRefusal>> {
        let refusal = self.refusal(departure, now);
        let Departure { host, lease, spec, boot, uki_sha256, key } = *departure;
        let accepted = match (&refusal, self.state.machines.of_host(host)) {
            (None, Some(mac)) => {
                let before = self.state.tenancies.get(mac);
                let again = before.filter(|before| before.lease == *lease && before.is_held());
                let tenancy = Tenancy {
                    host: host.clone(),
                    lease: lease.clone(),
                    boot,
                    uki_sha256: uki_sha256.to_owned(),
                    generation: spec.generation,
                    key,
                    stage: TenancyStage::Leaving,
                    since: again.map_or(now, |before| before.since),
                    fetched: 0,
                    back: false,
                };
                self.state.tenancies.begin(mac, tenancy);
                // The tenant may find the old ones in memory.
                self.state.tickets.end_all_of(mac, now);
                true
            }
            _ => false,
        };
        // The decision is for the log alone: what matters is in the reply.
        let decision = Decision::Reply(Answer::AckWithoutAddress { boot: None });
        Outcome { decision, reply: refusal, save: accepted, report: accepted }
    }

    fn refusal(&self, departure: &Departure<'_>, now: Timestamp) -> Option<HandOverRefusal> {
        let no = |reason: &str, message: String, owner: &str| {
            Some(HandOverRefusal { reason: reason.to_owned(), message, owner: owner.to_owned() })
        };
        let host = departure.host;
        let Some(mac) = self.state.machines.of_host(host) else {
            let message = format!("the site does not know which machine host {host} is");
            return no("UnknownMachine", message, "operator");
        };
        let uuid = self.state.machines.get(mac).and_then(|known| known.uuid);
        if let Err(why) = admission(&self.host(mac, uuid, None, now), &self.rules, now) {
            return no("NotAdmitted", why.to_string(), "operator");
        }
        let tenancy = self.state.tenancies.get(mac)?;
        match tenancy.stage {
            TenancyStage::Leaving if tenancy.lease == *departure.lease => None,
            TenancyStage::Returning if tenancy.judge(departure.spec) == Verdict::Ends => None,
            TenancyStage::Leaving | TenancyStage::Given | TenancyStage::Returning => {
                let message = format!("the machine is not back from lease {}", tenancy.lease);
                no("OtherTenant", message, "site")
            }
        }
    }

    /// Answers a request for a tenant's UKI with the machine that boots it.
    pub fn tenant_uki(
        &self,
        sha256: &str,
        from: Ipv4Addr,
        now: Timestamp,
    ) -> Outcome<Option<MacAddr>> {
        let mac = self.state.bindings.holder(from);
        let uuid = mac.and_then(|mac| self.state.machines.get(mac)).and_then(|known| known.uuid);
        let host = mac.map_or_else(Host::nobody, |mac| self.host(mac, uuid, None, now));
        let decision = decide(&Ask::TenantUki { sha256, from }, &host, &self.rules, now);
        let reply = mac.filter(|_| matches!(decision, Decision::Reply(_)));
        Outcome { decision, reply, save: false, report: false }
    }

    /// The last byte of a tenant's UKI went out to its machine. `true` when the machine list changed.
    pub fn tenant_uki_delivered(&mut self, mac: MacAddr) -> bool {
        self.state.tenancies.fetched(mac)
    }

    /// Takes a verified spec of a host. `true` when the machine list changed.
    pub fn spec_verified(&mut self, spec: &HostSpec, now: Timestamp) -> bool {
        self.state.tenancies.judge(spec, now)
    }

    /// Hosts whose machines tenants have or had, with the digests of their UKIs.
    pub fn tenancies(&self) -> impl Iterator<Item = (&HostId, &str)> {
        self.state.tenancies.iter().map(|(_, t)| (&t.host, t.uki_sha256.as_str()))
    }

    /// Whether a tenant may have the key of a certificate.
    #[must_use]
    pub fn is_void(&self, key: KeyDigest) -> bool {
        self.state.tenancies.is_void(key)
    }
}

#[cfg(test)]
mod tests;
