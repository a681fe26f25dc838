use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::testing::{Authority, DayRange, host_id};

fn named() -> Named {
    let link = "10.9.0.1:8443".to_owned();
    Named { host: host_id(), site: "s1".parse().unwrap(), link }
}

fn kept(days: DayRange) -> (TempDir, Identity) {
    let dir = tempfile::tempdir().unwrap();
    let (key, request) = key_and_request(dir.path()).unwrap();
    let chain = Authority::new().certify(&request, days);
    let identity = store(dir.path(), named(), key, chain).unwrap();
    (dir, identity)
}

#[test]
fn a_stored_identity_is_found_again_and_its_request_is_for_the_same_key() {
    let (dir, stored) = kept(DayRange::FRESH);
    let found = load(dir.path()).unwrap().unwrap();
    assert_eq!(found.named, stored.named);
    assert_eq!(found.chain_pem, stored.chain_pem);
    assert_eq!((found.begins, found.expires), (stored.begins, stored.expires));
    assert_eq!(key_and_request(dir.path()).unwrap().0, stored.key_pem);
}

#[test]
fn renewal_is_due_in_the_middle_of_the_validity() {
    let (_dir, identity) = kept(DayRange(-10, 20));
    let half = jiff::SignedDuration::from_hours(15 * 24);
    assert_eq!(identity.renewal(), identity.begins + half);
}

#[test]
fn an_identity_without_any_of_its_files_is_none() {
    for file in ["key.pem", "certificate.pem", "host.json"] {
        let (dir, _) = kept(DayRange::FRESH);
        std::fs::remove_file(dir.path().join(file)).unwrap();
        assert!(load(dir.path()).unwrap().is_none(), "{file}");
    }
}

#[test]
fn a_key_does_not_show_in_debug_output() {
    let (_dir, identity) = kept(DayRange::FRESH);
    let shown = format!("{identity:?}");
    assert!(shown.contains("s1-000001") && !shown.contains("KEY"), "{shown}");
}

#[test]
fn any_certificate_file_is_read_or_named_as_damaged() {
    let (dir, _) = kept(DayRange::FRESH);
    proptest!(|(bytes in prop::collection::vec(any::<u8>(), 0..300))| {
        std::fs::write(dir.path().join("certificate.pem"), bytes).unwrap();
        let said = load(dir.path()).unwrap_err().to_string();
        prop_assert!(said.contains("certificate.pem is damaged"), "{}", said);
    });
}
