//! Documents of machines that are no hosts: quarantined, refused, or on the way.

use std::collections::BTreeSet;

use bulkhead_api::condition::{Condition, Truth};
use bulkhead_api::document::{ApiVersion, Host, HostIdentity, HostMetadata, HostPhase, HostState};
use bulkhead_api::id::{HostId, IdError, MacAddr, SiteName};
use bulkhead_api::machine::{Machine, MachineAdmission};

use super::Picture;
use crate::fleet::identify::{alias, host_id};
use crate::store::StoreError;
use crate::store::refusals::RefusalRow;

impl Picture {
    /// Refused machines, then those that sites have seen and that are neither hosts nor refused.
    pub(super) fn machines(&self) -> Result<Vec<Host>, StoreError> {
        let mut names: BTreeSet<HostId> = self.hosts.iter().map(|host| host.id.clone()).collect();
        let mut known: BTreeSet<(&SiteName, MacAddr)> =
            self.hosts.iter().map(|host| (&host.site, host.mac)).collect();
        let mut documents = Vec::new();
        for row in &self.refusals {
            known.insert((&row.site, row.mac));
            names.insert(row.id.clone());
            documents.push(refused(row));
        }
        for (site, machine) in &self.machines {
            if known.contains(&(site, machine.mac)) {
                continue;
            }
            let id = shown_as(site, machine, &names).map_err(|e| StoreError::Damaged {
                column: "machines.machine",
                message: e.to_string(),
            })?;
            names.insert(id.clone());
            documents.push(seen(id, site, machine));
        }
        Ok(documents)
    }

    /// Site and address of the machine that is shown under a name and is no host.
    ///
    /// # Errors
    /// A machine that cannot be named.
    pub fn machine_named(&self, id: &HostId) -> Result<Option<(SiteName, MacAddr)>, StoreError> {
        let named = self.machines()?.into_iter().find(|host| host.metadata.name == *id);
        Ok(named.map(|host| (host.metadata.site, host.spec.mac)))
    }
}

fn shown_as(
    site: &SiteName,
    machine: &Machine,
    taken: &BTreeSet<HostId>,
) -> Result<HostId, IdError> {
    let id = host_id(site, machine.mac)?;
    if taken.contains(&id) { alias(site, machine.mac, machine.uuid) } else { Ok(id) }
}

fn refused(row: &RefusalRow) -> Host {
    let attempts = row.attempts;
    let condition = Condition {
        kind: "Enrolled".to_owned(),
        status: Truth::False,
        reason: "Refused".to_owned(),
        message: format!("{} (attempts: {attempts})", row.reason),
        owner: "operator".to_owned(),
        since: row.since,
        next_retry: None,
    };
    Host {
        api_version: ApiVersion::V1,
        metadata: HostMetadata { name: row.id.clone(), site: row.site.clone() },
        spec: HostIdentity { mac: row.mac, system_uuid: row.uuid },
        status: HostState {
            phase: HostPhase::Refused,
            reason: row.reason.clone(),
            last_seen: Some(row.last_at),
            conditions: vec![condition],
            ..HostState::default()
        },
    }
}

fn seen(id: HostId, site: &SiteName, machine: &Machine) -> Host {
    let (phase, status, reason) = match machine.admission {
        MachineAdmission::Admitted => (HostPhase::Booting, Truth::True, "Admitted"),
        MachineAdmission::Quarantined => (HostPhase::Quarantined, Truth::False, "Quarantined"),
        MachineAdmission::Refused => (HostPhase::Refused, Truth::False, "Refused"),
    };
    let stage = format!("boot reached {:?}", machine.stage);
    let message = if machine.reason.is_empty() { stage } else { machine.reason.clone() };
    let condition = Condition {
        kind: "Admitted".to_owned(),
        status,
        reason: reason.to_owned(),
        message: message.clone(),
        owner: if status == Truth::True { "site" } else { "operator" }.to_owned(),
        since: machine.first_seen,
        next_retry: None,
    };
    Host {
        api_version: ApiVersion::V1,
        metadata: HostMetadata { name: id, site: site.clone() },
        spec: HostIdentity { mac: machine.mac, system_uuid: machine.uuid },
        status: HostState {
            phase,
            reason: message,
            last_seen: Some(machine.last_seen),
            conditions: vec![condition],
            ..HostState::default()
        },
    }
}
