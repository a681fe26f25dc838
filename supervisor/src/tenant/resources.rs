//! The machine's steps on resources: given, looked at, sanitised, by the class of each ([`crate::class`]).

use std::collections::BTreeMap;

use bulkhead_api::chain::Chain;
use bulkhead_api::id::LeaseId;
use bulkhead_api::lease::InstanceKind;
use bulkhead_api::resource::{Quarantined, Resource};
use bulkhead_api::time::Timestamp;
use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use crate::class::{Attached, ClassError, Classes, Order};
use crate::ledger::Entry;
use crate::receipts::Sanitised;
use crate::tenant::bundle;
use crate::tenant::converge::Outcome;
use crate::tenant::error::StepError;
use crate::tenant::machine::Machine;
use crate::tenant::model::{ObservedLease, ServiceState, given_apart};
use crate::tenant::vm;

/// First id of nobody: of what was found without cores, from which a lease's ids are made.
const NOBODYS_ID: u32 = 0xfffe_0000;

/// What was seen of a lease's resources, or why it could not be looked at.
pub(super) type Seen = Result<BTreeMap<Resource, Attached>, String>;

impl Machine {
    /// What is there of resources: for leases in the ledger all of theirs, for others what was found.
    pub(super) async fn resources(&self) -> BTreeMap<LeaseId, Seen> {
        let entries = self.ledger.entries.iter().flat_map(|entry| {
            let given = self.ledger.dirty(entry).into_iter().filter(given_apart);
            given.map(|resource| self.order(&entry.id, &resource)).collect::<Vec<_>>()
        });
        let (classes, orders) = (self.classes.clone(), entries.collect::<Vec<_>>());
        let looked = spawn_blocking(move || look(&classes, &orders)).await;
        let mut seen = looked.unwrap_or_else(|error| {
            // A class that panics says nothing of any lease.
            let why = Chain(&error).to_string();
            self.ledger.entries.iter().map(|e| (e.id.clone(), Err(why.clone()))).collect()
        });
        // What is in quarantine is nobody's, whoever's name it bears.
        for kept in &self.ledger.quarantine {
            if let Some(Ok(resources)) = seen.get_mut(&kept.lease) {
                resources.remove(&kept.resource);
            }
        }
        seen.retain(|_, resources| !matches!(resources, Ok(resources) if resources.is_empty()));
        seen
    }

    fn order(&self, id: &LeaseId, resource: &Resource) -> Order {
        let entry = self.ledger.entry(id);
        let first_id = |entry: &Entry| bundle::first_id(&entry.holding).ok();
        Order {
            lease: id.clone(),
            resource: resource.clone(),
            instance: entry.map_or(InstanceKind::Container, |entry| entry.spec.instance),
            first_id: entry.and_then(first_id).unwrap_or(NOBODYS_ID),
            weaker_erase: self.weaker.contains(&resource.class()),
        }
    }

    pub(super) async fn attach(
        &self,
        id: &LeaseId,
        resource: &Resource,
    ) -> Result<Outcome, StepError> {
        let (order, class) = (self.order(id, resource), self.classes.of(resource)?);
        run(resource, move || class.attach(&order)).await?;
        Ok(Outcome::Done)
    }

    /// Erases a resource. The receipt is kept before the ledger says that the resource is clean; cut between the
    /// two, it is erased again and has two receipts.
    pub(super) async fn sanitise(
        &mut self,
        id: &LeaseId,
        resource: &Resource,
    ) -> Result<Outcome, StepError> {
        let (order, class) = (self.order(id, resource), self.classes.of(resource)?);
        let started = Timestamp::now();
        let mut next = self.ledger.clone();
        match run(resource, move || class.erase(&order)).await {
            Ok(erased) => {
                let sanitised = Sanitised {
                    boot: self.boot,
                    lease: id.clone(),
                    resource: resource.clone(),
                    erased,
                    started,
                    finished: Timestamp::now(),
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

fn look(classes: &Classes, orders: &[Order]) -> BTreeMap<LeaseId, Seen> {
    let mut seen: BTreeMap<LeaseId, Seen> = BTreeMap::new();
    for class in classes.all() {
        let found = class.found().unwrap_or_else(|error| {
            // It cannot be asked about one either: the leases that have such resources tell.
            warn!(error = %Chain(&error), "resources of a class cannot be listed");
            Vec::new()
        });
        for (id, resource) in found {
            if let Ok(resources) = seen.entry(id).or_insert_with(|| Ok(BTreeMap::new())) {
                resources.insert(resource, Attached::Yes);
            }
        }
    }
    for order in orders {
        let found = classes.of(&order.resource).and_then(|class| class.observe(order));
        let lease = seen.entry(order.lease.clone()).or_insert_with(|| Ok(BTreeMap::new()));
        match (lease, found) {
            (Err(_), _) => {}
            (Ok(resources), Ok(Attached::No)) => drop(resources.remove(&order.resource)),
            (Ok(resources), Ok(found)) => drop(resources.insert(order.resource.clone(), found)),
            // It fails alone: the rest of its lease can be seen and taken back (law 4).
            (Ok(resources), Err(error)) => {
                let why = Attached::Drifted(Chain(&error).to_string());
                drop(resources.insert(order.resource.clone(), why));
            }
        }
    }
    seen
}

fn refused(resource: &Resource, why: &(dyn std::error::Error + 'static)) -> ClassError {
    ClassError::Refused { doing: format!("handle {resource}"), why: Chain(why).to_string() }
}

/// Runs a class beside the loop; one that panics is an error of its resource.
async fn run<T: Send + 'static>(
    resource: &Resource,
    work: impl FnOnce() -> Result<T, ClassError> + Send + 'static,
) -> Result<T, ClassError> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(refused(resource, &error)))
}
