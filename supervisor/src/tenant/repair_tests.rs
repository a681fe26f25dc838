use bulkhead_api::inventory::Disk;
use bulkhead_api::resource::{EXTENT, NodePages, PageSize};
use bulkhead_api::units::Bytes;
use proptest::prelude::*;

use super::*;
use crate::ledger;
use crate::tenant::model::{Limits, ObservedLease, ObservedSlice};

fn id(name: &str) -> LeaseId {
    LeaseId { tenant: "acme".parse().unwrap(), name: name.parse().unwrap() }
}

fn now() -> Timestamp {
    "2026-11-24T10:00:00Z".parse().unwrap()
}

fn extents(list: &[(u64, u64)]) -> Vec<Extent> {
    list.iter().map(|&(at, of)| Extent { start: at * EXTENT, length: of * EXTENT }).collect()
}

fn volume(name: &str, list: &[(u64, u64)]) -> Resource {
    let name = name.parse().unwrap();
    Resource::Volume { name, pool: "pool-a".to_owned(), extents: extents(list) }
}

fn holding(cpus: &[u32]) -> Holding {
    Holding {
        cpus: cpus.iter().copied().collect(),
        memory_nodes: [0].into(),
        memory: Bytes::new(64 << 20),
        ..Holding::default()
    }
}

fn bundled(name: &str, holding: Holding) -> Found {
    let entry = Entry::granted(id(name), unknown(&holding), holding);
    Found { entry: Some(entry), ..Found::default() }
}

fn one(name: &str, found: Found) -> BTreeMap<LeaseId, Found> {
    BTreeMap::from([(id(name), found)])
}

fn disk(extents: u64) -> Inventory {
    let claim = DiskClaim::Pool { id: "pool-a".to_owned(), size: Bytes::new(extents * EXTENT) };
    let disk = Disk {
        name: "nvme0n1".to_owned(),
        transport: "nvme".to_owned(),
        model: String::new(),
        serial: String::new(),
        size: Bytes::new(1 << 40),
        rotational: false,
        bdf: None,
        node: None,
        claim,
    };
    Inventory { disks: vec![disk], ..Inventory::default() }
}

fn nothing() -> Inventory {
    Inventory::default()
}

#[test]
fn a_lease_whose_bundle_is_read_is_taken_back_with_all_it_held_and_all_that_was_found() {
    let mut found = bundled("a", holding(&[2, 3]));
    found.slice = Some(Holding { memory: Bytes::new(128 << 20), ..holding(&[3, 4]) });
    found.resources = vec![
        volume("data", &[(0, 2)]),
        Resource::Device { kind: "vf".to_owned(), id: "0000:c1:00.2".to_owned() },
    ];
    let ledger = rebuild(&one("a", found), &nothing(), b"", now());
    let [entry] = ledger.entries.as_slice() else { panic!("{ledger:?}") };
    assert!(entry.releasing && entry.clean.is_empty());
    assert_eq!(entry.holding.cpus, [2, 3, 4].into());
    assert_eq!(entry.holding.memory, Bytes::new(128 << 20));
    assert_eq!((entry.holding.volumes.len(), entry.holding.devices.len()), (1, 1));
    assert_eq!(ledger.quarantine, []);
}

#[test]
fn a_lease_that_only_its_control_group_tells_of_is_taken_back_too() {
    let slice = Some(holding(&[6, 7]));
    let found = one("b", Found { slice, ..Found::default() });
    let ledger = rebuild(&found, &nothing(), b"", now());
    assert_eq!(ledger.entries[0].holding, holding(&[6, 7]));
    assert!(ledger.entries[0].releasing);
}

#[test]
fn what_a_holding_has_otherwise_stands_in_quarantine() {
    let pages = |pages| vec![NodePages { node: 0, pages }];
    let huge = |page_size, n| Resource::Hugepages { page_size, pages: pages(n) };
    let (small, large) = (huge(PageSize::TwoMiB, 4), huge(PageSize::OneGiB, 1));
    let other = volume("data", &[(5, 1)]);
    let disk = Resource::Disk { id: "S1".to_owned() };
    let mut found = bundled("a", holding(&[1]));
    found.resources =
        vec![volume("data", &[(0, 1)]), other.clone(), small, large.clone(), disk.clone()];
    let ledger = rebuild(&one("a", found), &nothing(), b"", now());
    let kept: Vec<_> = ledger.quarantine.iter().map(|q| q.resource.clone()).collect();
    assert_eq!(kept, [other, large, disk]);
    assert_eq!(ledger.quarantine[0].lease, id("a"));
    assert_eq!(ledger.quarantine[0].reason, LOST);
}

#[test]
fn what_of_a_pool_is_in_nobodys_volume_stands_in_quarantine() {
    let mut found = bundled("a", holding(&[1]));
    found.resources = vec![volume("data", &[(2, 2), (6, 1)])];
    let ledger = rebuild(&one("a", found), &disk(8), b"", now());
    let [kept] = ledger.quarantine.as_slice() else { panic!("{ledger:?}") };
    assert_eq!(kept.lease.to_string(), "bulkhead/lost");
    assert_eq!(kept.resource, volume("lost", &[(0, 2), (4, 2), (7, 1)]));
}

#[test]
fn what_a_damaged_ledger_still_names_stands_in_quarantine() {
    let mut held = holding(&[1]);
    held.devices.push(HeldDevice { kind: "vf".to_owned(), id: "0000:c1:00.3".to_owned() });
    let mut old =
        Ledger { entries: vec![bundled("gone", held).entry.unwrap()], ..Ledger::default() };
    old.quarantined(Quarantined {
        resource: volume("data", &[(0, 1)]),
        lease: id("before"),
        reason: "marker found".to_owned(),
        since: now(),
    });
    let file = serde_json::json!({ "format": "x", "version": 2, "sha256": "", "body": old });
    let ledger = rebuild(&BTreeMap::new(), &nothing(), file.to_string().as_bytes(), now());
    assert_eq!(ledger.entries, []);
    let kept: Vec<_> = ledger.quarantine.iter().map(|q| q.resource.to_string()).collect();
    assert_eq!(
        kept,
        ["vf 0000:c1:00.3", "memory 64Mi of nodes 0", "cpus 1", "volume data, 4Mi of pool pool-a",]
    );
}

#[test]
fn a_host_that_cannot_be_looked_at_as_a_whole_is_not_repaired() {
    let unreadable = BTreeMap::from([(id("a"), "read cgroup.procs: I/O error".to_owned())]);
    let observed = Observed { unreadable, ..Observed::default() };
    let error = look(&observed, Vec::new()).unwrap_err();
    let said = "lease acme/a cannot be looked at: read cgroup.procs: I/O error";
    assert_eq!(error.to_string(), said);
}

#[test]
fn a_look_puts_leases_and_resources_together() {
    let limits = Limits::of(&bundled("a", holding(&[2])).entry.unwrap());
    let slice = ObservedSlice { limits, hugepages: None, active: true, populated: true };
    let lease = ObservedLease { slice: Some(slice), ..ObservedLease::default() };
    let observed = Observed { leases: [(id("a"), lease)].into(), ..Observed::default() };
    let resources = vec![(id("a"), volume("x", &[(0, 1)])), (id("b"), volume("y", &[(1, 1)]))];
    let found = look(&observed, resources).unwrap();
    assert_eq!(found[&id("a")].slice.as_ref().unwrap().cpus, [2].into());
    assert_eq!(found[&id("a")].resources.len(), 1);
    assert_eq!(found[&id("b")].slice, None);
}

#[test]
fn a_damaged_ledger_is_kept_under_a_name_of_its_own_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.json");
    for (round, text) in [(1, "first"), (2, "second")] {
        fs::write(&path, text).unwrap();
        let kept = keep(&path).unwrap();
        assert_eq!(kept, dir.path().join(format!("ledger.json.damaged-{round}")));
        ledger::store(&path, &Ledger::default()).unwrap();
        assert_eq!(fs::read_to_string(kept).unwrap(), text);
    }
    assert_eq!(ledger::load(&path).unwrap(), Ledger::default());
    assert!(keep(&dir.path().join("none.json")).is_err());
}

fn resource() -> impl Strategy<Value = Resource> {
    let cpus = prop::collection::btree_set(0_u32..16, 1..4);
    prop_oneof![
        cpus.prop_map(|cpus| Resource::Cpu { cpus }),
        (0_u32..2, 1_u64..64).prop_map(|(node, mib)| Resource::Memory {
            nodes: [node].into(),
            bytes: Bytes::new(mib << 20)
        }),
        (0..2_usize, 1_u64..9).prop_map(|(size, pages)| Resource::Hugepages {
            page_size: PageSize::ALL[size],
            pages: vec![NodePages { node: 0, pages }],
        }),
        ("[ab]", 0_u64..12, 1_u64..4).prop_map(|(name, at, of)| volume(&name, &[(at, of)])),
        (0_u8..4).prop_map(|n| Resource::Device { kind: "vf".to_owned(), id: n.to_string() }),
        (0_u8..2).prop_map(|n| Resource::Disk { id: n.to_string() }),
    ]
}

fn found() -> impl Strategy<Value = BTreeMap<LeaseId, Found>> {
    let slice = prop::option::of(prop::collection::vec(0_u32..16, 1..4).prop_map(|c| holding(&c)));
    let recorded = prop::option::of(prop::collection::vec(0_u32..16, 1..4));
    let lease = (slice, recorded, prop::collection::vec(resource(), 0..6));
    prop::collection::btree_map("[a-d]", lease, 0..4).prop_map(|leases| {
        let found = |(name, (slice, recorded, resources)): (String, (_, Option<Vec<u32>>, _))| {
            let entry = recorded.and_then(|cpus| bundled(&name, holding(&cpus)).entry);
            (id(&name), Found { entry, slice, resources })
        };
        leases.into_iter().map(found).collect()
    })
}

/// Whether a resource cannot be given out: judged without `rebuild`'s own helpers.
fn is_kept(ledger: &Ledger, resource: &Resource) -> bool {
    let quarantined = ledger.quarantine.iter().any(|kept| kept.resource == *resource);
    let held = ledger.entries.iter().any(|entry| match resource {
        Resource::Cpu { cpus } => cpus.is_subset(&entry.holding.cpus),
        Resource::Memory { nodes, bytes } => {
            nodes.is_subset(&entry.holding.memory_nodes) && *bytes <= entry.holding.memory
        }
        Resource::Instance
        | Resource::Hugepages { .. }
        | Resource::Cache { .. }
        | Resource::Volume { .. }
        | Resource::Gpu(_)
        | Resource::Device { .. }
        | Resource::Disk { .. } => entry.holding.resources().contains(resource),
    });
    quarantined || held
}

proptest! {
    #[test]
    fn nothing_that_was_found_is_free_afterwards(found in found(), size in 0_u64..16) {
        let ledger = rebuild(&found, &disk(size), b"", now());
        prop_assert!(ledger.entries.iter().all(|entry| entry.releasing && entry.clean.is_empty()));
        for (id, lease) in &found {
            prop_assert!(ledger.entry(id).is_some(), "{} was found and is not taken back", id);
            for resource in &lease.resources {
                prop_assert!(is_kept(&ledger, resource), "{} is free", resource);
            }
            let cpus = lease.slice.iter().chain(lease.entry.iter().map(|e| &e.holding));
            for cpu in cpus.flat_map(|holding| &holding.cpus) {
                prop_assert!(ledger.entries.iter().any(|e| e.holding.cpus.contains(cpu)));
            }
        }
        // Every extent of the pool is somebody's or in quarantine.
        let entries = ledger.entries.iter().flat_map(|entry| entry.holding.resources());
        let all = entries.chain(ledger.quarantine.iter().map(|kept| kept.resource.clone()));
        let extents = |resource| {
            let Resource::Volume { extents, .. } = resource else { return Vec::new() };
            extents
        };
        let taken: Vec<Extent> = all.flat_map(extents).collect();
        for at in 0..size {
            let here = Extent { start: at * EXTENT, length: EXTENT };
            prop_assert!(taken.iter().any(|extent| extent.meets(here)), "extent {} is free", at);
        }
    }

    #[test]
    fn a_ledger_made_twice_of_the_same_is_the_same(found in found()) {
        let once = rebuild(&found, &disk(8), b"", now());
        prop_assert_eq!(&rebuild(&found, &disk(8), b"", now()), &once);
        let bytes = serde_json::to_vec(&once).unwrap();
        prop_assert_eq!(serde_json::from_slice::<Ledger>(&bytes).unwrap(), once);
    }

    #[test]
    fn any_bytes_of_a_damaged_ledger_are_read_as_far_as_they_go(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = salvaged(&bytes);
        let wrapped = [&br#"{"body":{"entries":["#[..], &bytes, b"]}}"].concat();
        let _ = salvaged(&wrapped);
    }
}
