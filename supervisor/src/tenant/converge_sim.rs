//! A simulated host: refuses unsafe steps, can be cut at any one, fails, hangs, and is slow on demand.

use bulkhead_api::resource::{EXTENT, Quarantined, Resource, ResourceClass};

use super::*;
use crate::class::Attached;
use crate::ledger::Entry;
use crate::tenant::model::{
    Limits, ObservedFiles, ObservedLease, ObservedService, ObservedSlice, ServiceState, given_apart,
};

/// One lease on the simulated host.
#[derive(Debug, Clone, Default)]
pub(super) struct Sim {
    pub(super) slice: Option<Limits>,
    pub(super) service: bool,
    /// Looks until a stopped service is gone.
    pub(super) stopping: Option<u8>,
    pub(super) mounts: usize,
    pub(super) files: ObservedFiles,
    /// Looks until a download is complete.
    pub(super) fetching: Option<u8>,
    /// Given apart, with what of its content is a tenant's.
    pub(super) resources: BTreeMap<Resource, Attached>,
    /// Its program was started since its files are there.
    pub(super) started: bool,
    /// Looks until a resource that is being given beside the loop is.
    pub(super) attaching: BTreeMap<Resource, u8>,
    /// Looks until the end of an erase beside the loop, which the step is to take.
    pub(super) erasing: BTreeMap<Resource, u8>,
}

/// What ends the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// It alone.
    Process,
    /// The whole host; the ledger is on a disk.
    Power,
    /// The whole host; the ledger is gone with it.
    PowerAndLedger,
}

/// The smallest part of a host that one lease at a time can have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unit {
    Cpu(u32),
    /// Of the one pool.
    Extent(u64),
}

/// A kind of step of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Slice,
    Bundle,
    Attach,
    Start,
}

impl Kind {
    pub(super) fn of(step: &Step) -> Option<Self> {
        let kinds = [
            (matches!(step, Step::SetSlice { .. }), Self::Slice),
            (matches!(step, Step::Bundle(_)), Self::Bundle),
            (matches!(step, Step::Attach { .. }), Self::Attach),
            (matches!(step, Step::StartService { .. }), Self::Start),
        ];
        kinds.into_iter().find_map(|(is, kind)| is.then_some(kind))
    }
}

pub(super) fn units(resource: &Resource) -> BTreeSet<Unit> {
    match resource {
        Resource::Cpu { cpus } => cpus.iter().copied().map(Unit::Cpu).collect(),
        Resource::Volume { extents, .. } => extents
            .iter()
            .flat_map(|extent| (extent.start / EXTENT..extent.end() / EXTENT).map(Unit::Extent))
            .collect(),
        Resource::Instance
        | Resource::Memory { .. }
        | Resource::Hugepages { .. }
        | Resource::Cache { .. }
        | Resource::Gpu(_)
        | Resource::Device { .. }
        | Resource::Disk { .. } => BTreeSet::new(),
    }
}

pub(super) fn all_units(entry: &Entry) -> BTreeSet<Unit> {
    entry.holding.resources().iter().flat_map(units).collect()
}

#[derive(Debug, Default)]
pub(super) struct SimHost {
    pub(super) leases: BTreeMap<LeaseId, Sim>,
    pub(super) ledger: Ledger,
    /// What of the host tenants left something in, and who did: nothing but an erase takes it away.
    pub(super) owed: BTreeMap<Unit, LeaseId>,
    /// Classes whose erase leaves the content there.
    pub(super) stubborn: BTreeSet<ResourceClass>,
    /// Steps until the cut, and whether the step at the cut takes effect.
    pub(super) fuel: Option<(usize, bool)>,
    pub(super) slowness: u8,
    /// What is in quarantine is to be erased again.
    pub(super) again: bool,
    /// Leases whose steps fail while this counts down.
    pub(super) broken: BTreeMap<LeaseId, u8>,
    /// Leases of which one kind of step of a grant always fails.
    pub(super) hopeless: BTreeMap<LeaseId, Kind>,
    /// Leases whose volumes are on a disk that does not answer.
    pub(super) hung: BTreeSet<LeaseId>,
    pub(super) steps: usize,
    pub(super) erased: usize,
}

impl SimHost {
    pub(super) fn sim(&mut self, id: &LeaseId) -> &mut Sim {
        self.leases.entry(id.clone()).or_default()
    }

    /// Refuses what would break a law, by panicking.
    pub(super) fn safe(&mut self, step: &Step) {
        let ledger = self.ledger.clone();
        let entry = ledger.entry(step.id()).cloned();
        match step {
            Step::Record(found) if found.releasing => {
                assert!(entry.is_none(), "{step} in place of what the ledger says");
            }
            Step::Record(new) => {
                let wanted = all_units(new);
                for other in ledger.entries.iter().filter(|entry| entry.id != new.id) {
                    let held: BTreeSet<Unit> = ledger.dirty(other).iter().flat_map(units).collect();
                    assert!(held.is_disjoint(&wanted), "{step} while {} holds", other.id);
                }
                for unit in &wanted {
                    let dirty = self.owed.get(unit);
                    assert_eq!(dirty, None, "{step}: {unit:?} was not sanitised");
                }
                for (id, sim) in self.leases.iter().filter(|(id, _)| **id != new.id) {
                    let cpus = sim.slice.as_ref().map(|slice| &slice.cpus);
                    let shared = cpus.is_some_and(|cpus| !cpus.is_disjoint(&new.holding.cpus));
                    assert!(!shared, "{step} while the slice of {id} is there");
                    let works = sim.erasing.keys().chain(sim.attaching.keys());
                    for unit in works.flat_map(units) {
                        assert!(!wanted.contains(&unit), "{step}: {unit:?} is worked on for {id}");
                    }
                }
                let sim = self.sim(&new.id);
                assert!(sim.slice.is_none() && !sim.service, "{step} with a slice or service");
                assert!(!new.holding.cpus.contains(&0), "{step} gives the host's core away");
            }
            Step::Fetch { .. } => assert!(entry.is_some(), "{step} before the ledger knows"),
            Step::Bundle(new) => {
                assert_eq!(entry.as_ref(), Some(&**new), "{step} for another holding");
                assert!(self.sim(&new.id).files != ObservedFiles::Absent, "{step} without image");
                assert!(!self.sim(&new.id).service, "{step} beneath a running program");
            }
            Step::SetSlice { limits, .. } => {
                let entry = entry.expect("a slice before the ledger knows");
                assert_eq!(*limits, Limits::of(&entry), "{step} is not what was recorded");
            }
            Step::Attach { id, resource, .. } => {
                let entry = entry.expect("a resource before the ledger knows");
                assert!(!entry.releasing, "{step} while it is taken back");
                assert!(entry.holding.resources().contains(resource), "{step} is another's");
                assert!(self.sim(id).slice.is_some(), "{step} without limits");
            }
            Step::StartService { id, .. } => {
                let entry = entry.expect("a service before the ledger knows");
                let sim = self.sim(id);
                assert!(!sim.service && sim.stopping.is_none(), "{step} twice");
                assert_eq!(sim.slice, Some(Limits::of(&entry)), "{step} without limits");
                let given = entry.holding.resources().into_iter().filter(given_apart);
                let given = given.map(|resource| (resource, Attached::Yes)).collect();
                assert_eq!(sim.resources, given, "{step} without its resources");
                assert!(!entry.releasing, "{step} while it is taken back");
                assert_eq!(sim.files, ObservedFiles::Bundled(Box::new(entry)), "{step}");
            }
            Step::RemoveSlice(_)
            | Step::RemoveFiles(_)
            | Step::Unmount(_)
            | Step::Forget(_)
            | Step::Sanitise { .. }
            | Step::Release(_)
            | Step::PinVcpus(_)
            | Step::CancelFetch(_)
            | Step::StopService(_) => self.safely_taken(step, &ledger),
        }
    }

    /// The same for steps that take.
    pub(super) fn safely_taken(&mut self, step: &Step, ledger: &Ledger) {
        let entry = ledger.entry(step.id()).cloned();
        match step {
            Step::RemoveSlice(id) => {
                let sim = self.sim(id);
                assert!(!sim.service && sim.stopping.is_none(), "{step} while it runs");
            }
            Step::RemoveFiles(id) | Step::Unmount(id) => {
                let sim = self.sim(id);
                let used = sim.service || sim.stopping.is_some() || sim.fetching.is_some();
                assert!(!used, "{step} while it is used");
            }
            Step::Forget(id) => {
                let sim = self.sim(id);
                let left = sim.service
                    || sim.stopping.is_some()
                    || sim.slice.is_some()
                    || sim.mounts > 0
                    || sim.fetching.is_some()
                    || !sim.attaching.is_empty()
                    || sim.files != ObservedFiles::Absent;
                assert!(!left, "{step} while it is there: {sim:?}");
                let kept = |unit: &Unit| {
                    ledger.quarantine.iter().any(|kept| units(&kept.resource).contains(unit))
                };
                for (unit, who) in self.owed.iter().filter(|(unit, _)| !kept(unit)) {
                    assert_ne!(who, id, "{step}: {unit:?} was not sanitised");
                }
            }
            Step::Sanitise { id, resource } if entry.is_none() => {
                let kept = |kept: &Quarantined| kept.lease == *id && kept.resource == **resource;
                assert!(ledger.quarantine.iter().any(kept), "{step} of nobody");
            }
            Step::Sanitise { id, .. } => {
                assert!(
                    entry.is_some_and(|entry| entry.releasing),
                    "{step} of a lease that is held"
                );
                let sim = self.sim(id);
                let used = sim.service || sim.stopping.is_some() || sim.slice.is_some();
                assert!(!used && sim.mounts == 0, "{step} while it is used");
            }
            Step::Release(_) => assert!(entry.is_some(), "{step} before the ledger knows"),
            Step::PinVcpus(_)
            | Step::CancelFetch(_)
            | Step::StopService(_)
            | Step::Record(_)
            | Step::Fetch { .. }
            | Step::Bundle(_)
            | Step::SetSlice { .. }
            | Step::Attach { .. }
            | Step::StartService { .. } => {}
        }
    }

    pub(super) fn effect(&mut self, step: &Step) -> Outcome {
        let slowness = self.slowness;
        match step {
            Step::Record(entry) => self.ledger.record((**entry).clone()),
            Step::Forget(id) => {
                self.ledger.forget(id);
                self.leases.remove(id);
            }
            Step::Release(id) => self.ledger.release(id),
            Step::Attach { id, resource, .. } => {
                let sim = self.sim(id);
                if slowness > 0 {
                    sim.attaching.entry((**resource).clone()).or_insert(slowness);
                    return Outcome::Pending;
                }
                sim.resources.insert((**resource).clone(), Attached::Yes);
            }
            Step::Sanitise { id, resource } => return self.erase_beside(id, resource),
            Step::PinVcpus(_) => {}
            Step::CancelFetch(id) => self.sim(id).fetching = None,
            Step::Fetch { id, .. } => {
                let sim = self.sim(id);
                if sim.files == ObservedFiles::Fetched {
                    return Outcome::Done;
                }
                if sim.fetching.is_none() {
                    sim.fetching = Some(slowness);
                    sim.files = ObservedFiles::Partial;
                }
                return Outcome::Pending;
            }
            Step::Bundle(entry) => {
                self.sim(&entry.id).files = ObservedFiles::Bundled(entry.clone());
            }
            Step::SetSlice { id, limits, .. } => self.sim(id).slice = Some(limits.clone()),
            Step::StartService { id, .. } => {
                self.sim(id).service = true;
                self.sim(id).started = true;
                let entry = self.ledger.entry(id).cloned().expect("recorded");
                self.owed.extend(all_units(&entry).into_iter().map(|unit| (unit, id.clone())));
            }
            Step::StopService(id) => {
                let sim = self.sim(id);
                if sim.service && slowness > 0 {
                    sim.stopping.get_or_insert(slowness);
                    return Outcome::Pending;
                }
                sim.service = false;
                sim.stopping = None;
            }
            Step::RemoveSlice(id) => self.sim(id).slice = None,
            Step::Unmount(id) => self.sim(id).mounts = 0,
            Step::RemoveFiles(id) => {
                self.sim(id).files = ObservedFiles::Absent;
                self.sim(id).started = false;
            }
        }
        Outcome::Done
    }

    /// What is being given is erased when that is over; what takes long is pending until its end is taken.
    pub(super) fn erase_beside(&mut self, id: &LeaseId, resource: &Resource) -> Outcome {
        let (slowness, hung) = (self.slowness, self.hung.contains(id));
        let sim = self.sim(id);
        if sim.attaching.contains_key(resource) {
            return Outcome::Pending;
        }
        let hangs = hung && resource.class() == ResourceClass::Volume;
        match sim.erasing.get(resource) {
            Some(0) => {}
            Some(_) => return Outcome::Pending,
            None if slowness > 0 || hangs => {
                sim.erasing.insert(resource.clone(), slowness);
                return Outcome::Pending;
            }
            None => {}
        }
        if hangs {
            return Outcome::Pending;
        }
        sim.erasing.remove(resource);
        self.erase(id, resource);
        Outcome::Done
    }

    pub(super) fn erase(&mut self, id: &LeaseId, resource: &Resource) {
        self.erased += 1;
        self.sim(id).resources.remove(resource);
        if self.stubborn.contains(&resource.class()) {
            let (resource, lease) = (resource.clone(), id.clone());
            let reason = "the marker is still there".to_owned();
            return self.ledger.quarantined(Quarantined { resource, lease, reason, since: at(0) });
        }
        self.owed.retain(|unit, who| who != id || !units(resource).contains(unit));
        self.ledger.cleaned(id, resource);
    }

    /// Time goes on between looks.
    pub(super) fn tick(&mut self) {
        for sim in self.leases.values_mut() {
            match sim.fetching {
                Some(0) => {
                    sim.fetching = None;
                    sim.files = ObservedFiles::Fetched;
                }
                Some(left) => sim.fetching = Some(left - 1),
                None => {}
            }
            match sim.stopping {
                Some(0) => {
                    sim.stopping = None;
                    sim.service = false;
                }
                Some(left) => sim.stopping = Some(left - 1),
                None => {}
            }
            for left in sim.erasing.values_mut() {
                *left = left.saturating_sub(1);
            }
            for (resource, left) in std::mem::take(&mut sim.attaching) {
                match left {
                    0 => drop(sim.resources.insert(resource, Attached::Yes)),
                    left => drop(sim.attaching.insert(resource, left - 1)),
                }
            }
        }
    }

    pub(super) fn cut(&mut self, cut: Cut) {
        for sim in self.leases.values_mut() {
            sim.fetching = None;
            // Threads end with the supervisor, wherever they are.
            sim.attaching.clear();
            sim.erasing.clear();
        }
        if cut != Cut::Process {
            self.leases.clear();
        }
        if cut == Cut::PowerAndLedger {
            // Memory, caches and the keys of volumes went with the power.
            self.ledger = Ledger::default();
            self.owed.clear();
        }
    }
}

/// The supervisor is gone.
#[derive(Debug)]
pub(super) struct Gone;

impl LeaseHost for SimHost {
    type ObserveError = Gone;

    fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    async fn observe(&mut self) -> Result<Observed, Gone> {
        if self.fuel.is_some_and(|(left, _)| left == 0) {
            return Err(Gone);
        }
        self.tick();
        let seen = |sim: &Sim| ObservedLease {
            slice: sim.slice.clone().map(|limits| ObservedSlice {
                limits,
                hugepages: None,
                active: true,
                populated: sim.service,
            }),
            service: sim.service.then_some(ObservedService {
                state: match sim.stopping {
                    Some(_) => ServiceState::Stopping,
                    None => ServiceState::Running,
                },
                pid: Some(1),
                restarts: 0,
                exit: None,
            }),
            mounts: sim.mounts,
            files: sim.files.clone(),
            fetching: sim.fetching.is_some(),
            started: sim.started,
            image_digest: None,
            resources: sim.resources.clone(),
            pinned: None,
        };
        let leases = self.leases.iter().map(|(id, sim)| (id.clone(), seen(sim)));
        let leases = leases.filter(|(_, seen)| !seen.is_gone()).collect();
        let all = std::mem::take(&mut self.again);
        let begun = |kept: &&Quarantined| {
            let sim = self.leases.get(&kept.lease);
            all || sim.is_some_and(|sim| sim.erasing.contains_key(&kept.resource))
        };
        let again = self.ledger.quarantine.iter().filter(begun).cloned().collect();
        Ok(Observed { leases, again, ..Observed::default() })
    }

    async fn apply(&mut self, step: &Step) -> Result<Outcome, StepError> {
        let gone = || Err(StepError::NotRecorded(step.id().clone()));
        if let Some((left, takes_effect)) = self.fuel {
            if left == 0 {
                return gone();
            }
            self.fuel = Some((left - 1, takes_effect));
            if left == 1 && !takes_effect {
                return gone();
            }
        }
        self.steps += 1;
        self.safe(step);
        if Kind::of(step).is_some_and(|kind| self.hopeless.get(step.id()) == Some(&kind)) {
            return gone();
        }
        match self.broken.get_mut(step.id()) {
            Some(0) | None => Ok(self.effect(step)),
            Some(left) => {
                *left -= 1;
                gone()
            }
        }
    }
}

/// Seconds after some day.
pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}
