//! Tests of the authority, apart for length.

use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::*;
use crate::identity::Peer;

fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

fn authority(folder: &Path) -> Authority {
    let reserved = ["fleet.example", "10.8.0.1", "2001:db8::1"].map(str::to_owned);
    Authority::found(folder, &reserved, now()).unwrap();
    Authority::load(folder).unwrap()
}

fn csr() -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
    params.subject_alt_names.push(SanType::URI("spiffe://bulkhead/registry".try_into().unwrap()));
    params.serialize_request(&key).unwrap().der().to_vec()
}

fn host() -> Identity {
    "spiffe://bulkhead/site/sjc-01/host/sjc-01-000001".parse().unwrap()
}

fn spec(generation: u64) -> HostSpec {
    HostSpec {
        api_version: "bulkhead.io/v1".to_owned(),
        host: "sjc-01-000001".parse().unwrap(),
        generation,
        not_before: now(),
        expiry: now() + SignedDuration::from_hours(24),
        leases: Vec::new(),
        weaker_erase: std::collections::BTreeSet::new(),
        returning: None,
    }
}

fn issue(authority: &Authority, who: &Identity, names: &[&str]) -> Result<Vec<u8>, Refusal> {
    let names: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
    let pem = authority.issue(who, &csr(), &names, now())?;
    use rustls_pki_types::pem::PemObject as _;
    Ok(rustls_pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec())
}

#[test]
fn a_certificate_carries_the_identity_asked_for_and_nothing_of_the_request() {
    let folder = tempfile::tempdir().unwrap();
    let der = issue(&authority(folder.path()), &host(), &[]).unwrap();
    assert_eq!(Peer::from_certificate(&der).unwrap().identity, host());
    let (_, cert) = X509Certificate::from_der(&der).unwrap();
    let san = cert.subject_alternative_name().unwrap().unwrap();
    assert_eq!(san.value.general_names.len(), 1);
    assert_eq!(cert.subject().to_string(), "CN=sjc-01-000001");
    let usage = cert.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth);
    let life = cert.validity().not_after.timestamp() - now().as_second();
    assert_eq!(life, 24 * 3600);
}

#[test]
fn a_site_gets_its_names_and_not_those_of_the_registry() {
    let folder = tempfile::tempdir().unwrap();
    let authority = authority(folder.path());
    let site = "spiffe://bulkhead/site/sjc-01".parse().unwrap();
    let der = issue(&authority, &site, &["10.9.0.1", "site.example"]).unwrap();
    let (_, cert) = X509Certificate::from_der(&der).unwrap();
    let san = cert.subject_alternative_name().unwrap().unwrap();
    assert_eq!(san.value.general_names.len(), 3);
    for bad in ["fleet.example", "FLEET.example", "*.example", "a..b", "", "a b", "-a"] {
        let refused = issue(&authority, &site, &[bad]).unwrap_err();
        assert!(matches!(refused, Refusal::Name { .. }), "{bad}: {refused}");
    }
    for bad in ["10.8.0.1", "::ffff:10.8.0.1", "2001:db8:0::1", "2001:DB8::0:1"] {
        let refused = issue(&authority, &site, &[bad]).unwrap_err();
        assert!(refused.to_string().contains("the registry's own"), "{bad}: {refused}");
    }
    let refused = issue(&authority, &host(), &["10.9.0.1"]).unwrap_err();
    assert!(matches!(refused, Refusal::Name { .. }));
}

#[test]
fn a_generation_is_signed_once_and_the_ledger_outlives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let first = authority(folder.path());
    let signed = first.sign_spec(&spec(3)).unwrap();
    assert_eq!(spec::verify(&signed, &first.spec_keys()).unwrap(), spec(3));
    drop(first);

    let again = Authority::load(folder.path()).unwrap();
    assert_eq!(again.sign_spec(&spec(3)).unwrap(), signed);
    let other = HostSpec { expiry: spec(3).expiry + SignedDuration::from_secs(1), ..spec(3) };
    for old in [other, spec(2)] {
        let refused = again.sign_spec(&old).unwrap_err();
        assert!(matches!(refused, Refusal::OldGeneration { last: 3, .. }), "{refused}");
    }
    again.sign_spec(&spec(4)).unwrap();
}

#[test]
fn a_spec_that_no_host_should_take_is_not_signed() {
    let folder = tempfile::tempdir().unwrap();
    let authority = authority(folder.path());
    let long = HostSpec { expiry: now() + SignedDuration::from_hours(24 * 40), ..spec(1) };
    let back = HostSpec { expiry: now(), ..spec(1) };
    for bad in [spec(0), long, back] {
        assert!(matches!(authority.sign_spec(&bad), Err(Refusal::Spec { .. })));
    }
}

#[test]
fn founding_again_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (authority(folder.path()), authority(folder.path()));
    assert_eq!(first.ca_pem(), second.ca_pem());
    assert_eq!(first.spec_keys(), second.spec_keys());
}
