//! Slices lost to later requests, against the exact optimum of the same process. The process is solved here
//! again, over sets of placements and not of shapes, with bounds on what is left to iterate.

use std::collections::BTreeMap;

use bulkhead_api::mig::{Geometry, Placement};

use super::super::{Hold, Mix, Standing, Table, Values, plan};
use super::{h100, oracle, place};

const MIX: [(u32, f64); 6] = [(19, 4.0), (15, 1.0), (14, 3.0), (9, 3.0), (5, 2.0), (0, 1.0)];

/// The process on one GPU with pins.
struct Process {
    /// By state and profile of the mix: where one more leads, by place; empty = rejected.
    more: Vec<Vec<Vec<(Placement, usize)>>>,
    less: Vec<Vec<usize>>,
    states: Vec<Vec<Placement>>,
    pins: Vec<Placement>,
}

fn sorted(mut state: Vec<Placement>) -> Vec<Placement> {
    state.sort_unstable();
    state
}

impl Process {
    fn new(geometry: &Geometry, pins: &[Placement]) -> Self {
        let all = oracle::states(geometry).into_iter().map(sorted);
        let states: Vec<Vec<Placement>> =
            all.filter(|state| pins.iter().all(|pin| state.contains(pin))).collect();
        let index: BTreeMap<&[Placement], usize> =
            states.iter().map(Vec::as_slice).zip(0..).collect();
        let more = states.iter().map(|state| {
            let with = |(profile, _): &(u32, f64)| {
                let places = geometry.profile(*profile).unwrap().placements();
                let fitting = places.filter(|place| state.iter().all(|o| !o.meets(*place)));
                fitting
                    .map(|place| {
                        let next = sorted([state.as_slice(), &[place]].concat());
                        (place, index[next.as_slice()])
                    })
                    .collect()
            };
            MIX.iter().map(with).collect()
        });
        let less = states.iter().map(|state| {
            let gone = state.iter().filter(|place| !pins.contains(place));
            gone.map(|place| {
                let left: Vec<Placement> = state.iter().filter(|o| *o != place).copied().collect();
                index[left.as_slice()]
            })
            .collect()
        });
        Self {
            more: more.collect(),
            less: less.collect(),
            pins: pins.to_vec(),
            states: states.clone(),
        }
    }

    /// Compute slices served in a unit of time in the long run, to 1e-6, by the best policy or a given one.
    fn gain(&self, geometry: &Geometry, load: f64, policy: Option<&[Vec<Option<usize>>]>) -> f64 {
        let weight: f64 = MIX.iter().map(|(_, weight)| weight).sum();
        let size: f64 = MIX
            .iter()
            .map(|(id, weight)| weight * f64::from(geometry.profile(*id).unwrap().size))
            .sum();
        let pinned: f64 = self.pins.iter().map(|pin| f64::from(pin.size)).sum();
        let rate = load * (8.0 - pinned) * weight / size;
        let ticks = rate + 7.0;
        let mut now = vec![0.0_f64; self.states.len()];
        for _ in 0..5_000 {
            let mut next = now.clone();
            let (mut low, mut high) = (f64::MAX, f64::MIN);
            for at in 0..now.len() {
                let gone = &self.less[at];
                let mut sum: f64 = gone.iter().map(|&to| now[to]).sum();
                sum += now[at] * (7.0 - f64::from(u32::try_from(gone.len()).unwrap()));
                for (class, (profile, part)) in MIX.iter().enumerate() {
                    let reward = f64::from(geometry.profile(*profile).unwrap().compute_slices);
                    let to = match policy {
                        Some(policy) => policy[at][class].map(|to| now[to]),
                        None => {
                            self.more[at][class].iter().map(|&(_, to)| now[to]).reduce(f64::max)
                        }
                    };
                    sum += rate * part / weight * to.map_or(now[at], |to| to + reward);
                }
                next[at] = sum / ticks;
                let change = (next[at] - now[at]) * ticks;
                (low, high) = (low.min(change), high.max(change));
            }
            now = next;
            if high - low < 1e-6 {
                return f64::midpoint(low, high);
            }
        }
        panic!("the iteration does not end");
    }

    /// Where the planner leads, one request after the other.
    fn planned(&self, table: &Table, values: &Values) -> Vec<Vec<Option<usize>>> {
        let mut policy = Vec::new();
        for (at, state) in self.states.iter().enumerate() {
            let hold = |place| if self.pins.contains(place) { Hold::Forever } else { Hold::Fixed };
            let standing: Vec<Standing> =
                state.iter().map(|place| Standing { place: *place, hold: hold(place) }).collect();
            let choose = |(class, (profile, _)): (usize, &(u32, f64))| {
                let plan = plan(table, values, &standing, &[*profile]);
                let choices = &self.more[at][class];
                assert_eq!(plan.is_ok(), !choices.is_empty());
                let place = plan.ok()?.create[0];
                Some(choices.iter().find(|(other, _)| *other == place).unwrap().1)
            };
            policy.push(MIX.iter().enumerate().map(choose).collect());
        }
        policy
    }
}

fn single_pins() -> Vec<Vec<Placement>> {
    let geometry = h100();
    let pins = [14, 19, 9, 5].into_iter().flat_map(|id| {
        let profile = geometry.profile(id).unwrap();
        profile.placements().map(|place| vec![place]).collect::<Vec<_>>()
    });
    std::iter::once(Vec::new()).chain(pins).collect()
}

#[test]
fn the_reference_mix_is_that_of_the_measurements() {
    let weights = Mix::reference(&h100()).weights;
    let found: BTreeMap<u32, f64> = weights.iter().map(|(&id, &w)| (id, f64::from(w))).collect();
    assert_eq!(found, BTreeMap::from(MIX));
}

#[test]
fn beside_every_single_pin_hardly_a_slice_is_lost_against_the_optimum() {
    let geometry = h100();
    let table = Table::new(&geometry);
    for pins in single_pins() {
        let values = Values::solve(&table, &Mix::reference(&geometry), &pins, 1.0).unwrap();
        let process = Process::new(&geometry, &pins);
        let policy = process.planned(&table, &values);
        for (load, bound) in [(0.5, 0.005), (1.0, 0.005), (2.0, 0.01)] {
            let best = process.gain(&geometry, load, None);
            let ours = process.gain(&geometry, load, Some(&policy));
            let regret = 1.0 - ours / best;
            println!("pins {pins:?} load {load}: {best:.3} regret {:.3} %", regret * 100.0);
            assert!(regret <= bound, "pins {pins:?}, load {load}: {ours} of {best}");
        }
    }
}

#[test]
fn pins_are_worth_most_where_the_measurements_say() {
    let geometry = h100();
    let served = |pin| Process::new(&geometry, &[pin]).gain(&geometry, 1.0, None);
    for (pin, expected) in [
        (place(14, 4, 2), 2.122),
        (place(14, 0, 2), 2.002),
        (place(19, 6, 1), 2.611),
        (place(19, 4, 1), 2.514),
        (place(19, 0, 1), 2.407),
        (place(9, 4, 4), 1.439),
        (place(9, 0, 4), 1.133),
    ] {
        let found = served(pin);
        assert!((found - expected).abs() < 0.001, "{pin}: {found} for {expected}");
    }
}
