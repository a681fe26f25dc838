//! Sites and hosts enrol, or do not.

use bulkhead_api::id::SiteName;
use bulkhead_api::time::Timestamp;
use bulkhead_registry::store::{Durability, tickets};
use bulkhead_registry::token::{Purpose, TokenHash};
use tonic::Code;

use crate::fleet::Fleet;
use crate::joined::{Joined, MAC, MAC_2, SITE, UUID, UUID_2, joined};
use crate::people::condition;
use crate::site::{
    Member, attach, connect, csr, enrol, enrol_host, host_facts, join, join_as, key, site_facts,
    try_attach,
};

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
    assert_eq!(void.code(), Code::Unauthenticated);
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
    assert_eq!(void.code(), Code::Unauthenticated);
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
async fn an_enrolment_that_is_too_long_is_refused_unread() {
    let fleet = Fleet::start();
    let request = bulkhead_api::link::rpc::EnrolRequest {
        ticket: "t".repeat(200 << 10),
        csr_der: csr(&key()).into(),
        facts_json: serde_json::to_vec(&site_facts()).unwrap().into(),
    };
    let refused = connect(&fleet, None).await.enrol(request).await.unwrap_err();
    assert!(!refused.message().contains("join ticket"), "it was looked up: {refused}");
}
