//! An attached site: specs that arrive, leases that go.

use bulkhead_api::link::rpc::{Answer, down, up};
use bulkhead_api::machine::{BootStage, Machine, MachineAdmission};
use bulkhead_api::site::{AdmissionMode, SiteSpec};
use bulkhead_api::time::Timestamp;
use serde_json::{Value, json};
use tonic::Code;

use crate::fleet::{Fleet, start_signer};
use crate::joined::{Joined, LEASE, MAC, MAC_2, SITE, UUID_2, is_phase, joined};
use crate::people::{condition, lease_document, site_document};
use crate::site::{FakeHost, attach, enrol_host, join};

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
            Some(down::Body::Question(request)) => Some((down.host.clone(), request.clone())),
            _ => None,
        })
        .await;
    assert_eq!(to, host.id.as_str());
    assert_eq!((request.path.as_str(), request.order), ("/v1/leases/acme/llm/log?lines=7", false));
    let answer = Answer { id: request.id, status: 200, body: b"hello\n".to_vec().into() };
    stream.say(&host.id, up::Body::Answer(answer)).await;
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
async fn a_host_is_asked_from_far_and_what_it_answers_is_passed_on_if_it_is_a_document() {
    let fleet = Fleet::start();
    let Joined { mut stream, host, site: _site } = joined(&fleet).await;
    let supervisor = format!("/v1/hosts/{}/supervisor", host.id);
    let cases = [
        ("GET", "/isolation?a=b", 200, r#"{"a":1}"#, 200, r#"{"a":1}"#.to_owned()),
        ("POST", "/quarantine/retry", 200, "{}", 200, "{}".to_owned()),
        ("GET", "/nothing", 404, r#"{"reason":"NotFound","message":"no"}"#, 404, "no".to_owned()),
        ("GET", "/ledger", 200, "<html>", 503, "answers what is no document".to_owned()),
        ("GET", "/ledger", 409, "{}", 503, "answers what is no document".to_owned()),
        ("GET", "/ledger", 302, "{}", 503, "answers with status 302, which is none".to_owned()),
        ("GET", "/ledger", 70_000, "{}", 503, "answers with status 70000".to_owned()),
    ];
    for (method, path, status, body, passed, said) in cases {
        let (rest, whole) = (fleet.rest(), format!("{supervisor}{path}"));
        let asked = std::thread::spawn(move || rest.text(method, &whole, b"{}"));
        let question = stream
            .until(|down| match &down.body {
                Some(down::Body::Question(question)) => Some(question.clone()),
                _ => None,
            })
            .await;
        assert_eq!((question.path, question.order), (format!("/v1{path}"), method == "POST"));
        let answer = Answer { id: question.id, status, body: body.to_owned().into() };
        stream.say(&host.id, up::Body::Answer(answer)).await;
        let (status, text) = asked.join().unwrap();
        assert!(status == passed && text.contains(&said), "{path}: {status} {text}");
    }
    let (status, error) = fleet.rest().get(&format!("{supervisor}/events?watch=true"));
    assert_eq!((status, &error["field"]), (400, &json!("watch")));
    let (status, error) = fleet.rest().get("/v1/hosts/nobody/supervisor/ledger");
    assert_eq!((status, &error["message"]), (404, &json!("no host nobody")));
    let store = fleet.store().await;
    let mut read = store.read().await.unwrap();
    let lines = bulkhead_registry::store::audit::tail(&mut read, 1).await.unwrap();
    let order = format!("admin POST hosts/{}/supervisor/quarantine/retry 200", host.id);
    assert_eq!(lines[0].text, order);
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
async fn the_weaker_erases_that_a_site_accepts_reach_its_hosts_signed_and_are_withdrawn() {
    let fleet = Fleet::start();
    let rest = fleet.rest();
    let Joined { mut stream, mut host, site: _site } = joined(&fleet).await;
    let mut document = site_document(SITE);
    for classes in [json!(["volume"]), json!([])] {
        document["spec"]["weakerErase"] = classes.clone();
        assert_eq!(rest.put("/v1/sites/sjc-01", &document).0, 200);
        let spec = host.take(&stream.signed_spec(&host.id).await);
        assert_eq!(serde_json::to_value(&spec.weaker_erase).unwrap(), classes);
    }
    document["spec"]["weakerErase"] = json!(["disks"]);
    let (status, refusal) = rest.put("/v1/sites/sjc-01", &document);
    assert_eq!((status, &refusal["field"]), (400, &json!("spec.weakerErase[0]")));
    // Who may boot is no business of a host: nothing is signed anew.
    document["spec"] = json!({ "admission": { "mode": "list" } });
    assert_eq!(rest.put("/v1/sites/sjc-01", &document).0, 200);
    rest.put(LEASE, &lease_document("llm", 1, "64Mi"));
    let spec = host.take(&stream.signed_spec(&host.id).await);
    assert_eq!((spec.generation, spec.leases.len()), (4, 1));
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
        tenancy: None,
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
