//! `plan`: every revoke over all leases, then the grants. Pure and total.
//!
//! ```text
//!  not wanted ──► release ► cancel fetch ► stop service ► remove slice ► unmount ► remove files
//!                 ► sanitise, resource by resource ► forget
//!  wanted     ──► record ► fetch ► set slice ► attach, resource by resource ► bundle ► start ► pin
//!                                                                           (only what is missing)
//! ```
//!
//! A lease whose spec changed is taken back and granted anew, and one whose grant was given up is taken back whole and
//! not let in again before its time. A resource of a lease that is being taken back is
//! not given out before it has a receipt (law 3): such a grant is refused for now ([`Refusal::WaitsFor`])
//! and comes with the look after. An impossible grant is a refusal and never holds up a revoke (law 2). What is
//! there without a record is recorded first, as something to be taken back, so that it is sanitised as well.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_api::id::LeaseId;
use bulkhead_api::inventory::Inventory;
use bulkhead_api::lease::{LeaseSpec, RestartPolicy};
use bulkhead_lease::place::{Request, Shortage, Taken, place};

use crate::class::Attached;
use crate::ledger::{Entry, Ledger};
use crate::oci::reference::Reference;
use crate::tenant::model::{
    Desired, Limits, Observed, ObservedFiles, ObservedLease, Refusal, ServiceState, Step,
    given_apart,
};

/// What to do now, in order, and what cannot be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Steps of one lease depend on each other in their order; those of different leases do not.
    pub steps: Vec<Step>,
    /// Wanted leases that are not granted, with the reason.
    pub refused: BTreeMap<LeaseId, Refusal>,
    /// Leases that are being taken back.
    pub revoked: BTreeSet<LeaseId>,
}

/// Decides the steps from what is wanted to what is.
#[must_use]
pub fn plan(
    desired: &Desired,
    observed: &Observed,
    ledger: &Ledger,
    inventory: &Inventory,
) -> Plan {
    let mut plan = Plan::default();
    let nothing = ObservedLease::default();
    let seen = |id: &LeaseId| observed.leases.get(id).unwrap_or(&nothing);
    let found: BTreeSet<&LeaseId> = observed
        .leases
        .keys()
        .chain(ledger.entries.iter().map(|entry| &entry.id))
        .filter(|id| !observed.unreadable.contains_key(*id))
        .collect();
    for id in found {
        let entry = ledger.entry(id);
        let wanted = desired.get(id).filter(|_| !observed.given_up.contains_key(id));
        if entry.is_none_or(|entry| entry.releasing || wanted != Some(&entry.spec)) {
            plan.steps.extend(revoke(id, seen(id), ledger));
            plan.revoked.insert(id.clone());
        }
    }
    let runs = |id: &LeaseId| ledger.entry(id).is_some_and(|entry| !entry.releasing);
    // What is called the same may be a part of what a lease has now.
    for kept in observed.again.iter().filter(|kept| !runs(&kept.lease)) {
        let (id, resource) = (kept.lease.clone(), Box::new(kept.resource.clone()));
        plan.steps.push(Step::Sanitise { id, resource });
    }
    let mut taken = taken(observed, ledger);
    // Nobody knows what these hold: any core may be theirs.
    let unknown: Vec<LeaseId> =
        observed.unreadable.keys().filter(|id| ledger.entry(id).is_none()).cloned().collect();
    for (id, spec) in desired {
        if observed.unreadable.contains_key(id) || plan.revoked.contains(id) {
            continue;
        }
        let entry = match ledger.entry(id) {
            Some(entry) => entry.clone(),
            None => {
                let barred = barred(id, observed, ledger, &unknown);
                let new = || new_entry(id, spec, inventory, &taken, &plan.revoked);
                match barred.map_or_else(new, Err) {
                    Ok(entry) => entry,
                    Err(refusal) => {
                        plan.refused.insert(id.clone(), refusal);
                        continue;
                    }
                }
            }
        };
        taken.held.insert(id.clone(), entry.holding.clone());
        plan.steps.extend(grant(entry, seen(id), ledger.entry(id).is_none()));
    }
    plan
}

/// Why a lease that holds nothing yet is not let in now, whatever room there is.
fn barred(
    id: &LeaseId,
    observed: &Observed,
    ledger: &Ledger,
    unknown: &[LeaseId],
) -> Option<Refusal> {
    if let Some(given_up) = observed.given_up.get(id) {
        return Some(Refusal::GivenUp(Box::new(given_up.clone())));
    }
    if let Some(why) = &observed.shared {
        return Some(Refusal::NotIsolated(why.clone()));
    }
    if let Some(why) = &observed.unlisted {
        return Some(Refusal::Unlisted(why.clone()));
    }
    if let Some(kept) = ledger.quarantine.iter().find(|kept| kept.lease == *id) {
        return Some(Refusal::Quarantined(Box::new(kept.resource.clone())));
    }
    (!unknown.is_empty()).then(|| Refusal::Unknown(unknown.to_vec()))
}

fn revoke(id: &LeaseId, seen: &ObservedLease, ledger: &Ledger) -> Vec<Step> {
    let entry = ledger.entry(id);
    let mut steps = Vec::new();
    match entry {
        Some(entry) if entry.releasing => {}
        Some(_) => steps.push(Step::Release(id.clone())),
        None => steps.extend(seen.stray(id).map(|stray| Step::Record(Box::new(stray)))),
    }
    let there = [
        (seen.fetching, Step::CancelFetch(id.clone())),
        (seen.service.is_some(), Step::StopService(id.clone())),
        (seen.slice.is_some(), Step::RemoveSlice(id.clone())),
        (seen.mounts > 0, Step::Unmount(id.clone())),
        // What is being fetched has files, seen or not.
        (seen.fetching || seen.files != ObservedFiles::Absent, Step::RemoveFiles(id.clone())),
    ];
    steps.extend(there.into_iter().filter_map(|(needed, step)| needed.then_some(step)));
    if let Some(entry) = entry {
        let dirty = ledger.dirty(entry);
        if dirty.is_empty() {
            steps.push(Step::Forget(id.clone()));
        }
        let sanitise = |resource| Step::Sanitise { id: id.clone(), resource: Box::new(resource) };
        steps.extend(dirty.into_iter().map(sanitise));
    }
    steps
}

/// What cannot be given out: what the ledger says, and what is there without a record.
fn taken(observed: &Observed, ledger: &Ledger) -> Taken {
    let mut taken = ledger.taken();
    for (id, seen) in &observed.leases {
        if let (None, Some(stray)) = (ledger.entry(id), seen.stray(id)) {
            taken.held.insert(id.clone(), stray.kept());
        }
    }
    taken
}

fn new_entry(
    id: &LeaseId,
    spec: &LeaseSpec,
    inventory: &Inventory,
    taken: &Taken,
    revoked: &BTreeSet<LeaseId>,
) -> Result<Entry, Refusal> {
    spec.check().map_err(|(field, message)| Refusal::Spec { field, message })?;
    let _: Reference = spec.workload.image.parse().map_err(|error| Refusal::Spec {
        field: "spec.workload.image".to_owned(),
        message: format!("{error}"),
    })?;
    let request = Request::of(spec);
    match place(inventory, taken, &request) {
        Ok(holding) => Ok(Entry::granted(id.clone(), spec.clone(), holding)),
        Err(shortage) => Err(shortage_now(&shortage, inventory, taken, revoked, &request)),
    }
}

/// Whether room is to come from leases that are on their way out.
fn shortage_now(
    shortage: &Shortage,
    inventory: &Inventory,
    taken: &Taken,
    revoked: &BTreeSet<LeaseId>,
    request: &Request,
) -> Refusal {
    let mut later = taken.clone();
    later.held.retain(|id, _| !revoked.contains(id));
    if later.held.len() < taken.held.len() && place(inventory, &later, request).is_ok() {
        let going = taken.held.keys().filter(|id| revoked.contains(id));
        return Refusal::WaitsFor(going.cloned().collect());
    }
    Refusal::Shortage(shortage.to_string())
}

fn grant(entry: Entry, seen: &ObservedLease, new: bool) -> Vec<Step> {
    let id = entry.id.clone();
    let restart = entry.spec.workload.restart;
    let limits = Limits::of(&entry);
    let mut steps = Vec::new();
    if new {
        steps.push(Step::Record(Box::new(entry.clone())));
    }
    let bundled = matches!(&seen.files, ObservedFiles::Bundled(made_for) if **made_for == entry);
    let wanted: Vec<_> = entry.holding.resources().into_iter().filter(given_apart).collect();
    let complete = wanted.iter().all(|resource| seen.resources.contains_key(resource));
    let mut runs = seen.service.is_some();
    if runs && !(bundled && complete) {
        // What it stands on was lost beneath it: it could not be started again as it is.
        steps.push(Step::StopService(id.clone()));
        runs = false;
    }
    if !bundled && seen.files != ObservedFiles::Fetched {
        let image = entry.spec.workload.image.clone();
        steps.push(Step::Fetch { id: id.clone(), image });
    }
    let there = seen.slice.as_ref().filter(|slice| slice.active);
    let mut drift = there.map(|slice| slice.limits.drift(&limits)).unwrap_or_default();
    drift.extend(there.and_then(|slice| slice.hugepages.clone()));
    if there.is_none() || !drift.is_empty() {
        steps.push(Step::SetSlice { id: id.clone(), limits, drift });
    }
    for resource in wanted {
        let drift = match seen.resources.get(&resource) {
            Some(Attached::Yes) => continue,
            Some(Attached::Drifted(how)) => Some(how.clone()),
            // What runs is left alone; what does not is not started on what cannot be seen.
            Some(Attached::Unseen(_)) if runs => continue,
            Some(Attached::No | Attached::Unseen(_)) | None => None,
        };
        steps.push(Step::Attach { id: id.clone(), resource: Box::new(resource), drift });
    }
    if !bundled {
        steps.push(Step::Bundle(Box::new(entry)));
    }
    let state = seen.service.map(|service| service.state);
    // systemd never leaves such a unit alone by itself: somebody else stopped it.
    let cut_off = state == Some(ServiceState::Failed) && restart != RestartPolicy::Never;
    if cut_off && runs {
        steps.push(Step::StopService(id.clone()));
    }
    if !runs || cut_off || state == Some(ServiceState::Stopped) {
        steps.push(Step::StartService { id, restart });
    } else if seen.pinned == Some(false) {
        steps.push(Step::PinVcpus(id));
    }
    steps
}

#[cfg(test)]
#[path = "plan_tests.rs"]
pub(crate) mod tests;
