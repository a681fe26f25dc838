//! Fields and values of matches and sets, as `nft -j` prints them.

use serde_json::Value;

use super::json_value::At;
use super::{Field, JsonError, Kind, number, text};

/// A value, a prefix or a range.
pub(super) fn span(at: &At<'_>, kind: Kind, names: &Names) -> Result<(u128, u128), JsonError> {
    let Value::Object(_) = at.value else {
        let number = scalar(at, kind, names)?;
        return Ok((number, number));
    };
    let (word, inner) = at.only()?;
    match word {
        "range" => {
            let (first, last) = inner.pair()?;
            let (first, last) = (scalar(&first, kind, names)?, scalar(&last, kind, names)?);
            if first <= last {
                Ok((first, last))
            } else {
                Err(inner.wrong("its end is before its start"))
            }
        }
        "prefix" => {
            inner.object(&["addr", "len"])?;
            let first = scalar(&inner.get("addr")?, kind, names)?;
            let length = inner.get("len")?;
            let bits = kind.address_bits();
            let bits = bits.ok_or_else(|| inner.wrong("a prefix of what is no address"))?;
            let host = bits.checked_sub(length.number::<u32>()?);
            let host = host.ok_or_else(|| length.unexpected("a length of its family"))?;
            let mask = 1_u128.checked_shl(host).map_or(u128::MAX, |bit| bit - 1);
            if first & mask == 0 {
                Ok((first, first | mask))
            } else {
                Err(inner.wrong("bits behind its length"))
            }
        }
        _ => Err(at.unexpected("a value, a prefix or a range")),
    }
}

/// Words for numbers.
pub(super) type Names = [(&'static str, u128)];

const PROTOCOLS: &Names = &[
    ("icmp", number::ICMP),
    ("tcp", number::TCP),
    ("udp", number::UDP),
    ("ipv6-icmp", number::ICMP6),
    ("icmpv6", number::ICMP6),
];
const ETHER_TYPES: &Names = &[
    ("ip", number::ETHER_IP4),
    ("arp", number::ETHER_ARP),
    ("ip6", number::ETHER_IP6),
    ("vlan", 0x8100),
    ("8021q", 0x8100),
    ("8021ad", 0x88a8),
];
const ICMP4_TYPES: &Names = &[("echo-request", number::ECHO_REQUEST)];
const ICMP6_TYPES: &Names = &[
    ("echo-request", number::ECHO_REQUEST6),
    ("nd-router-solicit", 133),
    ("nd-router-advert", number::ROUTER_ADVERTISEMENT),
    ("nd-neighbor-solicit", number::NEIGHBOUR_SOLICITATION),
    ("nd-neighbor-advert", number::NEIGHBOUR_ADVERTISEMENT),
    ("nd-redirect", number::REDIRECT),
    ("mld2-listener-report", number::LISTENER_REPORT),
];

fn scalar(at: &At<'_>, kind: Kind, names: &Names) -> Result<u128, JsonError> {
    if let Some(word) = at.value.as_str() {
        if let Some((_, number)) = names.iter().find(|(name, _)| *name == word) {
            return Ok(*number);
        }
        let number = match kind {
            Kind::Ip4 => word.parse().ok().map(|ip: std::net::Ipv4Addr| u32::from(ip).into()),
            Kind::Ip6 => word.parse().ok().map(|ip: std::net::Ipv6Addr| ip.into()),
            Kind::Mac => word.parse().ok().map(|mac: bulkhead_api::id::MacAddr| {
                mac.octets().iter().fold(0, |number, octet| number << 8 | u128::from(*octet))
            }),
            Kind::Link
            | Kind::Group
            | Kind::EtherType
            | Kind::Protocol
            | Kind::Port
            | Kind::Byte
            | Kind::CtState => None,
        };
        return number.ok_or_else(|| at.unexpected("a value of its type"));
    }
    // nft 1.1.3 prints the number of an Ethernet type in the machine's byte order where it is told to print numbers.
    if kind == Kind::EtherType {
        return Err(at.unexpected("the word for an Ethernet type"));
    }
    let number: u64 = at.number()?;
    if u128::from(number) > kind.largest() {
        return Err(at.unexpected("a number of its type"));
    }
    Ok(number.into())
}

pub(super) fn names_of(field: Field) -> &'static Names {
    let all = [
        (Field::Protocol, PROTOCOLS),
        (Field::EtherType, ETHER_TYPES),
        (Field::Icmp4Type, ICMP4_TYPES),
        (Field::Icmp6Type, ICMP6_TYPES),
        (Field::CtState, &text::STATES),
    ];
    all.iter().find(|(named, _)| *named == field).map_or(&[], |(_, names)| names)
}

/// Fields, and the protocol that `udp dport` says beside its field.
pub(super) fn fields(at: &At<'_>) -> Result<(Vec<Field>, Option<u128>), JsonError> {
    if at.value.get("concat").is_none() {
        let (field, implied) = field(at)?;
        return Ok((vec![field], implied));
    }
    at.object(&["concat"])?;
    let mut all = Vec::new();
    for part in at.get("concat")?.items()? {
        match field(&part)? {
            (field, None) => all.push(field),
            (_, Some(_)) => return Err(part.unexpected("a field of any protocol")),
        }
    }
    Ok((all, None))
}

fn field(at: &At<'_>) -> Result<(Field, Option<u128>), JsonError> {
    let (word, inner) = at.only()?;
    let plain = |field| Ok((field, None));
    match word {
        "meta" => {
            inner.object(&["key"])?;
            match inner.get("key")?.text()? {
                "iifname" => plain(Field::InLink),
                "oifname" => plain(Field::OutLink),
                "iifgroup" => plain(Field::InGroup),
                "oifgroup" => plain(Field::OutGroup),
                "l4proto" => plain(Field::Protocol),
                _ => Err(inner.unexpected("a key of our rules")),
            }
        }
        "ct" => {
            inner.object(&["key"])?;
            let key = inner.get("key")?;
            if key.text()? == "state" {
                plain(Field::CtState)
            } else {
                Err(key.unexpected("\"state\""))
            }
        }
        "exthdr" => {
            inner.object(&["name"])?;
            let name = inner.get("name")?;
            if name.text()? == "frag" {
                plain(Field::Ip6Fragment)
            } else {
                Err(name.unexpected("\"frag\""))
            }
        }
        "payload" => {
            inner.object(&["protocol", "field"])?;
            match (inner.get("protocol")?.text()?, inner.get("field")?.text()?) {
                ("ether", "saddr") => plain(Field::EtherSource),
                ("ether", "daddr") => plain(Field::EtherDestination),
                ("ether", "type") => plain(Field::EtherType),
                ("arp", "saddr ether") => plain(Field::ArpSenderMac),
                ("arp", "saddr ip") => plain(Field::ArpSenderIp),
                ("ip", "saddr") => plain(Field::Ip4Source),
                ("ip", "daddr") => plain(Field::Ip4Destination),
                ("ip6", "saddr") => plain(Field::Ip6Source),
                ("ip6", "daddr") => plain(Field::Ip6Destination),
                ("th", "sport") => plain(Field::SourcePort),
                ("th", "dport") => plain(Field::DestinationPort),
                ("udp", "sport") => Ok((Field::SourcePort, Some(number::UDP))),
                ("udp", "dport") => Ok((Field::DestinationPort, Some(number::UDP))),
                ("tcp", "sport") => Ok((Field::SourcePort, Some(number::TCP))),
                ("tcp", "dport") => Ok((Field::DestinationPort, Some(number::TCP))),
                ("icmp", "type") => plain(Field::Icmp4Type),
                ("icmpv6", "type") => plain(Field::Icmp6Type),
                ("icmpv6", "taddr") => plain(Field::NeighbourTarget),
                _ => Err(inner.unexpected("a field of our rules")),
            }
        }
        _ => Err(at.unexpected("a field")),
    }
}
