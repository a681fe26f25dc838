//! One stream to the site: reports go up, specs come down, the registry's questions are answered; the certificate is
//! renewed beside it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bulkhead_api::chain::Chain;
use bulkhead_api::id::LeaseId;
use bulkhead_api::link::rpc::link_client::LinkClient;
use bulkhead_api::link::rpc::{Answer, Question, Up, down, up};
use bulkhead_api::link::{HandOver, Hello};
use bulkhead_api::status::HostStatus;
use bulkhead_api::time::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tracing::warn;

use super::identity::Identity;
use super::{CALL, Event, RENEWAL_PAUSE, UplinkError, channel, enrol, refused};
use crate::paths::Paths;
use crate::socket::Interface;

/// Reports on their way before a sender waits.
const QUEUE: usize = 4;
/// Questions that are answered at the same time.
const QUESTIONS: usize = 8;
/// How long a report may wait for the network.
const SEND: Duration = Duration::from_secs(20);

/// What goes up.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// The latest report.
    pub(super) status: watch::Receiver<Arc<HostStatus>>,
    /// Leases to whose tenants the machine is to be handed over.
    pub(super) hand_overs: mpsc::Receiver<LeaseId>,
}

/// The stream ended because a new certificate is there: attach again with it.
#[derive(Debug)]
pub(super) struct Renewed;

/// What one stream needs.
#[derive(Debug)]
pub(super) struct Session<'a> {
    pub(super) paths: &'a Paths,
    pub(super) identity: &'a Identity,
    pub(super) events: &'a mpsc::Sender<Event>,
    pub(super) interface: &'a Interface,
}

impl Session<'_> {
    /// Runs one stream until it ends. The certificate is renewed not before `renewable`.
    pub(super) async fn run(
        &self,
        outgoing: &mut Outgoing,
        renewable: Instant,
    ) -> Result<Renewed, UplinkError> {
        let identity = self.identity;
        let host = identity.named.host.to_string();
        let channel = channel(&identity.named.link, &self.paths.fleet_ca(), Some(identity)).await?;
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
        let mut client = LinkClient::new(channel.clone());
        let mut down = tokio::time::timeout(CALL, client.attach(ReceiverStream::new(requests)))
            .await
            .map_err(|_| UplinkError::Deadline { call: "Attach", seconds: CALL.as_secs() })?
            .map_err(|status| refused("Attach", &status))?
            .into_inner();
        tell(self.events, Event::Connected).await?;
        let mut renewal = std::pin::pin!(self.renewal(channel, renewable));
        // Whoever asked waits no longer than this stream.
        let mut answers = JoinSet::new();
        loop {
            tokio::select! {
                message = down.message() => match message.map_err(|s| refused("Attach", &s))? {
                    None => return Err(UplinkError::Closed),
                    Some(message) => match message.body {
                        Some(down::Body::Question(question)) => self.asked(question, &mut answers),
                        Some(body) => received(body, self.events).await?,
                        None => warn!("message without a body ignored"),
                    },
                },
                changed = outgoing.status.changed() => {
                    changed.map_err(|_| UplinkError::Stopping)?;
                    let latest = outgoing.status.borrow_and_update().clone();
                    send(&up, &host, report(&latest)?).await?;
                }
                Some(answer) = answers.join_next() => match answer {
                    Ok(answer) => send(&up, &host, up::Body::Answer(answer)).await?,
                    Err(error) => warn!(%error, "a question of the registry was not answered"),
                },
                Some(lease) = outgoing.hand_overs.recv() => {
                    let asked = serde_json::to_vec(&HandOver { lease }).map_err(UplinkError::Encode)?;
                    send(&up, &host, up::Body::HandOverJson(asked.into())).await?;
                }
                renewed = &mut renewal => return renewed,
            }
        }
    }

    /// Answers beside the stream: an order waits for the end of a pass.
    fn asked(&self, question: Question, answers: &mut JoinSet<Answer>) {
        let interface = self.interface.clone();
        let busy = answers.len() >= QUESTIONS;
        answers.spawn(async move {
            if busy { interface.busy(&question).await } else { interface.answer(question).await }
        });
    }

    /// Waits until half of the certificate's validity is over, then asks until there is a new one.
    async fn renewal(&self, channel: Channel, renewable: Instant) -> Result<Renewed, UplinkError> {
        tokio::time::sleep_until(renewable.into()).await;
        let due = self.identity.renewal();
        while let Ok(left) = Duration::try_from(due.duration_since(Timestamp::now())) {
            if left.is_zero() {
                break;
            }
            // In parts: the wall clock may be set meanwhile.
            tokio::time::sleep(left.min(RENEWAL_PAUSE)).await;
        }
        loop {
            let Err(error) = enrol::renew(self.paths, self.identity, channel.clone()).await else {
                return Ok(Renewed);
            };
            let (label, owner) = (error.label(), error.owner());
            let message = Chain(&error).to_string();
            let next = Timestamp::now().saturating_add(RENEWAL_PAUSE).unwrap_or(Timestamp::MAX);
            warn!(label, error = %Chain(&error), "certificate not renewed");
            tell(self.events, Event::NotRenewed { label, message, owner, next }).await?;
            tokio::time::sleep(RENEWAL_PAUSE).await;
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
        down::Body::SiteSpecJson(_) | down::Body::Question(_) => {
            warn!("message that is not for the node ignored");
            Ok(())
        }
        down::Body::HandOverJson(json) => match serde_json::from_slice(&json) {
            Ok(answer) => tell(events, Event::HandOver(answer)).await,
            Err(error) => {
                warn!(%error, "answer to a hand-over not understood");
                Ok(())
            }
        },
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
