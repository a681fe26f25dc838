//! Phases as a function of what was reported, who is connected and what time it is.

use bulkhead_api::document::HostPhase;
use bulkhead_api::lease::LeasePhase;
use serde_json::{Value, json};

use super::*;
use crate::presence::HostLive;

const HOST: &str = "sjc-01-000001";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + second).unwrap()
}

fn host() -> HostId {
    HOST.parse().unwrap()
}

/// A report of boot 2 that arrived at second 0, with this as the condition `Ready`.
fn report(ready: &Value) -> ReportRow {
    let conditions = if ready.is_null() { json!([]) } else { json!([ready]) };
    let status = json!({
        "host": HOST, "boot": 2, "seq": 1, "observed": at(0), "acceptedGeneration": 4,
        "settledGeneration": 4, "conditions": conditions, "inventory": {},
        "leases": [{ "id": { "tenant": "acme", "name": "llm" }, "status": { "phase": "Running" } }],
    });
    ReportRow { status: serde_json::from_value(status).unwrap(), received_at: at(0) }
}

fn ready(status: &str, message: &str) -> Value {
    json!({ "type": "Ready", "status": status, "reason": "Because", "message": message,
        "owner": "supervisor", "since": at(0) })
}

fn lease(name: &str) -> LeaseRow {
    let spec = json!({ "instance": "container", "cpus": 1, "memory": "64Mi",
        "workload": { "image": "oci://x/y:z" } });
    LeaseRow {
        number: 1,
        id: LeaseId { tenant: "acme".parse().unwrap(), name: name.parse().unwrap() },
        host: host(),
        spec: serde_json::from_value(spec).unwrap(),
        created_at: at(0),
        deleting_at: None,
        gone_generation: None,
    }
}

fn picture(now: i64, report: Option<ReportRow>, live: Option<HostLive>) -> Picture {
    let row = HostRow {
        id: host(),
        site: "sjc-01".parse().unwrap(),
        mac: "52:54:00:00:00:01".parse().unwrap(),
        uuid: None,
        enrolled_at: at(0),
    };
    let hosts = live.map(|live| (host(), live)).into_iter().collect();
    Picture {
        now: at(now),
        live: Live { hosts, ..Live::default() },
        hosts: vec![row],
        leases: vec![lease("llm"), lease("new")],
        reports: report.map(|report| (host(), report)).into_iter().collect(),
        ..Picture::default()
    }
}

fn open(boot: u64, seen: i64) -> Option<HostLive> {
    Some(HostLive { seen: at(seen), link: HostLink::Open { boot } })
}

#[test]
fn the_phase_of_a_host_follows_from_its_report_and_its_silence() {
    let good = || Some(report(&ready("True", "")));
    let ended = Some(HostLive { seen: at(5), link: HostLink::Ended });
    for (case, picture, phase, reason) in [
        ("new", picture(1, None, None), HostPhase::Joining, "enrolled, has not reported yet"),
        ("opened", picture(1, None, open(1, 1)), HostPhase::Joining, "enrolled, has not"),
        ("ready", picture(30, good(), None), HostPhase::Ready, ""),
        ("silent", picture(31, good(), None), HostPhase::Unreachable, "nothing was heard"),
        ("says little", picture(31, good(), open(2, 10)), HostPhase::Ready, ""),
        ("silent since", picture(41, good(), open(2, 10)), HostPhase::Unreachable, "nothing"),
        ("ended", picture(6, good(), ended), HostPhase::Unreachable, "its stream to the site"),
        ("booted", picture(6, good(), open(3, 5)), HostPhase::Joining, "boot 3 has not reported"),
        (
            "not ready",
            picture(1, Some(report(&ready("False", "no NIC"))), None),
            HostPhase::Joining,
            "no NIC",
        ),
        (
            "not ready, terse",
            picture(1, Some(report(&ready("Unknown", ""))), None),
            HostPhase::Joining,
            "Because",
        ),
        ("mute", picture(1, Some(report(&Value::Null)), None), HostPhase::Joining, "does not say"),
    ] {
        let status = picture.host_of(&host()).unwrap().status;
        assert_eq!(status.phase, phase, "{case}");
        assert!(status.reason.starts_with(reason), "{case}: {}", status.reason);
        let takes = picture.candidates(None).iter().filter(|c| c.barred.is_none()).count();
        assert_eq!(takes == 1, phase == HostPhase::Ready, "{case}");
    }
}

fn phases(picture: &Picture) -> Vec<LeasePhase> {
    let documents = picture.documents(Kind::Lease).unwrap();
    let phase = |document: Document| {
        let Document::Lease(lease) = document else { panic!("{document:?}") };
        lease.status.unwrap().phase
    };
    documents.into_iter().map(phase).collect()
}

#[test]
fn a_lease_is_as_its_host_says_while_the_host_speaks() {
    let mut picture = picture(1, Some(report(&ready("True", ""))), None);
    assert_eq!(phases(&picture), [LeasePhase::Running, LeasePhase::Pending]);
    picture.now = at(31);
    assert_eq!(phases(&picture), [LeasePhase::Unknown, LeasePhase::Unknown]);
    for lease in &mut picture.leases {
        lease.deleting_at = Some(at(2));
    }
    assert_eq!(phases(&picture), [LeasePhase::Releasing, LeasePhase::Releasing]);
}

#[test]
fn a_lease_that_is_not_running_says_who_it_waits_for() {
    let mut picture = picture(1, Some(report(&ready("True", ""))), None);
    picture.leases[0].deleting_at = Some(at(1));
    let said = |picture: &Picture, at: usize| {
        let lease = picture.lease(&picture.leases[at]);
        let last = lease.status.unwrap().conditions.pop().unwrap();
        (last.kind, last.reason, last.owner, last.message)
    };
    let text = |kind: &str, reason: &str, owner: &str, message: &str| {
        (kind.to_owned(), reason.to_owned(), owner.to_owned(), message.to_owned())
    };
    let waits = "a host spec without the lease is not signed yet";
    assert_eq!(said(&picture, 0), text("Released", "WaitingForSignature", "registry", waits));
    picture.leases[0].gone_generation = Some(5);
    let waits = "gone once host sjc-01-000001 has settled generation 5; it has settled 4";
    assert_eq!(said(&picture, 0), text("Released", "WaitingForHost", "supervisor", waits));
    let waits = "host sjc-01-000001 has accepted generation 4 of its spec; 0 was signed last";
    assert_eq!(said(&picture, 1), text("Granted", "WaitingForHost", "supervisor", waits));
}
