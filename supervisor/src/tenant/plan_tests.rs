//! Plans as text: a row of cases that a reader can judge without running anything.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use bulkhead_api::inventory::{Core, CpuTopology, NumaNode};
use bulkhead_api::lease::{CpuPartition, HeldVolume, Holding, InstanceKind, Isolation, Workload};
use bulkhead_api::resource::{EXTENT, Extent, Quarantined, Resource};
use bulkhead_api::units::Bytes;
use expect_test::{Expect, expect};

use super::*;
use crate::tenant::model::{ObservedService, ObservedSlice};

/// One node, `cores` cores of one CPU each, 4 GiB; core 0 stays with the host.
pub(crate) fn host(cores: u32) -> Inventory {
    let core = |id| Core { socket: 0, id, node: 0, cpus: BTreeSet::from([id]) };
    let cpus = (0..cores).collect();
    Inventory {
        cpu: CpuTopology { cores: (0..cores).map(core).collect(), ..CpuTopology::default() },
        memory: vec![NumaNode { id: 0, total: Bytes::new(4 << 30), cpus, hugepages: Vec::new() }],
        ..Inventory::default()
    }
}

pub(crate) fn id(name: &str) -> LeaseId {
    LeaseId { tenant: "acme".parse().unwrap(), name: name.parse().unwrap() }
}

pub(crate) fn spec(cpus: u32, mib: u64) -> LeaseSpec {
    LeaseSpec {
        site: None,
        instance: InstanceKind::Container,
        cpus,
        memory: Bytes::new(mib << 20),
        isolation: Isolation::Core,
        cpu_partition: CpuPartition::Member,
        hugepages: None,
        cache: None,
        gpus: vec![],
        networks: vec![],
        volumes: vec![],
        workload: Workload {
            image: "oci://bulkhead.site/demo:latest".to_owned(),
            args: vec![],
            restart: RestartPolicy::Always,
        },
        revocable: None,
    }
}

fn entry(name: &str, spec: LeaseSpec, cpus: &[u32]) -> Entry {
    let memory = spec.memory;
    let cpus = cpus.iter().copied().collect();
    let holding = Holding { cpus, memory_nodes: BTreeSet::from([0]), memory, ..Holding::default() };
    Entry::granted(id(name), spec, holding)
}

/// As a granted lease looks.
fn granted(entry: &Entry, state: ServiceState) -> ObservedLease {
    ObservedLease {
        slice: Some(ObservedSlice {
            limits: Limits::of(entry),
            hugepages: None,
            active: true,
            populated: true,
        }),
        service: Some(ObservedService { state, pid: Some(7), restarts: 0, exit: None }),
        mounts: 0,
        files: ObservedFiles::Bundled(Box::new(entry.clone())),
        fetching: false,
        started: true,
        image_digest: None,
        resources: BTreeMap::new(),
        pinned: None,
    }
}

#[derive(Default)]
struct Case {
    desired: Desired,
    observed: Observed,
    ledger: Ledger,
}

impl Case {
    fn want(mut self, name: &str, spec: LeaseSpec) -> Self {
        self.desired.insert(id(name), spec);
        self
    }

    fn held(mut self, entry: Entry) -> Self {
        self.ledger.record(entry);
        self
    }

    fn seen(mut self, name: &str, seen: ObservedLease) -> Self {
        self.observed.leases.insert(id(name), seen);
        self
    }

    fn check(&self, cores: u32, expected: &Expect) {
        let plan = plan(&self.desired, &self.observed, &self.ledger, &host(cores));
        let mut text = String::new();
        for step in &plan.steps {
            writeln!(text, "{step}").unwrap();
        }
        for (id, refusal) in &plan.refused {
            writeln!(text, "refused {id}: {refusal}").unwrap();
        }
        expected.assert_eq(&text);
    }
}

#[test]
fn an_empty_host_without_leases_needs_nothing() {
    Case::default().check(4, &expect![""]);
}

#[test]
fn a_new_lease_is_recorded_before_anything_of_it_is_made() {
    Case::default().want("a", spec(2, 512)).check(
        4,
        &expect![[r#"
            record acme/a: cpus 1-2, nodes 0, memory 512Mi
            fetch oci://bulkhead.site/demo:latest for acme/a
            set slice of acme/a: cpus 1-2, memory 512Mi
            write container of acme/a
            start service of acme/a
        "#]],
    );
}

#[test]
fn a_lease_that_runs_as_wanted_needs_nothing() {
    let held = entry("a", spec(1, 64), &[1]);
    let seen = granted(&held, ServiceState::Running);
    Case::default().want("a", spec(1, 64)).held(held).seen("a", seen).check(4, &expect![""]);
}

#[test]
fn a_lease_that_is_not_wanted_is_taken_back_before_another_gets_anything() {
    let held = entry("b", spec(1, 64), &[1]);
    let seen = granted(&held, ServiceState::Running);
    Case::default().want("a", spec(1, 64)).held(held).seen("b", seen).check(
        4,
        &expect![[r#"
            take back acme/b
            stop service of acme/b
            remove slice of acme/b
            remove files of acme/b
            sanitise instance of acme/b
            sanitise memory 64Mi of nodes 0 of acme/b
            sanitise cpus 1 of acme/b
            record acme/a: cpus 2, nodes 0, memory 64Mi
            fetch oci://bulkhead.site/demo:latest for acme/a
            set slice of acme/a: cpus 2, memory 64Mi
            write container of acme/a
            start service of acme/a
        "#]],
    );
}

#[test]
fn room_that_is_still_held_is_waited_for_and_not_given_out() {
    let held = entry("b", spec(3, 64), &[1, 2, 3]);
    let seen = granted(&held, ServiceState::Stopping);
    Case::default().want("a", spec(1, 64)).held(held).seen("b", seen).check(
        4,
        &expect![[r#"
            take back acme/b
            stop service of acme/b
            remove slice of acme/b
            remove files of acme/b
            sanitise instance of acme/b
            sanitise memory 64Mi of nodes 0 of acme/b
            sanitise cpus 1,2,3 of acme/b
            refused acme/a: waits for room until acme/b is gone
        "#]],
    );
}

#[test]
fn an_impossible_grant_holds_up_neither_a_revoke_nor_another_grant() {
    let mut elsewhere = spec(1, 64);
    elsewhere.workload.image = "oci://docker.io/library/busybox:1".to_owned();
    let mut vm = spec(1, 64);
    vm.instance = InstanceKind::Vm;
    Case::default()
        .want("a", spec(9, 64))
        .want("b", elsewhere)
        .want("c", vm)
        .want("d", spec(1, 64))
        .held(entry("gone", spec(1, 64), &[1]))
        .check(
            4,
            &expect![[r#"
                take back acme/gone
                sanitise instance of acme/gone
                sanitise memory 64Mi of nodes 0 of acme/gone
                sanitise cpus 1 of acme/gone
                record acme/c: cpus 2, nodes 0, memory 225Mi
                fetch oci://bulkhead.site/demo:latest for acme/c
                set slice of acme/c: cpus 2, memory 225Mi
                write container of acme/c
                start service of acme/c
                record acme/d: cpus 3, nodes 0, memory 64Mi
                fetch oci://bulkhead.site/demo:latest for acme/d
                set slice of acme/d: cpus 3, memory 64Mi
                write container of acme/d
                start service of acme/d
                refused acme/a: cpus: 9 cores wanted, 2 free of 3
                refused acme/b: spec.workload.image: image "oci://docker.io/library/busybox:1" is on docker.io: images come from the site's cache; publish it there and name it oci://bulkhead.site/…
            "#]],
        );
}

#[test]
fn a_changed_spec_is_taken_back_whole_and_granted_anew() {
    let held = entry("a", spec(1, 64), &[1]);
    let seen = granted(&held, ServiceState::Running);
    let case = Case::default().want("a", spec(2, 64)).held(held).seen("a", seen);
    case.check(
        4,
        &expect![[r#"
            take back acme/a
            stop service of acme/a
            remove slice of acme/a
            remove files of acme/a
            sanitise instance of acme/a
            sanitise memory 64Mi of nodes 0 of acme/a
            sanitise cpus 1 of acme/a
        "#]],
    );
}

#[test]
fn a_slice_that_nobody_recorded_is_removed_and_its_cores_are_not_given_out_before() {
    let stray = entry("stray", spec(3, 64), &[1, 2, 3]);
    let mut seen = granted(&stray, ServiceState::Running);
    seen.files = ObservedFiles::Absent;
    Case::default().want("a", spec(1, 64)).seen("stray", seen).check(
        4,
        &expect![[r#"
            found without a record acme/stray: cpus 1-3, nodes 0, memory 64Mi
            stop service of acme/stray
            remove slice of acme/stray
            refused acme/a: waits for room until acme/stray is gone
        "#]],
    );
}

#[test]
fn what_was_found_without_a_record_keeps_the_ids_that_its_program_really_has() {
    // Started on CPU 3, and since then somebody moved its slice to CPU 1.
    let made_for = entry("stray", spec(1, 64), &[3]);
    let mut seen = granted(&made_for, ServiceState::Running);
    seen.slice.as_mut().unwrap().limits.cpus = [1].into();
    let stray = seen.stray(&made_for.id).unwrap();
    assert_eq!((stray.id_cpu(), stray.holding.cpus), (Some(3), [1].into()));
    let leases = BTreeMap::from([(made_for.id, seen)]);
    let observed = Observed { leases, ..Observed::default() };
    let desired = Desired::from([(id("a"), spec(1, 64))]);
    let planned = plan(&desired, &observed, &Ledger::default(), &host(4));
    let entry_of_a = |step: &Step| {
        let Step::Record(entry) = step else { return None };
        (entry.id == id("a")).then(|| entry.holding.cpus.clone())
    };
    let recorded = planned.steps.iter().find_map(entry_of_a);
    assert_eq!(recorded, Some([2].into()), "neither its CPU nor that of its ids");
}

#[test]
fn limits_that_drifted_are_set_again_and_the_program_goes_on() {
    let held = entry("a", spec(1, 64), &[1]);
    let mut seen = granted(&held, ServiceState::Running);
    seen.slice.as_mut().unwrap().limits.memory = None;
    Case::default().want("a", spec(1, 64)).held(held).seen("a", seen).check(
        4,
        &expect![[r#"
            set slice of acme/a again: memory.max is max, wanted 64Mi
        "#]],
    );
}

/// A lease with a volume, and how it looks while it runs; its volume as given.
fn stored(attached: Option<Attached>) -> Case {
    let mut held = entry("a", spec(1, 64), &[1]);
    held.holding.volumes.push(HeldVolume {
        name: "data".parse().unwrap(),
        pool: "p".to_owned(),
        extents: vec![Extent { start: 0, length: EXTENT }],
    });
    let mut seen = granted(&held, ServiceState::Running);
    let volumes = held.holding.resources().into_iter().filter(given_apart);
    seen.resources = volumes.zip(attached).collect();
    Case::default().want("a", spec(1, 64)).held(held).seen("a", seen)
}

#[test]
fn a_volume_that_drifted_is_set_right_and_one_that_is_lost_stops_the_program_first() {
    stored(Some(Attached::Yes)).check(4, &expect![""]);
    stored(Some(Attached::Drifted("it is mounted nowhere".to_owned()))).check(
        4,
        &expect![[r#"
            set volume data, 4Mi of pool p of acme/a right: it is mounted nowhere
        "#]],
    );
    stored(None).check(
        4,
        &expect![[r#"
            stop service of acme/a
            give volume data, 4Mi of pool p to acme/a
            start service of acme/a
        "#]],
    );
}

#[test]
fn a_bound_of_huge_pages_that_drifted_is_set_again() {
    let held = entry("a", spec(1, 64), &[1]);
    let mut seen = granted(&held, ServiceState::Running);
    seen.slice.as_mut().unwrap().hugepages = Some("hugetlb.2MB.max is max, wanted 0".to_owned());
    Case::default().want("a", spec(1, 64)).held(held).seen("a", seen).check(
        4,
        &expect![[r#"
            set slice of acme/a again: hugetlb.2MB.max is max, wanted 0
        "#]],
    );
}

#[test]
fn what_cannot_be_seen_is_left_alone_under_a_program_and_nothing_is_started_on_it() {
    let mut entry = entry("a", spec(1, 64), &[1]);
    let extents = vec![Extent { start: 0, length: EXTENT }];
    let (name, pool) = ("data".parse().unwrap(), "p".to_owned());
    entry.holding.volumes = vec![HeldVolume { name, pool, extents }];
    let volume = entry.holding.resources().into_iter().find(given_apart).unwrap();
    let ledger = Ledger { entries: vec![entry.clone()], ..Ledger::default() };
    let desired = Desired::from([(entry.id.clone(), entry.spec.clone())]);
    let planned = |seen: ObservedLease| {
        let unseen = [(volume.clone(), Attached::Unseen("no answer".to_owned()))];
        let seen = ObservedLease { resources: unseen.into(), ..seen };
        let leases = BTreeMap::from([(entry.id.clone(), seen)]);
        let observed = Observed { leases, ..Observed::default() };
        plan(&desired, &observed, &ledger, &host(3)).steps
    };
    assert_eq!(planned(granted(&entry, ServiceState::Running)), []);
    let stopped = ObservedLease { service: None, ..granted(&entry, ServiceState::Running) };
    let steps = planned(stopped);
    assert!(matches!(steps.as_slice(), [Step::Attach { .. }, Step::StartService { .. }]));
}

#[test]
fn nobody_is_let_in_while_what_leases_have_cannot_be_listed() {
    let desired = Desired::from([(id("a"), spec(1, 64))]);
    let observed = Observed { unlisted: Some("no answer".to_owned()), ..Observed::default() };
    let plan = plan(&desired, &observed, &Ledger::default(), &host(3));
    let refusal = &plan.refused[&id("a")];
    assert_eq!((refusal.label(), plan.steps.len()), ("ResourcesUnlisted", 0));
    assert_eq!(refusal.to_string(), "waits until it is known what leases have: no answer");
}

#[test]
fn vcpus_that_are_not_on_their_cpus_are_pinned_while_the_machine_runs() {
    let pin = expect![[r#"
        pin the vCPUs of acme/a
    "#]];
    for (pinned, steps) in [(None, expect![""]), (Some(true), expect![""]), (Some(false), pin)] {
        let held = entry("a", spec(1, 64), &[1]);
        let seen = ObservedLease { pinned, ..granted(&held, ServiceState::Running) };
        Case::default().want("a", spec(1, 64)).held(held).seen("a", seen).check(4, &steps);
    }
}

#[test]
fn after_a_crash_only_what_is_missing_is_done() {
    let held = entry("a", spec(1, 64), &[1]);
    let mut seen = granted(&held, ServiceState::Running);
    seen.service = None;
    let case = |files| {
        let seen = ObservedLease { files, slice: None, ..seen.clone() };
        Case::default().want("a", spec(1, 64)).held(held.clone()).seen("a", seen)
    };
    case(ObservedFiles::Fetched).check(
        4,
        &expect![[r#"
            set slice of acme/a: cpus 1, memory 64Mi
            write container of acme/a
            start service of acme/a
        "#]],
    );
    case(ObservedFiles::Bundled(Box::new(held.clone()))).check(
        4,
        &expect![[r#"
            set slice of acme/a: cpus 1, memory 64Mi
            start service of acme/a
        "#]],
    );
}

#[test]
fn a_program_that_ended_is_left_so_where_its_policy_says_so() {
    for (restart, state, steps) in [
        (RestartPolicy::Never, ServiceState::Failed, expect![""]),
        (RestartPolicy::Never, ServiceState::Ended, expect![""]),
        (RestartPolicy::OnFailure, ServiceState::Ended, expect![""]),
        (RestartPolicy::Always, ServiceState::Restarting, expect![""]),
        (
            RestartPolicy::Always,
            ServiceState::Failed,
            expect![[r#"
                stop service of acme/a
                start service of acme/a
            "#]],
        ),
    ] {
        let mut spec = spec(1, 64);
        spec.workload.restart = restart;
        let held = entry("a", spec.clone(), &[1]);
        let seen = granted(&held, state);
        Case::default().want("a", spec).held(held).seen("a", seen).check(4, &steps);
    }
}

#[test]
fn a_lease_that_cannot_be_read_is_left_alone_and_keeps_its_cores() {
    let mut case = Case::default().want("b", spec(3, 64)).held(entry("a", spec(2, 64), &[1, 2]));
    case.observed.unreadable.insert(id("a"), "read memory.max".to_owned());
    case.check(
        4,
        &expect![[r#"
            refused acme/b: cpus: 3 cores wanted, 1 free of 3
        "#]],
    );
}

#[test]
fn nothing_is_placed_beside_a_lease_that_nobody_knows_the_cores_of() {
    let held = entry("c", spec(1, 64), &[2]);
    let mut case = Case::default().want("b", spec(1, 64)).want("c", spec(1, 64)).held(held);
    case.observed.unreadable.insert(id("a"), "read cpuset.cpus.effective".to_owned());
    case.check(
        4,
        &expect![[r#"
            fetch oci://bulkhead.site/demo:latest for acme/c
            set slice of acme/c: cpus 2, memory 64Mi
            write container of acme/c
            start service of acme/c
            refused acme/b: waits: what is held by acme/a cannot be read
        "#]],
    );
}

#[test]
fn a_host_that_is_not_isolated_lets_nobody_in_and_takes_nothing_away() {
    let runs = entry("a", spec(1, 64), &[1]);
    let ledger = Ledger { entries: vec![runs.clone()], quarantine: Vec::new() };
    let mut observed = Observed::default();
    observed.leases.insert(id("a"), granted(&runs, ServiceState::Running));
    let desired = Desired::from([(id("a"), spec(1, 64)), (id("b"), spec(1, 64))]);
    let shared = "CPUs 4 are in effect for x and y".to_owned();
    let apart = plan(&desired, &observed, &ledger, &host(4));
    assert!(apart.steps.iter().any(|step| *step.id() == id("b")), "with isolation it is granted");
    observed.shared = Some(shared.clone());
    let plan = plan(&desired, &observed, &ledger, &host(4));
    assert_eq!(plan.steps, []);
    assert_eq!(plan.refused, BTreeMap::from([(id("b"), Refusal::NotIsolated(shared))]));
}

#[test]
fn a_download_that_shows_no_files_yet_is_cancelled_and_cleaned_up() {
    let seen = ObservedLease { fetching: true, ..ObservedLease::default() };
    Case::default().held(entry("a", spec(1, 64), &[1])).seen("a", seen).check(
        4,
        &expect![[r#"
            take back acme/a
            stop fetching the image of acme/a
            remove files of acme/a
            sanitise instance of acme/a
            sanitise memory 64Mi of nodes 0 of acme/a
            sanitise cpus 1 of acme/a
        "#]],
    );
}

#[test]
fn every_limit_that_is_not_as_wanted_is_drift() {
    let wanted = Limits::of(&entry("a", spec(1, 64), &[1]));
    let drift = Limits::default().drift(&wanted);
    let files = ["cpuset.cpus", "cpuset.mems", "memory.max", "memory.swap.max", "pids.max"];
    let named: Vec<&str> = drift.iter().filter_map(|part| part.split(' ').next()).collect();
    assert_eq!(named, files);
    assert!(wanted.drift(&wanted).is_empty());
}

fn kept(name: &str, resource: Resource) -> Quarantined {
    let since = bulkhead_api::time::Timestamp::UNIX_EPOCH;
    Quarantined { resource, lease: id(name), reason: "marker found".to_owned(), since }
}

#[test]
fn a_name_in_quarantine_is_not_given_again_and_a_running_lease_is_not_erased_for_it() {
    let memory = Resource::Memory { nodes: BTreeSet::from([0]), bytes: Bytes::new(64 << 20) };
    let mut case = Case::default().want("a", spec(1, 64));
    case.ledger.quarantined(kept("a", memory.clone()));
    case.check(
        4,
        &expect![[r#"
            refused acme/a: waits: memory 64Mi of nodes 0 of an earlier lease of this name is in quarantine
        "#]],
    );
    let held = entry("a", spec(1, 64), &[1]);
    let seen = granted(&held, ServiceState::Running);
    let mut case = Case::default().want("a", spec(1, 64)).held(held).seen("a", seen);
    case.ledger.quarantined(kept("a", memory.clone()));
    case.observed.again.push(kept("a", memory));
    case.check(4, &expect![""]);
}

#[test]
fn a_resource_that_cannot_be_looked_at_does_not_keep_its_lease_from_being_taken_back() {
    let held = entry("a", spec(1, 64), &[1]);
    let mut seen = granted(&held, ServiceState::Running);
    let volume = Resource::Volume {
        name: "data".parse().unwrap(),
        pool: "p".to_owned(),
        extents: vec![Extent { start: 0, length: EXTENT }],
    };
    seen.resources.insert(volume, Attached::Drifted("read disk vdb: I/O error".to_owned()));
    let case = Case::default().held(held).seen("a", seen);
    let plan = plan(&case.desired, &case.observed, &case.ledger, &host(4));
    assert!(plan.steps.contains(&Step::StopService(id("a"))));
}
