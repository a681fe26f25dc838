//! Founds a fleet: keys, trust anchors, admin token, configuration.
//!
//! ```text
//!  D/signer/       keys of the signer, 0700
//!  D/trust/        ca.pem, spec-keys.json: public, go into the image
//!  D/tls/          the registry's own certificate and key
//!  D/admin-token   0600
//!  D/registry.json configuration of `serve`
//! ```
//!
//! Each part is made where it is missing and left where it is there: running it again after a crash
//! completes the fleet, and on a whole one it renews at most the registry's certificate.

use std::path::{Path, PathBuf};

use bulkhead_api::time::Timestamp;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::config::RegistryConfig;
use crate::files::{self, FileError};
use crate::identity::Identity;
use crate::signer::authority::{Authority, AuthorityError, life_of};
use crate::signer::protocol::Refusal;
use crate::token::{self, NoRandomness, Purpose, TokenHash};

/// Names under which every registry is reached from its own machine.
const OWN_NAMES: [&str; 2] = ["127.0.0.1", "localhost"];

/// Why a fleet could not be founded.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// A file or folder.
    #[error(transparent)]
    File(#[from] FileError),
    /// The signer's keys.
    #[error("keys of the signer")]
    Keys(#[from] AuthorityError),
    /// The admin token.
    #[error("admin token")]
    Token(#[from] NoRandomness),
    /// The registry's own key.
    #[error("key of the registry's server")]
    ServerKey(#[source] rcgen::Error),
    /// The registry's own certificate.
    #[error("certificate of the registry's server")]
    ServerCertificate(#[source] Refusal),
}

/// What was made; a whole fleet gives an empty list.
pub type Made = Vec<PathBuf>;

/// Founds the fleet in a folder, or completes it.
///
/// `names` are further DNS names and addresses of the registry; no site may be certified for them.
///
/// # Errors
/// [`InitError`].
pub fn init(folder: &Path, names: &[String], now: Timestamp) -> Result<Made, InitError> {
    let mut made = Made::new();
    files::make_dir(folder, 0o755)?;
    let keys = folder.join("signer");
    if !keys.join("reserved-names.json").exists() {
        made.push(keys.clone());
    }
    Authority::found(&keys, names, now)?;
    let authority = Authority::load(&keys)?;

    let trust = folder.join("trust");
    files::make_dir(&trust, 0o755)?;
    let spec_keys = serde_json::to_vec_pretty(&authority.spec_keys())
        .map_err(|e| FileError::content(&trust.join("spec-keys.json"), e))?;
    write_missing(&trust.join("ca.pem"), authority.ca_pem().as_bytes(), 0o644, &mut made)?;
    write_missing(&trust.join("spec-keys.json"), &spec_keys, 0o644, &mut made)?;

    let token_path = folder.join("admin-token");
    write_missing(&token_path, token::fresh()?.as_bytes(), 0o600, &mut made)?;
    server_certificate(folder, &authority, names, now, &mut made)?;

    let token = files::read_text(&token_path)?;
    let config = RegistryConfig {
        listen: ([127, 0, 0, 1], 7443).into(),
        database: "registry.db".into(),
        signer: "signer.sock".into(),
        trust: "trust".into(),
        tls_certificate: "tls/registry.pem".into(),
        tls_key: "tls/registry.key".into(),
        admin_token_hash: TokenHash::of(Purpose::Bearer, token.trim()).to_hex(),
    };
    let config_path = folder.join("registry.json");
    let text =
        serde_json::to_vec_pretty(&config).map_err(|e| FileError::content(&config_path, e))?;
    write_missing(&config_path, &text, 0o600, &mut made)?;
    Ok(made)
}

fn write_missing(path: &Path, bytes: &[u8], mode: u32, made: &mut Made) -> Result<(), FileError> {
    if path.exists() {
        return Ok(());
    }
    files::replace(path, bytes, mode)?;
    made.push(path.to_owned());
    Ok(())
}

/// Issues the registry's certificate where there is none or half of its life is over.
fn server_certificate(
    folder: &Path,
    authority: &Authority,
    names: &[String],
    now: Timestamp,
    made: &mut Made,
) -> Result<(), InitError> {
    let tls = folder.join("tls");
    files::make_dir(&tls, 0o700)?;
    let (cert_path, key_path) = (tls.join("registry.pem"), tls.join("registry.key"));
    let fresh = cert_path.exists() && key_path.exists() && {
        let left = not_after(&cert_path)? - now.as_second();
        left > life_of(&Identity::Registry).as_secs() / 2
    };
    if fresh {
        return Ok(());
    }
    let key =
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(InitError::ServerKey)?;
    let csr = CertificateParams::default().serialize_request(&key).map_err(InitError::ServerKey)?;
    let names: Vec<String> =
        OWN_NAMES.iter().map(|&n| n.to_owned()).chain(names.iter().cloned()).collect();
    let cert = authority
        .issue(&Identity::Registry, csr.der(), &names, now)
        .map_err(InitError::ServerCertificate)?;
    // The certificate last: without it both are made anew.
    if cert_path.exists() {
        std::fs::remove_file(&cert_path)
            .map_err(|source| FileError::Write { path: cert_path.clone(), source })?;
    }
    files::replace(&key_path, key.serialize_pem().as_bytes(), 0o600)?;
    files::replace(&cert_path, cert.as_bytes(), 0o644)?;
    made.push(cert_path);
    Ok(())
}

fn not_after(path: &Path) -> Result<i64, FileError> {
    let pem = files::read(path)?;
    let der = CertificateDer::from_pem_slice(&pem).map_err(|e| FileError::content(path, e))?;
    let (_, cert) = X509Certificate::from_der(&der).map_err(|e| FileError::content(path, e))?;
    Ok(cert.validity().not_after.timestamp())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_fleet_is_founded_once_and_its_secrets_are_private() {
        let folder = tempfile::tempdir().unwrap();
        let now = at("2026-11-22T12:00:00Z");
        let made = init(folder.path(), &["10.0.0.9".to_owned()], now).unwrap();
        assert!(made.contains(&folder.path().join("registry.json")), "{made:?}");
        for secret in
            ["signer/ca.key", "signer/spec.pk8", "admin-token", "tls/registry.key", "registry.json"]
        {
            let mode = std::fs::metadata(folder.path().join(secret)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{secret}");
        }
        let mode = std::fs::metadata(folder.path().join("signer")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);

        let config = RegistryConfig::load(&folder.path().join("registry.json")).unwrap();
        let token = files::read_text(&folder.path().join("admin-token")).unwrap();
        let hash = TokenHash::from_hex(&config.admin_token_hash).unwrap();
        assert!(hash.matches(Purpose::Bearer, &token));
        assert_eq!(config.spec_keys().unwrap().keys.len(), 1);

        assert_eq!(init(folder.path(), &[], now).unwrap(), Made::new());
        assert_eq!(files::read_text(&folder.path().join("admin-token")).unwrap(), token);
    }

    #[test]
    fn the_certificate_of_the_server_is_renewed_after_half_a_year() {
        let folder = tempfile::tempdir().unwrap();
        init(folder.path(), &[], at("2026-01-01T00:00:00Z")).unwrap();
        let made = init(folder.path(), &[], at("2026-08-01T00:00:00Z")).unwrap();
        assert_eq!(made, [folder.path().join("tls/registry.pem")]);
    }
}
