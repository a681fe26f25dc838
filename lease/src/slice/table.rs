//! Every set of slices that can stand on a GPU, by its content.

use std::collections::BTreeMap;

use bulkhead_api::mig::{Geometry, Placement, Profile};

use super::values::Values;
use super::{GpuPlan, Hold, Lack, Move, Standing};

/// Sets that are listed at most; a grid of 8 has 723.
const MAX_STATES: usize = 4096;

/// Most shapes: a content has a byte for each.
const MAX_SHAPES: usize = 8;

/// A content: how many slices of each shape, a byte each. Every count is at most 64, so sums of two do not carry.
pub(super) type Key = u64;

/// Both contents together.
pub(super) fn sum(a: Key, b: Key) -> Key {
    a.saturating_add(b)
}

/// A legal place of a shape.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) shape: usize,
    pub(super) start: u8,
    pub(super) size: u8,
    pub(super) mask: u64,
}

/// A GPU's geometry with what planning needs of it; made once for each model.
#[derive(Debug, Clone)]
pub struct Table {
    geometry: Geometry,
    /// Shape of each profile.
    shape_of: BTreeMap<u32, usize>,
    places: Vec<Place>,
    states: Option<States>,
}

/// All sets, each a bit for each place.
#[derive(Debug, Clone)]
pub(super) struct States {
    /// Ascending by content, then by bits.
    all: Vec<u64>,
    /// Where the sets of a content are in `all`.
    groups: BTreeMap<Key, (usize, usize)>,
    /// Where a set is in `all`.
    index: BTreeMap<u64, usize>,
}

/// What stands on a GPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Ground {
    /// Places that stay.
    pub(super) fixed: u64,
    /// Places whose leases agreed to move.
    pub(super) movable: u64,
    /// Content of both.
    pub(super) key: Key,
}

/// The best set for a wanted content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Best {
    pub(super) state: u64,
    pub(super) moved: u32,
    /// Value lost by it.
    pub(super) loss: i64,
}

impl Table {
    /// Lists what can stand. A grid whose sets are too many is planned by search.
    #[must_use]
    pub fn new(geometry: &Geometry) -> Self {
        let mut shapes: Vec<&Profile> = Vec::new();
        let mut shape_of = BTreeMap::new();
        for profile in geometry.profiles() {
            let same = |p: &&Profile| p.size == profile.size && p.starts == profile.starts;
            let shape = shapes.iter().position(same).unwrap_or_else(|| {
                shapes.push(profile);
                shapes.len() - 1
            });
            shape_of.insert(profile.id, shape);
        }
        let mut places = Vec::new();
        for (shape, profile) in shapes.iter().enumerate() {
            let of = profile.placements().map(|place| Place {
                shape,
                start: place.start,
                size: place.size,
                mask: place.mask(),
            });
            places.extend(of);
        }
        let few = shapes.len() <= MAX_SHAPES && places.len() <= 64;
        let states = few.then(|| States::list(&places)).flatten();
        Self { geometry: geometry.clone(), shape_of, places, states }
    }

    /// The geometry it was made of.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// How many sets can stand, and how many contents they have; absent where a search plans.
    #[must_use]
    pub fn size(&self) -> Option<(usize, usize)> {
        self.states.as_ref().map(|states| (states.all.len(), states.groups.len()))
    }

    pub(super) fn states(&self) -> Option<&States> {
        self.states.as_ref()
    }

    pub(super) fn places(&self) -> &[Place] {
        &self.places
    }

    pub(super) fn shape(&self, profile: u32) -> Option<usize> {
        self.shape_of.get(&profile).copied()
    }

    /// Content of one slice of a profile.
    pub(super) fn key(&self, profile: u32) -> Option<Key> {
        self.shape(profile).and_then(shape_key)
    }

    /// Content of several; more than the grid has slices are on no GPU.
    pub(super) fn key_of(&self, wanted: &[u32]) -> Result<Key, Lack> {
        let mut key = 0;
        for (&profile, count) in wanted.iter().zip(1_usize..) {
            let one = self.geometry.profile(profile).ok_or(Lack::NoProfile { profile })?;
            if count > usize::from(self.geometry.grid()) {
                return Err(Lack::Full { profile: one.name.clone() });
            }
            key = sum(key, self.key(profile).ok_or(Lack::NoProfile { profile })?);
        }
        Ok(key)
    }

    /// Bit of a place.
    pub(super) fn bit(&self, place: Placement) -> Option<u64> {
        let shape = self.shape(place.profile)?;
        let same = |p: &Place| p.shape == shape && p.start == place.start && p.size == place.size;
        let at = self.places.iter().position(same)?;
        1_u64.checked_shl(u32::try_from(at).ok()?)
    }

    /// Hands the places of a set to what stands and what is wanted.
    pub(super) fn assign(
        &self,
        ground: &Ground,
        best: Best,
        standing: &[Standing],
        wanted: &[u32],
    ) -> GpuPlan {
        let stays = ground.fixed | ground.movable & best.state;
        let mut free: Vec<Place> =
            bits(best.state & !stays).filter_map(|at| self.places.get(at).copied()).collect();
        free.sort_by_key(|place| place.start);
        let mut take = |profile: u32| {
            let shape = self.shape(profile)?;
            let at = free.iter().position(|place| place.shape == shape)?;
            let Place { start, size, .. } = free.remove(at);
            Some(Placement { profile, start, size })
        };
        let create = wanted.iter().filter_map(|&profile| take(profile)).collect();
        let leaves = |slice: &&Standing| {
            slice.hold == Hold::Movable
                && self.bit(slice.place).is_some_and(|bit| bit & best.state == 0)
        };
        let moves = standing
            .iter()
            .filter(leaves)
            .filter_map(|slice| Some(Move { from: slice.place, to: take(slice.place.profile)? }))
            .collect();
        GpuPlan { create, moves, loss: best.loss }
    }
}

/// A byte for each shape.
pub(super) fn shape_key(shape: usize) -> Option<Key> {
    u32::try_from(shape).ok().and_then(|shape| 1_u64.checked_shl(shape.saturating_mul(8)))
}

/// Numbers of the bits that are set, ascending.
pub(super) fn bits(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lowest = (set != 0).then(|| set.trailing_zeros() as usize);
        set &= set.wrapping_sub(1);
        lowest
    })
}

impl States {
    fn list(places: &[Place]) -> Option<Self> {
        let mut found: Vec<(Key, u64)> = Vec::new();
        // Depth first over "with and without this place"; each entry: next place, slices taken, set, content.
        let mut open = vec![(0_usize, 0_u64, 0_u64, 0_u64)];
        while let Some((at, taken, state, key)) = open.pop() {
            let Some(place) = places.get(at) else {
                if found.len() == MAX_STATES {
                    return None;
                }
                found.push((key, state));
                continue;
            };
            open.push((at + 1, taken, state, key));
            if taken & place.mask == 0 {
                let with = sum(key, shape_key(place.shape)?);
                open.push((at + 1, taken | place.mask, state | 1 << at, with));
            }
        }
        found.sort_unstable();
        let mut groups: BTreeMap<Key, (usize, usize)> = BTreeMap::new();
        for (at, &(key, _)) in found.iter().enumerate() {
            groups.entry(key).or_insert((at, at)).1 = at + 1;
        }
        let all: Vec<u64> = found.into_iter().map(|(_, state)| state).collect();
        let index = all.iter().copied().zip(0..).collect();
        Some(Self { all, groups, index })
    }

    pub(super) fn all(&self) -> &[u64] {
        &self.all
    }

    pub(super) fn index(&self, state: u64) -> Option<usize> {
        self.index.get(&state).copied()
    }

    /// Whether any set has that content.
    pub(super) fn has(&self, key: Key) -> bool {
        self.groups.contains_key(&key)
    }

    /// Of the sets that hold what stays and have room for `wanted`: fewest moved, then highest value, then lowest
    /// bits.
    pub(super) fn best(&self, ground: &Ground, values: &Values, wanted: Key) -> Option<Best> {
        let &(from, to) = self.groups.get(&sum(ground.key, wanted))?;
        let mut best: Option<(u32, i64, u64)> = None;
        let sets = self.all.get(from..to)?.iter().zip(values.all().get(from..to)?);
        for (&state, &value) in sets {
            if state & ground.fixed == ground.fixed {
                let moved = (ground.movable & !state).count_ones();
                let better = best
                    .is_none_or(|(least, most, _)| moved < least || moved == least && value > most);
                if better {
                    best = Some((moved, value, state));
                }
            }
        }
        let (moved, value, state) = best?;
        let before = self.index(ground.fixed | ground.movable)?;
        let loss = values.all().get(before)?.saturating_sub(value);
        Some(Best { state, moved, loss })
    }
}

impl Ground {
    /// Reads what stands.
    pub(super) fn read(table: &Table, standing: &[Standing]) -> Result<Self, Lack> {
        let mut ground = Self::default();
        for (at, slice) in standing.iter().enumerate() {
            let place = slice.place;
            if !table.geometry.allows(place) {
                return Err(Lack::Misplaced { place });
            }
            if let Some(other) = standing.iter().take(at).find(|other| other.place.meets(place)) {
                return Err(Lack::Overlap { first: other.place, second: place });
            }
            // Without bits there are no states either, and the search reads places itself.
            let bit = table.bit(place).unwrap_or_default();
            match slice.hold {
                Hold::Movable => ground.movable |= bit,
                Hold::Fixed | Hold::Forever => ground.fixed |= bit,
            }
            ground.key = sum(ground.key, table.key(place.profile).unwrap_or_default());
        }
        Ok(ground)
    }
}
