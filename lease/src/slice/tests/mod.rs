//! The planner against oracles of its own kind: nothing here calls what it judges for the answer.

mod exhaustive;
mod garbage;
mod hosts;
mod oracle;
mod parts;
mod regret;

use std::collections::BTreeSet;

use bulkhead_api::mig::{Engine, Engines, Geometry, Placement, Profile};
use bulkhead_api::units::Bytes;

use super::{Hold, Mix, Standing, Table, Values};

fn profile(id: u32, name: &str, count: u8, starts: &[u8], size: u8) -> Profile {
    let name: bulkhead_api::mig::ProfileName = name.parse().unwrap();
    Profile {
        id,
        compute_slices: name.slices(),
        name,
        size,
        starts: starts.iter().copied().collect(),
        max_instances: count,
        memory: Bytes::new(u64::from(size) << 30),
        engines: Engines::new(),
    }
}

const EIGHT: [u8; 7] = [0, 1, 2, 3, 4, 5, 6];

/// H100 80GB without media profiles.
fn h100() -> Geometry {
    let profiles = vec![
        profile(19, "1g.10gb", 7, &EIGHT, 1),
        profile(15, "1g.20gb", 4, &[0, 2, 4, 6], 2),
        profile(14, "2g.20gb", 3, &[0, 2, 4], 2),
        profile(9, "3g.40gb", 2, &[0, 4], 4),
        profile(5, "4g.40gb", 1, &[0], 4),
        profile(0, "7g.80gb", 1, &[0], 8),
    ];
    Geometry::new(8, Engines::new(), profiles).unwrap()
}

/// H100 80GB with the profile that has the media engines.
fn h100_media() -> Geometry {
    let mut profiles = h100().profiles().to_vec();
    profiles.push(profile(20, "1g.10gb+me", 1, &EIGHT, 1));
    Geometry::new(8, Engines::new(), profiles).unwrap()
}

fn with(mut profile: Profile, engines: [u32; 4]) -> Profile {
    profile.engines = Engine::ALL.into_iter().zip(engines).filter(|&(_, n)| n > 0).collect();
    profile
}

fn a30() -> Geometry {
    let profiles = vec![
        profile(14, "1g.6gb", 4, &[0, 1, 2, 3], 1),
        with(profile(21, "1g.6gb+me", 1, &[0, 1, 2, 3], 1), [0, 0, 1, 1]),
        profile(5, "2g.12gb", 2, &[0, 2], 2),
        with(profile(6, "2g.12gb+me", 1, &[0, 2], 2), [0, 0, 1, 1]),
        with(profile(0, "4g.24gb", 1, &[0], 4), [0, 0, 1, 1]),
    ];
    let limits = Engines::from([(Engine::Jpeg, 1), (Engine::OpticalFlow, 1)]);
    Geometry::new(4, limits, profiles).unwrap()
}

/// RTX PRO 6000 Blackwell Server Edition: a grid of 12, media engines as a second resource.
fn rtx_pro_6000() -> Geometry {
    let (quarters, halves) = ([0, 3, 6, 9], [0, 6]);
    let profiles = vec![
        with(profile(14, "1g.24gb", 4, &quarters, 3), [1, 1, 1, 0]),
        with(profile(21, "1g.24gb+me", 1, &quarters, 3), [1, 1, 1, 1]),
        with(profile(47, "1g.24gb+gfx", 4, &quarters, 3), [1, 1, 1, 0]),
        with(profile(65, "1g.24gb+me.all", 1, &quarters, 3), [4, 4, 4, 1]),
        profile(67, "1g.24gb-me", 4, &quarters, 3),
        with(profile(5, "2g.48gb", 2, &halves, 6), [2, 2, 2, 0]),
        with(profile(35, "2g.48gb+gfx", 2, &halves, 6), [2, 2, 2, 0]),
        with(profile(64, "2g.48gb+me.all", 1, &halves, 6), [4, 4, 4, 1]),
        profile(66, "2g.48gb-me", 2, &halves, 6),
        with(profile(0, "4g.96gb", 1, &[0], 12), [4, 4, 4, 1]),
        with(profile(32, "4g.96gb+gfx", 1, &[0], 12), [4, 4, 4, 1]),
    ];
    let limits = Engine::ALL.into_iter().zip([4, 4, 4, 1]).collect();
    Geometry::new(12, limits, profiles).unwrap()
}

fn place(profile: u32, start: u8, size: u8) -> Placement {
    Placement { profile, start, size }
}

fn held(hold: Hold, places: &[Placement]) -> Vec<Standing> {
    places.iter().map(|&place| Standing { place, hold }).collect()
}

/// A GPU of that geometry, with values of the reference mix and no pins.
fn model(geometry: &Geometry) -> (Table, Values) {
    let table = Table::new(geometry);
    let values = Values::solve(&table, &Mix::reference(geometry), &[], 1.0).unwrap();
    (table, values)
}

/// What the plan leaves on the GPU, once it is shown to be sound: wanted profiles at legal places of their own,
/// moved only what may move, nothing in anybody's way.
fn after(
    geometry: &Geometry,
    standing: &[Standing],
    wanted: &[u32],
    plan: &super::GpuPlan,
) -> Vec<Placement> {
    let asked: Vec<u32> = plan.create.iter().map(|place| place.profile).collect();
    assert_eq!(asked, wanted, "in the order that was asked for");
    let mut all: Vec<Placement> = standing.iter().map(|slice| slice.place).collect();
    for step in &plan.moves {
        let slice = standing.iter().find(|slice| slice.place == step.from).unwrap();
        assert_eq!(slice.hold, Hold::Movable, "a neighbour is moved: {step:?}");
        assert_eq!(step.to.profile, step.from.profile);
        all.retain(|place| *place != step.from);
    }
    all.extend(plan.moves.iter().map(|step| step.to));
    all.extend(&plan.create);
    let mut taken = BTreeSet::new();
    for place in &all {
        assert!(geometry.allows(*place), "{place}");
        for slice in place.start..place.end() {
            assert!(taken.insert(slice), "two slices have memory slice {slice}: {all:?}");
        }
    }
    all
}
