//! The one decision for DHCP, TFTP, HTTP and enrolment: a total function of what was asked, what is
//! known, and the rules. No clock, no socket, no randomness.
//!
//! ```text
//!   Ask::{Dhcp, Artefact, Enrol} ─┐
//!   Host: machine, twin, binding ─┼─ decide ─► Reply | Silence(reason) | Refuse(reason) | Quarantine(reason)
//!   Rules: subnet, admission ─────┘
//! ```
//!
//! A machine that may not boot gets an address and no boot file; its tickets open nothing, whichever
//! protocol it asks by. A machine that a tenant has to itself gets the tenant's UKI and nothing of ours.

use std::net::Ipv4Addr;

use bulkhead_api::id::{LeaseId, MacAddr, SystemUuid};
use bulkhead_api::site::{Admission, AdmissionMode};
use bulkhead_api::time::Timestamp;

use crate::client::{ClientKind, UnknownClient, classify};
use crate::machines::Known;
use crate::tenancy::Tenancy;
use crate::tickets::TicketRefusal;
use crate::wire::dhcp4::{ClientMessage, Request};

/// An IPv4 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    /// An address in it.
    pub address: Ipv4Addr,
    /// Length of the network prefix, 1..=30.
    pub prefix: u8,
}

impl Subnet {
    /// The netmask.
    #[must_use]
    pub fn mask(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32))).unwrap_or(0))
    }

    /// Whether `address` is in it.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        let mask = self.mask().to_bits();
        address.to_bits() & mask == self.address.to_bits() & mask
    }
}

/// What the site is told to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// This server's address: option 54, siaddr, and where artefacts are.
    pub server: Ipv4Addr,
    /// The site network.
    pub subnet: Subnet,
    /// Who may boot.
    pub admission: Admission,
    /// The only DHCP server of the network: it may refuse addresses of another one.
    pub authoritative: bool,
}

/// Where a DHCP message arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Port 67.
    Server,
    /// Port 4011: firmware asks for the boot file alone.
    BootServer,
}

/// What is asked.
#[derive(Debug)]
pub enum Ask<'a> {
    /// A DHCP message.
    Dhcp(&'a Request, Door),
    /// A boot artefact by TFTP or HTTP. The ticket was looked up; `from` is the client's address.
    Artefact {
        /// Outcome of the look-up.
        ticket: Result<(), TicketRefusal>,
        /// Address the request came from.
        from: Ipv4Addr,
    },
    /// A tenant's UKI by TFTP or HTTP.
    TenantUki {
        /// The digest in its name.
        sha256: &'a str,
        /// Address the request came from.
        from: Ipv4Addr,
    },
    /// The one enrolment of a ticket.
    Enrol {
        /// Outcome of the look-up.
        ticket: Result<(), TicketRefusal>,
    },
    /// A new certificate for a host that has one.
    Renew {
        /// The machine asked for is the one that became the certificate's host.
        is_its_own: bool,
    },
}

/// What is known of the machine that asks.
#[derive(Debug, Clone, Copy)]
pub struct Host<'a> {
    /// Its hardware address: of the DHCP message, or of the ticket's owner. `None` for a bad ticket.
    pub mac: Option<MacAddr>,
    /// Its system UUID as of now.
    pub uuid: Option<SystemUuid>,
    /// What is remembered.
    pub known: Option<&'a Known>,
    /// Another machine that may boot and has the same UUID.
    pub twin: Option<MacAddr>,
    /// Address it uses or was offered.
    pub bound: Option<Ipv4Addr>,
    /// Address that could be offered.
    pub candidate: Option<Ipv4Addr>,
    /// A tenant has or had it to itself.
    pub tenancy: Option<&'a Tenancy>,
}

impl<'a> Host<'a> {
    /// The tenancy, while nothing of ours is for the machine.
    fn held(&self) -> Option<&'a Tenancy> {
        self.tenancy.filter(|tenancy| tenancy.is_held())
    }
}

/// The decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Serve what was asked. For a client that does not boot: an address.
    Reply(Answer),
    /// No packet.
    Silence(Silence),
    /// Turn the artefact or enrolment down, with the reason.
    Refuse(Refusal),
    /// The machine may not boot: an address if it asked for one, no boot file, listed with the reason.
    Quarantine(Quarantine, Option<Answer>),
}

/// What a client is pointed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boot {
    /// Our image, by a ticket.
    Ours(ClientKind),
    /// The UKI of the tenant that has the machine.
    Tenants(ClientKind),
}

/// What is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Offer `address`.
    Offer {
        /// The address.
        address: Ipv4Addr,
        /// What it boots; `None`: nothing.
        boot: Option<Boot>,
    },
    /// Acknowledge `address`.
    Ack {
        /// The address.
        address: Ipv4Addr,
        /// What it boots; `None`: nothing.
        boot: Option<Boot>,
    },
    /// Acknowledge without an address: INFORM, or a question to the boot server.
    AckWithoutAddress {
        /// What it boots; `None`: nothing.
        boot: Option<Boot>,
    },
    /// The address asked for is certainly wrong here.
    Nak,
    /// The artefact.
    Artefact,
    /// The tenant's UKI.
    TenantUki,
    /// Forward the enrolment.
    Enrol,
}

/// Why nothing is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Silence {
    /// The client took another server's offer.
    #[error("client chose server {0}")]
    OtherServer(Ipv4Addr),
    /// Relayed from a network that is not ours.
    #[error("relay {0} is outside the site network")]
    ForeignRelay(Ipv4Addr),
    /// It asks for an address that it was never given; whether another server gave it is unknown.
    #[error("address {0} was not given to it here")]
    NotOurs(Ipv4Addr),
    /// Every address is taken.
    #[error("no address left in the pool")]
    PoolExhausted,
    /// RELEASE and DECLINE have no answer.
    #[error("message has no answer")]
    NoAnswerDefined,
    /// Port 4011 serves boot firmware that has an address.
    #[error("not a question for the boot server")]
    NotForBootServer,
    /// A REQUEST that names no address at all.
    #[error("request without an address")]
    NoAddress,
}

/// Why an artefact or enrolment is turned down.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The ticket does not open it.
    #[error(transparent)]
    Ticket(TicketRefusal),
    /// The request comes from another address than the ticket's machine was given.
    #[error("request from {from}, the ticket's machine was given {bound}")]
    WrongAddress {
        /// Where it came from.
        from: Ipv4Addr,
        /// What was given.
        bound: Ipv4Addr,
    },
    /// A renewal for a machine that did not become the certificate's host.
    #[error("the certificate's host is not the machine that it asks for")]
    OtherHost,
    /// The ticket's machine has no address here.
    #[error("request from {0}, the ticket's machine has no address here")]
    NoBinding(Ipv4Addr),
    /// Nothing of ours is for it.
    #[error("the machine is in the hands of the tenant of lease {0}")]
    HandedOver(LeaseId),
    /// No tenant's UKI, or one of another machine.
    #[error("request from {0}, which is no machine that boots this")]
    NoTenantUki(Ipv4Addr),
}

/// Why a machine may not boot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Quarantine {
    /// Nothing here fits it.
    #[error(transparent)]
    Client(UnknownClient),
    /// Admission is by list.
    #[error("MAC {0} is not on the site's admission list")]
    NotListed(MacAddr),
    /// On the list with another UUID.
    #[error("MAC {mac} is listed with UUID {listed}, the machine says {shown}")]
    ListedUuid {
        /// The machine.
        mac: MacAddr,
        /// On the list.
        listed: SystemUuid,
        /// What it sent; `none` when nothing.
        shown: String,
    },
    /// The UUID of another machine.
    #[error("UUID {uuid} belongs to machine {twin}: two machines cannot share it")]
    Twin {
        /// The UUID.
        uuid: SystemUuid,
        /// Who had it first.
        twin: MacAddr,
    },
    /// It came with another UUID before.
    #[error("MAC {mac} came with UUID {before} before, now with {now}")]
    UuidChanged {
        /// The machine.
        mac: MacAddr,
        /// Before.
        before: SystemUuid,
        /// Now.
        now: SystemUuid,
    },
    /// Barred for a while: it boots in a circle, or the registry refused it.
    #[error("{0}")]
    Barred(String),
}

/// Decides. Total: every input has an answer.
#[must_use]
pub fn decide(ask: &Ask<'_>, host: &Host<'_>, rules: &Rules, now: Timestamp) -> Decision {
    match ask {
        Ask::Dhcp(request, door) => decide_dhcp(request, *door, host, rules, now),
        Ask::TenantUki { sha256, from } => {
            let offered = host.held().is_some_and(|t| t.offers_uki() && t.uki_sha256 == *sha256);
            if !offered || host.bound != Some(*from) {
                return Decision::Refuse(Refusal::NoTenantUki(*from));
            }
            admitted_or(host, rules, now, Answer::TenantUki)
        }
        Ask::Artefact { ticket, from } => {
            if let Err(refusal) = ticket {
                return Decision::Refuse(Refusal::Ticket(refusal.clone()));
            }
            if let Some(held) = host.held() {
                return Decision::Refuse(Refusal::HandedOver(held.lease.clone()));
            }
            match host.bound {
                None => return Decision::Refuse(Refusal::NoBinding(*from)),
                Some(bound) if bound != *from => {
                    return Decision::Refuse(Refusal::WrongAddress { from: *from, bound });
                }
                Some(_) => {}
            }
            admitted_or(host, rules, now, Answer::Artefact)
        }
        Ask::Enrol { ticket: Err(refusal) } => Decision::Refuse(Refusal::Ticket(refusal.clone())),
        Ask::Enrol { ticket: Ok(()) } | Ask::Renew { is_its_own: true } => match host.held() {
            Some(held) => Decision::Refuse(Refusal::HandedOver(held.lease.clone())),
            None => admitted_or(host, rules, now, Answer::Enrol),
        },
        Ask::Renew { is_its_own: false } => Decision::Refuse(Refusal::OtherHost),
    }
}

fn admitted_or(host: &Host<'_>, rules: &Rules, now: Timestamp, answer: Answer) -> Decision {
    match admission(host, rules, now) {
        Ok(()) => Decision::Reply(answer),
        Err(why) => Decision::Quarantine(why, None),
    }
}

/// Whether the machine may boot, by identity alone.
///
/// # Errors
/// The first reason against it.
pub fn admission(host: &Host<'_>, rules: &Rules, now: Timestamp) -> Result<(), Quarantine> {
    let Some(mac) = host.mac else { return Ok(()) };
    if rules.admission.mode == AdmissionMode::List {
        let listed = rules.admission.machines.iter().find(|machine| machine.mac == mac);
        let Some(listed) = listed else { return Err(Quarantine::NotListed(mac)) };
        if let Some(uuid) = listed.uuid.filter(|uuid| Some(*uuid) != host.uuid) {
            let shown = host.uuid.map_or_else(|| "none".to_owned(), |uuid| uuid.to_string());
            return Err(Quarantine::ListedUuid { mac, listed: uuid, shown });
        }
    }
    if let (Some(uuid), Some(twin)) = (host.uuid, host.twin) {
        return Err(Quarantine::Twin { uuid, twin });
    }
    let before = host.known.and_then(|known| known.uuid);
    if let (Some(before), Some(shown)) = (before, host.uuid)
        && before != shown
    {
        return Err(Quarantine::UuidChanged { mac, before, now: shown });
    }
    match host.known.and_then(|known| known.barred(now)) {
        Some(barred) => Err(Quarantine::Barred(barred.reason.clone())),
        None => Ok(()),
    }
}

fn decide_dhcp(
    request: &Request,
    door: Door,
    host: &Host<'_>,
    rules: &Rules,
    now: Timestamp,
) -> Decision {
    let relayed = !request.giaddr.is_unspecified();
    if relayed && !rules.subnet.contains(request.giaddr) {
        return Decision::Silence(Silence::ForeignRelay(request.giaddr));
    }
    let address = match addressing(request, door, host, rules) {
        Ok(address) => address,
        Err(decision) => return decision,
    };
    let (kind, verdict) = match classify(&request.vendor_class, &request.archs) {
        Ok(kind) => (kind, admission(host, rules, now)),
        Err(unknown) => (None, Err(Quarantine::Client(unknown))),
    };
    let answer = |boot| match (address, request.message) {
        (None, _) => Answer::AckWithoutAddress { boot },
        (Some(address), ClientMessage::Discover) => Answer::Offer { address, boot },
        (Some(address), _) => Answer::Ack { address, boot },
    };
    let boot = boot(kind, host.held());
    let pxe = matches!(boot, Some(Boot::Ours(ClientKind::Pxe) | Boot::Tenants(ClientKind::Pxe)));
    if door == Door::BootServer && !pxe && verdict.is_ok() {
        return Decision::Silence(Silence::NotForBootServer);
    }
    match verdict {
        // Only firmware and stage 1 are told apart here; an INFORM never boots.
        Ok(()) if request.message == ClientMessage::Inform => Decision::Reply(answer(None)),
        Ok(()) => Decision::Reply(answer(boot)),
        // The boot server's answer would be a boot file: there is nothing else to say.
        Err(why) if door == Door::BootServer => Decision::Quarantine(why, None),
        Err(why) => Decision::Quarantine(why, Some(answer(None))),
    }
}

/// What a client that may boot is pointed to. Our stage 1 on a machine that is held is somebody's imitation.
fn boot(kind: Option<ClientKind>, held: Option<&Tenancy>) -> Option<Boot> {
    let kind = kind?;
    match held {
        None => Some(Boot::Ours(kind)),
        Some(held) if held.offers_uki() && kind != ClientKind::Stage1 => Some(Boot::Tenants(kind)),
        Some(_) => None,
    }
}

/// The address to answer with, `None` for answers that carry none (RFC 2131, 4.3).
fn addressing(
    request: &Request,
    door: Door,
    host: &Host<'_>,
    rules: &Rules,
) -> Result<Option<Ipv4Addr>, Decision> {
    let silence = |why| Err(Decision::Silence(why));
    if door == Door::BootServer {
        let question = request.message == ClientMessage::Request && host.bound.is_some();
        return if question { Ok(None) } else { silence(Silence::NotForBootServer) };
    }
    match request.message {
        ClientMessage::Discover => match host.candidate {
            Some(address) => Ok(Some(address)),
            None => silence(Silence::PoolExhausted),
        },
        ClientMessage::Inform => Ok(None),
        ClientMessage::Release | ClientMessage::Decline => silence(Silence::NoAnswerDefined),
        ClientMessage::Request => {
            if let Some(other) = request.server_id.filter(|server| *server != rules.server) {
                return silence(Silence::OtherServer(other));
            }
            let in_use = (!request.ciaddr.is_unspecified()).then_some(request.ciaddr);
            let Some(wanted) = request.requested_ip.or(in_use) else {
                return silence(Silence::NoAddress);
            };
            if host.bound == Some(wanted) {
                return Ok(Some(wanted));
            }
            // SELECTING us: the offer it answers is ours, so the refusal is ours too. Else only an
            // address that cannot work in this network is refused (RFC 2131, 4.3.2).
            let selecting = request.server_id.is_some();
            let wrong_network = rules.authoritative && !rules.subnet.contains(wanted);
            if selecting || wrong_network {
                return Err(Decision::Reply(Answer::Nak));
            }
            silence(Silence::NotOurs(wanted))
        }
    }
}

#[cfg(test)]
mod tests;
