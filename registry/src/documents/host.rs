//! Documents of hosts.

use bulkhead_api::condition::{self, Condition, Truth};
use bulkhead_api::document::{ApiVersion, Host, HostIdentity, HostMetadata, HostPhase, HostState};
use bulkhead_api::id::{HostId, SiteName};
use bulkhead_api::machine::MachineAdmission;

use super::{Picture, Reach};
use crate::fleet::place::{Candidate, capacity};
use crate::fleet::spec::LIFE;
use crate::presence::HostLink;
use crate::store::hosts::HostRow;

impl Picture {
    /// The document of an enrolled host.
    #[must_use]
    pub fn host(&self, row: &HostRow) -> Host {
        let report = self.reports.get(&row.id);
        let heard = report.map(|report| report.received_at);
        let (phase, reason) = self.phase(&row.id);
        let mut conditions = vec![self.reporting(row)];
        conditions.extend(self.spec_signed(&row.id));
        conditions.extend(self.not_admitted(row));
        conditions.extend(self.handed_over(row));
        Host {
            api_version: ApiVersion::V1,
            metadata: HostMetadata { name: row.id.clone(), site: row.site.clone() },
            spec: HostIdentity { mac: row.mac, system_uuid: row.uuid },
            status: HostState {
                phase,
                reason,
                generation: self.specs.get(&row.id).map_or(0, |spec| spec.generation),
                last_seen: heard.max(self.live.hosts.get(&row.id).map(|live| live.seen)),
                conditions,
                capacity: report.map(|report| capacity(&report.status, &self.promised(&row.id))),
                reported: report.map(|report| Box::new(report.status.clone())),
            },
        }
    }

    /// The host that was read, by id.
    #[must_use]
    pub fn host_of(&self, id: &HostId) -> Option<Host> {
        self.hosts.iter().find(|row| row.id == *id).map(|row| self.host(row))
    }

    /// Hosts that a lease may be placed on: enrolled, reported, at that site if one is asked for.
    #[must_use]
    pub fn candidates(&self, site: Option<&SiteName>) -> Vec<Candidate<'_>> {
        let here = |row: &&HostRow| site.is_none_or(|site| row.site == *site);
        let candidate = |row: &'_ HostRow| {
            let (id, report) = self.reports.get_key_value(&row.id)?;
            let (phase, reason) = self.phase(id);
            let barred = (phase != HostPhase::Ready)
                .then(|| format!("host is {phase:?} and takes no lease now: {reason}"))
                .or_else(|| self.taken_whole(id));
            let promised = self.promised(id);
            Some(Candidate { id, status: &report.status, promised, barred })
        };
        self.hosts.iter().filter(here).filter_map(candidate).collect()
    }

    fn phase(&self, id: &HostId) -> (HostPhase, String) {
        if let Some(away) = self.away(id) {
            return (HostPhase::HandedOver, away);
        }
        let report = self.reports.get(id).map(|report| &report.status);
        let boot = match self.live.hosts.get(id).map(|live| live.link) {
            Some(HostLink::Open { boot }) => boot,
            Some(HostLink::Ended) | None => 0,
        };
        match (self.reach(id), report) {
            (Reach::Silent(_, why), _) => (HostPhase::Unreachable, why),
            (_, None) => (HostPhase::Joining, "enrolled, has not reported yet".to_owned()),
            (_, Some(status)) if status.boot < boot => {
                (HostPhase::Joining, format!("boot {boot} has not reported yet"))
            }
            (_, Some(status)) => match condition::find(&status.conditions, "Ready") {
                Some(ready) if ready.status == Truth::True => (HostPhase::Ready, String::new()),
                Some(ready) if ready.message.is_empty() => {
                    (HostPhase::Joining, ready.reason.clone())
                }
                Some(ready) => (HostPhase::Joining, ready.message.clone()),
                None => (HostPhase::Joining, "does not say whether it is ready".to_owned()),
            },
        }
    }

    fn reporting(&self, row: &HostRow) -> Condition {
        let (status, reason, message, since) = match self.reach(&row.id) {
            Reach::Never => (Truth::False, "NotYet", String::new(), row.enrolled_at),
            Reach::Heard => (Truth::True, "Heard", String::new(), row.enrolled_at),
            Reach::Silent(since, why) => (Truth::False, "Silent", why, since),
        };
        Condition {
            kind: "Reporting".to_owned(),
            status,
            reason: reason.to_owned(),
            message,
            owner: "supervisor".to_owned(),
            since,
            next_retry: None,
        }
    }

    /// Whether what is wanted of a host is signed; absent before the first try.
    pub(super) fn spec_signed(&self, id: &HostId) -> Option<Condition> {
        let kind = "SpecSigned".to_owned();
        let owner = "registry".to_owned();
        if let Some(trouble) = self.live.signing.get(id) {
            return Some(Condition {
                kind,
                status: Truth::False,
                reason: trouble.reason.to_owned(),
                message: trouble.message.clone(),
                owner,
                since: trouble.since,
                next_retry: Some(trouble.next_retry),
            });
        }
        let spec = self.specs.get(id)?;
        Some(Condition {
            kind,
            status: Truth::True,
            reason: "Signed".to_owned(),
            message: format!("generation {} until {:.0}", spec.generation, spec.expiry),
            owner,
            since: spec.expiry - LIFE,
            next_retry: None,
        })
    }

    /// Said where the site would not let a host boot again.
    fn not_admitted(&self, row: &HostRow) -> Option<Condition> {
        let here = |(site, machine): &&(SiteName, _)| {
            let machine: &bulkhead_api::machine::Machine = machine;
            *site == row.site && machine.mac == row.mac
        };
        let (_, machine) = self.machines.iter().find(here)?;
        (machine.admission != MachineAdmission::Admitted).then(|| Condition {
            kind: "Admitted".to_owned(),
            status: Truth::False,
            reason: format!("{:?}", machine.admission),
            message: machine.reason.clone(),
            owner: "operator".to_owned(),
            since: machine.last_seen,
            next_retry: None,
        })
    }
}
