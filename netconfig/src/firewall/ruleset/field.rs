//! Fields of packets and the types of their values.

/// Type of one part of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Name of a link.
    Link,
    /// Group of a link.
    Group,
    /// Ethernet address, as a number of 48 bits.
    Mac,
    /// Type of an Ethernet frame.
    EtherType,
    /// IPv4 address.
    Ip4,
    /// IPv6 address.
    Ip6,
    /// Protocol above IP.
    Protocol,
    /// Port of TCP or UDP.
    Port,
    /// Type of an ICMP or ICMPv6 message, or another number of a byte.
    Byte,
    /// Bits of conntrack's state.
    CtState,
}

impl Kind {
    /// Bits of an address, which can be said as a prefix; absent where it is none.
    pub(super) const fn address_bits(self) -> Option<u32> {
        match self {
            Self::Ip4 => Some(32),
            Self::Ip6 => Some(128),
            Self::Link
            | Self::Group
            | Self::Mac
            | Self::EtherType
            | Self::Protocol
            | Self::Port
            | Self::Byte
            | Self::CtState => None,
        }
    }

    /// The largest value.
    #[must_use]
    pub const fn largest(self) -> u128 {
        match self {
            Self::Link | Self::Ip6 => u128::MAX,
            Self::Group | Self::Ip4 => u32::MAX as u128,
            Self::Mac => (1 << 48) - 1,
            Self::EtherType | Self::Port => u16::MAX as u128,
            Self::Protocol | Self::Byte => u8::MAX as u128,
            Self::CtState => 0x7f,
        }
    }
}

/// A field of a packet, or what the kernel knows about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// Name of the link that it came in by.
    InLink,
    /// Name of the link that it goes out by.
    OutLink,
    /// Group of the link that it came in by.
    InGroup,
    /// Group of the link that it goes out by.
    OutGroup,
    /// Source of the frame.
    EtherSource,
    /// Destination of the frame.
    EtherDestination,
    /// Type of the frame: of a tagged one, that of the tag.
    EtherType,
    /// Who an ARP packet says it is from, as hardware address.
    ArpSenderMac,
    /// Who an ARP packet says it is from, as IPv4 address.
    ArpSenderIp,
    /// Source of an IPv4 packet.
    Ip4Source,
    /// Destination of an IPv4 packet.
    Ip4Destination,
    /// Source of an IPv6 packet.
    Ip6Source,
    /// Destination of an IPv6 packet.
    Ip6Destination,
    /// 1 where an IPv6 packet is a fragment.
    Ip6Fragment,
    /// Protocol above IP, behind extension headers.
    Protocol,
    /// Source port.
    SourcePort,
    /// Destination port.
    DestinationPort,
    /// Type of an ICMP message.
    Icmp4Type,
    /// Type of an ICMPv6 message.
    Icmp6Type,
    /// Target of a neighbour solicitation or advertisement (RFC 4861, 4.3 and 4.4).
    NeighbourTarget,
    /// Conntrack's state, as bits.
    CtState,
}

impl Field {
    /// Type of its values.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Self::InLink | Self::OutLink => Kind::Link,
            Self::InGroup | Self::OutGroup => Kind::Group,
            Self::EtherSource | Self::EtherDestination | Self::ArpSenderMac => Kind::Mac,
            Self::EtherType => Kind::EtherType,
            Self::ArpSenderIp | Self::Ip4Source | Self::Ip4Destination => Kind::Ip4,
            Self::Ip6Source | Self::Ip6Destination | Self::NeighbourTarget => Kind::Ip6,
            Self::Protocol => Kind::Protocol,
            Self::SourcePort | Self::DestinationPort => Kind::Port,
            Self::Icmp4Type | Self::Icmp6Type | Self::Ip6Fragment => Kind::Byte,
            Self::CtState => Kind::CtState,
        }
    }
}
