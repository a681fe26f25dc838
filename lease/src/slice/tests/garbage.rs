//! Whatever is asked of whatever geometry: a sound plan or an error.

use std::collections::BTreeSet;

use bulkhead_api::mig::{Engine, Engines, Geometry, Placement, Profile};
use proptest::prelude::*;

use super::super::{Hold, Mix, NODES, Standing, Table, Values, limits, plan, search};
use super::{after, profile};

fn any_profile(id: u32) -> impl Strategy<Value = Profile> {
    let starts = prop::collection::btree_set(0..12_u8, 1..5);
    (starts, 1..6_u8, 1..8_u8, 1..5_u8, 0..3_u32).prop_map(
        move |(starts, size, compute, count, engines)| Profile {
            compute_slices: compute,
            engines: Engines::from([(Engine::Jpeg, engines)]),
            starts: starts.into_iter().filter(|start| start + size <= 16).collect::<BTreeSet<_>>(),
            ..profile(id, &format!("{compute}g.{}gb", id + 1), count, &[], size)
        },
    )
}

prop_compose! {
    fn any_geometry()(count in 1..7_u32)(
        profiles in (0..count).map(any_profile).collect::<Vec<_>>(),
        limit in 0..4_u32,
    ) -> Geometry {
        Geometry::new(16, Engines::from([(Engine::Jpeg, limit)]), profiles).unwrap()
    }
}

fn any_standing() -> impl Strategy<Value = Vec<Standing>> {
    let hold = prop_oneof![Just(Hold::Forever), Just(Hold::Fixed), Just(Hold::Movable)];
    let one = (0..7_u32, any::<u8>(), 0..6_u8, hold);
    prop::collection::vec(one, 0..4).prop_map(|slices| {
        slices
            .into_iter()
            .map(|(profile, start, size, hold)| {
                let start = if start % 8 == 7 { start } else { start % 12 };
                Standing { place: Placement { profile, start, size }, hold }
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_geometry_and_any_request_give_a_sound_plan_or_an_error(
        geometry in any_geometry(),
        mut standing in any_standing(),
        honest in any::<bool>(),
        wanted in prop::collection::vec(0..7_u32, 0..6),
    ) {
        if honest {
            // What stands is where it may: the other half of the cases is garbage.
            let mut taken = 0;
            standing.retain_mut(|slice| {
                let Some(profile) = geometry.profile(slice.place.profile) else { return false };
                slice.place.size = profile.size;
                let good = profile.starts.contains(&slice.place.start)
                    && taken & slice.place.mask() == 0;
                taken |= if good { slice.place.mask() } else { 0 };
                good
            });
        }
        let table = Table::new(&geometry);
        let values = Values::solve(&table, &Mix::reference(&geometry), &[], 1.0).unwrap();
        let found = plan(&table, &values, &standing, &wanted);
        if let Ok(found) = &found {
            after(&geometry, &standing, &wanted, found);
            prop_assert_eq!(&plan(&table, &values, &standing, &wanted).unwrap(), found);
        }
        let sound = standing.iter().enumerate().all(|(at, slice)| {
            geometry.allows(slice.place)
                && standing[..at].iter().all(|other| !other.place.meets(slice.place))
        });
        if sound && limits::check(&table, &standing, &wanted).is_ok() {
            let other = search::plan(&table, &standing, &wanted);
            prop_assert_eq!(
                found.map(|plan| plan.moves.len()).ok(),
                other.map(|plan| plan.moves.len()).ok()
            );
        }
    }
}

/// A grid of 64 single slices, whose sets nobody lists.
fn vast() -> Geometry {
    let starts: Vec<u8> = (0..64).collect();
    let halves: Vec<u8> = (0..33).collect();
    let profiles =
        vec![profile(1, "1g.1gb", 64, &starts, 1), profile(2, "32g.32gb", 2, &halves, 32)];
    Geometry::new(64, Engines::new(), profiles).unwrap()
}

#[test]
fn a_grid_whose_sets_are_too_many_is_planned_by_search() {
    let geometry = vast();
    let table = Table::new(&geometry);
    assert_eq!(table.size(), None);
    let values = Values::solve(&table, &Mix::reference(&geometry), &[], 1.0).unwrap();
    let middle =
        Standing { place: Placement { profile: 1, start: 31, size: 1 }, hold: Hold::Movable };
    let found = plan(&table, &values, &[middle], &[2, 1]).unwrap();
    after(&geometry, &[middle], &[2, 1], &found);
    assert!(found.moves.is_empty(), "{found:?}");
    let found = plan(&table, &values, &[middle], &[2; 2]);
    assert!(found.is_err(), "a slice more than the grid has: {found:?}");
    let fixed = Standing { hold: Hold::Fixed, ..middle };
    let words = plan(&table, &values, &[fixed], &[2, 2]).unwrap_err().to_string();
    assert_eq!(words, "32g.32gb: slices that may not move are in the way");
}

#[test]
fn a_search_without_end_is_given_up() {
    let starts: Vec<u8> = (0..62).collect();
    let three = profile(1, "1g.1gb", 21, &starts, 3);
    let two = profile(2, "1g.2gb", 31, &(0..63).collect::<Vec<_>>(), 2);
    let geometry = Geometry::new(64, Engines::new(), vec![three, two]).unwrap();
    let table = Table::new(&geometry);
    let standing: Vec<Standing> = [1_u8, 5, 9, 13, 17, 21]
        .into_iter()
        .map(|start| Standing {
            place: Placement { profile: 2, start, size: 2 },
            hold: Hold::Fixed,
        })
        .collect();
    let error = search::plan(&table, &standing, &[1; 15]).unwrap_err().to_string();
    assert_eq!(error, format!("1g.1gb: not decided within {NODES} steps"));
}
