//! What the nftables tables of a host say, as values: the words of `nft` that this program uses, and no others.
//!
//! ```text
//!  Ruleset ── text ──► `nft -f -`             a whole set of tables, or the difference between two
//!  Ruleset ◄─ json ─── `nft -j list table`    strict: what is not one of these words is an error that says where
//! ```
//!
//! Both ways end in one form, so that two rulesets mean the same if they are equal: values of a match are [`Ranges`],
//! `udp dport 53` is two matches (protocol, port), and what nft leaves out as implied (`ip saddr` is of IPv4) is left out.

mod change;
mod compare;
mod json;
mod json_field;
mod json_rule;
mod json_value;
mod ranges;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

pub use change::change;
pub use compare::differences;
pub use json::{Counted, JsonError, parse, parse_counters};
pub use ranges::Ranges;
pub use text::render;

/// Name of our table in every family.
pub const TABLE: &str = "bulkhead";

/// Where a table's hooks are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Frames that pass a bridge.
    Bridge,
    /// IPv4 and IPv6 packets of the host.
    Inet,
}

impl Family {
    /// Both, as rendered.
    pub const ALL: [Self; 2] = [Self::Bridge, Self::Inet];

    /// nft's word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Inet => "inet",
        }
    }
}

/// Our tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// By family; absent = there is none.
    pub tables: BTreeMap<Family, Table>,
}

/// One table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// Named counters.
    pub counters: BTreeSet<String>,
    /// Sets and maps.
    pub sets: BTreeMap<String, Set>,
    /// Chains.
    pub chains: BTreeMap<String, Chain>,
}

/// A set or a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// What its keys are made of.
    pub key: Vec<Kind>,
    /// What belongs to a key.
    pub data: DataKind,
    /// What its elements may be.
    pub shape: Shape,
    /// The elements; of [`Shape::Rates`] none, as the kernel makes and forgets them.
    pub elements: BTreeMap<Vec<Atom>, Datum>,
}

/// What elements of a set may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shape {
    /// Single keys.
    Exact,
    /// Ranges of keys.
    Interval,
    /// Keys that rules add, each with its rate ([`Statement::Above`]).
    Rates,
}

/// Most keys of a [`Shape::Rates`]: more than a host has links of tenants.
pub(crate) const MOST_RATES: u32 = 131_072;

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
    const fn address_bits(self) -> Option<u32> {
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

/// What a map gives for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DataKind {
    /// Nothing: it is a set.
    Member,
    /// A verdict.
    Verdict,
    /// A conntrack zone.
    Zone,
    /// A named counter.
    Counter,
}

/// One part of a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Atom {
    /// Name of a link.
    Name(String),
    /// Numbers from one to another.
    Span(u128, u128),
}

/// What belongs to a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Datum {
    /// The key is in the set.
    Member,
    /// A verdict.
    Verdict(Verdict),
    /// A conntrack zone.
    Zone(u16),
    /// Name of a counter.
    Counter(String),
}

impl Datum {
    /// Of which kind it is.
    #[must_use]
    pub const fn kind(&self) -> DataKind {
        match self {
            Self::Member => DataKind::Member,
            Self::Verdict(_) => DataKind::Verdict,
            Self::Zone(_) => DataKind::Zone,
            Self::Counter(_) => DataKind::Counter,
        }
    }
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// It passes this hook's chain.
    Accept,
    /// It is gone.
    Drop,
    /// Back to the chain that jumped here.
    Return,
    /// On in a chain, and back at its end.
    Jump(String),
    /// On in a chain; at its end, the base chain's policy.
    Goto(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Return => f.write_str("return"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

/// A chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where packets come in; absent = from other chains only.
    pub hook: Option<Hook>,
    /// In order.
    pub rules: Vec<Rule>,
}

/// Where packets come into a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hook {
    /// When.
    pub point: HookPoint,
    /// Chains of a smaller number come first.
    pub priority: i32,
    /// Whether what comes to the chain's end passes.
    pub accepts: bool,
}

/// When a base chain is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HookPoint {
    /// Before it is known whither a packet goes.
    Prerouting,
    /// It goes to the host.
    Input,
    /// It goes through the host.
    Forward,
    /// It comes from the host.
    Output,
    /// It is about to leave.
    Postrouting,
}

impl HookPoint {
    const WORDS: [(Self, &'static str); 5] = [
        (Self::Prerouting, "prerouting"),
        (Self::Input, "input"),
        (Self::Forward, "forward"),
        (Self::Output, "output"),
        (Self::Postrouting, "postrouting"),
    ];

    /// nft's word.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(point, _)| *point == self).map_or("", |(_, word)| word)
    }
}

/// A rule: its statements in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule(pub Vec<Statement>);

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        text::rule(self, f)
    }
}

/// One statement of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// The rule ends here unless the packet's fields are (`negated`: are not) among the values.
    Match {
        /// One field, or several that are looked up together.
        fields: Vec<Field>,
        /// Whether they must not be.
        negated: bool,
        /// Among what.
        values: Values,
    },
    /// The verdict that a map gives; none = on with the next rule.
    VerdictMap {
        /// What is looked up.
        fields: Vec<Field>,
        /// Name of the map.
        map: String,
    },
    /// The rule ends here for packets above a rate.
    Limit(Limit),
    /// The rule goes on only for packets above a rate, which each key has for itself.
    Above {
        /// The key.
        fields: Vec<Field>,
        /// Name of the set that keeps the rates.
        set: String,
        /// The rate.
        limit: Limit,
    },
    /// Counts without a name.
    Count,
    /// Counts in a named counter.
    CountIn(String),
    /// Counts in the counter that a map gives; none = the rule ends here.
    CountBy {
        /// What is looked up.
        fields: Vec<Field>,
        /// Name of the map.
        map: String,
    },
    /// The conntrack zone that a map gives; none = the rule ends here.
    ZoneBy {
        /// What is looked up.
        fields: Vec<Field>,
        /// Name of the map.
        map: String,
    },
    /// A verdict.
    Verdict(Verdict),
}

/// A rate of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Limit {
    /// Packets a second.
    pub packets_a_second: u32,
    /// So many at once.
    pub burst: u32,
}

/// Among what a field is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Values {
    /// A named set.
    Set(String),
    /// Names of links.
    Names(BTreeSet<String>),
    /// Numbers.
    Numbers(Ranges),
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

/// Numbers of what packets carry.
pub mod number {
    /// Type of a frame with IPv4.
    pub const ETHER_IP4: u128 = 0x0800;
    /// Type of a frame with ARP.
    pub const ETHER_ARP: u128 = 0x0806;
    /// Type of a frame with IPv6.
    pub const ETHER_IP6: u128 = 0x86dd;
    /// Protocol number of ICMP.
    pub const ICMP: u128 = 1;
    /// Protocol number of TCP.
    pub const TCP: u128 = 6;
    /// Protocol number of UDP.
    pub const UDP: u128 = 17;
    /// Protocol number of ICMPv6.
    pub const ICMP6: u128 = 58;
    /// ICMP echo request.
    pub const ECHO_REQUEST: u128 = 8;
    /// ICMPv6 echo request (RFC 4443, 4.1).
    pub const ECHO_REQUEST6: u128 = 128;
    /// Router advertisement (RFC 4861, 4.2).
    pub const ROUTER_ADVERTISEMENT: u128 = 134;
    /// Neighbour solicitation (RFC 4861, 4.3).
    pub const NEIGHBOUR_SOLICITATION: u128 = 135;
    /// Neighbour advertisement (RFC 4861, 4.4).
    pub const NEIGHBOUR_ADVERTISEMENT: u128 = 136;
    /// Redirect (RFC 4861, 4.5).
    pub const REDIRECT: u128 = 137;
    /// Multicast listener report, version 2 (RFC 3810, 5.2).
    pub const LISTENER_REPORT: u128 = 143;
    /// Port that DHCP servers send from and are sent to.
    pub const DHCP_SERVER: u128 = 67;
    /// Port of DHCP clients.
    pub const DHCP_CLIENT: u128 = 68;
    /// Port that DHCPv6 servers send from and are sent to.
    pub const DHCP6_SERVER: u128 = 547;
    /// Conntrack: the flow was seen both ways.
    pub const ESTABLISHED: u128 = 2;
    /// Conntrack: the packet belongs to a flow that was.
    pub const RELATED: u128 = 4;
}

#[cfg(test)]
mod tests;
