//! What a client said, by type.

use std::net::Ipv4Addr;

use bulkhead_api::id::{MacAddr, SystemUuid};
use dhcproto::v4::{Decodable, Decoder, DhcpOption, Message, MessageType, OptionCode};

use super::code;
use super::scan::{COOKIE, DecodeError, HEADER, RawOptions, scan};

/// Message types that clients send to servers (RFC 2131, 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names of RFC 2131")]
pub enum ClientMessage {
    Discover,
    Request,
    Decline,
    Release,
    Inform,
}

/// A checked client message. Values that must be mirrored byte for byte stay bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What the client wants.
    pub message: ClientMessage,
    /// Transaction id, mirrored.
    pub xid: u32,
    /// Seconds since the client began, as it counts.
    pub secs: u16,
    /// Flags, mirrored; the highest bit asks for a broadcast answer.
    pub flags: u16,
    /// The client's address where it already uses one; else 0.0.0.0.
    pub ciaddr: Ipv4Addr,
    /// The relay that passed this on; 0.0.0.0 when none did.
    pub giaddr: Ipv4Addr,
    /// Relays passed.
    pub hops: u8,
    /// The client's hardware address.
    pub mac: MacAddr,
    /// Option 50.
    pub requested_ip: Option<Ipv4Addr>,
    /// Option 54.
    pub server_id: Option<Ipv4Addr>,
    /// Option 57 in bytes.
    pub max_size: Option<u16>,
    /// Option 60.
    pub vendor_class: Vec<u8>,
    /// Option 77 as sent (RFC 3004 framing or iPXE's plain text).
    pub user_class: Vec<u8>,
    /// Option 61.
    pub client_id: Option<Vec<u8>>,
    /// Option 93, every architecture in the client's order.
    pub archs: Vec<u16>,
    /// Option 97 as sent: absent, empty or 17 bytes.
    pub machine_id: Option<Vec<u8>>,
    /// Option 82 as sent.
    pub relay: Option<Vec<u8>>,
    /// Option 175 is there: iPXE.
    pub has_ipxe_options: bool,
}

impl Request {
    /// The system UUID of option 97; `None` when absent, empty or unset (all zeros or ones).
    #[must_use]
    pub fn uuid(&self) -> Option<SystemUuid> {
        let raw = self.machine_id.as_deref()?;
        let (_, uuid) = raw.split_first()?;
        let uuid = SystemUuid::from_smbios(<[u8; 16]>::try_from(uuid).ok()?);
        (!uuid.is_unset()).then_some(uuid)
    }
}

/// Decodes one datagram of a client.
///
/// # Errors
/// See [`DecodeError`]; the datagram is then ignored and counted.
pub fn decode(datagram: &[u8]) -> Result<Request, DecodeError> {
    let raw = scan(datagram)?;
    let header = datagram.get(..HEADER).ok_or(DecodeError::Size(datagram.len()))?;
    let message = inner(header, &raw)?;
    let kind = match message.opts().get(OptionCode::MessageType) {
        Some(DhcpOption::MessageType(kind)) => client_message(*kind)?,
        _ => return Err(DecodeError::NoMessageType),
    };
    let mac = <[u8; 6]>::try_from(message.chaddr())
        .map(MacAddr::new)
        .map_err(|_| DecodeError::Hardware { htype: 1, hlen: message.hlen() })?;
    if mac.octets() == [0; 6] || mac.octets().first().is_some_and(|first| first & 1 == 1) {
        return Err(DecodeError::Station(mac));
    }
    let machine_id = raw.get(code::MACHINE_ID);
    if let Some([kind @ 1..=255, ..]) = machine_id {
        return Err(DecodeError::Value { code: code::MACHINE_ID, value: (*kind).into() });
    }
    let address = |wanted| match message.opts().get(wanted) {
        Some(DhcpOption::RequestedIpAddress(ip) | DhcpOption::ServerIdentifier(ip)) => Some(*ip),
        _ => None,
    };
    let max_size = match message.opts().get(OptionCode::MaxMessageSize) {
        Some(DhcpOption::MaxMessageSize(size)) => Some(*size),
        _ => None,
    };
    let archs = raw.get(code::ARCH).unwrap_or_default().as_chunks::<2>().0;
    let bytes = |wanted| raw.get(wanted).map(<[u8]>::to_vec);
    Ok(Request {
        message: kind,
        xid: message.xid(),
        secs: message.secs(),
        flags: message.flags().into(),
        ciaddr: message.ciaddr(),
        giaddr: message.giaddr(),
        hops: message.hops(),
        mac,
        requested_ip: address(OptionCode::RequestedIpAddress),
        server_id: address(OptionCode::ServerIdentifier),
        max_size,
        vendor_class: bytes(code::VENDOR_CLASS).unwrap_or_default(),
        user_class: bytes(code::USER_CLASS).unwrap_or_default(),
        client_id: bytes(code::CLIENT_ID),
        archs: archs.iter().map(|pair| u16::from_be_bytes(*pair)).collect(),
        machine_id: bytes(code::MACHINE_ID),
        relay: bytes(code::RELAY),
        has_ipxe_options: raw.get(code::IPXE).is_some(),
    })
}

/// Hands `dhcproto` the header and the options of fixed, checked length; nothing else reaches it.
fn inner(header: &[u8], raw: &RawOptions) -> Result<Message, DecodeError> {
    let mut checked = header.to_vec();
    checked.extend_from_slice(&COOKIE);
    for wanted in [code::MESSAGE_TYPE, code::REQUESTED_IP, code::SERVER_ID, code::MAX_SIZE] {
        if let Some(value) = raw.get(wanted) {
            let length = u8::try_from(value.len()).map_err(|_| DecodeError::Length {
                code: wanted,
                length: value.len(),
                expected: "at most 255",
            })?;
            checked.extend_from_slice(&[wanted, length]);
            checked.extend_from_slice(value);
        }
    }
    checked.push(code::END);
    Message::decode(&mut Decoder::new(&checked))
        .map_err(|error| DecodeError::Inner(error.to_string()))
}

fn client_message(kind: MessageType) -> Result<ClientMessage, DecodeError> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all other types are refused, also those that a later dhcproto adds"
    )]
    match kind {
        MessageType::Discover => Ok(ClientMessage::Discover),
        MessageType::Request => Ok(ClientMessage::Request),
        MessageType::Decline => Ok(ClientMessage::Decline),
        MessageType::Release => Ok(ClientMessage::Release),
        MessageType::Inform => Ok(ClientMessage::Inform),
        other => Err(DecodeError::MessageType(other.into())),
    }
}
