//! Certificate requests: what is left of one is its key.

use rcgen::SubjectPublicKeyInfo;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ECDSA_WITH_SHA256,
};
use x509_parser::prelude::FromDer as _;

use crate::identity::KeyDigest;

/// The longest request that is read; one of a P-256 key has some 250 bytes.
const MAX_DER: usize = 8192;

/// Why a certificate request is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Longer than any honest one.
    #[error("{0} bytes, at most {MAX_DER} are taken")]
    TooLong(usize),
    /// Not PKCS#10 in DER, or followed by other bytes.
    #[error("not a PKCS#10 request in DER")]
    Form,
    /// A key other than on P-256.
    #[error("key is not on curve P-256")]
    Key,
    /// A signature other than ECDSA with SHA-256.
    #[error("signature is not ECDSA with SHA-256")]
    Algorithm,
    /// Signed by another key: the sender does not hold the key it wants certified.
    #[error("signature does not match the key")]
    Signature,
}

/// The key of a request whose signature proves that its sender holds it.
///
/// Subject and attributes are not looked at: names come from the identity, see
/// [`super::authority`].
///
/// # Errors
/// The first thing wrong with it.
pub fn key_of(der: &[u8]) -> Result<SubjectPublicKeyInfo, CsrError> {
    checked(der, |spki| SubjectPublicKeyInfo::from_der(spki).map_err(|_| CsrError::Key))
}

/// Which key a request is about, as [`key_of`] checks it.
///
/// # Errors
/// The first thing wrong with it.
pub fn digest_of(der: &[u8]) -> Result<KeyDigest, CsrError> {
    checked(der, |spki| Ok(KeyDigest::of(spki)))
}

fn checked<T>(der: &[u8], take: impl FnOnce(&[u8]) -> Result<T, CsrError>) -> Result<T, CsrError> {
    if der.len() > MAX_DER {
        return Err(CsrError::TooLong(der.len()));
    }
    let (rest, csr) = X509CertificationRequest::from_der(der).map_err(|_| CsrError::Form)?;
    if !rest.is_empty() {
        return Err(CsrError::Form);
    }
    let key = &csr.certification_request_info.subject_pki;
    let curve = key.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
    let uncompressed =
        matches!(key.subject_public_key.data.as_ref(), [4, point @ ..] if point.len() == 64);
    if key.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY
        || curve != Some(OID_EC_P256)
        || !uncompressed
    {
        return Err(CsrError::Key);
    }
    if csr.signature_algorithm.algorithm != OID_SIG_ECDSA_WITH_SHA256 {
        return Err(CsrError::Algorithm);
    }
    csr.verify_signature().map_err(|_| CsrError::Signature)?;
    take(key.raw)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, PublicKeyData as _};

    use super::*;

    fn request(algorithm: &'static rcgen::SignatureAlgorithm) -> (KeyPair, Vec<u8>) {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let params = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
        let der = params.serialize_request(&key).unwrap().der().to_vec();
        (key, der)
    }

    #[test]
    fn the_key_of_an_honest_request_is_taken() {
        let (key, der) = request(&rcgen::PKCS_ECDSA_P256_SHA256);
        assert_eq!(key_of(&der).unwrap().der_bytes(), key.public_key_raw());
    }

    #[test]
    fn other_curves_and_algorithms_are_refused() {
        let (_, der) = request(&rcgen::PKCS_ECDSA_P384_SHA384);
        assert_eq!(key_of(&der).err(), Some(CsrError::Key));
        let (_, der) = request(&rcgen::PKCS_ED25519);
        assert_eq!(key_of(&der).err(), Some(CsrError::Key));
    }

    #[test]
    fn bytes_behind_the_request_are_refused() {
        let (_, mut der) = request(&rcgen::PKCS_ECDSA_P256_SHA256);
        der.push(0);
        assert_eq!(key_of(&der).err(), Some(CsrError::Form));
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(key_of(&bytes).is_err());
        }

        /// The frame around what is signed has bits that a lenient reader passes over.
        #[test]
        fn one_bit_flipped_gives_no_other_key(at in 0_usize..2000, bit in 0_u8..8) {
            let (key, mut der) = request(&rcgen::PKCS_ECDSA_P256_SHA256);
            let at = at % der.len();
            der[at] ^= 1 << bit;
            if let Ok(taken) = key_of(&der) {
                prop_assert_eq!(taken.der_bytes(), key.public_key_raw());
            }
        }
    }
}
