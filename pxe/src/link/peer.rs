//! Whom a certificate speaks for: one SPIFFE URI in its subject alternative name.
//!
//! ```text
//!  spiffe://bulkhead/site/SITE
//!  spiffe://bulkhead/site/SITE/host/HOST
//! ```

use std::fmt;
use std::str::FromStr;

use bulkhead_api::id::{HostId, SiteName};
use bulkhead_api::time::Timestamp;
use tonic::Status;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::service::Service;
use crate::tickets::KeyDigest;

const SITES: &str = "spiffe://bulkhead/site/";

/// Who a certificate is for, as far as sites care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Identity {
    Site(SiteName),
    Host { site: SiteName, host: HostId },
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Site(site) => write!(f, "{SITES}{site}"),
            Self::Host { site, host } => write!(f, "{SITES}{site}/host/{host}"),
        }
    }
}

/// Why a certificate does not open what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PeerError {
    #[error("no client certificate was shown")]
    NoCertificate,
    #[error("certificate is not X.509 in DER")]
    Form,
    #[error("certificate carries {0} URIs, expected one")]
    Count(usize),
    #[error("identity {0:?}: expected {SITES}SITE or {SITES}SITE/host/HOST")]
    Identity(String),
    #[error("certificate of {0}: expected one of a host of site {1}")]
    Foreign(Identity, SiteName),
    #[error("certificate of host {host} expired at {expired}")]
    Expired { host: HostId, expired: Timestamp },
    #[error("a tenant had the machine of host {0} since this certificate was given: it is void")]
    Void(HostId),
}

impl From<PeerError> for Status {
    fn from(error: PeerError) -> Self {
        match error {
            PeerError::NoCertificate => Self::unauthenticated(error.to_string()),
            PeerError::Form
            | PeerError::Count(_)
            | PeerError::Identity(_)
            | PeerError::Foreign(..)
            | PeerError::Expired { .. }
            | PeerError::Void(_) => Self::permission_denied(error.to_string()),
        }
    }
}

impl FromStr for Identity {
    type Err = PeerError;

    fn from_str(text: &str) -> Result<Self, PeerError> {
        let bad = || PeerError::Identity(text.to_owned());
        let path = text.strip_prefix(SITES).ok_or_else(bad)?;
        let mut parts = path.split('/');
        let site = parts.next().and_then(|site| site.parse().ok()).ok_or_else(bad)?;
        match (parts.next(), parts.next(), parts.next()) {
            (None, ..) => Ok(Self::Site(site)),
            (Some("host"), Some(host), None) => {
                Ok(Self::Host { site, host: host.parse().map_err(|_| bad())? })
            }
            _ => Err(bad()),
        }
    }
}

/// A certificate, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) identity: Identity,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    pub(super) key: KeyDigest,
}

impl Named {
    /// Reads a leaf certificate. Chain and signatures are the TLS layer's to check.
    pub(super) fn read(der: &[u8]) -> Result<Self, PeerError> {
        let (_, leaf) = X509Certificate::from_der(der).map_err(|_| PeerError::Form)?;
        let names = leaf.subject_alternative_name().map_err(|_| PeerError::Form)?;
        let uris: Vec<&str> = names
            .iter()
            .flat_map(|names| &names.value.general_names)
            .filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None })
            .collect();
        let [uri] = *uris.as_slice() else { return Err(PeerError::Count(uris.len())) };
        let moment = |time: x509_parser::time::ASN1Time| {
            Timestamp::from_second(time.timestamp()).map_err(|_| PeerError::Form)
        };
        Ok(Self {
            identity: uri.parse()?,
            not_before: moment(leaf.validity().not_before)?,
            not_after: moment(leaf.validity().not_after)?,
            key: KeyDigest::of(leaf.public_key().raw),
        })
    }
}

/// The other end of a TLS connection.
#[derive(Debug, Clone)]
pub(super) struct Peer(Result<Named, PeerError>);

/// A host of this site, proven by its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostPeer {
    pub(super) host: HostId,
    /// End of the certificate.
    pub(super) expires: Timestamp,
    /// Its key.
    pub(super) key: KeyDigest,
}

impl Peer {
    /// Of the leaf that the TLS layer verified; `None` when none was shown.
    pub(super) fn new(leaf: Option<&[u8]>) -> Self {
        Self(leaf.map_or(Err(PeerError::NoCertificate), Named::read))
    }

    /// The host of `site` that is at the other end, by a key that no tenant may have.
    pub(super) fn trusted_host(
        &self,
        site: &SiteName,
        service: &Service,
        now: Timestamp,
    ) -> Result<HostPeer, PeerError> {
        let peer = self.host_of(site, now)?;
        if service.is_void(peer.key) { Err(PeerError::Void(peer.host)) } else { Ok(peer) }
    }

    /// The host of `site` that is at the other end.
    fn host_of(&self, site: &SiteName, now: Timestamp) -> Result<HostPeer, PeerError> {
        let named = self.0.clone()?;
        match named.identity {
            Identity::Host { site: theirs, host } if theirs == *site => {
                // The handshake checked it too, but a connection can outlive its certificate.
                if now >= named.not_after {
                    return Err(PeerError::Expired { host, expired: named.not_after });
                }
                Ok(HostPeer { host, expires: named.not_after, key: named.key })
            }
            other @ (Identity::Site(_) | Identity::Host { .. }) => {
                Err(PeerError::Foreign(other, site.clone()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_forms_read_back() {
        for text in ["spiffe://bulkhead/site/sjc-01", "spiffe://bulkhead/site/a/host/a-000001"] {
            assert_eq!(text.parse::<Identity>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for text in [
            "",
            "spiffe://bulkhead/registry",
            "spiffe://other/site/a",
            "spiffe://bulkhead/site/",
            "spiffe://bulkhead/site/A",
            "spiffe://bulkhead/site/a/",
            "spiffe://bulkhead/site/a/host/",
            "spiffe://bulkhead/site/a/host/b/c",
            "spiffe://bulkhead/site/a/guest/b",
        ] {
            assert!(text.parse::<Identity>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_connection_that_outlives_its_certificate_loses_its_rights() {
        let now = Timestamp::UNIX_EPOCH;
        let identity = Identity::Host { site: "a".parse().unwrap(), host: "a-1".parse().unwrap() };
        let not_after = Timestamp::from_second(100).unwrap();
        let key = KeyDigest::of(&[1]);
        let peer = Peer(Ok(Named { identity, not_before: now, not_after, key }));
        let site = "a".parse().unwrap();
        assert!(peer.host_of(&site, now).is_ok());
        assert!(matches!(peer.host_of(&site, not_after), Err(PeerError::Expired { .. })));
        let other = "b".parse().unwrap();
        assert!(matches!(peer.host_of(&other, now), Err(PeerError::Foreign(..))));
        let nobody = Peer::new(None);
        assert_eq!(nobody.host_of(&site, now), Err(PeerError::NoCertificate));
    }

    proptest! {
        #[test]
        fn any_bytes_are_no_certificate(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(Named::read(&bytes).is_err());
        }
    }
}
