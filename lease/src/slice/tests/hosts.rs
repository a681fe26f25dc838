//! Requests over the GPUs of a host.

use bulkhead_api::mig::{Geometry, Placement};
use proptest::prelude::*;

use super::super::host::{Gpu, HostPlan, Mode, Near, Served, Wanted, plan};
use super::super::{Hold, Standing, Table, Values, plan as plan_gpu};
use super::{a30, after, h100, held, model, place};

fn gpu<'a>(name: &'a str, model: &'a (Table, Values), standing: &'a [Standing]) -> Gpu<'a> {
    Gpu {
        name,
        node: Some(0),
        mode: Mode::Mig,
        switchable: true,
        slices: Some((&model.0, &model.1)),
        standing,
        taken: false,
    }
}

fn slice(name: &str) -> Wanted {
    Wanted::Slice(name.parse().unwrap())
}

fn on(plan: &HostPlan) -> Vec<usize> {
    plan.served.iter().map(|served| served.gpu).collect()
}

#[test]
fn slices_go_together_on_the_gpu_that_loses_least() {
    let model = model(&h100());
    let standing = held(Hold::Fixed, &[place(9, 4, 4)]);
    let gpus = [gpu("a", &model, &[]), gpu("b", &model, &standing)];
    let found = plan(&gpus, &[slice("2g.20gb"), slice("2g.20gb")], &Near::default()).unwrap();
    assert_eq!(on(&found), [1, 1], "{found:?}");
    let found = plan(&gpus, &[slice("4g.40gb"), slice("2g.20gb")], &Near::default()).unwrap();
    assert_eq!(on(&found), [0, 0], "one GPU is touched rather than two: {found:?}");
}

#[test]
fn a_second_gpu_is_touched_before_a_slice_is_made_anew() {
    let model = model(&h100());
    let standing = held(Hold::Movable, &[place(14, 0, 2)]);
    let gpus = [gpu("a", &model, &standing), gpu("b", &model, &[])];
    let wanted = [slice("4g.40gb"), slice("1g.10gb")];
    let found = plan(&gpus, &wanted, &Near::default()).unwrap();
    assert!(found.moves.is_empty() && found.rejected.is_empty(), "{found:?}");
    let found = plan(&gpus[..1], &wanted, &Near::default()).unwrap();
    assert_eq!(found.moves.len(), 1, "{found:?}");
}

#[test]
fn the_node_of_cores_and_nic_is_preferred_or_required() {
    let model = model(&h100());
    let far = Gpu { node: Some(1), ..gpu("far", &model, &[]) };
    let unknown = Gpu { node: None, ..gpu("unknown", &model, &[]) };
    let full = held(Hold::Fixed, &[place(0, 0, 8)]);
    let near = Near { nodes: [0].into(), required: false };
    let wanted = [slice("3g.40gb")];
    let all = [far.clone(), unknown.clone(), gpu("near", &model, &[])];
    assert_eq!(on(&plan(&all, &wanted, &near).unwrap()), [2]);
    let all = [far, unknown, gpu("near", &model, &full)];
    assert_eq!(on(&plan(&all, &wanted, &near).unwrap()), [0]);
    let required = Near { required: true, ..near };
    let found = plan(&all, &wanted, &required).unwrap();
    assert_eq!(
        found.rejected[0].to_string(),
        "3g.40gb: far is not on a node of the lease's cores and NIC; unknown is not on a node of \
         the lease's cores and NIC; near 3g.40gb: no room on the GPU beside what stands"
    );
}

#[test]
fn whole_gpus_and_slices_keep_out_of_each_others_way() {
    let model = model(&h100());
    let standing = held(Hold::Fixed, &[place(19, 6, 1)]);
    let cut = gpu("cut", &model, &standing);
    let off = Gpu { mode: Mode::Whole, ..gpu("off", &model, &[]) };
    let wanted = [slice("2g.20gb"), Wanted::Whole];
    let found = plan(&[off.clone(), cut.clone()], &wanted, &Near::default()).unwrap();
    assert_eq!((on(&found), found.modes.len()), (vec![1, 0], 0), "{found:?}");
    assert_eq!(found.served[1].place, None);
    let found = plan(&[off.clone(), off.clone()], &wanted, &Near::default()).unwrap();
    assert_eq!(found.modes, [(on(&found)[0], Mode::Mig)], "{found:?}");
    let fresh = gpu("fresh", &model, &[]);
    let found = plan(&[fresh], &[Wanted::Whole], &Near::default()).unwrap();
    assert_eq!(found.modes, [(0, Mode::Whole)]);
    let stuck = Gpu { switchable: false, ..off };
    let gpus = [stuck, cut, Gpu { taken: true, slices: None, ..gpu("gone", &model, &[]) }];
    let wanted = [slice("7g.80gb"), Wanted::Whole, Wanted::Whole];
    let found = plan(&gpus, &wanted, &Near::default()).unwrap();
    let words: Vec<String> = found.rejected.iter().map(ToString::to_string).collect();
    assert_eq!(
        words,
        [
            "7g.80gb: off MIG mode is off, and may not be switched on; cut 7g.80gb: no room on the \
             GPU beside what stands; gone is a lease's as a whole, or in quarantine",
            "whole GPU: off has no room for it beside the other requests; cut 1 slices stand on \
             it; gone is a lease's as a whole, or in quarantine"
        ]
    );
}

#[test]
fn a_profile_of_another_model_is_refused_with_what_there_is() {
    let (h100, a30) = (model(&h100()), model(&a30()));
    let plain = Gpu { slices: None, mode: Mode::Whole, ..gpu("l40s", &h100, &[]) };
    let gpus = [gpu("h100", &h100, &[]), gpu("a30", &a30, &[]), plain];
    let found = plan(&gpus, &[slice("2g.12gb"), slice("9g.99gb")], &Near::default()).unwrap();
    assert_eq!(on(&found), [1]);
    assert_eq!(
        found.rejected[0].to_string(),
        "9g.99gb: h100 has no such profile; it has 7g.80gb, 4g.40gb, 3g.40gb, 2g.20gb, 1g.20gb, \
         1g.10gb; a30 has no such profile; it has 4g.24gb, 2g.12gb, 2g.12gb+me, 1g.6gb, 1g.6gb+me; \
         l40s cannot be cut"
    );
    let none = plan(&[], &[slice("2g.12gb")], &Near::default()).unwrap();
    assert_eq!(none.rejected[0].to_string(), "2g.12gb: the host has no GPU");
}

#[test]
fn requests_without_number_are_refused_and_not_divided() {
    let names: Vec<Wanted> = (1..40).map(|n| slice(&format!("1g.{n}gb"))).collect();
    let error = plan(&[], &names, &Near::default()).unwrap_err();
    let words = "39 GPU requests of 39 kinds at once: more than are divided exactly";
    assert_eq!(error.to_string(), words);
}

/// Rejected, moved, touched, lost: over every way of giving each request a GPU or none.
fn cheapest(gpus: &[Gpu<'_>], wanted: &[u32]) -> (usize, usize, usize, i64) {
    let ways = (gpus.len() + 1).pow(u32::try_from(wanted.len()).unwrap());
    let mut best = None;
    'ways: for way in 0..ways {
        let mut parts: Vec<Vec<u32>> = vec![Vec::new(); gpus.len() + 1];
        let mut rest = way;
        for &profile in wanted {
            parts[rest % (gpus.len() + 1)].push(profile);
            rest /= gpus.len() + 1;
        }
        let (mut moved, mut touched, mut loss) = (0, 0, 0);
        for (gpu, part) in gpus.iter().zip(&parts) {
            if part.is_empty() {
                continue;
            }
            let (table, values) = gpu.slices.unwrap();
            let Ok(plan) = plan_gpu(table, values, gpu.standing, part) else { continue 'ways };
            moved += plan.moves.len();
            touched += 1;
            loss += plan.loss;
        }
        let cost = (parts[gpus.len()].len(), moved, touched, loss);
        best = Some(best.map_or(cost, |best: (_, _, _, _)| best.min(cost)));
    }
    best.unwrap()
}

/// What the plan costs, once it is shown to be sound.
fn cost(
    geometry: &Geometry,
    gpus: &[Gpu<'_>],
    wanted: &[u32],
    plan: &HostPlan,
) -> (usize, usize, usize, i64) {
    let (mut touched, mut loss) = (0, 0);
    for (at, gpu) in gpus.iter().enumerate() {
        let here: Vec<&Served> = plan.served.iter().filter(|served| served.gpu == at).collect();
        let create: Vec<Placement> = here.iter().map(|served| served.place.unwrap()).collect();
        let asked: Vec<u32> = here.iter().map(|served| wanted[served.request]).collect();
        let moves: Vec<_> =
            plan.moves.iter().filter(|(of, _)| *of == at).map(|(_, step)| *step).collect();
        let (table, values) = gpu.slices.unwrap();
        let plan = super::super::GpuPlan { create, moves, loss: 0 };
        let sum = after(geometry, gpu.standing, &asked, &plan);
        touched += usize::from(!here.is_empty());
        if !here.is_empty() {
            let value = |places: &[Placement]| {
                let standing = held(Hold::Fixed, places);
                // What the largest slice would cost tells sets apart as their values do.
                let state = super::super::table::Ground::read(table, &standing).unwrap().fixed;
                values.all()[table.states().unwrap().index(state).unwrap()]
            };
            let before: Vec<Placement> = gpu.standing.iter().map(|slice| slice.place).collect();
            loss += value(&before) - value(&sum);
        }
    }
    (plan.rejected.len(), plan.moves.len(), touched, loss)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_division_over_the_gpus_is_cheaper(
        states in prop::collection::vec((0..723_usize, any::<u8>()), 1..4),
        wanted in prop::collection::vec(prop::sample::select(vec![19_u32, 15, 14, 9, 5, 0]), 0..5),
    ) {
        let geometry = h100();
        let model = model(&geometry);
        let all = super::oracle::states(&geometry);
        let standing: Vec<Vec<Standing>> = states
            .iter()
            .map(|(state, holds)| {
                let hold = |at: usize| {
                    if holds & 1 << at == 0 { Hold::Fixed } else { Hold::Movable }
                };
                let slices = all[*state].iter().enumerate();
                slices.map(|(at, &place)| Standing { place, hold: hold(at) }).collect()
            })
            .collect();
        let gpus: Vec<Gpu<'_>> = standing.iter().map(|of| gpu("gpu", &model, of)).collect();
        let names: Vec<Wanted> = wanted
            .iter()
            .map(|id| Wanted::Slice(geometry.profile(*id).unwrap().name.clone()))
            .collect();
        let found = plan(&gpus, &names, &Near::default()).unwrap();
        prop_assert_eq!(found.served.len() + found.rejected.len(), wanted.len());
        prop_assert_eq!(
            cost(&geometry, &gpus, &wanted, &found),
            cheapest(&gpus, &wanted)
        );
    }
}
