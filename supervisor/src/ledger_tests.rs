use std::fs;

use bulkhead_api::id::LeaseId;
use bulkhead_api::lease::{
    CpuPartition, Holding, InstanceKind, Isolation, LeaseSpec, RestartPolicy, Workload,
};
use bulkhead_api::units::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn entry(name: &str, cpus: &[u32]) -> Entry {
    Entry::granted(
        LeaseId { tenant: "acme".parse().unwrap(), name: name.parse().unwrap() },
        LeaseSpec {
            site: None,
            instance: InstanceKind::Container,
            cpus: 1,
            memory: Bytes::new(64 << 20),
            isolation: Isolation::Core,
            cpu_partition: CpuPartition::Member,
            hugepages: None,
            cache: None,
            gpus: Vec::new(),
            networks: Vec::new(),
            volumes: Vec::new(),
            workload: Workload {
                image: "oci://bulkhead.site/demo:1".to_owned(),
                args: Vec::new(),
                restart: RestartPolicy::Always,
            },
            revocable: None,
        },
        Holding {
            cpus: cpus.iter().copied().collect(),
            memory_nodes: [0].into(),
            memory: Bytes::new(64 << 20),
            ..Holding::default()
        },
    )
}

fn full() -> Ledger {
    Ledger { entries: vec![entry("a", &[1, 2]), entry("b", &[3])], quarantine: Vec::new() }
}

fn kept() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.json");
    store(&path, &full()).unwrap();
    (dir, path)
}

#[test]
fn the_cpu_of_which_ids_are_made_is_kept_until_all_else_is_clean() {
    let mut entry = Entry { releasing: true, ..entry("ids", &[2, 3]) };
    assert_eq!((entry.kept(), entry.id_cpu()), (entry.holding.clone(), Some(2)));
    entry.clean.insert(Resource::Cpu { cpus: [2, 3].into() });
    assert_eq!(entry.kept().cpus, [2].into(), "memory is dirty");
    let strange = Entry { ids_of: Some(7), ..entry.clone() };
    assert_eq!(strange.kept().cpus, [7].into(), "found with the ids of another one");
    entry.clean.extend(entry.holding.resources());
    assert_eq!(entry.kept(), Holding::default());
}

#[test]
fn a_stored_ledger_reads_back_and_an_absent_one_is_empty() {
    let (dir, path) = kept();
    assert_eq!(load(&path).unwrap(), full());
    assert_eq!(load(&dir.path().join("none.json")).unwrap(), Ledger::default());
}

#[test]
fn only_root_reads_the_ledger() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_dir, path) = kept();
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn an_entry_is_kept_once_and_replaced_by_a_newer_one() {
    let mut ledger = full();
    ledger.record(entry("a", &[7]));
    assert_eq!(ledger.entries.len(), 2);
    let id = entry("a", &[]).id;
    assert_eq!(ledger.taken().held[&id].cpus, [7].into());
    ledger.forget(&id);
    ledger.forget(&id);
    assert_eq!(ledger.entry(&id), None);
}

#[test]
fn what_has_a_receipt_is_free_though_its_lease_holds_the_rest() {
    let (mut ledger, held) = (full(), entry("a", &[1, 2]));
    ledger.release(&held.id);
    let cpus = Resource::Cpu { cpus: held.holding.cpus.clone() };
    ledger.cleaned(&held.id, &cpus);
    let left = &ledger.taken().held[&held.id];
    assert_eq!((&left.cpus, left.memory), (&[1].into(), held.holding.memory), "1: of its ids");
    assert!(!ledger.dirty(ledger.entry(&held.id).unwrap()).contains(&cpus));
}

#[test]
fn a_receipt_for_what_an_earlier_lease_of_that_name_held_frees_nothing_of_this_one() {
    let (mut ledger, held) = (full(), entry("a", &[1, 2]));
    let same = Resource::Cpu { cpus: held.holding.cpus.clone() };
    ledger.cleaned(&held.id, &same);
    assert_eq!(ledger.taken().held[&held.id], held.holding, "it is not being taken back");
    ledger.release(&held.id);
    let earlier = Resource::Cpu { cpus: [2, 5].into() };
    ledger.quarantined(Quarantined {
        resource: earlier.clone(),
        lease: held.id.clone(),
        reason: "the marker is still there".to_owned(),
        since: "2026-11-24T10:00:00Z".parse().unwrap(),
    });
    assert_eq!(ledger.taken().quarantined, std::slice::from_ref(&earlier));
    ledger.cleaned(&held.id, &earlier);
    assert_eq!(ledger.quarantine, []);
    assert_eq!(ledger.taken().held[&held.id], held.holding);
}

#[test]
fn a_receipt_for_the_same_amount_that_an_earlier_lease_of_that_name_held_frees_nothing_either() {
    let (mut ledger, held) = (full(), entry("a", &[1, 2]));
    let (nodes, bytes) = (held.holding.memory_nodes.clone(), held.holding.memory);
    let resource = Resource::Memory { nodes, bytes };
    ledger.quarantined(Quarantined {
        resource: resource.clone(),
        lease: held.id.clone(),
        reason: "the marker is still there".to_owned(),
        since: "2026-11-24T10:00:00Z".parse().unwrap(),
    });
    ledger.cleaned(&held.id, &resource);
    assert_eq!(ledger.quarantine, []);
    assert_eq!(ledger.taken().held[&held.id], held.holding);
}

#[test]
fn a_torn_write_leaves_the_old_ledger_and_does_not_stop_the_next_write() {
    let (dir, path) = kept();
    fs::write(dir.path().join("ledger.json.new"), b"{\"format\":\"bulk").unwrap();
    assert_eq!(load(&path).unwrap(), full());
    store(&path, &Ledger::default()).unwrap();
    assert_eq!(load(&path).unwrap(), Ledger::default());
}

#[test]
fn a_ledger_of_a_later_version_is_named_as_such_whatever_its_body() {
    let (_dir, path) = kept();
    fs::write(&path, br#"{"format":"bulkhead-ledger","version":3,"chains":[]}"#).unwrap();
    let error = load(&path).unwrap_err();
    assert_eq!(error.label(), "LedgerTooNew");
    assert!(error.to_string().contains("has version 3, this supervisor reads up to 2"), "{error}");
}

#[test]
fn another_kind_of_record_is_not_a_ledger() {
    let (_dir, path) = kept();
    let text = fs::read_to_string(&path).unwrap().replace("bulkhead-ledger", "bulkhead-spec");
    fs::write(&path, text).unwrap();
    assert_eq!(load(&path).unwrap_err().label(), "LedgerDamaged");
}

#[test]
fn a_directory_in_its_place_is_unreadable_and_unwritable() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(load(dir.path()).unwrap_err().label(), "LedgerUnreadable");
    let below_a_file = dir.path().join("file/ledger.json");
    fs::write(dir.path().join("file"), b"").unwrap();
    assert_eq!(store(&below_a_file, &full()).unwrap_err().label(), "LedgerUnwritable");
}

#[test]
fn a_ledger_cut_off_anywhere_is_damaged_and_never_empty() {
    let (_dir, path) = kept();
    let bytes = fs::read(&path).unwrap();
    for cut in 0..bytes.len() {
        fs::write(&path, &bytes[..cut]).unwrap();
        assert_eq!(load(&path).unwrap_err().label(), "LedgerDamaged", "cut at {cut}");
    }
}

#[test]
fn a_changed_digit_is_seen_wherever_it_is() {
    let (_dir, path) = kept();
    let bytes = fs::read(&path).unwrap();
    for at in (0..bytes.len()).filter(|&at| bytes[at].is_ascii_digit()) {
        let mut changed = bytes.clone();
        changed[at] = if changed[at] == b'9' { b'8' } else { changed[at] + 1 };
        fs::write(&path, &changed).unwrap();
        assert!(load(&path).is_err(), "digit at {at}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode::<Ledger>(&bytes, Path::new("ledger"));
    }
}
