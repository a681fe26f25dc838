//! `converge` on a simulated host that refuses unsafe steps, cut at any step, judged without `plan`.

use proptest::prelude::*;

use super::*;
use crate::ledger::Entry;
use crate::tenant::model::{
    Limits, ObservedFiles, ObservedLease, ObservedService, ObservedSlice, ServiceState,
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

#[derive(Debug, Default)]
struct SimHost {
    leases: BTreeMap<LeaseId, Sim>,
    ledger: Ledger,
    /// Steps until the cut, and whether the step at the cut takes effect.
    fuel: Option<(usize, bool)>,
    slowness: u8,
    /// Leases whose steps fail while this counts down.
    broken: BTreeMap<LeaseId, u8>,
    steps: usize,
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
            Step::Record(new) => {
                for other in ledger.entries.iter().filter(|entry| entry.id != new.id) {
                    let shared = !other.holding.cpus.is_disjoint(&new.holding.cpus);
                    assert!(!shared, "{step} while {} holds", other.id);
                }
                for (id, sim) in self.leases.iter().filter(|(id, _)| **id != new.id) {
                    let cpus = sim.slice.as_ref().map(|slice| &slice.cpus);
                    let shared = cpus.is_some_and(|cpus| !cpus.is_disjoint(&new.holding.cpus));
                    assert!(!shared, "{step} while the slice of {id} is there");
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
                let holding = entry.expect("a slice before the ledger knows").holding;
                assert_eq!(*limits, Limits::of(&holding), "{step} is not what was recorded");
            }
            Step::StartService { id, .. } => {
                let entry = entry.expect("a service before the ledger knows");
                let sim = self.sim(id);
                assert!(!sim.service && sim.stopping.is_none(), "{step} twice");
                assert_eq!(sim.slice, Some(Limits::of(&entry.holding)), "{step} without limits");
                assert_eq!(sim.files, ObservedFiles::Bundled(Box::new(entry)), "{step}");
            }
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
                    || sim.files != ObservedFiles::Absent;
                assert!(!left, "{step} while it is there: {sim:?}");
            }
            Step::CancelFetch(_) | Step::StopService(_) => {}
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
            Step::StartService { id, .. } => self.sim(id).service = true,
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
            Step::RemoveFiles(id) => self.sim(id).files = ObservedFiles::Absent,
        }
        Outcome::Done
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
        }
    }

    fn cut(&mut self, cut: Cut) {
        for sim in self.leases.values_mut() {
            sim.fetching = None;
        }
        if cut != Cut::Process {
            self.leases.clear();
        }
        if cut == Cut::PowerAndLedger {
            self.ledger = Ledger::default();
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
            image_digest: None,
        };
        let leases = self.leases.iter().map(|(id, sim)| (id.clone(), seen(sim)));
        let leases = leases.filter(|(_, seen)| !seen.is_gone()).collect();
        Ok(Observed { leases, ..Observed::default() })
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
    let mut failures = Failures::new();
    for pass in 0..40 {
        let now = at(pass * 600);
        let inventory = inventory(cores);
        let future = converge(host, desired, &inventory, &mut failures, now);
        let converged = runtime.block_on(future).ok()?;
        if converged.plan.steps.is_empty() {
            assert!(failures.is_empty(), "past failures are forgotten: {failures:?}");
            return Some(converged);
        }
    }
    panic!("does not settle: {host:?}");
}

fn inventory(cores: u32) -> Inventory {
    host(cores)
}

/// The host beside what is wanted; nothing here asks `plan`.
fn judge(host: &SimHost, desired: &Desired, cores: u32) {
    let mut taken = BTreeSet::new();
    for (id, sim) in &host.leases {
        let there = sim.service || sim.slice.is_some() || sim.files != ObservedFiles::Absent;
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
    let free = cores - 1 - u32::try_from(taken.len()).unwrap();
    for (id, spec) in desired {
        // One node and little memory: cores alone decide.
        assert!(there(id) || spec.cpus > free, "{id} has room and is not granted");
    }
    for Entry { id, .. } in &host.ledger.entries {
        assert!(there(id), "the ledger holds for {id}, which is not there");
    }
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn orders() -> impl Strategy<Value = Desired> {
    let lease = (0..NAMES.len(), 1_u32..4, 16_u64..64);
    prop::collection::vec(lease, 0..5).prop_map(|leases| {
        let one = |(name, cpus, mib): (usize, u32, u64)| (id(NAMES[name]), spec(cpus, mib));
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
        rounds in prop::collection::vec((orders(), prop::collection::vec(cuts(), 0..3)), 1..4),
    ) {
        let mut host = SimHost { slowness, ..SimHost::default() };
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
    let mut failures = Failures::new();
    let mut pass = |desired: &Desired, second| {
        runtime
            .block_on(converge(&mut host, desired, &inventory(4), &mut failures, at(second)))
            .unwrap();
        failures.get(&id("a")).map(|failure| (failure.count, failure.next))
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
    let mut failures = Failures::new();
    let mut pass = |second| {
        let inventory = inventory(4);
        let pass = converge(&mut host, &desired, &inventory, &mut failures, at(second));
        runtime.block_on(pass).unwrap();
        failures.contains_key(&id("a"))
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
    let mut failures = Failures::new();
    let mut pass = |host: &mut SimHost, desired: &Desired| {
        let inventory = inventory(4);
        let pass = converge(host, desired, &inventory, &mut failures, at(0));
        runtime.block_on(pass).unwrap();
        failures.get(&id("a")).map(|failure| failure.revoking)
    };
    assert_eq!(pass(&mut host, &desired), None, "recorded, and being fetched");
    host.broken.insert(id("a"), 1);
    assert_eq!(pass(&mut host, &desired), Some(false));
    assert_eq!(pass(&mut host, &Desired::new()), None);
    assert!(host.ledger.entries.is_empty() && host.leases.is_empty());
}
