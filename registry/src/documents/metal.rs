//! Leases that have a host to themselves, and hosts in the hands of tenants: what the site says of the machine counts,
//! as the host itself says nothing meanwhile.

use bulkhead_api::condition::{self, Condition, Truth};
use bulkhead_api::id::HostId;
use bulkhead_api::lease::{InstanceKind, LeasePhase, LeaseStatus};
use bulkhead_api::machine::{Tenancy, TenancyStage};

use super::lease::condition;
use super::{Picture, Reach};
use crate::store::hosts::HostRow;
use crate::store::leases::LeaseRow;

/// Who has to act next, in which stage.
fn owner(stage: TenancyStage) -> &'static str {
    match stage {
        TenancyStage::Leaving => "supervisor",
        TenancyStage::Given => "tenant",
        TenancyStage::Returning => "operator",
    }
}

fn sentence(host: &HostId, tenancy: &Tenancy) -> String {
    let lease = &tenancy.lease;
    match tenancy.stage {
        TenancyStage::Leaving => format!(
            "host {host} reboots for lease {lease}; power-cycle it if its firmware does not ask for a boot file"
        ),
        TenancyStage::Given if tenancy.fetched == 0 => {
            format!("the firmware of host {host} has not fetched the UKI of lease {lease} yet")
        }
        TenancyStage::Given => format!("the tenant of lease {lease} has host {host} to itself"),
        TenancyStage::Returning => format!(
            "power-cycle host {host} and have it boot from the network: it leaves lease {lease}, boots the host image \
             and is sanitised"
        ),
    }
}

impl Picture {
    /// What the site says of a host's machine.
    fn tenancy(&self, id: &HostId) -> Option<&Tenancy> {
        let row = self.hosts.iter().find(|row| row.id == *id)?;
        let here = |(site, machine): &&(_, bulkhead_api::machine::Machine)| {
            *site == row.site && machine.mac == row.mac
        };
        self.machines.iter().find(here)?.1.tenancy.as_ref()
    }

    /// The machine is not ours now; why, in a sentence.
    pub(super) fn away(&self, id: &HostId) -> Option<String> {
        let tenancy = self.tenancy(id)?;
        let talks = self.reach(id) == Reach::Heard;
        (tenancy.stage == TenancyStage::Given || !talks).then(|| sentence(id, tenancy))
    }

    /// Why a host takes no lease although it is ready: one has all of it.
    pub(super) fn taken_whole(&self, id: &HostId) -> Option<String> {
        let metal = |row: &&LeaseRow| row.spec.instance == InstanceKind::BareMetal;
        let row = self.leases_on(id).find(metal)?;
        Some(match row.deleting_at {
            None => format!("lease {} has the host to itself", row.id),
            Some(_) => format!("lease {} had the host to itself and is not gone yet", row.id),
        })
    }

    /// Said of a host whose machine a tenant has or had.
    pub(super) fn handed_over(&self, row: &HostRow) -> Option<Condition> {
        let tenancy = self.tenancy(&row.id)?;
        Some(Condition {
            kind: "HandedOver".to_owned(),
            status: Truth::True,
            reason: format!("{:?}", tenancy.stage),
            message: sentence(&row.id, tenancy),
            owner: owner(tenancy.stage).to_owned(),
            since: tenancy.since,
            next_retry: None,
        })
    }

    /// Completes the status of a lease that has a host to itself. `false` where the host's own word is all there is.
    pub(super) fn metal(&self, row: &LeaseRow, status: &mut LeaseStatus) -> bool {
        let tenancy = self.tenancy(&row.host).filter(|tenancy| tenancy.lease == row.id);
        if let Some(since) = row.deleting_at {
            status.phase = LeasePhase::Releasing;
            let (reason, message, owner) = self.releasing_metal(row, tenancy);
            status.conditions.push(Condition {
                message,
                owner,
                ..condition("Released", false, reason, since)
            });
            return true;
        }
        let Some(tenancy) = tenancy else { return false };
        let runs = tenancy.stage == TenancyStage::Given && tenancy.fetched > 0;
        status.phase = if runs { LeasePhase::Running } else { LeasePhase::Granting };
        let reason = if runs { "TenantBoots" } else { "Rebooting" };
        status.conditions.push(Condition {
            message: sentence(&row.host, tenancy),
            owner: owner(tenancy.stage).to_owned(),
            ..condition("HandedOver", runs, reason, tenancy.since)
        });
        let site = self.hosts.iter().find(|host| host.id == row.host).map(|host| &host.site);
        let live = site.and_then(|site| self.live.sites.get(site));
        if live.is_none_or(|live| !live.connected) {
            status.phase = LeasePhase::Unknown;
            let since = live.map_or(tenancy.since, |live| live.seen);
            status.conditions.push(Condition {
                message: "the site is out of reach; the lease is as last seen".to_owned(),
                owner: "site".to_owned(),
                ..condition("SiteConnected", false, "NoStream", since)
            });
        }
        true
    }

    /// Reason, sentence and owner.
    fn releasing_metal(
        &self,
        row: &LeaseRow,
        tenancy: Option<&Tenancy>,
    ) -> (&'static str, String, String) {
        let host = &row.host;
        let Some(without) = row.gone_generation else {
            let message = "a host spec without the lease is not signed yet".to_owned();
            return ("WaitingForSignature", message, "registry".to_owned());
        };
        let report = self.reports.get(host).map(|report| &report.status);
        let accepted = report.map_or(0, |status| status.accepted_generation);
        match (tenancy.map(|tenancy| (tenancy, tenancy.stage)), report) {
            (Some((_, TenancyStage::Leaving | TenancyStage::Given)), _) => {
                let message =
                    format!("the site has not taken generation {without} of host {host} yet");
                ("WaitingForSite", message, "site".to_owned())
            }
            (_, Some(status)) if accepted >= without && self.reach(host) == Reach::Heard => {
                let ready = condition::find(&status.conditions, "Ready");
                let (said, owner) = ready.map_or_else(
                    || (String::new(), "supervisor".to_owned()),
                    |ready| (ready.message.clone(), ready.owner.clone()),
                );
                ("Sanitising", format!("host {host} is sanitised: {said}"), owner)
            }
            (Some((tenancy, TenancyStage::Returning)), _) => {
                ("PowerCycle", sentence(host, tenancy), "operator".to_owned())
            }
            (None, _) => {
                let message = format!(
                    "gone once host {host} has sanitised itself by generation {without}; it has accepted {accepted}"
                );
                ("WaitingForHost", message, "supervisor".to_owned())
            }
        }
    }
}
