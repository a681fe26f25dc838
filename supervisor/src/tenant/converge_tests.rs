//! `converge` on a simulated host that refuses unsafe steps, cut at any step, judged without `plan`.

use bulkhead_api::inventory::{Disk, DiskClaim};
use bulkhead_api::lease::{LeaseSpec, Volume};
use bulkhead_api::resource::{EXTENT, Quarantined, Resource, ResourceClass};
use bulkhead_api::units::Bytes;
use proptest::prelude::*;

use super::*;
use crate::class::Attached;
use crate::ledger::Entry;
use crate::tenant::model::{
    Limits, ObservedFiles, ObservedLease, ObservedService, ObservedSlice, Refusal, ServiceState,
    given_apart,
};
use crate::tenant::plan::tests::{host, id, spec};

/// One lease on the simulated host.
#[derive(Debug, Clone, Default)]
struct Sim {
    slice: Option<Limits>,
    service: bool,
    /// Looks until a stopped service is gone.
    stopping: Option<u8>,
    mounts: usize,
    files: ObservedFiles,
    /// Looks until a download is complete.
    fetching: Option<u8>,
    /// Given apart, with what of its content is a tenant's.
    resources: BTreeMap<Resource, Attached>,
    /// Its program was started since its files are there.
    started: bool,
    /// Looks until a resource that is being given beside the loop is.
    attaching: BTreeMap<Resource, u8>,
    /// Looks until the end of an erase beside the loop, which the step is to take.
    erasing: BTreeMap<Resource, u8>,
}

/// What ends the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// It alone.
    Process,
    /// The whole host; the ledger is on a disk.
    Power,
    /// The whole host; the ledger is gone with it.
    PowerAndLedger,
}

/// The smallest part of a host that one lease at a time can have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Unit {
    Cpu(u32),
    /// Of the one pool.
    Extent(u64),
}

/// A kind of step of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Slice,
    Bundle,
    Attach,
    Start,
}

impl Kind {
    fn of(step: &Step) -> Option<Self> {
        let kinds = [
            (matches!(step, Step::SetSlice { .. }), Self::Slice),
            (matches!(step, Step::Bundle(_)), Self::Bundle),
            (matches!(step, Step::Attach { .. }), Self::Attach),
            (matches!(step, Step::StartService { .. }), Self::Start),
        ];
        kinds.into_iter().find_map(|(is, kind)| is.then_some(kind))
    }
}

fn units(resource: &Resource) -> BTreeSet<Unit> {
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
        | Resource::Device { .. }
        | Resource::Disk { .. } => BTreeSet::new(),
    }
}

fn all_units(entry: &Entry) -> BTreeSet<Unit> {
    entry.holding.resources().iter().flat_map(units).collect()
}

#[derive(Debug, Default)]
struct SimHost {
    leases: BTreeMap<LeaseId, Sim>,
    ledger: Ledger,
    /// What of the host tenants left something in, and who did: nothing but an erase takes it away.
    owed: BTreeMap<Unit, LeaseId>,
    /// Classes whose erase leaves the content there.
    stubborn: BTreeSet<ResourceClass>,
    /// Steps until the cut, and whether the step at the cut takes effect.
    fuel: Option<(usize, bool)>,
    slowness: u8,
    /// What is in quarantine is to be erased again.
    again: bool,
    /// Leases whose steps fail while this counts down.
    broken: BTreeMap<LeaseId, u8>,
    /// Leases of which one kind of step of a grant always fails.
    hopeless: BTreeMap<LeaseId, Kind>,
    /// Leases whose volumes are on a disk that does not answer.
    hung: BTreeSet<LeaseId>,
    steps: usize,
    erased: usize,
}

impl SimHost {
    fn sim(&mut self, id: &LeaseId) -> &mut Sim {
        self.leases.entry(id.clone()).or_default()
    }

    /// Refuses what would break a law, by panicking.
    fn safe(&mut self, step: &Step) {
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
    fn safely_taken(&mut self, step: &Step, ledger: &Ledger) {
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

    fn effect(&mut self, step: &Step) -> Outcome {
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
    fn erase_beside(&mut self, id: &LeaseId, resource: &Resource) -> Outcome {
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

    fn erase(&mut self, id: &LeaseId, resource: &Resource) {
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
    fn tick(&mut self) {
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

    fn cut(&mut self, cut: Cut) {
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
struct Gone;

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

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

/// Passes, minutes apart, until nothing is left to do; `None` when the supervisor was cut.
fn passes(host: &mut SimHost, desired: &Desired, cores: u32) -> Option<Converged> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut attempts = Attempts::default();
    for pass in 0..80 {
        let now = at(pass * 600);
        let inventory = inventory(cores);
        let future = converge(host, desired, &inventory, &mut attempts, now);
        let converged = runtime.block_on(future).ok()?;
        if converged.plan.steps.is_empty() && converged.observed.given_up.is_empty() {
            assert_eq!(attempts, Attempts::default(), "what is past is forgotten");
            return Some(converged);
        }
    }
    panic!("does not settle: {host:?}");
}

/// Extents of the host's pool.
const EXTENTS: u64 = 24;

fn inventory(cores: u32) -> Inventory {
    let size = Bytes::new(EXTENTS * EXTENT);
    let disk = Disk {
        name: "vda".to_owned(),
        transport: "virtio".to_owned(),
        model: String::new(),
        serial: String::new(),
        size,
        rotational: false,
        bdf: None,
        node: None,
        claim: DiskClaim::Pool { id: "p".to_owned(), size },
    };
    Inventory { disks: vec![disk], ..host(cores) }
}

/// The host beside what is wanted; nothing here asks `plan`.
fn judge(host: &SimHost, desired: &Desired, cores: u32) {
    let mut taken = BTreeSet::new();
    for (id, sim) in &host.leases {
        let there = sim.service || sim.slice.is_some() || sim.files != ObservedFiles::Absent;
        assert!(sim.attaching.is_empty(), "{id}: {sim:?}");
        let Some(spec) = desired.get(id) else {
            assert!(!there, "{id} is not wanted and there: {sim:?}");
            continue;
        };
        if !there {
            continue;
        }
        assert!(sim.service && sim.stopping.is_none(), "{id} does not run");
        let limits = sim.slice.as_ref().expect("limits");
        assert_eq!(u32::try_from(limits.cpus.len()).unwrap(), spec.cpus, "{id}");
        assert_eq!(limits.memory, Some(spec.memory), "{id}");
        for cpu in &limits.cpus {
            assert!((1..cores).contains(cpu) && taken.insert(*cpu), "{id}: core {cpu}");
        }
    }
    let there = |id: &LeaseId| host.leases.get(id).is_some_and(|sim| sim.service);
    let kept: BTreeSet<Unit> =
        host.ledger.quarantine.iter().flat_map(|kept| units(&kept.resource)).collect();
    let lost = |unit: &&Unit| matches!(unit, Unit::Cpu(_));
    let free = cores - 1 - u32::try_from(taken.len() + kept.iter().filter(lost).count()).unwrap();
    let given = |sim: &Sim| sim.resources.keys().flat_map(units).count();
    let given: usize = host.leases.values().map(given).sum();
    let stored = kept.iter().filter(|unit| matches!(unit, Unit::Extent(_))).count();
    let room = EXTENTS - u64::try_from(given + stored).unwrap();
    for (id, spec) in desired {
        // One node and little memory: cores and storage alone decide.
        let need: u64 = spec.volumes.iter().map(|v| v.extent_bytes() / EXTENT).sum();
        let short = spec.cpus > free || need > room;
        let earlier = host.ledger.quarantine.iter().any(|kept| kept.lease == *id);
        assert!(there(id) || short || earlier, "{id} has room and is not granted: {room} extents");
    }
    for Entry { id, .. } in &host.ledger.entries {
        assert!(there(id), "the ledger holds for {id}, which is not there");
    }
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn orders() -> impl Strategy<Value = Desired> {
    let lease = (0..NAMES.len(), 1_u32..4, 16_u64..64, prop::option::of(32_u64..70));
    prop::collection::vec(lease, 0..5).prop_map(|leases| {
        let one = |(name, cpus, mib, stored): (usize, u32, u64, Option<u64>)| {
            let volumes = stored.map(|mib| Volume {
                name: "data".parse().unwrap(),
                size: Bytes::new(mib << 20),
                local: true,
                path: None,
            });
            let volumes = volumes.into_iter().collect();
            (id(NAMES[name]), LeaseSpec { volumes, ..spec(cpus, mib) })
        };
        leases.into_iter().map(one).collect()
    })
}

fn cuts() -> impl Strategy<Value = (usize, bool, Cut)> {
    let cut = prop_oneof![Just(Cut::Process), Just(Cut::Power), Just(Cut::PowerAndLedger)];
    (1_usize..30, any::<bool>(), cut)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Orders follow each other; in each the supervisor is cut, also while it recovers from the last cut.
    #[test]
    fn a_host_cut_anywhere_converges_and_no_step_is_unsafe(
        cores in 2_u32..6,
        slowness in 0_u8..3,
        stubborn in any::<bool>(),
        rounds in prop::collection::vec((orders(), prop::collection::vec(cuts(), 0..3)), 1..4),
    ) {
        let stubborn = stubborn.then_some(ResourceClass::Volume).into_iter().collect();
        let mut host = SimHost { slowness, stubborn, ..SimHost::default() };
        for (desired, cuts) in rounds {
            for (steps, takes_effect, cut) in cuts {
                host.fuel = Some((steps, takes_effect));
                passes(&mut host, &desired, cores);
                host.fuel = None;
                host.cut(cut);
            }
            passes(&mut host, &desired, cores);
            judge(&host, &desired, cores);
        }
    }

    /// What somebody else left or changed on the host, and steps that fail for a while.
    #[test]
    fn a_host_in_any_state_converges(
        desired in orders(),
        strays in prop::collection::vec((0..NAMES.len(), 1_u32..4, any::<[bool; 4]>()), 0..3),
        broken in prop::collection::btree_map(0..NAMES.len(), 1_u8..4, 0..3),
    ) {
        let broken = broken.into_iter().map(|(name, count)| (id(NAMES[name]), count)).collect();
        let mut host = SimHost { slowness: 1, broken, ..SimHost::default() };
        for (name, cpu, [slice, service, files, mounted]) in strays {
            let sim = host.sim(&id(NAMES[name]));
            if slice {
                sim.slice = Some(Limits { cpus: BTreeSet::from([cpu]), ..Limits::default() });
            }
            sim.service = service;
            if files {
                sim.files = ObservedFiles::Fetched;
            }
            sim.mounts = usize::from(mounted);
        }
        passes(&mut host, &desired, 4);
        judge(&host, &desired, 4);
    }
}

fn volume(mib: u64) -> Vec<Volume> {
    let (name, size) = ("data".parse().unwrap(), Bytes::new(mib << 20));
    vec![Volume { name, size, local: true, path: None }]
}

proptest! {
    /// A disk that does not answer: the lease on it cannot be taken back whole, and nobody else is held up.
    #[test]
    fn an_erase_that_hangs_keeps_its_own_resource_and_no_other(
        slowness in 0_u8..3,
        others in orders(),
        restarts in prop::collection::vec(0_i64..20, 0..3),
    ) {
        let mut host = SimHost { slowness, ..SimHost::default() };
        let stored = LeaseSpec { volumes: volume(40), ..spec(2, 64) };
        passes(&mut host, &Desired::from([(id("hung"), stored)]), 6);
        host.hung.insert(id("hung"));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut attempts = Attempts::default();
        for pass in 0..20 {
            if restarts.contains(&pass) {
                host.cut(Cut::Process);
                attempts = Attempts::default();
            }
            let inventory = inventory(6);
            let pass = converge(&mut host, &others, &inventory, &mut attempts, at(pass * 600));
            runtime.block_on(pass).unwrap();
        }
        let entry = host.ledger.entry(&id("hung")).expect("its volume is dirty").clone();
        let dirty: Vec<ResourceClass> =
            host.ledger.dirty(&entry).iter().map(Resource::class).collect();
        prop_assert_eq!(dirty, [ResourceClass::Volume], "cores and memory are others'");
        // All cores but the host's and the one of which the ids are made, and the extents besides.
        let lost = entry.holding.volumes.iter().flat_map(|v| &v.extents).map(|e| e.length).sum::<u64>();
        let need = |spec: &LeaseSpec| -> u64 {
            spec.volumes.iter().map(|v| v.extent_bytes() / EXTENT).sum()
        };
        let there = |name: &LeaseId| host.leases.get(name).is_some_and(|sim| sim.service);
        let granted = || others.iter().filter(|(name, _)| there(name)).map(|(_, spec)| spec);
        let cores = 4 - granted().map(|spec| spec.cpus).sum::<u32>();
        let room = EXTENTS - lost / EXTENT - granted().map(need).sum::<u64>();
        for (name, spec) in others.iter().filter(|(name, _)| !there(name)) {
            prop_assert!(spec.cpus > cores || need(spec) > room, "{} has room", name);
        }
        host.hung.clear();
        passes(&mut host, &others, 6);
        judge(&host, &others, 6);
    }

    /// `a` can never start and has all the cores when `b` comes: not for longer than the deadline, time and again.
    #[test]
    fn a_lease_that_can_never_start_keeps_its_resources_from_nobody_for_long(
        kind in prop_oneof![Just(Kind::Slice), Just(Kind::Bundle), Just(Kind::Attach), Just(Kind::Start)],
        slowness in 0_u8..3,
        pauses in prop::collection::vec(1_i64..300, 60..120),
        late in 0_usize..10,
    ) {
        let mut host = SimHost { slowness, ..SimHost::default() };
        host.hopeless.insert(id("a"), kind);
        let hopeless = LeaseSpec { volumes: volume(64), ..spec(2, 64) };
        let first = Desired::from([(id("a"), hopeless)]);
        let both = first.clone().into_iter().chain([(id("b"), spec(2, 64))]).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (mut attempts, mut now, mut held) = (Attempts::default(), 0, None);
        let longest = GRANT_DEADLINE.as_secs() + LONGEST_PAUSE.as_secs();
        for (number, pause) in pauses.into_iter().enumerate() {
            let desired = if number < late { &first } else { &both };
            let inventory = inventory(3);
            let pass = converge(&mut host, desired, &inventory, &mut attempts, at(now));
            runtime.block_on(pass).unwrap();
            let holds = host.ledger.entry(&id("a")).is_some_and(|entry| !entry.releasing);
            held = holds.then(|| held.unwrap_or(now));
            // One pass is as late as the pause before it; a slow step of a round takes some more looks.
            let since = held.map_or(0, |since| now - since);
            prop_assert!(since <= longest + 6 * 300, "held for {since} s");
            now += pause;
        }
        for _ in 0..10 {
            let inventory = inventory(3);
            let pass = converge(&mut host, &both, &inventory, &mut attempts, at(now));
            runtime.block_on(pass).unwrap();
            now += 120;
        }
        prop_assert!(host.leases.get(&id("b")).is_some_and(|sim| sim.service), "{:?}", host.leases);
        let entry = host.ledger.entry(&id("a"));
        prop_assert_eq!(entry, None, "nothing is left of a grant that was given up");
        // Once it can start and has room, it does.
        host.hopeless.clear();
        let mut alone = both.clone();
        alone.remove(&id("b"));
        for _ in 0..10 {
            let inventory = inventory(3);
            let pass = converge(&mut host, &alone, &inventory, &mut attempts, at(now));
            runtime.block_on(pass).unwrap();
            now += ANEW_LAST.as_secs();
        }
        judge(&host, &alone, 3);
    }
}

#[test]
fn a_lease_that_ran_is_never_given_up() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut host = SimHost::default();
    let desired = Desired::from([(id("a"), LeaseSpec { volumes: volume(64), ..spec(1, 64) })]);
    passes(&mut host, &desired, 3);
    let sim = host.sim(&id("a"));
    sim.slice = Some(Limits::default());
    sim.service = false;
    host.hopeless.insert(id("a"), Kind::Slice);
    let mut attempts = Attempts::default();
    for minute in 0..60 {
        let inventory = inventory(3);
        let pass = converge(&mut host, &desired, &inventory, &mut attempts, at(minute * 60));
        runtime.block_on(pass).unwrap();
    }
    assert!(!host.ledger.entry(&id("a")).unwrap().releasing, "its volume is the tenant's");
    assert!(attempts.failures[&id("a")].count > GRANT_MOST);
    host.hopeless.clear();
    passes(&mut host, &desired, 3);
    judge(&host, &desired, 3);
}

#[test]
fn a_clock_that_jumps_gives_up_no_grant_at_its_first_failures() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut host = SimHost { broken: BTreeMap::from([(id("a"), 2)]), ..SimHost::default() };
    let desired = Desired::from([(id("a"), spec(1, 64))]);
    let mut attempts = Attempts::default();
    let years = 10 * 365 * 86_400;
    for second in [0, years, years + 600, years + 1200] {
        let inventory = inventory(3);
        let pass = converge(&mut host, &desired, &inventory, &mut attempts, at(second));
        runtime.block_on(pass).unwrap();
        assert_eq!(attempts.given_up, BTreeMap::new());
    }
    judge(&host, &desired, 3);
}

#[test]
fn what_is_not_clean_is_kept_from_everybody_until_it_is() {
    let mut host = SimHost::default();
    host.stubborn.insert(ResourceClass::Cpu);
    let one = |name| Desired::from([(id(name), spec(1, 64))]);
    passes(&mut host, &one("a"), 3);
    passes(&mut host, &one("b"), 3);
    assert_eq!(host.ledger.quarantine.len(), 1, "the core of a");
    judge(&host, &one("b"), 3);
    let end = passes(&mut host, &one("c"), 3).unwrap();
    assert_eq!(host.ledger.quarantine.len(), 2);
    assert!(matches!(end.plan.refused.get(&id("c")), Some(Refusal::Shortage(_))));
    host.stubborn.clear();
    host.again = true;
    passes(&mut host, &one("c"), 3);
    assert_eq!(host.ledger.quarantine, []);
    judge(&host, &one("c"), 3);
}

#[test]
fn a_resource_whose_erase_fails_holds_up_no_other_one() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut host = SimHost::default();
    let mut attempts = Attempts::default();
    passes(&mut host, &Desired::from([(id("a"), spec(1, 64))]), 3);
    let leave = host.leases.remove(&id("a")).map(|_| Desired::new()).unwrap();
    host.ledger.release(&id("a"));
    host.ledger.cleaned(&id("a"), &Resource::Instance);
    host.broken.insert(id("a"), 1);
    let inventory = inventory(3);
    runtime.block_on(converge(&mut host, &leave, &inventory, &mut attempts, at(0))).unwrap();
    let entry = host.ledger.entry(&id("a")).expect("memory has no receipt");
    let clean: Vec<ResourceClass> = entry.clean.iter().map(Resource::class).collect();
    assert_eq!(clean, [ResourceClass::Instance, ResourceClass::Cpu], "memory failed");
    assert!(attempts.failures.contains_key(&id("a")));
}

#[test]
fn a_lease_given_up_halfway_is_taken_back_whole_before_it_is_granted_anew() {
    let mut host = SimHost::default();
    let wanted = Desired::from([(id("a"), spec(1, 64))]);
    passes(&mut host, &wanted, 3);
    host.fuel = Some((1, true));
    passes(&mut host, &Desired::new(), 3);
    host.fuel = None;
    assert!(host.ledger.entry(&id("a")).unwrap().releasing);
    let begun = host.erased;
    for _ in 0..2 {
        passes(&mut host, &wanted, 3);
        assert_eq!(host.erased, begun + 3, "instance, memory and cores, once");
    }
    judge(&host, &wanted, 3);
}

#[test]
fn a_settled_host_is_left_alone() {
    let mut host = SimHost::default();
    let desired = Desired::from([(id("a"), spec(1, 64)), (id("b"), spec(1, 64))]);
    passes(&mut host, &desired, 4);
    let steps = host.steps;
    passes(&mut host, &desired, 4);
    assert_eq!(host.steps, steps);
}

#[test]
fn a_failed_grant_pauses_longer_each_time() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut host = SimHost { broken: BTreeMap::from([(id("a"), 4)]), ..SimHost::default() };
    let desired = Desired::from([(id("a"), spec(1, 64))]);
    let mut attempts = Attempts::default();
    let mut pass = |desired: &Desired, second| {
        runtime
            .block_on(converge(&mut host, desired, &inventory(4), &mut attempts, at(second)))
            .unwrap();
        attempts.failures.get(&id("a")).map(|failure| (failure.count, failure.next))
    };
    assert_eq!(pass(&desired, 0), Some((1, at(1))));
    assert_eq!(pass(&desired, 0), Some((1, at(1))), "not before its time");
    assert_eq!(pass(&desired, 1), Some((2, at(3))));
    assert_eq!(pass(&desired, 3), Some((3, at(7))));
}

#[test]
fn a_pause_noted_by_a_clock_that_was_years_ahead_is_over() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut host = SimHost { broken: BTreeMap::from([(id("a"), 1)]), ..SimHost::default() };
    let desired = Desired::from([(id("a"), spec(1, 64))]);
    let mut attempts = Attempts::default();
    let mut pass = |second| {
        let inventory = inventory(4);
        let pass = converge(&mut host, &desired, &inventory, &mut attempts, at(second));
        runtime.block_on(pass).unwrap();
        attempts.failures.contains_key(&id("a"))
    };
    let years = 10 * 365 * 86_400;
    assert!(pass(years));
    pass(0);
    assert!(!pass(1), "done, though the pause would last for years");
}

#[test]
fn taking_back_does_not_wait_for_the_pause_of_a_failed_grant() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut host = SimHost { slowness: 5, ..SimHost::default() };
    let desired = Desired::from([(id("a"), spec(1, 64))]);
    let mut attempts = Attempts::default();
    let mut pass = |host: &mut SimHost, desired: &Desired| {
        let inventory = inventory(4);
        let pass = converge(host, desired, &inventory, &mut attempts, at(0));
        runtime.block_on(pass).unwrap();
        attempts.failures.get(&id("a")).map(|failure| failure.revoking)
    };
    assert_eq!(pass(&mut host, &desired), None, "recorded, and being fetched");
    host.broken.insert(id("a"), 1);
    assert_eq!(pass(&mut host, &desired), Some(false));
    assert_eq!(pass(&mut host, &Desired::new()), None);
    assert!(host.ledger.entry(&id("a")).unwrap().releasing, "its erases are slow");
    for _ in 0..40 {
        pass(&mut host, &Desired::new());
    }
    assert!(host.ledger.entries.is_empty() && host.leases.is_empty());
}
