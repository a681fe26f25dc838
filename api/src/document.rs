//! Documents that people write and read: `apiVersion`, `kind`, `metadata`, `spec`, `status`.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::condition::Condition;
use crate::id::{HostId, LeaseName, MacAddr, SiteName, SystemUuid, TenantName};
use crate::lease::{LeaseSpec, LeaseStatus};
use crate::site::{SiteSpec, SiteStatus};
use crate::status::HostStatus;
use crate::time::Timestamp;
use crate::units::Bytes;

/// The version of every document here.
pub const API_VERSION: &str = "bulkhead.io/v1";

/// A document of any kind. JSON tells them apart by `kind`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(tag = "kind")]
#[expect(
    clippy::large_enum_variant,
    reason = "documents are few and short-lived; boxes would show"
)]
pub enum Document {
    /// An edge location.
    Site(Site),
    /// A server.
    Host(Host),
    /// Who leases.
    Tenant(Tenant),
    /// A tenant's share of a host.
    Lease(Lease),
}

/// Kinds of documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Kind {
    /// [`Site`]
    Site,
    /// [`Host`]
    Host,
    /// [`Tenant`]
    Tenant,
    /// [`Lease`]
    Lease,
}

impl Kind {
    /// Every kind, in the order of the words of the design.
    pub const ALL: [Self; 4] = [Self::Site, Self::Host, Self::Tenant, Self::Lease];

    /// As in documents: `Lease`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Site => "Site",
            Self::Host => "Host",
            Self::Tenant => "Tenant",
            Self::Lease => "Lease",
        }
    }

    /// As in paths and on the command line: `leases`.
    #[must_use]
    pub fn plural(self) -> &'static str {
        match self {
            Self::Site => "sites",
            Self::Host => "hosts",
            Self::Tenant => "tenants",
            Self::Lease => "leases",
        }
    }
}

/// An edge location.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Site {
    /// `bulkhead.io/v1`.
    pub api_version: ApiVersion,
    /// Its name.
    pub metadata: SiteMetadata,
    /// What it should do.
    #[serde(default)]
    pub spec: SiteSpec,
    /// What is known of it; ignored when written by a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<SiteStatus>,
}

/// Name of a site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SiteMetadata {
    /// The name.
    pub name: SiteName,
}

/// Who leases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tenant {
    /// `bulkhead.io/v1`.
    pub api_version: ApiVersion,
    /// Its name.
    pub metadata: TenantMetadata,
    /// What is known of the tenant's owner.
    #[serde(default)]
    pub spec: TenantSpec,
}

/// Name of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TenantMetadata {
    /// The name.
    pub name: TenantName,
}

/// A tenant's description.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TenantSpec {
    /// A name for people; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub display_name: String,
}

/// A tenant's share of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lease {
    /// `bulkhead.io/v1`.
    pub api_version: ApiVersion,
    /// Name and tenant.
    pub metadata: LeaseMetadata,
    /// What is asked for.
    pub spec: LeaseSpec,
    /// What is known of it; ignored when written by a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<LeaseStatus>,
}

/// Name of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LeaseMetadata {
    /// Unique within the tenant.
    pub name: LeaseName,
    /// Who leases.
    pub tenant: TenantName,
    /// When deletion was asked for; ignored when written by a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
    pub deletion_timestamp: Option<Timestamp>,
}

/// A server. Written by the system only: hosts come by enrolment, machines by asking to boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Host {
    /// `bulkhead.io/v1`.
    pub api_version: ApiVersion,
    /// Its id and site.
    pub metadata: HostMetadata,
    /// What identifies the machine.
    pub spec: HostIdentity,
    /// What is known of it.
    #[serde(default)]
    pub status: HostState,
}

/// Name of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostMetadata {
    /// The host id, `{site}-{last three octets of the MAC}`.
    pub name: HostId,
    /// Where it is.
    pub site: SiteName,
}

/// What identifies a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct HostIdentity {
    /// Hardware address of its boot NIC.
    pub mac: MacAddr,
    /// Its system UUID; absent where the firmware has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_uuid: Option<SystemUuid>,
}

/// Where a host is on its way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum HostPhase {
    /// Admitted by its site, not yet enrolled.
    #[default]
    Booting,
    /// Not admitted: an address and no boot file.
    Quarantined,
    /// Its enrolment was refused.
    Refused,
    /// Enrolled, not yet Ready.
    Joining,
    /// Observed ready for leases.
    Ready,
    /// Enrolled, its stream is closed; leases are as last seen.
    Unreachable,
    /// The tenant of a `bareMetal` lease has it, or had it and it has not come back.
    HandedOver,
}

/// What is known of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct HostState {
    /// Where it is on its way.
    pub phase: HostPhase,
    /// Why, in one sentence.
    pub reason: String,
    /// Generation of the spec that the registry signed last; 0 = none.
    pub generation: u64,
    /// Last message from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
    pub last_seen: Option<Timestamp>,
    /// What the registry and the site observed of it (enrolment refused, ticket used twice).
    pub conditions: Vec<Condition>,
    /// Room for leases, worked out by the registry from the last report; absent until it reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
    /// Its last report; absent until it reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reported: Option<Box<HostStatus>>,
}

/// What a host offers to leases (`offered` and `free` of the lease crate's `place`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Capacity {
    /// Whole physical cores that leases can have in all: those of the host less its own.
    pub cores: u32,
    /// Cores that no lease holds.
    pub cores_free: u32,
    /// Memory that leases can have in all.
    pub memory: Bytes,
    /// Memory that no lease holds.
    pub memory_free: Bytes,
    /// Storage that volumes of leases can have in all.
    pub storage: Bytes,
    /// Storage that no volume holds.
    pub storage_free: Bytes,
}

/// `apiVersion`; only [`API_VERSION`] is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum ApiVersion {
    /// `bulkhead.io/v1`.
    #[default]
    #[serde(rename = "bulkhead.io/v1")]
    V1,
}

/// A reply that is not a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ApiError {
    /// One word in CamelCase: `BadField`, `NotFound`, `DoesNotFit`, `Conflict`, `Unauthorized`, `Unavailable`.
    pub reason: String,
    /// A sentence for people, with the way out.
    pub message: String,
    /// Path of the field at fault, `spec.cpus`; absent where it is not one field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What is short, host by host; empty unless `DoesNotFit`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shortages: Vec<HostShortage>,
}

/// Why a lease does not fit one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct HostShortage {
    /// The host.
    pub host: HostId,
    /// What is short: `cpus: 9 cores wanted, 3 free of 4`.
    pub short: Vec<String>,
}

/// A message of a watch (`?watch=true`), one a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct WatchEvent {
    /// What happened.
    #[serde(rename = "type")]
    pub kind: WatchKind,
    /// The object after it happened.
    pub object: Document,
}

/// What a watch reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WatchKind {
    /// The object as the watch began.
    Snapshot,
    /// Created or changed.
    Changed,
    /// Gone.
    Deleted,
}

/// A field that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct FieldError {
    /// `spec.workload.image`; `.` for the document as a whole.
    pub path: String,
    /// What was found and what was expected.
    pub message: String,
}

/// Reads a JSON document and names the field at fault.
///
/// # Errors
/// The first field that is unknown, missing or of the wrong form.
pub fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FieldError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader)
        .map_err(|e| FieldError { path: e.path().to_string(), message: e.inner().to_string() })?;
    reader.end().map_err(|e| FieldError { path: ".".to_owned(), message: e.to_string() })?;
    Ok(value)
}
