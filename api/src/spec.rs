//! Host specs and their signatures.
//!
//! ```text
//!  HostSpec ──JSON──► body ──ed25519 over PREFIX ‖ body──► SignedSpec ──link──► verify ──► HostSpec
//! ```
//!
//! The signature covers the bytes as they travel, so that no canonical form is needed. A host accepts a
//! spec for itself alone, in its time, of a generation above the last one ([`accept`]).

use std::collections::BTreeSet;
use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use crate::id::{HostId, LeaseId};
use crate::lease::LeaseSpec;
use crate::resource::ResourceClass;
use crate::time::Timestamp;

/// Keeps a spec's signature from being one of anything else.
const PREFIX: &[u8] = b"bulkhead host spec v1\0";

/// What the registry wants of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostSpec {
    /// `bulkhead.io/v1`.
    pub api_version: String,
    /// The one host it is for.
    pub host: HostId,
    /// Only grows, from 1.
    pub generation: u64,
    /// Not accepted before.
    pub not_before: Timestamp,
    /// Not accepted from then on. What was applied stays applied (law 4).
    pub expiry: Timestamp,
    /// Leases wanted on the host; every other one is taken back.
    pub leases: Vec<WantedLease>,
    /// Classes of which the site accepts a weaker erase where the full one fails; the receipt says so.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub weaker_erase: BTreeSet<ResourceClass>,
    /// The tenant of this `bareMetal` lease had the machine, or may have had it: nothing is granted before every
    /// disk is erased and [`HostStatus::sanitised`](crate::status::HostStatus::sanitised) names the lease. Signed, so
    /// that nobody on the path can take it away. Absent else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returning: Option<LeaseId>,
}

/// A lease in a host spec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WantedLease {
    /// Which lease.
    pub id: LeaseId,
    /// What was asked for.
    pub spec: LeaseSpec,
}

/// A host spec with its signature, as it travels and is cached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SignedSpec {
    /// Which key signed: [`SpecKey::id`].
    pub key_id: String,
    /// JSON of [`HostSpec`], base64.
    pub body: Base64,
    /// Ed25519 (RFC 8032), 64 bytes, base64.
    pub signature: Base64,
}

/// Public keys that specs may be signed with: `spec-keys.json` of the trust directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SpecKeys {
    /// The keys; any of them will do.
    pub keys: Vec<SpecKey>,
}

/// One public key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SpecKey {
    /// First 16 hexadecimal digits of SHA-256 of the key.
    pub id: String,
    /// Ed25519 public key, 32 bytes, base64.
    pub public: Base64,
}

impl SpecKey {
    /// The entry for a public key of 32 bytes.
    #[must_use]
    pub fn new(public: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, public);
        let id = digest.as_ref().iter().take(8).map(|b| format!("{b:02x}")).collect();
        Self { id, public: Base64(public.to_vec()) }
    }
}

/// Bytes that are base64 (RFC 4648, 4) in JSON.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Base64(pub Vec<u8>);

impl TryFrom<String> for Base64 {
    type Error = base64::DecodeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        BASE64_STANDARD.decode(text).map(Self)
    }
}

impl From<Base64> for String {
    fn from(bytes: Base64) -> String {
        BASE64_STANDARD.encode(bytes.0)
    }
}

impl fmt::Debug for Base64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Base64({} bytes)", self.0.len())
    }
}

/// Why a host refuses a spec. What it runs stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum SpecRefusal {
    /// Signed with a key that is not among the trusted ones.
    #[error("spec is signed with key {key_id}, which this host's image does not trust")]
    UnknownKey {
        /// The key named by the spec.
        key_id: String,
    },
    /// The bytes are not what the key signed.
    #[error("signature of the spec by key {key_id} does not match its body")]
    BadSignature {
        /// The key named by the spec.
        key_id: String,
    },
    /// Well signed, yet not a spec of a version known here.
    #[error("body of the spec: {0}")]
    Body(String),
    /// For another host.
    #[error("spec is for host {theirs}, this is {ours}")]
    WrongHost {
        /// The host in the spec.
        theirs: HostId,
        /// This host.
        ours: HostId,
    },
    /// Not above what was accepted before.
    #[error("spec has generation {offered}, generation {accepted} was accepted before")]
    OldGeneration {
        /// In the spec.
        offered: u64,
        /// Accepted before.
        accepted: u64,
    },
    /// Before its time.
    #[error("spec is valid from {not_before}, now is {now}")]
    TooEarly {
        /// Start of its time.
        not_before: Timestamp,
        /// This host's clock.
        now: Timestamp,
    },
    /// After its time.
    #[error("spec expired at {expiry}, now is {now}")]
    Expired {
        /// End of its time.
        expiry: Timestamp,
        /// This host's clock.
        now: Timestamp,
    },
}

impl SpecRefusal {
    /// One word for conditions and metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::UnknownKey { .. } => "UnknownKey",
            Self::BadSignature { .. } => "BadSignature",
            Self::Body(_) => "BadBody",
            Self::WrongHost { .. } => "WrongHost",
            Self::OldGeneration { .. } => "OldGeneration",
            Self::TooEarly { .. } => "TooEarly",
            Self::Expired { .. } => "Expired",
        }
    }
}

fn message(body: &[u8]) -> Vec<u8> {
    [PREFIX, body].concat()
}

/// Signs a spec.
///
/// # Errors
/// The spec cannot be written as JSON.
pub fn sign(spec: &HostSpec, key: &Ed25519KeyPair) -> Result<SignedSpec, serde_json::Error> {
    let body = serde_json::to_vec(spec)?;
    let signature = key.sign(&message(&body)).as_ref().to_vec();
    let key_id = SpecKey::new(key.public_key().as_ref()).id;
    Ok(SignedSpec { key_id, body: Base64(body), signature: Base64(signature) })
}

/// Checks the signature and reads the body. Does not check host, generation or time: see [`accept`].
///
/// # Errors
/// [`SpecRefusal::UnknownKey`], [`SpecRefusal::BadSignature`], [`SpecRefusal::Body`].
pub fn verify(signed: &SignedSpec, trusted: &SpecKeys) -> Result<HostSpec, SpecRefusal> {
    let key_id = || signed.key_id.clone();
    let key = trusted
        .keys
        .iter()
        .find(|key| key.id == signed.key_id)
        .ok_or_else(|| SpecRefusal::UnknownKey { key_id: key_id() })?;
    UnparsedPublicKey::new(&ED25519, &key.public.0)
        .verify(&message(&signed.body.0), &signed.signature.0)
        .map_err(|_| SpecRefusal::BadSignature { key_id: key_id() })?;
    serde_json::from_slice(&signed.body.0).map_err(|e| SpecRefusal::Body(e.to_string()))
}

/// Decides whether a host takes a spec: signature, host, generation, time, in that order.
///
/// `accepted` is the generation accepted last, 0 for none.
///
/// # Errors
/// The first reason against it.
pub fn accept(
    signed: &SignedSpec,
    trusted: &SpecKeys,
    ours: &HostId,
    accepted: u64,
    now: Timestamp,
) -> Result<HostSpec, SpecRefusal> {
    let spec = verify(signed, trusted)?;
    if spec.host != *ours {
        return Err(SpecRefusal::WrongHost { theirs: spec.host, ours: ours.clone() });
    }
    if spec.generation <= accepted {
        return Err(SpecRefusal::OldGeneration { offered: spec.generation, accepted });
    }
    if now < spec.not_before {
        return Err(SpecRefusal::TooEarly { not_before: spec.not_before, now });
    }
    if now >= spec.expiry {
        return Err(SpecRefusal::Expired { expiry: spec.expiry, now });
    }
    Ok(spec)
}
