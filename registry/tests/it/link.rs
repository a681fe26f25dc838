//! Sites and hosts: enrolment, specs that arrive, leases that go.

use bulkhead_api::id::{HostId, SiteName};
use bulkhead_api::link::rpc::{LogReply, down, up};
use bulkhead_api::machine::{BootStage, Machine, MachineAdmission};
use bulkhead_api::site::{AdmissionMode, SiteSpec};
use bulkhead_api::time::Timestamp;
use bulkhead_registry::store::{Durability, tickets};
use bulkhead_registry::token::{Purpose, TokenHash};
use serde_json::{Value, json};
use tonic::Code;

use crate::fleet::{Fleet, start_signer};
use crate::people::{condition, lease_document, site_document};
use crate::site::{
    Attached, FakeHost, Member, attach, connect, csr, enrol, enrol_host, host_facts, join, join_as,
    key, site_facts, try_attach,
};

const SITE: &str = "sjc-01";
const MAC: &str = "52:54:00:00:00:01";
const MAC_2: &str = "52:54:00:00:00:02";
const UUID: &str = "11111111-2222-3333-4444-555555555555";
const UUID_2: &str = "11111111-2222-3333-4444-666666666666";
const LEASE: &str = "/v1/tenants/acme/leases/llm";

/// A site with one host that has reported.
struct Joined {
    site: Member,
    stream: Attached,
    host: FakeHost,
}

async fn joined(fleet: &Fleet) -> Joined {
    let ticket = fleet.rest().prepare(SITE);
    let site = join(fleet, &ticket).await;
    let mut stream = attach(fleet, &site).await;
    let id = enrol_host(fleet, &site, MAC, UUID).await.unwrap();
    let mut host = FakeHost::new(fleet, &id);
    host.take(&stream.signed_spec(&id).await);
    host.settle();
    host.hello(&stream).await;
    host.report(&stream).await;
    is_phase(fleet, &id, "Ready");
    Joined { site, stream, host }
}

fn is_phase(fleet: &Fleet, host: &HostId, phase: &str) -> Value {
    let path = format!("/v1/hosts/{host}");
    fleet.rest().until(&path, |_, body| body["status"]["phase"] == phase)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_ticket_is_for_one_key() {
    let fleet = Fleet::start();
    let ticket = fleet.rest().prepare(SITE);
    let first = join(&fleet, &ticket).await;
    let again = KeyKept(first.key.serialize_der());
    join_as(&fleet, &ticket, again.key()).await.expect("the reply may have been lost");
    let used = join_as(&fleet, &ticket, key()).await.err().unwrap();
    assert_eq!(used.code(), Code::PermissionDenied);
    assert_eq!(used.message(), "join ticket was used before, by another key");
    let unknown = join_as(&fleet, &"0".repeat(64), key()).await.err().unwrap();
    assert_eq!(
        (unknown.code(), unknown.message()),
        (Code::PermissionDenied, "join ticket is unknown")
    );
    let (_, site) = fleet.rest().get("/v1/sites/sjc-01");
    assert_eq!(condition(&site, "Enrolled")["status"], "True");
}

struct KeyKept(Vec<u8>);

impl KeyKept {
    fn key(&self) -> rcgen::KeyPair {
        rcgen::KeyPair::try_from(self.0.as_slice()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_join_ticket_is_refused() {
    let fleet = Fleet::start();
    fleet.rest().prepare(SITE);
    let store = fleet.store().await;
    let mut write = store.write(Durability::Durable).await.unwrap();
    let hash = TokenHash::of(Purpose::Join, "late");
    let (site, at): (SiteName, Timestamp) =
        (SITE.parse().unwrap(), "2026-01-01T00:00:00Z".parse().unwrap());
    tickets::mint(write.conn(), &hash, &site, at).await.unwrap();
    write.commit().await.unwrap();
    let late = join_as(&fleet, "late", key()).await.err().unwrap();
    assert_eq!(late.code(), Code::PermissionDenied);
    assert_eq!(late.message(), "join ticket expired at 2026-01-01T00:00:00Z");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_cannot_be_read_name_the_field() {
    let fleet = Fleet::start();
    let ticket = fleet.rest().prepare(SITE);
    let mut client = connect(&fleet, None).await;
    let mut request = bulkhead_api::link::rpc::EnrolRequest {
        ticket: ticket.clone(),
        csr_der: vec![1, 2, 3].into(),
        facts_json: crate::site::json(&site_facts()),
    };
    let refused = client.enrol(request.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(refused.message(), "csr_der: not a PKCS#10 request in DER");
    request.csr_der = csr(&key()).into();
    request.facts_json = b"{}".to_vec().into();
    let refused = client.enrol(request.clone()).await.unwrap_err();
    assert!(refused.message().starts_with("facts_json: "), "{refused}");
    // The site asks for the registry's own address: the signer says no, the ticket stays good.
    let facts = bulkhead_api::link::EnrolFacts::Site { names: vec!["*.example".to_owned()] };
    let key = key();
    let refused = enrol(&mut client, &ticket, &key, &facts).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    enrol(&mut client, &ticket, &key, &site_facts()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_enrolled_site_may_attach_or_vouch_for_hosts() {
    let fleet = Fleet::start();
    let rest = fleet.rest();
    let ticket = rest.prepare(SITE);
    let nobody = try_attach(&fleet, None).await.err().unwrap();
    assert_eq!(nobody.code(), Code::Unauthenticated);
    let mut client = connect(&fleet, None).await;
    let refused = enrol(&mut client, "", &key(), &host_facts(MAC, UUID)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let refused = enrol(&mut client, "", &key(), &site_facts()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);

    let old = join(&fleet, &ticket).await;
    attach(&fleet, &old).await;
    // The site's machine is replaced: what the old one holds is void.
    let new = join(&fleet, &rest.ticket(SITE)).await;
    let void = try_attach(&fleet, Some(&old)).await.err().unwrap();
    assert_eq!(void.code(), Code::PermissionDenied);
    assert!(void.message().contains("certificate of site sjc-01 is void"), "{void}");
    attach(&fleet, &new).await;

    // A host's certificate is no site's.
    let mut client = connect(&fleet, Some(&new)).await;
    let host_key = key();
    let reply = enrol(&mut client, "", &host_key, &host_facts(MAC, UUID)).await.unwrap();
    let chain_pem = String::from_utf8(reply.cert_chain_pem.to_vec()).unwrap();
    let host = Member { key: host_key, chain_pem };
    let refused = try_attach(&fleet, Some(&host)).await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_key_replaces_the_old_one_when_it_is_shown() {
    let fleet = Fleet::start();
    let old = join(&fleet, &fleet.rest().prepare(SITE)).await;
    let mut client = connect(&fleet, Some(&old)).await;
    let fresh = key();
    let reply = enrol(&mut client, "", &fresh, &site_facts()).await.unwrap();
    // The reply was lost: the old one still does.
    attach(&fleet, &old).await;
    let reply_2 = enrol(&mut client, "", &fresh, &site_facts()).await.unwrap();
    assert_eq!((reply.id.as_str(), reply_2.id.as_str()), (SITE, SITE));
    let chain_pem = String::from_utf8(reply_2.cert_chain_pem.to_vec()).unwrap();
    attach(&fleet, &Member { key: fresh, chain_pem }).await;
    let void = try_attach(&fleet, Some(&old)).await.err().unwrap();
    assert_eq!(void.code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_arrives_signed_and_is_gone_only_when_its_host_settled_without_it() {
    let fleet = Fleet::start();
    let rest = fleet.rest();
    let Joined { mut stream, mut host, site: _site } = joined(&fleet).await;
    assert_eq!(host.generation(), 1);
    let mut watch = rest.watch("/v1/leases?watch=true&tenant=acme");

    let (status, lease) = rest.put(LEASE, &lease_document("llm", 2, "1Gi"));
    assert_eq!((status, &lease["status"]["phase"]), (201, &json!("Pending")));
    assert_eq!(lease["status"]["host"], host.id.as_str());
    assert_eq!(rest.put(LEASE, &lease_document("llm", 2, "1Gi")).0, 200);
    let (status, other) = rest.put(LEASE, &lease_document("llm", 1, "1Gi"));
    assert_eq!((status, &other["reason"]), (409, &json!("Conflict")));

    watch.until(|event| event["object"]["status"]["phase"] == "Pending");
    let spec = host.take(&stream.signed_spec(&host.id).await);
    assert_eq!(spec.generation, 2);
    assert_eq!(spec.leases[0].id.to_string(), "acme/llm");
    host.settle();
    host.report(&stream).await;
    let running = rest.until(LEASE, |_, lease| lease["status"]["phase"] == "Running");
    assert_eq!(running["status"]["holding"]["cpus"], json!([1, 2, 5, 6]));
    watch.until(|event| event["object"]["status"]["phase"] == "Running");
    let free = rest.get(&format!("/v1/hosts/{}", host.id)).1["status"]["capacity"].clone();
    assert_eq!((&free["cores"], &free["coresFree"]), (&json!(3), &json!(1)));

    let (status, lease) = rest.delete(LEASE);
    assert_eq!((status, &lease["status"]["phase"]), (202, &json!("Releasing")));
    watch.until(|event| event["object"]["status"]["phase"] == "Releasing");
    let spec = host.take(&stream.signed_spec(&host.id).await);
    assert_eq!((spec.generation, spec.leases.len()), (3, 0));
    // Accepted, still settled at generation 2: it is not gone, and neither is its room.
    host.report(&stream).await;
    let releasing = |_: u16, lease: &Value| {
        condition(lease, "Released")["message"]
            == "gone once host sjc-01-000001 has settled \
             generation 3; it has settled 2"
    };
    rest.until(LEASE, releasing);
    let (status, refusal) = rest.put("/v1/tenants/acme/leases/b", &lease_document("b", 2, "1Gi"));
    assert_eq!((status, &refusal["reason"]), (409, &json!("DoesNotFit")));
    assert_eq!(
        refusal["shortages"],
        json!([{ "host": "sjc-01-000001", "short": ["cpus: 2 cores wanted, 1 free of 3"] }])
    );
    assert_eq!(rest.delete("/v1/tenants/acme").0, 409);
    assert_eq!(rest.delete(&format!("/v1/hosts/{}", host.id)).0, 409);
    assert_eq!(rest.put(LEASE, &lease_document("llm", 2, "1Gi")).0, 409);

    // Settled at 3 and still listed: it is not gone either.
    host.settled = 3;
    host.report(&stream).await;
    let seen = rest.until(&format!("/v1/hosts/{}", host.id), |_, body| {
        body["status"]["reported"]["settledGeneration"] == 3
    });
    assert_eq!(seen["status"]["reported"]["leases"].as_array().unwrap().len(), 1);
    assert_eq!(rest.get(LEASE).0, 200);

    host.settle();
    host.report(&stream).await;
    rest.until(LEASE, |status, _| status == 404);
    watch.until(|event| event["type"] == "DELETED");
    assert_eq!(rest.put("/v1/tenants/acme/leases/b", &lease_document("b", 3, "1Gi")).0, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_machine_with_the_identity_of_a_host_is_refused_and_shown() {
    let fleet = Fleet::start();
    let rest = fleet.rest();
    let Joined { site, host, stream: _stream } = joined(&fleet).await;
    let same = enrol_host(&fleet, &site, MAC, UUID).await.unwrap();
    assert_eq!(same, host.id);

    let refused = enrol_host(&fleet, &site, MAC_2, UUID).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("belongs to host sjc-01-000001"), "{refused}");
    let (_, hosts) = rest.get("/v1/hosts");
    let phases: Vec<_> = hosts
        .as_array()
        .unwrap()
        .iter()
        .map(|h| (h["metadata"]["name"].as_str().unwrap(), h["status"]["phase"].as_str().unwrap()))
        .collect();
    assert_eq!(phases, [("sjc-01-000001", "Ready"), ("sjc-01-000002", "Refused")]);
    assert_eq!(hosts[1]["status"]["reason"], refused.message());

    // The address of the host with another UUID: shown under a name of its own.
    enrol_host(&fleet, &site, MAC, UUID_2).await.unwrap_err();
    let (_, hosts) = rest.get("/v1/hosts");
    let clone = &hosts.as_array().unwrap()[1];
    assert_eq!(clone["metadata"]["name"], "sjc-01-000001-525400-11111111");
    assert_eq!(clone["spec"]["systemUuid"], UUID_2);

    // An operator forgets it, gives the machine another UUID, and it enrols.
    assert_eq!(rest.delete("/v1/hosts/sjc-01-000002").0, 200);
    assert_eq!(rest.get("/v1/hosts/sjc-01-000002").0, 404);
    let id = enrol_host(&fleet, &site, MAC_2, UUID_2).await.unwrap();
    assert_eq!(id.as_str(), "sjc-01-000002");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_signer_a_lease_is_accepted_and_says_what_it_waits_for() {
    let mut fleet = Fleet::start();
    let rest = fleet.rest();
    let Joined { mut stream, mut host, site } = joined(&fleet).await;
    drop(fleet.signer.take());
    assert_eq!(rest.put(LEASE, &lease_document("llm", 2, "1Gi")).0, 201);
    let lease = rest.until(LEASE, |_, l| condition(l, "SpecSigned")["status"] == "False");
    let waits = condition(&lease, "SpecSigned");
    assert_eq!((&waits["reason"], &waits["owner"]), (&json!("SignerAway"), &json!("registry")));
    assert!(waits["nextRetry"].is_string() && waits["message"].is_string(), "{waits}");
    let away = enrol_host(&fleet, &site, MAC_2, UUID_2).await.unwrap_err();
    assert_eq!(away.code(), Code::Unavailable);

    fleet.signer = Some(start_signer(fleet.folder.path()));
    let spec = host.take(&stream.signed_spec(&host.id).await);
    assert_eq!((spec.generation, spec.leases.len()), (2, 1));
    rest.until(LEASE, |_, l| condition(l, "SpecSigned")["status"] == "True");
    enrol_host(&fleet, &site, MAC_2, UUID_2).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spec_that_was_signed_and_lost_does_not_stop_the_next_one() {
    let fleet = Fleet::start();
    let Joined { mut stream, mut host, site: _site } = joined(&fleet).await;
    // As if the registry had been killed between the signer's answer and its own commit.
    let client = bulkhead_registry::signer::client::SignerClient::new(
        &fleet.folder.path().join("signer.sock"),
    );
    let mut lost = host.accepted.clone().unwrap();
    lost.generation = 5;
    client.sign_spec(lost).await.unwrap();
    fleet.rest().put(LEASE, &lease_document("llm", 1, "64Mi"));
    let spec = host.take(&stream.signed_spec(&host.id).await);
    assert_eq!((spec.generation, spec.leases.len()), (6, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_asked_of_the_host_and_passed_on() {
    let fleet = Fleet::start();
    let Joined { mut stream, host, site: _site } = joined(&fleet).await;
    fleet.rest().put(LEASE, &lease_document("llm", 1, "64Mi"));
    let ask = |rest: crate::people::Rest| {
        std::thread::spawn(move || rest.text("GET", &format!("{LEASE}/log?lines=7"), &[]))
    };
    let asked = ask(fleet.rest());
    let (to, request) = stream
        .until(|down| match &down.body {
            Some(down::Body::Logs(request)) => Some((down.host.clone(), request.clone())),
            _ => None,
        })
        .await;
    assert_eq!(to, host.id.as_str());
    assert_eq!((request.lease.as_str(), request.lines), ("llm", 7));
    let reply = LogReply { id: request.id, text: b"hello\n".to_vec().into(), error: String::new() };
    stream.say(&host.id, up::Body::Logs(reply)).await;
    assert_eq!(asked.join().unwrap(), (200, "hello\n".to_owned()));

    drop(stream);
    fleet.rest().until("/v1/sites/sjc-01", |_, site| site["status"]["connected"] == false);
    let (status, body) = fleet.rest().get(&format!("{LEASE}/log"));
    assert_eq!((status, &body["reason"]), (503, &json!("Unavailable")));
    assert_eq!(
        body["message"],
        "host sjc-01-000001 is out of reach: site sjc-01 is not connected; try again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_stream_ended_is_unreachable_and_its_leases_unknown() {
    let fleet = Fleet::start();
    let rest = fleet.rest();
    let Joined { mut stream, mut host, site: _site } = joined(&fleet).await;
    rest.put(LEASE, &lease_document("llm", 1, "64Mi"));
    host.take(&stream.signed_spec(&host.id).await);
    host.settle();
    host.report(&stream).await;
    rest.until(LEASE, |_, lease| lease["status"]["phase"] == "Running");

    host.detach(&stream).await;
    is_phase(&fleet, &host.id, "Unreachable");
    let (_, lease) = rest.get(LEASE);
    assert_eq!(lease["status"]["phase"], "Unknown");
    assert_eq!(lease["status"]["holding"]["cpus"], json!([1, 5]), "as last seen");
    let (status, refusal) = rest.put("/v1/tenants/acme/leases/b", &lease_document("b", 1, "64Mi"));
    assert_eq!(status, 409);
    let short = refusal["shortages"][0]["short"][0].as_str().unwrap();
    assert!(short.starts_with("host is Unreachable and takes no lease now"), "{short}");

    // It boots again: an old report says nothing about this boot.
    host.boot = 2;
    host.hello(&stream).await;
    is_phase(&fleet, &host.id, "Joining");
    host.report(&stream).await;
    is_phase(&fleet, &host.id, "Ready");
    assert_eq!(rest.get(LEASE).1["status"]["phase"], "Running");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_hears_of_its_spec_and_cannot_speak_for_hosts_of_another() {
    let fleet = Fleet::start();
    let rest = fleet.rest();
    let Joined { mut stream, mut host, site: _site } = joined(&fleet).await;
    let mut document = site_document(SITE);
    document["spec"]["admission"] = json!({ "mode": "list" });
    assert_eq!(rest.put("/v1/sites/sjc-01", &document).0, 200);
    let spec: SiteSpec = stream
        .until(|down| match &down.body {
            Some(down::Body::SiteSpecJson(json)) => Some(serde_json::from_slice(json).unwrap()),
            _ => None,
        })
        .await;
    assert_eq!(spec.admission.mode, AdmissionMode::List);

    let other = join(&fleet, &rest.prepare("fra-01")).await;
    let foreign = attach(&fleet, &other).await;
    host.detach(&foreign).await;
    // Garbage about one's own host drops that message, not the stream.
    stream.say(&host.id, up::Body::StatusJson(b"{".to_vec().into())).await;
    host.report(&stream).await;
    host.report(&foreign).await;
    let seen = rest.until("/v1/hosts/sjc-01-000001", |_, body| {
        body["status"]["reported"]["seq"].as_u64() >= Some(2)
    });
    assert_eq!(
        (&seen["status"]["phase"], &seen["status"]["reported"]["seq"]),
        (&json!("Ready"), &json!(2))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_stream_takes_over_and_brings_every_spec_once() {
    let fleet = Fleet::start();
    let Joined { mut stream, host, site } = joined(&fleet).await;
    let mut second = attach(&fleet, &site).await;
    let ended = loop {
        match stream.next().await {
            Ok(Some(_)) => {}
            ended => break ended,
        }
    };
    assert_eq!(ended.unwrap_err().code(), Code::Aborted);
    let signed = second.signed_spec(&host.id).await;
    assert_eq!(FakeHost::new(&fleet, &host.id).take(&signed).generation, 1);
    // A host that has it is not told again; one that lost it is.
    host.hello(&second).await;
    assert!(second.is_silent().await);
    FakeHost::new(&fleet, &host.id).hello(&second).await;
    second.signed_spec(&host.id).await;
    assert_eq!(fleet.rest().get("/v1/sites/sjc-01").1["status"]["connected"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_that_are_no_hosts_are_shown_with_the_reason() {
    let fleet = Fleet::start();
    let Joined { stream, site: _site, host: _host } = joined(&fleet).await;
    let seen: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
    let machine = |mac: &str, admission, reason: &str| Machine {
        mac: mac.parse().unwrap(),
        uuid: None,
        admission,
        reason: reason.to_owned(),
        host: None,
        address: None,
        stage: BootStage::Seen,
        boots: 0,
        first_seen: seen,
        last_seen: seen,
    };
    let machines = [
        machine(MAC, MachineAdmission::Admitted, ""),
        machine(MAC_2, MachineAdmission::Quarantined, "not in the site's list"),
        machine("52:54:00:00:00:03", MachineAdmission::Admitted, ""),
    ];
    let json = crate::site::json(&machines);
    let up = bulkhead_api::link::rpc::Up {
        host: String::new(),
        body: Some(up::Body::MachinesJson(json)),
    };
    stream.up.send(up).await.unwrap();
    let hosts = fleet.rest().until("/v1/hosts", |_, b| b.as_array().is_some_and(|h| h.len() == 3));
    let shown: Vec<_> = hosts
        .as_array()
        .unwrap()
        .iter()
        .map(|host| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            (text(&host["metadata"]["name"]), text(&host["status"]["phase"]))
        })
        .collect();
    let pair = |name: &str, phase: &str| (name.to_owned(), phase.to_owned());
    assert_eq!(
        shown,
        [
            pair("sjc-01-000001", "Ready"),
            pair("sjc-01-000002", "Quarantined"),
            pair("sjc-01-000003", "Booting"),
        ]
    );
    assert_eq!(hosts[1]["status"]["reason"], "not in the site's list");
}
