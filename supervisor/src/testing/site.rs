//! A site: the link's server over TLS on a port of 127.0.0.1, in a runtime of its own so that it can die.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bulkhead_api::link::rpc::link_server::{Link, LinkServer};
use bulkhead_api::link::rpc::{Down, EnrolReply, EnrolRequest, Up, down};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

use super::{Authority, DayRange, LONG, TICKET, host_id};

/// What the site answers to a request for an identity.
#[derive(Debug, Clone)]
pub(crate) enum Verdict {
    Certify(DayRange),
    CertifyAnotherKey,
    CertifyAs(&'static str),
    Refuse(Status),
}

/// A request for an identity as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Enrolment {
    pub(crate) ticket: String,
    pub(crate) with_certificate: bool,
}

/// One stream of a host.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) up: Streaming<Up>,
    down: mpsc::Sender<Result<Down, Status>>,
}

impl Attached {
    /// The next message of the host.
    pub(crate) async fn next(&mut self) -> Up {
        let message = tokio::time::timeout(LONG, self.up.message());
        message.await.expect("a message in time").unwrap().expect("an open stream")
    }

    pub(crate) async fn send(&self, body: down::Body) {
        let message = Down { host: host_id().to_string(), body: Some(body) };
        self.down.send(Ok(message)).await.unwrap();
    }
}

#[derive(Debug)]
struct Shared {
    authority: Arc<Authority>,
    verdict: Mutex<Verdict>,
    enrolments: Mutex<Vec<Enrolment>>,
    streams: mpsc::Sender<Attached>,
}

#[derive(Debug)]
pub(crate) struct Site {
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
    address: SocketAddr,
    attached: mpsc::Receiver<Attached>,
}

impl Site {
    /// A site of the fleet that `authority` stands for.
    pub(crate) fn start(authority: &Arc<Authority>, verdict: Verdict) -> Self {
        let (streams, attached) = mpsc::channel(8);
        let shared = Arc::new(Shared {
            authority: Arc::clone(authority),
            verdict: Mutex::new(verdict),
            enrolments: Mutex::default(),
            streams,
        });
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut site = Self { shared, runtime: None, address, attached };
        site.revive();
        site
    }

    pub(crate) fn link(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn decide(&self, verdict: Verdict) {
        *self.shared.verdict.lock().unwrap() = verdict;
    }

    pub(crate) fn enrolments(&self) -> Vec<Enrolment> {
        self.shared.enrolments.lock().unwrap().clone()
    }

    /// The next stream that a host opens.
    pub(crate) async fn attached(&mut self) -> Attached {
        let stream = tokio::time::timeout(LONG, self.attached.recv());
        stream.await.expect("a stream in time").unwrap()
    }

    /// Every connection breaks, the port is closed.
    pub(crate) fn die(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Serves again at the same port.
    pub(crate) fn revive(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = std::net::TcpListener::bind(self.address).unwrap();
        listener.set_nonblocking(true).unwrap();
        self.address = listener.local_addr().unwrap();
        let authority = &self.shared.authority;
        let (chain, key) = authority.site();
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(chain, key))
            .client_ca_root(Certificate::from_pem(authority.ca_pem()))
            .client_auth_optional(true);
        let service = LinkServer::new(Service(Arc::clone(&self.shared)));
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let server = Server::builder().tls_config(tls).unwrap().add_service(service);
            server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        self.runtime = Some(runtime);
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.die();
    }
}

struct Service(Arc<Shared>);

#[tonic::async_trait]
impl Link for Service {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolReply>, Status> {
        let with_certificate = request.peer_certs().is_some();
        let asked = request.into_inner();
        let enrolment = Enrolment { ticket: asked.ticket.clone(), with_certificate };
        self.0.enrolments.lock().unwrap().push(enrolment);
        if asked.ticket != TICKET && !with_certificate {
            return Err(Status::permission_denied("the ticket is unknown"));
        }
        let verdict = self.0.verdict.lock().unwrap().clone();
        let (id, chain) = match verdict {
            Verdict::Refuse(status) => return Err(status),
            Verdict::Certify(days) => {
                (host_id().to_string(), self.0.authority.certify(&asked.csr_der, days))
            }
            Verdict::CertifyAs(id) => {
                (id.to_owned(), self.0.authority.certify(&asked.csr_der, DayRange::FRESH))
            }
            Verdict::CertifyAnotherKey => {
                (host_id().to_string(), self.0.authority.certify_another())
            }
        };
        Ok(Response::new(EnrolReply { id, cert_chain_pem: chain.into_bytes().into() }))
    }

    type AttachStream = ReceiverStream<Result<Down, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<Up>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        if request.peer_certs().is_none() {
            return Err(Status::unauthenticated("no certificate"));
        }
        let (down, messages) = mpsc::channel(8);
        let attached = Attached { up: request.into_inner(), down };
        self.0.streams.send(attached).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}
