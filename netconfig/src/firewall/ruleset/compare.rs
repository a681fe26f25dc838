//! How two rulesets differ, object by object.

use std::collections::BTreeMap;

use super::{Chain, Family, Ruleset, Set, Table};

/// Every object in which `found` is not as `wanted`; none where they mean the same.
#[must_use]
pub fn differences(found: &Ruleset, wanted: &Ruleset) -> Vec<String> {
    let mut said = Vec::new();
    for family in Family::ALL {
        let word = family.word();
        match (found.tables.get(&family), wanted.tables.get(&family)) {
            (None, None) => {}
            (None, Some(_)) => said.push(format!("{word} table: missing")),
            (Some(_), None) => said.push(format!("{word} table: unexpected")),
            (Some(found), Some(wanted)) => table(word, found, wanted, &mut said),
        }
    }
    said
}

fn table(word: &str, found: &Table, wanted: &Table, said: &mut Vec<String>) {
    for name in wanted.counters.difference(&found.counters) {
        said.push(format!("{word} counter {name}: missing"));
    }
    for name in found.counters.difference(&wanted.counters) {
        said.push(format!("{word} counter {name}: unexpected"));
    }
    each(&found.sets, &wanted.sets, |name, found, wanted| {
        set(&format!("{word} set {name}"), found, wanted, said);
    });
    each(&found.chains, &wanted.chains, |name, found, wanted| {
        chain(&format!("{word} chain {name}"), found, wanted, said);
    });
}

/// Calls `differ` with what either map has.
fn each<T>(
    found: &BTreeMap<String, T>,
    wanted: &BTreeMap<String, T>,
    mut differ: impl FnMut(&str, Option<&T>, Option<&T>),
) {
    for (name, wanted) in wanted {
        differ(name, found.get(name), Some(wanted));
    }
    for (name, found) in found.iter().filter(|(name, _)| !wanted.contains_key(*name)) {
        differ(name, Some(found), None);
    }
}

fn set(name: &str, found: Option<&Set>, wanted: Option<&Set>, said: &mut Vec<String>) {
    let (found, wanted) = match (found, wanted) {
        (Some(found), Some(wanted)) => (found, wanted),
        (None, Some(_)) => return said.push(format!("{name}: missing")),
        (_, None) => return said.push(format!("{name}: unexpected")),
    };
    if (&found.key, found.data, found.shape) != (&wanted.key, wanted.data, wanted.shape) {
        said.push(format!("{name}: of another type"));
    }
    for (key, datum) in &wanted.elements {
        match found.elements.get(key) {
            Some(other) if other == datum => {}
            Some(other) => said.push(format!("{name}, element {key:?}: {other:?}, not {datum:?}")),
            None => said.push(format!("{name}, element {key:?}: missing")),
        }
    }
    for key in found.elements.keys().filter(|key| !wanted.elements.contains_key(*key)) {
        said.push(format!("{name}, element {key:?}: unexpected"));
    }
}

fn chain(name: &str, found: Option<&Chain>, wanted: Option<&Chain>, said: &mut Vec<String>) {
    let (found, wanted) = match (found, wanted) {
        (Some(found), Some(wanted)) => (found, wanted),
        (None, Some(_)) => return said.push(format!("{name}: missing")),
        (_, None) => return said.push(format!("{name}: unexpected")),
    };
    if found.hook != wanted.hook {
        said.push(format!("{name}: hooked as {:?}, not {:?}", found.hook, wanted.hook));
    }
    if found.rules.len() != wanted.rules.len() {
        said.push(format!("{name}: {} rules, not {}", found.rules.len(), wanted.rules.len()));
    }
    for (at, (found, wanted)) in found.rules.iter().zip(&wanted.rules).enumerate() {
        if found != wanted {
            said.push(format!("{name}, rule {at}: `{found}`, not `{wanted}`"));
        }
    }
}
