//! GPUs and slices of them.

use std::collections::BTreeSet;

use bulkhead_api::gpu::{HeldGpu, WantedGpus};
use bulkhead_api::inventory::{Gpu, Inventory, PciFunction};
use bulkhead_api::lease::Holding;
use bulkhead_api::mig::report::{ReportedGeometry, ReportedPlace, ReportedProfile};
use bulkhead_api::resource::Resource;
use bulkhead_api::units::Bytes;

use super::super::{Request, Taken, place};
use super::hosts::Shape;
use super::id;

/// The plain profiles of an H100 with 80 GB.
fn reported() -> ReportedGeometry {
    let profile = |id, name: &str, compute_slices, size, starts: &[u32], engines| ReportedProfile {
        id,
        name: name.to_owned(),
        compute_slices,
        instance_count: u32::try_from(starts.len()).unwrap(),
        memory_mib: 10_000 * u64::from(size),
        decoders: engines,
        announced_places: u32::try_from(starts.len()).unwrap(),
        places: starts.iter().map(|&start| ReportedPlace { start, size }).collect(),
        ..ReportedProfile::default()
    };
    let profiles = vec![
        profile(19, "1g.10gb", 1, 1, &[0, 1, 2, 3, 4, 5, 6], 1),
        profile(14, "2g.20gb", 2, 2, &[0, 2, 4], 2),
        profile(9, "3g.40gb", 3, 4, &[0, 4], 3),
        profile(5, "4g.40gb", 4, 4, &[0], 4),
        profile(0, "7g.80gb", 7, 8, &[0], 7),
    ];
    ReportedGeometry { profiles }
}

fn bdf(number: u32) -> String {
    format!("0000:{:02x}:00.0", 0x40 + number)
}

/// A host with GPUs of two nodes in turn.
fn host(gpus: u32) -> Inventory {
    let mut host = Shape::default().host();
    let geometry = reported().check().unwrap();
    host.gpus = (0..gpus)
        .map(|number| Gpu {
            uuid: format!("GPU-{number}"),
            model: "H100".to_owned(),
            bdf: bdf(number),
            memory: Bytes::new(80 << 30),
            mig: Some(false),
            geometry: Some(geometry.clone()),
            instances: Vec::new(),
            closed: None,
        })
        .collect();
    host.pci = (0..gpus)
        .map(|number| PciFunction {
            bdf: bdf(number),
            vendor: 0x10de,
            device: 0x2330,
            class: 0x03_0200,
            driver: None,
            iommu_group: Some(number),
            node: Some(number % 2),
            parent: None,
            acs: None,
        })
        .collect();
    host
}

fn slices(profile: &str, count: u32) -> WantedGpus {
    WantedGpus::Slices { profile: profile.parse().unwrap(), count }
}

fn with(gpus: Vec<WantedGpus>) -> Request {
    let memory = Bytes::new(64 << 20);
    Request { gpus, cores: 1, memory, ..Request::default() }
}

fn whole(count: u32) -> Request {
    with(vec![WantedGpus::Whole { count }])
}

fn held(number: usize, gpus: Vec<HeldGpu>) -> Taken {
    let mut taken = Taken::default();
    taken.held.insert(id(number), Holding { gpus, ..Holding::default() });
    taken
}

fn refusal(host: &Inventory, taken: &Taken, request: &Request) -> String {
    place(host, taken, request).unwrap_err().to_string()
}

#[test]
fn slices_are_placed_beside_those_that_are_held_and_never_over_them() {
    let host = host(1);
    let mut taken = Taken::default();
    // One by one, as leases come: seven of the smallest fill a GPU.
    for number in 0..7 {
        let holding = place(&host, &taken, &with(vec![slices("1g.10gb", 1)]));
        let gpus = holding.unwrap_or_else(|short| panic!("{number}: {short}: {taken:?}")).gpus;
        let holding = Holding { gpus, ..Holding::default() };
        let mut others = taken.held.values().flat_map(|held| &held.gpus);
        assert!(!others.any(|other| other.meets(&holding.gpus[0])), "{holding:?}");
        taken.held.insert(id(number), holding);
    }
    assert_eq!(
        refusal(&host, &taken, &with(vec![slices("1g.10gb", 1)])),
        "gpus: 1 slices 1g.10gb wanted, 0 free"
    );
    // What is quarantined is nobody's and nobody gets it.
    let kept = taken.held.remove(&id(3)).unwrap().gpus.remove(0);
    taken.quarantined.push(Resource::Gpu(kept));
    assert!(place(&host, &taken, &with(vec![slices("1g.10gb", 1)])).is_err());
}

#[test]
fn slices_of_one_lease_are_found_a_place_together_whenever_there_is_one() {
    let wanted = vec![slices("3g.40gb", 1), slices("2g.20gb", 1), slices("1g.10gb", 2)];
    let holding = place(&host(1), &Taken::default(), &with(wanted.clone())).unwrap();
    assert_eq!(holding.gpus.len(), 4);
    for (at, one) in holding.gpus.iter().enumerate() {
        assert!(!holding.gpus[at + 1..].iter().any(|other| other.meets(one)), "{holding:?}");
    }
    assert!(place(&host(1), &held(0, holding.gpus), &with(wanted)).is_err());
}

#[test]
fn a_gpu_is_given_whole_or_in_slices_and_never_both() {
    let two = host(2);
    let sliced = place(&two, &Taken::default(), &with(vec![slices("1g.10gb", 1)])).unwrap();
    let taken = held(0, sliced.gpus.clone());
    let holding = place(&two, &taken, &whole(1)).unwrap();
    assert_ne!(holding.gpus[0].gpu, sliced.gpus[0].gpu);
    assert_eq!(refusal(&two, &taken, &whole(2)), "gpus: 2 whole GPUs wanted, 1 free");
    let both = vec![WantedGpus::Whole { count: 1 }, slices("7g.80gb", 1)];
    let holding = place(&two, &Taken::default(), &with(both)).unwrap();
    let gpus: BTreeSet<&str> = holding.gpus.iter().map(|held| held.gpu.as_str()).collect();
    assert_eq!(gpus.len(), 2);
}

#[test]
fn a_lease_is_placed_on_the_node_of_its_gpu() {
    let host = host(2);
    let taken = held(0, vec![HeldGpu { gpu: bdf(0), slice: None }]);
    let holding = place(&host, &taken, &whole(1)).unwrap();
    assert_eq!(holding.gpus, [HeldGpu { gpu: bdf(1), slice: None }]);
    assert_eq!(holding.memory_nodes, BTreeSet::from([1]));
}

#[test]
fn a_profile_that_no_gpu_has_is_told_with_those_that_there_are() {
    let wanted = with(vec![slices("1g.5gb", 1)]);
    assert_eq!(
        refusal(&host(1), &Taken::default(), &wanted),
        "gpus: 1 slices 1g.5gb wanted, H100 has 1g.10gb, 2g.20gb, 3g.40gb, 4g.40gb, 7g.80gb"
    );
    assert_eq!(
        refusal(&host(0), &Taken::default(), &wanted),
        "gpus: 1 slices 1g.5gb wanted, the host has no GPU"
    );
    let mut closed = host(1);
    closed.gpus[0].closed = Some("GPU 0000:40:00.0 asks for a reset".to_owned());
    assert_eq!(
        refusal(&closed, &Taken::default(), &with(vec![slices("1g.10gb", 1)])),
        "gpus: 1 slices 1g.10gb wanted, 0 free; GPU 0000:40:00.0 asks for a reset"
    );
}
