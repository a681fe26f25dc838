//! The registry's end of the link, as much as a site sees of it: real TLS, real gRPC, answers as told.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bulkhead_api::link::EnrolFacts;
use bulkhead_api::link::rpc::link_server::{self, LinkServer};
use bulkhead_api::link::rpc::{Down, EnrolReply, EnrolRequest, Up, down, up};
use bulkhead_api::machine::Machine;
use bulkhead_api::site::SiteSpec;
use futures_util::stream::{BoxStream, StreamExt as _};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming, async_trait};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::fleet::{Fleet, Validity};
use super::within;

/// What a site said.
#[derive(Debug)]
pub enum Seen {
    /// Enrol: the request and its decoded facts.
    Enrol(EnrolRequest, EnrolFacts),
    /// A stream was opened; what is sent here goes down.
    Attached(UnboundedSender<Result<Down, Status>>),
    /// A message on the stream.
    Up(Up),
}

/// How enrolments are answered.
#[derive(Debug, Clone)]
pub struct Answers {
    /// Instead of a host's certificate.
    pub host_refusal: Option<Status>,
    /// Validity of the first certificate of the site; later ones last an hour.
    pub first_site_certificate: Validity,
    /// The site's certificate counts for nothing until it joins again.
    pub void: bool,
    /// The site that the join ticket is for.
    pub site: &'static str,
}

/// A registry that runs.
pub struct Registry {
    pub fleet: Arc<Fleet>,
    pub address: SocketAddr,
    pub answers: Arc<Mutex<Answers>>,
    seen: UnboundedReceiver<Seen>,
    told: UnboundedSender<Seen>,
    /// Its own, so that stopping it breaks every connection as the end of a process does.
    runtime: Option<Runtime>,
}

struct Calls {
    fleet: Arc<Fleet>,
    answers: Arc<Mutex<Answers>>,
    told: UnboundedSender<Seen>,
}

/// The SPIFFE URI of the other end.
fn who<T>(request: &Request<T>) -> Option<String> {
    let certificates = request.peer_certs()?;
    let (_, leaf) = X509Certificate::from_der(certificates.first()?).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    names.value.general_names.iter().find_map(|name| {
        if let GeneralName::URI(uri) = name { Some((*uri).to_owned()) } else { None }
    })
}

#[async_trait]
impl link_server::Link for Calls {
    async fn enrol(&self, call: Request<EnrolRequest>) -> Result<Response<EnrolReply>, Status> {
        let site = who(&call);
        let request = call.into_inner();
        let facts: EnrolFacts = serde_json::from_slice(&request.facts_json).unwrap();
        self.told.send(Seen::Enrol(request.clone(), facts.clone())).unwrap();
        let answers = self.answers.lock().unwrap().clone();
        let proven = site.as_deref() == Some("spiffe://bulkhead/site/lab");
        let (id, uri, names, good) = match facts {
            EnrolFacts::Site { names } => {
                let good = match (proven, request.ticket.as_str()) {
                    (false, "join-me") => {
                        self.answers.lock().unwrap().void = false;
                        answers.first_site_certificate
                    }
                    (true, "") => Validity(60, 3600),
                    _ => return Err(Status::permission_denied("join ticket is unknown")),
                };
                let uri = format!("spiffe://bulkhead/site/{}", answers.site);
                (answers.site.to_owned(), uri, names, good)
            }
            EnrolFacts::Host { mac, .. } => {
                assert!(proven && request.ticket.is_empty(), "tickets of hosts stay at the site");
                if let Some(refusal) = answers.host_refusal {
                    return Err(refusal);
                }
                let id = format!("lab-{:02x}", mac.octets()[5]);
                let uri = format!("spiffe://bulkhead/site/lab/host/{id}");
                (id, uri, Vec::new(), Validity(60, 3600))
            }
        };
        let chain = self.fleet.issue(&request.csr_der, &uri, &names, good);
        Ok(Response::new(EnrolReply { id, cert_chain_pem: chain.into_bytes().into() }))
    }

    type AttachStream = BoxStream<'static, Result<Down, Status>>;

    async fn attach(
        &self,
        call: Request<Streaming<Up>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let void = self.answers.lock().unwrap().void;
        if void || who(&call).as_deref() != Some("spiffe://bulkhead/site/lab") {
            return Err(Status::permission_denied("not a site"));
        }
        let (down, messages) = mpsc::unbounded_channel();
        self.told.send(Seen::Attached(down)).unwrap();
        let told = self.told.clone();
        let mut inbound = call.into_inner();
        let up = async move {
            while let Ok(Some(message)) = inbound.message().await {
                told.send(Seen::Up(message)).unwrap();
            }
        };
        // The stream down lives as long as the stream up.
        let down = UnboundedReceiverStream::new(messages).take_until(up);
        Ok(Response::new(down.boxed()))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Registry {
    /// Starts on a port that the system picks.
    pub async fn start() -> Self {
        let listener = TcpListener::bind((super::SITE, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (told, seen) = mpsc::unbounded_channel();
        let answers = Answers {
            host_refusal: None,
            first_site_certificate: Validity(60, 3600),
            void: false,
            site: "lab",
        };
        let mut registry = Self {
            fleet: Arc::new(Fleet::new()),
            address,
            answers: Arc::new(Mutex::new(answers)),
            seen,
            told,
            runtime: None,
        };
        registry.serve(listener);
        registry
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    fn serve(&mut self, listener: TcpListener) {
        let own = self.fleet.pair("spiffe://bulkhead/registry", &[self.address.ip().to_string()]);
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(&own.chain, &own.key))
            .client_ca_root(Certificate::from_pem(&self.fleet.ca_pem))
            .client_auth_optional(true);
        let calls = Calls {
            fleet: Arc::clone(&self.fleet),
            answers: Arc::clone(&self.answers),
            told: self.told.clone(),
        };
        let runtime = Runtime::new().unwrap();
        let listener = listener.into_std().unwrap();
        let mut server = Server::builder().tls_config(tls).unwrap();
        runtime.spawn(async move {
            let incoming = TcpListenerStream::new(TcpListener::from_std(listener).unwrap());
            server.add_service(LinkServer::new(calls)).serve_with_incoming(incoming).await.unwrap();
        });
        self.runtime = Some(runtime);
    }

    /// Falls over: connections break, the port is closed.
    pub async fn stop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
        let closed = async || tokio::net::TcpStream::connect(self.address).await.err();
        super::until("the end of the registry", closed).await;
        while self.seen.try_recv().is_ok() {}
    }

    /// Comes back at the same address.
    pub async fn start_again(&mut self) {
        let address = self.address;
        let bind = async || TcpListener::bind(address).await.ok();
        let listener = super::until("the registry's port", bind).await;
        self.serve(listener);
    }

    /// The next thing that `wanted` takes; others before it are dropped.
    pub async fn next<T>(&mut self, what: &str, mut wanted: impl FnMut(Seen) -> Option<T>) -> T {
        let seen = async {
            loop {
                if let Some(found) = wanted(self.seen.recv().await.unwrap()) {
                    return found;
                }
            }
        };
        within(what, seen).await
    }

    /// The next stream.
    pub async fn attached(&mut self) -> UnboundedSender<Result<Down, Status>> {
        let stream = |seen| if let Seen::Attached(down) = seen { Some(down) } else { None };
        self.next("a stream of the site", stream).await
    }

    /// The next message of `host`; empty = of the site.
    pub async fn message(&mut self, host: &str) -> up::Body {
        let of_host = |seen| {
            let Seen::Up(Up { host: from, body }) = seen else { return None };
            body.filter(|_| from == host)
        };
        self.next("a message", of_host).await
    }

    /// The next machine list that `wanted` takes something from.
    pub async fn machines<T>(&mut self, wanted: impl Fn(&[Machine]) -> Option<T>) -> T {
        let list = |seen| {
            let Seen::Up(Up { body: Some(up::Body::MachinesJson(json)), .. }) = seen else {
                return None;
            };
            wanted(&serde_json::from_slice::<Vec<Machine>>(&json).unwrap())
        };
        self.next("a machine list", list).await
    }
}

/// A site spec for the site itself.
pub fn site_spec(spec: &SiteSpec) -> Result<Down, Status> {
    let json = serde_json::to_vec(spec).unwrap();
    Ok(Down { host: String::new(), body: Some(down::Body::SiteSpecJson(json.into())) })
}

/// A signed spec for a host.
pub fn spec(host: &str, signed_json: &[u8]) -> Result<Down, Status> {
    let json = signed_json.to_vec().into();
    Ok(Down { host: host.to_owned(), body: Some(down::Body::SignedSpecJson(json)) })
}
