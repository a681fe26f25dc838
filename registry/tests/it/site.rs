//! A site and its hosts, as the registry sees them.

use std::time::Duration;

use bulkhead_api::id::{HostId, LeaseId};
use bulkhead_api::inventory::Inventory;
use bulkhead_api::lease::{LeasePhase, LeaseStatus, ReportedLease};
use bulkhead_api::link::rpc::link_client::LinkClient;
use bulkhead_api::link::rpc::{Detached, Down, EnrolReply, EnrolRequest, Up, down, up};
use bulkhead_api::link::{EnrolFacts, Hello};
use bulkhead_api::spec::{HostSpec, SignedSpec, SpecKeys, accept};
use bulkhead_api::status::HostStatus;
use bulkhead_api::time::Timestamp;
use bulkhead_lease::place::{Request, Taken, place};
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Status, Streaming};

use crate::fleet::Fleet;
use crate::people::PATIENCE;

/// A key with, perhaps, a certificate.
pub(crate) struct Member {
    pub(crate) key: KeyPair,
    pub(crate) chain_pem: String,
}

pub(crate) fn csr(key: &KeyPair) -> Vec<u8> {
    CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
}

pub(crate) fn key() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
}

/// A connection, with the member's certificate if it has one.
pub(crate) async fn connect(fleet: &Fleet, member: Option<&Member>) -> LinkClient<Channel> {
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(fleet.ca_pem()));
    if let Some(member) = member {
        let key = member.key.serialize_pem();
        tls = tls.identity(Identity::from_pem(&member.chain_pem, key));
    }
    let url = format!("https://{}", fleet.address);
    let endpoint = Endpoint::from_shared(url).unwrap().tls_config(tls).unwrap();
    LinkClient::new(endpoint.connect().await.unwrap())
}

pub(crate) async fn enrol(
    client: &mut LinkClient<Channel>,
    ticket: &str,
    key: &KeyPair,
    facts: &EnrolFacts,
) -> Result<EnrolReply, Status> {
    let request = EnrolRequest {
        ticket: ticket.to_owned(),
        csr_der: csr(key).into(),
        facts_json: serde_json::to_vec(facts).unwrap().into(),
    };
    client.enrol(request).await.map(tonic::Response::into_inner)
}

pub(crate) fn site_facts() -> EnrolFacts {
    EnrolFacts::Site { names: vec!["10.9.0.1".to_owned()] }
}

pub(crate) fn host_facts(mac: &str, uuid: &str) -> EnrolFacts {
    EnrolFacts::Host { mac: mac.parse().unwrap(), uuid: Some(uuid.parse().unwrap()) }
}

/// Joins a site with a new key.
pub(crate) async fn join(fleet: &Fleet, ticket: &str) -> Member {
    join_as(fleet, ticket, key()).await.unwrap()
}

pub(crate) async fn join_as(fleet: &Fleet, ticket: &str, key: KeyPair) -> Result<Member, Status> {
    let mut client = connect(fleet, None).await;
    let reply = enrol(&mut client, ticket, &key, &site_facts()).await?;
    let chain_pem = String::from_utf8(reply.cert_chain_pem.to_vec()).unwrap();
    Ok(Member { key, chain_pem })
}

pub(crate) async fn enrol_host(
    fleet: &Fleet,
    site: &Member,
    mac: &str,
    uuid: &str,
) -> Result<HostId, Status> {
    let mut client = connect(fleet, Some(site)).await;
    let reply = enrol(&mut client, "", &key(), &host_facts(mac, uuid)).await?;
    Ok(reply.id.parse().unwrap())
}

/// A site's stream.
pub(crate) struct Attached {
    pub(crate) up: mpsc::Sender<Up>,
    pub(crate) down: Streaming<Down>,
}

pub(crate) async fn try_attach(fleet: &Fleet, member: Option<&Member>) -> Result<Attached, Status> {
    let mut client = connect(fleet, member).await;
    let (up, receiver) = mpsc::channel(16);
    let hello = json(&Hello::default());
    up.send(Up { host: String::new(), body: Some(up::Body::HelloJson(hello)) }).await.unwrap();
    let down = client.attach(ReceiverStream::new(receiver)).await?.into_inner();
    Ok(Attached { up, down })
}

pub(crate) async fn attach(fleet: &Fleet, member: &Member) -> Attached {
    try_attach(fleet, Some(member)).await.unwrap()
}

pub(crate) fn json(value: &impl serde::Serialize) -> tonic::codegen::Bytes {
    serde_json::to_vec(value).unwrap().into()
}

impl Attached {
    pub(crate) async fn next(&mut self) -> Result<Option<Down>, Status> {
        timeout(PATIENCE, self.down.message()).await.expect("the registry says nothing")
    }

    /// The next message that `take` takes.
    pub(crate) async fn until<T>(&mut self, take: impl Fn(&Down) -> Option<T>) -> T {
        loop {
            let down = self.next().await.unwrap().expect("the registry ended the stream");
            if let Some(taken) = take(&down) {
                return taken;
            }
        }
    }

    pub(crate) async fn signed_spec(&mut self, host: &HostId) -> SignedSpec {
        self.until(|down| match &down.body {
            Some(down::Body::SignedSpecJson(json)) if down.host == host.as_str() => {
                Some(serde_json::from_slice(json).unwrap())
            }
            _ => None,
        })
        .await
    }

    /// Whether nothing is said for a while. A thing not done cannot be waited for.
    pub(crate) async fn is_silent(&mut self) -> bool {
        timeout(Duration::from_millis(300), self.down.message()).await.is_err()
    }

    pub(crate) async fn say(&self, host: &HostId, body: up::Body) {
        let up = Up { host: host.to_string(), body: Some(body) };
        self.up.send(up).await.unwrap();
    }
}

/// A supervisor that grants what it is told at once, or not.
pub(crate) struct FakeHost {
    pub(crate) id: HostId,
    pub(crate) boot: u64,
    seq: u64,
    keys: SpecKeys,
    pub(crate) accepted: Option<HostSpec>,
    pub(crate) settled: u64,
    pub(crate) granted: Vec<ReportedLease>,
    pub(crate) sanitised: Option<LeaseId>,
}

impl FakeHost {
    pub(crate) fn new(fleet: &Fleet, id: &HostId) -> Self {
        let keys = fleet.spec_keys();
        let (boot, seq, settled) = (1, 0, 0);
        Self {
            id: id.clone(),
            boot,
            seq,
            keys,
            accepted: None,
            settled,
            granted: Vec::new(),
            sanitised: None,
        }
    }

    pub(crate) fn generation(&self) -> u64 {
        self.accepted.as_ref().map_or(0, |spec| spec.generation)
    }

    /// Takes a spec as a real host does: by its signature, for itself, newer than the last.
    pub(crate) fn take(&mut self, signed: &SignedSpec) -> &HostSpec {
        let now = Timestamp::now();
        let spec = accept(signed, &self.keys, &self.id, self.generation(), now).unwrap();
        self.accepted.insert(spec)
    }

    /// Grants and takes back until it is as the spec says.
    pub(crate) fn settle(&mut self) {
        let Some(spec) = &self.accepted else { return };
        let mut taken = Taken::default();
        for lease in &spec.leases {
            let holding = place(&inventory(), &taken, &Request::of(&lease.spec)).unwrap();
            taken.held.insert(lease.id.clone(), holding);
        }
        self.settled = spec.generation;
        self.granted = taken
            .held
            .into_iter()
            .map(|(id, holding)| ReportedLease {
                id,
                status: LeaseStatus {
                    phase: LeasePhase::Running,
                    holding: Some(holding),
                    ..LeaseStatus::default()
                },
            })
            .collect();
    }

    pub(crate) fn status(&mut self) -> HostStatus {
        self.seq += 1;
        let ready = json!([{ "type": "Ready", "status": "True", "reason": "Ready",
            "owner": "supervisor", "since": Timestamp::now() }]);
        HostStatus {
            host: self.id.clone(),
            boot: self.boot,
            seq: self.seq,
            observed: Timestamp::now(),
            accepted_generation: self.generation(),
            settled_generation: self.settled,
            conditions: serde_json::from_value(ready).unwrap(),
            leases: self.granted.clone(),
            quarantine: Vec::new(),
            sanitised: self.sanitised.clone(),
            inventory: inventory(),
            supervisor_rss: 0,
            userspace_start_ms: 0,
        }
    }

    pub(crate) async fn report(&mut self, site: &Attached) {
        let status = json(&self.status());
        site.say(&self.id.clone(), up::Body::StatusJson(status)).await;
    }

    pub(crate) async fn hello(&self, site: &Attached) {
        let hello =
            Hello { boot: self.boot, accepted_generation: self.generation(), ..Hello::default() };
        site.say(&self.id, up::Body::HelloJson(json(&hello))).await;
    }

    pub(crate) async fn detach(&self, site: &Attached) {
        site.say(&self.id, up::Body::Detached(Detached {})).await;
    }
}

/// Four cores of two CPUs, 8 GiB on one node: three cores for leases.
pub(crate) fn inventory() -> Inventory {
    let cores: Vec<_> =
        (0..4).map(|n| json!({ "socket": 0, "id": n, "node": 0, "cpus": [n, n + 4] })).collect();
    let all: Vec<u32> = (0..8).collect();
    serde_json::from_value(json!({
        "cpu": { "cores": cores },
        "memory": [{ "id": 0, "total": "8Gi", "cpus": all }],
    }))
    .unwrap()
}
