//! Sets of packets, by what their fields may be.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::firewall::ruleset::{Field, Kind, Ranges, number};

/// Packets of which each field named is within its ranges; any other field is anything. Packets with links and groups are
/// told apart by the walk, not here.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Space(BTreeMap<Field, Ranges>);

impl Space {
    /// All packets.
    #[must_use]
    pub(super) const fn all() -> Self {
        Self(BTreeMap::new())
    }

    /// Those of which a field is within ranges, and everything holds that having the field implies.
    #[must_use]
    pub(super) fn with(&self, field: Field, ranges: &Ranges) -> Self {
        let mut space = self.clone();
        for (implied, value) in implied(field) {
            space.narrow(implied, &value);
        }
        space.narrow(field, ranges);
        space
    }

    /// The same for one value.
    #[must_use]
    pub(super) fn with_one(&self, field: Field, value: u128) -> Self {
        self.with(field, &Ranges::one(value))
    }

    fn narrow(&mut self, field: Field, ranges: &Ranges) {
        let now = self.0.get(&field).map_or_else(|| ranges.clone(), |old| old.intersection(ranges));
        self.0.insert(field, now);
    }

    /// What a field may be.
    #[must_use]
    pub(super) fn field(&self, field: Field) -> Ranges {
        let all = || Ranges::span(0, field.kind().largest());
        self.0.get(&field).cloned().unwrap_or_else(all)
    }

    /// Whether no packet is in it.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.0.values().any(Ranges::is_empty)
    }

    /// Packets of both.
    #[must_use]
    pub(super) fn and(&self, other: &Self) -> Self {
        let mut both = self.clone();
        for (field, ranges) in &other.0 {
            both.narrow(*field, ranges);
        }
        both
    }

    /// Packets of this and not of the other, as spaces that do not meet.
    #[must_use]
    pub(super) fn without(&self, other: &Self) -> Vec<Self> {
        if self.and(other).is_empty() {
            return vec![self.clone()];
        }
        let (mut rest, mut inside) = (Vec::new(), self.clone());
        for (field, ranges) in &other.0 {
            let outside = inside.field(*field).without(ranges);
            if !outside.is_empty() {
                let mut piece = inside.clone();
                piece.0.insert(*field, outside);
                rest.push(piece);
            }
            inside.narrow(*field, ranges);
        }
        rest
    }

    /// Packets of this and of none of the others.
    #[must_use]
    pub(super) fn without_all<'a>(&self, others: impl IntoIterator<Item = &'a Self>) -> Vec<Self> {
        let mut rest = vec![self.clone()];
        for other in others {
            rest = rest.iter().flat_map(|piece| piece.without(other)).collect();
        }
        rest
    }
}

/// What having a field says of a packet.
pub(super) fn implied(field: Field) -> Vec<(Field, Ranges)> {
    let ether = |numbers: &[u128]| {
        (Field::EtherType, numbers.iter().map(|&number| (number, number)).collect::<Ranges>())
    };
    let protocol = |number| (Field::Protocol, Ranges::one(number));
    match field {
        Field::ArpSenderMac | Field::ArpSenderIp => vec![ether(&[number::ETHER_ARP])],
        Field::Ip4Source | Field::Ip4Destination => vec![ether(&[number::ETHER_IP4])],
        Field::Ip6Source | Field::Ip6Destination | Field::Ip6Fragment => {
            vec![ether(&[number::ETHER_IP6])]
        }
        Field::Protocol | Field::SourcePort | Field::DestinationPort => {
            vec![ether(&[number::ETHER_IP4, number::ETHER_IP6])]
        }
        Field::Icmp4Type => vec![ether(&[number::ETHER_IP4]), protocol(number::ICMP)],
        Field::Icmp6Type | Field::NeighbourTarget => {
            vec![ether(&[number::ETHER_IP6]), protocol(number::ICMP6)]
        }
        Field::InLink
        | Field::OutLink
        | Field::InGroup
        | Field::OutGroup
        | Field::EtherSource
        | Field::EtherDestination
        | Field::EtherType
        | Field::CtState => Vec::new(),
    }
}

impl fmt::Display for Space {
    /// Says what the packets have in particular: `IPv4 from 10.0.0.7, protocol 17, to port 4789`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (field, ranges) in &self.0 {
            let all = Ranges::span(0, field.kind().largest());
            let Some(lowest) = ranges.first().filter(|_| *ranges != all) else { continue };
            f.write_str(if first { "" } else { ", " })?;
            first = false;
            write!(f, "{} ", word(*field))?;
            match field.kind() {
                Kind::Ip4 => write!(f, "{}", Ipv4Addr::from(u32::try_from(lowest).unwrap_or(0)))?,
                Kind::Ip6 => write!(f, "{}", Ipv6Addr::from(lowest))?,
                Kind::Mac => {
                    let [.., a, b, c, d, e, g] = lowest.to_be_bytes();
                    write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")?;
                }
                Kind::EtherType => write!(f, "{lowest:#06x}")?,
                Kind::Link
                | Kind::Group
                | Kind::Protocol
                | Kind::Port
                | Kind::Byte
                | Kind::CtState => write!(f, "{lowest}")?,
            }
        }
        if first { f.write_str("any packet") } else { Ok(()) }
    }
}

const fn word(field: Field) -> &'static str {
    match field {
        Field::InLink => "in by",
        Field::OutLink => "out by",
        Field::InGroup => "in by group",
        Field::OutGroup => "out by group",
        Field::EtherSource => "from station",
        Field::EtherDestination => "to station",
        Field::EtherType => "type",
        Field::ArpSenderMac => "ARP from station",
        Field::ArpSenderIp => "ARP from",
        Field::Ip4Source | Field::Ip6Source => "from",
        Field::Ip4Destination | Field::Ip6Destination => "to",
        Field::Ip6Fragment => "fragment",
        Field::Protocol => "protocol",
        Field::SourcePort => "from port",
        Field::DestinationPort => "to port",
        Field::Icmp4Type => "ICMP type",
        Field::Icmp6Type => "ICMPv6 type",
        Field::NeighbourTarget => "for",
        Field::CtState => "conntrack state",
    }
}
