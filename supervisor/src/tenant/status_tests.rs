use std::collections::BTreeMap;
use std::sync::LazyLock;

use bulkhead_api::condition::find;
use bulkhead_api::units::Bytes;

use super::*;
use crate::ledger::Entry;
use crate::tenant::model::{Exit, Limits, ObservedService, ObservedSlice};
use crate::tenant::plan::tests::{id, spec};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn holding() -> Holding {
    let memory = Bytes::new(64 << 20);
    Holding { cpus: [2, 3].into(), memory_nodes: [0].into(), memory, ..Holding::default() }
}

fn seen(state: ServiceState, pid: Option<u32>, exit: Option<Exit>) -> ObservedLease {
    let entry = Entry::granted(id("a"), spec(1, 64), holding());
    ObservedLease {
        slice: Some(ObservedSlice {
            limits: Limits::of(&entry),
            hugepages: None,
            active: true,
            populated: pid.is_some(),
        }),
        service: Some(ObservedService { state, pid, restarts: 2, exit }),
        mounts: 0,
        files: ObservedFiles::Bundled(Box::new(entry)),
        fetching: false,
        started: true,
        image_digest: Some("sha256:00".to_owned()),
        resources: BTreeMap::new(),
        pinned: None,
    }
}

/// The entry of every lease here.
fn recorded() -> &'static Entry {
    static ENTRY: LazyLock<Entry> =
        LazyLock::new(|| Entry::granted(id("a"), spec(1, 64), holding()));
    &ENTRY
}

fn facts<'a>(id: &'a LeaseId, seen: &'a ObservedLease) -> Facts<'a> {
    Facts {
        id,
        host: None,
        seen,
        entry: Some(recorded()),
        revoked: false,
        refusal: None,
        failure: None,
        given_up: None,
        under_way: &[],
        blind: None,
        closed: None,
    }
}

/// Phase, and reason and owner of both conditions.
fn said(facts: &Facts<'_>) -> (LeasePhase, String, String) {
    let status = report(facts, None, at(1)).status;
    let text = |kind: &str| {
        let condition = find(&status.conditions, kind).unwrap();
        let Condition { reason, owner, message, .. } = condition;
        // No state without a reason and an owner.
        assert!(!reason.is_empty() && !owner.is_empty() && !message.is_empty(), "{condition:?}");
        format!("{:?} {reason} ({owner})", condition.status)
    };
    (status.phase, text("Granted"), text("Running"))
}

#[test]
fn a_running_lease_is_reported_as_read_back() {
    let (id, seen) = (id("a"), seen(ServiceState::Running, Some(77), None));
    let status = report(&facts(&id, &seen), None, at(1)).status;
    assert_eq!(status.phase, LeasePhase::Running);
    assert_eq!((status.pid, status.starts), (Some(77), 3));
    assert_eq!(status.holding, Some(holding()));
    let granted = find(&status.conditions, "Granted").unwrap();
    assert_eq!(granted.message, "cpus 2-3, nodes 0, memory 64Mi, as read back");
}

#[test]
fn running_is_only_said_of_a_process_that_was_seen() {
    let (id, seen) = (id("a"), seen(ServiceState::Running, None, None));
    let expected = (LeasePhase::Granting, "True Held (supervisor)", "False Starting (supervisor)");
    let (phase, granted, running) = said(&facts(&id, &seen));
    assert_eq!((phase, granted.as_str(), running.as_str()), expected);
}

#[test]
fn how_a_program_ended_is_said() {
    let id = id("a");
    for (state, exit, phase, message) in [
        (
            ServiceState::Restarting,
            Exit::Status(3),
            LeasePhase::Failed,
            "the program ended with status 3; it is started again within 60 s",
        ),
        (
            ServiceState::Ended,
            Exit::Status(0),
            LeasePhase::Ended,
            "the program ended with status 0",
        ),
        (
            ServiceState::Failed,
            Exit::Signal(9),
            LeasePhase::Ended,
            "the program was ended by signal 9 and is left so",
        ),
    ] {
        let seen = seen(state, None, Some(exit));
        let status = report(&facts(&id, &seen), None, at(1)).status;
        assert_eq!(status.phase, phase);
        assert_eq!(find(&status.conditions, "Running").unwrap().message, message);
    }
}

#[test]
fn every_way_not_to_be_granted_has_its_own_reason_and_owner() {
    let (id, nothing) = (id("a"), ObservedLease::default());
    let base = Facts { entry: None, ..facts(&id, &nothing) };
    let short = Refusal::Shortage("cpus: 9 cores wanted, 2 free of 3".to_owned());
    let waits = Refusal::WaitsFor(vec![id.clone()]);
    let shared = Refusal::NotIsolated("CPU 4 of two".to_owned());
    let spec = Refusal::Spec { field: "spec.instance".to_owned(), message: "no".to_owned() };
    let failure = Failure {
        step: "fetch x".to_owned(),
        label: "ImageAbsent",
        message: "the site has no x".to_owned(),
        owner: "tenant",
        since: at(1),
        count: 2,
        next: at(9),
        revoking: false,
    };
    let fetching = ObservedLease { fetching: true, ..ObservedLease::default() };
    let rows = [
        (Facts { refusal: Some(&short), ..base }, LeasePhase::Failed, "False Shortage (registry)"),
        (
            Facts { refusal: Some(&shared), ..base },
            LeasePhase::Pending,
            "False HostNotIsolated (supervisor)",
        ),
        (
            Facts { refusal: Some(&waits), ..base },
            LeasePhase::Pending,
            "False WaitsForRelease (supervisor)",
        ),
        (
            Facts { refusal: Some(&spec), ..base },
            LeasePhase::Failed,
            "False SpecUnsupported (tenant)",
        ),
        (
            Facts { failure: Some(&failure), ..base },
            LeasePhase::Failed,
            "False ImageAbsent (tenant)",
        ),
        (
            Facts { seen: &fetching, entry: Some(recorded()), ..base },
            LeasePhase::Granting,
            "False Fetching (supervisor)",
        ),
        (Facts { revoked: true, ..base }, LeasePhase::Releasing, "False Releasing (supervisor)"),
        (
            Facts { blind: Some(("Unreadable", "read memory.max")), ..base },
            LeasePhase::Unknown,
            "Unknown Unreadable (supervisor)",
        ),
        (
            Facts { closed: Some(("LedgerDamaged", "ledger x is damaged")), ..base },
            LeasePhase::Failed,
            "Unknown LedgerDamaged (operator)",
        ),
    ];
    for (facts, phase, granted) in rows {
        let found = said(&facts);
        assert_eq!((found.0, found.1.as_str()), (phase, granted));
    }
    let status = report(&Facts { failure: Some(&failure), ..base }, None, at(1)).status;
    let granted = find(&status.conditions, "Granted").unwrap();
    assert_eq!(granted.message, "fetch x: the site has no x (attempt 2)");
    assert_eq!(granted.next_retry, Some(at(9)));
}

#[test]
fn what_is_left_of_a_lease_that_goes_is_named() {
    let (id, mut seen) = (id("a"), seen(ServiceState::Stopping, Some(7), None));
    seen.mounts = 1;
    let message = |seen: &ObservedLease| {
        let facts = Facts { revoked: true, ..facts(&id, seen) };
        let status = report(&facts, None, at(1)).status;
        find(&status.conditions, "Granted").unwrap().message.clone()
    };
    assert_eq!(message(&seen), "still there: its service, processes, its slice, mounts, files");
    let dirty = "still there: instance, not sanitised yet; memory 64Mi of nodes 0, not sanitised yet; \
                 cpus 2,3, not sanitised yet";
    assert_eq!(message(&ObservedLease::default()), dirty);
    let clean = recorded().holding.resources().into_iter().collect();
    let entry = Entry { releasing: true, clean, ..recorded().clone() };
    let gone = ObservedLease::default();
    let facts = Facts { revoked: true, entry: Some(&entry), ..facts(&id, &gone) };
    let status = report(&facts, None, at(1)).status;
    assert_eq!(
        find(&status.conditions, "Granted").unwrap().message,
        "still there: its entry in the ledger"
    );
    assert_eq!(status.holding.unwrap(), Holding::default(), "others can have all of it");
}

#[test]
fn what_is_being_erased_is_said_with_its_time_and_how_far_it_is() {
    let id = id("a");
    let resource = recorded().holding.resources().remove(1);
    let work = |total| UnderWay {
        lease: id.clone(),
        resource: resource.clone(),
        deed: Deed::Erase,
        since: at(5),
        done: 3 << 20,
        total,
    };
    let gone = ObservedLease::default();
    let message = |works: &[UnderWay]| {
        let facts = Facts { revoked: true, under_way: works, ..facts(&id, &gone) };
        let status = report(&facts, None, at(9)).status;
        find(&status.conditions, "Granted").unwrap().message.clone()
    };
    let told = message(&[work(64 << 20)]);
    let memory = "memory 64Mi of nodes 0: being erased since 1970-01-01T00:00:05Z, 3 of 64 MiB";
    assert!(told.contains(memory), "{told}");
    assert!(told.contains("cpus 2,3, not sanitised yet"), "{told}");
    assert!(!message(&[work(0)]).contains("MiB; cpus"));
    let other = UnderWay { lease: crate::tenant::plan::tests::id("b"), ..work(0) };
    assert!(!message(&[other]).contains("being erased"), "another lease's");
}

#[test]
fn a_grant_that_was_given_up_says_why_and_when_it_is_tried_anew() {
    let (id, nothing) = (id("a"), ObservedLease::default());
    let given_up = GivenUp {
        spec: spec(1, 64),
        step: "start service of acme/a".to_owned(),
        message: "systemd refuses".to_owned(),
        owner: "supervisor",
        count: 12,
        rounds: 1,
        next: at(300),
    };
    let refusal = Refusal::GivenUp(Box::new(given_up.clone()));
    let refused = Facts { entry: None, refusal: Some(&refusal), ..facts(&id, &nothing) };
    let going = Facts { revoked: true, given_up: Some(&given_up), ..facts(&id, &nothing) };
    let why = "given up after 12 attempts: start service of acme/a: systemd refuses; ";
    let ends =
        [(LeasePhase::Failed, "nothing is held for it"), (LeasePhase::Releasing, "still there")];
    for (facts, (phase, end)) in [refused, going].into_iter().zip(ends) {
        let status = report(&facts, None, at(9)).status;
        let granted = find(&status.conditions, "Granted").unwrap();
        assert_eq!((status.phase, granted.reason.as_str()), (phase, "GrantFailed"));
        assert!(granted.message.starts_with(&format!("{why}{end}")), "{}", granted.message);
        assert_eq!(granted.next_retry, Some(at(300)));
    }
}

#[test]
fn a_resource_that_cannot_be_looked_at_is_said_while_its_program_runs() {
    let (id, mut seen) = (id("a"), seen(ServiceState::Running, Some(7), None));
    let resource = recorded().holding.resources().remove(0);
    seen.resources.insert(resource, crate::class::Attached::Unseen("no answer".to_owned()));
    let (phase, granted, running) = said(&facts(&id, &seen));
    assert_eq!((phase, running.as_str()), (LeasePhase::Running, "True Running (tenant)"));
    assert_eq!(granted, "False ResourceUnseen (operator)");
}

#[test]
fn a_condition_keeps_the_time_of_its_last_change() {
    let (id, seen) = (id("a"), seen(ServiceState::Running, Some(7), None));
    let facts = facts(&id, &seen);
    let first = report(&facts, None, at(1)).status;
    let second = report(&facts, Some(&first), at(5)).status;
    assert_eq!(find(&second.conditions, "Running").unwrap().since, at(1));
    assert_eq!(second.observed, Some(at(5)));
}

#[test]
fn a_closed_ledger_does_not_hide_that_a_program_runs() {
    let (id, seen) = (id("a"), seen(ServiceState::Running, Some(7), None));
    let facts = Facts { entry: None, closed: Some(("LedgerDamaged", "x")), ..facts(&id, &seen) };
    let (phase, granted, running) = said(&facts);
    assert_eq!(phase, LeasePhase::Running);
    assert_eq!(granted, "Unknown LedgerDamaged (operator)");
    assert_eq!(running, "True Running (tenant)");
}
