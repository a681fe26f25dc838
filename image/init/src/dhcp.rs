//! DHCPv4 as stage 1 speaks it (RFC 2131, 4.4.1): DISCOVER, REQUEST, and strict reading of what answers them.
//!
//! `dhcproto` decodes. It lets pass any magic, any hardware address and options that end early, and it panics on lengths that
//! it does not expect in some options: so it is given only the options that are used here, found by [`used`].

use std::net::Ipv4Addr;

use bulkhead_api::boot::STAGE_ONE_CLASS;
use bulkhead_api::id::{MacAddr, SystemUuid};
use dhcproto::v4::{
    Architecture, DhcpOption, Flags, HType, Message, MessageType, Opcode, OptionCode,
};
use dhcproto::{Decodable as _, Encodable as _};

use crate::http::{BadBase, Base};

/// BOOTP clients and relays drop shorter messages (RFC 1542, 2.1).
const SHORTEST: usize = 300;
/// The magic number in front of the options (RFC 2131, 3), and where they begin.
const MAGIC: [u8; 4] = [99, 130, 83, 99];
const OPTIONS: usize = 240;
/// Options that are read: mask, routers, overload, message type, server, message, boot file.
const USED: [u8; 7] = [1, 3, 52, 53, 54, 56, 67];
/// Options of one byte: padding and end.
const PAD: u8 = 0;
const END: u8 = 255;

/// The machine that asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Hardware address of the NIC.
    pub mac: MacAddr,
    /// System UUID; `None` where the firmware has none.
    pub uuid: Option<SystemUuid>,
    /// Transaction. One for all tries of a boot: the site counts transactions as boots.
    pub xid: u32,
}

/// What a server offers or grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The address.
    pub address: Ipv4Addr,
    /// Length of the network prefix.
    pub prefix: u8,
    /// Default gateway.
    pub gateway: Option<Ipv4Addr>,
    /// Who says so.
    pub server: Ipv4Addr,
    /// Where boot files are; `None`: the server has an address and nothing to boot.
    pub base: Option<Base>,
}

/// An answer to this client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// OFFER.
    Offer(Offer),
    /// ACK.
    Ack(Offer),
    /// NAK, with the server's words if it says any.
    Nak(String),
}

/// Bytes that are no answer to this client, or not a usable one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Not a DHCP answer at all.
    #[error("not a DHCP answer")]
    NotDhcp,
    /// An option that reaches beyond the message, or one given twice.
    #[error("answer with malformed options")]
    Options,
    /// Meant for another machine or transaction.
    #[error("answer to another client")]
    OtherClient,
    /// A message that servers send to nobody who boots.
    #[error("unexpected message type")]
    Kind,
    /// An option that must be there is missing or malformed.
    #[error("answer lacks {0}")]
    Lacks(&'static str),
    /// Numbers that make no network.
    #[error("answer gives {address} with mask {mask}: no usable address")]
    Address {
        /// The address.
        address: Ipv4Addr,
        /// The mask.
        mask: Ipv4Addr,
    },
    /// A boot file that is no folder.
    #[error("boot file of the answer")]
    BootFile(#[source] BadBase),
}

/// A DISCOVER, or the REQUEST that takes an offer.
///
/// # Errors
/// Never for these options; the encoder's error is passed on.
pub fn request(
    client: &Client,
    take: Option<&Offer>,
    seconds: u16,
) -> Result<Vec<u8>, dhcproto::error::EncodeError> {
    let none = Ipv4Addr::UNSPECIFIED;
    let mut message =
        Message::new_with_id(client.xid, none, none, none, none, &client.mac.octets());
    // without an address the kernel takes answers only by broadcast
    message.set_secs(seconds).set_flags(Flags::default().set_broadcast());
    let options = message.opts_mut();
    options.insert(DhcpOption::MaxMessageSize(1472));
    options.insert(DhcpOption::ClassIdentifier(STAGE_ONE_CLASS.as_bytes().to_vec()));
    options.insert(DhcpOption::ClientSystemArchitecture(Architecture(7)));
    options.insert(DhcpOption::ParameterRequestList(vec![
        OptionCode::SubnetMask,
        OptionCode::Router,
        OptionCode::BootfileName,
    ]));
    if let Some(uuid) = client.uuid {
        // type 0, then the UUID as SMBIOS stores it: as firmware sends it (RFC 4578, 2.3)
        let id = [&[0], &uuid.to_smbios()[..]].concat();
        options.insert(DhcpOption::ClientMachineIdentifier(id));
    }
    match take {
        None => {
            options.insert(DhcpOption::MessageType(MessageType::Discover));
        }
        Some(offer) => {
            options.insert(DhcpOption::MessageType(MessageType::Request));
            options.insert(DhcpOption::RequestedIpAddress(offer.address));
            options.insert(DhcpOption::ServerIdentifier(offer.server));
        }
    }
    let mut bytes = message.to_vec()?;
    bytes.resize(bytes.len().max(SHORTEST), 0);
    Ok(bytes)
}

/// Reads an answer to `client`.
///
/// # Errors
/// [`Unusable`].
pub fn answer(client: &Client, bytes: &[u8]) -> Result<Answer, Unusable> {
    let (head, options) = bytes.split_at_checked(OPTIONS).ok_or(Unusable::NotDhcp)?;
    if !head.ends_with(&MAGIC) {
        return Err(Unusable::NotDhcp);
    }
    let options = used(options).ok_or(Unusable::Options)?;
    let message = Message::from_bytes(&[head, &options].concat()).map_err(|_| Unusable::NotDhcp)?;
    if message.opcode() != Opcode::BootReply {
        return Err(Unusable::NotDhcp);
    }
    let for_us = message.htype() == HType::Eth
        && message.hlen() == 6
        && message.xid() == client.xid
        && message.chaddr() == client.mac.octets();
    if !for_us {
        return Err(Unusable::OtherClient);
    }
    match message.opts().msg_type() {
        Some(MessageType::Offer) => Ok(Answer::Offer(offer(&message)?)),
        Some(MessageType::Ack) => Ok(Answer::Ack(offer(&message)?)),
        Some(MessageType::Nak) => Ok(Answer::Nak(words(&message))),
        Some(_) => Err(Unusable::Kind),
        None => Err(Unusable::Lacks("a message type (option 53)")),
    }
}

/// The options of [`USED`] as they came; `None` if any option is cut off or a used one comes twice.
fn used(options: &[u8]) -> Option<Vec<u8>> {
    let (mut rest, mut kept, mut seen) = (options, Vec::new(), Vec::new());
    loop {
        rest = match rest {
            [] | [END, ..] => break,
            [PAD, after @ ..] => after,
            [code, length, after @ ..] => {
                let (value, after) = after.split_at_checked(usize::from(*length))?;
                if USED.contains(code) {
                    if seen.contains(code) {
                        return None;
                    }
                    seen.push(*code);
                    kept.extend([*code, *length]);
                    kept.extend_from_slice(value);
                }
                after
            }
            [_] => return None,
        };
    }
    kept.push(END);
    Some(kept)
}

fn offer(message: &Message) -> Result<Offer, Unusable> {
    let option = |code| message.opts().get(code);
    let Some(DhcpOption::ServerIdentifier(server)) = option(OptionCode::ServerIdentifier) else {
        return Err(Unusable::Lacks("a server identifier (option 54)"));
    };
    let Some(DhcpOption::SubnetMask(mask)) = option(OptionCode::SubnetMask) else {
        return Err(Unusable::Lacks("a subnet mask (option 1)"));
    };
    let address = message.yiaddr();
    let prefix = prefix(address, *mask).ok_or(Unusable::Address { address, mask: *mask })?;
    let gateway = match option(OptionCode::Router) {
        Some(DhcpOption::Router(routers)) => routers.first().copied(),
        _ => None,
    };
    // a gateway outside the network could not be reached
    let same_network =
        |other: Ipv4Addr| other.to_bits() & mask.to_bits() == address.to_bits() & mask.to_bits();
    let gateway = gateway.filter(|gateway| same_network(*gateway) && *gateway != address);
    Ok(Offer { address, prefix, gateway, server: *server, base: boot_file(message)? })
}

/// Prefix length, if `address` is one that a host of such a network can have.
fn prefix(address: Ipv4Addr, mask: Ipv4Addr) -> Option<u8> {
    let bits = mask.to_bits();
    let ones = bits.leading_ones();
    let contiguous = bits.checked_shl(ones).unwrap_or(0) == 0;
    let host = address.to_bits() & !bits;
    let usable = (1..=30).contains(&ones)
        && contiguous
        && host != 0
        && host != !bits
        && !address.is_loopback()
        && !address.is_multicast()
        && !address.is_unspecified();
    u8::try_from(ones).ok().filter(|_| usable)
}

/// Option 67, else the field `file` unless options overflow into it.
fn boot_file(message: &Message) -> Result<Option<Base>, Unusable> {
    let text = match message.opts().get(OptionCode::BootfileName) {
        Some(DhcpOption::BootfileName(text)) => text.as_slice(),
        _ if message.opts().get(OptionCode::OptionOverload).is_some() => return Ok(None),
        _ => message.fname().unwrap_or_default(),
    };
    let text = text.strip_suffix(&[0]).unwrap_or(text);
    if text.is_empty() {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(text);
    Base::parse(&text).map(Some).map_err(Unusable::BootFile)
}

fn words(message: &Message) -> String {
    match message.opts().get(OptionCode::Message) {
        Some(DhcpOption::Message(text)) => text.escape_default().to_string(),
        _ => "no reason given".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn client() -> Client {
        Client {
            mac: "52:54:00:00:09:01".parse().unwrap(),
            uuid: Some("11111111-2222-3333-4444-555555555555".parse().unwrap()),
            xid: 0x1234_5678,
        }
    }

    /// A reply put together byte by byte.
    fn reply(kind: u8, file: &[u8], options: &[(u8, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![2, 1, 6, 0, 0x12, 0x34, 0x56, 0x78, 0, 0, 0x80, 0];
        bytes.extend([0, 0, 0, 0, 10, 9, 0, 100, 10, 9, 0, 1, 0, 0, 0, 0]);
        bytes.extend([0x52, 0x54, 0, 0, 9, 1]);
        bytes.resize(108, 0);
        bytes.extend(file);
        bytes.resize(236, 0);
        bytes.extend([99, 130, 83, 99, 53, 1, kind]);
        for (code, value) in options {
            bytes.extend([*code, u8::try_from(value.len()).unwrap()]);
            bytes.extend(*value);
        }
        bytes.push(255);
        bytes
    }

    const SERVER: (u8, &[u8]) = (54, &[10, 9, 0, 1]);
    const MASK: (u8, &[u8]) = (1, &[255, 255, 255, 0]);
    const URL: &[u8] = b"http://10.9.0.1/b/00/";

    fn expected() -> Offer {
        Offer {
            address: Ipv4Addr::new(10, 9, 0, 100),
            prefix: 24,
            gateway: None,
            server: Ipv4Addr::new(10, 9, 0, 1),
            base: Some(Base::parse("http://10.9.0.1/b/00/").unwrap()),
        }
    }

    #[test]
    fn the_requests_say_who_asks_and_what_is_taken() {
        let discover = request(&client(), None, 3).unwrap();
        assert!(discover.len() >= SHORTEST);
        assert_eq!(discover[..12], [1, 1, 6, 0, 0x12, 0x34, 0x56, 0x78, 0, 3, 0x80, 0]);
        let has = |bytes: &[u8], option: &[u8]| bytes.windows(option.len()).any(|w| w == option);
        assert!(has(&discover, &[53, 1, 1]) && has(&discover, b"\x3c\x0fbulkhead-stage1"));
        assert!(has(
            &discover,
            &[97, 17, 0, 0x11, 0x11, 0x11, 0x11, 0x22, 0x22, 0x33, 0x33, 0x44, 0x44]
        ));
        assert!(has(&discover, &[93, 2, 0, 7]) && has(&discover, &[55, 3]));
        let take = request(&client(), Some(&expected()), 0).unwrap();
        assert!(has(&take, &[53, 1, 3]) && has(&take, &[50, 4, 10, 9, 0, 100]));
        assert!(has(&take, &[54, 4, 10, 9, 0, 1]));
    }

    #[test]
    fn an_offer_is_read_with_its_boot_file_in_either_place() {
        let by_option = reply(2, b"", &[SERVER, MASK, (67, URL)]);
        assert_eq!(answer(&client(), &by_option), Ok(Answer::Offer(expected())));
        let by_field = reply(5, URL, &[SERVER, MASK]);
        assert_eq!(answer(&client(), &by_field), Ok(Answer::Ack(expected())));
        let none = reply(2, b"", &[SERVER, MASK, (3, &[10, 9, 0, 254])]);
        let gateway = Some(Ipv4Addr::new(10, 9, 0, 254));
        assert_eq!(
            answer(&client(), &none),
            Ok(Answer::Offer(Offer { base: None, gateway, ..expected() }))
        );
    }

    #[test]
    fn a_gateway_of_another_network_is_left_out() {
        let bytes = reply(2, URL, &[SERVER, MASK, (3, &[10, 8, 0, 1])]);
        assert_eq!(answer(&client(), &bytes), Ok(Answer::Offer(expected())));
    }

    #[test]
    fn a_refusal_tells_why() {
        let bytes = reply(6, b"", &[SERVER, (56, b"wrong\x1bnetwork")]);
        assert_eq!(answer(&client(), &bytes), Ok(Answer::Nak("wrong\\u{1b}network".into())));
    }

    #[test]
    fn answers_to_others_and_half_answers_are_unusable() {
        let good = reply(2, URL, &[SERVER, MASK]);
        let mut other = good.clone();
        other[33] ^= 1;
        assert_eq!(answer(&client(), &other), Err(Unusable::OtherClient));
        let mut other = good.clone();
        other[7] ^= 1;
        assert_eq!(answer(&client(), &other), Err(Unusable::OtherClient));
        let mut request = good.clone();
        request[0] = 1;
        assert_eq!(answer(&client(), &request), Err(Unusable::NotDhcp));
        let mut magic = good.clone();
        magic[237] = 0;
        assert_eq!(answer(&client(), &magic), Err(Unusable::NotDhcp));
        let lacks =
            |options: &[(u8, &[u8])]| answer(&client(), &reply(2, URL, options)).unwrap_err();
        assert!(matches!(lacks(&[MASK]), Unusable::Lacks(_)));
        assert!(matches!(lacks(&[SERVER]), Unusable::Lacks(_)));
        assert!(matches!(lacks(&[SERVER, (1, &[255, 0])]), Unusable::Lacks(_)));
        assert!(matches!(lacks(&[SERVER, (1, &[255, 0, 255, 0])]), Unusable::Address { .. }));
        assert!(matches!(lacks(&[SERVER, (1, &[255, 255, 255, 255])]), Unusable::Address { .. }));
        assert!(matches!(lacks(&[SERVER, MASK, (67, b"uki.efi")]), Unusable::BootFile(_)));
        assert_eq!(lacks(&[SERVER, SERVER, MASK]), Unusable::Options);
        let mut cut = good.clone();
        cut.truncate(good.len() - 3);
        assert_eq!(answer(&client(), &cut), Err(Unusable::Options));
        assert_eq!(answer(&client(), &reply(8, URL, &[SERVER, MASK])), Err(Unusable::Kind));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = answer(&client(), &bytes);
        }

        #[test]
        fn any_change_of_an_answer_is_read_or_refused(at in 0usize..300, value: u8, cut in 0usize..300) {
            let mut bytes = reply(2, URL, &[SERVER, MASK, (3, &[10, 9, 0, 254]), (67, URL)]);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            bytes.truncate(cut);
            let _ = answer(&client(), &bytes);
        }

        #[test]
        fn any_options_are_read_or_refused(options in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = reply(2, URL, &[SERVER, MASK]);
            bytes.pop();
            bytes.extend(options);
            let _ = answer(&client(), &bytes);
        }
    }
}
