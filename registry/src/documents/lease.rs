//! Documents of leases: what the host observed, with what the registry knows beside it.

use bulkhead_api::condition::{Condition, Truth};
use bulkhead_api::document::{ApiVersion, Lease, LeaseMetadata};
use bulkhead_api::lease::{InstanceKind, LeasePhase, LeaseStatus};
use bulkhead_api::time::Timestamp;

use super::{Picture, Reach};
use crate::store::leases::LeaseRow;

impl Picture {
    /// The document of a lease.
    #[must_use]
    pub fn lease(&self, row: &LeaseRow) -> Lease {
        Lease {
            api_version: ApiVersion::V1,
            metadata: LeaseMetadata {
                name: row.id.name.clone(),
                tenant: row.id.tenant.clone(),
                deletion_timestamp: row.deleting_at,
            },
            spec: row.spec.clone(),
            status: Some(self.lease_status(row)),
        }
    }

    fn lease_status(&self, row: &LeaseRow) -> LeaseStatus {
        let reported = self
            .reports
            .get(&row.host)
            .and_then(|report| report.status.leases.iter().find(|lease| lease.id == row.id));
        let mut status = reported.map(|lease| lease.status.clone()).unwrap_or_default();
        status.host = Some(row.host.clone());
        status.conditions.push(condition("Placed", true, "Placed", row.created_at));
        status.conditions.extend(self.spec_signed(&row.host));
        if reported.is_none() && row.deleting_at.is_none() {
            status.conditions.push(self.waiting(row));
        }
        if row.spec.instance == InstanceKind::BareMetal && self.metal(row, &mut status) {
            return status;
        }
        if let Reach::Silent(since, why) = self.reach(&row.host) {
            status.phase = LeasePhase::Unknown;
            status.conditions.push(Condition {
                message: format!("host {}: {why}; the lease is as last seen", row.host),
                owner: "supervisor".to_owned(),
                ..condition("HostReporting", false, "Silent", since)
            });
        }
        if let Some(since) = row.deleting_at {
            status.phase = LeasePhase::Releasing;
            status.conditions.push(self.releasing(row, since));
        }
        status
    }

    fn waiting(&self, row: &LeaseRow) -> Condition {
        let signed = self.specs.get(&row.host).map_or(0, |spec| spec.generation);
        let accepted = self.reports.get(&row.host).map_or(0, |r| r.status.accepted_generation);
        Condition {
            message: format!(
                "host {} has accepted generation {accepted} of its spec; {signed} was signed last",
                row.host
            ),
            owner: "supervisor".to_owned(),
            ..condition("Granted", false, "WaitingForHost", row.created_at)
        }
    }

    fn releasing(&self, row: &LeaseRow, since: Timestamp) -> Condition {
        let settled = self.reports.get(&row.host).map_or(0, |r| r.status.settled_generation);
        let (reason, message) = match row.gone_generation {
            None => {
                ("WaitingForSignature", "a host spec without the lease is not signed yet".into())
            }
            Some(without) => (
                "WaitingForHost",
                format!(
                    "gone once host {} has settled generation {without}; it has settled {settled}",
                    row.host
                ),
            ),
        };
        Condition {
            message,
            owner: if row.gone_generation.is_some() { "supervisor" } else { "registry" }.to_owned(),
            ..condition("Released", false, reason, since)
        }
    }
}

pub(super) fn condition(kind: &str, holds: bool, reason: &str, since: Timestamp) -> Condition {
    Condition {
        kind: kind.to_owned(),
        status: if holds { Truth::True } else { Truth::False },
        reason: reason.to_owned(),
        message: String::new(),
        owner: "registry".to_owned(),
        since,
        next_retry: None,
    }
}
