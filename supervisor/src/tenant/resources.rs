//! The machine's steps on resources: given, looked at, sanitised, by the class of each ([`crate::class`]).

use bulkhead_api::chain::Chain;
use bulkhead_api::id::LeaseId;
use bulkhead_api::lease::{Holding, InstanceKind};
use bulkhead_api::resource::{Quarantined, Resource};
use tokio::task::spawn_blocking;
use tracing::{error, info};

use crate::class::{ClassError, Order, Progress};
use crate::ledger::Entry;
use crate::receipts::Sanitised;
use crate::tenant::beside::Finished;
use crate::tenant::bundle;
use crate::tenant::converge::Outcome;
use crate::tenant::error::StepError;
use crate::tenant::look::Seen;
use crate::tenant::machine::Machine;
use crate::tenant::model::{Deed, ObservedLease, ServiceState, given_apart};
use crate::tenant::vm;

/// First id of nobody: of what was found without cores, from which a lease's ids are made.
const NOBODYS_ID: u32 = 0xfffe_0000;

impl Machine {
    /// What is there of resources: for leases that are held all of theirs, for others what was found. And why a class
    /// could not be listed.
    pub(super) async fn resources(&mut self) -> (Seen, Option<String>) {
        let held = self.ledger.entries.iter().filter(|entry| !entry.releasing);
        let orders = held.flat_map(|entry| {
            let given = entry.holding.resources().into_iter().filter(given_apart);
            given.map(|resource| self.order(&entry.id, &resource)).collect::<Vec<_>>()
        });
        let orders = orders.collect();
        let (mut seen, unlisted) = self.looks.look(&self.classes, orders).await;
        // What is in quarantine is nobody's, whoever's name it bears.
        for kept in &self.ledger.quarantine {
            if let Some(resources) = seen.get_mut(&kept.lease) {
                resources.remove(&kept.resource);
            }
        }
        seen.retain(|_, resources| !resources.is_empty());
        (seen, unlisted)
    }

    /// Notes which works ended. What is in quarantine and was begun to be erased again is gone on with.
    pub(super) fn reap(&mut self) {
        let ledger = &self.ledger;
        let kept = |lease: &LeaseId, resource: &Resource| {
            ledger.quarantine.iter().find(|kept| kept.lease == *lease && kept.resource == *resource)
        };
        self.beside.reap(|lease, resource| {
            let dirty = |entry: &Entry| entry.releasing && ledger.dirty(entry).contains(resource);
            ledger.entry(lease).is_some_and(dirty) || kept(lease, resource).is_some()
        });
        let begun = self.beside.erases().filter_map(|(lease, resource)| kept(lease, resource));
        let begun: Vec<Quarantined> =
            begun.filter(|kept| !self.again.contains(kept)).cloned().collect();
        self.again.extend(begun);
    }

    fn order(&self, id: &LeaseId, resource: &Resource) -> Order {
        let entry = self.ledger.entry(id);
        let first_id = |entry: &Entry| {
            let cpus = entry.id_cpu().into_iter().collect();
            bundle::first_id(&Holding { cpus, ..Holding::default() }).ok()
        };
        Order {
            lease: id.clone(),
            resource: resource.clone(),
            instance: entry.map_or(InstanceKind::Container, |entry| entry.spec.instance),
            first_id: entry.and_then(first_id).unwrap_or(NOBODYS_ID),
            weaker_erase: self.weaker.contains(&resource.class()),
            progress: Progress::default(),
        }
    }

    pub(super) async fn attach(
        &mut self,
        id: &LeaseId,
        resource: &Resource,
    ) -> Result<Outcome, StepError> {
        let (order, class) = (self.order(id, resource), self.classes.of(resource)?);
        match self.beside.turn(Deed::Attach, class, order, self.patience).await? {
            None => Ok(Outcome::Pending),
            Some(done) => Ok(done.result.map(|_| Outcome::Done)?),
        }
    }

    /// Erases a resource. The receipt is kept before the ledger says that the resource is clean; cut between the
    /// two, it is erased again and has two receipts.
    pub(super) async fn sanitise(
        &mut self,
        id: &LeaseId,
        resource: &Resource,
    ) -> Result<Outcome, StepError> {
        let (order, class) = (self.order(id, resource), self.classes.of(resource)?);
        let done = self.beside.turn(Deed::Erase, class, order, self.patience).await?;
        let Some(Finished { result, started, finished }) = done else {
            return Ok(Outcome::Pending);
        };
        let mut next = self.ledger.clone();
        match result {
            Ok(erased) => {
                let sanitised = Sanitised {
                    boot: self.boot,
                    lease: id.clone(),
                    resource: resource.clone(),
                    erased,
                    started,
                    finished,
                };
                let receipts = std::sync::Arc::clone(&self.receipts);
                let kept = spawn_blocking(move || receipts.append(sanitised)).await;
                let kept = kept.map_err(|error| refused(resource, &error))??;
                info!(lease = %id, %resource, receipt = kept.sequence, "sanitised");
                next.cleaned(id, resource);
            }
            Err(error @ ClassError::ReadBack { .. }) => {
                let reason = error.to_string();
                error!(lease = %id, %resource, reason, "not clean: in quarantine");
                let (lease, resource) = (id.clone(), resource.clone());
                next.quarantined(Quarantined { resource, lease, reason, since: started });
            }
            Err(error) => return Err(error.into()),
        }
        self.store(next)
    }

    /// Whether every vCPU of a virtual machine runs on its own CPU; `None` where there is none yet.
    pub(super) fn pinned(&self, id: &LeaseId, seen: &ObservedLease) -> Option<bool> {
        let entry = self.ledger.entry(id)?;
        let service = seen.service.filter(|service| service.state == ServiceState::Running)?;
        (entry.spec.instance == InstanceKind::Vm).then_some(())?;
        let pins = vm::pins(&self.paths.root, service.pid?, &entry.holding);
        Some(pins.is_ok_and(|pins| pins.hold()))
    }

    pub(super) fn pin(&self, id: &LeaseId) -> Result<Outcome, StepError> {
        let entry = self.ledger.entry(id).ok_or_else(|| StepError::NotRecorded(id.clone()))?;
        let Some(pid) = self.dir(id).pid() else { return Ok(Outcome::Pending) };
        let pinned = vm::pin(&self.paths.root, pid, &entry.holding);
        pinned.map(|pins| Outcome::done_if(pins.hold())).map_err(|error| {
            let (doing, why) = (format!("pin the vCPUs of {id}"), Chain(&error).to_string());
            StepError::Class(ClassError::Refused { doing, why })
        })
    }
}

fn refused(resource: &Resource, why: &(dyn std::error::Error + 'static)) -> ClassError {
    ClassError::Refused { doing: format!("handle {resource}"), why: Chain(why).to_string() }
}
