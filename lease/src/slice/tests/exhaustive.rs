//! Every content that a GPU can have, wanted beside every set of slices that can stand on it.

use bulkhead_api::mig::{Geometry, Placement};

use super::super::{GpuPlan, Hold, Lack, Standing, Table, Values, plan, search};
use super::{a30, after, h100, h100_media, held, model, oracle, place, rtx_pro_6000};

/// With slices that may not move: planned if and only if brute force finds places. Returns cases and plans.
fn every_pin(geometry: &Geometry) -> (usize, usize) {
    let (table, values) = model(geometry);
    let states = oracle::states(geometry);
    let contents = oracle::contents(&states);
    let mut planned = 0;
    for state in &states {
        let standing = held(Hold::Fixed, state);
        for wanted in &contents {
            let possible = oracle::fewest_moves(geometry, state, &[], wanted).is_some();
            match plan(&table, &values, &standing, wanted) {
                Ok(found) => {
                    assert!(possible, "{state:?} {wanted:?}");
                    assert!(found.moves.is_empty());
                    after(geometry, &standing, wanted, &found);
                    planned += 1;
                }
                Err(lack) => assert!(!possible, "{state:?} {wanted:?}: {lack}"),
            }
        }
    }
    (states.len() * contents.len(), planned)
}

#[test]
fn on_a_grid_of_8_there_is_a_plan_beside_every_pin_set_if_and_only_if_there_are_places() {
    let geometry = h100();
    assert_eq!(Table::new(&geometry).size(), Some((723, 78)));
    let (cases, planned) = every_pin(&geometry);
    assert_eq!(cases, 56_394);
    assert!(planned > 723, "{planned}");
}

#[test]
fn on_a_grid_of_12_media_engines_are_a_second_resource() {
    let geometry = rtx_pro_6000();
    let states = oracle::states(&geometry);
    assert_eq!((states.len(), oracle::contents(&states).len()), (717, 115));
    every_pin(&geometry);
}

#[test]
fn on_an_a30_and_with_the_media_profile_of_an_h100_it_is_the_same() {
    assert_eq!(every_pin(&a30()).0, 76 * 20);
    assert_eq!(every_pin(&h100_media()).0, 2_319 * 128);
}

/// What may move moves as little as brute force says.
fn every_move(
    geometry: &Geometry,
    hold: impl Fn(usize) -> Hold,
    planner: impl Fn(&Table, &Values, &[Standing], &[u32]) -> Result<GpuPlan, Lack>,
) -> [u32; 3] {
    let (table, values) = model(geometry);
    let states = oracle::states(geometry);
    let contents = oracle::contents(&states);
    let mut by_moves = [0; 3];
    for state in &states {
        let standing: Vec<Standing> = state
            .iter()
            .enumerate()
            .map(|(at, &place)| Standing { place, hold: hold(at) })
            .collect();
        let of = |movable: bool| -> Vec<Placement> {
            let slices = standing.iter();
            slices
                .filter(|slice| (slice.hold == Hold::Movable) == movable)
                .map(|slice| slice.place)
                .collect()
        };
        for wanted in &contents {
            let least = oracle::fewest_moves(geometry, &of(false), &of(true), wanted);
            let found = planner(&table, &values, &standing, wanted);
            let moves = found.as_ref().ok().map(|plan| u32::try_from(plan.moves.len()).unwrap());
            assert_eq!(moves, least, "{standing:?} {wanted:?}");
            if let Ok(found) = found {
                after(geometry, &standing, wanted, &found);
                by_moves[found.moves.len().min(2)] += 1;
            }
        }
    }
    by_moves
}

#[test]
fn no_more_slices_are_made_anew_than_must_be() {
    let all = every_move(&h100(), |_| Hold::Movable, plan);
    let some =
        every_move(&h100(), |at| if at % 2 == 0 { Hold::Movable } else { Hold::Fixed }, plan);
    assert!(all[1] > some[1] && some[1] > 0 && all[2] > some[2], "{all:?} {some:?}");
}

#[test]
fn the_search_for_odd_grids_finds_plans_with_as_few_moves() {
    let searched = |table: &Table, _: &Values, standing: &[Standing], wanted: &[u32]| {
        super::super::limits::check(table, standing, wanted)?;
        search::plan(table, standing, wanted)
    };
    let mixed = |at| if at % 2 == 0 { Hold::Movable } else { Hold::Fixed };
    every_move(&h100(), mixed, searched);
    every_move(&a30(), |_| Hold::Movable, searched);
}

#[test]
fn a_shortage_names_the_profile_and_the_reason() {
    let geometry = h100_media();
    let (table, values) = model(&geometry);
    let words = |hold, places: &[Placement], wanted: &[u32]| {
        plan(&table, &values, &held(hold, places), wanted).unwrap_err().to_string()
    };
    assert_eq!(words(Hold::Fixed, &[], &[77]), "no MIG profile 77");
    assert_eq!(
        words(Hold::Fixed, &[place(5, 0, 4)], &[19, 5]),
        "4g.40gb: at most 1 instances of it at the same time"
    );
    assert_eq!(
        words(Hold::Fixed, &[place(19, 0, 1)], &[19, 5]),
        "4g.40gb: slices that may not move are in the way"
    );
    assert_eq!(
        words(Hold::Movable, &[place(9, 0, 4)], &[9, 19]),
        "1g.10gb: no room on the GPU beside what stands"
    );
    assert_eq!(
        words(Hold::Fixed, &[place(9, 1, 4)], &[19]),
        "a slice stands where it cannot: profile 9 at 1:4"
    );
    assert_eq!(
        words(Hold::Fixed, &[place(9, 0, 4), place(19, 2, 1)], &[19]),
        "slices overlap: profile 9 at 0:4 and profile 19 at 2:1"
    );
    let rtx = rtx_pro_6000();
    let (table, values) = model(&rtx);
    let standing = held(Hold::Fixed, &[place(65, 0, 3)]);
    assert_eq!(
        plan(&table, &values, &standing, &[67, 14]).unwrap_err().to_string(),
        "1g.24gb: the instances would have 5 decoders of 4"
    );
    assert!(plan(&table, &values, &standing, &[67, 66]).is_ok());
}
