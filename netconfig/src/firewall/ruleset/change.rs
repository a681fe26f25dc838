//! The difference between two rulesets as one transaction.

use std::fmt::{self, Write};

use super::text::{self, HookText};
use super::{Atom, Datum, Family, Ruleset, Set, TABLE, Table};

/// One transaction that makes `new` of `old`; nothing where they are equal. What both have alike is not named in it, so
/// the counters and flows of other tenants stay as they are.
#[must_use]
pub fn change(old: &Ruleset, new: &Ruleset) -> Option<String> {
    let mut out = String::new();
    for family in Family::ALL {
        let word = family.word();
        let _never = match (old.tables.get(&family), new.tables.get(&family)) {
            (None, None) => Ok(()),
            (Some(_), None) => writeln!(out, "delete table {word} {TABLE}"),
            (None, Some(table)) => text::write_table(family, table, &mut out),
            (Some(old), Some(new)) if old == new => Ok(()),
            (Some(old), Some(new)) if same_shape(old, new) => {
                Edit { word, old, new }.write(&mut out)
            }
            (Some(_), Some(table)) => writeln!(out, "delete table {word} {TABLE}")
                .and_then(|()| text::write_table(family, table, &mut out)),
        };
    }
    (!out.is_empty()).then_some(out)
}

/// Whether what both have was declared alike, so that its contents can be edited.
fn same_shape(old: &Table, new: &Table) -> bool {
    let sets = old.sets.iter().all(|(name, set)| {
        new.sets
            .get(name)
            .is_none_or(|now| (&set.key, set.data, set.shape) == (&now.key, now.data, now.shape))
    });
    let chains = old
        .chains
        .iter()
        .all(|(name, chain)| new.chains.get(name).is_none_or(|now| chain.hook == now.hook));
    sets && chains
}

/// A table that is edited: what refers goes before what is referred to, and comes after it.
struct Edit<'a> {
    word: &'static str,
    old: &'a Table,
    new: &'a Table,
}

impl Edit<'_> {
    fn write(&self, out: &mut String) -> fmt::Result {
        self.take_elements(out)?;
        self.empty_chains(out)?;
        self.delete_unused(out)?;
        self.declare(out)?;
        self.fill_chains(out)?;
        self.give_elements(out)
    }

    fn take_elements(&self, out: &mut String) -> fmt::Result {
        for (name, set) in &self.old.sets {
            let now = self.new.sets.get(name);
            let kept = |key: &Vec<Atom>, datum: &Datum| {
                now.is_some_and(|now| now.elements.get(key) == Some(datum))
            };
            let gone: Vec<_> =
                set.elements.iter().filter(|(key, datum)| !kept(key, datum)).collect();
            self.write_elements("delete", name, set, &gone, out)?;
        }
        Ok(())
    }

    fn give_elements(&self, out: &mut String) -> fmt::Result {
        for (name, set) in &self.new.sets {
            let before = self.old.sets.get(name);
            let there = |key: &Vec<Atom>, datum: &Datum| {
                before.is_some_and(|before| before.elements.get(key) == Some(datum))
            };
            let come: Vec<_> =
                set.elements.iter().filter(|(key, datum)| !there(key, datum)).collect();
            self.write_elements("add", name, set, &come, out)?;
        }
        Ok(())
    }

    fn write_elements(
        &self,
        verb: &str,
        name: &str,
        set: &Set,
        elements: &[(&Vec<Atom>, &Datum)],
        out: &mut String,
    ) -> fmt::Result {
        if elements.is_empty() {
            return Ok(());
        }
        write!(out, "{verb} element {} {TABLE} {name} {{ ", self.word)?;
        text::write_elements(set, elements.iter().copied(), out)?;
        out.write_str(" }\n")
    }

    fn empty_chains(&self, out: &mut String) -> fmt::Result {
        for (name, chain) in &self.old.chains {
            if !chain.rules.is_empty() && self.new.chains.get(name) != Some(chain) {
                writeln!(out, "flush chain {} {TABLE} {name}", self.word)?;
            }
        }
        Ok(())
    }

    fn delete_unused(&self, out: &mut String) -> fmt::Result {
        let Self { word, old, new } = self;
        for name in old.chains.keys().filter(|name| !new.chains.contains_key(*name)) {
            writeln!(out, "delete chain {word} {TABLE} {name}")?;
        }
        for name in old.counters.difference(&new.counters) {
            writeln!(out, "delete counter {word} {TABLE} {name}")?;
        }
        for (name, set) in old.sets.iter().filter(|(name, _)| !new.sets.contains_key(*name)) {
            let kind = if set.data == super::DataKind::Member { "set" } else { "map" };
            writeln!(out, "delete {kind} {word} {TABLE} {name}")?;
        }
        Ok(())
    }

    fn declare(&self, out: &mut String) -> fmt::Result {
        let Self { word, old, new } = self;
        for name in new.counters.difference(&old.counters) {
            writeln!(out, "add counter {word} {TABLE} {name}")?;
        }
        for (name, set) in new.sets.iter().filter(|(name, _)| !old.sets.contains_key(*name)) {
            writeln!(out, "table {word} {TABLE} {{")?;
            text::write_set(name, set, false, out)?;
            out.write_str("}\n")?;
        }
        for (name, chain) in new.chains.iter().filter(|(name, _)| !old.chains.contains_key(*name)) {
            write!(out, "add chain {word} {TABLE} {name}")?;
            match &chain.hook {
                Some(hook) => writeln!(out, " {{ {} }}", HookText(hook))?,
                None => out.write_str("\n")?,
            }
        }
        Ok(())
    }

    fn fill_chains(&self, out: &mut String) -> fmt::Result {
        for (name, chain) in &self.new.chains {
            if self.old.chains.get(name) == Some(chain) {
                continue;
            }
            for rule in &chain.rules {
                writeln!(out, "add rule {} {TABLE} {name} {rule}", self.word)?;
            }
        }
        Ok(())
    }
}
