//! What a tenant asks of a host, and what it got.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::condition::Condition;
use crate::id::{HostId, LeaseId, SiteName};
use crate::time::Timestamp;
use crate::units::Bytes;

/// A tenant's share of one host over every resource class, plus what runs in it.
///
/// Classes that this version cannot grant (GPUs, networks, volumes, VMs, bare metal) are read, so that
/// they can be refused by name rather than as unknown fields; see [`LeaseSpec::check`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LeaseSpec {
    /// Where the lease must be; absent = any site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<SiteName>,
    /// What runs in the lease.
    pub instance: InstanceKind,
    /// Whole physical cores, SMT siblings together: 1 or more.
    pub cpus: u32,
    /// Memory, at least 16 MiB.
    pub memory: Bytes,
    /// GPU slices; empty = none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schema(value_type = Vec<Object>))]
    pub gpus: Vec<serde_json::Value>,
    /// Networks; empty = none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schema(value_type = Vec<Object>))]
    pub networks: Vec<serde_json::Value>,
    /// Volumes; empty = none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schema(value_type = Vec<Object>))]
    pub volumes: Vec<serde_json::Value>,
    /// What to run. Wanted for `container`.
    pub workload: Workload,
    /// Opportunistic lease: may be taken back within this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocable: Option<String>,
}

impl LeaseSpec {
    /// The smallest memory of a lease: below it a container's first process is killed before it says why.
    pub const MIN_MEMORY: Bytes = Bytes::new(16 << 20);

    /// The first field that asks for what this version cannot do, with the reason; and values out of range.
    ///
    /// # Errors
    /// The field's path and a sentence.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let not_yet = |what: &str| format!("{what} cannot be leased by this version of Bulkhead");
        match self.instance {
            InstanceKind::Container => {}
            InstanceKind::Vm => return Err(("spec.instance", not_yet("virtual machines"))),
            InstanceKind::BareMetal => return Err(("spec.instance", not_yet("bare-metal hosts"))),
        }
        if self.cpus == 0 {
            return Err(("spec.cpus", "0 cores: expected 1 or more".to_owned()));
        }
        if self.memory < Self::MIN_MEMORY {
            let message = format!("{}: expected at least {}", self.memory, Self::MIN_MEMORY);
            return Err(("spec.memory", message));
        }
        if !self.gpus.is_empty() {
            return Err(("spec.gpus", not_yet("GPUs")));
        }
        if !self.networks.is_empty() {
            return Err(("spec.networks", not_yet("networks")));
        }
        if !self.volumes.is_empty() {
            return Err(("spec.volumes", not_yet("volumes")));
        }
        if self.revocable.is_some() {
            return Err(("spec.revocable", not_yet("opportunistic leases")));
        }
        if !self.workload.image.starts_with("oci://") {
            let message = format!("{:?}: expected oci://HOST/NAME:TAG", self.workload.image);
            return Err(("spec.workload.image", message));
        }
        Ok(())
    }
}

/// What runs in a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum InstanceKind {
    /// An OCI image run by crun.
    Container,
    /// A QEMU virtual machine.
    Vm,
    /// The whole host.
    BareMetal,
}

/// The program of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Workload {
    /// `oci://HOST/NAME:TAG` or `oci://HOST/NAME@sha256:…`; HOST `bulkhead.site` is the site's own cache.
    pub image: String,
    /// Arguments in place of the image's `Cmd`; empty = the image's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// What happens when the program ends.
    #[serde(default)]
    pub restart: RestartPolicy,
}

/// What happens when a lease's program ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum RestartPolicy {
    /// Start it again, whatever its exit status.
    #[default]
    Always,
    /// Start it again unless it ended with status 0.
    OnFailure,
    /// Leave it ended.
    Never,
}

/// Where a lease is on its way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum LeasePhase {
    /// Accepted, not yet observed on its host.
    #[default]
    Pending,
    /// The host is granting it.
    Granting,
    /// Granted, its program observed running.
    Running,
    /// Granted; its program ended and its restart policy leaves it so.
    Ended,
    /// Could not be granted; the conditions say why and when it is tried again.
    Failed,
    /// Deletion was asked for; the host has not been observed without it yet.
    Releasing,
    /// The host does not report; the lease is as last seen.
    Unknown,
}

/// The exact resources of a lease on its host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Holding {
    /// Logical CPUs: whole cores with all their siblings.
    pub cpus: BTreeSet<u32>,
    /// NUMA nodes its memory comes from.
    pub memory_nodes: BTreeSet<u32>,
    /// Upper bound of its memory.
    pub memory: Bytes,
}

/// What is known of a lease. Said by its host, kept by the registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct LeaseStatus {
    /// Where it is on its way.
    pub phase: LeasePhase,
    /// Where it was placed; absent until placed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<HostId>,
    /// What it holds, as read back from the host; absent until granted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holding: Option<Holding>,
    /// Digest of the image that runs, `sha256:…`; absent until fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    /// Starts of the program since the grant.
    pub starts: u32,
    /// Host-side process id of the program; absent while it does not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Why it is so.
    pub conditions: Vec<Condition>,
    /// When it was last observed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
    pub observed: Option<Timestamp>,
}

/// A lease as a host reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ReportedLease {
    /// Which lease.
    pub id: LeaseId,
    /// What the host observed.
    pub status: LeaseStatus,
}
