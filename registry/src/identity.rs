//! Who a certificate speaks for: one SPIFFE URI in its subject alternative name.
//!
//! ```text
//!  spiffe://bulkhead/registry
//!  spiffe://bulkhead/site/<site>
//!  spiffe://bulkhead/site/<site>/host/<host>
//! ```

use std::fmt;
use std::str::FromStr;

use bulkhead_api::id::{HostId, SiteName};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

const TRUST_DOMAIN: &str = "spiffe://bulkhead/";

/// Whom a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Identity {
    /// The registry's own server.
    Registry,
    /// A site's provisioner and relay.
    Site(SiteName),
    /// A host's supervisor.
    Host {
        /// Where it is.
        site: SiteName,
        /// Which host.
        host: HostId,
    },
}

/// Why a text or a certificate names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not one of the three forms.
    #[error("identity {0:?}: expected spiffe://bulkhead/site/SITE or …/site/SITE/host/HOST")]
    Form(String),
    /// Not a certificate.
    #[error("certificate is not X.509 in DER")]
    Certificate,
    /// None or several.
    #[error("certificate carries {0} SPIFFE identities, expected one")]
    Count(usize),
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry => write!(f, "{TRUST_DOMAIN}registry"),
            Self::Site(site) => write!(f, "{TRUST_DOMAIN}site/{site}"),
            Self::Host { site, host } => write!(f, "{TRUST_DOMAIN}site/{site}/host/{host}"),
        }
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let bad = || IdentityError::Form(text.to_owned());
        let path = text.strip_prefix(TRUST_DOMAIN).ok_or_else(bad)?;
        let parts: Vec<&str> = path.split('/').collect();
        match *parts.as_slice() {
            ["registry"] => Ok(Self::Registry),
            ["site", site] => Ok(Self::Site(site.parse().map_err(|_| bad())?)),
            ["site", site, "host", host] => Ok(Self::Host {
                site: site.parse().map_err(|_| bad())?,
                host: host.parse().map_err(|_| bad())?,
            }),
            _ => Err(bad()),
        }
    }
}

impl TryFrom<String> for Identity {
    type Error = IdentityError;

    fn try_from(text: String) -> Result<Self, IdentityError> {
        text.parse()
    }
}

impl From<Identity> for String {
    fn from(identity: Identity) -> String {
        identity.to_string()
    }
}

/// SHA-256 of a public key's `SubjectPublicKeyInfo`: which key a certificate or a request is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyDigest([u8; 32]);

impl KeyDigest {
    /// Of the DER form of `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn of(spki_der: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, spki_der).as_ref());
        Self(bytes)
    }

    /// The 32 octets.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "KeyDigest({a:02x}{b:02x}{c:02x}{d:02x}…)")
    }
}

/// What a verified client certificate says of its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Who.
    pub identity: Identity,
    /// With which key.
    pub key: KeyDigest,
}

impl Peer {
    /// Reads a certificate whose chain and validity the TLS layer has checked.
    ///
    /// # Errors
    /// It names nobody, or more than one.
    pub fn from_certificate(der: &[u8]) -> Result<Self, IdentityError> {
        let (_, cert) = X509Certificate::from_der(der).map_err(|_| IdentityError::Certificate)?;
        let san = cert.subject_alternative_name().map_err(|_| IdentityError::Certificate)?;
        let uris: Vec<&str> = san
            .iter()
            .flat_map(|san| &san.value.general_names)
            .filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None })
            .collect();
        let [uri] = *uris.as_slice() else { return Err(IdentityError::Count(uris.len())) };
        Ok(Self { identity: uri.parse()?, key: KeyDigest::of(cert.public_key().raw) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_reads_back() {
        for text in [
            "spiffe://bulkhead/registry",
            "spiffe://bulkhead/site/sjc-01",
            "spiffe://bulkhead/site/sjc-01/host/sjc-01-123456",
        ] {
            assert_eq!(text.parse::<Identity>().unwrap().to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(Peer::from_certificate(&bytes).is_err());
        }

        #[test]
        fn any_text_is_refused_or_reads_back(text in "(spiffe://bulkhead/)?[a-zA-Z/0-9-]{0,40}") {
            if let Ok(identity) = text.parse::<Identity>() {
                prop_assert_eq!(identity.to_string(), text);
            }
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for text in [
            "",
            "spiffe://other/site/a",
            "spiffe://bulkhead/site/",
            "spiffe://bulkhead/site/A",
            "spiffe://bulkhead/site/a/host/b/c",
            "spiffe://bulkhead/site/a/guest/b",
        ] {
            assert!(text.parse::<Identity>().is_err(), "{text}");
        }
    }
}
