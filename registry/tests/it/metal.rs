//! Leases that have a host to themselves: what the site says of the machine, what the host says when it is back.

use bulkhead_api::id::LeaseId;
use bulkhead_api::lease::{LeasePhase, LeaseStatus, ReportedLease};
use bulkhead_api::link::rpc::{Detached, Up, up};
use bulkhead_api::machine::{BootStage, Machine, MachineAdmission, Tenancy, TenancyStage};
use bulkhead_api::time::Timestamp;
use serde_json::{Value, json};

use crate::fleet::Fleet;
use crate::joined::{Joined, LEASE, MAC, is_phase, joined};
use crate::people::{condition, lease_document};
use crate::site::{Attached, json};

fn id() -> LeaseId {
    LeaseId { tenant: "acme".parse().unwrap(), name: "llm".parse().unwrap() }
}

fn metal(image: &str, args: &[&str]) -> Value {
    let mut document = lease_document("llm", 1, "64Mi");
    document["spec"]["instance"] = json!("bareMetal");
    document["spec"]["workload"] = json!({ "image": image, "args": args });
    document
}

/// What the site's boot services say of the one machine.
async fn says(stream: &Attached, tenancy: Option<(TenancyStage, u64)>) {
    let now = Timestamp::now();
    let tenancy = tenancy.map(|(stage, fetched)| Tenancy {
        lease: id(),
        stage,
        uki_sha256: "ab".repeat(32),
        fetched,
        since: now,
    });
    let machine = Machine {
        mac: MAC.parse().unwrap(),
        uuid: None,
        admission: MachineAdmission::Admitted,
        reason: String::new(),
        host: None,
        address: None,
        stage: BootStage::Enrolled,
        boots: 1,
        first_seen: now,
        last_seen: now,
        tenancy,
    };
    let body = Some(up::Body::MachinesJson(json(&[machine])));
    stream.up.send(Up { host: String::new(), body }).await.unwrap();
}

fn is_lease(fleet: &Fleet, wanted: impl Fn(&Value) -> bool) -> Value {
    fleet.rest().until(LEASE, |status, body| status == 200 && wanted(body))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_of_a_whole_host_runs_by_the_sites_word_and_is_gone_when_the_host_is_clean() {
    let fleet = Fleet::start();
    let Joined { mut stream, mut host, site: _site } = joined(&fleet).await;
    let rest = fleet.rest();
    assert_eq!(rest.put(LEASE, &metal("oci://bulkhead.site/os:1", &[])).0, 201);
    let beside = rest.put("/v1/tenants/acme/leases/beside", &lease_document("beside", 1, "64Mi"));
    assert_eq!(beside.0, 409, "{}", beside.1);
    let with = host.take(&stream.signed_spec(&host.id).await).clone();
    assert_eq!((with.leases.len(), &with.returning), (1, &None));

    // Draining is the host's word, the rest is the site's.
    let status = LeaseStatus { phase: LeasePhase::Granting, ..LeaseStatus::default() };
    host.granted = vec![ReportedLease { id: id(), status }];
    host.report(&stream).await;
    is_lease(&fleet, |lease| lease["status"]["phase"] == "Granting");
    says(&stream, Some((TenancyStage::Leaving, 0))).await;
    let leaving = is_lease(&fleet, |lease| !condition(lease, "HandedOver").is_null());
    assert_eq!(leaving["status"]["phase"], "Granting");
    stream.say(&host.id, up::Body::Detached(Detached {})).await;
    says(&stream, Some((TenancyStage::Given, 1))).await;
    let runs = is_lease(&fleet, |lease| lease["status"]["phase"] == "Running");
    assert_eq!(condition(&runs, "HandedOver")["owner"], "tenant");
    let shown = is_phase(&fleet, &host.id, "HandedOver");
    assert!(shown["status"]["reason"].as_str().unwrap().contains("acme/llm"), "{shown:#}");

    // Back: signed, then by hand, then by the host.
    assert_eq!(rest.delete(LEASE).0, 202);
    let without = stream.signed_spec(&host.id).await;
    says(&stream, Some((TenancyStage::Returning, 1))).await;
    let released = |reason: &'static str| {
        move |lease: &Value| condition(lease, "Released")["reason"] == reason
    };
    let waits = is_lease(&fleet, released("PowerCycle"));
    assert_eq!(condition(&waits, "Released")["owner"], "operator");
    // A blank host with nothing on it proves nothing.
    (host.boot, host.granted) = (2, Vec::new());
    host.accepted = None;
    let back = host.take(&without).clone();
    assert_eq!((back.leases.len(), &back.returning), (0, &Some(id())));
    host.settle();
    host.hello(&stream).await;
    host.report(&stream).await;
    is_lease(&fleet, released("Sanitising"));
    let refused = rest.put("/v1/tenants/acme/leases/beside", &lease_document("beside", 1, "64Mi"));
    assert_eq!(refused.0, 409);
    assert!(refused.1.to_string().contains("is not gone yet"), "{}", refused.1);

    host.sanitised = Some(id());
    host.report(&stream).await;
    rest.until(LEASE, |status, _| status == 404);
    let clean = host.take(&stream.signed_spec(&host.id).await).clone();
    assert_eq!((clean.generation, &clean.returning), (back.generation + 1, &None));
    says(&stream, None).await;
    host.sanitised = None;
    host.settle();
    host.report(&stream).await;
    is_phase(&fleet, &host.id, "Ready");
    let after = rest.put("/v1/tenants/acme/leases/beside", &lease_document("beside", 1, "64Mi"));
    assert_eq!(after.0, 201, "{}", after.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_whole_host_cannot_boot_is_refused_by_its_field() {
    let fleet = Fleet::start();
    let Joined { stream: _stream, host: _host, site: _site } = joined(&fleet).await;
    for (image, args, field) in [
        ("oci://example.org/os:1", &[][..], "spec.workload.image"),
        ("oci://bulkhead.site/os:1", &["disk"], "spec.workload.args"),
    ] {
        let (status, body) = fleet.rest().put(LEASE, &metal(image, args));
        assert_eq!((status, body["field"].as_str()), (400, Some(field)), "{body}");
    }
}
