//! TLS of the registry's port.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM text.
    #[error("{what} in PEM")]
    Pem {
        /// Which one.
        what: &'static str,
        /// What was wrong.
        source: pem::Error,
    },
    /// Certificate and key do not belong together, or a certificate is none.
    #[error("{what}")]
    Certificate {
        /// What was being set up.
        what: &'static str,
        /// What was wrong.
        source: rustls::Error,
    },
    /// The CA's certificate.
    #[error("verifier of client certificates")]
    Verifier(#[source] VerifierBuilderError),
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|source| TlsError::Pem { what, source })
}

/// Serves with a chain and its key; a client may show a certificate of the CA, and no other.
///
/// # Errors
/// [`TlsError`].
pub fn server(chain_pem: &[u8], key_pem: &[u8], ca_pem: &[u8]) -> Result<ServerConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    for ca in certificates("the CA's certificate", ca_pem)? {
        let what = "take the CA's certificate";
        roots.add(ca).map_err(|source| TlsError::Certificate { what, source })?;
    }
    let provider = Arc::new(ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .map_err(TlsError::Verifier)?;
    let chain = certificates("the registry's certificate", chain_pem)?;
    let key = PrivateKeyDer::from_pem_slice(key_pem)
        .map_err(|source| TlsError::Pem { what: "the registry's key", source })?;
    let what = "take the registry's certificate and key";
    let certificate = |source| TlsError::Certificate { what, source };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(certificate)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(certificate)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
