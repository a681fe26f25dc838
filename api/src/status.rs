//! What a host reports of itself.

use serde::{Deserialize, Serialize};

use crate::condition::Condition;
use crate::id::{HostId, LeaseId};
use crate::inventory::Inventory;
use crate::lease::ReportedLease;
use crate::resource::Quarantined;
use crate::time::Timestamp;

/// A host's state as its supervisor observed it. The latest (boot, seq) wins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct HostStatus {
    /// Which host.
    pub host: HostId,
    /// Counts the host's boots up.
    pub boot: u64,
    /// Counts reports within a boot up.
    pub seq: u64,
    /// When it was observed, by the host's clock.
    #[cfg_attr(feature = "schema", schema(value_type = String, format = DateTime))]
    pub observed: Timestamp,
    /// Generation of the spec that is being applied; 0 = none accepted yet.
    pub accepted_generation: u64,
    /// Generation whose every lease was read back as wanted; 0 = none yet.
    pub settled_generation: u64,
    /// `Ready`, `SpecAccepted`, `Settled`.
    pub conditions: Vec<Condition>,
    /// Leases found on the host, wanted or not yet gone. A lease that is not listed is gone.
    pub leases: Vec<ReportedLease>,
    /// Resources that nobody gets, with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantine: Vec<Quarantined>,
    /// The lease of [`HostSpec::returning`](crate::spec::HostSpec::returning): nothing of its tenant is on the host any
    /// more, with receipts where it ever ran. Absent else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sanitised: Option<LeaseId>,
    /// Hardware.
    pub inventory: Inventory,
    /// Resident memory of the supervisor in bytes; 0 where unknown.
    #[serde(default)]
    pub supervisor_rss: u64,
    /// CPU time that user space took from systemd's start to the supervisor's readiness, in milliseconds; 0 where
    /// unknown.
    #[serde(default)]
    pub userspace_start_ms: u64,
}
