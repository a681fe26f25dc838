//! `registry.json`: where the registry listens and where its files are.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bulkhead_api::document::from_json;
use bulkhead_api::spec::SpecKeys;
use serde::{Deserialize, Serialize};

use crate::files::{self, FileError};

/// What `bulkhead-registry serve --config` reads. Relative paths begin at the file's own folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegistryConfig {
    /// Address and port of REST and of the link.
    pub listen: SocketAddr,
    /// The SQLite file; made where it is missing.
    pub database: PathBuf,
    /// Socket of the signer.
    pub signer: PathBuf,
    /// Folder with `ca.pem` and `spec-keys.json`.
    pub trust: PathBuf,
    /// The server's certificate chain, PEM.
    pub tls_certificate: PathBuf,
    /// The server's key, PEM, 0600.
    pub tls_key: PathBuf,
    /// HMAC-SHA256 of the bootstrap admin's token, hexadecimal; see [`crate::token`].
    pub admin_token_hash: String,
}

impl RegistryConfig {
    /// Reads a file and makes its paths absolute or relative to the working directory.
    ///
    /// # Errors
    /// The file, or the field at fault.
    pub fn load(path: &Path) -> Result<Self, FileError> {
        let config: Self =
            from_json(&files::read(path)?).map_err(|e| FileError::content(path, e))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Ok(Self {
            database: folder.join(config.database),
            signer: folder.join(config.signer),
            trust: folder.join(config.trust),
            tls_certificate: folder.join(config.tls_certificate),
            tls_key: folder.join(config.tls_key),
            ..config
        })
    }

    /// The CA's certificate, PEM.
    ///
    /// # Errors
    /// [`FileError::Read`].
    pub fn ca_pem(&self) -> Result<String, FileError> {
        files::read_text(&self.trust.join("ca.pem"))
    }

    /// Public keys that host specs may be signed with.
    ///
    /// # Errors
    /// The file, or the field at fault.
    pub fn spec_keys(&self) -> Result<SpecKeys, FileError> {
        let path = self.trust.join("spec-keys.json");
        from_json(&files::read(&path)?).map_err(|e| FileError::content(&path, e))
    }
}
