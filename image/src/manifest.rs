//! The signed list of what belongs together: `image.json` and `image.json.sig`.
//!
//! The signature is ed25519 over [`PREFIX`] and the bytes of `image.json` as they are.

use std::path::Path;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bulkhead_api::boot::ImageManifest;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use crate::files::{self, FileError};

/// Keeps a manifest's signature from being one of anything else.
pub const PREFIX: &[u8] = b"bulkhead image manifest v1\0";

/// `image.json.sig`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Signature {
    /// Public key, 32 bytes, base64.
    public: String,
    /// Ed25519 (RFC 8032), 64 bytes, base64.
    signature: String,
}

/// A manifest cannot be written or is not to be trusted.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Signed with another key than the one trusted.
    #[error("image manifest is signed with another key than the trusted one")]
    UnknownKey,
    /// The bytes are not what the key signed.
    #[error("signature of the image manifest does not match its content")]
    BadSignature,
    /// Not JSON of the known form.
    #[error("form of the image manifest or its signature")]
    Form(#[from] serde_json::Error),
    /// Not base64.
    #[error("signature of the image manifest is not base64")]
    Base64(#[from] base64::DecodeError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Writes `image.json` and its signature to `folder`; files of the same content are left alone.
///
/// # Errors
/// A file cannot be written.
pub fn write(
    folder: &Path,
    manifest: &ImageManifest,
    key: &Ed25519KeyPair,
) -> Result<(), ManifestError> {
    let text = serde_json::to_string_pretty(manifest)? + "\n";
    let signature = Signature {
        public: BASE64_STANDARD.encode(key.public_key()),
        signature: BASE64_STANDARD.encode(key.sign(&[PREFIX, text.as_bytes()].concat())),
    };
    let signature = serde_json::to_string_pretty(&signature)? + "\n";
    for (name, content) in [("image.json", text), ("image.json.sig", signature)] {
        let path = folder.join(name);
        if !files::read_text(&path).is_ok_and(|old| old == content) {
            files::write(&path, content)?;
        }
    }
    Ok(())
}

/// Reads `image.json` of `folder` if `trusted` (32 bytes) signed it.
///
/// # Errors
/// [`ManifestError`] by what is wrong.
pub fn verified(folder: &Path, trusted: &[u8]) -> Result<ImageManifest, ManifestError> {
    let text = files::read(&folder.join("image.json"))?;
    let signature: Signature =
        serde_json::from_slice(&files::read(&folder.join("image.json.sig"))?)?;
    if BASE64_STANDARD.decode(&signature.public)? != trusted {
        return Err(ManifestError::UnknownKey);
    }
    let message = [PREFIX, &text].concat();
    UnparsedPublicKey::new(&ED25519, trusted)
        .verify(&message, &BASE64_STANDARD.decode(&signature.signature)?)
        .map_err(|_| ManifestError::BadSignature)?;
    Ok(serde_json::from_slice(&text)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_api::boot::VerityImage;

    fn key() -> Ed25519KeyPair {
        let made = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
        Ed25519KeyPair::from_pkcs8(made.as_ref()).unwrap()
    }

    fn manifest() -> ImageManifest {
        ImageManifest {
            image_version: "1".into(),
            kernel: "6.12".into(),
            root: VerityImage {
                name: "root".into(),
                root_hash: "ab".repeat(32),
                salt: "00".into(),
                data_blocks: 1,
                size: 8192,
                crc32: None,
            },
            extensions: vec![],
            uki_sha256: "cd".repeat(32),
            uki_size: 1,
        }
    }

    #[test]
    fn a_signed_manifest_reads_back_and_a_changed_one_is_refused() {
        let (folder, key) = (tempfile::tempdir().unwrap(), key());
        write(folder.path(), &manifest(), &key).unwrap();
        let trusted = key.public_key().as_ref();
        assert_eq!(verified(folder.path(), trusted).unwrap(), manifest());
        let path = folder.path().join("image.json");
        let changed = files::read_text(&path).unwrap().replace("\"size\": 8192", "\"size\": 8193");
        files::write(&path, changed).unwrap();
        assert!(matches!(verified(folder.path(), trusted), Err(ManifestError::BadSignature)));
    }

    #[test]
    fn a_manifest_signed_by_somebody_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &manifest(), &key()).unwrap();
        let other = key();
        let read = verified(folder.path(), other.public_key().as_ref());
        assert!(matches!(read, Err(ManifestError::UnknownKey)));
    }
}
