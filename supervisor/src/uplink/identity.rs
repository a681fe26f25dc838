//! The host's key and certificate in `/run/bulkhead/identity/` (0700).
//!
//! ```text
//!  key.pem           P-256, made here, leaves the host never
//!  certificate.pem   leaf first
//!  host.json         written last: an identity without it is not one
//! ```

use std::path::{Path, PathBuf};

use bulkhead_api::id::{HostId, SiteName};
use bulkhead_api::time::Timestamp;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};

use crate::files;

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file system refuses.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file system refuses.
    #[error("write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file holds something else.
    #[error("{path} is damaged: {why}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The certificate is not for this host's key.
    #[error("the certificate given is not for this host's key")]
    OtherKey,
    /// The key could not be made or used.
    #[error("make key and certificate request")]
    Key(#[source] rcgen::Error),
}

/// Whose identity it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Named {
    /// The id given at enrolment.
    pub host: HostId,
    /// The site enrolled at.
    pub site: SiteName,
    /// `address:port` of the site's link.
    pub link: String,
}

/// What mTLS needs.
#[derive(Clone)]
pub struct Identity {
    /// Whose.
    pub named: Named,
    /// PKCS#8 key.
    pub key_pem: String,
    /// Leaf first.
    pub chain_pem: String,
    /// Start of the leaf's validity.
    pub begins: Timestamp,
    /// End of the leaf's validity.
    pub expires: Timestamp,
}

impl Identity {
    /// When half of the leaf's validity is over and a new one is asked for.
    #[must_use]
    pub fn renewal(&self) -> Timestamp {
        let half = self.expires.duration_since(self.begins) / 2;
        self.begins.saturating_add(half).unwrap_or(self.begins)
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("named", &self.named)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

fn read(path: &Path) -> Result<Option<String>, IdentityError> {
    let bytes = files::read_if_there(path)
        .map_err(|source| IdentityError::Read { path: path.to_owned(), source })?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

fn write(path: &Path, text: &str) -> Result<(), IdentityError> {
    files::replace(path, text.as_bytes(), 0o600)
        .map_err(|source| IdentityError::Write { path: path.to_owned(), source })
}

/// The identity kept by an earlier run of the supervisor; `None` where there is none or not all of it.
///
/// # Errors
/// [`IdentityError::Read`], [`IdentityError::Damaged`].
pub fn load(dir: &Path) -> Result<Option<Identity>, IdentityError> {
    let host = dir.join("host.json");
    let (Some(named), Some(key_pem), Some(chain_pem)) =
        (read(&host)?, read(&dir.join("key.pem"))?, read(&dir.join("certificate.pem"))?)
    else {
        return Ok(None);
    };
    let named = serde_json::from_str(&named)
        .map_err(|e| IdentityError::Damaged { path: host, why: e.to_string() })?;
    let leaf = leaf(&chain_pem)
        .map_err(|why| IdentityError::Damaged { path: dir.join("certificate.pem"), why })?;
    let Leaf { begins, expires, .. } = leaf;
    Ok(Some(Identity { named, key_pem, chain_pem, begins, expires }))
}

/// Keeps what the registry answered.
///
/// # Errors
/// [`IdentityError::Write`], [`IdentityError::Damaged`] where the answer is no certificate,
/// [`IdentityError::OtherKey`]; in the last two the files stay as they are.
pub fn store(
    dir: &Path,
    named: Named,
    key_pem: String,
    chain_pem: String,
) -> Result<Identity, IdentityError> {
    let path = dir.join("certificate.pem");
    let leaf =
        leaf(&chain_pem).map_err(|why| IdentityError::Damaged { path: path.clone(), why })?;
    let key = KeyPair::from_pem(&key_pem).map_err(IdentityError::Key)?;
    if key.public_key_raw() != leaf.public_key {
        return Err(IdentityError::OtherKey);
    }
    write(&path, &chain_pem)?;
    let host = dir.join("host.json");
    let text = serde_json::to_string(&named)
        .map_err(|e| IdentityError::Damaged { path: host.clone(), why: e.to_string() })?;
    write(&host, &text)?;
    let Leaf { begins, expires, .. } = leaf;
    Ok(Identity { named, key_pem, chain_pem, begins, expires })
}

/// The host's key, made once, and a certificate request for it. The request names nobody: the registry
/// decides who this is.
///
/// # Errors
/// [`IdentityError::Read`], [`IdentityError::Write`], [`IdentityError::Key`].
pub fn key_and_request(dir: &Path) -> Result<(String, Vec<u8>), IdentityError> {
    files::directory(dir, 0o700)
        .map_err(|source| IdentityError::Write { path: dir.to_owned(), source })?;
    let path = dir.join("key.pem");
    let kept = read(&path)?.and_then(|pem| KeyPair::from_pem(&pem).ok());
    let key = match kept {
        Some(key) => key,
        None => {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(IdentityError::Key)?;
            write(&path, &key.serialize_pem())?;
            key
        }
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key).map_err(IdentityError::Key)?;
    Ok((key.serialize_pem(), request.der().to_vec()))
}

struct Leaf {
    begins: Timestamp,
    expires: Timestamp,
    public_key: Vec<u8>,
}

fn leaf(chain_pem: &str) -> Result<Leaf, String> {
    let leaf = CertificateDer::from_pem_slice(chain_pem.as_bytes()).map_err(|e| e.to_string())?;
    let (_, leaf) = x509_parser::parse_x509_certificate(&leaf).map_err(|e| e.to_string())?;
    let at = |seconds: i64| Timestamp::from_second(seconds).map_err(|e| e.to_string());
    Ok(Leaf {
        begins: at(leaf.validity().not_before.timestamp())?,
        expires: at(leaf.validity().not_after.timestamp())?,
        public_key: leaf.public_key().subject_public_key.data.to_vec(),
    })
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
