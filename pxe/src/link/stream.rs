//! One stream of a host: reports in, specs and log requests out.
//!
//! No task of its own: the connection polls it, and dropping it detaches the host.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_api::chain::Chain;
use bulkhead_api::id::HostId;
use bulkhead_api::link::rpc::{Down, Up, down, up};
use bulkhead_api::link::{HandOver, Hello};
use bulkhead_api::time::Timestamp;
use futures_util::stream::{BoxStream, StreamExt as _, unfold};
use tokio::sync::mpsc;
use tokio::time::Sleep;
use tonic::{Status, Streaming};
use tracing::{info, warn};

use super::peer::HostPeer;
use super::relay::HostSays;
use super::specs::KeptSpec;
use super::{Shared, hand_over};
use crate::service::Service;

/// An attached host.
struct HostStream {
    shared: Arc<Shared>,
    service: Arc<Service>,
    peer: HostPeer,
    serial: u64,
    greeted: bool,
    inbound: Streaming<Up>,
    down: mpsc::Receiver<Down>,
    expiry: Pin<Box<Sleep>>,
}

/// What a stream does next.
enum Next {
    Send(Down),
    End,
    Fail(Status),
}

impl Drop for HostStream {
    fn drop(&mut self) {
        self.shared.relay.detach(&self.peer.host, self.serial);
        info!(host = %self.peer.host, "host detached");
    }
}

/// Attaches `peer`; what comes out goes to the host.
pub(super) fn attach(
    shared: Arc<Shared>,
    service: Arc<Service>,
    peer: HostPeer,
    inbound: Streaming<Up>,
) -> BoxStream<'static, Result<Down, Status>> {
    let (serial, down) = shared.relay.attach(&peer.host);
    info!(host = %peer.host, "host attached");
    let left = peer.expires.duration_since(Timestamp::now());
    let expiry = tokio::time::sleep(Duration::try_from(left).unwrap_or(Duration::ZERO));
    let expiry = Box::pin(expiry);
    let stream =
        HostStream { shared, service, peer, serial, greeted: false, inbound, down, expiry };
    let next = |stream: Option<HostStream>| async move {
        let mut stream = stream?;
        match stream.next().await {
            Next::Send(message) => Some((Ok(message), Some(stream))),
            Next::End => None,
            Next::Fail(status) => {
                warn!(host = %stream.peer.host, reason = status.message(), "host stream ended");
                Some((Err(status), None))
            }
        }
    };
    unfold(Some(stream), next).boxed()
}

impl HostStream {
    async fn next(&mut self) -> Next {
        loop {
            let message = tokio::select! {
                message = self.inbound.message() => message,
                message = self.down.recv() => return match message {
                    Some(message) => Next::Send(message),
                    None => Next::Fail(Status::aborted(
                        "a newer stream of this host took over, or this one is not read",
                    )),
                },
                () = &mut self.expiry => return Next::Fail(Status::aborted(format!(
                    "the certificate expired at {}: attach with the renewed one",
                    self.peer.expires
                ))),
            };
            match message {
                Ok(Some(message)) => match self.received(message).await {
                    Ok(None) => {}
                    Ok(Some(answer)) => return Next::Send(answer),
                    Err(status) => return Next::Fail(status),
                },
                Ok(None) => return Next::End,
                Err(status) => return Next::Fail(status),
            }
        }
    }

    /// Passes a message on; the answer to a hello is the kept spec if the host has an older one.
    async fn received(&mut self, message: Up) -> Result<Option<Down>, Status> {
        let host = &self.peer.host;
        if message.host != host.as_str() {
            let text = format!("host: {:?}, the certificate is of {host}", message.host);
            return Err(Status::permission_denied(text));
        }
        let Some(body) = message.body else { return Err(Status::invalid_argument("body: none")) };
        let mut kept = None;
        let says = match body {
            up::Body::HelloJson(json) => {
                let hello: Hello = serde_json::from_slice(&json)
                    .map_err(|error| Status::invalid_argument(format!("hello_json: {error}")))?;
                kept = kept_spec(&self.shared, host, hello.accepted_generation).await;
                self.greeted = true;
                HostSays::Hello(json)
            }
            up::Body::StatusJson(json) => HostSays::Status(json),
            up::Body::Answer(answer) => HostSays::Answer(answer),
            up::Body::HandOverJson(json) => return self.asked_for_hand_over(&json).await.map(Some),
            up::Body::MachinesJson(_) | up::Body::Detached(_) => {
                return Err(Status::invalid_argument("body: only a site says this"));
            }
        };
        if !self.greeted {
            return Err(Status::invalid_argument("body: the first message must be hello_json"));
        }
        if !self.shared.relay.up(host, self.serial, says) {
            return Err(Status::aborted("a newer stream of this host took over"));
        }
        Ok(kept.map(|kept| Down {
            host: host.to_string(),
            body: Some(down::Body::SignedSpecJson(kept.signed_json)),
        }))
    }
}

impl HostStream {
    /// Answers a host that wants its machine handed over to a tenant.
    async fn asked_for_hand_over(&self, json: &[u8]) -> Result<Down, Status> {
        if !self.greeted {
            return Err(Status::invalid_argument("body: the first message must be hello_json"));
        }
        let asked: HandOver = serde_json::from_slice(json)
            .map_err(|error| Status::invalid_argument(format!("hand_over_json: {error}")))?;
        let answer = hand_over::answer(&self.shared, &self.service, &self.peer, asked.lease).await;
        let json = serde_json::to_vec(&answer)
            .map_err(|error| Status::internal(format!("hand_over_json: {error}")))?;
        let body = Some(down::Body::HandOverJson(json.into()));
        Ok(Down { host: self.peer.host.to_string(), body })
    }
}

/// The spec kept for `host`, if it is news to it.
async fn kept_spec(shared: &Arc<Shared>, host: &HostId, accepted: u64) -> Option<KeptSpec> {
    let (cache, whose) = (Arc::clone(shared), host.clone());
    let kept = tokio::task::spawn_blocking(move || cache.specs.get(&whose)).await;
    match kept {
        Ok(Ok(kept)) => kept.filter(|kept| kept.spec.generation > accepted),
        Ok(Err(error)) => {
            warn!(%host, error = %Chain(&error), "kept spec of the host cannot be used");
            None
        }
        Err(error) => {
            warn!(%host, error = %Chain(&error), "kept spec of the host was not read");
            None
        }
    }
}
