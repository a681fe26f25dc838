//! Names, geometry and what a driver may say of it.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::report::ReportedPlace;
use super::*;

fn profile(id: u32, name: &str, count: u32, starts: &[u32], size: u32) -> ReportedProfile {
    let places: Vec<ReportedPlace> =
        starts.iter().map(|&start| ReportedPlace { start, size }).collect();
    ReportedProfile {
        id,
        name: format!("MIG {name}"),
        compute_slices: u32::from(name.parse::<ProfileName>().unwrap().slices()),
        instance_count: count,
        memory_mib: 9984 * u64::from(size),
        announced_places: u32::try_from(places.len()).unwrap(),
        places,
        ..ReportedProfile::default()
    }
}

/// H100 80GB.
fn report() -> ReportedGeometry {
    let mut profiles = vec![
        profile(19, "1g.10gb", 7, &[0, 1, 2, 3, 4, 5, 6], 1),
        profile(20, "1g.10gb+me", 1, &[0, 1, 2, 3, 4, 5, 6], 1),
        profile(15, "1g.20gb", 4, &[0, 2, 4, 6], 2),
        profile(14, "2g.20gb", 3, &[0, 2, 4], 2),
        profile(9, "3g.40gb", 2, &[0, 4], 4),
        profile(5, "4g.40gb", 1, &[0], 4),
        profile(0, "7g.80gb", 1, &[0], 8),
    ];
    for (profile, decoders) in profiles.iter_mut().zip([1, 1, 1, 2, 3, 4, 7]) {
        profile.decoders = decoders;
        profile.optical_flow = u32::from(matches!(profile.id, 0 | 20));
    }
    ReportedGeometry { profiles }
}

fn refused(change: impl FnOnce(&mut Vec<ReportedProfile>)) -> String {
    let mut report = report();
    change(&mut report.profiles);
    report.check().unwrap_err().to_string()
}

#[test]
fn a_profile_name_reads_back_to_itself() {
    for text in ["3g.40gb", "1g.12gb+me", "1g.24gb+me.all", "1g.24gb-me", "2g.48gb+gfx"] {
        let name: ProfileName = text.parse().unwrap();
        assert_eq!(name.to_string(), text);
        assert_eq!(text.parse::<SliceName>().unwrap(), SliceName::whole(name));
    }
    let slice: SliceName = "1c.3g.40gb".parse().unwrap();
    assert_eq!((slice.compute(), slice.to_string().as_str()), (Some(1), "1c.3g.40gb"));
}

#[test]
fn other_programs_names_of_a_profile_are_read() {
    for (alias, name) in [
        ("MIG 1g.10gb+me", "1g.10gb+me"),
        ("mig-1g.10gb.me", "1g.10gb+me"),
        ("mig-1g.24gb.me.all", "1g.24gb+me.all"),
        ("MIG 1c.3g.20gb", "1c.3g.20gb"),
        ("3c.3g.20gb", "3g.20gb"),
    ] {
        assert_eq!(alias.parse::<SliceName>().unwrap().to_string(), name, "{alias}");
    }
}

#[test]
fn a_refused_name_says_which_part_is_wrong() {
    for (text, message) in [
        ("", r#"MIG profile "": "" is no number of compute slices such as 3g"#),
        ("3x.40gb", r#"MIG profile "3x.40gb": "3x" is no number of compute slices such as 3g"#),
        ("0g.5gb", r#"MIG profile "0g.5gb": "0g" is no number of compute slices such as 3g"#),
        ("3g", r#"MIG profile "3g": "" is no amount of memory such as 40gb"#),
        ("3g.40", r#"MIG profile "3g.40": "40" is no amount of memory such as 40gb"#),
        ("3g.-4gb", r#"MIG profile "3g.-4gb": "-4gb" is no amount of memory such as 40gb"#),
        ("1g.5gb+", r#"MIG profile "1g.5gb+": "" is no attribute such as +me"#),
        ("1g.5gb+ME", r#"MIG profile "1g.5gb+ME": "ME" is no attribute such as +me"#),
        ("1g.5gb+me,me", r#"MIG profile "1g.5gb+me,me": "me" is no attribute such as +me"#),
        ("1g.5gb me", r#"MIG profile "1g.5gb me": " me" is no attribute such as +me"#),
        (
            "4c.3g.40gb",
            r#"MIG profile "4c.3g.40gb": "4c" is no compute instance such as 1c of 3 slices"#,
        ),
    ] {
        assert_eq!(text.parse::<SliceName>().unwrap_err().to_string(), message);
    }
    let error = "1c.3g.40gb".parse::<ProfileName>().unwrap_err();
    assert!(matches!(error, NameError::NoCompute { .. }));
    assert!(!"x".repeat(70).parse::<SliceName>().unwrap_err().to_string().contains('x'));
}

#[test]
fn a_sound_report_is_the_geometry() {
    let geometry = report().check().unwrap();
    assert_eq!((geometry.grid(), geometry.profiles().len()), (8, 7));
    let three = geometry.named(&"3g.40gb".parse().unwrap()).unwrap();
    assert_eq!((three.id, &three.starts), (9, &BTreeSet::from([0, 4])));
    let limits = Engines::from([(Engine::Decoder, 7), (Engine::OpticalFlow, 1)]);
    assert_eq!(*geometry.engine_limits(), limits);
    let text = serde_json::to_string(&geometry).unwrap();
    assert_eq!(serde_json::from_str::<Geometry>(&text).unwrap(), geometry);
}

#[test]
fn engines_that_instances_share_have_no_bound() {
    let mut report = report();
    for profile in &mut report.profiles {
        profile.decoders = 1;
    }
    let geometry = report.check().unwrap();
    assert_eq!(geometry.engine_limits().get(&Engine::Decoder), None);
}

#[test]
fn an_instance_count_above_what_fits_is_cut() {
    let mut report = report();
    report.profiles[4].instance_count = 7;
    assert_eq!(report.check().unwrap().profile(9).unwrap().max_instances, 2);
}

#[test]
fn garbage_of_a_driver_is_refused_by_its_profile_and_number() {
    assert_eq!(
        refused(|p| p[2].places[1].size = u32::MAX),
        "MIG profile 15: place 2:4294967295 does not go with its others"
    );
    assert_eq!(
        refused(|p| p[4].places.iter_mut().for_each(|place| place.size = 0)),
        "MIG profile 9: memory slices of 0, expected 1 to 64"
    );
    assert_eq!(
        refused(|p| p[4].places[1].start = 5),
        "MIG profile 9: place 5:4 is outside the grid of 8 slices"
    );
    assert_eq!(
        refused(|p| p[4].places[1].start = u32::MAX),
        "MIG profile 9: place 4294967295:4 is outside the grid of 64 slices"
    );
    assert_eq!(
        refused(|p| p[4].announced_places = 3),
        "MIG profile 9: 3 places announced, 2 given"
    );
    assert_eq!(
        refused(|p| p[4].compute_slices = u32::MAX),
        "MIG profile 9: compute slices of 4294967295, expected 1 to 64"
    );
    assert_eq!(
        refused(|p| p[4].instance_count = 0),
        "MIG profile 9: instances of 0, expected 1 to 64"
    );
    assert_eq!(
        refused(|p| p[4].memory_mib = u64::MAX),
        "MIG profile 9: MiB of memory of 18446744073709551615, expected 1 to 16777216"
    );
    assert_eq!(refused(|p| p[4].id = 5), "MIG profile 5: its id occurs twice");
    assert_eq!(
        refused(|p| p[4].name = "MIG 4g.40gb".to_owned()),
        "MIG profile 5: its name occurs twice"
    );
    assert_eq!(refused(|p| p[4].name = "9".repeat(96)), "MIG profile 9: unreadable name");
    assert_eq!(refused(Vec::clear), "MIG geometry without a profile");
    assert_eq!(refused(|p| p[6].places.clear()), "MIG profile 0: 1 places announced, 0 given");
}

#[test]
fn an_instance_id_follows_from_the_place() {
    let geometry = report().check().unwrap();
    let id = |profile, start, size| geometry.instance_id(Placement { profile, start, size });
    assert_eq!(
        [id(0, 0, 8), id(9, 0, 4), id(9, 4, 4), id(14, 4, 2), id(19, 0, 1), id(19, 6, 1)],
        [Some(0), Some(1), Some(2), Some(5), Some(7), Some(13)]
    );
    assert_eq!(id(14, 1, 2), None);
    assert_eq!(id(14, 1, 0), None);
}

#[test]
fn instances_that_cannot_stand_are_refused() {
    let geometry = report().check().unwrap();
    let at = |id, profile, start, size| ReportedInstance {
        id,
        profile,
        place: ReportedPlace { start, size },
    };
    let good = geometry.check_instances(&[at(13, 19, 6, 1), at(1, 9, 0, 4)]).unwrap();
    assert_eq!(good.iter().map(|instance| instance.id).collect::<Vec<_>>(), [1, 13]);
    let words = |list: &[ReportedInstance]| geometry.check_instances(list).unwrap_err().to_string();
    assert_eq!(words(&[at(1, 9, 1, 4)]), "GPU instance 1: profile 9 cannot be at 1:4");
    assert_eq!(words(&[at(1, 77, 0, 4)]), "GPU instance 1: profile 77 cannot be at 0:4");
    assert_eq!(words(&[at(1, 9, 256, 4)]), "GPU instance 1: profile 9 cannot be at 256:4");
    let overlap = "GPU instances 1 and 8 have the same id or memory slice";
    assert_eq!(words(&[at(1, 9, 0, 4), at(8, 19, 1, 1)]), overlap);
    let twice = "GPU instances 1 and 1 have the same id or memory slice";
    assert_eq!(words(&[at(1, 9, 0, 4), at(1, 9, 4, 4)]), twice);
}

#[test]
fn a_geometry_that_is_read_is_checked_as_one_that_is_reported() {
    let mut value = serde_json::to_value(report().check().unwrap()).unwrap();
    value["grid"] = 7.into();
    let error = serde_json::from_value::<Geometry>(value).unwrap_err().to_string();
    assert!(error.contains("outside the grid of 7 slices"), "{error}");
}

#[test]
fn compute_instances_are_the_parts_that_the_guide_lists() {
    let geometry = report().check().unwrap();
    let parts = |id: u32| {
        let parts = geometry.profile(id).unwrap().compute_profiles();
        parts.iter().map(|part| (part.id, part.slices)).collect::<Vec<_>>()
    };
    assert_eq!(parts(19), [(0, 1)]);
    assert_eq!(parts(9), [(0, 1), (1, 2), (2, 3)]);
    assert_eq!(parts(5), [(0, 1), (1, 2), (3, 4)]);
    assert_eq!(parts(0), [(0, 1), (1, 2), (2, 3), (3, 4), (4, 7)]);
}

fn any_profile() -> impl Strategy<Value = ReportedProfile> {
    let number = prop_oneof![0..10_u32, any::<u32>()];
    let place = (number.clone(), number.clone());
    (
        (0..4_u32, "MIG [0-9]g.[0-9]{1,2}gb|.{0,20}", number.clone(), number.clone()),
        (any::<u64>(), number, prop::collection::vec(place, 0..5)),
    )
        .prop_map(
            |((id, name, compute_slices, instance_count), (memory_mib, announced, places))| {
                ReportedProfile {
                    id,
                    name,
                    compute_slices,
                    instance_count,
                    memory_mib,
                    announced_places: announced,
                    decoders: compute_slices,
                    places: places
                        .into_iter()
                        .map(|(start, size)| ReportedPlace { start, size })
                        .collect(),
                    ..ReportedProfile::default()
                }
            },
        )
}

proptest! {
    #[test]
    fn any_text_is_a_name_that_reads_back_or_an_error(text in ".{0,70}|[0-9cg.b+me-]{0,20}") {
        if let Ok(name) = text.parse::<SliceName>() {
            prop_assert_eq!(name.to_string().parse::<SliceName>().unwrap(), name);
        }
    }

    #[test]
    fn whatever_a_driver_says_is_a_sound_geometry_or_an_error(
        profiles in prop::collection::vec(any_profile(), 0..5),
        instances in prop::collection::vec((any::<u32>(), 0..4_u32, 0..9_u32, 0..9_u32), 0..5),
    ) {
        if let Ok(geometry) = (ReportedGeometry { profiles }).check() {
            for place in geometry.profiles().iter().flat_map(Profile::placements) {
                prop_assert!(place.size > 0 && place.end() <= geometry.grid());
                prop_assert!(geometry.allows(place));
            }
            let reported: Vec<ReportedInstance> = instances
                .into_iter()
                .map(|(id, profile, start, size)| ReportedInstance {
                    id,
                    profile,
                    place: ReportedPlace { start, size },
                })
                .collect();
            if let Ok(standing) = geometry.check_instances(&reported) {
                let masks = standing.iter().fold(0_u64, |all, one| {
                    assert_eq!(all & one.placement.mask(), 0);
                    all | one.placement.mask()
                });
                prop_assert!(masks.checked_shr(u32::from(geometry.grid())).unwrap_or(0) == 0);
            }
        }
    }
}
