//! The way up: an identity, then one stream to the registry, for ever.
//!
//! ```text
//!  join ticket + key ──Enrol──► certificate ──Attach (mTLS)──► stream ──ends──► wait (jitter) ─┐
//!                                    ▲ half-life: Enrol without ticket │                        │
//!                                    └─────────────────────────────────┴────────────────────────┘
//! ```
//!
//! Boot services and attached hosts do not notice: what was decided stays in force (law 4).

mod join;
mod outgoing;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_api::chain::Chain;
use bulkhead_api::id::HostId;
use bulkhead_api::link::rpc::link_client::LinkClient;
use bulkhead_api::link::rpc::{Down, down};
use bulkhead_api::site::SiteSpec;
use bulkhead_api::time::Timestamp;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::time::Instant;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};
use tracing::{error, info, warn};

use self::outgoing::Outgoing;
use super::backoff::delay;
use super::credentials::{CredentialsError, Current};
use super::settings::Settings;
use super::specs::SpecError;
use super::{Shared, enrol};
use crate::service::Service;

/// Deadline of connecting and of every call.
const CALL: Duration = Duration::from_secs(15);
/// Pings to the registry; an unanswered one ends the connection.
const PING: Duration = Duration::from_secs(10);
/// A stream that lived so long starts the delays anew.
const STABLE: Duration = Duration::from_secs(30);
/// Between attempts to renew while the old certificate still works.
const RENEW_AGAIN: Duration = Duration::from_secs(60);

/// The registry and what it takes to join it.
#[derive(Debug)]
pub(super) struct Registry {
    /// `https://name-or-address:port`.
    pub(super) url: String,
    /// Where the operator leaves the join ticket.
    pub(super) join_ticket_file: PathBuf,
    /// Names that the site's certificate must carry.
    pub(super) names: Vec<String>,
    /// The fleet's CA.
    pub(super) ca_pem: Vec<u8>,
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
enum UplinkError {
    #[error("join ticket {}", path.display())]
    JoinTicket { path: PathBuf, source: std::io::Error },
    #[error("join ticket {} is empty", path.display())]
    NoJoinTicket { path: PathBuf },
    #[error("connect to the registry at {url}")]
    Connect { url: String, source: tonic::transport::Error },
    #[error("{call}: {}: {}", status.code(), status.message())]
    Call { call: &'static str, status: Box<Status> },
    #[error("{call}: no answer in {} s", CALL.as_secs())]
    Deadline { call: &'static str },
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error("the registry enrolled this as {theirs:?}, its configuration says {ours:?}")]
    OtherSite { theirs: String, ours: String },
    #[error("write a message")]
    Encode(#[source] serde_json::Error),
    #[error("the registry ended the stream")]
    Closed,
    #[error("the site's certificate expired at {0}")]
    Expired(Timestamp),
}

impl UplinkError {
    /// The registry answered, and does not know this site by its certificate.
    fn is_refusal(&self) -> bool {
        let Self::Call { status, .. } = self else { return false };
        matches!(status.code(), Code::PermissionDenied | Code::Unauthenticated)
    }
}

/// Why a stream ended without a fault.
enum Ended {
    /// There is a new certificate: connect with it.
    Renewed,
}

/// The uplink of a site.
#[derive(Debug)]
pub(super) struct Uplink {
    pub(super) registry: Registry,
    pub(super) settings: Settings,
    pub(super) shared: Arc<Shared>,
    pub(super) service: Arc<Service>,
    /// The registry refused the certificate: the join ticket is tried before it is shown again.
    pub(super) refused: bool,
}

impl Uplink {
    /// Keeps the site attached for ever.
    pub(super) async fn run(mut self) {
        let (mut failures, random) = (0_u32, SystemRandom::new());
        loop {
            let began = Instant::now();
            let ended = self.session().await;
            self.shared.registry.send_replace(None);
            let problem = match ended {
                Ok(Ended::Renewed) => continue,
                Err(problem) => problem,
            };
            failures = if began.elapsed() >= STABLE { 1 } else { failures.saturating_add(1) };
            let mut bytes = [0; 4];
            if random.fill(&mut bytes).is_err() {
                warn!("no randomness from the system: waiting without jitter");
            }
            let wait = delay(failures, u32::from_ne_bytes(bytes));
            let ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            warn!(error = %Chain(&problem), failures, next_try_ms = ms, "no stream to the registry");
            tokio::time::sleep(wait).await;
        }
    }

    /// Joins if need be, then attaches until something ends it.
    async fn session(&mut self) -> Result<Ended, UplinkError> {
        let rejoins = std::mem::take(&mut self.refused);
        let current = match self.shared.credentials.current() {
            _ if rejoins => self.join().await?,
            Some(current) if current.expires > Timestamp::now() => current,
            Some(current) => {
                self.shared.credentials.drop_certificate();
                return Err(UplinkError::Expired(current.expires));
            }
            None => self.join().await?,
        };
        let channel =
            self.registry.connect(Some((&current, self.shared.credentials.key_pem()))).await?;
        self.attach(LinkClient::new(channel), &current).await
    }

    async fn attach(
        &mut self,
        mut client: LinkClient<Channel>,
        current: &Current,
    ) -> Result<Ended, UplinkError> {
        let up = Outgoing::open(&self.shared, &self.service)?.into_stream();
        let mut down = call("Attach", client.attach(up)).await.inspect_err(|problem| {
            self.refused = problem.is_refusal();
        })?;
        info!(url = self.registry.url, "registry attached");
        self.shared.registry.send_replace(Some(client.clone()));
        let mut renewal = std::pin::pin!(tokio::time::sleep(until(current.half_life)));
        loop {
            tokio::select! {
                message = down.message() => match message {
                    Ok(Some(message)) => self.received(message).await,
                    Ok(None) => return Err(UplinkError::Closed),
                    Err(status) => {
                        return Err(UplinkError::Call { call: "Attach", status: Box::new(status) });
                    }
                },
                () = &mut renewal => {
                    match self.renew(&mut client).await {
                        Ok(renewed) => {
                            info!(expires = %renewed.expires, "certificate of the site renewed");
                            return Ok(Ended::Renewed);
                        }
                        Err(_) if Timestamp::now() >= current.expires => {
                            return Err(UplinkError::Expired(current.expires));
                        }
                        Err(problem) => {
                            error!(error = %Chain(&problem), expires = %current.expires,
                                "certificate of the site not renewed, trying again");
                            renewal.as_mut().reset(Instant::now() + RENEW_AGAIN);
                        }
                    }
                }
            }
        }
    }

    async fn received(&mut self, message: Down) {
        let Some(body) = message.body.clone() else {
            warn!("message of the registry without a body ignored");
            return;
        };
        if message.host.is_empty() {
            match body {
                down::Body::SiteSpecJson(json) => self.site_spec(&json).await,
                down::Body::SignedSpecJson(_)
                | down::Body::Question(_)
                | down::Body::HandOverJson(_) => {
                    warn!("message of the registry for no host ignored");
                }
            }
            return;
        }
        let host = match message.host.parse::<HostId>() {
            Ok(host) => host,
            Err(problem) => {
                warn!(error = %Chain(&problem), "message of the registry for no host ignored");
                return;
            }
        };
        if let down::Body::HandOverJson(_) = body {
            warn!(%host, "hand-over of the registry ignored: sites answer hosts");
            return;
        }
        if let down::Body::SignedSpecJson(json) = body {
            let (shared, whose) = (Arc::clone(&self.shared), host.clone());
            let service = Arc::clone(&self.service);
            let keep = move || {
                let spec = shared.specs.keep(&whose, &json)?;
                service.note(|site, now| site.spec_verified(&spec, now));
                Ok::<_, SpecError>(spec.generation)
            };
            match enrol::blocking(keep).await {
                Ok(Ok(generation)) => info!(%host, generation, "host spec kept"),
                Ok(Err(problem)) => {
                    warn!(%host, error = %Chain(&problem), "host spec passed on but not kept");
                }
                Err(_) => {}
            }
        }
        if let Err(problem) = self.shared.relay.down(&host, message) {
            info!(%host, reason = %problem, "message of the registry not delivered");
        }
    }

    async fn site_spec(&mut self, json: &[u8]) {
        let spec: SiteSpec = match serde_json::from_slice(json) {
            Ok(spec) => spec,
            Err(problem) => {
                error!(error = %Chain(&problem), "site spec not understood, the old one holds");
                return;
            }
        };
        let admission = spec.admission.clone();
        if let Err(problem) = self.settings.keep(spec) {
            error!(error = %Chain(&problem), "site spec not saved, in force until a restart");
        }
        info!(mode = ?admission.mode, machines = admission.machines.len(), "admission policy");
        let service = Arc::clone(&self.service);
        // A failure was logged; the policy comes again with the next stream.
        let _ =
            enrol::blocking(move || service.note(|site, _| site.set_admission(admission))).await;
    }
}

impl Registry {
    /// A connection, verified against the fleet's CA.
    async fn connect(&self, own: Option<(&Current, String)>) -> Result<Channel, UplinkError> {
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.ca_pem))
            .timeout(CALL);
        if let Some((current, key)) = own {
            tls = tls.identity(Identity::from_pem(&current.chain_pem, key));
        }
        let error = |source| UplinkError::Connect { url: self.url.clone(), source };
        Endpoint::from_shared(self.url.clone())
            .and_then(|endpoint| endpoint.tls_config(tls))
            .map_err(error)?
            .connect_timeout(CALL)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .keep_alive_while_idle(true)
            .connect()
            .await
            .map_err(error)
    }
}

/// Makes a call with its deadline.
async fn call<T>(
    name: &'static str,
    calling: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, UplinkError> {
    match tokio::time::timeout(CALL, calling).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(UplinkError::Call { call: name, status: Box::new(status) }),
        Err(_) => Err(UplinkError::Deadline { call: name }),
    }
}

fn until(moment: Timestamp) -> Duration {
    Duration::try_from(moment.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO)
}
