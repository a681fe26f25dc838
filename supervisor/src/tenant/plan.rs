//! `plan`: every revoke over all leases, then the grants. Pure and total.
//!
//! ```text
//!  not wanted ──► cancel fetch ► stop service ► remove slice ► unmount ► remove files ► forget
//!  wanted     ──► record ► fetch ► bundle ► set slice ► start service        (only what is missing)
//! ```
//!
//! A lease whose spec changed is taken back and granted anew. Room that a lease being taken back still holds
//! is not given out before the ledger forgot it: such a grant is refused for now ([`Refusal::WaitsFor`])
//! and comes with the look after. An impossible grant is a refusal and never holds up a revoke (law 2).

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_api::id::LeaseId;
use bulkhead_api::inventory::Inventory;
use bulkhead_api::lease::{Holding, LeaseSpec, RestartPolicy};
use bulkhead_lease::place::{Request, Shortage, place};

use crate::ledger::{Entry, Ledger};
use crate::oci::reference::Reference;
use crate::tenant::model::{
    Desired, Limits, Observed, ObservedFiles, ObservedLease, Refusal, ServiceState, Step,
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
        if entry.is_none_or(|entry| desired.get(id) != Some(&entry.spec)) {
            plan.steps.extend(revoke(id, seen(id), entry.is_some()));
            plan.revoked.insert(id.clone());
        }
    }
    let mut held = held(observed, ledger);
    // Nobody knows what these hold: any core may be theirs.
    let unknown: Vec<LeaseId> =
        observed.unreadable.keys().filter(|id| ledger.entry(id).is_none()).cloned().collect();
    for (id, spec) in desired {
        if observed.unreadable.contains_key(id) || plan.revoked.contains(id) {
            continue;
        }
        let entry = match ledger.entry(id) {
            Some(entry) => entry.clone(),
            None if let Some(why) = &observed.shared => {
                plan.refused.insert(id.clone(), Refusal::NotIsolated(why.clone()));
                continue;
            }
            None if !unknown.is_empty() => {
                plan.refused.insert(id.clone(), Refusal::Unknown(unknown.clone()));
                continue;
            }
            None => match new_entry(id, spec, inventory, &held, &plan.revoked) {
                Ok(entry) => entry,
                Err(refusal) => {
                    plan.refused.insert(id.clone(), refusal);
                    continue;
                }
            },
        };
        held.insert(id.clone(), entry.holding.clone());
        plan.steps.extend(grant(entry, seen(id), ledger.entry(id).is_none()));
    }
    plan
}

fn revoke(id: &LeaseId, seen: &ObservedLease, recorded: bool) -> Vec<Step> {
    let steps = [
        (seen.fetching, Step::CancelFetch(id.clone())),
        (seen.service.is_some(), Step::StopService(id.clone())),
        (seen.slice.is_some(), Step::RemoveSlice(id.clone())),
        (seen.mounts > 0, Step::Unmount(id.clone())),
        // What is being fetched has files, seen or not.
        (seen.fetching || seen.files != ObservedFiles::Absent, Step::RemoveFiles(id.clone())),
        (recorded, Step::Forget(id.clone())),
    ];
    steps.into_iter().filter_map(|(needed, step)| needed.then_some(step)).collect()
}

/// What cannot be given out: all that the ledger holds, and what a slice without an entry was seen to hold.
fn held(observed: &Observed, ledger: &Ledger) -> BTreeMap<LeaseId, Holding> {
    let mut held = ledger.held();
    for (id, seen) in &observed.leases {
        if let Some(slice) = &seen.slice {
            held.entry(id.clone()).or_insert_with(|| slice.limits.holding());
        }
    }
    held
}

fn new_entry(
    id: &LeaseId,
    spec: &LeaseSpec,
    inventory: &Inventory,
    held: &BTreeMap<LeaseId, Holding>,
    revoked: &BTreeSet<LeaseId>,
) -> Result<Entry, Refusal> {
    spec.check().map_err(|(field, message)| Refusal::Spec { field, message })?;
    let _: Reference = spec.workload.image.parse().map_err(|error| Refusal::Spec {
        field: "spec.workload.image",
        message: format!("{error}"),
    })?;
    let request = Request { cores: spec.cpus, memory: spec.memory };
    match place(inventory, held, request) {
        Ok(holding) => Ok(Entry { id: id.clone(), spec: spec.clone(), holding }),
        Err(shortage) => Err(shortage_now(&shortage, inventory, held, revoked, request)),
    }
}

/// Whether room is to come from leases that are on their way out.
fn shortage_now(
    shortage: &Shortage,
    inventory: &Inventory,
    held: &BTreeMap<LeaseId, Holding>,
    revoked: &BTreeSet<LeaseId>,
    request: Request,
) -> Refusal {
    let mut later = held.clone();
    later.retain(|id, _| !revoked.contains(id));
    if later.len() < held.len() && place(inventory, &later, request).is_ok() {
        return Refusal::WaitsFor(held.keys().filter(|id| revoked.contains(id)).cloned().collect());
    }
    Refusal::Shortage(shortage.to_string())
}

fn grant(entry: Entry, seen: &ObservedLease, new: bool) -> Vec<Step> {
    let id = entry.id.clone();
    let restart = entry.spec.workload.restart;
    let limits = Limits::of(&entry.holding);
    let mut steps = Vec::new();
    if new {
        steps.push(Step::Record(Box::new(entry.clone())));
    }
    let bundled = matches!(&seen.files, ObservedFiles::Bundled(made_for) if **made_for == entry);
    let mut runs = seen.service.is_some();
    if !bundled {
        if runs {
            // Its files were lost beneath it: it could not be started again as it is.
            steps.push(Step::StopService(id.clone()));
            runs = false;
        }
        if seen.files != ObservedFiles::Fetched {
            let image = entry.spec.workload.image.clone();
            steps.push(Step::Fetch { id: id.clone(), image });
        }
        steps.push(Step::Bundle(Box::new(entry)));
    }
    let there = seen.slice.as_ref().filter(|slice| slice.active);
    let drift = there.map(|slice| slice.limits.drift(&limits)).unwrap_or_default();
    if there.is_none() || !drift.is_empty() {
        steps.push(Step::SetSlice { id: id.clone(), limits, drift });
    }
    let state = seen.service.map(|service| service.state);
    // systemd never leaves such a unit alone by itself: somebody else stopped it.
    let cut_off = state == Some(ServiceState::Failed) && restart != RestartPolicy::Never;
    if cut_off && runs {
        steps.push(Step::StopService(id.clone()));
    }
    if !runs || cut_off || state == Some(ServiceState::Stopped) {
        steps.push(Step::StartService { id, restart });
    }
    steps
}

#[cfg(test)]
#[path = "plan_tests.rs"]
pub(crate) mod tests;
