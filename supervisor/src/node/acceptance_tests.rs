use bulkhead_api::spec::{Base64, SpecKey};
use proptest::prelude::*;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use super::*;
use crate::testing::{host_id, json, signed, spec, spec_key, spec_keys};

fn accepted(generation: u64) -> Accepted {
    let spec = spec(generation);
    Accepted { signed: signed(&spec), spec }
}

fn clock() -> Clock {
    Clock { system: Timestamp::now(), certified: None }
}

fn hours(hours: i64) -> jiff::SignedDuration {
    jiff::SignedDuration::from_hours(hours)
}

fn label(json: &[u8], before: Option<&Accepted>) -> &'static str {
    match judge(json, &spec_keys(), &host_id(), before, clock()) {
        Ok(Offer::New(_)) => "new",
        Ok(Offer::Same) => "same",
        Err(refusal) => refusal.label(),
    }
}

#[test]
fn every_bad_spec_is_refused_for_its_own_reason() {
    let before = accepted(5);
    let good = spec(6);
    let mut bit_in_body = signed(&good);
    bit_in_body.body.0[10] ^= 1;
    let mut bit_in_signature = signed(&good);
    bit_in_signature.signature.0[10] ^= 1;
    let mut other_key = signed(&good);
    other_key.key_id = "0000000000000000".to_owned();
    let mut unsigned = signed(&good);
    unsigned.signature = Base64(Vec::new());
    let bytes = |signed: &SignedSpec| serde_json::to_vec(signed).unwrap();
    let elsewhere = HostSpec { host: "s1-000002".parse().unwrap(), ..good.clone() };
    let now = Timestamp::now();
    let past = HostSpec { not_before: now - hours(9), expiry: now - hours(1), ..good.clone() };
    let mut unknown_field: serde_json::Value = serde_json::from_slice(&json(&good)).unwrap();
    unknown_field["extra"] = true.into();
    let table = [
        (json(&good), "new"),
        (bytes(&bit_in_body), "BadSignature"),
        (bytes(&bit_in_signature), "BadSignature"),
        (bytes(&unsigned), "BadSignature"),
        (bytes(&other_key), "UnknownKey"),
        (json(&elsewhere), "WrongHost"),
        (json(&spec(4)), "OldGeneration"),
        (json(&HostSpec { expiry: good.expiry + hours(1), ..spec(5) }), "OldGeneration"),
        (json(&past), "Expired"),
        (serde_json::to_vec(&unknown_field).unwrap(), "NotASpec"),
        (b"".to_vec(), "NotASpec"),
    ];
    for (offered, expected) in table {
        let text = String::from_utf8_lossy(&offered).into_owned();
        assert_eq!(label(&offered, Some(&before)), expected, "{text}");
    }
}

#[test]
fn a_well_signed_body_that_is_no_spec_is_refused_by_name() {
    let body = br#"{"apiVersion":"bulkhead.io/v2"}"#.to_vec();
    let message = [b"bulkhead host spec v1\0".as_slice(), &body].concat();
    let signature = Base64(spec_key().sign(&message).as_ref().to_vec());
    let key_id = SpecKey::new(spec_key().public_key().as_ref()).id;
    let signed = SignedSpec { key_id, body: Base64(body), signature };
    assert_eq!(label(&serde_json::to_vec(&signed).unwrap(), None), "BadBody");
}

#[test]
fn a_spec_that_another_trusted_key_signed_is_taken_and_one_of_a_stranger_is_not() {
    let second = Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap();
    let signed = bulkhead_api::spec::sign(&spec(1), &second).unwrap();
    let offered = serde_json::to_vec(&signed).unwrap();
    assert_eq!(label(&offered, None), "UnknownKey");
    let mut both = spec_keys();
    both.keys.push(SpecKey::new(second.public_key().as_ref()));
    assert!(matches!(judge(&offered, &both, &host_id(), None, clock()), Ok(Offer::New(_))));
}

#[test]
fn the_spec_in_force_handed_out_again_is_no_refusal_even_when_it_expired() {
    let now = Timestamp::now();
    let old = HostSpec { not_before: now - hours(9), expiry: now - hours(1), ..spec(5) };
    let before = Accepted { signed: signed(&old), spec: old.clone() };
    assert_eq!(label(&json(&old), Some(&before)), "same");
    assert_eq!(label(&json(&old), None), "Expired");
}

#[test]
fn a_clock_that_is_years_behind_neither_refuses_a_good_spec_nor_takes_an_expired_one() {
    let now = Timestamp::now();
    let behind = Clock { system: now - hours(24 * 365 * 20), certified: Some(now - hours(1)) };
    let judged = |spec: &HostSpec| judge(&json(spec), &spec_keys(), &host_id(), None, behind);
    assert!(matches!(judged(&spec(1)), Ok(Offer::New(_))));
    let expired = HostSpec { not_before: now - hours(9), expiry: now - hours(2), ..spec(1) };
    assert_eq!(judged(&expired).unwrap_err().label(), "Expired");
}

#[test]
fn a_kept_spec_is_restored_whatever_the_time_and_only_for_this_host_and_its_keys() {
    let now = Timestamp::now();
    let old = HostSpec { not_before: now - hours(9), expiry: now - hours(1), ..spec(5) };
    let kept = || Kept { signed: signed(&old) };
    assert_eq!(restore(kept(), &spec_keys(), &host_id()).unwrap().spec, old);
    let other = "s1-000002".parse().unwrap();
    assert_eq!(restore(kept(), &spec_keys(), &other).unwrap_err().label(), "WrongHost");
    let none = SpecKeys { keys: Vec::new() };
    assert_eq!(restore(kept(), &none, &host_id()).unwrap_err().label(), "UnknownKey");
}

proptest! {
    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(judge(&bytes, &spec_keys(), &host_id(), None, clock()).is_err());
    }

    #[test]
    fn one_flipped_bit_anywhere_in_a_spec_is_refused(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let mut offered = json(&spec(1));
        let at = at.index(offered.len());
        offered[at] ^= 1 << bit;
        prop_assert!(judge(&offered, &spec_keys(), &host_id(), None, clock()).is_err());
    }
}
