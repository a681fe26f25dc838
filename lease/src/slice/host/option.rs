//! What one GPU could serve of the requests, and at what cost.

use super::super::limits::Use;
use super::super::plan as plan_gpu;
use super::super::table::{Ground, Key, sum};
use super::{Gpu, Kinds, Mode, Near, Wanted};

/// What a choice costs; compared from the first field on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cost {
    pub(super) moved: u32,
    pub(super) switched: u32,
    pub(super) touched: u32,
    pub(super) far: u32,
    pub(super) loss: i64,
}

impl Cost {
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            moved: self.moved.saturating_add(other.moved),
            switched: self.switched.saturating_add(other.switched),
            touched: self.touched.saturating_add(other.touched),
            far: self.far.saturating_add(other.far),
            loss: self.loss.saturating_add(other.loss),
        }
    }
}

/// Some requests that one GPU serves together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    /// How many of each kind.
    pub(super) counts: Vec<u8>,
    pub(super) cost: Cost,
    /// Its mode is changed for them.
    pub(super) switches: bool,
}

/// The NVML profile id that a kind is on this GPU.
pub(super) fn profile(gpu: &Gpu<'_>, kind: &Wanted) -> Option<u32> {
    match kind {
        Wanted::Slice(name) => Some(gpu.slices?.0.geometry().named(name)?.id),
        Wanted::Whole => None,
    }
}

/// Everything that the GPU can serve, but nothing.
pub(super) fn choices(gpu: &Gpu<'_>, kinds: &Kinds<'_>, near: &Near) -> Vec<Choice> {
    let mut found = Vec::new();
    let far = near.far(gpu);
    if gpu.taken || far && near.required {
        return found;
    }
    let base = Cost { touched: 1, ..Cost::default() };
    if let Some(choice) = whole(gpu, kinds, base, far) {
        found.push(choice);
    }
    let switches = gpu.mode == Mode::Whole;
    let usable = !switches || gpu.switchable && gpu.standing.is_empty();
    let (Some((table, _)), true) = (gpu.slices, usable) else { return found };
    let Ok(ground) = Ground::read(table, gpu.standing) else { return found };
    let base = Cost { switched: u32::from(switches), ..base };
    let ids: Vec<Option<u32>> = kinds.names.iter().map(|kind| profile(gpu, kind)).collect();
    let mut walk = Walk { gpu, ids: &ids, most: &kinds.counts, ground, base, far, found };
    walk.descend(0, &mut vec![0; ids.len()], 0, &Use::of(gpu.standing));
    let mut found = walk.found;
    for choice in &mut found {
        let slices = choice.counts.iter().zip(&ids).any(|(&count, id)| count > 0 && id.is_some());
        choice.switches |= switches && slices;
    }
    found
}

fn whole(gpu: &Gpu<'_>, kinds: &Kinds<'_>, base: Cost, far: bool) -> Option<Choice> {
    let at = kinds.names.iter().position(|kind| **kind == Wanted::Whole)?;
    let switches = gpu.mode == Mode::Mig;
    if !gpu.standing.is_empty() || switches && !gpu.switchable {
        return None;
    }
    let mut counts = vec![0; kinds.names.len()];
    *counts.get_mut(at)? = 1;
    // As much as the largest slice costs those who come later.
    let loss = gpu.slices.and_then(|(table, values)| {
        let largest = table.geometry().profiles().iter().max_by_key(|profile| profile.size)?;
        plan_gpu(table, values, &[], &[largest.id]).ok().map(|plan| plan.loss)
    });
    let loss = loss.unwrap_or_default();
    let (switched, far) = (u32::from(switches), u32::from(far));
    Some(Choice { counts, cost: Cost { switched, far, loss, ..base }, switches })
}

struct Walk<'a> {
    gpu: &'a Gpu<'a>,
    ids: &'a [Option<u32>],
    most: &'a [u8],
    ground: Ground,
    base: Cost,
    far: bool,
    found: Vec<Choice>,
}

impl Walk<'_> {
    /// Adds ever more of each kind; what does not fit does not fit with more either.
    fn descend(&mut self, kind: usize, counts: &mut Vec<u8>, key: Key, used: &Use) {
        let Some(id) = self.ids.get(kind) else { return };
        self.descend(kind + 1, counts, key, used);
        let (Some(id), Some((table, _))) = (*id, self.gpu.slices) else { return };
        let (mut key, mut used) = (key, used.clone());
        for _ in 0..self.most.get(kind).copied().unwrap_or_default() {
            if used.add(table, id).is_err() {
                break;
            }
            key = sum(key, table.key(id).unwrap_or_default());
            if let Some(count) = counts.get_mut(kind) {
                *count += 1;
            }
            let Some(cost) = self.cost(counts, key) else { break };
            self.found.push(Choice { counts: counts.clone(), cost, switches: false });
            self.descend(kind + 1, counts, key, &used);
        }
        if let Some(count) = counts.get_mut(kind) {
            *count = 0;
        }
    }

    fn cost(&self, counts: &[u8], key: Key) -> Option<Cost> {
        let (table, values) = self.gpu.slices?;
        let (moved, loss) = match table.states() {
            Some(states) => {
                let best = states.best(&self.ground, values, key)?;
                (best.moved, best.loss)
            }
            None => {
                let of = |(&count, id): (&u8, &Option<u32>)| {
                    std::iter::repeat_n(*id, usize::from(count)).flatten().collect::<Vec<_>>()
                };
                let ids: Vec<u32> = counts.iter().zip(self.ids).flat_map(of).collect();
                let plan = plan_gpu(table, values, self.gpu.standing, &ids).ok()?;
                (u32::try_from(plan.moves.len()).ok()?, plan.loss)
            }
        };
        let count = counts.iter().fold(0, |all, &count| all + u32::from(count));
        let far = if self.far { count } else { 0 };
        Some(Cost { moved, far, loss, ..self.base })
    }
}
