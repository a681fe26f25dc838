//! Routes of the TLS port: service `Link` for gRPC, `/v2/` for OCI images.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use bulkhead_api::link::rpc::link_server::{self, LinkServer};
use bulkhead_api::link::rpc::{Down, EnrolReply, EnrolRequest, Up};
use bulkhead_api::time::Timestamp;
use futures_util::stream::BoxStream;
use http_body_util::Limited;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::peer::Peer;
use super::{Shared, enrol, oci, stream};
use crate::service::Service;

/// A ticket, a certificate request and some facts.
const LONGEST_ENROLMENT: usize = 64 << 10;

/// Everything that is served; each connection adds its [`Peer`].
pub(super) fn routes(shared: &Arc<Shared>, service: &Arc<Service>) -> Router {
    let hosts = Hosts { shared: Arc::clone(shared), service: Arc::clone(service) };
    Routes::new(LinkServer::new(hosts))
        .into_axum_router()
        .layer(from_fn(bound_enrolment))
        .merge(oci::routes(&shared.oci_dir, &shared.site, service))
        .fallback(|| async { (StatusCode::NOT_FOUND, "no such path\n") })
}

/// Anybody may send an enrolment: so much of it is read.
async fn bound_enrolment(request: axum::extract::Request, next: Next) -> axum::response::Response {
    if !request.uri().path().ends_with("/Enrol") {
        return next.run(request).await;
    }
    next.run(request.map(|body| Body::new(Limited::new(body, LONGEST_ENROLMENT)))).await
}

/// What hosts call.
struct Hosts {
    shared: Arc<Shared>,
    service: Arc<Service>,
}

fn peer<T>(request: &Request<T>) -> Result<Peer, Status> {
    let peer = request.extensions().get::<Peer>();
    peer.cloned().ok_or_else(|| Status::internal("connection without a peer"))
}

#[async_trait]
impl link_server::Link for Hosts {
    async fn enrol(&self, call: Request<EnrolRequest>) -> Result<Response<EnrolReply>, Status> {
        let peer = peer(&call)?;
        let reply = enrol::enrol(&self.shared, &self.service, &peer, call.into_inner()).await?;
        Ok(Response::new(reply))
    }

    type AttachStream = BoxStream<'static, Result<Down, Status>>;

    async fn attach(
        &self,
        call: Request<Streaming<Up>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let peer = peer(&call)?;
        let host = peer.trusted_host(&self.shared.site, &self.service, Timestamp::now())?;
        let (service, who) = (Arc::clone(&self.service), host.host.clone());
        enrol::blocking(move || service.note(|site, _| site.attached(&who))).await?;
        let (shared, service) = (Arc::clone(&self.shared), Arc::clone(&self.service));
        Ok(Response::new(stream::attach(shared, service, host, call.into_inner())))
    }
}
