//! One stream to the site: reports go up, specs and log requests come down.

use std::sync::Arc;
use std::time::Duration;

use bulkhead_api::link::Hello;
use bulkhead_api::link::rpc::link_client::LinkClient;
use bulkhead_api::link::rpc::{LogReply, Up, down, up};
use bulkhead_api::status::HostStatus;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tracing::warn;

use super::identity::Identity;
use super::{CALL, Event, UplinkError, channel, refused};
use crate::paths::Paths;

/// Reports on their way before a sender waits.
const QUEUE: usize = 4;
/// How long a report may wait for the network.
const SEND: Duration = Duration::from_secs(20);

/// What goes up.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// The latest report.
    pub(super) status: watch::Receiver<Arc<HostStatus>>,
    /// Answers to log requests.
    pub(super) logs: mpsc::Receiver<LogReply>,
}

/// Runs one stream until it ends, which it always does with an error.
pub(super) async fn run(
    paths: &Paths,
    identity: &Identity,
    outgoing: &mut Outgoing,
    events: &mpsc::Sender<Event>,
) -> UplinkError {
    match stream(paths, identity, outgoing, events).await {
        Err(error) => error,
        Ok(()) => UplinkError::Closed,
    }
}

async fn stream(
    paths: &Paths,
    identity: &Identity,
    outgoing: &mut Outgoing,
    events: &mpsc::Sender<Event>,
) -> Result<(), UplinkError> {
    let host = identity.named.host.to_string();
    let channel = channel(&identity.named.link, &paths.fleet_ca(), Some(identity)).await?;
    let (up, requests) = mpsc::channel(QUEUE);
    // The report names the host only once the node knows that it is enrolled.
    let first = outgoing
        .status
        .wait_for(|status| status.host == identity.named.host)
        .await
        .map_err(|_| UplinkError::Stopping)?
        .clone();
    let hello = Hello {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        boot: first.boot,
        accepted_generation: first.accepted_generation,
    };
    let hello = serde_json::to_vec(&hello).map_err(UplinkError::Encode)?;
    send(&up, &host, up::Body::HelloJson(hello.into())).await?;
    send(&up, &host, report(&first)?).await?;
    let mut client = LinkClient::new(channel);
    let mut down = tokio::time::timeout(CALL, client.attach(ReceiverStream::new(requests)))
        .await
        .map_err(|_| UplinkError::Deadline { call: "Attach", seconds: CALL.as_secs() })?
        .map_err(|status| refused("Attach", &status))?
        .into_inner();
    tell(events, Event::Connected).await?;
    loop {
        tokio::select! {
            message = down.message() => match message.map_err(|s| refused("Attach", &s))? {
                None => return Ok(()),
                Some(message) => match message.body {
                    Some(body) => received(body, events).await?,
                    None => warn!("message without a body ignored"),
                },
            },
            changed = outgoing.status.changed() => {
                changed.map_err(|_| UplinkError::Stopping)?;
                let latest = outgoing.status.borrow_and_update().clone();
                send(&up, &host, report(&latest)?).await?;
            }
            Some(reply) = outgoing.logs.recv() => {
                send(&up, &host, up::Body::Logs(reply)).await?;
            }
        }
    }
}

fn report(status: &HostStatus) -> Result<up::Body, UplinkError> {
    let json = serde_json::to_vec(status).map_err(UplinkError::Encode)?;
    Ok(up::Body::StatusJson(json.into()))
}

async fn received(body: down::Body, events: &mpsc::Sender<Event>) -> Result<(), UplinkError> {
    match body {
        down::Body::SignedSpecJson(json) => tell(events, Event::Spec(json.to_vec())).await,
        down::Body::Logs(request) => tell(events, Event::Logs(request)).await,
        down::Body::SiteSpecJson(_) => {
            warn!("site spec sent to a host ignored");
            Ok(())
        }
    }
}

async fn send(up: &mpsc::Sender<Up>, host: &str, body: up::Body) -> Result<(), UplinkError> {
    let message = Up { host: host.to_owned(), body: Some(body) };
    match tokio::time::timeout(SEND, up.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(UplinkError::Closed),
        Err(_) => Err(UplinkError::Deadline { call: "send a report", seconds: SEND.as_secs() }),
    }
}

async fn tell(events: &mpsc::Sender<Event>, event: Event) -> Result<(), UplinkError> {
    events.send(event).await.map_err(|_| UplinkError::Stopping)
}
