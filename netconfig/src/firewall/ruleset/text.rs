//! A ruleset as text for `nft -f -`.

use std::fmt::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    Atom, Chain, DataKind, Datum, Family, Field, Hook, Kind, Limit, MOST_RATES, Ranges, Rule,
    Ruleset, Set, Shape, Statement, TABLE, Table, Values, number,
};

/// One transaction that leaves these tables of ours and no others of ours.
#[must_use]
pub fn render(ruleset: &Ruleset) -> String {
    let mut out = String::new();
    for family in Family::ALL {
        let family = family.word();
        // Adding first makes the deletion succeed where there is none.
        let _never = writeln!(out, "add table {family} {TABLE}\ndelete table {family} {TABLE}");
    }
    for (family, table) in &ruleset.tables {
        let _never = write_table(*family, table, &mut out);
    }
    out
}

/// `table` with everything in it.
pub(super) fn write_table(family: Family, table: &Table, out: &mut String) -> fmt::Result {
    writeln!(out, "table {} {TABLE} {{", family.word())?;
    for counter in &table.counters {
        writeln!(out, "counter {counter} {{ }}")?;
    }
    for (name, set) in &table.sets {
        write_set(name, set, true, out)?;
    }
    // Chains before the rules that jump to them.
    for (name, chain) in &table.chains {
        if chain.hook.is_none() {
            writeln!(out, "chain {name} {{ }}")?;
        }
    }
    for (name, chain) in &table.chains {
        write_chain(name, chain, out)?;
    }
    out.write_str("}\n")
}

/// A set's definition, with or without its elements.
pub(super) fn write_set(name: &str, set: &Set, full: bool, out: &mut String) -> fmt::Result {
    let word = if set.data == DataKind::Member { "set" } else { "map" };
    write!(out, "{word} {name} {{ ")?;
    // A zone has no name as a type; it is taken from the field.
    let by_field = set.data == DataKind::Zone;
    out.write_str(if by_field { "typeof " } else { "type " })?;
    for (at, kind) in set.key.iter().enumerate() {
        out.write_str(if at == 0 { "" } else { " . " })?;
        out.write_str(if by_field { field_of_kind(*kind) } else { type_word(*kind) })?;
    }
    match set.data {
        DataKind::Member => {}
        DataKind::Verdict => out.write_str(" : verdict")?,
        DataKind::Zone => out.write_str(" : ct zone")?,
        DataKind::Mark => out.write_str(" : mark")?,
        DataKind::Counter => out.write_str(" : counter")?,
    }
    match set.shape {
        Shape::Exact => {}
        Shape::Interval => out.write_str("; flags interval")?,
        Shape::Rates => write!(out, "; flags dynamic; size {MOST_RATES}")?,
    }
    if full && !set.elements.is_empty() {
        out.write_str("; elements = { ")?;
        write_elements(set, set.elements.iter(), out)?;
        out.write_str(" }")?;
    }
    out.write_str("; }\n")
}

/// Elements with what belongs to them, separated by commas.
pub(super) fn write_elements<'a>(
    set: &Set,
    elements: impl Iterator<Item = (&'a Vec<Atom>, &'a Datum)>,
    out: &mut String,
) -> fmt::Result {
    for (at, (key, datum)) in elements.enumerate() {
        out.write_str(if at == 0 { "" } else { ", " })?;
        for (at, (atom, kind)) in key.iter().zip(&set.key).enumerate() {
            out.write_str(if at == 0 { "" } else { " . " })?;
            match atom {
                Atom::Name(name) => write!(out, "\"{name}\"")?,
                Atom::Span(first, last) => write_span(*kind, *first, *last, out)?,
            }
        }
        match datum {
            Datum::Member => {}
            Datum::Verdict(verdict) => write!(out, " : {verdict}")?,
            Datum::Zone(zone) => write!(out, " : {zone}")?,
            Datum::Mark(mark) => write!(out, " : {mark}")?,
            Datum::Counter(counter) => write!(out, " : \"{counter}\"")?,
        }
    }
    Ok(())
}

fn write_chain(name: &str, chain: &Chain, out: &mut String) -> fmt::Result {
    writeln!(out, "chain {name} {{")?;
    if let Some(hook) = &chain.hook {
        writeln!(out, "{}", HookText(hook))?;
    }
    for one in &chain.rules {
        writeln!(out, "{one}")?;
    }
    out.write_str("}\n")
}

/// A hook as it stands in a chain.
pub(super) struct HookText<'a>(pub(super) &'a Hook);

impl fmt::Display for HookText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Hook { point, priority, accepts } = self.0;
        let policy = if *accepts { "accept" } else { "drop" };
        write!(f, "type filter hook {} priority {priority}; policy {policy};", point.word())
    }
}

/// A rule on one line.
pub(super) fn rule(rule: &Rule, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (at, statement) in rule.0.iter().enumerate() {
        f.write_str(if at == 0 { "" } else { " " })?;
        write_statement(statement, f)?;
    }
    Ok(())
}

fn write_statement(statement: &Statement, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match statement {
        Statement::Match { fields, negated, values } => {
            write_fields(fields, f)?;
            f.write_str(if *negated { " != " } else { " " })?;
            write_values(fields.first().copied(), values, f)
        }
        Statement::VerdictMap { fields, map } => {
            write_fields(fields, f)?;
            write!(f, " vmap @{map}")
        }
        Statement::Limit(Limit { packets_a_second, burst }) => {
            write!(f, "limit rate {packets_a_second}/second burst {burst} packets")
        }
        Statement::Above { fields, set, limit: Limit { packets_a_second, burst } } => {
            write!(f, "update @{set} {{ ")?;
            write_fields(fields, f)?;
            write!(f, " limit rate over {packets_a_second}/second burst {burst} packets }}")
        }
        Statement::Count => f.write_str("counter"),
        Statement::CountIn(counter) => write!(f, "counter name \"{counter}\""),
        Statement::CountBy { fields, map } => {
            f.write_str("counter name ")?;
            write_fields(fields, f)?;
            write!(f, " map @{map}")
        }
        Statement::ZoneBy { fields, map } => {
            f.write_str("ct zone set ")?;
            write_fields(fields, f)?;
            write!(f, " map @{map}")
        }
        Statement::MarkBy { fields, map } => {
            f.write_str("meta mark set ")?;
            write_fields(fields, f)?;
            write!(f, " map @{map}")
        }
        Statement::Verdict(verdict) => write!(f, "{verdict}"),
    }
}

fn write_fields(fields: &[Field], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (at, field) in fields.iter().enumerate() {
        f.write_str(if at == 0 { "" } else { " . " })?;
        f.write_str(field_words(*field))?;
    }
    Ok(())
}

fn write_values(field: Option<Field>, values: &Values, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match values {
        Values::Set(name) => write!(f, "@{name}"),
        Values::Names(names) => write_list(names, f, |name, f| write!(f, "\"{name}\"")),
        Values::Numbers(ranges) => match field {
            Some(Field::Ip6Fragment) => {
                f.write_str(if ranges.contains(1) { "exists" } else { "missing" })
            }
            Some(Field::CtState) => write_states(ranges, f),
            field => {
                let kind = field.map_or(Kind::Byte, Field::kind);
                let ranges: Vec<_> = ranges.iter().collect();
                write_list(&ranges, f, |&(first, last), f| write_span(kind, first, last, f))
            }
        },
    }
}

/// One value bare, several in braces.
fn write_list<'a, T: 'a>(
    values: impl IntoIterator<Item = &'a T>,
    f: &mut fmt::Formatter<'_>,
    mut write_one: impl FnMut(&T, &mut fmt::Formatter<'_>) -> fmt::Result,
) -> fmt::Result {
    let values: Vec<&T> = values.into_iter().collect();
    if let [value] = values.as_slice() {
        return write_one(value, f);
    }
    f.write_str("{ ")?;
    for (at, value) in values.iter().enumerate() {
        f.write_str(if at == 0 { "" } else { ", " })?;
        write_one(value, f)?;
    }
    f.write_str(" }")
}

/// Names of conntrack's states and their bits (`include/uapi/linux/netfilter/nf_conntrack_common.h`, as nft has them).
pub(super) const STATES: [(&str, u128); 5] =
    [("invalid", 1), ("established", 2), ("related", 4), ("new", 8), ("untracked", 64)];

fn write_states(states: &Ranges, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let named = STATES.iter().filter(|(_, bit)| states.contains(*bit));
    for (at, (name, _)) in named.enumerate() {
        f.write_str(if at == 0 { "" } else { "," })?;
        f.write_str(name)?;
    }
    Ok(())
}

/// A value or range of a type.
fn write_span(kind: Kind, first: u128, last: u128, out: &mut impl Write) -> fmt::Result {
    let one = |number: u128, out: &mut dyn Write| match kind {
        Kind::Mac => {
            let [.., a, b, c, d, e, g] = number.to_be_bytes();
            write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
        }
        Kind::Ip4 => write!(out, "{}", Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))),
        Kind::Ip6 => write!(out, "{}", Ipv6Addr::from(number)),
        Kind::EtherType => match number {
            number::ETHER_IP4 => out.write_str("ip"),
            number::ETHER_ARP => out.write_str("arp"),
            number::ETHER_IP6 => out.write_str("ip6"),
            other => write!(out, "0x{other:04x}"),
        },
        Kind::Link | Kind::Group | Kind::Protocol | Kind::Port | Kind::Byte | Kind::CtState => {
            write!(out, "{number}")
        }
    };
    one(first, out)?;
    if first == last {
        return Ok(());
    }
    // A prefix where it is one: what nft prints, and one element of an interval set.
    match kind.address_bits().and_then(|bits| prefix_length(first, last, bits)) {
        Some(length) => write!(out, "/{length}"),
        None => {
            out.write_str("-")?;
            one(last, out)
        }
    }
}

/// The length of the prefix of `bits` bits that a range is, if it is one.
fn prefix_length(first: u128, last: u128, bits: u32) -> Option<u32> {
    let host = first ^ last;
    let aligned = host & host.wrapping_add(1) == 0 && first & host == 0;
    if !aligned {
        return None;
    }
    bits.checked_sub(u128::BITS.checked_sub(host.leading_zeros())?)
}

const fn type_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Link => "ifname",
        Kind::Group => "devgroup",
        Kind::Mac => "ether_addr",
        Kind::EtherType => "ether_type",
        Kind::Ip4 => "ipv4_addr",
        Kind::Ip6 => "ipv6_addr",
        Kind::Protocol => "inet_proto",
        Kind::Port => "inet_service",
        Kind::Byte => "icmpv6_type",
        Kind::CtState => "ct_state",
    }
}

/// A field of each type, for sets that are declared by one.
const fn field_of_kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Link => "iifname",
        Kind::Group => "iifgroup",
        Kind::Mac => "ether saddr",
        Kind::EtherType => "ether type",
        Kind::Ip4 => "ip daddr",
        Kind::Ip6 => "ip6 daddr",
        Kind::Protocol => "meta l4proto",
        Kind::Port => "th dport",
        Kind::Byte => "icmpv6 type",
        Kind::CtState => "ct state",
    }
}

const fn field_words(field: Field) -> &'static str {
    match field {
        Field::InLink => "iifname",
        Field::OutLink => "oifname",
        Field::InGroup => "iifgroup",
        Field::OutGroup => "oifgroup",
        Field::EtherSource => "ether saddr",
        Field::EtherDestination => "ether daddr",
        Field::EtherType => "ether type",
        Field::ArpSenderMac => "arp saddr ether",
        Field::ArpSenderIp => "arp saddr ip",
        Field::Ip4Source => "ip saddr",
        Field::Ip4Destination => "ip daddr",
        Field::Ip6Source => "ip6 saddr",
        Field::Ip6Destination => "ip6 daddr",
        Field::Ip6Fragment => "exthdr frag",
        Field::Protocol => "meta l4proto",
        Field::SourcePort => "th sport",
        Field::DestinationPort => "th dport",
        Field::Icmp4Type => "icmp type",
        Field::Icmp6Type => "icmpv6 type",
        Field::NeighbourTarget => "icmpv6 taddr",
        Field::CtState => "ct state",
    }
}
