//! Which links rules tell apart: for all others one answer stands.

use std::collections::BTreeSet;

use crate::firewall::ruleset::{Atom, Family, Field, Kind, Ruleset, Set, Statement, Values};

/// Names of links that rules of a hook's table tell apart as ways out of packets that came in by `incoming`.
pub(super) fn named_ways_out<'a>(
    rules: &'a Ruleset,
    family: Family,
    incoming: &str,
) -> BTreeSet<&'a str> {
    let Some(table) = rules.tables.get(&family) else { return BTreeSet::new() };
    let mut found: BTreeSet<&str> = BTreeSet::new();
    for set in table.sets.values().filter(|set| set.key.starts_with(&[Kind::Link, Kind::Link])) {
        let start = Atom::Name(incoming.to_owned());
        let own = set.elements.range(vec![start.clone()]..);
        for (key, _) in own.take_while(|(key, _)| key.first() == Some(&start)) {
            if let Some(Atom::Name(name)) = key.get(1) {
                found.insert(name);
            }
        }
    }
    for rule in table.chains.values().flat_map(|chain| &chain.rules) {
        for statement in &rule.0 {
            let Statement::Match { fields, values, .. } = statement else { continue };
            if fields.as_slice() != [Field::OutLink] {
                continue;
            }
            let members = match values {
                Values::Names(names) => names.iter().map(String::as_str).collect(),
                Values::Set(set) => table.sets.get(set).map(links_of).unwrap_or_default(),
                Values::Numbers(_) => Vec::new(),
            };
            found.extend(members);
        }
    }
    found
}

fn links_of(set: &Set) -> Vec<&str> {
    let first = set.elements.keys().filter_map(|key| key.first());
    first
        .filter_map(|atom| match atom {
            Atom::Name(name) => Some(name.as_str()),
            Atom::Span(..) => None,
        })
        .collect()
}
