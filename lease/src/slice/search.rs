//! Planning where the sets are too many to list: depth first, a bounded number of steps.

use bulkhead_api::mig::Placement;

use super::table::Place;
use super::{GpuPlan, Hold, Lack, Move, Standing, Table};

/// Steps before the search gives up.
pub const NODES: u32 = 200_000;

/// One slice that needs a place.
#[derive(Debug, Clone, Copy)]
struct Item {
    profile: u32,
    shape: usize,
    size: u8,
}

struct Search<'a> {
    table: &'a Table,
    left: u32,
}

/// As [`super::plan`]: nothing moved first, then one slice, then two.
pub(super) fn plan(table: &Table, standing: &[Standing], wanted: &[u32]) -> Result<GpuPlan, Lack> {
    let item = |profile: u32| {
        let shape = table.shape(profile).ok_or(Lack::NoProfile { profile })?;
        let size = table.geometry().profile(profile).map_or(0, |one| one.size);
        Ok(Item { profile, shape, size })
    };
    let new: Vec<Item> = wanted.iter().map(|&profile| item(profile)).collect::<Result<_, _>>()?;
    let Some(largest) = new.iter().max_by_key(|item| item.size) else {
        return Ok(GpuPlan { create: Vec::new(), moves: Vec::new(), loss: 0 });
    };
    let movable: Vec<Standing> =
        standing.iter().copied().filter(|slice| slice.hold == Hold::Movable).collect();
    let taken = standing.iter().fold(0, |all, slice| all | slice.place.mask());
    let mut search = Search { table, left: NODES };
    for count in 0..=movable.len() {
        let mut moved = Vec::new();
        if let Some(plan) = search.subsets(&movable, count, &mut moved, taken, &new) {
            return Ok(plan);
        }
    }
    let profile = table.geometry().profile(largest.profile);
    let profile = profile.map(|one| one.name.clone());
    let profile = profile.ok_or(Lack::NoProfile { profile: largest.profile })?;
    if search.left == 0 {
        return Err(Lack::Undecided { profile });
    }
    let fixed = standing.len() > movable.len();
    Err(if fixed { Lack::Blocked { profile } } else { Lack::Full { profile } })
}

impl Search<'_> {
    /// Tries every choice of `count` slices that move.
    fn subsets(
        &mut self,
        movable: &[Standing],
        count: usize,
        moved: &mut Vec<Standing>,
        taken: u64,
        new: &[Item],
    ) -> Option<GpuPlan> {
        if count == 0 {
            return self.fill(moved, taken, new);
        }
        let mut rest = movable;
        while let Some((first, behind)) = rest.split_first() {
            moved.push(*first);
            let found = self.subsets(behind, count - 1, moved, taken & !first.place.mask(), new);
            moved.pop();
            if found.is_some() || self.left == 0 {
                return found;
            }
            rest = behind;
        }
        None
    }

    fn fill(&mut self, moved: &[Standing], taken: u64, new: &[Item]) -> Option<GpuPlan> {
        let mut items: Vec<(usize, Item)> = new.iter().copied().enumerate().collect();
        for slice in moved {
            let shape = self.table.shape(slice.place.profile)?;
            let item = Item { profile: slice.place.profile, shape, size: slice.place.size };
            items.push((items.len(), item));
        }
        items.sort_by_key(|(number, item)| (std::cmp::Reverse(item.size), item.shape, *number));
        let mut found: Vec<(usize, Placement)> = Vec::new();
        if !self.descend(&items, taken, &mut found) {
            return None;
        }
        found.sort_unstable_by_key(|(number, _)| *number);
        let mut places = found.into_iter().map(|(_, place)| place);
        let create = places.by_ref().take(new.len()).collect();
        let moves = moved.iter().zip(places).map(|(slice, to)| Move { from: slice.place, to });
        Some(GpuPlan { create, moves: moves.collect(), loss: 0 })
    }

    fn descend(
        &mut self,
        items: &[(usize, Item)],
        taken: u64,
        found: &mut Vec<(usize, Placement)>,
    ) -> bool {
        let Some((&(number, item), rest)) = items.split_first() else {
            return true;
        };
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            return false;
        }
        let fits = |place: &&Place| place.shape == item.shape && place.mask & taken == 0;
        let mut places: Vec<Place> = self.table.places().iter().filter(fits).copied().collect();
        // Best fit: what leaves the most slices of places open comes first.
        places.sort_by_key(|place| (std::cmp::Reverse(self.open(taken | place.mask)), place.start));
        for Place { start, size, mask, .. } in places {
            found.push((number, Placement { profile: item.profile, start, size }));
            if self.descend(rest, taken | mask, found) {
                return true;
            }
            found.pop();
        }
        false
    }

    fn open(&self, taken: u64) -> u32 {
        let free = self.table.places().iter().filter(|place| place.mask & taken == 0);
        free.map(|place| u32::from(place.size)).sum()
    }
}
