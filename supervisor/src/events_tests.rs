use bulkhead_api::id::LeaseId;
use bulkhead_api::inventory::Inventory;
use bulkhead_api::lease::{LeasePhase, LeaseStatus};

use super::*;
use crate::node::report::{Moment, report};
use crate::node::state::State;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn news(detail: &str) -> News {
    News { what: "Change", object: "host".to_owned(), detail: detail.to_owned() }
}

fn status() -> HostStatus {
    let moment = Moment { now: at(1), seq: 1, supervisor_rss: 0 };
    report(&State::new(1, Inventory::default()), moment, &[])
}

fn lease(name: &str, phase: LeasePhase) -> ReportedLease {
    let id = LeaseId { tenant: "acme".parse().unwrap(), name: name.parse().unwrap() };
    ReportedLease { id, status: LeaseStatus { phase, ..LeaseStatus::default() } }
}

fn sentences(news: &[News]) -> Vec<String> {
    news.iter().map(|one| format!("{} {}: {}", one.what, one.object, one.detail)).collect()
}

#[test]
fn a_full_ring_drops_its_oldest_and_counts_on() {
    let events = Events::new(2);
    for detail in ["a", "b", "c"] {
        events.push(at(1), news(detail));
    }
    let kept: Vec<_> = events.after(0).into_iter().map(|e| (e.seq, e.detail)).collect();
    assert_eq!(kept, [(2, "b".to_owned()), (3, "c".to_owned())]);
    assert_eq!(events.after(2).len(), 1);
    assert_eq!(events.after(3), []);
}

#[test]
fn a_watcher_is_told_the_number_of_the_newest() {
    let events = Events::new(2);
    let newest = events.watch();
    assert_eq!(*newest.borrow(), 0);
    events.clone().push(at(1), news("a"));
    assert_eq!(*newest.borrow(), 1);
}

#[test]
fn equal_reports_have_no_news() {
    assert_eq!(between(&status(), &status()), []);
}

#[test]
fn news_are_new_reasons_new_phases_and_leases_that_are_gone() {
    let mut before = status();
    before.leases = vec![lease("a", LeasePhase::Granting), lease("b", LeasePhase::Releasing)];
    let mut after = status();
    after.accepted_generation = 4;
    after.leases = vec![lease("a", LeasePhase::Running), lease("c", LeasePhase::Failed)];
    let connected = after.conditions.iter_mut().find(|c| c.kind == "Connected").unwrap();
    connected.reason = "SiteUnreachable".to_owned();
    connected.message = "connect to site 10.9.0.1:8443".to_owned();
    assert_eq!(
        sentences(&between(&before, &after)),
        [
            "Spec host: generation 4 accepted",
            "Condition host: Connected False SiteUnreachable: connect to site 10.9.0.1:8443",
            "Phase lease acme/a: Running",
            "Phase lease acme/c: Failed",
            "Gone lease acme/b: observed gone",
        ]
    );
}

#[test]
fn a_message_or_a_time_that_changed_alone_is_no_news() {
    let before = status();
    let mut after = status();
    for condition in &mut after.conditions {
        condition.message.push_str(" again");
        condition.next_retry = Some(at(9));
    }
    assert_eq!(between(&before, &after), []);
}

#[test]
fn what_comes_into_quarantine_and_what_leaves_it_is_news() {
    let kept = |cpu: u32| Quarantined {
        resource: bulkhead_api::resource::Resource::Cpu { cpus: [cpu].into() },
        lease: LeaseId { tenant: "acme".parse().unwrap(), name: "a".parse().unwrap() },
        reason: "a marker was found".to_owned(),
        since: at(1),
    };
    let (mut before, mut after) = (status(), status());
    before.quarantine = vec![kept(1), kept(2)];
    after.quarantine = vec![kept(2), kept(3)];
    assert_eq!(
        sentences(&between(&before, &after)),
        [
            "Quarantine lease acme/a: cpus 3 is kept: a marker was found",
            "Quarantine lease acme/a: cpus 1 is clean and free again",
        ]
    );
}

#[test]
fn a_drift_names_the_lease_what_was_found_what_was_set_and_when_it_was_right() {
    let id = LeaseId { tenant: "acme".parse().unwrap(), name: "a".parse().unwrap() };
    let found =
        ["memory.max is max, wanted 64Mi".to_owned(), "pids.max is max, wanted 4096".to_owned()];
    assert_eq!(
        sentences(&[drift(&id, &found, Some(at(60))), drift(&id, &found[..1], None)]),
        [
            "Drift lease acme/a: memory.max is max, wanted 64Mi, pids.max is max, wanted 4096: set again; \
             it was right at 1970-01-01T00:01:00Z",
            "Drift lease acme/a: memory.max is max, wanted 64Mi: set again; \
             it was never right since the supervisor started",
        ]
    );
}
