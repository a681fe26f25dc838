//! `converge` on a simulated host that refuses unsafe steps, cut at any step, judged without `plan`.

use bulkhead_api::inventory::{Disk, DiskClaim};
use bulkhead_api::lease::{LeaseSpec, Volume};
use bulkhead_api::resource::{EXTENT, Resource, ResourceClass};
use bulkhead_api::units::Bytes;
use proptest::prelude::*;

use super::*;
use crate::ledger::Entry;
use crate::tenant::model::{Limits, ObservedFiles, Refusal};
use crate::tenant::plan::tests::{host, id, spec};

use super::sim::*;

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
