//! MIG rules against public transcripts, and against random sequences of calls.

use proptest::prelude::*;

use super::*;
use crate::profiles::{model, models};

fn mig_on(key: &str) -> Gpu {
    let mut gpu = Gpu::new(model(key).unwrap(), 0);
    gpu.set_mig_mode(true).unwrap();
    gpu
}

#[test]
fn the_drivers_default_order_gives_the_ids_of_public_transcripts() {
    let cases: [(&[u32], &[Result<u32, Code>]); 4] = [
        (&[19, 19, 14, 9], &[Ok(13), Ok(11), Ok(3), Err(Code::INSUFFICIENT_RESOURCES)]),
        (&[9, 19, 14, 19], &[Ok(2), Ok(7), Ok(4), Ok(8)]),
        (&[19; 7], &[Ok(13), Ok(11), Ok(12), Ok(7), Ok(8), Ok(9), Ok(10)]),
        (&[9, 9], &[Ok(2), Ok(1)]),
    ];
    for (profiles, expected) in cases {
        let mut gpu = mig_on("a100-40");
        let made: Vec<_> = profiles.iter().map(|&id| gpu.create_instance(id, None)).collect();
        assert_eq!(made, expected, "{profiles:?}");
    }
}

#[test]
fn a_place_that_a_profile_does_not_list_is_an_invalid_argument() {
    let mut gpu = mig_on("h100-80");
    assert_eq!(gpu.create_instance(9, Some((2, 4))), Err(Code::INVALID_ARGUMENT));
    assert_eq!(gpu.create_instance(9, Some((0, 2))), Err(Code::INVALID_ARGUMENT));
    assert_eq!(gpu.create_instance(9, Some((0, u32::MAX))), Err(Code::INVALID_ARGUMENT));
    assert_eq!(gpu.create_instance(9, Some((4, 4))), Ok(2));
    assert_eq!(gpu.create_instance(9, Some((4, 4))), Err(Code::INSUFFICIENT_RESOURCES));
    assert_eq!(gpu.create_instance(77, None), Err(Code::NOT_SUPPORTED));
}

#[test]
fn media_engines_of_an_rtx_pro_6000_are_given_once() {
    let mut gpu = mig_on("rtxpro6000-bse");
    gpu.create_instance(65, None).unwrap();
    assert_eq!(gpu.create_instance(14, None), Err(Code::INSUFFICIENT_RESOURCES));
    gpu.create_instance(67, None).unwrap();
    gpu.create_instance(67, None).unwrap();
    gpu.create_instance(67, None).unwrap();
    assert_eq!(gpu.create_instance(67, None), Err(Code::INSUFFICIENT_RESOURCES));
}

#[test]
fn an_instance_with_compute_instances_stays() {
    let mut gpu = mig_on("h100-80");
    let id = gpu.create_instance(9, Some((0, 4))).unwrap();
    assert_eq!(gpu.create_compute(id, 3, None), Err(Code::NOT_SUPPORTED));
    assert_eq!(gpu.create_compute(id, 0, None), Ok(0));
    assert_eq!(gpu.create_compute(id, 1, None), Err(Code::INSUFFICIENT_RESOURCES));
    assert_eq!(gpu.create_compute(id, 0, None), Ok(1));
    assert_eq!(gpu.destroy_instance(id), Err(Code::IN_USE));
    gpu.destroy_compute(id, 0).unwrap();
    assert_eq!(gpu.create_compute(id, 0, None), Ok(0));
    gpu.destroy_compute(id, 0).unwrap();
    gpu.destroy_compute(id, 1).unwrap();
    gpu.destroy_instance(id).unwrap();
    assert_eq!(gpu.instance(id), Err(Code::NOT_FOUND));
}

#[test]
fn an_l40s_has_no_mig() {
    let mut gpu = Gpu::new(model("l40s").unwrap(), 0);
    assert_eq!(gpu.mig_mode(), Err(Code::NOT_SUPPORTED));
    assert_eq!(gpu.set_mig_mode(true), Err(Code::NOT_SUPPORTED));
    assert_eq!(gpu.create_instance(19, None), Err(Code::NOT_SUPPORTED));
}

#[test]
fn a_place_has_the_same_uuid_whoever_has_it() {
    let mut gpu = mig_on("h100-80");
    let id = gpu.create_instance(19, Some((3, 1))).unwrap();
    let (uuid, generation) = (gpu.mig_uuid(id, 0), gpu.instance(id).unwrap().generation);
    gpu.destroy_instance(id).unwrap();
    assert_eq!(gpu.create_instance(20, Some((3, 1))), Ok(id));
    assert_eq!(gpu.mig_uuid(id, 0), uuid);
    assert_ne!(gpu.instance(id).unwrap().generation, generation);
    assert_ne!(gpu.mig_uuid(id, 1), uuid);
}

#[test]
fn an_a30_with_the_fault_promises_what_it_has_not() {
    let mut gpu = mig_on("a30");
    let profile = gpu.profile(14).unwrap();
    assert_eq!(gpu.promised_count(profile), Ok(4));
    gpu.faults.wrong_counts = true;
    assert_eq!(gpu.promised_count(profile), Ok(7));
    assert_eq!(gpu.remaining_capacity(14), Ok(4));
}

#[derive(Debug, Clone)]
enum Call {
    Create(u32),
    CreateAt(u32, u32, u32),
    Destroy(u32),
    CreateCompute(u32, u32),
    CreateComputeAt(u32, u32, u32, u32),
    DestroyCompute(u32, u32),
    Mode(bool),
    Reset,
}

fn call() -> impl Strategy<Value = Call> {
    let profile =
        || prop::sample::select(vec![0_u32, 5, 6, 9, 14, 15, 19, 20, 21, 35, 47, 64, 65, 66, 67]);
    prop_oneof![
        6 => profile().prop_map(Call::Create),
        6 => (profile(), 0..12_u32, 1..13_u32).prop_map(|(id, start, size)| Call::CreateAt(id, start, size)),
        6 => (profile(), 0..12_u32, prop::sample::select(vec![1_u32, 2, 3, 4, 6, 8, 12]))
            .prop_map(|(id, start, size)| Call::CreateAt(id, start, size)),
        3 => (0..15_u32).prop_map(Call::Destroy),
        6 => (0..15_u32, 0..9_u32).prop_map(|(instance, profile)| Call::CreateCompute(instance, profile)),
        3 => (0..15_u32, 0..9_u32, 0..8_u32, 0..8_u32)
            .prop_map(|(instance, profile, start, size)| Call::CreateComputeAt(instance, profile, start, size)),
        3 => (0..15_u32, 0..8_u32).prop_map(|(instance, id)| Call::DestroyCompute(instance, id)),
        1 => any::<bool>().prop_map(Call::Mode),
        1 => Just(Call::Reset),
    ]
}

fn apply(gpu: &mut Gpu, call: &Call) -> Result<(), Code> {
    match *call {
        Call::Create(id) => gpu.create_instance(id, None).map(drop),
        Call::CreateAt(id, start, size) => gpu.create_instance(id, Some((start, size))).map(drop),
        Call::Destroy(id) => gpu.destroy_instance(id),
        Call::CreateCompute(instance, profile) => {
            gpu.create_compute(instance, profile, None).map(drop)
        }
        Call::CreateComputeAt(instance, profile, start, size) => {
            gpu.create_compute(instance, profile, Some((start, size))).map(drop)
        }
        Call::DestroyCompute(instance, id) => gpu.destroy_compute(instance, id),
        Call::Mode(on) => gpu.set_mig_mode(on).map(drop),
        Call::Reset => gpu.reset(),
    }
}

/// Judged from the table alone: no unit twice, ids by place, no profile too often.
fn invariants(gpu: &Gpu) -> Result<(), TestCaseError> {
    let table = gpu.model().unwrap();
    let mut taken = std::collections::BTreeSet::new();
    for instance in &gpu.instances {
        let profile = table.profile(instance.profile).unwrap();
        prop_assert!(profile.placement_starts.contains(&instance.start));
        for unit in instance.start..instance.start + instance.size {
            prop_assert!(unit < table.memory_slices && taken.insert(unit), "unit {unit} twice");
        }
        let first = table.memory_slices / instance.size - 1;
        prop_assert_eq!(instance.id, first + instance.start / instance.size);
        let mut slices = std::collections::BTreeSet::new();
        for compute in &instance.compute {
            for slice in compute.start..compute.start + compute.size {
                prop_assert!(slice < profile.slices && slices.insert(slice), "slice {slice} twice");
            }
        }
    }
    for profile in &table.profiles {
        let same = gpu.instances.iter().filter(|other| other.profile == profile.gi_profile_id);
        prop_assert!(same.count() <= profile.max_instances as usize);
    }
    if table.key.starts_with("rtxpro") {
        let with = |suffix: &str| {
            gpu.instances
                .iter()
                .any(|instance| table.profile(instance.profile).unwrap().name.ends_with(suffix))
        };
        let without_media = |instance: &&GpuInstance| {
            table.profile(instance.profile).unwrap().name.ends_with("-me")
        };
        if with("+me.all") {
            prop_assert_eq!(
                gpu.instances.iter().filter(without_media).count() + 1,
                gpu.instances.len()
            );
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn no_sequence_of_calls_breaks_the_rules(
        model in prop::sample::select(models().iter().collect::<Vec<_>>()),
        calls in prop::collection::vec(call(), 1..60),
    ) {
        let mut gpu = Gpu::new(model, 0);
        if model.mig_capable {
            gpu.set_mig_mode(true).unwrap();
        }
        for call in &calls {
            let before = gpu.clone();
            if apply(&mut gpu, call).is_err() {
                gpu.generation = before.generation;
                prop_assert_eq!(&gpu, &before, "a refused call changed something: {:?}", call);
            }
            invariants(&gpu)?;
            prop_assert_eq!(gpu.check(), Ok(()));
        }
    }
}
