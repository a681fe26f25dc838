//! Signed specs: every reason to refuse one, and that a flipped bit anywhere is such a reason.

#![cfg(feature = "sign")]
#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use bulkhead_api::id::HostId;
use bulkhead_api::spec::{
    HostSpec, SignedSpec, SpecKey, SpecKeys, SpecRefusal, accept, sign, verify,
};
use bulkhead_api::time::Timestamp;
use proptest::prelude::*;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn key(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn trusted(key: &Ed25519KeyPair) -> SpecKeys {
    SpecKeys { keys: vec![SpecKey::new(key.public_key().as_ref())] }
}

fn host() -> HostId {
    "lab-000901".parse().unwrap()
}

fn spec() -> HostSpec {
    HostSpec {
        api_version: "bulkhead.io/v1".to_owned(),
        host: host(),
        generation: 5,
        not_before: at(1_000),
        expiry: at(2_000),
        leases: Vec::new(),
        weaker_erase: std::collections::BTreeSet::new(),
        returning: None,
    }
}

fn offered(spec: &HostSpec) -> SignedSpec {
    sign(spec, &key(1)).unwrap()
}

fn refusal(signed: &SignedSpec, ours: &HostId, accepted: u64, now: i64) -> &'static str {
    accept(signed, &trusted(&key(1)), ours, accepted, at(now)).unwrap_err().label()
}

#[test]
fn a_spec_for_this_host_in_its_time_and_above_the_last_generation_is_accepted() {
    let accepted = accept(&offered(&spec()), &trusted(&key(1)), &host(), 4, at(1_000)).unwrap();
    assert_eq!(accepted, spec());
}

#[test]
fn each_fault_has_its_own_reason() {
    let signed = offered(&spec());
    let other: HostId = "lab-000902".parse().unwrap();
    assert_eq!(refusal(&signed, &other, 4, 1_500), "WrongHost");
    assert_eq!(refusal(&signed, &host(), 5, 1_500), "OldGeneration");
    assert_eq!(refusal(&signed, &host(), 9, 1_500), "OldGeneration");
    assert_eq!(refusal(&signed, &host(), 4, 999), "TooEarly");
    assert_eq!(refusal(&signed, &host(), 4, 2_000), "Expired");
    let foreign = sign(&spec(), &key(2)).unwrap();
    assert_eq!(refusal(&foreign, &host(), 4, 1_500), "UnknownKey");
    let claimed = SignedSpec { key_id: signed.key_id.clone(), ..foreign };
    assert_eq!(refusal(&claimed, &host(), 4, 1_500), "BadSignature");
}

#[test]
fn a_well_signed_body_that_is_no_spec_is_refused_by_its_field() {
    let mut json = serde_json::to_value(spec()).unwrap();
    json["leases"] = serde_json::json!([{ "id": { "tenant": "UPPER", "name": "x" } }]);
    let body = serde_json::to_vec(&json).unwrap();
    let message = [b"bulkhead host spec v1\0".as_slice(), &body].concat();
    let mut signed = offered(&spec());
    signed.body.0 = body;
    signed.signature.0 = key(1).sign(&message).as_ref().to_vec();
    let refused = verify(&signed, &trusted(&key(1))).unwrap_err();
    assert!(matches!(refused, SpecRefusal::Body(_)));
    assert!(refused.to_string().contains("tenant name \"UPPER\""), "{refused}");
}

#[test]
fn the_signed_form_is_the_golden_one() {
    let text = serde_json::to_string(&offered(&spec())).unwrap();
    expect_test::expect_file!["golden/signed-spec.json"].assert_eq(&text);
}

proptest! {
    #[test]
    fn one_flipped_bit_in_body_or_signature_is_refused(bit in 0_usize..4096, in_body: bool) {
        let mut signed = offered(&spec());
        let bytes = if in_body { &mut signed.body.0 } else { &mut signed.signature.0 };
        let at = bit % (bytes.len() * 8);
        bytes[at / 8] ^= 1 << (at % 8);
        let refused = verify(&signed, &trusted(&key(1))).unwrap_err();
        prop_assert_eq!(refused.label(), "BadSignature");
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        if let Ok(signed) = serde_json::from_slice::<SignedSpec>(&bytes) {
            prop_assert!(verify(&signed, &trusted(&key(1))).is_err());
        }
    }
}
