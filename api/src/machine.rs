//! Machines that a site's boot services have seen, admitted or not.

use serde::{Deserialize, Serialize};

use crate::id::{HostId, LeaseId, MacAddr, SystemUuid};
use crate::time::Timestamp;

/// A machine that asked to boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// Hardware address of its boot NIC: its key at the site.
    pub mac: MacAddr,
    /// Its system UUID; absent where the firmware sent none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<SystemUuid>,
    /// Whether it may boot.
    pub admission: MachineAdmission,
    /// Why, in one sentence; names the other machine of a collision, the missing list entry, the refused ticket.
    pub reason: String,
    /// The host it became; absent until enrolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostId>,
    /// Address it was given; absent if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub address: Option<std::net::Ipv4Addr>,
    /// How far its latest boot came.
    pub stage: BootStage,
    /// Boots that reached stage 1.
    pub boots: u64,
    /// First seen.
    #[cfg_attr(feature = "schema", schema(value_type = String, format = DateTime))]
    pub first_seen: Timestamp,
    /// Last seen.
    #[cfg_attr(feature = "schema", schema(value_type = String, format = DateTime))]
    pub last_seen: Timestamp,
    /// A tenant has the machine to itself, or had it and it has not come back; absent else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenancy: Option<Tenancy>,
}

/// A machine in the hands of the tenant of a `bareMetal` lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Tenancy {
    /// Whose.
    pub lease: LeaseId,
    /// Where it is on its way.
    pub stage: TenancyStage,
    /// SHA-256 of the tenant's UKI, hexadecimal.
    pub uki_sha256: String,
    /// How often the tenant's UKI went out whole.
    pub fetched: u64,
    /// When `stage` was reached.
    #[cfg_attr(feature = "schema", schema(value_type = String, format = DateTime))]
    pub since: Timestamp,
}

/// Where a [`Tenancy`] is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum TenancyStage {
    /// The site remembers the hand-over; the machine has not asked for anything since.
    Leaving,
    /// The machine left our image: it boots what the tenant wants.
    Given,
    /// The lease is no longer wanted: the next boot is of our image, to be sanitised.
    Returning,
}

/// Whether a machine may boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum MachineAdmission {
    /// Boots.
    Admitted,
    /// Has an address and no boot file.
    Quarantined,
    /// Booted, but its enrolment was refused.
    Refused,
}

/// How far a boot came, in order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum BootStage {
    /// Nothing but an address was asked for.
    #[default]
    Seen,
    /// Its firmware asked for a boot file.
    Firmware,
    /// The UKI was fetched.
    Kernel,
    /// Stage 1 asked for an address.
    Stage1,
    /// The root image was fetched.
    Image,
    /// Enrolled.
    Enrolled,
}
