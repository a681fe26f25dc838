//! The site's own key and certificate, in `{state}/identity/`.
//!
//! ```text
//!  key.pem           P-256, made here, 0600; stays the same over renewals
//!  certificate.pem   leaf first; replaced whole at every renewal
//! ```
//!
//! A certificate that was accepted is in use at once: connections made from then on see it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulkhead_api::id::SiteName;
use bulkhead_api::time::Timestamp;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use tracing::warn;

use super::peer::{Identity, Named};
use crate::store::{StoreError, private_dir, read_if_there, replace};

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key cannot be made or read.
    #[error("{doing} {}", path.display())]
    Key {
        /// What was attempted.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: rcgen::Error,
    },
    /// The certificate is not one for this site and its key.
    #[error("certificate of the site: {0}")]
    Certificate(String),
}

/// A certificate in use.
#[derive(Debug, Clone)]
pub(super) struct Current {
    /// Leaf first, PEM.
    pub(super) chain_pem: String,
    /// Renew from then on.
    pub(super) half_life: Timestamp,
    /// Worthless from then on.
    pub(super) expires: Timestamp,
    certified: Arc<CertifiedKey>,
}

/// Key and certificate.
pub(super) struct Credentials {
    site: SiteName,
    certificate_path: PathBuf,
    key: KeyPair,
    current: watch::Sender<Option<Current>>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("site", &self.site).finish_non_exhaustive()
    }
}

impl Credentials {
    /// What is kept below `state_dir`; the key is made when there is none. A certificate that does not
    /// fit or has expired counts as none: the site joins again.
    pub(super) fn open(
        state_dir: &Path,
        site: &SiteName,
        now: Timestamp,
    ) -> Result<Self, CredentialsError> {
        let dir = state_dir.join("identity");
        private_dir(&dir)?;
        let key = key(&dir.join("key.pem"))?;
        let certificate_path = dir.join("certificate.pem");
        let kept = read_if_there(&certificate_path)?;
        let this =
            Self { site: site.clone(), certificate_path, key, current: watch::Sender::new(None) };
        if let Some(chain) = kept {
            match this.check(&String::from_utf8_lossy(&chain)) {
                Ok(current) if current.expires > now => {
                    drop(this.current.send_replace(Some(current)))
                }
                Ok(current) => {
                    warn!(expired = %current.expires, "certificate of the site expired: it must join again");
                }
                Err(error) => warn!(%error, "kept certificate ignored: the site must join again"),
            }
        }
        Ok(this)
    }

    /// The certificate in use.
    pub(super) fn current(&self) -> Option<Current> {
        self.current.borrow().clone()
    }

    /// Tells when there is a certificate, and when it is replaced.
    pub(super) fn changes(&self) -> watch::Receiver<Option<Current>> {
        self.current.subscribe()
    }

    /// The private key as PEM, for the TLS client.
    pub(super) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// A certificate request. It names nobody: the registry decides who this is.
    pub(super) fn request_der(&self) -> Result<Vec<u8>, CredentialsError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        match params.serialize_request(&self.key) {
            Ok(request) => Ok(request.der().to_vec()),
            Err(source) => {
                let path = self.certificate_path.with_file_name("key.pem");
                Err(CredentialsError::Key {
                    doing: "sign a certificate request with",
                    path,
                    source,
                })
            }
        }
    }

    /// Checks a new certificate, keeps it and uses it from now on.
    pub(super) fn accept(&self, chain_pem: &[u8]) -> Result<Current, CredentialsError> {
        let current = self.check(&String::from_utf8_lossy(chain_pem))?;
        replace(&self.certificate_path, chain_pem)?;
        self.current.send_replace(Some(current.clone()));
        Ok(current)
    }

    /// Uses the certificate no longer: it expired.
    pub(super) fn drop_certificate(&self) {
        self.current.send_replace(None);
    }

    fn check(&self, chain_pem: &str) -> Result<Current, CredentialsError> {
        let bad = |problem: String| CredentialsError::Certificate(problem);
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(chain_pem.as_bytes())
                .collect::<Result<_, _>>()
                .map_err(|error| bad(error.to_string()))?;
        let leaf = chain.first().ok_or_else(|| bad("there is none in the answer".to_owned()))?;
        let named = Named::read(leaf).map_err(|error| bad(error.to_string()))?;
        if named.identity != Identity::Site(self.site.clone()) {
            return Err(bad(format!("it is for {}, this is site {}", named.identity, self.site)));
        }
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let provider = rustls::crypto::ring::default_provider();
        let certified = CertifiedKey::from_der(chain, key, &provider)
            .map_err(|error| bad(error.to_string()))?;
        let (begin, end) = (named.not_before.as_second(), named.not_after.as_second());
        let half_life =
            Timestamp::from_second(begin + (end - begin) / 2).unwrap_or(named.not_after);
        Ok(Current {
            chain_pem: chain_pem.to_owned(),
            half_life,
            expires: named.not_after,
            certified: Arc::new(certified),
        })
    }
}

impl ResolvesServerCert for Credentials {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.borrow().as_ref().map(|current| Arc::clone(&current.certified))
    }
}

fn key(path: &Path) -> Result<KeyPair, CredentialsError> {
    let error = |doing| {
        let path = path.to_owned();
        move |source| CredentialsError::Key { doing, path, source }
    };
    if let Some(pem) = read_if_there(path)? {
        return KeyPair::from_pem(&String::from_utf8_lossy(&pem)).map_err(error("read key"));
    }
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(error("make key"))?;
    replace(path, key.serialize_pem().as_bytes())?;
    Ok(key)
}
