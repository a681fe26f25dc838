//! Enrolments: which are forwarded to the registry, and what its answer changes here.

use bulkhead_api::id::{HostId, MacAddr, SystemUuid};
use bulkhead_api::machine::BootStage;
use bulkhead_api::time::Timestamp;

use super::{Outcome, Site};
use crate::machines::Barred;
use crate::moment::later;
use crate::policy::{Ask, Decision, Refusal, decide};
use crate::tickets::{Enrolment, KeyDigest, LIFE_SECONDS, Secret, TicketRefusal};

/// After a refused enrolment the machine gets no boot file for this long.
pub(super) const REFUSED_SECONDS: i64 = 600;

/// What a request for a certificate is allowed by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pass {
    /// A boot ticket, reserved for this key.
    Ticket(Secret, KeyDigest),
    /// The certificate that the host has.
    Certificate,
}

/// What became of a forwarded enrolment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnrolmentResult {
    /// The machine is this host.
    Granted(HostId),
    /// Refused for good, with the registry's reason.
    Refused(String),
    /// The registry is away: the host asks again with the same ticket.
    Away,
    /// The request itself is wrong: the host may ask better while its ticket lives.
    Unfit,
}

impl Site {
    /// Checks and reserves the one enrolment of a ticket. When the decision is a reply, the caller
    /// forwards it and then calls [`Site::finish_enrolment`].
    pub fn begin_enrolment(
        &mut self,
        secret: &str,
        mac: MacAddr,
        uuid: Option<SystemUuid>,
        key: KeyDigest,
        now: Timestamp,
    ) -> Outcome<Option<Pass>> {
        let parsed = Secret::parse(secret);
        let checked = match &parsed {
            None => Err(TicketRefusal::Unknown),
            Some(secret) => self.state.tickets.check_enrolment(secret, mac, uuid, key, now),
        };
        let ask = Ask::Enrol { ticket: checked.map(|_| ()) };
        let decision = decide(&ask, &self.host(mac, uuid, None, now), &self.rules, now);
        let mut outcome = Outcome { decision, reply: None, save: false, report: false };
        match (&outcome.decision, parsed) {
            (Decision::Reply(_), Some(secret)) => {
                if let Some(ticket) = self.state.tickets.find_mut(&secret) {
                    ticket.enrolment = Enrolment::Forwarded;
                }
                outcome.save = true;
                outcome.reply = Some(Pass::Ticket(secret, key));
            }
            (decision, _) => {
                // Anybody may ask: what is no news must not cost a write to the disk.
                outcome.report = self.note_enrolment(mac, &decision.clone(), now);
                outcome.save = outcome.report;
            }
        }
        outcome
    }

    /// Checks that `host`, known by its certificate, may have a new one: it must be the machine `mac`,
    /// and that machine must be one that may still boot. Ends with [`Site::finish_enrolment`] too.
    pub fn begin_renewal(
        &mut self,
        host: &HostId,
        mac: MacAddr,
        uuid: Option<SystemUuid>,
        now: Timestamp,
    ) -> Outcome<Option<Pass>> {
        let owner = self.state.machines.get(mac).and_then(|known| known.host.as_ref());
        let ask = Ask::Renew { is_its_own: owner == Some(host) };
        let decision = decide(&ask, &self.host(mac, uuid, None, now), &self.rules, now);
        let pass = matches!(decision, Decision::Reply(_)).then_some(Pass::Certificate);
        // A stranger with a certificate says nothing about the machine whose MAC it shows.
        let blames = owner == Some(host);
        let report = blames && pass.is_none() && self.note_enrolment(mac, &decision, now);
        Outcome { decision, reply: pass, save: report, report }
    }

    /// Closes a forwarded enrolment. `true` when the machine list changed; save in any case.
    pub fn finish_enrolment(
        &mut self,
        pass: &Pass,
        mac: MacAddr,
        result: &EnrolmentResult,
        now: Timestamp,
    ) -> bool {
        if let Pass::Ticket(secret, key) = pass
            && let Some(ticket) = self.state.tickets.find_mut(secret)
        {
            match result {
                EnrolmentResult::Granted(_) => ticket.grant(*key),
                EnrolmentResult::Refused(_) => ticket.refuse(),
                EnrolmentResult::Unfit => ticket.reopen(),
                EnrolmentResult::Away => {
                    ticket.reopen();
                    // The host did its part in time; a long cut must not cost it a reboot.
                    ticket.expires = later(now, LIFE_SECONDS);
                }
            }
        }
        let known = self.state.machines.see(mac, now);
        match result {
            EnrolmentResult::Granted(host) => {
                known.host = Some(host.clone());
                known.reached(BootStage::Enrolled);
                self.state.tenancies.back(mac);
                true
            }
            EnrolmentResult::Refused(reason) => {
                let reason = format!("enrolment refused by the registry: {reason}");
                known.quarantine = Some(reason.clone());
                let until = later(now, REFUSED_SECONDS);
                known.barred = Some(Barred { reason, until, by_registry: true });
                true
            }
            EnrolmentResult::Away | EnrolmentResult::Unfit => false,
        }
    }

    /// Remembers why an enrolment was turned down, also of a machine never seen before. `true` when
    /// that is news.
    fn note_enrolment(&mut self, mac: MacAddr, decision: &Decision, now: Timestamp) -> bool {
        match decision {
            // The other one decides.
            Decision::Refuse(Refusal::Ticket(TicketRefusal::UnderWay)) => false,
            // Who has no ticket of ours can be anybody: an enrolled machine is not blamed for a name
            // that somebody made up.
            Decision::Refuse(Refusal::Ticket(TicketRefusal::Unknown)) if self.is_host(mac) => false,
            Decision::Refuse(refusal) => {
                self.state.machines.see(mac, now);
                self.note_refusal(Some(mac), &refusal.to_string())
            }
            Decision::Quarantine(why, _) => {
                self.state.machines.see(mac, now);
                self.note_verdict(mac, None, Some(why))
            }
            Decision::Reply(_) | Decision::Silence(_) => false,
        }
    }

    fn is_host(&self, mac: MacAddr) -> bool {
        self.state.machines.get(mac).is_some_and(|known| known.host.is_some())
    }
}
