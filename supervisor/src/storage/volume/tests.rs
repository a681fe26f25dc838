//! What a host without disks answers, and what orders are refused.

use bulkhead_api::lease::InstanceKind;
use bulkhead_api::resource::EXTENT;

use super::record::{Stage, VolumeRecord};
use super::*;
use crate::class::Progress;

fn order(extents: Vec<Extent>) -> Order {
    Order {
        lease: LeaseId { tenant: "acme".parse().unwrap(), name: "a".parse().unwrap() },
        resource: Resource::Volume { name: "v".parse().unwrap(), pool: "p".to_owned(), extents },
        instance: InstanceKind::Container,
        first_id: 100_000,
        weaker_erase: false,
        progress: Progress::default(),
    }
}

#[test]
fn extents_that_no_placement_gives_are_refused_before_anything_is_touched() {
    let extent = |start, length| Extent { start, length };
    for extents in [
        vec![],
        vec![extent(1, EXTENT)],
        vec![extent(0, EXTENT - 1)],
        vec![extent(0, 0)],
        vec![extent(EXTENT, EXTENT), extent(0, EXTENT)],
        vec![extent(0, 2 * EXTENT), extent(EXTENT, EXTENT)],
        vec![extent(u64::MAX / EXTENT * EXTENT, EXTENT)],
    ] {
        let order = order(extents);
        assert!(matches!(Wanted::of(&order), Err(ClassError::Refused { .. })), "{order:?}");
    }
    let good = order(vec![extent(0, EXTENT), extent(EXTENT, EXTENT)]);
    assert_eq!(Wanted::of(&good).unwrap().bytes(), 2 * EXTENT);
}

fn record_of(wanted: &Wanted<'_>) -> VolumeRecord {
    VolumeRecord {
        lease: wanted.lease.clone(),
        volume: wanted.volume.clone(),
        pool: wanted.pool.to_owned(),
        extents: wanted.extents.to_vec(),
        mapping: "BULKHEAD-VOLUME-0".to_owned(),
        marker: String::new(),
        canary: String::new(),
        stage: Stage::Made,
    }
}

#[test]
fn a_volume_that_is_made_anew_after_a_reboot_has_no_canary_until_it_is_whole() {
    let root = tempfile::tempdir().unwrap();
    let paths = Paths::below(root.path());
    let there = order(vec![Extent { start: 0, length: EXTENT }]);
    let wanted = Wanted::of(&there).unwrap();
    let stage = || record::load(&paths, wanted.lease, wanted.volume).unwrap().map(|r| r.stage);
    attach::set_aside(&paths, &wanted).unwrap();
    assert_eq!(stage(), None);
    record::store(&paths, &record_of(&wanted)).unwrap();
    for _ in 0..2 {
        attach::set_aside(&paths, &wanted).unwrap();
        assert_eq!(stage(), Some(Stage::Erasing));
    }
}

#[test]
fn a_volume_is_not_made_over_the_record_of_an_earlier_one_elsewhere() {
    let root = tempfile::tempdir().unwrap();
    let paths = Paths::below(root.path());
    let (there, here) =
        [0, EXTENT].map(|start| order(vec![Extent { start, length: EXTENT }])).into();
    let earlier = record_of(&Wanted::of(&there).unwrap());
    record::store(&paths, &earlier).unwrap();
    let wanted = Wanted::of(&here).unwrap();
    let why = attach::set_aside(&paths, &wanted).unwrap_err().to_string();
    assert!(why.ends_with("an earlier one of that name, in pool p, is not erased yet"), "{why}");
    assert_eq!(record::load(&paths, wanted.lease, wanted.volume).unwrap(), Some(earlier));
}

#[test]
fn a_volume_that_only_a_record_knows_is_found() {
    let root = tempfile::tempdir().unwrap();
    let paths = Paths::below(root.path());
    let volumes = Volumes::new(paths.clone());
    assert_eq!(volumes.found().unwrap(), []);
    let order = order(vec![Extent { start: 0, length: EXTENT }]);
    let wanted = Wanted::of(&order).unwrap();
    record::store(&paths, &record_of(&wanted)).unwrap();
    assert_eq!(volumes.found().unwrap(), [(order.lease.clone(), order.resource.clone())]);
}

#[test]
fn a_host_without_a_device_mapper_says_so_and_erases_nothing() {
    let root = tempfile::tempdir().unwrap();
    let volumes = Volumes::new(Paths::below(root.path()));
    let order = order(vec![Extent { start: 0, length: EXTENT }]);
    for error in [
        volumes.observe(&order).unwrap_err(),
        volumes.attach(&order).unwrap_err(),
        volumes.erase(&order).unwrap_err(),
    ] {
        assert!(matches!(error, ClassError::Refused { .. }), "{error}");
    }
}
