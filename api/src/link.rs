//! Documents of the link between machines; the messages around them are in `proto/link.proto`.

use serde::{Deserialize, Serialize};

use crate::id::{LeaseId, MacAddr, SystemUuid};

/// Generated client, server and messages of `proto/link.proto`.
#[cfg(feature = "grpc")]
#[expect(
    missing_docs,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::missing_errors_doc,
    clippy::too_many_lines,
    reason = "generated code; the proto file documents it"
)]
pub mod rpc {
    tonic::include_proto!("bulkhead.link.v1");
}

/// Who asks for an identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum EnrolFacts {
    /// A site, with a join ticket of the registry.
    #[serde(rename_all = "camelCase")]
    Site {
        /// DNS names and addresses that its certificate must carry, as hosts connect to them.
        names: Vec<String>,
    },
    /// A host, with a boot ticket of its site.
    #[serde(rename_all = "camelCase")]
    Host {
        /// Hardware address of the NIC it booted from.
        mac: MacAddr,
        /// Its system UUID; absent where the firmware has none.
        uuid: Option<SystemUuid>,
    },
}

/// First message on a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hello {
    /// Version of the program that speaks.
    pub version: String,
    /// Counts boots of the host up; 0 for a site. Reports are ordered by (boot, seq).
    pub boot: u64,
    /// Generation of the spec that the host accepted last; 0 = none.
    pub accepted_generation: u64,
}

/// A host asks its site to hand its machine over to the tenant of a `bareMetal` lease at the next boot.
///
/// The site takes the lease's content from the spec that it verified itself; the host only says that it is drained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HandOver {
    /// Which lease.
    pub lease: LeaseId,
}

/// What the site says to a [`HandOver`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HandOverAnswer {
    /// Which lease.
    pub lease: LeaseId,
    /// Why not; absent: the site has the tenant's UKI and remembers the hand-over durably, so that the host may
    /// reboot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<HandOverRefusal>,
}

/// Why a machine is not handed over. The host may ask again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HandOverRefusal {
    /// One word in CamelCase, for conditions.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
    /// Who has to act next, as in [`crate::condition::Condition`].
    pub owner: String,
}
