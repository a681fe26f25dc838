//! Receipts and statements as hosts sign them: what is believed, and everything that is not.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]
#![cfg(feature = "sign")]

use std::collections::BTreeSet;

use bulkhead_api::id::LeaseId;
use bulkhead_api::receipt::{Evidence, Receipt, SignedReceipt, sign, verify, verify_chain};
use bulkhead_api::resource::Resource;
use bulkhead_api::signed::{Refusal, Signed};
use bulkhead_api::spec::Base64;
use bulkhead_api::statement::{SignedStatement, Statement, facts_digest};
use bulkhead_api::time::Timestamp;
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType, date_time_ymd,
};
use ring::rand::SystemRandom;

const HOST: &str = "spiffe://bulkhead/site/lab-01/host/lab-01-000001";

struct Fleet {
    ca: CertifiedIssuer<'static, KeyPair>,
    chain: String,
    key: String,
}

impl Fleet {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let (chain, key) = certificate(&ca, HOST, ExtendedKeyUsagePurpose::ClientAuth);
        Self { ca, chain, key }
    }

    fn ca(&self) -> String {
        self.ca.pem()
    }

    fn sign(&self, receipt: &Receipt) -> SignedReceipt {
        sign(receipt, &self.key, &self.chain, &SystemRandom::new()).unwrap()
    }

    /// Receipts 1 to `count`.
    fn chain(&self, count: u64) -> Vec<SignedReceipt> {
        let mut chain: Vec<SignedReceipt> = Vec::new();
        for sequence in 1..=count {
            let previous = chain.last().map(Signed::digest);
            chain.push(self.sign(&Receipt { previous, ..receipt(sequence) }));
        }
        chain
    }
}

/// Valid in the year 2026.
fn certificate(
    ca: &CertifiedIssuer<'static, KeyPair>,
    uri: &str,
    usage: ExtendedKeyUsagePurpose,
) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params.extended_key_usages = vec![usage];
    (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2027, 1, 1));
    (params.signed_by(&key, ca).unwrap().pem(), key.serialize_pem())
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn lease(name: &str) -> LeaseId {
    LeaseId { tenant: "acme".parse().unwrap(), name: name.parse().unwrap() }
}

/// Two receipts a boot, a minute apart.
fn receipt(sequence: u64) -> Receipt {
    let minute = |second: u32| at(&format!("2026-03-01T12:{sequence:02}:{second:02}Z"));
    Receipt {
        api_version: "bulkhead.io/v1".to_owned(),
        host: "lab-01-000001".parse().unwrap(),
        boot: sequence.div_ceil(2),
        sequence,
        lease: lease("a"),
        resource: Resource::Cpu { cpus: BTreeSet::from([2, 3]) },
        methods: vec!["evictPrivateCaches".to_owned()],
        evidence: vec![Evidence { what: "groups".to_owned(), found: "none".to_owned() }],
        weaker: None,
        started: minute(0),
        finished: minute(1),
        previous: (sequence > 1).then(|| "00".to_owned()),
    }
}

fn refusal(fleet: &Fleet, chain: &[SignedReceipt]) -> (usize, String) {
    let (at, refusal) = verify_chain(chain, &fleet.ca()).unwrap_err();
    (at, refusal.to_string())
}

#[test]
fn a_chain_over_boots_is_believed_by_the_fleet_ca_alone() {
    let fleet = Fleet::new();
    let chain = fleet.chain(5);
    let receipts = verify_chain(&chain, &fleet.ca()).unwrap();
    assert_eq!(receipts.iter().map(|r| r.boot).collect::<Vec<_>>(), [1, 1, 2, 2, 3]);
    // Part of a chain, from anywhere on.
    verify_chain(&chain[2..], &fleet.ca()).unwrap();
}

#[test]
fn a_chain_begins_anew_in_a_later_boot_only_and_names_nothing() {
    let fleet = Fleet::new();
    let old = fleet.chain(3);
    let anew = |boot| Receipt {
        boot,
        started: at("2026-03-02T00:00:00Z"),
        finished: at("2026-03-02T00:00:01Z"),
        ..receipt(1)
    };
    let with = |receipt: &Receipt| [old.clone(), vec![fleet.sign(receipt)]].concat();
    assert_eq!(verify_chain(&with(&anew(3)), &fleet.ca()).unwrap().len(), 4);
    let (place, why) = refusal(&fleet, &with(&anew(2)));
    assert_eq!(place, 3);
    assert_eq!(
        why,
        "receipt 1 of boot 2 follows receipt 3 of boot 2: expected receipt 4, or the first of a new \
         chain in a later boot"
    );
    let named = Receipt { previous: Some("00".to_owned()), ..anew(3) };
    let (_, why) = refusal(&fleet, &with(&named));
    assert_eq!(
        why,
        "receipt 1 contradicts itself: the first of a chain names 00 as the one before"
    );
}

#[test]
fn what_is_missing_swapped_or_rewritten_is_refused_with_its_place() {
    let fleet = Fleet::new();
    let chain = fleet.chain(4);
    let gap = [chain[0].clone(), chain[2].clone()];
    let (place, why) = refusal(&fleet, &gap);
    assert!(
        place == 1 && why.starts_with("receipt 3 of boot 2 follows receipt 1 of boot 1"),
        "{why}"
    );
    let swapped = [chain[1].clone(), chain[0].clone()];
    assert_eq!(refusal(&fleet, &swapped).0, 1);
    // The same number, signed again with another content.
    let forged = fleet.sign(&Receipt { lease: lease("b"), ..receipt(1) });
    let (place, why) = refusal(&fleet, &[forged.clone(), chain[1].clone()]);
    assert!(place == 1 && why.contains("as the one before, which has "), "{why}");
    assert!(why.contains(&forged.digest()), "{why}");
    let back = Receipt {
        previous: Some(chain[0].digest()),
        started: at("2026-03-01T00:00:00Z"),
        finished: at("2026-03-01T00:00:00Z"),
        ..receipt(2)
    };
    let (_, why) = refusal(&fleet, &[chain[0].clone(), fleet.sign(&back)]);
    assert_eq!(why, "receipt 2 is of 2026-03-01T00:00:00Z, the one before of 2026-03-01T12:01:01Z");
}

#[test]
fn a_receipt_that_contradicts_itself_is_refused() {
    let fleet = Fleet::new();
    let good = receipt(1);
    verify(&fleet.sign(&good), &fleet.ca()).unwrap();
    for (bad, told) in [
        (Receipt { sequence: 0, ..good.clone() }, "they are counted from 1"),
        (Receipt { sequence: 2, ..good.clone() }, "names none before it"),
        (Receipt { methods: vec![], ..good.clone() }, "it names no method"),
        (Receipt { evidence: vec![], ..good.clone() }, "it names no evidence"),
        (Receipt { started: at("2026-03-01T12:01:02Z"), ..good.clone() }, "after its end at"),
    ] {
        let why = verify(&fleet.sign(&bad), &fleet.ca()).unwrap_err().to_string();
        assert!(why.contains(told), "{why}");
    }
}

#[test]
fn certificates_count_at_the_receipts_own_time_and_for_the_host_itself() {
    let fleet = Fleet::new();
    let late = Receipt {
        started: at("2028-01-01T00:00:00Z"),
        finished: at("2028-01-01T00:00:00Z"),
        ..receipt(1)
    };
    let why = verify(&fleet.sign(&late), &fleet.ca()).unwrap_err();
    assert!(matches!(why, Refusal::Untrusted { .. }), "{why}");
    let why = verify(&fleet.sign(&receipt(1)), &Fleet::new().ca()).unwrap_err().to_string();
    assert!(
        why.starts_with("certificate of the receipt is not one of this fleet's CA at "),
        "{why}"
    );
    let told = |uri: &str, usage| {
        let (chain, key) = certificate(&fleet.ca, uri, usage);
        let signed = sign(&receipt(1), &key, &chain, &SystemRandom::new()).unwrap();
        verify(&signed, &fleet.ca()).unwrap_err().to_string()
    };
    assert_eq!(
        told(&HOST.replace("000001", "000002"), ExtendedKeyUsagePurpose::ClientAuth),
        "receipt of host lab-01-000001 is signed with the certificate of lab-01-000002"
    );
    assert_eq!(
        told("spiffe://bulkhead/site/lab-01", ExtendedKeyUsagePurpose::ClientAuth),
        "receipt of host lab-01-000001 is signed with the certificate of nobody that is a host"
    );
    assert!(told(HOST, ExtendedKeyUsagePurpose::ServerAuth).contains("not one of this fleet's CA"));
}

#[test]
fn neither_kind_of_record_passes_for_the_other() {
    let fleet = Fleet::new();
    let signed = fleet.sign(&receipt(1));
    let as_statement = SignedStatement::new(signed.body, signed.chain, signed.signature);
    let why = bulkhead_api::statement::verify(&as_statement, &fleet.ca()).unwrap_err();
    assert!(matches!(why, Refusal::Body { record: "statement", .. }), "{why}");
    // Even where the bytes are of both kinds, the prefix keeps the signatures apart.
    let facts = bulkhead_api::isolation::Facts::default();
    let statement = Statement {
        api_version: "bulkhead.io/v1".to_owned(),
        host: "lab-01-000001".parse().unwrap(),
        boot: 1,
        sequence: 1,
        time: at("2026-03-01T12:00:00Z"),
        generation: 1,
        facts_digest: facts_digest(&facts).unwrap(),
        facts,
        finding: bulkhead_api::isolation::Finding::default(),
        previous: None,
    };
    let genuine = sign(&statement, &fleet.key, &fleet.chain, &SystemRandom::new()).unwrap();
    bulkhead_api::statement::verify(&genuine, &fleet.ca()).unwrap();
    let receipt = fleet.sign(&receipt(1));
    let mixed = SignedReceipt::new(receipt.body, receipt.chain, genuine.signature);
    assert_eq!(verify(&mixed, &fleet.ca()).unwrap_err(), Refusal::Signature { record: "receipt" });
}

#[test]
fn a_key_or_a_ca_that_is_none_is_told() {
    let fleet = Fleet::new();
    let made = sign(&receipt(1), "no key", &fleet.chain, &SystemRandom::new()).unwrap_err();
    assert!(made.to_string().starts_with("the host's key is not a PKCS#8 key in PEM"), "{made}");
    let signed = fleet.sign(&receipt(1));
    let why = verify(&signed, "no certificate").unwrap_err().to_string();
    assert_eq!(why, "the fleet CA is not in PEM: no certificate");
    let bare = SignedReceipt::new(signed.body, String::new(), signed.signature);
    let why = verify(&bare, &fleet.ca()).unwrap_err().to_string();
    assert_eq!(why, "the certificate of the receipt is not in PEM: no certificate");
}

#[test]
fn a_receipt_travels_as_three_fields_and_no_more() {
    let signed = Fleet::new().sign(&receipt(1));
    let json = serde_json::to_value(&signed).unwrap();
    let fields: BTreeSet<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, BTreeSet::from(["body", "chain", "signature"]));
    assert_eq!(serde_json::from_value::<SignedReceipt>(json.clone()).unwrap(), signed);
    let mut more = json;
    more["note"] = "x".into();
    serde_json::from_value::<SignedReceipt>(more).unwrap_err();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_flipped_bit_of_body_certificate_or_signature_is_refused(
        part in 0_usize..3, at in any::<prop::sample::Index>(), bit in 0_u8..8,
    ) {
        let fleet = Fleet::new();
        let signed = fleet.chain(2).pop().unwrap();
        verify(&signed, &fleet.ca()).unwrap();
        let flip = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            bytes
        };
        let mut bad = signed.clone();
        match part {
            0 => bad.body = Base64(flip(&signed.body.0)),
            1 => bad.chain = String::from_utf8_lossy(&flip(signed.chain.as_bytes())).into_owned(),
            _ => bad.signature = Base64(flip(&signed.signature.0)),
        }
        prop_assert!(verify(&bad, &fleet.ca()).is_err());
    }

    #[test]
    fn any_bytes_are_refused(body in prop::collection::vec(any::<u8>(), 0..200), chain in ".{0,80}") {
        let signed = SignedReceipt::new(Base64(body.clone()), chain, Base64(body));
        prop_assert!(verify(&signed, &Fleet::new().ca()).is_err());
    }
}
