//! `slice`: which GPU, and where on it, MIG slices go, never moving a lease that did not agree to it.
//!
//! ```text
//!  Geometry ──► Table: every set of slices that can stand ──► Values: what each is worth to later requests
//!  standing, wanted ──► plan (one GPU) ──► the set with the fewest re-creations, then the highest value
//!  GPUs, requests ──► host::plan ──► which GPU serves which, over all of them at once
//! ```
//!
//! - **Exact.** Slices of equal size and equal legal starts have one *shape*. A grid of 8 has 723 sets of
//!   shapes that can stand together and 78 different contents; they are listed once, by content. Planning looks through
//!   those of the wanted content, so a plan is found whenever there is one.
//! - **Never moved.** A [`Hold::Fixed`] or [`Hold::Forever`] slice is in every set that is looked at.
//! - **Later requests.** Where several sets serve, the one is taken that loses the fewest slices of what comes
//!   later, by the average-reward values of the process of arrivals and departures ([`values`]).
//! - **Odd geometry.** Where the sets are too many to list, a bounded search takes their place ([`search`]), which prefers
//!   places that leave the most others open.
//!
//! The same arguments always give the same plan.

pub mod compute;
pub mod host;
mod limits;
mod search;
mod table;
pub mod values;

#[cfg(test)]
mod tests;

use bulkhead_api::mig::{Engine, Placement, ProfileName};

pub use self::search::NODES;
pub use self::table::Table;
pub use self::values::{Mix, Values};

use self::table::Ground;

/// Whether a slice that stands may be made anew elsewhere on its GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hold {
    /// Never, and it is not expected to end: a pin (RAN). [`Values`] are computed for these.
    Forever,
    /// Never, but it ends some day.
    Fixed,
    /// Its lease agreed to be moved.
    Movable,
}

/// A slice that stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Standing {
    /// Where.
    pub place: Placement,
    /// Whether it may move.
    pub hold: Hold,
}

/// A slice that is made anew elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Move {
    /// Where it stands.
    pub from: Placement,
    /// Where it will.
    pub to: Placement,
}

/// What is to be done on one GPU: every `from` is destroyed before anything is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuPlan {
    /// Places of what was wanted, in its order.
    pub create: Vec<Placement>,
    /// Slices that are re-created, the fewest possible; only of leases that agreed.
    pub moves: Vec<Move>,
    /// What later requests lose by it, in millionths of a compute slice; comparable between GPUs.
    pub loss: i64,
}

/// Why one GPU cannot serve what is wanted of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Lack {
    /// The GPU has no profile of that id.
    #[error("no MIG profile {profile}")]
    NoProfile {
        /// NVML profile id.
        profile: u32,
    },
    /// The profile's own bound.
    #[error("{profile}: at most {limit} instances of it at the same time")]
    Instances {
        /// Which profile.
        profile: ProfileName,
        /// Its bound.
        limit: u8,
    },
    /// Engines that instances have to themselves.
    #[error("{profile}: the instances would have {wanted} {kind} of {limit}")]
    Engines {
        /// The first profile that is too much.
        profile: ProfileName,
        /// Which engines.
        kind: Engine,
        /// How many with what stands.
        wanted: u64,
        /// How many there are.
        limit: u32,
    },
    /// No legal place is left, whatever moved.
    #[error("{profile}: no room on the GPU beside what stands")]
    Full {
        /// The first profile that is too much, of the largest ones first.
        profile: ProfileName,
    },
    /// There would be room if slices moved whose leases did not agree.
    #[error("{profile}: slices that may not move are in the way")]
    Blocked {
        /// The first profile that is too much, of the largest ones first.
        profile: ProfileName,
    },
    /// A slice stands where its profile cannot be.
    #[error("a slice stands where it cannot: {place}")]
    Misplaced {
        /// Where it stands.
        place: Placement,
    },
    /// Two slices share memory slices.
    #[error("slices overlap: {first} and {second}")]
    Overlap {
        /// One of them.
        first: Placement,
        /// The other.
        second: Placement,
    },
    /// The bounded search over an odd geometry came to no end.
    #[error("{profile}: not decided within {NODES} steps")]
    Undecided {
        /// The largest profile that was wanted.
        profile: ProfileName,
    },
}

/// Places for `wanted` (NVML profile ids) beside what stands on one GPU.
///
/// # Errors
/// Which profile is short on this GPU and why; then nothing of it is to be made.
pub fn plan(
    table: &Table,
    values: &Values,
    standing: &[Standing],
    wanted: &[u32],
) -> Result<GpuPlan, Lack> {
    let ground = Ground::read(table, standing)?;
    limits::check(table, standing, wanted)?;
    let Some(states) = table.states() else {
        return search::plan(table, standing, wanted);
    };
    let wanted_key = table.key_of(wanted)?;
    match states.best(&ground, values, wanted_key) {
        Some(best) => Ok(table.assign(&ground, best, standing, wanted)),
        None => Err(first_short(table, values, &ground, wanted)),
    }
}

/// The first profile that is too much when the largest are placed first.
fn first_short(table: &Table, values: &Values, ground: &Ground, wanted: &[u32]) -> Lack {
    let Some(states) = table.states() else {
        return Lack::NoProfile { profile: 0 };
    };
    let mut order: Vec<u32> = wanted.to_vec();
    let size = |id: &u32| table.geometry().profile(*id).map_or(0, |profile| profile.size);
    order.sort_by_key(|id| (std::cmp::Reverse(size(id)), *id));
    let mut key = 0;
    for id in order {
        let (Some(one), Some(profile)) = (table.key(id), table.geometry().profile(id)) else {
            return Lack::NoProfile { profile: id };
        };
        key = table::sum(key, one);
        if states.best(ground, values, key).is_none() {
            let profile = profile.name.clone();
            let room = states.has(table::sum(ground.key, key));
            return if room { Lack::Blocked { profile } } else { Lack::Full { profile } };
        }
    }
    Lack::NoProfile { profile: 0 }
}
