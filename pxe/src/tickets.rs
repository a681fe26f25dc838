//! Boot tickets: 128 random bits that open the boot artefacts to one machine for ten minutes, and one
//! enrolment.
//!
//! Randomness and clock are arguments. Tickets are found by comparing every one in constant time:
//! there are a few per machine of one site.

use std::collections::BTreeMap;
use std::fmt;

use bulkhead_api::id::{MacAddr, SystemUuid};
use bulkhead_api::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::moment::{later, seconds_since};

/// How long a ticket opens artefacts.
pub const LIFE_SECONDS: i64 = 600;
/// How often one artefact is served for one ticket: HEAD, GET and five resumes of firmware.
pub const USES: u32 = 8;
/// How long a dead ticket is remembered, so that its refusal can say why.
const MEMORY_SECONDS: i64 = 24 * 3600;
/// Living tickets a machine may have: the one in use and the one of the boot before it.
const PER_MACHINE: usize = 2;

/// The secret of a ticket; `Debug` does not show it.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Secret([u8; 16]);

impl Secret {
    /// Wraps random octets.
    #[must_use]
    pub fn new(octets: [u8; 16]) -> Self {
        Self(octets)
    }

    /// From 32 lower-case hexadecimal digits, the form in URLs and file names.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let canonical = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        if text.len() != 32 || !text.bytes().all(canonical) {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(|number| Self(number.to_be_bytes()))
    }

    /// The 32 hexadecimal digits.
    #[must_use]
    pub fn expose(&self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.0))
    }

    /// Compares in a time that does not depend on where the first difference is.
    fn same(&self, other: &Self) -> bool {
        let differs = self.0.iter().zip(&other.0).fold(0, |all, (a, b)| all | (a ^ b));
        std::hint::black_box(differs) == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl From<Secret> for String {
    fn from(secret: Secret) -> Self {
        secret.expose()
    }
}

impl TryFrom<String> for Secret {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("ticket is not 32 lower-case hexadecimal digits")
    }
}

/// SHA-256 of the public key in a certificate request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyDigest([u8; 32]);

impl KeyDigest {
    /// Of a `SubjectPublicKeyInfo` in DER.
    #[must_use]
    pub fn of(spki_der: &[u8]) -> Self {
        let mut octets = [0; 32];
        let digest = ring::digest::digest(&ring::digest::SHA256, spki_der);
        octets.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
        Self(octets)
    }
}

/// Where the one enrolment of a ticket stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Enrolment {
    /// Not asked for yet.
    Open,
    /// At the registry. Not decided, when the registry is away.
    Forwarded,
    /// Granted or refused for good.
    Used,
}

/// A ticket and the machine it is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ticket {
    secret: Secret,
    /// The machine's boot NIC.
    pub mac: MacAddr,
    /// The machine's system UUID; absent where its firmware sent none.
    pub uuid: Option<SystemUuid>,
    /// Opens nothing from then on.
    pub expires: Timestamp,
    /// DHCP transaction of the firmware that asked.
    pub firmware_xid: Option<u32>,
    /// DHCP transaction of the stage 1 that took it over.
    pub stage1_xid: Option<u32>,
    /// The boot it stands for, counted by machine; 0 until stage 1 runs.
    pub boot: u64,
    /// The one enrolment.
    pub enrolment: Enrolment,
    /// The key that got a certificate for it. It may ask again while the ticket lives: the answer may
    /// have been lost, and a second certificate helps nobody who has not the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    granted_to: Option<KeyDigest>,
    uses: BTreeMap<String, u32>,
}

impl Ticket {
    /// The secret, for the URL that this machine is given.
    #[must_use]
    pub fn secret(&self) -> Secret {
        self.secret
    }

    /// The enrolment was granted to `key`.
    pub fn grant(&mut self, key: KeyDigest) {
        (self.enrolment, self.granted_to) = (Enrolment::Used, Some(key));
    }

    /// The enrolment was refused for good.
    pub fn refuse(&mut self) {
        (self.enrolment, self.granted_to) = (Enrolment::Used, None);
    }

    /// The enrolment was not decided: as before it was forwarded.
    pub fn reopen(&mut self) {
        self.enrolment = match self.granted_to {
            Some(_) => Enrolment::Used,
            None => Enrolment::Open,
        };
    }
}

/// Why a ticket does not open what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketRefusal {
    /// Never minted here, forgotten, or not even of a ticket's form.
    #[error("ticket is unknown")]
    Unknown,
    /// Too late.
    #[error("ticket expired {seconds} s ago")]
    Expired {
        /// Since when.
        seconds: i64,
    },
    /// The one enrolment happened.
    #[error("ticket was used for an enrolment before")]
    Used,
    /// The one enrolment is being decided.
    #[error("an enrolment with this ticket is under way")]
    UnderWay,
    /// One artefact too often.
    #[error("ticket opened {artefact} {USES} times")]
    Exhausted {
        /// Which.
        artefact: String,
    },
    /// Shown by another machine than the one it was minted for.
    #[error("ticket belongs to the machine {owner}, not to {shown_by}")]
    OtherMachine {
        /// MAC or UUID it is bound to.
        owner: String,
        /// What was shown.
        shown_by: String,
    },
}

impl TicketRefusal {
    /// One word for the machine list, logs and metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Unknown => "TicketUnknown",
            Self::Expired { .. } => "TicketExpired",
            Self::Used => "TicketUsed",
            Self::UnderWay => "TicketUnderWay",
            Self::Exhausted { .. } => "TicketExhausted",
            Self::OtherMachine { .. } => "TicketOfOtherMachine",
        }
    }
}

/// All tickets of a site.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tickets(Vec<Ticket>);

impl Tickets {
    /// The ticket of that secret, dead or alive.
    #[must_use]
    pub fn find(&self, secret: &Secret) -> Option<&Ticket> {
        // No early exit: `find` would tell by its time how far down the list a guess matched.
        self.0.iter().fold(
            None,
            |found, ticket| {
                if ticket.secret.same(secret) { Some(ticket) } else { found }
            },
        )
    }

    /// Mutable [`Tickets::find`].
    pub fn find_mut(&mut self, secret: &Secret) -> Option<&mut Ticket> {
        let at = self.0.iter().enumerate().fold(None, |found, (at, ticket)| {
            if ticket.secret.same(secret) { Some(at) } else { found }
        })?;
        self.0.get_mut(at)
    }

    /// The machine's newest ticket that is alive and whose enrolment is open.
    #[must_use]
    pub fn current(&self, mac: MacAddr, now: Timestamp) -> Option<&Ticket> {
        let alive = |t: &&Ticket| now < t.expires && t.enrolment == Enrolment::Open;
        self.0.iter().rev().filter(|ticket| ticket.mac == mac).find(alive)
    }

    /// Makes a ticket of `random`. The machine keeps its newest [`PER_MACHINE`] living ones.
    pub fn mint(
        &mut self,
        random: Secret,
        mac: MacAddr,
        uuid: Option<SystemUuid>,
        now: Timestamp,
    ) -> &mut Ticket {
        self.0.retain(|ticket| seconds_since(ticket.expires, now) < MEMORY_SECONDS);
        let alive = |t: &Ticket| t.mac == mac && now < t.expires;
        let surplus = (self.0.iter().filter(|t| alive(t)).count() + 1).saturating_sub(PER_MACHINE);
        for ticket in self.0.iter_mut().filter(|t| alive(t)).take(surplus) {
            ticket.expires = now;
        }
        // Dead tickets are kept for their refusal's text alone; a flapping machine must not fill memory.
        let dead = self.0.iter().filter(|t| t.mac == mac && t.expires <= now).count();
        let mut drop = dead.saturating_sub(32);
        self.0.retain(|t| {
            let gone = drop > 0 && t.mac == mac && t.expires <= now;
            drop -= usize::from(gone);
            !gone
        });
        self.0.push_mut(Ticket {
            secret: random,
            mac,
            uuid,
            expires: later(now, LIFE_SECONDS),
            firmware_xid: None,
            stage1_xid: None,
            boot: 0,
            enrolment: Enrolment::Open,
            granted_to: None,
            uses: BTreeMap::new(),
        })
    }

    /// Checks that the ticket opens `artefact` now, without counting it.
    ///
    /// # Errors
    /// [`TicketRefusal`]: unknown, expired, exhausted.
    pub fn check_artefact(
        &self,
        secret: &Secret,
        artefact: &str,
        now: Timestamp,
    ) -> Result<&Ticket, TicketRefusal> {
        let ticket = self.find(secret).ok_or(TicketRefusal::Unknown)?;
        if now >= ticket.expires {
            return Err(TicketRefusal::Expired { seconds: seconds_since(ticket.expires, now) });
        }
        if ticket.uses.get(artefact).is_some_and(|uses| *uses >= USES) {
            return Err(TicketRefusal::Exhausted { artefact: artefact.to_owned() });
        }
        Ok(ticket)
    }

    /// Counts one use of `artefact`.
    pub fn count_use(&mut self, secret: &Secret, artefact: &str) {
        if let Some(ticket) = self.find_mut(secret) {
            *ticket.uses.entry(artefact.to_owned()).or_default() += 1;
        }
    }

    /// Checks that the ticket opens the one enrolment of this machine, or that `key` was granted it.
    ///
    /// # Errors
    /// [`TicketRefusal`]: unknown, other machine, used, under way, expired. Used comes before
    /// expired: it stays true.
    pub fn check_enrolment(
        &self,
        secret: &Secret,
        mac: MacAddr,
        uuid: Option<SystemUuid>,
        key: KeyDigest,
        now: Timestamp,
    ) -> Result<&Ticket, TicketRefusal> {
        let ticket = self.find(secret).ok_or(TicketRefusal::Unknown)?;
        if ticket.mac != mac {
            return Err(TicketRefusal::OtherMachine {
                owner: ticket.mac.to_string(),
                shown_by: mac.to_string(),
            });
        }
        if let Some(owner) = ticket.uuid.filter(|owner| Some(*owner) != uuid) {
            let shown_by = uuid.map_or_else(|| "a machine without UUID".into(), |u| u.to_string());
            return Err(TicketRefusal::OtherMachine { owner: owner.to_string(), shown_by });
        }
        match ticket.enrolment {
            Enrolment::Used if ticket.granted_to != Some(key) => return Err(TicketRefusal::Used),
            Enrolment::Forwarded => return Err(TicketRefusal::UnderWay),
            Enrolment::Open | Enrolment::Used => {}
        }
        if now >= ticket.expires {
            return Err(TicketRefusal::Expired { seconds: seconds_since(ticket.expires, now) });
        }
        Ok(ticket)
    }

    /// Ends every ticket of a machine.
    pub fn end_all_of(&mut self, mac: MacAddr, now: Timestamp) {
        for ticket in self.0.iter_mut().filter(|t| t.mac == mac && now < t.expires) {
            ticket.expires = now;
        }
    }

    /// After a restart nothing is under way: forwarded enrolments are what they were before.
    pub fn forget_forwarded(&mut self) {
        for ticket in self.0.iter_mut().filter(|t| t.enrolment == Enrolment::Forwarded) {
            ticket.reopen();
        }
    }
}

#[cfg(test)]
mod tests;
