//! Records that a host signs with the key of its certificate, each naming the one before.
//!
//! ```text
//!  Record ──JSON──► body ──P-256 over PREFIX ‖ SHA-256(chain) ‖ body──► Signed { body, chain, signature }
//!     ▲ previous = SHA-256(body of the one before)                        │
//!     └────────────────────────────────────────────────────────────────── ┘ verify needs the fleet CA alone
//! ```
//!
//! The certificate travels along. It is short-lived and records are kept: it must have been valid at the
//! record's own time.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::time::Duration;

use ring::digest::{SHA256, digest};
use ring::rand::SecureRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, UnixTime};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::id::HostId;
use crate::spec::Base64;
use crate::time::Timestamp;

/// How the identity in a host's certificate begins; site and host follow.
const TRUST_DOMAIN: &str = "spiffe://bulkhead/site/";

/// What a host signs.
pub trait Record: Serialize + DeserializeOwned {
    /// Keeps the signature from being one of anything else.
    const PREFIX: &'static [u8];
    /// What it is called.
    const NOUN: &'static str;

    /// Whose it is.
    fn host(&self) -> &HostId;

    /// When it was made, by the host's clock.
    fn time(&self) -> Timestamp;

    /// Which boot of the host it is of, and its number.
    fn place(&self) -> Place;

    /// Digest of the one before.
    fn previous(&self) -> Option<&str>;

    /// What must hold in a record by itself, besides its signature.
    ///
    /// # Errors
    /// What does not.
    fn check(&self) -> Result<(), Refusal> {
        Ok(())
    }

    /// How it comes after another one of the same host.
    fn after(&self, last: &Self) -> After;
}

/// Where a record is in its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Counts the host's boots up.
    pub boot: u64,
    /// Counts records up.
    pub sequence: u64,
}

/// How one record comes after another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum After {
    /// It is the next one and must name the other.
    Next,
    /// A chain begins with it.
    Anew,
    /// It cannot be there; what was expected instead.
    Misplaced(String),
}

/// A record with its signature, as it travels and is kept.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, bound = "")]
pub struct Signed<R> {
    /// JSON of the record, base64.
    pub body: Base64,
    /// The host's certificate chain, leaf first, PEM.
    pub chain: String,
    /// ECDSA with P-256 and SHA-256, ASN.1 DER, base64.
    pub signature: Base64,
    #[serde(skip)]
    record: PhantomData<R>,
}

// Not derived: that would ask the same of the record itself, of which there is none here.
impl<R> Clone for Signed<R> {
    fn clone(&self) -> Self {
        Self::new(self.body.clone(), self.chain.clone(), self.signature.clone())
    }
}

impl<R> PartialEq for Signed<R> {
    fn eq(&self, other: &Self) -> bool {
        let parts = |signed: &Self| {
            (signed.body.0.clone(), signed.chain.clone(), signed.signature.0.clone())
        };
        parts(self) == parts(other)
    }
}

impl<R> Eq for Signed<R> {}

/// Why a record cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// It cannot be written.
    #[error("write the record as JSON")]
    Json(#[source] serde_json::Error),
    /// The host's key is none.
    #[error("the host's key is not a PKCS#8 key in PEM: {0}")]
    Pem(String),
    /// The host's key cannot sign.
    #[error("sign with the host's key: {0}")]
    Sign(String),
}

/// Why a record is not believed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a certificate in PEM.
    #[error("{which} is not in PEM: {why}")]
    Pem {
        /// Whose.
        which: String,
        /// What is wrong.
        why: String,
    },
    /// The certificate does not lead to the fleet CA, or was not valid at the record's time.
    #[error("certificate of the {record} is not one of this fleet's CA at {time}: {why}")]
    Untrusted {
        /// What it is.
        record: &'static str,
        /// The record's time.
        time: Timestamp,
        /// What is wrong.
        why: String,
    },
    /// The certificate is for somebody else.
    #[error("{record} of host {host} is signed with the certificate of {signer}")]
    OtherHost {
        /// What it is.
        record: &'static str,
        /// The host in the record.
        host: HostId,
        /// Whom the certificate is for.
        signer: String,
    },
    /// The bytes are not what the key signed.
    #[error("signature of the {record} does not match its body and certificate")]
    Signature {
        /// What it is.
        record: &'static str,
    },
    /// Not a record of a version known here.
    #[error("body of the {record}: {why}")]
    Body {
        /// What it is.
        record: &'static str,
        /// What is wrong.
        why: String,
    },
    /// It contradicts itself.
    #[error("{record} {sequence} contradicts itself: {why}")]
    Contradiction {
        /// What it is.
        record: &'static str,
        /// Its number.
        sequence: u64,
        /// What does.
        why: String,
    },
    /// Of another host than the one before.
    #[error("{record} {sequence} is of host {host}, the one before of {before}")]
    MixedHosts {
        /// What it is.
        record: &'static str,
        /// Its number.
        sequence: u64,
        /// Its host.
        host: HostId,
        /// The host before.
        before: HostId,
    },
    /// Not the next one.
    #[error(
        "{record} {} of boot {} follows {record} {} of boot {}: expected {expected}",
        .place.sequence, .place.boot, .before.sequence, .before.boot
    )]
    Order {
        /// What it is.
        record: &'static str,
        /// Where it is.
        place: Place,
        /// Where the one before is.
        before: Place,
        /// What could follow.
        expected: String,
    },
    /// Names another one before it.
    #[error("{record} {sequence} names {named} as the one before, which has {found}")]
    Link {
        /// What it is.
        record: &'static str,
        /// Its number.
        sequence: u64,
        /// What it names.
        named: String,
        /// What the one before has.
        found: String,
    },
    /// Made before the one before it.
    #[error("{record} {sequence} is of {time}, the one before of {before}")]
    Time {
        /// What it is.
        record: &'static str,
        /// Its number.
        sequence: u64,
        /// Its time.
        time: Timestamp,
        /// Time of the one before.
        before: Timestamp,
    },
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn message<R: Record>(chain: &str, body: &[u8]) -> Vec<u8> {
    [R::PREFIX, digest(&SHA256, chain.as_bytes()).as_ref(), body].concat()
}

/// Signs a record with the key of a host's certificate. ECDSA takes its nonce from `random`; nothing that
/// is stated depends on it.
///
/// # Errors
/// [`MakeError`].
pub fn sign<R: Record>(
    record: &R,
    key_pem: &str,
    chain_pem: &str,
    random: &dyn SecureRandom,
) -> Result<Signed<R>, MakeError> {
    let body = serde_json::to_vec(record).map_err(MakeError::Json)?;
    let der = PrivatePkcs8KeyDer::from_pem_slice(key_pem.as_bytes());
    let der = der.map_err(|error| MakeError::Pem(error.to_string()))?;
    let key =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der.secret_pkcs8_der(), random);
    let key = key.map_err(|error| MakeError::Sign(error.to_string()))?;
    let signature = key.sign(random, &message::<R>(chain_pem, &body));
    let signature = signature.map_err(|error| MakeError::Sign(error.to_string()))?;
    let signature = Base64(signature.as_ref().to_vec());
    Ok(Signed::new(Base64(body), chain_pem.to_owned(), signature))
}

impl<R> Signed<R> {
    /// Its parts together, unchecked.
    #[must_use]
    pub const fn new(body: Base64, chain: String, signature: Base64) -> Self {
        Self { body, chain, signature, record: PhantomData }
    }

    /// SHA-256 of the body, hexadecimal: what the next record names.
    #[must_use]
    pub fn digest(&self) -> String {
        sha256(&self.body.0)
    }
}

impl<R: Record> Signed<R> {
    /// The body, unchecked: for those who were told by the host itself.
    ///
    /// # Errors
    /// [`Refusal::Body`].
    pub fn unchecked(&self) -> Result<R, Refusal> {
        let body = |e: serde_json::Error| Refusal::Body { record: R::NOUN, why: e.to_string() };
        serde_json::from_slice(&self.body.0).map_err(body)
    }
}

fn certificates(pem: &str, which: &str) -> Result<Vec<CertificateDer<'static>>, Refusal> {
    let bad = |why: String| Refusal::Pem { which: which.to_owned(), why };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let found = found.map_err(|error| bad(error.to_string()))?;
    if found.is_empty() { Err(bad("no certificate".to_owned())) } else { Ok(found) }
}

/// Checks one record against the fleet CA: certificate at the record's time, signature, host, and what must
/// hold in it.
///
/// # Errors
/// The first reason against it.
pub fn verify<R: Record>(signed: &Signed<R>, ca_pem: &str) -> Result<R, Refusal> {
    let record = signed.unchecked()?;
    let time = record.time();
    let untrusted = |why: String| Refusal::Untrusted { record: R::NOUN, time, why };
    let anchors = certificates(ca_pem, "the fleet CA")?;
    let anchors: Result<Vec<_>, _> = anchors.iter().map(anchor_from_trusted_cert).collect();
    let not_a_ca =
        |e: webpki::Error| Refusal::Pem { which: "the fleet CA".to_owned(), why: e.to_string() };
    let anchors = anchors.map_err(not_a_ca)?;
    let chain = certificates(&signed.chain, &format!("the certificate of the {}", R::NOUN))?;
    let Some((leaf, between)) = chain.split_first() else {
        return Err(untrusted("no certificate".to_owned()));
    };
    let leaf = EndEntityCert::try_from(leaf).map_err(|error| untrusted(error.to_string()))?;
    let seconds = u64::try_from(time.as_second()).unwrap_or_default();
    leaf.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        &anchors,
        between,
        UnixTime::since_unix_epoch(Duration::from_secs(seconds)),
        KeyUsage::client_auth(),
        None,
        None,
    )
    .map_err(|error| untrusted(error.to_string()))?;
    leaf.verify_signature(
        webpki::ring::ECDSA_P256_SHA256,
        &message::<R>(&signed.chain, &signed.body.0),
        &signed.signature.0,
    )
    .map_err(|_| Refusal::Signature { record: R::NOUN })?;
    let names: Vec<&str> = leaf.valid_uri_names().collect();
    let named = names.iter().find_map(|name| host_of(name));
    if named != Some(record.host().as_str()) {
        let signer = named.map_or_else(|| Cow::from("nobody that is a host"), Cow::from);
        let (host, signer) = (record.host().clone(), signer.into_owned());
        return Err(Refusal::OtherHost { record: R::NOUN, host, signer });
    }
    record.check()?;
    Ok(record)
}

/// `spiffe://bulkhead/site/SITE/host/HOST`
fn host_of(name: &str) -> Option<&str> {
    let (_, host) = name.strip_prefix(TRUST_DOMAIN)?.split_once("/host/")?;
    Some(host)
}

/// Checks records that follow each other, oldest first: each by itself, and each with the one before.
///
/// # Errors
/// Place of the first that is refused, from 0, with the reason.
pub fn verify_chain<R: Record>(
    signed: &[Signed<R>],
    ca_pem: &str,
) -> Result<Vec<R>, (usize, Refusal)> {
    let mut records: Vec<R> = Vec::new();
    let mut before: Option<&Signed<R>> = None;
    for (at, this) in signed.iter().enumerate() {
        let record = verify(this, ca_pem).map_err(|refusal| (at, refusal))?;
        if let (Some(before), Some(last)) = (before, records.last()) {
            follows(before, last, &record).map_err(|refusal| (at, refusal))?;
        }
        before = Some(this);
        records.push(record);
    }
    Ok(records)
}

fn follows<R: Record>(before: &Signed<R>, last: &R, this: &R) -> Result<(), Refusal> {
    let (record, place) = (R::NOUN, this.place());
    let sequence = place.sequence;
    if this.host() != last.host() {
        let (host, before) = (this.host().clone(), last.host().clone());
        return Err(Refusal::MixedHosts { record, sequence, host, before });
    }
    match this.after(last) {
        After::Anew => {}
        After::Misplaced(expected) => {
            return Err(Refusal::Order { record, place, before: last.place(), expected });
        }
        After::Next => {
            let found = before.digest();
            if this.previous() != Some(found.as_str()) {
                let named = this.previous().unwrap_or("nothing").to_owned();
                return Err(Refusal::Link { record, sequence, named, found });
            }
        }
    }
    if this.time() < last.time() {
        return Err(Refusal::Time { record, sequence, time: this.time(), before: last.time() });
    }
    Ok(())
}
