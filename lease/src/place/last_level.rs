//! Last-level caches: which one a core is behind, and ways of it for a lease (resctrl).
//!
//! A lease's ways are neighbouring bits that no other lease has and that no device fills
//! ([`Resctrl::shareable`]); the default group, the host's and everybody else's, keeps a stretch of its own.

use std::collections::BTreeMap;

use bulkhead_api::inventory::{Cache, Core, Inventory, Resctrl};
use bulkhead_api::lease::{CacheShare, Holding};
use bulkhead_api::resource::{CacheWays, Resource};

use super::ground::Cpus;
use super::reach::Spot;
use super::request::Taken;

/// The level that processors part and that leases of level `l3` do not share.
const LAST_LEVEL: u8 = 3;

/// The last-level cache of each core, as an index into `caches`; absent where not all CPUs of the core are
/// known to be behind one and the same.
pub(super) fn of(caches: &[Cache], cores: &[&Core], by_cpu: &Cpus) -> Vec<Option<usize>> {
    // Cache, and CPUs of the core seen behind it; two caches for one core are none.
    let mut seen: Vec<(Option<usize>, usize, bool)> = vec![(None, 0, false); cores.len()];
    for (index, cache) in caches.iter().enumerate().filter(|(_, c)| c.level == LAST_LEVEL) {
        for at in cache.cpus.iter().flat_map(|&cpu| by_cpu.cores(cpu)) {
            if let Some((known, count, torn)) = seen.get_mut(at) {
                *torn |= known.is_some_and(|known| known != index);
                *known = Some(index);
                *count += 1;
            }
        }
    }
    let whole = |(core, (cache, count, torn)): (&&Core, (Option<usize>, usize, bool))| {
        cache.filter(|_| !torn && count == core.cpus.len())
    };
    cores.iter().zip(seen).map(whole).collect()
}

/// Ways for one lease.
#[derive(Debug)]
pub(super) struct Ways<'a> {
    resctrl: &'a Resctrl,
    share: CacheShare,
    caches: &'a [Cache],
    /// Ways that are somebody's or in quarantine, by number of the cache.
    taken: BTreeMap<u32, u64>,
    /// Groups that are somebody's or in quarantine.
    groups: u32,
}

impl<'a> Ways<'a> {
    /// Absent where none are wanted or the processor has none to give.
    pub(super) fn of(
        inventory: &'a Inventory,
        taken: &Taken,
        share: Option<CacheShare>,
    ) -> Option<Self> {
        let (resctrl, share) = (inventory.cpu.resctrl.as_ref()?, share?);
        let held = taken.held.values().map(|Holding { cache, .. }| cache);
        let quarantined = taken.quarantined.iter().filter_map(|resource| {
            if let Resource::Cache { ways } = resource { Some(ways) } else { None }
        });
        let (mut masks, mut groups) = (BTreeMap::new(), 0_u32);
        for ways in held.chain(quarantined).filter(|ways| !ways.is_empty()) {
            groups = groups.saturating_add(1);
            for CacheWays { cache, mask, .. } in ways {
                *masks.entry(*cache).or_default() |= mask;
            }
        }
        Some(Self { resctrl, share, caches: &inventory.cpu.caches, taken: masks, groups })
    }

    /// Groups for leases in all, and those left: the default group is nobody's.
    pub(super) fn groups(&self) -> (u32, u32) {
        let all = self.resctrl.groups.saturating_sub(1);
        (all, all.saturating_sub(self.groups))
    }

    /// Whether the cache of a core has ways left.
    pub(super) fn admits(&self, spot: &Spot<'_>) -> bool {
        self.number(spot).is_some_and(|cache| self.mask(cache).is_some())
    }

    /// Ways of each cache of these cores, ascending.
    pub(super) fn choose(&self, spots: &[&Spot<'_>]) -> Vec<CacheWays> {
        let numbers: std::collections::BTreeSet<u32> =
            spots.iter().filter_map(|spot| self.number(spot)).collect();
        let ways = |cache| {
            let mask = self.mask(cache)?;
            Some(CacheWays { cache, mask, bandwidth_percent: self.bandwidth() })
        };
        numbers.into_iter().filter_map(ways).collect()
    }

    fn number(&self, spot: &Spot<'_>) -> Option<u32> {
        self.caches.get(spot.l3?)?.id
    }

    /// The lowest ways that do. A share below what a group must have is as much as it must have.
    fn mask(&self, cache: u32) -> Option<u64> {
        let least = self.resctrl.min_ways.max(1);
        let (all, wanted) = (self.resctrl.ways.min(64), self.share.ways.max(least));
        let taken = self.taken.get(&cache).copied().unwrap_or_default();
        (0..=all.checked_sub(wanted)?).map(|low| ones(wanted) << low).find(|&mask| {
            let free = mask & (taken | self.resctrl.shareable) == 0;
            free && longest_run(ones(all) & !(taken | mask)) >= least
        })
    }

    /// Rounded up to a step that the processor has: `min_bandwidth + N * bandwidth_gran`. All of it is no bound.
    fn bandwidth(&self) -> Option<u8> {
        let wanted = self.share.bandwidth_percent.filter(|percent| *percent < 100)?;
        let least = self.resctrl.min_bandwidth_percent?;
        let step = self.resctrl.bandwidth_step_percent.max(1);
        let steps = wanted.saturating_sub(least).div_ceil(step);
        Some(least.saturating_add(steps.saturating_mul(step))).filter(|percent| *percent < 100)
    }
}

/// The lowest `count` bits.
const fn ones(count: u32) -> u64 {
    match 64_u32.checked_sub(count) {
        Some(64) => 0,
        Some(rest) => u64::MAX >> rest,
        None => u64::MAX,
    }
}

fn longest_run(mut mask: u64) -> u32 {
    let mut run = 0;
    while mask != 0 {
        mask &= mask << 1;
        run += 1;
    }
    run
}
