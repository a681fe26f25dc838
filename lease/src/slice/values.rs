//! What each set of slices is worth to the requests that come later.
//!
//! Requests come at random times, each of a profile by its weight, stay for a time of mean 1 and are taken in
//! whenever there is a place. What is worth most is the set from which the most compute slices are served in the long
//! run: the relative values of that decision process with average reward, found by value iteration over the
//! uniformised chain. Rates are such that the memory slices asked for are as many as the pins leave
//! (offered load 1); the order of the sets hardly depends on it.
//!
//! Pins never end, so each set of pins has values of its own: they are solved once and kept by the caller.

use std::collections::BTreeMap;

use bulkhead_api::mig::{Geometry, Placement, Profile};

use super::table::{States, bits};
use super::{Lack, Table};

/// Value iteration ends when a sweep changes nothing by more than this, in compute slices.
const PRECISE: f64 = 1e-8;

/// Sweeps at most.
const SWEEPS: usize = 3000;

/// How often each profile is asked for, as weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mix {
    /// Weight by NVML profile id; profiles that are not in it are never asked for.
    pub weights: BTreeMap<u32, u32>,
}

impl Mix {
    /// The reference: 4:1:3:3:2:1 for 1g, 1g with double memory, 2g, 3g, 4g, 7g of a grid of 8, and what plays
    /// their part in other grids. Profiles with attributes have the shape of a plain one and weigh nothing.
    #[must_use]
    pub fn reference(geometry: &Geometry) -> Self {
        let is_plain = |p: &&Profile| p.name.with().is_empty() && p.name.without().is_empty();
        let plain: Vec<&Profile> = geometry.profiles().iter().filter(is_plain).collect();
        let smallest = plain.iter().map(|p| p.size).min().unwrap_or_default();
        let weight = |one: &Profile| {
            let peers = || plain.iter().filter(|p| p.size == one.size && p.id != one.id);
            let more = peers().any(|p| p.compute_slices > one.compute_slices);
            let fewer = peers().any(|p| p.compute_slices < one.compute_slices);
            if one.size == geometry.grid() {
                1
            } else if u16::from(one.size) * 2 == u16::from(geometry.grid()) {
                if fewer { 2 } else { 3 }
            } else if more {
                1
            } else if one.size == smallest {
                4
            } else {
                3
            }
        };
        Self { weights: plain.iter().map(|one| (one.id, weight(one))).collect() }
    }
}

/// A value for each set of a [`Table`], in millionths of a compute slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Values {
    all: Vec<i64>,
}

/// Requests of one shape.
struct Arrivals {
    shape: usize,
    rate: f64,
    /// Compute slices of one, in the mean.
    reward: f64,
}

/// One set in the chain.
struct Node {
    state: usize,
    /// By shape of [`Arrivals`]: the sets with one more.
    more: Vec<Vec<usize>>,
    /// The sets with one less.
    less: Vec<usize>,
}

impl Values {
    /// Values while `pins` stand for ever, at an offered load (1.0 unless something is known).
    ///
    /// # Errors
    /// A pin that stands where it cannot.
    pub fn solve(table: &Table, mix: &Mix, pins: &[Placement], load: f64) -> Result<Self, Lack> {
        let Some(states) = table.states() else {
            return Ok(Self { all: Vec::new() });
        };
        let mut pinned = 0;
        for &place in pins {
            pinned |= table.bit(place).ok_or(Lack::Misplaced { place })?;
        }
        let free = f64::from(table.geometry().grid())
            - pins.iter().map(|place| f64::from(place.size)).sum::<f64>();
        let arrivals = arrivals(table, mix, load * free.max(1.0));
        if arrivals.is_empty() {
            return Ok(Self::flexibility(table));
        }
        let nodes = nodes(table, states, pinned, &arrivals);
        let value = iterate(&nodes, &arrivals, states.all().len());
        let millionths = |value: &f64| {
            let scaled = (value * 1e6).round().clamp(-1e15, 1e15);
            #[expect(clippy::cast_possible_truncation, reason = "clamped to what i64 holds")]
            let whole = scaled as i64;
            whole
        };
        Ok(Self { all: value.iter().map(millionths).collect() })
    }

    /// Values where nothing is known of requests: how many places stay open, each by its slices.
    #[must_use]
    pub fn flexibility(table: &Table) -> Self {
        let Some(states) = table.states() else {
            return Self { all: Vec::new() };
        };
        let open = |&state: &u64| {
            let taken = mask(table, state);
            let free = table.places().iter().filter(|place| place.mask & taken == 0);
            free.map(|place| i64::from(place.size) * 1_000_000).sum()
        };
        Self { all: states.all().iter().map(open).collect() }
    }

    pub(super) fn all(&self) -> &[i64] {
        &self.all
    }
}

/// Memory slices of a set.
fn mask(table: &Table, state: u64) -> u64 {
    bits(state).filter_map(|at| table.places().get(at)).fold(0, |all, place| all | place.mask)
}

fn arrivals(table: &Table, mix: &Mix, offered: f64) -> Vec<Arrivals> {
    let mut by_shape: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
    let (mut total, mut slices) = (0.0, 0.0);
    for profile in table.geometry().profiles() {
        let weight = mix.weights.get(&profile.id).copied().unwrap_or_default();
        let (Some(shape), true) = (table.shape(profile.id), weight > 0) else { continue };
        let weight = f64::from(weight);
        total += weight;
        slices += weight * f64::from(profile.size);
        let entry = by_shape.entry(shape).or_default();
        entry.0 += weight;
        entry.1 += weight * f64::from(profile.compute_slices);
    }
    let rate = offered * total / slices;
    by_shape
        .into_iter()
        .map(|(shape, (weight, compute))| Arrivals {
            shape,
            rate: rate * weight / total,
            reward: compute / weight,
        })
        .collect()
}

fn nodes(table: &Table, states: &States, pinned: u64, arrivals: &[Arrivals]) -> Vec<Node> {
    let mut nodes = Vec::new();
    for (at, &state) in states.all().iter().enumerate() {
        if state & pinned != pinned {
            continue;
        }
        let taken = mask(table, state);
        let with = |shape: usize| {
            let places = table.places().iter().enumerate();
            places
                .filter(|(_, place)| place.shape == shape && place.mask & taken == 0)
                .filter_map(|(bit, _)| states.index(state | 1 << bit))
                .collect()
        };
        nodes.push(Node {
            state: at,
            more: arrivals.iter().map(|class| with(class.shape)).collect(),
            less: bits(state & !pinned)
                .filter_map(|bit| states.index(state & !(1 << bit)))
                .collect(),
        });
    }
    nodes
}

fn iterate(nodes: &[Node], arrivals: &[Arrivals], count: usize) -> Vec<f64> {
    let of = |values: &[f64], at: usize| values.get(at).copied().unwrap_or_default();
    let departures = nodes.iter().map(|node| node.less.len()).max().unwrap_or_default();
    let coming: f64 = arrivals.iter().map(|class| class.rate).sum();
    // The chain is made uniform by ticks of this rate, at most of which nothing happens.
    let ticks = coming + count_of(departures);
    let mut now = vec![0.0; count];
    let mut next = now.clone();
    for _ in 0..SWEEPS {
        for node in nodes {
            let own = of(&now, node.state);
            let mut sum = own * (count_of(departures) - count_of(node.less.len()));
            sum += node.less.iter().map(|&less| of(&now, less)).sum::<f64>();
            for (class, more) in arrivals.iter().zip(&node.more) {
                let best = more.iter().map(|&to| of(&now, to)).reduce(f64::max);
                sum += class.rate * best.map_or(own, |best| best + class.reward);
            }
            if let Some(value) = next.get_mut(node.state) {
                *value = sum / ticks;
            }
        }
        // Relative to the set of the pins alone, which is the first: every sweep adds the same to all in the end.
        let base = nodes.first().map_or(0.0, |node| of(&next, node.state));
        let mut change = 0.0_f64;
        for node in nodes {
            if let Some(value) = next.get_mut(node.state) {
                *value -= base;
                change = change.max((*value - of(&now, node.state)).abs());
            }
        }
        std::mem::swap(&mut now, &mut next);
        if change < PRECISE {
            break;
        }
    }
    now
}

fn count_of(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::MAX, f64::from)
}
