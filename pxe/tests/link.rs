//! The link of a real site, between hosts and a registry that are real ends of TLS and gRPC.
#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod lab;

use std::os::unix::fs::PermissionsExt as _;

use bulkhead_api::link::rpc::{Answer, Question, down, up};
use bulkhead_api::link::{EnrolFacts, Hello};
use bulkhead_api::machine::{BootStage, MachineAdmission};
use bulkhead_api::site::SiteSpec;
use lab::fleet::{Fleet, Validity};
use lab::host::{attach, connect, enrol, enrol_as, message, status, try_connect};
use lab::raw;
use lab::registry::{Registry, Seen, site_spec, spec};
use lab::{Lab, Running, mac, secret, uuid};
use tonic::{Code, Status};

/// The host that machine 1 becomes.
const HOST: &str = "lab-01";

/// A site that joined, and the stream on which its registry speaks to it.
struct Joined {
    lab: Lab,
    registry: Registry,
    site: Running,
    down: tokio::sync::mpsc::UnboundedSender<Result<bulkhead_api::link::rpc::Down, Status>>,
}

async fn joined() -> Joined {
    let mut registry = Registry::start().await;
    let lab = Lab::with_registry(&registry.url());
    registry.fleet.write_trust(&lab.config.trust_dir);
    let site = lab.start().await;
    let down = registry.attached().await;
    // Once it did as it was told, the site has taken note of its stream.
    let auto = lab.config.admission.clone();
    down.send(site_spec(&SiteSpec { admission: auto, ..SiteSpec::default() })).unwrap();
    let path = lab.config.state_dir.join("site-spec.json");
    lab::until("the first policy on disk", async || path.exists().then_some(())).await;
    Joined { lab, registry, site, down }
}

fn text(body: up::Body) -> String {
    match body {
        up::Body::HelloJson(json)
        | up::Body::StatusJson(json)
        | up::Body::MachinesJson(json)
        | up::Body::HandOverJson(json) => String::from_utf8(json.to_vec()).unwrap(),
        up::Body::Answer(answer) => format!("answer {}", answer.id),
        up::Body::Detached(_) => "detached".to_owned(),
    }
}

/// Code and reason of a refusal.
fn refused<T>(result: Result<T, Status>) -> (Code, String) {
    match result {
        Ok(_) => panic!("not refused"),
        Err(status) => (status.code(), status.message().to_owned()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_joins_with_its_ticket_and_says_who_is_there() {
    let mut registry = Registry::start().await;
    let lab = Lab::with_registry(&registry.url());
    registry.fleet.write_trust(&lab.config.trust_dir);
    let site = lab.start().await;
    let asked =
        |seen| if let Seen::Enrol(request, facts) = seen { Some((request, facts)) } else { None };
    let (request, facts) = registry.next("the site's enrolment", asked).await;
    assert_eq!(request.ticket, "join-me", "without the line end of its file");
    assert_eq!(facts, EnrolFacts::Site { names: vec!["127.0.0.1".to_owned()] });
    let _down = registry.attached().await;
    let hello: Hello = serde_json::from_str(&text(registry.message("").await)).unwrap();
    assert_eq!((hello.boot, hello.version.as_str()), (0, env!("CARGO_PKG_VERSION")));
    let listed = registry.machines(|all| all.first().cloned()).await;
    assert_eq!((listed.mac, listed.admission), (mac(1), MachineAdmission::Admitted));
    for name in ["key.pem", "certificate.pem"] {
        let path = lab.config.state_dir.join("identity").join(name);
        let mode = std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    site.stop().await;
    // With its certificate it needs no ticket any more.
    std::fs::remove_file(lab.dir.path().join("join-ticket")).unwrap();
    let site = lab.start().await;
    registry.attached().await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_does_not_take_the_certificate_of_another_one() {
    let mut registry = Registry::start().await;
    registry.answers.lock().unwrap().site = "oslo";
    let lab = Lab::with_registry(&registry.url());
    registry.fleet.write_trust(&lab.config.trust_dir);
    let site = lab.start().await;
    let asked = |seen| matches!(seen, Seen::Enrol(..)).then_some(());
    registry.next("the first try", asked).await;
    registry.next("the second try", asked).await;
    assert!(!lab.config.state_dir.join("identity/certificate.pem").exists());
    assert!(try_connect(&registry.fleet, site.ports.tls, None).await.is_none());
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_renews_at_half_life_and_uses_the_new_certificate_at_once() {
    let mut registry = Registry::start().await;
    registry.answers.lock().unwrap().first_site_certificate = Validity(1000, 500);
    let lab = Lab::with_registry(&registry.url());
    registry.fleet.write_trust(&lab.config.trust_dir);
    let site = lab.start().await;
    let _first = registry.attached().await;
    let ticket =
        |seen| if let Seen::Enrol(request, _) = seen { Some(request.ticket) } else { None };
    assert_eq!(registry.next("the renewal", ticket).await, "");
    let _second = registry.attached().await;
    // Hosts that connect from now on are shown the certificate that is kept on disk.
    let kept = std::fs::read(lab.config.state_dir.join("identity/certificate.pem")).unwrap();
    let shown = raw::Tls::connect(&registry.fleet, site.ports.tls, None).await.certificate();
    let kept = String::from_utf8(kept).unwrap();
    assert_eq!(raw::first_certificate(&kept), shown);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_whose_certificate_is_void_joins_again_with_the_ticket_it_finds() {
    let Joined { lab: _lab, mut registry, site, down } = joined().await;
    registry.answers.lock().unwrap().void = true;
    drop(down);
    let ticket =
        |seen| if let Seen::Enrol(request, _) = seen { Some(request.ticket) } else { None };
    registry.message("").await;
    registry.stop().await;
    registry.start_again().await;
    assert_eq!(registry.next("the second joining", ticket).await, "join-me");
    registry.attached().await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_port_does_not_listen_before_there_is_a_certificate() {
    let mut registry = Registry::start().await;
    registry.stop().await;
    let lab = Lab::with_registry(&registry.url());
    registry.fleet.write_trust(&lab.config.trust_dir);
    let site = lab.start().await;
    let refused = tokio::net::TcpStream::connect((lab::SITE, site.ports.tls)).await;
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    let boots = tokio::net::TcpStream::connect((lab::SITE, site.ports.http)).await;
    assert!(boots.is_ok(), "boot services do not wait for it");
    registry.start_again().await;
    connect(&registry.fleet, site.ports.tls, None).await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_enrols_once_with_its_ticket() {
    let Joined { lab, mut registry, site, down } = joined().await;
    let mut client = connect(&registry.fleet, site.ports.tls, None).await;
    let ticket = secret(1).expose();
    let (reply, own) = enrol(&mut client, &ticket, mac(1), Some(uuid(1))).await.unwrap();
    assert_eq!(reply.id, HOST);
    let listed = registry.machines(|all| all.iter().find(|m| m.host.is_some()).cloned()).await;
    assert_eq!(listed.stage, BootStage::Enrolled);
    let mut host = connect(&registry.fleet, site.ports.tls, Some(&own)).await;
    attach(&mut host, HOST, 0).await.unwrap();
    let (code, why) = refused(enrol(&mut client, &ticket, mac(1), Some(uuid(1))).await);
    assert_eq!(
        (code, why.as_str()),
        (Code::PermissionDenied, "ticket was used for an enrolment before")
    );
    let shown = registry
        .machines(|all| all.iter().find(|m| m.admission == MachineAdmission::Refused).cloned())
        .await;
    assert_eq!((shown.mac, shown.reason), (mac(1), why));
    drop(down);
    site.stop().await;
    assert_eq!(lab.machine(1).unwrap().host.unwrap().as_str(), HOST);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_lost_its_certificate_gets_one_again_for_the_same_ticket_and_key() {
    let Joined { lab: _lab, registry, site, down: _down } = joined().await;
    let mut client = connect(&registry.fleet, site.ports.tls, None).await;
    let (ticket, key) = (secret(1).expose(), rcgen::KeyPair::generate().unwrap());
    for time in ["first", "again"] {
        let enrolled = enrol_as(&mut client, &ticket, mac(1), Some(uuid(1)), &key).await;
        let (reply, own) = enrolled.unwrap_or_else(|status| panic!("{time}: {status}"));
        assert_eq!(reply.id, HOST);
        let mut host = connect(&registry.fleet, site.ports.tls, Some(&own)).await;
        attach(&mut host, HOST, 0).await.unwrap();
    }
    let (code, _) = refused(enrol(&mut client, &ticket, mac(1), Some(uuid(1))).await);
    assert_eq!(code, Code::PermissionDenied, "another key");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_ticket_is_refused_with_its_own_reason() {
    let Joined { lab, mut registry, site, down: _down } = joined().await;
    site.stop().await;
    lab.mint(2, 3600);
    let site = lab.start().await;
    let _down = registry.attached().await;
    let mut client = connect(&registry.fleet, site.ports.tls, None).await;
    let (good, old) = (secret(1).expose(), secret(2).expose());
    let rows = [
        (old.as_str(), 1, Some(uuid(1)), "expired"),
        (&secret(9).expose(), 1, Some(uuid(1)), "unknown"),
        ("no ticket at all", 1, Some(uuid(1)), "unknown"),
        (&good, 2, Some(uuid(1)), "belongs to the machine 52:54:00:00:00:01"),
        (&good, 1, Some(uuid(2)), "belongs to the machine 01010101-"),
        (&good, 1, None, "not to a machine without UUID"),
    ];
    for (ticket, machine, uuid, reason) in rows {
        let (code, why) = refused(enrol(&mut client, ticket, mac(machine), uuid).await);
        assert_eq!(code, Code::PermissionDenied, "{why}");
        assert!(why.contains(reason), "{why}");
        let shown = lab.machine(machine).unwrap();
        assert_eq!((shown.admission, shown.reason), (MachineAdmission::Refused, why));
    }
    let owner = async || enrol(&mut client, &good, mac(1), Some(uuid(1))).await.ok();
    lab::until("its owner's enrolment", owner).await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_request_names_its_field_and_costs_no_ticket() {
    let Joined { lab: _lab, mut registry, site, down: _down } = joined().await;
    let mut client = connect(&registry.fleet, site.ports.tls, None).await;
    let facts = |json: &str| bulkhead_api::link::rpc::EnrolRequest {
        ticket: secret(1).expose(),
        csr_der: vec![1].into(),
        facts_json: json.to_owned().into(),
    };
    let host = r#"{"kind":"host","mac":"52:54:00:00:00:01","uuid":null}"#;
    let long =
        bulkhead_api::link::rpc::EnrolRequest { csr_der: vec![0; 9000].into(), ..facts(host) };
    let rows = [
        (facts("{"), "facts_json"),
        (facts(r#"{"kind":"site","names":[]}"#), "facts_json.kind"),
        (facts(r#"{"kind":"host","mac":"x","uuid":null}"#), "facts_json"),
        (long, "csr_der: 9000 bytes"),
        (facts(host), "csr_der: not a PKCS#10 request"),
    ];
    for (request, field) in rows {
        let (code, why) = refused(client.enrol(request).await);
        assert_eq!(code, Code::InvalidArgument, "{why}");
        assert!(why.starts_with(field), "{why}");
    }
    registry.answers.lock().unwrap().host_refusal = Some(Status::invalid_argument("csr_der: no"));
    let again = enrol(&mut client, &secret(1).expose(), mac(1), Some(uuid(1))).await;
    assert_eq!(refused(again), (Code::InvalidArgument, "csr_der: no".to_owned()));
    registry.answers.lock().unwrap().host_refusal = None;
    assert!(enrol(&mut client, &secret(1).expose(), mac(1), Some(uuid(1))).await.is_ok());
    registry.stop().await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_stays_open_while_the_registry_is_away() {
    let Joined { lab: _lab, mut registry, site, down } = joined().await;
    let mut client = connect(&registry.fleet, site.ports.tls, None).await;
    let ticket = secret(1).expose();
    registry.answers.lock().unwrap().host_refusal = Some(Status::internal("its disk is full"));
    let (code, why) = refused(enrol(&mut client, &ticket, mac(1), Some(uuid(1))).await);
    assert_eq!((code, why.as_str()), (Code::Unavailable, "its disk is full"));
    registry.answers.lock().unwrap().host_refusal = None;
    drop(down);
    registry.stop().await;
    let (code, _) = refused(enrol(&mut client, &ticket, mac(1), Some(uuid(1))).await);
    assert_eq!(code, Code::Unavailable);
    registry.start_again().await;
    let _again = registry.attached().await;
    let granted = async || enrol(&mut client, &ticket, mac(1), Some(uuid(1))).await.ok();
    let (reply, _) = lab::until("the enrolment", granted).await;
    assert_eq!(reply.id, HOST);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_the_registry_refuses_is_listed_with_its_reason() {
    let Joined { lab: _lab, mut registry, site, down: _down } = joined().await;
    let mut client = connect(&registry.fleet, site.ports.tls, None).await;
    let reason = "UUID belongs to host oslo-07";
    registry.answers.lock().unwrap().host_refusal = Some(Status::permission_denied(reason));
    let answer = enrol(&mut client, &secret(1).expose(), mac(1), Some(uuid(1))).await;
    assert_eq!(refused(answer), (Code::PermissionDenied, reason.to_owned()));
    let shown = registry
        .machines(|all| all.iter().find(|m| m.admission == MachineAdmission::Refused).cloned())
        .await;
    assert_eq!(shown.reason, format!("enrolment refused by the registry: {reason}"));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_renews_with_its_certificate_for_its_own_machine_alone() {
    let Joined { lab: _lab, mut registry, site, down: _down } = joined().await;
    let port = site.ports.tls;
    let mut nobody = connect(&registry.fleet, port, None).await;
    let enrolled = enrol(&mut nobody, &secret(1).expose(), mac(1), Some(uuid(1))).await;
    let (_, own) = enrolled.unwrap();
    let mut host = connect(&registry.fleet, port, Some(&own)).await;
    let (reply, renewed) = enrol(&mut host, "", mac(1), Some(uuid(1))).await.unwrap();
    assert_eq!(reply.id, HOST);
    let mut again = connect(&registry.fleet, port, Some(&renewed)).await;
    attach(&mut again, HOST, 0).await.unwrap();
    let (code, _) = refused(enrol(&mut nobody, "", mac(1), Some(uuid(1))).await);
    assert_eq!(code, Code::Unauthenticated);
    let (code, why) = refused(enrol(&mut host, "", mac(2), Some(uuid(2))).await);
    assert_eq!(code, Code::PermissionDenied);
    assert!(why.contains("not the machine that it asks for"), "{why}");
    let other = registry.fleet.host("lab-02");
    let mut other = connect(&registry.fleet, port, Some(&other)).await;
    assert_eq!(
        refused(enrol(&mut other, "", mac(1), Some(uuid(1))).await).0,
        Code::PermissionDenied
    );
    registry.stop().await;
    let away = async || match enrol(&mut host, "", mac(1), Some(uuid(1))).await {
        Err(status) if status.code() == Code::Unavailable => Some(()),
        _ => None,
    };
    lab::until("the registry's absence", away).await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_pass_unchanged_both_ways() {
    let Joined { lab: _lab, mut registry, site, down } = joined().await;
    let own = registry.fleet.host(HOST);
    let mut client = connect(&registry.fleet, site.ports.tls, Some(&own)).await;
    let mut host = attach(&mut client, HOST, 0).await.unwrap();
    let hello: Hello = serde_json::from_str(&text(registry.message(HOST).await)).unwrap();
    assert_eq!(hello.boot, 3);
    host.up.send(status(HOST, "{ \"odd\" : 1 }")).unwrap();
    assert_eq!(text(registry.message(HOST).await), "{ \"odd\" : 1 }");
    let signed = registry.fleet.spec(HOST, 4);
    down.send(spec(HOST, &signed)).unwrap();
    let got = host.next().await.unwrap().unwrap();
    assert_eq!(got.host, HOST);
    assert_eq!(got.body, Some(down::Body::SignedSpecJson(signed.into())));
    let request = Question { id: 5, path: "/v1/receipts".into(), ..Question::default() };
    let question = down::Body::Question(request.clone());
    down.send(Ok(lab::host::down(HOST, question.clone()))).unwrap();
    assert_eq!(host.next().await.unwrap().unwrap().body, Some(question));
    let answer = Answer { id: 5, status: 200, body: "[]".into() };
    host.up.send(message(HOST, up::Body::Answer(answer.clone()))).unwrap();
    assert_eq!(registry.message(HOST).await, up::Body::Answer(answer));
    drop(host);
    assert_eq!(text(registry.message(HOST).await), "detached");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spec_that_the_host_must_refuse_reaches_it_but_is_not_kept() {
    let Joined { lab, registry, site, down, .. } = joined().await;
    let own = registry.fleet.host(HOST);
    let mut client = connect(&registry.fleet, site.ports.tls, Some(&own)).await;
    let mut host = attach(&mut client, HOST, 0).await.unwrap();
    let good = registry.fleet.spec(HOST, 4);
    let others = registry.fleet.spec("lab-02", 9);
    for signed in [good.as_slice(), b"{\"keyId\":", &others] {
        down.send(spec(HOST, signed)).unwrap();
        let got = host.next().await.unwrap().unwrap();
        assert_eq!(got.body, Some(down::Body::SignedSpecJson(signed.to_vec().into())));
    }
    site.stop().await;
    let kept = std::fs::read(lab.config.state_dir.join("specs/lab-01.json")).unwrap();
    assert_eq!(kept, good);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_gets_its_last_spec_while_the_registry_is_away() {
    let Joined { lab, mut registry, site, down } = joined().await;
    let signed = registry.fleet.spec(HOST, 4);
    down.send(spec(HOST, &signed)).unwrap();
    let path = lab.config.state_dir.join("specs/lab-01.json");
    lab::until("the spec on disk", async || path.exists().then_some(())).await;
    site.stop().await;
    registry.stop().await;
    let site = lab.start().await;
    let own = registry.fleet.host(HOST);
    let mut client = connect(&registry.fleet, site.ports.tls, Some(&own)).await;
    let mut host = attach(&mut client, HOST, 3).await.unwrap();
    let got = host.next().await.unwrap().unwrap();
    assert_eq!(got.body, Some(down::Body::SignedSpecJson(signed.into())));
    // One that has it already is not bothered: the first it hears is what the registry sends later.
    let mut same = attach(&mut client, HOST, 4).await.unwrap();
    registry.start_again().await;
    let down = registry.attached().await;
    let newer = registry.fleet.spec(HOST, 5);
    down.send(spec(HOST, &newer)).unwrap();
    let got = same.next().await.unwrap().unwrap();
    assert_eq!(got.body, Some(down::Body::SignedSpecJson(newer.into())));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_comes_back_hears_of_every_attached_host() {
    let Joined { lab: _lab, mut registry, site, down: _down } = joined().await;
    let own = registry.fleet.host(HOST);
    let mut client = connect(&registry.fleet, site.ports.tls, Some(&own)).await;
    let host = attach(&mut client, HOST, 0).await.unwrap();
    host.up.send(status(HOST, "{\"seq\":1}")).unwrap();
    registry.message(HOST).await;
    registry.message(HOST).await;
    registry.stop().await;
    host.up.send(status(HOST, "{\"seq\":2}")).unwrap();
    registry.start_again().await;
    let _again = registry.attached().await;
    assert!(matches!(registry.message(HOST).await, up::Body::HelloJson(_)));
    let status = async || {
        let body = registry.message(HOST).await;
        (text(body) == "{\"seq\":2}").then_some(())
    };
    lab::until("the latest status", status).await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_stream_of_a_host_wins() {
    let Joined { lab: _lab, mut registry, site, down: _down } = joined().await;
    let own = registry.fleet.host(HOST);
    let mut client = connect(&registry.fleet, site.ports.tls, Some(&own)).await;
    let mut old = attach(&mut client, HOST, 0).await.unwrap();
    registry.message(HOST).await;
    let mut other = connect(&registry.fleet, site.ports.tls, Some(&own)).await;
    let new = attach(&mut other, HOST, 0).await.unwrap();
    assert_eq!(refused(old.next().await).0, Code::Aborted);
    assert!(matches!(registry.message(HOST).await, up::Body::HelloJson(_)));
    new.up.send(status(HOST, "{\"seq\":1}")).unwrap();
    assert_eq!(text(registry.message(HOST).await), "{\"seq\":1}", "and no word of an end");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_host_of_this_site_attaches_and_only_as_itself() {
    let Joined { lab: _lab, registry, site, down: _down } = joined().await;
    let (fleet, port) = (&registry.fleet, site.ports.tls);
    let mut nobody = connect(fleet, port, None).await;
    assert_eq!(refused(attach(&mut nobody, HOST, 0).await).0, Code::Unauthenticated);
    for uri in [
        "spiffe://bulkhead/site/oslo/host/oslo-01",
        "spiffe://bulkhead/site/lab",
        "spiffe://bulkhead/registry",
        "https://bulkhead/site/lab/host/lab-01",
    ] {
        let mut client = connect(fleet, port, Some(&fleet.pair(uri, &[]))).await;
        assert_eq!(refused(attach(&mut client, HOST, 0).await).0, Code::PermissionDenied, "{uri}");
    }
    // A certificate of another CA does not even get a connection that works.
    let stranger = Fleet::new().host(HOST);
    if let Some(channel) = try_connect(fleet, port, Some(&stranger)).await {
        let mut client = bulkhead_api::link::rpc::link_client::LinkClient::new(channel);
        assert!(attach(&mut client, HOST, 0).await.is_err());
    }
    let mut client = connect(fleet, port, Some(&fleet.host(HOST))).await;
    let mut liar = attach(&mut client, "lab-02", 0).await.unwrap();
    assert_eq!(refused(liar.next().await).0, Code::PermissionDenied);
    let mut site_speech = attach(&mut client, HOST, 0).await.unwrap();
    site_speech.up.send(message("", up::Body::MachinesJson("[]".into()))).unwrap();
    assert_eq!(refused(site_speech.next().await).0, Code::PermissionDenied);
    let mut machines = attach(&mut client, HOST, 0).await.unwrap();
    machines.up.send(message(HOST, up::Body::MachinesJson("[]".into()))).unwrap();
    assert_eq!(refused(machines.next().await).0, Code::InvalidArgument);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admission_policy_is_in_force_at_once_and_after_a_restart() {
    let Joined { lab, mut registry, site, down } = joined().await;
    // So that a try before the policy is in force uses no ticket up.
    registry.answers.lock().unwrap().host_refusal = Some(Status::unavailable("later"));
    down.send(site_spec(&SiteSpec::default())).unwrap();
    let mut client = connect(&registry.fleet, site.ports.tls, None).await;
    let denied = async || {
        let answer = enrol(&mut client, &secret(1).expose(), mac(1), Some(uuid(1))).await;
        answer.err().filter(|status| status.message().contains("admission list"))
    };
    let status = lab::until("the policy in force", denied).await;
    assert_eq!(status.code(), Code::PermissionDenied);
    site.stop().await;
    registry.stop().await;
    let site = lab.start().await;
    let mut client = connect(&registry.fleet, site.ports.tls, None).await;
    let (code, why) = refused(enrol(&mut client, &secret(1).expose(), mac(1), Some(uuid(1))).await);
    assert_eq!(code, Code::PermissionDenied);
    assert!(why.contains("admission list"), "{why}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_served_to_hosts_of_this_site_alone() {
    let Joined { lab, registry, site, down: _down } = joined().await;
    let (layer, manifest) = raw::write_layout(&lab.config.oci_dir().join("demo"));
    let own = registry.fleet.host(HOST);
    let foreign = registry.fleet.pair("spiffe://bulkhead/site/oslo/host/oslo-1", &[]);
    let get = async |own, path: &str| {
        raw::Tls::connect(&registry.fleet, site.ports.tls, own).await.request("GET", path).await
    };
    let latest = "/v2/demo/manifests/latest";
    let paths = ["/v2/", latest, &format!("/v2/demo/blobs/{layer}")];
    for path in paths {
        assert_eq!(get(None, path).await.status, 401, "{path}");
        assert_eq!(get(Some(&foreign), path).await.status, 401, "{path}");
        assert_eq!(get(Some(&own), path).await.status, 200, "{path}");
    }
    let answer = get(Some(&own), latest).await;
    assert_eq!(answer.header("content-type"), Some(raw::MANIFEST_TYPE));
    assert_eq!(answer.header("docker-content-digest"), Some(manifest.as_str()));
    assert_eq!(raw::digest(&answer.body), manifest);
    let by_digest = get(Some(&own), &format!("/v2/demo/manifests/{manifest}")).await;
    assert_eq!(by_digest.body, answer.body);
    let blob = get(Some(&own), &format!("/v2/demo/blobs/{layer}")).await;
    assert_eq!(blob.header("content-length"), Some("200000"));
    assert_eq!(raw::digest(&blob.body), layer);
    let head = raw::Tls::connect(&registry.fleet, site.ports.tls, Some(&own)).await;
    let head = head.request("HEAD", &format!("/v2/demo/blobs/{layer}")).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), Some("200000"));
    let rows = [
        ("/v2/other/manifests/latest", 404, "NAME_UNKNOWN"),
        ("/v2/demo/manifests/v9", 404, "MANIFEST_UNKNOWN"),
        ("/v2/demo/manifests/..%2f..%2fx", 400, "MANIFEST_INVALID"),
        ("/v2/%2e%2e/manifests/latest", 400, "NAME_INVALID"),
        ("/v2/..%2fdemo/manifests/latest", 400, "NAME_INVALID"),
        ("/v2/demo/blobs/sha256:..%2f..%2findex.json", 400, "DIGEST_INVALID"),
    ];
    for (path, status, code) in rows {
        let answer = get(Some(&own), path).await;
        let shown = String::from_utf8_lossy(&answer.body);
        assert_eq!(answer.status, status, "{path}: {shown}");
        assert!(shown.contains(code), "{path}: {shown}");
    }
    let unknown = get(Some(&own), &format!("/v2/demo/blobs/sha256:{}", "0".repeat(64))).await;
    assert_eq!(unknown.status, 404);
    assert_eq!(get(Some(&own), "/etc/passwd").await.status, 404);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_cannot_take_every_connection_of_the_link() {
    let Joined { lab: _lab, registry, site, down: _down } = joined().await;
    connect(&registry.fleet, site.ports.tls, None).await;
    let mut held = Vec::new();
    let closed = loop {
        let mut one = tokio::net::TcpStream::connect((lab::SITE, site.ports.tls)).await.unwrap();
        let mut byte = [0];
        let read = tokio::io::AsyncReadExt::read(&mut one, &mut byte);
        // Served ones wait for the handshake, which never comes.
        let limit = std::time::Duration::from_millis(if held.len() < 31 { 0 } else { 2000 });
        if matches!(tokio::time::timeout(limit, read).await, Ok(Ok(0) | Err(_))) {
            break true;
        }
        held.push(one);
        if held.len() > 34 {
            break false;
        }
    };
    assert!(closed, "{} are held", held.len());
    drop(held);
    connect(&registry.fleet, site.ports.tls, None).await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enrolment_that_is_too_long_is_refused_unread() {
    let Joined { lab: _lab, registry, site, down: _down } = joined().await;
    let mut client = connect(&registry.fleet, site.ports.tls, None).await;
    let long = "t".repeat(200 << 10);
    let (_, why) = refused(enrol(&mut client, &long, mac(1), Some(uuid(1))).await);
    assert!(!why.contains("ticket"), "it was looked up: {why}");
    site.stop().await;
}
