use bulkhead_api::id::LeaseId;
use bulkhead_api::inventory::Inventory;
use bulkhead_api::lease::LeasePhase;

use super::super::acceptance::Accepted;
use super::*;
use crate::node::state::Home;
use crate::tenant::Pass;
use crate::testing::{host_id, signed, spec};

fn at(second: i64) -> Timestamp {
    Timestamp::now() + jiff::SignedDuration::from_secs(second)
}

fn moment(now: Timestamp) -> Moment {
    Moment { now, seq: 1, supervisor_rss: 1 }
}

fn trouble(reason: &'static str) -> Trouble {
    let message = "it is so".to_owned();
    Trouble { reason, message, owner: "operator", next: None }
}

fn lease(status: Truth) -> ReportedLease {
    let id = LeaseId { tenant: "acme".parse().unwrap(), name: "a".parse().unwrap() };
    let condition = stated("Granted", status, trouble("Some"), at(0));
    let phase = LeasePhase::Granting;
    let conditions = vec![condition];
    ReportedLease { id, status: LeaseStatus { phase, conditions, ..LeaseStatus::default() } }
}

/// An enrolled host that settled generation 5.
fn well_off() -> State {
    let spec = spec(5);
    State {
        host: Some(host_id()),
        accepted: Some(Accepted { signed: signed(&spec), spec }),
        settled_generation: 5,
        link: Link::Up,
        home: Home::Disk("the state is on disk vda".to_owned()),
        domain: Domain::Open,
        pass: Pass { settled: true, ..Pass::default() },
        isolation: Some(Round::default()),
        ..State::new(2, Inventory::default())
    }
}

fn line(state: &State, kind: &str) -> String {
    let status = report(state, moment(at(0)), &[]);
    let c = condition::find(&status.conditions, kind).unwrap();
    format!("{:?} {} by {}: {}", c.status, c.reason, c.owner, c.message)
}

#[test]
fn a_settled_host_holds_every_condition() {
    let status = report(&well_off(), moment(at(0)), &[]);
    let failing: Vec<_> = status.conditions.iter().filter(|c| c.status != Truth::True).collect();
    assert_eq!(failing, Vec::<&Condition>::new());
    assert_eq!((status.accepted_generation, status.settled_generation), (5, 5));
    assert_eq!((status.host, status.boot), (host_id(), 2));
}

#[test]
fn a_host_that_just_started_names_a_reason_and_an_owner_for_everything() {
    let status = report(&State::new(1, Inventory::default()), moment(at(0)), &[]);
    assert_eq!(status.host, HostId::unenrolled());
    for condition in &status.conditions {
        assert!(!condition.reason.is_empty() && !condition.owner.is_empty(), "{condition:?}");
    }
    assert!(!condition::holds(&status.conditions, "Ready"));
}

#[test]
fn a_refused_spec_is_said_beside_the_generation_that_stays_in_force() {
    let mut state = State { refused: Some(trouble("WrongHost")), ..well_off() };
    assert_eq!(
        line(&state, "SpecAccepted"),
        "False WrongHost by operator: it is so; generation 5 stays in force"
    );
    assert_eq!(line(&state, "Settled"), "True ReadBack by supervisor: generation 5");
    state.accepted = None;
    assert_eq!(
        line(&state, "SpecAccepted"),
        "False WrongHost by operator: it is so; no spec is in force, nothing is changed"
    );
}

#[test]
fn a_generation_is_settled_only_when_it_was_read_back() {
    let table = [
        (State { settled_generation: 4, ..well_off() }, "generation 5 is being applied"),
        (State { pass: Pass::default(), ..well_off() }, "generation 5 is being applied"),
        (
            State {
                pass: Pass { leases: vec![lease(Truth::False)], ..Pass::default() },
                ..well_off()
            },
            "generation 5 waits for acme/a",
        ),
    ];
    for (state, message) in table {
        assert_eq!(line(&state, "Settled"), format!("False Applying by supervisor: {message}"));
    }
    let closed = State { domain: Domain::Closed(trouble("LedgerDamaged")), ..well_off() };
    assert_eq!(line(&closed, "Settled"), "False LedgerDamaged by operator: it is so");
    assert_eq!(line(&closed, "Ready"), "False LedgerDamaged by operator: it is so");
}

#[test]
fn a_clock_behind_what_was_signed_is_told_with_the_difference() {
    let state = State { certified: Some(at(7200)), ..well_off() };
    let said = line(&state, "ClockPlausible");
    assert!(said.starts_with("False ClockBehind by operator: the clock is at least 7"), "{said}");
    let nearly = State { certified: Some(at(30)), ..well_off() };
    assert_eq!(line(&nearly, "ClockPlausible"), "True NotBehind by supervisor: ");
}

#[test]
fn unreadable_hardware_is_told_and_does_not_make_the_host_unready() {
    let mut state = well_off();
    state.inventory.problems = ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec();
    assert_eq!(
        line(&state, "HardwareReadable"),
        "False Unreadable by operator: a; b; c; and 2 more"
    );
    assert!(line(&state, "Ready").starts_with("True"));
}

#[test]
fn a_lost_stream_is_told_with_its_next_try() {
    let next = Some(at(30));
    let lost = Trouble { next, ..trouble("SiteUnreachable") };
    let state = State { link: Link::Down(lost), ..well_off() };
    let status = report(&state, moment(at(0)), &[]);
    let connected = condition::find(&status.conditions, "Connected").unwrap();
    assert_eq!((connected.status, connected.next_retry), (Truth::False, next));
}

#[test]
fn since_is_kept_while_the_status_stays_and_new_when_it_turns() {
    let first = report(&well_off(), moment(at(0)), &[]);
    let second = report(&well_off(), moment(at(10)), &first.conditions);
    let since =
        |status: &HostStatus| condition::find(&status.conditions, "Connected").unwrap().since;
    assert_eq!(since(&first), since(&second));
    let down = State { link: Link::Down(trouble("StreamEnded")), ..well_off() };
    let third = report(&down, moment(at(20)), &second.conditions);
    assert!(since(&third) > since(&second));
}

#[test]
fn reports_are_the_same_when_only_their_time_differs() {
    let mut state = well_off();
    state.pass.leases = vec![lease(Truth::True)];
    let first = report(&state, moment(at(0)), &[]);
    state.pass.leases[0].status.observed = Some(at(5));
    let later = Moment { now: at(9), seq: 8, supervisor_rss: 99 };
    assert!(same(&first, &report(&state, later, &first.conditions)));
}

#[test]
fn reports_differ_when_anything_else_does() {
    let first = report(&well_off(), moment(at(0)), &[]);
    let changes: [fn(&mut State); 6] = [
        |s| s.host = None,
        |s| s.settled_generation = 4,
        |s| s.pass.leases.push(lease(Truth::True)),
        |s| s.inventory.kernel = "6.12".to_owned(),
        |s| s.userspace_start_ms = 7,
        |s| s.link = Link::Down(trouble("StreamEnded")),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut state = well_off();
        change(&mut state);
        let second = report(&state, moment(at(0)), &first.conditions);
        assert!(!same(&first, &second), "change {number}");
    }
}
