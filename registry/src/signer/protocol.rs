//! What the registry asks of the signer.

use bulkhead_api::id::HostId;
use bulkhead_api::spec::{Base64, HostSpec, SignedSpec};
use serde::{Deserialize, Serialize};

use crate::identity::Identity;

/// One request; each is answered by one [`SignerReply`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "camelCase", deny_unknown_fields)]
pub enum SignerRequest {
    /// Sign a host spec.
    SignSpec {
        /// The spec; its generation must be above the last one signed for the host, or the very
        /// same spec again.
        spec: HostSpec,
    },
    /// Issue a certificate.
    IssueCertificate {
        /// Whom it is for: becomes the subject.
        identity: Identity,
        /// PKCS#10, DER. Only its key is taken, after its signature was checked.
        csr: Base64,
        /// DNS names and addresses of a server; empty for a host.
        names: Vec<String>,
    },
}

/// The answer to a [`SignerRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "camelCase")]
pub enum SignerReply {
    /// To [`SignerRequest::SignSpec`].
    Spec {
        /// The spec with its signature.
        signed: SignedSpec,
    },
    /// To [`SignerRequest::IssueCertificate`].
    Certificate {
        /// Leaf first, PEM.
        chain_pem: String,
    },
    /// Not done.
    Refused {
        /// Why.
        refusal: Refusal,
    },
}

/// Why the signer does not sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "why", rename_all = "camelCase")]
pub enum Refusal {
    /// The host's generations only grow.
    #[error("generation {offered} of host {host}: {last} was signed before")]
    OldGeneration {
        /// The host.
        host: HostId,
        /// Asked for.
        offered: u64,
        /// Signed before.
        last: u64,
    },
    /// A spec that no host would take.
    #[error("host spec: {message}")]
    Spec {
        /// What is wrong with it.
        message: String,
    },
    /// The certificate request is not one of a P-256 key signed by itself.
    #[error("certificate request: {message}")]
    Csr {
        /// What is wrong with it.
        message: String,
    },
    /// A server name that this identity may not have.
    #[error("server name {name:?}: {message}")]
    Name {
        /// The name.
        name: String,
        /// Why not.
        message: String,
    },
    /// The signer itself is at fault; its log has the cause.
    #[error("signer: {message}")]
    Internal {
        /// What it was doing.
        message: String,
    },
}
