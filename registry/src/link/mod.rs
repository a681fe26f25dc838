//! The link to sites: enrolment and one stream a site (`proto/link.proto`).
//!
//! ```text
//!  Enrol ──► enrol: ticket or vouching site ──► who is it? ──► signer ──► certificate
//!  Attach ─► attach: one session a site ◄── sessions: what it has to be told
//! ```

pub mod attach;
pub mod enrol;
pub mod sessions;

use std::sync::Arc;

use bulkhead_api::link::rpc;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::identity::Peer;
use crate::state::Registry;

/// Who is at the other end of a connection, if it showed a certificate. The server adds it to requests.
#[derive(Debug, Clone)]
pub struct Client(pub Option<Peer>);

/// The gRPC service.
#[derive(Debug)]
pub struct LinkService {
    registry: Arc<Registry>,
}

impl LinkService {
    /// Of a registry.
    #[must_use]
    pub fn new(registry: Arc<Registry>) -> Self {
        Self { registry }
    }
}

fn peer_of<T>(request: &Request<T>) -> Option<Peer> {
    request.extensions().get::<Client>().and_then(|client| client.0.clone())
}

#[tonic::async_trait]
impl rpc::link_server::Link for LinkService {
    async fn enrol(
        &self,
        request: Request<rpc::EnrolRequest>,
    ) -> Result<Response<rpc::EnrolReply>, Status> {
        let peer = peer_of(&request);
        enrol::enrol(&self.registry, peer.as_ref(), &request.into_inner()).await.map(Response::new)
    }

    type AttachStream =
        std::pin::Pin<Box<dyn Stream<Item = Result<rpc::Down, Status>> + Send + 'static>>;

    async fn attach(
        &self,
        request: Request<Streaming<rpc::Up>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let peer = peer_of(&request);
        let session = attach::open(&self.registry, peer, request.into_inner()).await?;
        Ok(Response::new(Box::pin(session.down())))
    }
}
