//! The fleet's keys and what they sign: certificates (CA, P-256) and host specs (ed25519).
//!
//! | file in the signer's folder | what |
//! |---|---|
//! | `ca.key` | CA key, PKCS#8 PEM, 0600 |
//! | `ca.pem` | CA certificate |
//! | `spec.pk8` | spec key, PKCS#8 DER, 0600 |
//! | `reserved-names.json` | server names that only the registry may have |
//! | `generations/` | see [`super::ledger`] |

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::time::SystemTime;

use bulkhead_api::id::{HostId, SiteName};
use bulkhead_api::spec::{self, HostSpec, SignedSpec, SpecKey, SpecKeys};
use bulkhead_api::time::Timestamp;
use jiff::SignedDuration;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use super::csr;
use super::ledger::{Ledger, Signed, Verdict, judge};
use super::protocol::Refusal;
use crate::files::{self, FileError};
use crate::identity::Identity;

/// The CA's certificate outlives the machines of a fleet.
const CA_LIFE: SignedDuration = SignedDuration::from_hours(24 * 365 * 20);
/// Allowance for clocks that are behind.
const BACKDATE: SignedDuration = SignedDuration::from_mins(10);
/// A spec may not be made to last longer: hosts forget no key before.
const MAX_SPEC_LIFE: SignedDuration = SignedDuration::from_hours(24 * 31);
/// Names of one server.
const MAX_NAMES: usize = 16;

/// Why the keys could not be made or loaded.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file of the folder.
    #[error(transparent)]
    File(#[from] FileError),
    /// The CA could not be made.
    #[error("make the certificate authority")]
    MakeCa(#[source] rcgen::Error),
    /// The system gives no randomness.
    #[error("system randomness is not available")]
    Random,
}

/// How long a certificate for an identity lasts.
#[must_use]
pub fn life_of(identity: &Identity) -> SignedDuration {
    match identity {
        Identity::Registry => SignedDuration::from_hours(24 * 365),
        Identity::Site(_) => SignedDuration::from_hours(24 * 7),
        Identity::Host { .. } => SignedDuration::from_hours(24),
    }
}

/// The loaded keys.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
    spec_key: Ed25519KeyPair,
    reserved: Vec<String>,
    ledger: Ledger,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("reserved", &self.reserved).finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes what is missing of the keys in a folder; what is there stays.
    ///
    /// `reserved` are server names that no site may have.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn found(folder: &Path, reserved: &[String], now: Timestamp) -> Result<(), AuthorityError> {
        files::make_dir(folder, 0o700)?;
        files::make_dir(&folder.join("generations"), 0o700)?;
        let (key_path, cert_path) = (folder.join("ca.key"), folder.join("ca.pem"));
        // The certificate is written last: without it the key has signed nothing and is made anew.
        if !cert_path.exists() {
            let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
                .map_err(AuthorityError::MakeCa)?;
            let cert = ca_certificate(&key, now)?;
            files::replace(&key_path, key.serialize_pem().as_bytes(), 0o600)?;
            files::replace(&cert_path, cert.pem().as_bytes(), 0o644)?;
        }
        let spec_path = folder.join("spec.pk8");
        if !spec_path.exists() {
            let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
                .map_err(|_| AuthorityError::Random)?;
            files::replace(&spec_path, key.as_ref(), 0o600)?;
        }
        let reserved_path = folder.join("reserved-names.json");
        if !reserved_path.exists() {
            let text =
                serde_json::to_vec(reserved).map_err(|e| FileError::content(&reserved_path, e))?;
            files::replace(&reserved_path, &text, 0o600)?;
        }
        Ok(())
    }

    /// Loads the keys of a founded folder.
    ///
    /// # Errors
    /// [`AuthorityError::File`] names the file that is missing or damaged.
    pub fn load(folder: &Path) -> Result<Self, AuthorityError> {
        let key_path = folder.join("ca.key");
        let key = KeyPair::from_pem(&files::read_text(&key_path)?)
            .map_err(|e| FileError::content(&key_path, e))?;
        let ca_path = folder.join("ca.pem");
        let ca_pem = files::read_text(&ca_path)?;
        let issuer =
            Issuer::from_ca_cert_pem(&ca_pem, key).map_err(|e| FileError::content(&ca_path, e))?;
        let spec_path = folder.join("spec.pk8");
        let spec_key = Ed25519KeyPair::from_pkcs8(&files::read(&spec_path)?)
            .map_err(|e| FileError::content(&spec_path, e))?;
        let reserved_path = folder.join("reserved-names.json");
        let reserved = serde_json::from_slice(&files::read(&reserved_path)?)
            .map_err(|e| FileError::content(&reserved_path, e))?;
        let ledger = Ledger::new(&folder.join("generations"));
        Ok(Self { issuer, ca_pem, spec_key, reserved, ledger })
    }

    /// The CA's certificate, PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The public half of the spec key, as hosts trust it.
    #[must_use]
    pub fn spec_keys(&self) -> SpecKeys {
        SpecKeys { keys: vec![SpecKey::new(self.spec_key.public_key().as_ref())] }
    }

    /// Signs a host spec, once its generation is written down.
    ///
    /// # Errors
    /// [`Refusal::OldGeneration`], [`Refusal::Spec`], [`Refusal::Internal`].
    pub fn sign_spec(&self, wanted: &HostSpec) -> Result<SignedSpec, Refusal> {
        check_spec(wanted)?;
        let internal = |what: &str| Refusal::Internal { message: what.to_owned() };
        let signed = spec::sign(wanted, &self.spec_key).map_err(|_| internal("write the spec"))?;
        let next = Signed {
            generation: wanted.generation,
            body_sha256: hex(digest(&SHA256, &signed.body.0).as_ref()),
        };
        let fault = |error: FileError| {
            tracing::error!(error = %bulkhead_api::chain::Chain(&error), host = %wanted.host, "ledger of generations");
            internal("the ledger of generations cannot be read or written")
        };
        let last = self.ledger.last(&wanted.host).map_err(fault)?;
        match judge(last.as_ref(), &next) {
            Verdict::Same => Ok(signed),
            Verdict::New => {
                self.ledger.record(&wanted.host, &next).map_err(fault)?;
                Ok(signed)
            }
            Verdict::Old { last } => Err(Refusal::OldGeneration {
                host: wanted.host.clone(),
                offered: wanted.generation,
                last,
            }),
        }
    }

    /// Issues a certificate: names from `identity` and `names`, the key from the request.
    ///
    /// # Errors
    /// [`Refusal::Csr`], [`Refusal::Name`], [`Refusal::Internal`].
    pub fn issue(
        &self,
        identity: &Identity,
        csr_der: &[u8],
        names: &[String],
        now: Timestamp,
    ) -> Result<String, Refusal> {
        let key = csr::key_of(csr_der).map_err(|e| Refusal::Csr { message: e.to_string() })?;
        let names = self.check_names(identity, names)?;
        let internal = |message: String| Refusal::Internal { message };
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name(identity));
        let uri = identity.to_string().try_into().map_err(|_| internal("identity".to_owned()))?;
        params.subject_alt_names = [vec![SanType::URI(uri)], names].concat();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match identity {
            Identity::Registry => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Identity::Site(_) => {
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
            }
            Identity::Host { .. } => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial().map_err(|e| internal(e.to_string()))?);
        (params.not_before, params.not_after) = (
            SystemTime::from(now - BACKDATE).into(),
            SystemTime::from(now + life_of(identity)).into(),
        );
        let cert = params.signed_by(&key, &self.issuer).map_err(|e| internal(e.to_string()))?;
        Ok(cert.pem())
    }

    fn check_names(&self, who: &Identity, names: &[String]) -> Result<Vec<SanType>, Refusal> {
        let refuse = |name: &str, message: &str| {
            Err(Refusal::Name { name: name.to_owned(), message: message.to_owned() })
        };
        let mut checked = Vec::new();
        for name in names {
            if matches!(who, Identity::Host { .. }) {
                return refuse(name, "a host serves nobody and has no server names");
            }
            if checked.len() == MAX_NAMES {
                return refuse(name, "more than 16 names");
            }
            let address = name.parse::<IpAddr>().ok().map(|address| address.to_canonical());
            // An address can be written in many ways; they are all one.
            let same = |reserved: &String| match (address, reserved.parse::<IpAddr>()) {
                (Some(address), Ok(reserved)) => address == reserved.to_canonical(),
                _ => reserved.eq_ignore_ascii_case(name),
            };
            let taken = self.reserved.iter().any(same);
            if taken && *who != Identity::Registry {
                return refuse(name, "it is the registry's own");
            }
            if let Some(address) = address {
                checked.push(SanType::IpAddress(address));
                continue;
            }
            match name.as_str().try_into() {
                Ok(text) if is_dns_name(name) => checked.push(SanType::DnsName(text)),
                _ => return refuse(name, "expected an IP address or a DNS name in lower case"),
            }
        }
        Ok(checked)
    }
}

fn common_name(identity: &Identity) -> String {
    match identity {
        Identity::Registry => "bulkhead registry".to_owned(),
        Identity::Site(site) => SiteName::to_string(site),
        Identity::Host { host, .. } => HostId::to_string(host),
    }
}

/// Labels of RFC 1123, 2.1, in lower case; no wildcard.
fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

fn check_spec(spec: &HostSpec) -> Result<(), Refusal> {
    let refuse = |message: &str| Err(Refusal::Spec { message: message.to_owned() });
    if spec.api_version != bulkhead_api::document::API_VERSION {
        return refuse("apiVersion is not bulkhead.io/v1");
    }
    if spec.generation == 0 {
        return refuse("generation 0: the first one is 1");
    }
    if spec.expiry <= spec.not_before {
        return refuse("it expires before it begins");
    }
    if spec.expiry.duration_since(spec.not_before) > MAX_SPEC_LIFE {
        return refuse("it lasts longer than 31 days");
    }
    Ok(())
}

fn ca_certificate(key: &KeyPair, now: Timestamp) -> Result<Certificate, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "bulkhead fleet CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(serial()?);
    params.not_before = SystemTime::from(now - BACKDATE).into();
    params.not_after = SystemTime::from(now + CA_LIFE).into();
    params.self_signed(key).map_err(AuthorityError::MakeCa)
}

/// 127 random bits (RFC 5280, 4.1.2.2: positive, at most 20 octets).
fn serial() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| AuthorityError::Random)?;
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// Lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
#[path = "authority_tests.rs"]
mod tests;
