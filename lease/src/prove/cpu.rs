//! Processors: one CPU, or two siblings of one core, in two hands.

use std::collections::BTreeSet;

use bulkhead_api::isolation::{Class, Facts, HolderFacts, Sharing};

use super::{between, by_cpu, common, list, of, pairs, placed_tenants, tenants, users};

fn cpus(holder: &HolderFacts) -> impl Iterator<Item = u32> {
    holder.cpus.iter().flatten().copied()
}

pub(super) fn overlaps(facts: &Facts, found: &mut Vec<Sharing>) {
    let held =
        placed_tenants(facts).flat_map(|placed| cpus(placed.1).map(move |cpu| (cpu, placed)));
    for both in common(held) {
        let resource = format!("CPUs {}", list(&both.what));
        let (a, b) = (both.a, both.b);
        let message = format!("{resource} are in effect for {} and {}", a.holder, b.holder);
        found.push(between(Class::Cpu, a, b, resource, message));
    }
}

pub(super) fn siblings(facts: &Facts, found: &mut Vec<Sharing>) {
    let hands = by_cpu(facts);
    for core in &facts.cores {
        let inside = |holder: &HolderFacts| -> BTreeSet<u32> {
            let has = |cpu: &&u32| holder.cpus.as_ref().is_some_and(|cpus| cpus.contains(*cpu));
            core.cpus.iter().filter(has).copied().collect()
        };
        for (a, b) in pairs(users(&hands, &core.cpus).into_values()) {
            let (of_a, of_b) = (inside(a), inside(b));
            // A CPU that both have is an overlap and told as such.
            let only_a = of_a.difference(&of_b).next();
            let only_b = of_b.difference(&of_a).next();
            if let (Some(x), Some(y)) = (only_a, only_b) {
                let resource = format!("core {} of socket {}", core.id, core.socket);
                let message = format!(
                    "CPU {x} of {} is SMT sibling of CPU {y} of {} in {resource}",
                    a.holder, b.holder
                );
                found.push(between(Class::SmtSibling, a, b, resource, message));
            }
        }
    }
}

pub(super) fn unknown(facts: &Facts, found: &mut Vec<Sharing>) {
    let known: BTreeSet<u32> = facts.cores.iter().flat_map(|core| &core.cpus).copied().collect();
    for holder in tenants(facts) {
        let strange: BTreeSet<u32> = cpus(holder).filter(|cpu| !known.contains(cpu)).collect();
        if !strange.is_empty() {
            let resource = format!("CPUs {}", list(&strange));
            let message = format!(
                "{resource} of {} are in no known core: their siblings are not known",
                holder.holder
            );
            found.push(of(Class::UnknownCpu, holder, resource, message));
        }
    }
}
