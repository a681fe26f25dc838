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
mod field;
mod json;
mod json_field;
mod json_rule;
mod json_value;
pub mod number;
mod ranges;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

pub use change::change;
pub use compare::differences;
pub use field::{Field, Kind};
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

/// What a map gives for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DataKind {
    /// Nothing: it is a set.
    Member,
    /// A verdict.
    Verdict,
    /// A conntrack zone.
    Zone,
    /// A mark, by which rules of routing find a table.
    Mark,
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
    /// A mark.
    Mark(u32),
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
            Self::Mark(_) => DataKind::Mark,
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
    /// The mark that a map gives; none = the rule ends here.
    MarkBy {
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

#[cfg(test)]
mod tests;
