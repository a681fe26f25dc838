//! Bounds that do not depend on places: instances of a profile, engines of a GPU.

use std::collections::BTreeMap;

use super::{Lack, Standing, Table};

/// Whether what stands and what is wanted stay within every bound together.
pub(super) fn check(table: &Table, standing: &[Standing], wanted: &[u32]) -> Result<(), Lack> {
    let mut use_ = Use::of(standing);
    for &profile in wanted {
        use_.add(table, profile)?;
    }
    Ok(())
}

/// Instances by profile.
#[derive(Debug, Clone, Default)]
pub(super) struct Use {
    counts: BTreeMap<u32, u64>,
}

impl Use {
    pub(super) fn of(standing: &[Standing]) -> Self {
        let mut counts = BTreeMap::new();
        for slice in standing {
            *counts.entry(slice.place.profile).or_default() += 1;
        }
        Self { counts }
    }

    /// One more of a profile, if its bounds allow it.
    pub(super) fn add(&mut self, table: &Table, profile: u32) -> Result<(), Lack> {
        let geometry = table.geometry();
        let one = geometry.profile(profile).ok_or(Lack::NoProfile { profile })?;
        let count = self.counts.entry(profile).or_default();
        *count += 1;
        if *count > u64::from(one.max_instances) {
            let limit = one.max_instances;
            return Err(Lack::Instances { profile: one.name.clone(), limit });
        }
        for (&kind, &limit) in geometry.engine_limits() {
            if !one.engines.contains_key(&kind) {
                continue;
            }
            let of = |(&id, &count): (&u32, &u64)| {
                let engines = geometry.profile(id).and_then(|p| p.engines.get(&kind));
                count.saturating_mul(u64::from(engines.copied().unwrap_or_default()))
            };
            let wanted = self.counts.iter().map(of).fold(0, u64::saturating_add);
            if wanted > u64::from(limit) {
                return Err(Lack::Engines { profile: one.name.clone(), kind, wanted, limit });
            }
        }
        Ok(())
    }
}
