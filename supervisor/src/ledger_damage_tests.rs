//! A ledger of every form of entry, cut off at every byte and with every bit turned over: never read as another
//! one, and always told with its file and the way out.

use std::fs;

use bulkhead_api::id::LeaseId;
use bulkhead_api::lease::{
    CacheShare, CpuPartition, HeldDevice, HeldHugepages, HeldVolume, Holding, Hugepages,
    InstanceKind, Isolation, LeaseSpec, RestartPolicy, Volume, Workload,
};
use bulkhead_api::resource::{
    CacheWays, EXTENT, Extent, NodePages, PageSize, Quarantined, Resource,
};
use bulkhead_api::units::Bytes;
use tempfile::TempDir;

use super::*;

fn id(name: &str) -> LeaseId {
    LeaseId { tenant: "acme".parse().unwrap(), name: name.parse().unwrap() }
}

fn extents() -> Vec<Extent> {
    vec![Extent { start: 0, length: 8 * EXTENT }, Extent { start: 16 * EXTENT, length: EXTENT }]
}

/// A lease that has something of every class.
fn entry(name: &str) -> Entry {
    let huge = Hugepages { page_size: PageSize::TwoMiB, amount: Bytes::new(8 << 20) };
    let (name_of_volume, pool) = ("data".parse().unwrap(), "3f0c-11aa".to_owned());
    let holding = Holding {
        cpus: [2, 3].into(),
        memory_nodes: [0].into(),
        memory: Bytes::new(64 << 20),
        isolation: Isolation::L3,
        hugepages: Some(HeldHugepages {
            page_size: PageSize::TwoMiB,
            pages: vec![NodePages { node: 0, pages: 4 }],
        }),
        cache: vec![CacheWays { cache: 0, mask: 15, bandwidth_percent: Some(50) }],
        volumes: vec![HeldVolume { name: name_of_volume, pool, extents: extents() }],
        devices: vec![HeldDevice { kind: "vf".to_owned(), id: "0000:c1:00.2".to_owned() }],
        gpus: Vec::new(),
    };
    let spec = LeaseSpec {
        site: Some("sjc-01".parse().unwrap()),
        instance: InstanceKind::Container,
        cpus: 1,
        memory: Bytes::new(64 << 20),
        isolation: Isolation::L3,
        cpu_partition: CpuPartition::Isolated,
        hugepages: Some(huge),
        cache: Some(CacheShare { ways: 4, bandwidth_percent: Some(50) }),
        gpus: Vec::new(),
        networks: Vec::new(),
        volumes: vec![Volume {
            name: "data".parse().unwrap(),
            size: Bytes::new(36 << 20),
            local: true,
            path: Some("/srv/data".to_owned()),
        }],
        workload: Workload {
            image: "oci://bulkhead.site/demo:1".to_owned(),
            args: vec!["serve".to_owned()],
            restart: RestartPolicy::OnFailure,
        },
        revocable: None,
    };
    Entry::granted(id(name), spec, holding)
}

fn kept() -> (TempDir, PathBuf, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.json");
    let mut leaving = entry("leaving");
    leaving.releasing = true;
    leaving.clean = [Resource::Instance, Resource::Cpu { cpus: [2, 3].into() }].into();
    let mut ledger = Ledger { entries: vec![entry("held"), leaving], quarantine: Vec::new() };
    ledger.quarantined(Quarantined {
        resource: Resource::Volume {
            name: "old".parse().unwrap(),
            pool: "3f0c-11aa".to_owned(),
            extents: extents(),
        },
        lease: id("before"),
        reason: "marker at byte 0: expected none, found one".to_owned(),
        since: "2026-11-24T09:00:00Z".parse().unwrap(),
    });
    store(&path, &ledger).unwrap();
    assert_eq!(load(&path).unwrap(), ledger);
    let bytes = fs::read(&path).unwrap();
    (dir, path, bytes)
}

/// Damaged, with its file and the way out in the message; or said to be of a later version.
fn is_refused(path: &Path, bytes: &[u8], what: &str) {
    let error = decode::<Ledger>(bytes, path).expect_err(what);
    let message = error.to_string();
    assert!(message.contains(path.to_str().unwrap()), "{what}: {message}");
    match error.label() {
        "LedgerDamaged" => {
            assert!(message.contains("`bulkhead host ledger repair`"), "{what}: {message}");
        }
        "LedgerTooNew" => assert!(message.contains("boot the later image"), "{what}: {message}"),
        other => panic!("{what}: {other}"),
    }
}

#[test]
fn a_ledger_cut_off_at_any_byte_is_refused_with_its_file_and_the_way_out() {
    let (_dir, path, bytes) = kept();
    for cut in 0..bytes.len() {
        is_refused(&path, &bytes[..cut], &format!("cut off at byte {cut}"));
    }
}

#[test]
fn any_bit_of_a_ledger_that_is_turned_over_is_seen() {
    let (_dir, path, bytes) = kept();
    let mut changed = bytes.clone();
    for (at, good) in bytes.iter().enumerate() {
        for bit in 0..8 {
            changed[at] = good ^ (1 << bit);
            is_refused(
                &path,
                &changed,
                &format!("bit {bit} of byte {at}, {:?}", char::from(*good)),
            );
        }
        changed[at] = *good;
    }
}

#[test]
fn a_ledger_with_more_behind_it_or_of_zeros_is_refused() {
    let (_dir, path, bytes) = kept();
    for (what, wrong) in [
        ("twice", [bytes.clone(), bytes.clone()].concat()),
        ("a zero behind", [&bytes[..], b"\0"].concat()),
        ("zeros", vec![0; bytes.len()]),
        ("a list", b"[]".to_vec()),
    ] {
        is_refused(&path, &wrong, what);
        fs::write(&path, wrong).unwrap();
        assert_eq!(load(&path).unwrap_err().label(), "LedgerDamaged", "{what}");
    }
}

#[test]
fn a_ledger_of_an_earlier_version_is_read_though_it_has_no_field_that_came_later() {
    let (_dir, path, _) = kept();
    let mut old = serde_json::to_value(entry("held")).unwrap();
    for later in ["releasing", "clean"] {
        old.as_object_mut().unwrap().remove(later);
    }
    let body = serde_json::json!({ "entries": [old] }).to_string();
    let digest = sha256(body.as_bytes());
    let head = format!(r#"{{"format":"bulkhead-ledger","version":1,"sha256":"{digest}""#);
    fs::write(&path, format!(r#"{head},"body":{body}}}"#)).unwrap();
    let ledger = load(&path).unwrap();
    assert_eq!(ledger, Ledger { entries: vec![entry("held")], quarantine: Vec::new() });
}
