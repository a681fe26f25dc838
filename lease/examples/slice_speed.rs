//! How long planning MIG slices takes, and which share of arrival orders is served by whom. On the grid of an H100: every set
//! of slices that can stand, beside every content that can be wanted, for one GPU; eight GPUs with sixteen requests. Each
//! case is timed as the best of some rounds, and the worst case counts. Prints JSON, times in microseconds. In the profile of
//! the tests, which optimises less than a release: what holds here holds there.
#![expect(clippy::unwrap_used, reason = "a bench on values that it makes itself")]

use std::collections::BTreeSet;
use std::hint::black_box;
use std::time::Instant;

use bulkhead_api::mig::{Engines, Geometry, Placement, Profile};
use bulkhead_api::units::Bytes;
use bulkhead_lease::slice::host::{Gpu, Mode, Near, Wanted, plan as plan_host};
use bulkhead_lease::slice::{Hold, Mix, Standing, Table, Values, plan};
use serde_json::json;

const ROUNDS: usize = 5;
const HOSTS: u64 = 200;

/// Profile id, name, starts, size; instances are bounded by their places.
const H100: [(u32, &str, &[u8], u8); 6] = [
    (19, "1g.10gb", &[0, 1, 2, 3, 4, 5, 6], 1),
    (15, "1g.20gb", &[0, 2, 4, 6], 2),
    (14, "2g.20gb", &[0, 2, 4], 2),
    (9, "3g.40gb", &[0, 4], 4),
    (5, "4g.40gb", &[0], 4),
    (0, "7g.80gb", &[0], 8),
];

fn geometry() -> Geometry {
    let profile = |(id, name, starts, size): (u32, &str, &[u8], u8)| Profile {
        id,
        name: name.parse().unwrap(),
        compute_slices: name.parse::<bulkhead_api::mig::ProfileName>().unwrap().slices(),
        size,
        starts: starts.iter().copied().collect(),
        max_instances: 8,
        memory: Bytes::new(u64::from(size) << 30),
        engines: Engines::new(),
    };
    Geometry::new(8, Engines::new(), H100.into_iter().map(profile).collect()).unwrap()
}

fn states(places: &[Placement], now: &mut Vec<Placement>, found: &mut Vec<Vec<Placement>>) {
    found.push(now.clone());
    for (place, behind) in places.iter().zip(1..) {
        if now.iter().all(|other| !other.meets(*place)) {
            now.push(*place);
            states(places.get(behind..).unwrap_or_default(), now, found);
            now.pop();
        }
    }
}

/// Best of some rounds.
fn microseconds<T>(mut run: impl FnMut() -> T) -> f64 {
    let round = |_| {
        let begun = Instant::now();
        black_box(run());
        begun.elapsed().as_secs_f64() * 1e6
    };
    (0..ROUNDS).map(round).fold(f64::MAX, f64::min)
}

/// Every order in which a content can be asked for.
fn orders(content: &[u32], now: &mut Vec<u32>, found: &mut BTreeSet<Vec<u32>>) {
    if content.is_empty() {
        found.insert(now.clone());
    }
    for (profile, at) in content.iter().zip(0..) {
        let mut rest = content.to_vec();
        rest.remove(at);
        now.push(*profile);
        orders(&rest, now, found);
        now.pop();
    }
}

/// Who chooses a place when requests come one by one.
type Chooser<'a> = &'a dyn Fn(&[Placement], u32) -> Option<Placement>;

fn served(orders: &BTreeSet<Vec<u32>>, choose: Chooser<'_>) -> f64 {
    let whole = orders.iter().filter(|order| {
        let mut standing: Vec<Placement> = Vec::new();
        order.iter().all(|profile| {
            let place = choose(&standing, *profile);
            standing.extend(place);
            place.is_some()
        })
    });
    100.0 * count(whole.count()) / count(orders.len())
}

fn count(number: usize) -> f64 {
    u32::try_from(number).map(f64::from).unwrap()
}

fn held(hold: Hold, places: &[Placement]) -> Vec<Standing> {
    places.iter().map(|&place| Standing { place, hold }).collect()
}

/// Eight GPUs in states that follow from a number, and sixteen requests.
fn host(
    (table, values): (&Table, &Values),
    all: &[Vec<Placement>],
    number: u64,
    requests: usize,
) -> f64 {
    let mut seed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % u64::try_from(below).unwrap()).unwrap()
    };
    // Every other host is empty, which leaves the most choices.
    let state = |at: usize| if number.is_multiple_of(2) { 0 } else { at };
    let standing: Vec<Vec<Standing>> =
        (0..8).map(|_| held(Hold::Movable, all.get(state(next(all.len()))).unwrap())).collect();
    let gpus: Vec<Gpu<'_>> = standing
        .iter()
        .map(|standing| Gpu {
            name: "gpu",
            node: None,
            mode: Mode::Mig,
            switchable: true,
            slices: Some((table, values)),
            standing,
            taken: false,
        })
        .collect();
    let wanted: Vec<Wanted> = (0..requests)
        .map(|_| Wanted::Slice(H100.get(next(5)).unwrap().1.parse().unwrap()))
        .collect();
    microseconds(|| plan_host(&gpus, &wanted, &Near::default()).unwrap())
}

fn main() {
    let geometry = geometry();
    let table = Table::new(&geometry);
    let values = Values::solve(&table, &Mix::reference(&geometry), &[], 1.0).unwrap();
    let solve_us = microseconds(|| Values::solve(&table, &Mix::reference(&geometry), &[], 1.0));
    let places: Vec<Placement> = geometry.profiles().iter().flat_map(Profile::placements).collect();
    let mut all = Vec::new();
    states(&places, &mut Vec::new(), &mut all);
    let profiles = |state: &Vec<Placement>| {
        let mut list: Vec<u32> = state.iter().map(|place| place.profile).collect();
        list.sort_unstable();
        list
    };
    let contents: BTreeSet<Vec<u32>> = all.iter().map(profiles).collect();
    let mut times = Vec::new();
    for state in &all {
        for hold in [Hold::Fixed, Hold::Movable] {
            let standing = held(hold, state);
            for wanted in &contents {
                times.push(microseconds(|| plan(&table, &values, &standing, wanted)));
            }
        }
    }
    times.sort_by(f64::total_cmp);
    let mut found = BTreeSet::new();
    for content in &contents {
        orders(content, &mut Vec::new(), &mut found);
    }
    let free = |standing: &[Placement], profile: u32| -> Vec<Placement> {
        let of = geometry.profile(profile).unwrap().placements();
        of.filter(|place| standing.iter().all(|other| !other.meets(*place))).collect()
    };
    let first_fit = |standing: &[Placement], profile| free(standing, profile).first().copied();
    let driver = |standing: &[Placement], profile| {
        let size = geometry.profile(profile).unwrap().size;
        let order: &[u8] = match size {
            // Its order is not in any public transcript.
            _ if profile == 15 => &[6, 4, 0, 2],
            1 => &[6, 4, 5, 0, 1, 2, 3],
            2 => &[4, 0, 2],
            4 => &[4, 0],
            _ => &[0],
        };
        let free = free(standing, profile);
        order.iter().find_map(|start| free.iter().find(|place| place.start == *start)).copied()
    };
    let best_fit = |standing: &[Placement], profile| {
        let open = |place: &Placement| {
            let with = [standing, &[*place]].concat();
            geometry.profiles().iter().map(|p| free(&with, p.id).len()).sum::<usize>()
        };
        // The first of the best, as `max_by_key` gives the last.
        free(standing, profile).into_iter().rev().max_by_key(open)
    };
    let one_by_one = |standing: &[Placement], profile| {
        let plan = plan(&table, &values, &held(Hold::Fixed, standing), &[profile]);
        plan.ok().and_then(|plan| plan.create.first().copied())
    };
    let batch = found.iter().filter(|order| plan(&table, &values, &[], order).is_ok()).count();
    let host_us = |requests| {
        (0..HOSTS).map(|n| host((&table, &values), &all, n, requests)).fold(0.0, f64::max)
    };
    let figures = json!({
        "cases": times.len(),
        "plan_median_us": times.get(times.len() / 2),
        "plan_worst_us": times.last(),
        "host_8_us": host_us(8),
        "host_16_us": host_us(16),
        "solve_us": solve_us,
        "orders": found.len(),
        "first_fit_percent": served(&found, &first_fit),
        "driver_percent": served(&found, &driver),
        "best_fit_percent": served(&found, &best_fit),
        "one_by_one_percent": served(&found, &one_by_one),
        "batch_percent": 100.0 * count(batch) / count(found.len()),
    });
    println!("{figures}");
}
