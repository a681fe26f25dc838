//! Isolation statements: what `prove` found on observed facts, signed by the host, each naming the one before.
//!
//! ```text
//!  Statement ──JSON──► body ──P-256 over PREFIX ‖ SHA-256(chain) ‖ body──► SignedStatement { body, chain, signature }
//!     ▲ previous = SHA-256(body of the one before)                            │
//!     └────────────────────────────────────────────────────────────────────── ┘ verify needs the fleet CA alone
//! ```
//!
//! The key is that of the host's certificate, which travels along. A certificate is short-lived and statements
//! are kept: it must have been valid at the statement's own time.

use std::borrow::Cow;

use ring::digest::{SHA256, digest};
use ring::rand::SecureRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, UnixTime};
use serde::{Deserialize, Serialize};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::id::HostId;
use crate::isolation::{Facts, Finding};
use crate::spec::Base64;
use crate::time::Timestamp;

/// Keeps a statement's signature from being one of anything else.
const PREFIX: &[u8] = b"bulkhead isolation statement v1\0";

/// How the identity in a host's certificate begins; site and host follow.
const TRUST_DOMAIN: &str = "spiffe://bulkhead/site/";

/// What a host states of its isolation at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Statement {
    /// `bulkhead.io/v1`.
    pub api_version: String,
    /// Which host.
    pub host: HostId,
    /// Counts the host's boots up.
    pub boot: u64,
    /// Counts statements within a boot up, from 1.
    pub sequence: u64,
    /// When the facts were observed, by the host's clock.
    pub time: Timestamp,
    /// Generation of the spec in force; 0 = none.
    pub generation: u64,
    /// SHA-256 of the JSON of `facts`, hexadecimal.
    pub facts_digest: String,
    /// What was observed.
    pub facts: Facts,
    /// What follows from it.
    pub finding: Finding,
    /// [`SignedStatement::digest`] of the statement before; absent for the first of a boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
}

/// A statement with its signature, as it travels and is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SignedStatement {
    /// JSON of [`Statement`], base64.
    pub body: Base64,
    /// The host's certificate chain, leaf first, PEM.
    pub chain: String,
    /// ECDSA with P-256 and SHA-256, ASN.1 DER, base64.
    pub signature: Base64,
}

/// Why a statement cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// The facts cannot be written.
    #[error("write the statement as JSON")]
    Json(#[source] serde_json::Error),
    /// The host's key is none.
    #[error("the host's key is not a PKCS#8 key in PEM: {0}")]
    Pem(String),
    /// The host's key cannot sign.
    #[error("sign with the host's key: {0}")]
    Sign(String),
}

/// Why a statement is not believed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatementRefusal {
    /// Not a certificate in PEM.
    #[error("{which} is not in PEM: {why}")]
    Pem {
        /// Whose.
        which: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The certificate does not lead to the fleet CA, or was not valid at the statement's time.
    #[error("certificate of the statement is not one of this fleet's CA at {time}: {why}")]
    Untrusted {
        /// The statement's time.
        time: Timestamp,
        /// What is wrong.
        why: String,
    },
    /// The certificate is for somebody else.
    #[error("statement of host {host} is signed with the certificate of {signer}")]
    OtherHost {
        /// The host in the statement.
        host: HostId,
        /// Whom the certificate is for.
        signer: String,
    },
    /// The bytes are not what the key signed.
    #[error("signature of the statement does not match its body and certificate")]
    Signature,
    /// Not a statement of a version known here.
    #[error("body of the statement: {0}")]
    Body(String),
    /// The digest is of other facts.
    #[error("digest of the facts is {stated}, the facts in the statement have {found}")]
    Digest {
        /// In the statement.
        stated: String,
        /// Of the facts.
        found: String,
    },
    /// Of another host than the one before.
    #[error("statement {sequence} is of host {host}, the one before of {before}")]
    MixedHosts {
        /// Its number.
        sequence: u64,
        /// Its host.
        host: HostId,
        /// The host before.
        before: HostId,
    },
    /// Not the next one.
    #[error(
        "statement {sequence} of boot {boot} follows statement {before} of boot {boot_before}: \
         expected {}", next(*.boot_before, *.before)
    )]
    Order {
        /// Its boot.
        boot: u64,
        /// Its number.
        sequence: u64,
        /// Boot of the one before.
        boot_before: u64,
        /// Number of the one before.
        before: u64,
    },
    /// Names another one before it.
    #[error("statement {sequence} names {named} as the one before, which has {found}")]
    Link {
        /// Its number.
        sequence: u64,
        /// What it names.
        named: String,
        /// What the one before has.
        found: String,
    },
    /// Made before the one before it.
    #[error("statement {sequence} is of {time}, the one before of {before}")]
    Time {
        /// Its number.
        sequence: u64,
        /// Its time.
        time: Timestamp,
        /// Time of the one before.
        before: Timestamp,
    },
}

fn next(boot: u64, sequence: u64) -> String {
    format!("statement {} of boot {boot}, or the first of a later boot", sequence.saturating_add(1))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

/// SHA-256 of the JSON of facts. Maps and sets are ordered, so that equal facts have equal JSON.
///
/// # Errors
/// The facts cannot be written as JSON.
pub fn facts_digest(facts: &Facts) -> Result<String, serde_json::Error> {
    Ok(sha256(&serde_json::to_vec(facts)?))
}

fn message(chain: &str, body: &[u8]) -> Vec<u8> {
    [PREFIX, digest(&SHA256, chain.as_bytes()).as_ref(), body].concat()
}

/// Signs a statement with the key of a host's certificate. ECDSA takes its nonce from `random`; nothing that
/// is stated depends on it.
///
/// # Errors
/// [`MakeError`].
pub fn sign(
    statement: &Statement,
    key_pem: &str,
    chain_pem: &str,
    random: &dyn SecureRandom,
) -> Result<SignedStatement, MakeError> {
    let body = serde_json::to_vec(statement).map_err(MakeError::Json)?;
    let der = PrivatePkcs8KeyDer::from_pem_slice(key_pem.as_bytes());
    let der = der.map_err(|error| MakeError::Pem(error.to_string()))?;
    let key =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der.secret_pkcs8_der(), random);
    let key = key.map_err(|error| MakeError::Sign(error.to_string()))?;
    let signature = key.sign(random, &message(chain_pem, &body));
    let signature = signature.map_err(|error| MakeError::Sign(error.to_string()))?;
    Ok(SignedStatement {
        body: Base64(body),
        chain: chain_pem.to_owned(),
        signature: Base64(signature.as_ref().to_vec()),
    })
}

impl SignedStatement {
    /// SHA-256 of the body, hexadecimal: what the next statement names.
    #[must_use]
    pub fn digest(&self) -> String {
        sha256(&self.body.0)
    }

    /// The body, unchecked: for those who were told by the host itself.
    ///
    /// # Errors
    /// [`StatementRefusal::Body`].
    pub fn unchecked(&self) -> Result<Statement, StatementRefusal> {
        serde_json::from_slice(&self.body.0).map_err(|e| StatementRefusal::Body(e.to_string()))
    }
}

fn certificates(
    pem: &str,
    which: &'static str,
) -> Result<Vec<CertificateDer<'static>>, StatementRefusal> {
    let bad = |why: String| StatementRefusal::Pem { which, why };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let found = found.map_err(|error| bad(error.to_string()))?;
    if found.is_empty() { Err(bad("no certificate".to_owned())) } else { Ok(found) }
}

/// Checks one statement against the fleet CA: certificate at the statement's time, signature, host, digest.
///
/// # Errors
/// The first reason against it.
pub fn verify(signed: &SignedStatement, ca_pem: &str) -> Result<Statement, StatementRefusal> {
    let statement = signed.unchecked()?;
    let time = statement.time;
    let untrusted = |why: String| StatementRefusal::Untrusted { time, why };
    let anchors = certificates(ca_pem, "the fleet CA")?;
    let anchors: Result<Vec<_>, _> = anchors.iter().map(anchor_from_trusted_cert).collect();
    let anchors =
        anchors.map_err(|e| StatementRefusal::Pem { which: "the fleet CA", why: e.to_string() })?;
    let chain = certificates(&signed.chain, "the certificate of the statement")?;
    let Some((leaf, between)) = chain.split_first() else {
        return Err(untrusted("no certificate".to_owned()));
    };
    let leaf = EndEntityCert::try_from(leaf).map_err(|error| untrusted(error.to_string()))?;
    let seconds = u64::try_from(time.as_second()).unwrap_or_default();
    leaf.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        &anchors,
        between,
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)),
        KeyUsage::client_auth(),
        None,
        None,
    )
    .map_err(|error| untrusted(error.to_string()))?;
    leaf.verify_signature(
        webpki::ring::ECDSA_P256_SHA256,
        &message(&signed.chain, &signed.body.0),
        &signed.signature.0,
    )
    .map_err(|_| StatementRefusal::Signature)?;
    let names: Vec<&str> = leaf.valid_uri_names().collect();
    let named = names.iter().find_map(|name| host_of(name));
    if named != Some(statement.host.as_str()) {
        let signer = named.map_or_else(|| Cow::from("nobody that is a host"), Cow::from);
        let (host, signer) = (statement.host, signer.into_owned());
        return Err(StatementRefusal::OtherHost { host, signer });
    }
    let found = facts_digest(&statement.facts);
    let found = found.map_err(|error| StatementRefusal::Body(error.to_string()))?;
    if found != statement.facts_digest {
        let stated = statement.facts_digest;
        return Err(StatementRefusal::Digest { stated, found });
    }
    Ok(statement)
}

/// `spiffe://bulkhead/site/SITE/host/HOST`
fn host_of(name: &str) -> Option<&str> {
    let (_, host) = name.strip_prefix(TRUST_DOMAIN)?.split_once("/host/")?;
    Some(host)
}

/// Checks statements that follow each other, oldest first: each by itself, and each with the one before.
///
/// # Errors
/// Place of the first that is refused, from 0, with the reason.
pub fn verify_chain(
    signed: &[SignedStatement],
    ca_pem: &str,
) -> Result<Vec<Statement>, (usize, StatementRefusal)> {
    let mut statements: Vec<Statement> = Vec::new();
    let mut before: Option<&SignedStatement> = None;
    for (at, this) in signed.iter().enumerate() {
        let statement = verify(this, ca_pem).map_err(|refusal| (at, refusal))?;
        if let (Some(before), Some(last)) = (before, statements.last()) {
            follows(before, last, &statement).map_err(|refusal| (at, refusal))?;
        }
        before = Some(this);
        statements.push(statement);
    }
    Ok(statements)
}

fn follows(
    before: &SignedStatement,
    last: &Statement,
    this: &Statement,
) -> Result<(), StatementRefusal> {
    let sequence = this.sequence;
    if this.host != last.host {
        let (host, before) = (this.host.clone(), last.host.clone());
        return Err(StatementRefusal::MixedHosts { sequence, host, before });
    }
    let next = this.boot == last.boot && Some(sequence) == last.sequence.checked_add(1);
    let anew = this.boot > last.boot && sequence == 1;
    if !next && !anew {
        let (boot, boot_before, before) = (this.boot, last.boot, last.sequence);
        return Err(StatementRefusal::Order { boot, sequence, boot_before, before });
    }
    let found = before.digest();
    if next && this.previous.as_ref() != Some(&found) {
        let named = this.previous.clone().unwrap_or_else(|| "nothing".to_owned());
        return Err(StatementRefusal::Link { sequence, named, found });
    }
    if this.time < last.time {
        return Err(StatementRefusal::Time { sequence, time: this.time, before: last.time });
    }
    Ok(())
}
