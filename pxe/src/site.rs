//! One site's memory and what it answers: decisions applied to bindings, tickets and machines.
//!
//! Still without sockets, disk, clock or randomness: the edges call one method per request, save when
//! [`Outcome::save`] says so *before* they answer, and report machines when [`Outcome::report`] says so.

mod enrolment;
mod hand_over;

use std::net::Ipv4Addr;

use bulkhead_api::id::{HostId, LeaseId, MacAddr, SystemUuid};
use bulkhead_api::machine::{BootStage, Machine};
use bulkhead_api::site::{Admission, AdmissionMode};
use bulkhead_api::time::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::enrolment::{EnrolmentResult, Pass};
pub use self::hand_over::Departure;
use crate::bindings::{Bindings, Pool};
use crate::client::{ClientKind, classify};
use crate::machines::{Known, LoopLimits, Machines};
use crate::moment::later;
use crate::policy::{
    Answer, Ask, Boot, Decision, Door, Host, Quarantine, Refusal, Rules, Silence, decide,
};
use crate::reply::{BootFile, BootOffer, Destination, STRANGER_SECONDS, build, destination};
use crate::tenancy::{Tenancies, Tenancy};
use crate::tickets::{LIFE_SECONDS, Secret, TicketRefusal, Tickets};
use crate::wire::dhcp4::{ClientMessage, Reply, Request};

/// Firmware that fetches a kernel says nothing by DHCP meanwhile: it keeps its address for so long.
const FIRMWARE_SECONDS: i64 = 3600;

/// What must survive a crash.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct State {
    /// Addresses.
    pub bindings: Bindings,
    /// Boot tickets.
    pub tickets: Tickets,
    /// Machines.
    pub machines: Machines,
    /// Those that tenants have or had to themselves.
    #[serde(default)]
    pub tenancies: Tenancies,
}

/// A site.
#[derive(Debug, Clone)]
pub struct Site {
    /// Memory.
    pub state: State,
    /// What it is told to do.
    pub rules: Rules,
    /// Addresses it gives out.
    pub pool: Pool,
    /// When a machine boots in a circle.
    pub loops: LoopLimits,
    /// `http://address[:port]`.
    pub http_base: String,
}

/// What a request led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome<T> {
    /// The decision, for the log.
    pub decision: Decision,
    /// What to send.
    pub reply: T,
    /// The state must be on disk before anything is sent.
    pub save: bool,
    /// The machine list changed.
    pub report: bool,
}

/// A DHCP message to send.
pub type DhcpReply = Option<(Reply, Destination)>;

/// A file that boots machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Artefact {
    /// The signed kernel.
    Uki,
    /// What the site tells stage 1.
    BootJson,
    /// A file system image by its root hash.
    Image {
        /// 64 hexadecimal digits.
        root_hash: String,
        /// The root file system; else an extension layer.
        is_root: bool,
    },
}

impl Artefact {
    fn key(&self) -> &str {
        match self {
            Self::Uki => "uki.efi",
            Self::BootJson => "boot.json",
            Self::Image { root_hash, .. } => root_hash,
        }
    }
}

/// What an opened ticket says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Its secret.
    pub secret: Secret,
    /// Its machine.
    pub mac: MacAddr,
    /// The boot it stands for; 0 unless asked for [`Artefact::BootJson`].
    pub boot: u64,
    /// The lease whose tenant had the machine before this boot.
    pub returning: Option<LeaseId>,
}

impl Site {
    /// Answers a DHCP message. `random` becomes a ticket if one is needed.
    pub fn dhcp(
        &mut self,
        request: &Request,
        door: Door,
        random: Secret,
        now: Timestamp,
    ) -> Outcome<DhcpReply> {
        let mac = request.mac;
        let is_new = self.state.machines.get(mac).is_none();
        let kind = classify(&request.vendor_class, &request.archs).ok().flatten();
        let asks = matches!(request.message, ClientMessage::Discover | ClientMessage::Request);
        let known = self.state.machines.see(mac, now);
        let mut report = is_new;
        if asks {
            report |= self.state.tenancies.left(mac, now);
        }
        let ours = self.state.tenancies.get(mac).is_none_or(|tenancy| !tenancy.is_held());
        if let Some(kind) = kind.filter(|_| asks && ours && door == Door::Server) {
            report |= known.begin(kind, request.xid, &self.loops, now);
        }
        let uuid = request.uuid().or(known.uuid);
        let decision = {
            let host = self.host(mac, uuid, request.requested_ip, now);
            decide(&Ask::Dhcp(request, door), &host, &self.rules, now)
        };
        let (answer, quarantine) = match &decision {
            Decision::Reply(answer) => (Some(*answer), None),
            Decision::Quarantine(why, answer) => (*answer, Some(why)),
            Decision::Silence(_) | Decision::Refuse(_) => (None, None),
        };
        let judged = matches!(decision, Decision::Reply(_) | Decision::Quarantine(..))
            && answer != Some(Answer::Nak);
        if judged {
            report |= self.note_verdict(mac, uuid, quarantine);
        }
        let mut save = report | self.note_address(request, &decision, answer, now);
        let boot = boot_of(answer);
        if let Some(Boot::Ours(kind)) = boot {
            save |= self.ensure_ticket(request, door, kind, random, now);
        }
        let offer = boot.and_then(|boot| self.offer(boot, mac, now));
        let reply = answer.and_then(|answer| {
            let reply = build(request, answer, offer, &self.rules)?;
            Some((reply, destination(request, answer, door)))
        });
        Outcome { decision, reply, save, report }
    }

    /// Answers a request for an artefact under the ticket `secret` (as text in the path).
    pub fn artefact(
        &mut self,
        secret: &str,
        artefact: &Artefact,
        from: Ipv4Addr,
        now: Timestamp,
    ) -> Outcome<Option<Opened>> {
        let parsed = Secret::parse(secret);
        let checked = match &parsed {
            None => Err(TicketRefusal::Unknown),
            Some(secret) => self.state.tickets.check_artefact(secret, artefact.key(), now),
        };
        let mac = parsed.and_then(|secret| self.state.tickets.find(&secret)).map(|t| t.mac);
        let uuid = mac.and_then(|mac| self.state.machines.get(mac)).and_then(|known| known.uuid);
        let ask = Ask::Artefact { ticket: checked.map(|_| ()), from };
        let host = mac.map_or_else(Host::nobody, |mac| self.host(mac, uuid, None, now));
        let decision = decide(&ask, &host, &self.rules, now);
        let mut outcome = Outcome { decision, reply: None, save: false, report: false };
        match (&outcome.decision, parsed, mac) {
            (Decision::Reply(_), Some(secret), Some(mac)) => {
                self.state.tickets.count_use(&secret, artefact.key());
                // A ticket from a machine's firmware counts no boot before its stage 1 asks.
                let boot = match artefact {
                    Artefact::BootJson => self.claim_boot(&secret, mac, now),
                    Artefact::Uki | Artefact::Image { .. } => 0,
                };
                let returning = self.state.tenancies.get(mac).map(|t| t.lease.clone());
                outcome.reply = Some(Opened { secret, mac, boot, returning });
                outcome.save = true;
            }
            (Decision::Refuse(refusal), ..) => {
                let whose = mac.or_else(|| self.state.bindings.holder(from));
                outcome.report = self.note_refusal(whose, &refusal.to_string());
                outcome.save = outcome.report;
            }
            (Decision::Quarantine(why, _), _, Some(mac)) => {
                outcome.report = self.note_verdict(mac, None, Some(&why.clone()));
                outcome.save = outcome.report;
            }
            _ => {}
        }
        outcome
    }

    /// The last byte of `artefact` went out to `mac`. `true` when the machine list changed.
    pub fn delivered(&mut self, mac: MacAddr, artefact: &Artefact) -> bool {
        match artefact {
            Artefact::Uki => self.reached(mac, BootStage::Kernel),
            Artefact::Image { is_root: true, .. } => self.reached(mac, BootStage::Image),
            Artefact::BootJson | Artefact::Image { .. } => false,
        }
    }

    /// The host's stream opened: its boot is complete. `true` when the machine list changed.
    pub fn attached(&mut self, host: &HostId) -> bool {
        self.state.machines.of_host(host).is_some_and(|mac| self.reached(mac, BootStage::Enrolled))
    }

    /// Takes a new admission policy. `true` when it differs.
    pub fn set_admission(&mut self, admission: Admission) -> bool {
        let news = self.rules.admission != admission;
        self.rules.admission = admission;
        news
    }

    /// Every machine seen, as the registry and people see it.
    #[must_use]
    pub fn machines(&self) -> Vec<Machine> {
        let address = |mac| self.state.bindings.get(mac).map(|held| held.address);
        let tenancy = |mac| self.state.tenancies.get(mac).map(Tenancy::report);
        let machine = |(mac, known): (MacAddr, &Known)| Machine {
            tenancy: tenancy(mac),
            ..known.report(mac, address(mac))
        };
        self.state.machines.iter().map(machine).collect()
    }

    fn offer(&self, boot: Boot, mac: MacAddr, now: Timestamp) -> Option<BootOffer<'_>> {
        let (kind, file) = match boot {
            Boot::Ours(kind) => {
                (kind, BootFile::Ours(self.state.tickets.current(mac, now)?.secret()))
            }
            Boot::Tenants(kind) => {
                (kind, BootFile::Tenants(&self.state.tenancies.get(mac)?.uki_sha256))
            }
        };
        Some(BootOffer { kind, file, http_base: &self.http_base })
    }

    fn host(
        &self,
        mac: MacAddr,
        uuid: Option<SystemUuid>,
        wish: Option<Ipv4Addr>,
        now: Timestamp,
    ) -> Host<'_> {
        Host {
            mac: Some(mac),
            uuid,
            known: self.state.machines.get(mac),
            twin: uuid.and_then(|uuid| self.twin(mac, uuid)),
            bound: self.state.bindings.get(mac).map(|held| held.address),
            candidate: self.candidate(mac, wish, now),
            tenancy: self.state.tenancies.get(mac),
        }
    }

    /// The address to offer; where none is free, that of the stranger who has let it lapse longest.
    fn candidate(&self, mac: MacAddr, wish: Option<Ipv4Addr>, now: Timestamp) -> Option<Ipv4Addr> {
        let bindings = &self.state.bindings;
        bindings.candidate(mac, wish, &self.pool, now).or_else(|| {
            bindings.of_strangers(&self.pool, now, |holder| match self.state.machines.get(holder) {
                // Forgotten as one of too many strangers.
                None => Some(Timestamp::MIN),
                Some(known) if known.is_stranger() => {
                    let asks_only = known.stage == BootStage::Seen;
                    let lasts = if asks_only { STRANGER_SECONDS.into() } else { FIRMWARE_SECONDS };
                    (later(known.last_seen, lasts) <= now).then_some(known.last_seen)
                }
                Some(_) => None,
            })
        })
    }

    /// Another machine that may boot and came with the same UUID.
    fn twin(&self, mac: MacAddr, uuid: SystemUuid) -> Option<MacAddr> {
        let admission = &self.rules.admission;
        let listed = |mac| admission.machines.iter().any(|machine| machine.mac == mac);
        self.state
            .machines
            .iter()
            .filter(|(other, known)| *other != mac && known.uuid == Some(uuid))
            .filter(|(_, known)| known.quarantine.is_none() && known.stage > BootStage::Seen)
            .map(|(other, _)| other)
            .find(|other| admission.mode == AdmissionMode::Auto || listed(*other))
    }

    /// Remembers whether the machine may boot. `true` when that is news.
    fn note_verdict(
        &mut self,
        mac: MacAddr,
        uuid: Option<SystemUuid>,
        quarantine: Option<&Quarantine>,
    ) -> bool {
        let Some(known) = self.state.machines.get_mut(mac) else { return false };
        let before = (known.uuid, known.quarantine.clone());
        let keep = matches!(quarantine, Some(Quarantine::UuidChanged { .. }));
        known.uuid = if keep { known.uuid } else { uuid.or(known.uuid) };
        known.quarantine = quarantine.map(ToString::to_string);
        before != (known.uuid, known.quarantine.clone())
    }

    /// Remembers a refused ticket. `true` when that is news.
    fn note_refusal(&mut self, mac: Option<MacAddr>, reason: &str) -> bool {
        // What a tenant tries there says nothing about the machine.
        let tenancy = mac.and_then(|mac| self.state.tenancies.get(mac));
        if tenancy.is_some_and(Tenancy::is_held) {
            return false;
        }
        let Some(known) = mac.and_then(|mac| self.state.machines.get_mut(mac)) else {
            return false;
        };
        // The seconds since expiry change with every try: one report is enough.
        let expired = |text: &str| text.starts_with("ticket expired");
        let same = |old: &String| old == reason || (expired(old) && expired(reason));
        let news = !known.refused.as_ref().is_some_and(same);
        known.refused = Some(reason.to_owned());
        news
    }

    /// Moves bindings as the message and the decision say. `true` when a durable one changed.
    fn note_address(
        &mut self,
        request: &Request,
        decision: &Decision,
        answer: Option<Answer>,
        now: Timestamp,
    ) -> bool {
        let bindings = &mut self.state.bindings;
        let to_us = request.server_id.is_none_or(|server| server == self.rules.server);
        match (request.message, answer) {
            (_, Some(Answer::Offer { address, .. })) => {
                bindings.offer(request.mac, address, now);
                false
            }
            // A stranger's address lasts from when it was seen last: that must outlive a restart.
            (_, Some(Answer::Ack { address, boot })) => {
                bindings.bind(request.mac, address) | boot.is_none()
            }
            (ClientMessage::Release, _) if to_us => {
                bindings.release(request.mac, request.ciaddr, now)
            }
            (ClientMessage::Decline, _) if to_us => request
                .requested_ip
                .is_some_and(|address| bindings.decline(request.mac, address, now)),
            _ if matches!(decision, Decision::Silence(Silence::OtherServer(_))) => {
                bindings.withdraw(request.mac)
            }
            _ => false,
        }
    }

    /// Gives the machine a ticket for this boot. `true` when anything changed.
    fn ensure_ticket(
        &mut self,
        request: &Request,
        door: Door,
        kind: ClientKind,
        random: Secret,
        now: Timestamp,
    ) -> bool {
        let (mac, xid) = (request.mac, request.xid);
        let uuid = request.uuid().or_else(|| self.state.machines.get(mac).and_then(|k| k.uuid));
        let current = self.state.tickets.current(mac, now);
        let fits = current.is_some_and(|ticket| match kind {
            ClientKind::Stage1 => ticket.stage1_xid.is_none_or(|taken| taken == xid),
            // The boot server is asked within the same boot, under another transaction.
            _ if door == Door::BootServer => ticket.stage1_xid.is_none(),
            ClientKind::HttpBoot | ClientKind::Pxe => ticket.firmware_xid == Some(xid),
        });
        let secret = match current.filter(|_| fits) {
            Some(ticket) => ticket.secret(),
            None => {
                let ticket = self.state.tickets.mint(random, mac, uuid, now);
                ticket.firmware_xid = (kind != ClientKind::Stage1).then_some(xid);
                ticket.secret()
            }
        };
        if kind == ClientKind::Stage1 {
            let taken = self.state.tickets.find_mut(&secret);
            let first = taken.is_some_and(|ticket| ticket.stage1_xid.replace(xid).is_none());
            if first {
                self.claim_boot(&secret, mac, now);
                self.reached(mac, BootStage::Stage1);
            }
            return first || !fits;
        }
        !fits
    }

    /// The boot that a ticket stands for, counted when stage 1 first shows up with it.
    fn claim_boot(&mut self, secret: &Secret, mac: MacAddr, now: Timestamp) -> u64 {
        let Some(ticket) = self.state.tickets.find_mut(secret) else { return 0 };
        if ticket.boot == 0 {
            let known = self.state.machines.see(mac, now);
            known.boots += 1;
            ticket.boot = known.boots;
            ticket.uuid = ticket.uuid.or(known.uuid);
            // Slow firmware may have used most of the time up.
            ticket.expires = later(now, LIFE_SECONDS);
        }
        ticket.boot
    }

    fn reached(&mut self, mac: MacAddr, stage: BootStage) -> bool {
        let Some(known) = self.state.machines.get_mut(mac) else { return false };
        let before = known.stage;
        known.reached(stage);
        before != known.stage
    }
}

impl Host<'_> {
    /// For a ticket that nobody owns.
    fn nobody() -> Self {
        Self {
            mac: None,
            uuid: None,
            known: None,
            twin: None,
            bound: None,
            candidate: None,
            tenancy: None,
        }
    }
}

fn boot_of(answer: Option<Answer>) -> Option<Boot> {
    match answer? {
        Answer::Offer { boot, .. }
        | Answer::Ack { boot, .. }
        | Answer::AckWithoutAddress { boot } => boot,
        Answer::Nak | Answer::Artefact | Answer::TenantUki | Answer::Enrol => None,
    }
}

impl From<TicketRefusal> for Refusal {
    fn from(refusal: TicketRefusal) -> Self {
        Self::Ticket(refusal)
    }
}

#[cfg(test)]
mod tests;
