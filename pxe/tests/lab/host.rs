//! A host's end of the link.

use bulkhead_api::id::{MacAddr, SystemUuid};
use bulkhead_api::link::rpc::link_client::LinkClient;
use bulkhead_api::link::rpc::{Down, EnrolReply, EnrolRequest, Up, down, up};
use bulkhead_api::link::{EnrolFacts, Hello};
use rcgen::KeyPair;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Status, Streaming};

use super::fleet::{Fleet, Pair, csr};
use super::{until, within};

/// A connection to the site's link; `None` while it does not listen or does not like the certificate.
pub async fn try_connect(fleet: &Fleet, port: u16, own: Option<&Pair>) -> Option<Channel> {
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&fleet.ca_pem));
    if let Some(own) = own {
        tls = tls.identity(Identity::from_pem(&own.chain, &own.key));
    }
    let endpoint = Endpoint::from_shared(format!("https://{}:{port}", super::SITE)).unwrap();
    endpoint.tls_config(tls).unwrap().connect().await.ok()
}

/// A connection to the site's link, once it listens.
pub async fn connect(fleet: &Fleet, port: u16, own: Option<&Pair>) -> LinkClient<Channel> {
    let channel = until("the site's link", async || try_connect(fleet, port, own).await).await;
    LinkClient::new(channel)
}

/// Asks for an identity with a new key.
pub async fn enrol(
    client: &mut LinkClient<Channel>,
    ticket: &str,
    mac: MacAddr,
    uuid: Option<SystemUuid>,
) -> Result<(EnrolReply, Pair), Status> {
    enrol_as(client, ticket, mac, uuid, &KeyPair::generate().unwrap()).await
}

/// Asks for an identity with this key.
pub async fn enrol_as(
    client: &mut LinkClient<Channel>,
    ticket: &str,
    mac: MacAddr,
    uuid: Option<SystemUuid>,
    key: &KeyPair,
) -> Result<(EnrolReply, Pair), Status> {
    let request = EnrolRequest {
        ticket: ticket.to_owned(),
        csr_der: csr(key).into(),
        facts_json: serde_json::to_vec(&EnrolFacts::Host { mac, uuid }).unwrap().into(),
    };
    let reply = within("an answer to Enrol", client.enrol(request)).await?.into_inner();
    let chain = String::from_utf8(reply.cert_chain_pem.to_vec()).unwrap();
    Ok((reply, Pair { chain, key: key.serialize_pem() }))
}

/// An open stream of a host.
pub struct Attached {
    pub up: UnboundedSender<Up>,
    down: Streaming<Down>,
}

/// Opens a stream and says hello as `host`.
pub async fn attach(
    client: &mut LinkClient<Channel>,
    host: &str,
    accepted_generation: u64,
) -> Result<Attached, Status> {
    let (up, messages) = mpsc::unbounded_channel();
    let hello = Hello { version: "test".to_owned(), boot: 3, accepted_generation };
    up.send(message(host, up::Body::HelloJson(serde_json::to_vec(&hello).unwrap().into())))
        .unwrap();
    let stream = client.attach(UnboundedReceiverStream::new(messages));
    let down = within("an answer to Attach", stream).await?.into_inner();
    Ok(Attached { up, down })
}

pub fn message(host: &str, body: up::Body) -> Up {
    Up { host: host.to_owned(), body: Some(body) }
}

pub fn down(host: &str, body: down::Body) -> Down {
    Down { host: host.to_owned(), body: Some(body) }
}

pub fn status(host: &str, json: &'static str) -> Up {
    message(host, up::Body::StatusJson(json.into()))
}

impl Attached {
    pub async fn next(&mut self) -> Result<Option<Down>, Status> {
        within("a message for the host", self.down.message()).await
    }
}
