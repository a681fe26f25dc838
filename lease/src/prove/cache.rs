//! Ways of last-level caches (resctrl): a way that a lease has is in no other group, and its group is its own.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_api::id::LeaseId;
use bulkhead_api::inventory::Cache;
use bulkhead_api::isolation::{CacheGroup, Class, Facts, Holder, Sharing};

use super::level::LAST;
use super::{list, pairs, tenants};

fn called(group: &CacheGroup) -> String {
    match &group.lease {
        Some(lease) => lease.to_string(),
        None if group.name.is_empty() => "all others".to_owned(),
        None => group.name.clone(),
    }
}

fn owners<'a>(groups: impl IntoIterator<Item = &'a CacheGroup>) -> Vec<Holder> {
    groups.into_iter().filter_map(|group| group.lease.clone()).map(Holder::Lease).collect()
}

/// Whether anything in a group fills a cache: what is in the default group is anywhere.
fn fills(facts: &Facts, group: &CacheGroup, cache: u32) -> bool {
    let is = |known: &&Cache| known.level == LAST && known.id == Some(cache);
    let known = facts.caches.iter().find(is);
    group.name.is_empty() || known.is_none_or(|known| !known.cpus.is_disjoint(&group.cpus))
}

/// The default group claims no ways, but fills those that it has: none of a lease's may be among them.
pub(super) fn ways(facts: &Facts, found: &mut Vec<Sharing>) {
    for (a, b) in pairs(&facts.cache_groups) {
        for (cache, mask) in &a.ways {
            let both = mask & b.ways.get(cache).copied().unwrap_or_default();
            if both != 0 && fills(facts, a, *cache) && fills(facts, b, *cache) {
                let resource = format!("ways {both:x} of cache {cache}");
                let message = format!("{resource} are of {} and of {}", called(a), called(b));
                let holders = owners([a, b]);
                found.push(Sharing { class: Class::CacheWays, holders, resource, message });
            }
        }
    }
}

pub(super) fn groups(facts: &Facts, found: &mut Vec<Sharing>) {
    for group in facts.cache_groups.iter().filter(|group| !group.name.is_empty()) {
        let is_owner = |id: &LeaseId| group.lease.as_ref() == Some(id);
        let owner = tenants(facts)
            .find(|holder| matches!(&holder.holder, Holder::Lease(id) if is_owner(id)));
        // A CPU that the owner has as well is told as such.
        let own = |cpu: &u32| {
            owner.and_then(|owner| owner.cpus.as_ref()).is_some_and(|cpus| cpus.contains(cpu))
        };
        let mut others: BTreeMap<&Holder, BTreeSet<u32>> = BTreeMap::new();
        let foreign = tenants(facts)
            .filter(|holder| !matches!(&holder.holder, Holder::Lease(id) if is_owner(id)));
        for holder in foreign {
            let inside =
                holder.cpus.iter().flatten().filter(|cpu| group.cpus.contains(cpu) && !own(cpu));
            let inside: BTreeSet<u32> = inside.copied().collect();
            if !inside.is_empty() {
                others.insert(&holder.holder, inside);
            }
        }
        for (other, cpus) in others {
            let resource = format!("CPUs {}", list(&cpus));
            let message = format!("{resource} of {other} fill the cache ways of {}", called(group));
            let holders = owners([group]).into_iter().chain([other.clone()]).collect();
            found.push(Sharing { class: Class::CacheGroup, holders, resource, message });
        }
    }
}
