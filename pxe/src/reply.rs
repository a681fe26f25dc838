//! From an answer to the DHCP message that firmware understands, and where it is sent.
//!
//! Each boot class gets its own form: a TFTP name in an HTTPClient reply, or the reverse, makes
//! firmware drop the offer. The class word alone is echoed, never the client's whole text.

use std::net::Ipv4Addr;

use bulkhead_api::boot::STAGE_ONE_CLASS;

use crate::client::ClientKind;
use crate::policy::{Answer, Door, Rules};
use crate::tickets::Secret;
use crate::wire::dhcp4::{Reply, Request, ServerMessage, code};

/// RFC 2131, 3.3: never ends.
const FOREVER: u32 = u32::MAX;
/// Machines that may not boot ask again this often, so that a later admission is noticed.
pub const STRANGER_SECONDS: u32 = 300;
/// PXE 2.1, 2.2.3: sub-option 6 (discovery control) with bit 3: take the boot file as it is, no
/// discovery. Exactly one byte: EDK2 reads no more.
const PXE_NO_DISCOVERY: [u8; 4] = [6, 1, 8, 255];

/// Where a reply goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// To the relay, port 67.
    Relay(Ipv4Addr),
    /// To the client, which has this address, port 68.
    Client(Ipv4Addr),
    /// To everybody on the interface it came from, port 68.
    Broadcast,
    /// Back to the socket that asked (port 4011).
    Sender,
}

/// Where the reply to `request` goes (RFC 2131, 4.1). A client without an address is always answered
/// by broadcast: it may not take unicast before it has one, whatever its flag says.
#[must_use]
pub fn destination(request: &Request, answer: Answer, door: Door) -> Destination {
    if door == Door::BootServer {
        Destination::Sender
    } else if !request.giaddr.is_unspecified() {
        Destination::Relay(request.giaddr)
    } else if answer == Answer::Nak || request.ciaddr.is_unspecified() {
        Destination::Broadcast
    } else {
        Destination::Client(request.ciaddr)
    }
}

/// What is booted.
#[derive(Debug, Clone, Copy)]
pub enum BootFile<'a> {
    /// Our image, by this ticket.
    Ours(Secret),
    /// A tenant's UKI of this digest.
    Tenants(&'a str),
}

/// What a client that may boot is pointed to.
#[derive(Debug, Clone, Copy)]
pub struct BootOffer<'a> {
    /// Class of the client.
    pub kind: ClientKind,
    /// What it boots.
    pub file: BootFile<'a>,
    /// `http://address[:port]`, without a slash at the end.
    pub http_base: &'a str,
}

impl BootOffer<'_> {
    fn boot_file(&self) -> String {
        let path = match self.file {
            BootFile::Ours(ticket) => format!("b/{}", ticket.expose()),
            BootFile::Tenants(sha256) => format!("t/{sha256}"),
        };
        match self.kind {
            ClientKind::HttpBoot => format!("{}/{path}/uki.efi", self.http_base),
            ClientKind::Pxe => format!("{path}/uki.efi"),
            ClientKind::Stage1 => format!("{}/{path}/", self.http_base),
        }
    }
}

/// Builds the message. `None` for answers that are not DHCP's.
#[must_use]
pub fn build(
    request: &Request,
    answer: Answer,
    boot: Option<BootOffer<'_>>,
    rules: &Rules,
) -> Option<Reply> {
    let none = Ipv4Addr::UNSPECIFIED;
    let (message, yiaddr) = match answer {
        Answer::Offer { address, .. } => (ServerMessage::Offer, address),
        Answer::Ack { address, .. } => (ServerMessage::Ack, address),
        Answer::AckWithoutAddress { .. } => (ServerMessage::Ack, none),
        Answer::Nak => (ServerMessage::Nak, none),
        Answer::Artefact | Answer::TenantUki | Answer::Enrol => return None,
    };
    let nak = message == ServerMessage::Nak;
    let relayed = !request.giaddr.is_unspecified();
    let mut reply = Reply {
        message,
        xid: request.xid,
        // A relay must broadcast a NAK: the client has no address that works (RFC 2131, 4.3.2).
        flags: if nak && relayed { request.flags | 0x8000 } else { request.flags },
        ciaddr: if message == ServerMessage::Ack { request.ciaddr } else { none },
        yiaddr,
        siaddr: none,
        giaddr: request.giaddr,
        mac: request.mac.octets(),
        sname: String::new(),
        boot_file: String::new(),
        terminate_boot_file: false,
        server_id: rules.server,
        options: Vec::new(),
        // Option 82 belongs to the relay; without one it is a client's forgery.
        relay: request.relay.clone().filter(|_| relayed),
        max_size: request.max_size,
    };
    if nak {
        reply.options.push((code::MESSAGE, b"address does not fit this network".to_vec()));
    } else {
        if !yiaddr.is_unspecified() {
            lease_times(&mut reply, boot.is_some());
        }
        reply.options.push((code::SUBNET_MASK, rules.subnet.mask().octets().to_vec()));
        if let Some(boot) = boot {
            boot_options(&mut reply, &boot, rules, request.has_ipxe_options);
        }
        if let Some(id) = &request.machine_id {
            reply.options.push((code::MACHINE_ID, id.clone()));
        }
    }
    if let Some(id) = &request.client_id {
        reply.options.push((code::CLIENT_ID, id.clone()));
    }
    Some(reply)
}

fn lease_times(reply: &mut Reply, boots: bool) {
    let seconds = if boots { FOREVER } else { STRANGER_SECONDS };
    reply.options.push((code::LEASE_TIME, seconds.to_be_bytes().to_vec()));
    if !boots {
        reply.options.push((code::RENEWAL, (seconds / 2).to_be_bytes().to_vec()));
        reply.options.push((code::REBINDING, (seconds / 8 * 7).to_be_bytes().to_vec()));
    }
}

fn boot_options(reply: &mut Reply, boot: &BootOffer<'_>, rules: &Rules, ipxe: bool) {
    reply.siaddr = rules.server;
    reply.boot_file = boot.boot_file();
    let class: &[u8] = match boot.kind {
        ClientKind::HttpBoot => b"HTTPClient",
        ClientKind::Pxe => b"PXEClient",
        ClientKind::Stage1 => STAGE_ONE_CLASS.as_bytes(),
    };
    reply.options.push((code::VENDOR_CLASS, class.to_vec()));
    reply.terminate_boot_file = boot.kind != ClientKind::Stage1;
    if boot.kind == ClientKind::Pxe {
        // Clients differ in where they look for the server: siaddr, 54, sname or 66.
        let server = rules.server.to_string();
        reply.options.push((code::VENDOR, PXE_NO_DISCOVERY.to_vec()));
        reply.options.push((code::TFTP_SERVER, server.clone().into_bytes()));
        reply.sname = server;
    }
    if ipxe {
        // 176 = no-pxedhcp: do not wait two seconds for other boot servers.
        reply.options.push((code::IPXE, vec![176, 1, 1]));
    }
}

#[cfg(test)]
mod tests;
