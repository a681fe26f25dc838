//! Reads what `nft -j list …` prints (`libnftables-json(5)`), strictly: of our table, nothing is passed over.

use std::collections::BTreeMap;

use serde_json::Value;

use super::json_field::{fields, span};
use super::json_rule::{statement, verdict};
use super::json_value::At;
use super::{
    Atom, Chain, DataKind, Datum, Family, Field, Hook, HookPoint, Kind, MOST_RATES, Rule, Ruleset,
    Set, Shape, TABLE, Table,
};

/// What `nft` printed is not what it prints.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// No JSON.
    #[error("nft's answer is not JSON: {0}")]
    Syntax(String),
    /// JSON that says what is not understood.
    #[error("nft's answer, {at}: {problem}")]
    Form {
        /// Where, such as `nftables[7].rule.expr[0].match.left`.
        at: String,
        /// What.
        problem: String,
    },
}

/// Our tables, of any listing; tables of others are passed over.
///
/// # Errors
/// The first thing in one of our tables that is no word of [`Ruleset`].
pub fn parse(answer: &[u8]) -> Result<Ruleset, JsonError> {
    let mut ruleset = Ruleset::default();
    each_of_ours(answer, |object, kind, at| match kind {
        "table" => table(at, &mut ruleset),
        "chain" => chain(at, table_of(at, &mut ruleset)?),
        "set" | "map" => set(at, table_of(at, &mut ruleset)?),
        "rule" => rule(at, table_of(at, &mut ruleset)?),
        "counter" => {
            at.object(&["family", "name", "table", "handle", "packets", "bytes"])?;
            let name = at.get("name")?.text()?.to_owned();
            if table_of(at, &mut ruleset)?.counters.insert(name) {
                Ok(())
            } else {
                Err(at.wrong("a counter of this name came before"))
            }
        }
        _ => Err(object.wrong(format!("unknown object {kind:?}"))),
    })?;
    Ok(ruleset)
}

/// Packets and bytes of a counter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// The named counters of our tables.
///
/// # Errors
/// A counter that says something else than packets and bytes.
pub fn parse_counters(answer: &[u8]) -> Result<BTreeMap<(Family, String), Counted>, JsonError> {
    let mut found = BTreeMap::new();
    each_of_ours(answer, |_, kind, at| {
        if kind == "counter" {
            let key = (family(&at.get("family")?)?, at.get("name")?.text()?.to_owned());
            let counted = Counted {
                packets: at.get("packets")?.number()?,
                bytes: at.get("bytes")?.number()?,
            };
            found.insert(key, counted);
        }
        Ok(())
    })?;
    Ok(found)
}

/// Calls `take` with each object of our tables, its kind and its contents.
fn each_of_ours(
    answer: &[u8],
    mut take: impl FnMut(&At<'_>, &str, &At<'_>) -> Result<(), JsonError>,
) -> Result<(), JsonError> {
    let value: Value =
        serde_json::from_slice(answer).map_err(|error| JsonError::Syntax(error.to_string()))?;
    let root = At::root(&value);
    root.object(&["nftables"])?;
    for object in root.get("nftables")?.items()? {
        let (kind, at) = object.only()?;
        if kind == "metainfo" {
            continue;
        }
        let name = if kind == "table" { "name" } else { "table" };
        if at.get(name)?.text()? == TABLE {
            take(&object, kind, &at)?;
        }
    }
    Ok(())
}

fn family(at: &At<'_>) -> Result<Family, JsonError> {
    let word = at.text()?;
    let found = Family::ALL.into_iter().find(|family| family.word() == word);
    found.ok_or_else(|| at.unexpected("\"bridge\" or \"inet\""))
}

fn table(at: &At<'_>, ruleset: &mut Ruleset) -> Result<(), JsonError> {
    // A table with flags is not as we make it: a dormant one does nothing.
    at.object(&["family", "name", "handle"])?;
    let before = ruleset.tables.insert(family(&at.get("family")?)?, Table::default());
    if before.is_some() { Err(at.wrong("a table of this family came before")) } else { Ok(()) }
}

fn table_of<'r>(at: &At<'_>, ruleset: &'r mut Ruleset) -> Result<&'r mut Table, JsonError> {
    let table = ruleset.tables.get_mut(&family(&at.get("family")?)?);
    table.ok_or_else(|| at.wrong("its table did not come before"))
}

fn chain(at: &At<'_>, table: &mut Table) -> Result<(), JsonError> {
    let keys = ["family", "table", "name", "handle", "type", "hook", "prio", "policy"];
    let based = at.object(&keys)?.contains_key("hook");
    let mut chain = Chain::default();
    if based {
        let kind = at.get("type")?;
        if kind.text()? != "filter" {
            return Err(kind.unexpected("\"filter\""));
        }
        let (hook, policy, priority) = (at.get("hook")?, at.get("policy")?, at.get("prio")?);
        let word = hook.text()?;
        let point = HookPoint::WORDS.into_iter().find(|(_, known)| *known == word);
        let (point, _) = point.ok_or_else(|| hook.unexpected("a hook of a bridge or of IP"))?;
        let number = priority.value.as_i64().and_then(|number| i32::try_from(number).ok());
        let priority = number.ok_or_else(|| priority.unexpected("a priority"))?;
        let accepts = match policy.text()? {
            "accept" => true,
            "drop" => false,
            _ => return Err(policy.unexpected("\"accept\" or \"drop\"")),
        };
        chain.hook = Some(Hook { point, priority, accepts });
    } else {
        at.object(&["family", "table", "name", "handle"])?;
    }
    let before = table.chains.insert(at.get("name")?.text()?.to_owned(), chain);
    if before.is_some() { Err(at.wrong("a chain of this name came before")) } else { Ok(()) }
}

fn set(at: &At<'_>, table: &mut Table) -> Result<(), JsonError> {
    let keys = ["family", "name", "table", "type", "handle", "flags", "size", "map", "elem"];
    at.object(&keys)?;
    let data = match at.optional("map") {
        None => DataKind::Member,
        Some(word) => match word.text()? {
            "verdict" => DataKind::Verdict,
            "counter" => DataKind::Counter,
            "mark" => DataKind::Mark,
            // What `typeof … : ct zone` reads back as; no other map of ours has numbers.
            "integer" => DataKind::Zone,
            _ => return Err(word.unexpected("\"verdict\", \"counter\", \"mark\" or \"integer\"")),
        },
    };
    let shape = shape(at)?;
    let mut set = Set { key: key_kinds(&at.get("type")?)?, data, shape, elements: BTreeMap::new() };
    // Keys that rules added are no part of what was asked for.
    if let Some(elements) = at.optional("elem").filter(|_| shape != Shape::Rates) {
        for element in elements.items()? {
            let (key, datum) = match data {
                DataKind::Member => (key(&element, &set.key)?, Datum::Member),
                DataKind::Verdict | DataKind::Counter | DataKind::Zone | DataKind::Mark => {
                    let (left, right) = element.pair()?;
                    (key(&left, &set.key)?, datum(&right, data)?)
                }
            };
            if set.elements.insert(key, datum).is_some() {
                return Err(element.wrong("this key came before"));
            }
        }
    }
    let before = table.sets.insert(at.get("name")?.text()?.to_owned(), set);
    if before.is_some() { Err(at.wrong("a set of this name came before")) } else { Ok(()) }
}

fn shape(at: &At<'_>) -> Result<Shape, JsonError> {
    let mut shape = Shape::Exact;
    if let Some(flags) = at.optional("flags") {
        for flag in flags.items()? {
            shape = match (flag.text()?, shape) {
                ("interval", Shape::Exact) => Shape::Interval,
                ("dynamic", Shape::Exact) => Shape::Rates,
                _ => return Err(flag.unexpected("either \"interval\" or \"dynamic\"")),
            };
        }
    }
    let size = at.optional("size").map(|size| size.number::<u32>()).transpose()?;
    if size == (shape == Shape::Rates).then_some(MOST_RATES) {
        Ok(shape)
    } else {
        Err(at.wrong(format!("expected size {MOST_RATES} of a dynamic set and of no other")))
    }
}

fn datum(at: &At<'_>, data: DataKind) -> Result<Datum, JsonError> {
    Ok(match data {
        DataKind::Member => Datum::Member,
        DataKind::Verdict => {
            let (word, argument) = at.only()?;
            let found = verdict(word, &argument)?;
            Datum::Verdict(found.ok_or_else(|| at.unexpected("a verdict"))?)
        }
        DataKind::Zone => Datum::Zone(at.number()?),
        DataKind::Mark => Datum::Mark(at.number()?),
        DataKind::Counter => Datum::Counter(at.text()?.to_owned()),
    })
}

/// The types of a set's key, by name or by a field that has it.
fn key_kinds(at: &At<'_>) -> Result<Vec<Kind>, JsonError> {
    if at.value.is_string() {
        return Ok(vec![kind(at)?]);
    }
    if at.value.is_array() {
        return at.items()?.map(|item| kind(&item)).collect();
    }
    at.object(&["typeof"])?;
    let (fields, implied) = fields(&at.get("typeof")?)?;
    if implied.is_some() {
        return Err(at.unexpected("fields without a protocol"));
    }
    Ok(fields.into_iter().map(Field::kind).collect())
}

fn kind(at: &At<'_>) -> Result<Kind, JsonError> {
    Ok(match at.text()? {
        "ifname" => Kind::Link,
        "devgroup" => Kind::Group,
        "ether_addr" => Kind::Mac,
        "ipv4_addr" => Kind::Ip4,
        "ipv6_addr" => Kind::Ip6,
        _ => return Err(at.unexpected("a type of our sets")),
    })
}

fn key(at: &At<'_>, kinds: &[Kind]) -> Result<Vec<Atom>, JsonError> {
    if let [kind] = kinds {
        return Ok(vec![atom(at, *kind)?]);
    }
    at.object(&["concat"])?;
    let parts = at.get("concat")?;
    let mut key = Vec::with_capacity(kinds.len());
    let mut kinds = kinds.iter();
    for part in parts.items()? {
        let kind = kinds.next().ok_or_else(|| parts.unexpected("as many as its type has"))?;
        key.push(atom(&part, *kind)?);
    }
    if kinds.next().is_some() { Err(parts.unexpected("as many as its type has")) } else { Ok(key) }
}

fn atom(at: &At<'_>, kind: Kind) -> Result<Atom, JsonError> {
    if kind == Kind::Link {
        return Ok(Atom::Name(link(at)?));
    }
    span(at, kind, &[]).map(|(first, last)| Atom::Span(first, last))
}

/// The whole name of a link.
pub(super) fn link(at: &At<'_>) -> Result<String, JsonError> {
    let name = at.text()?;
    if name.ends_with('*') {
        return Err(at.unexpected("the whole name of a link"));
    }
    Ok(name.to_owned())
}

fn rule(at: &At<'_>, table: &mut Table) -> Result<(), JsonError> {
    at.object(&["family", "table", "chain", "handle", "expr"])?;
    let mut rule = Rule::default();
    for expression in at.get("expr")?.items()? {
        statement(&expression, &mut rule.0)?;
    }
    let chain = at.get("chain")?;
    let known = table.chains.get_mut(chain.text()?);
    known.ok_or_else(|| chain.wrong("this chain did not come before"))?.rules.push(rule);
    Ok(())
}
