//! A fleet's CA and spec key, and what they sign.

use std::path::Path;
use std::time::{Duration, SystemTime};

use bulkhead_api::spec::{HostSpec, SpecKey, SpecKeys, sign};
use bulkhead_api::time::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls::pki_types::CertificateSigningRequestDer;

/// The fleet's keys.
pub struct Fleet {
    issuer: Issuer<'static, KeyPair>,
    pub ca_pem: String,
    spec_key: Ed25519KeyPair,
}

/// Certificate chain and key, PEM.
#[derive(Clone)]
pub struct Pair {
    pub chain: String,
    pub key: String,
}

/// When a certificate is good: seconds before and after now.
#[derive(Debug, Clone, Copy)]
pub struct Validity(pub u64, pub u64);

impl Fleet {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "test fleet");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let ca_pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::from_ca_cert_pem(&ca_pem, key).unwrap();
        let spec_key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        Self { issuer, ca_pem, spec_key }
    }

    /// Writes `ca.pem` and `spec-keys.json`.
    pub fn write_trust(&self, dir: &Path) {
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(dir.join("ca.pem"), &self.ca_pem).unwrap();
        let keys = SpecKeys { keys: vec![SpecKey::new(self.spec_key.public_key().as_ref())] };
        std::fs::write(dir.join("spec-keys.json"), serde_json::to_vec(&keys).unwrap()).unwrap();
    }

    /// A certificate for the key of a request.
    pub fn issue(&self, csr: &[u8], uri: &str, names: &[String], good: Validity) -> String {
        let csr = CertificateSigningRequestDer::from(csr.to_vec());
        let mut request = CertificateSigningRequestParams::from_der(&csr).unwrap();
        let params = &mut request.params;
        let mut alt = CertificateParams::new(names.to_vec()).unwrap().subject_alt_names;
        alt.push(SanType::URI(uri.try_into().unwrap()));
        params.subject_alt_names = alt;
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let Validity(before, after) = good;
        params.not_before = (SystemTime::now() - Duration::from_secs(before)).into();
        params.not_after = (SystemTime::now() + Duration::from_secs(after)).into();
        request.signed_by(&self.issuer).unwrap().pem()
    }

    /// A new key and a certificate for it.
    pub fn pair(&self, uri: &str, names: &[String]) -> Pair {
        let key = KeyPair::generate().unwrap();
        let csr = csr(&key);
        let chain = self.issue(&csr, uri, names, Validity(60, 3600));
        Pair { chain, key: key.serialize_pem() }
    }

    /// A host of site `lab`.
    pub fn host(&self, host: &str) -> Pair {
        self.pair(&format!("spiffe://bulkhead/site/lab/host/{host}"), &[])
    }

    /// JSON of a signed spec.
    pub fn spec(&self, host: &str, generation: u64) -> Vec<u8> {
        let spec = HostSpec {
            api_version: "bulkhead.io/v1".to_owned(),
            host: host.parse().unwrap(),
            generation,
            not_before: Timestamp::UNIX_EPOCH,
            expiry: Timestamp::MAX,
            leases: Vec::new(),
            weaker_erase: std::collections::BTreeSet::new(),
            returning: None,
        };
        serde_json::to_vec(&sign(&spec, &self.spec_key).unwrap()).unwrap()
    }
}

/// A certificate request that names nobody.
pub fn csr(key: &KeyPair) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serialize_request(key).unwrap().der().to_vec()
}
