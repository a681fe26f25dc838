//! The way up: enrolment, then one stream to the site, for ever.
//!
//! ```text
//!  ticket + key ──Enrol──► certificate ──Attach (mTLS)──► stream ──ends──► wait (jitter) ──► Attach …
//!                              ▲                            │ half of the validity is over
//!                              └──────Enrol (mTLS)──────────┘
//! ```
//!
//! Every end is told to the node as [`Event::Lost`] with its reason and the time of the next try. The
//! link decides nothing on the host: while it is away the last accepted spec stays in force (law 4).

mod attach;
pub mod backoff;
pub mod enrol;
pub mod identity;

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bulkhead_api::chain::Chain;
use bulkhead_api::id::{HostId, IdError, LeaseId};
use bulkhead_api::link::HandOverAnswer;
use bulkhead_api::status::HostStatus;
use bulkhead_api::time::Timestamp;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::{mpsc, watch};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Status};
use tracing::{info, warn};

use self::attach::{Outgoing, Renewed, Session};
use self::backoff::Backoff;
use self::identity::{Identity, IdentityError};
use crate::paths::Paths;
use crate::socket::Interface;

/// Deadline of connecting and of every call.
const CALL: Duration = Duration::from_secs(30);
/// Pings on an idle stream; unanswered ones end it.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// A stream that lived so long starts the delays anew.
const STABLE: Duration = Duration::from_secs(60);
/// From one renewal of the certificate, or try of it, to the next.
const RENEWAL_PAUSE: Duration = Duration::from_secs(60);

/// What the node is told.
#[derive(Debug)]
pub enum Event {
    /// There is an identity: new, kept or renewed.
    Enrolled(Box<Identity>),
    /// The stream is open.
    Connected,
    /// There is no stream.
    Lost {
        /// Why, for conditions.
        label: &'static str,
        /// Why, for people.
        message: String,
        /// Who has to act next.
        owner: &'static str,
        /// When it is tried again.
        next: Timestamp,
    },
    /// The certificate in use is still valid and got no successor.
    NotRenewed {
        /// Why, for conditions.
        label: &'static str,
        /// Why, for people.
        message: String,
        /// Who has to act next.
        owner: &'static str,
        /// When it is tried again.
        next: Timestamp,
    },
    /// JSON of a signed spec, not yet read.
    Spec(Vec<u8>),
    /// The site said whether it hands this machine over.
    HandOver(HandOverAnswer),
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// Stage 1 left no facts: this machine was not booted by a site.
    #[error("boot facts {path}: {why}")]
    BootFacts {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The trust anchor is not there.
    #[error("read fleet CA {path}")]
    FleetCa {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Key or certificate.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Used before, and no certificate is left.
    #[error(
        "the boot ticket was used and no certificate is left: reboot this host for a new ticket"
    )]
    TicketSpent,
    /// Too old to be used.
    #[error("the certificate expired at {expired}: reboot this host for a new ticket")]
    CertificateExpired {
        /// End of its validity.
        expired: Timestamp,
    },
    /// The ticket cannot be removed from disk.
    #[error("wipe the ticket in {path}")]
    WipeTicket {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Address or TLS settings.
    #[error("connect to site {link}")]
    Connect {
        /// `address:port`.
        link: String,
        /// Why.
        source: tonic::transport::Error,
    },
    /// Site or registry said no.
    #[error("{call} refused: {message}")]
    Refused {
        /// The call.
        call: &'static str,
        /// As told.
        message: String,
    },
    /// The call broke.
    #[error("{call} ended: {message}")]
    Broken {
        /// The call.
        call: &'static str,
        /// As told.
        message: String,
    },
    /// Nobody answered.
    #[error("{call}: no answer in {seconds} s")]
    Deadline {
        /// The call.
        call: &'static str,
        /// The deadline.
        seconds: u64,
    },
    /// The registry gave a name that is none.
    #[error("read the host id given at enrolment")]
    HostId(#[source] IdError),
    /// The registry takes this host for another one.
    #[error("the registry named this host {theirs}, it is {ours}")]
    OtherHost {
        /// As enrolled.
        ours: HostId,
        /// As answered.
        theirs: HostId,
    },
    /// A document does not become JSON.
    #[error("write a message")]
    Encode(#[source] serde_json::Error),
    /// The peer ended the stream in order.
    #[error("the site closed the stream")]
    Closed,
    /// The supervisor is ending.
    #[error("the supervisor is stopping")]
    Stopping,
}

impl UplinkError {
    /// One word for conditions and metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::BootFacts { .. } => "NoBootFacts",
            Self::FleetCa { .. } => "NoFleetCa",
            Self::Identity(_) | Self::HostId(_) | Self::OtherHost { .. } => "IdentityUnusable",
            Self::TicketSpent => "TicketSpent",
            Self::CertificateExpired { .. } => "CertificateExpired",
            Self::WipeTicket { .. } => "TicketNotWiped",
            Self::Connect { .. } => "SiteUnreachable",
            Self::Refused { call: "Enrol", .. } => "EnrolmentRefused",
            Self::Refused { .. } => "CertificateRefused",
            Self::Broken { call: "Enrol", .. } | Self::Deadline { .. } => "NoAnswer",
            Self::Broken { .. } | Self::Closed => "StreamEnded",
            Self::Encode(_) => "Internal",
            Self::Stopping => "Stopping",
        }
    }

    /// Who has to act next.
    #[must_use]
    pub fn owner(&self) -> &'static str {
        match self {
            Self::BootFacts { .. }
            | Self::FleetCa { .. }
            | Self::TicketSpent
            | Self::CertificateExpired { .. } => "operator",
            Self::Identity(_) | Self::WipeTicket { .. } | Self::Encode(_) | Self::Stopping => {
                "supervisor"
            }
            Self::Connect { .. } | Self::Broken { .. } | Self::Deadline { .. } | Self::Closed => {
                "site"
            }
            Self::Refused { .. } | Self::HostId(_) | Self::OtherHost { .. } => "registry",
        }
    }

    /// Trying soon again would only ask the same question.
    fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::TicketSpent | Self::CertificateExpired { .. })
    }
}

fn refused(call: &'static str, status: &Status) -> UplinkError {
    let mut message = status.message().to_owned();
    if let Some(source) = status.source() {
        message = format!("{message}: {}", Chain(source));
    }
    let no = [Code::PermissionDenied, Code::Unauthenticated, Code::InvalidArgument];
    if no.contains(&status.code()) {
        UplinkError::Refused { call, message }
    } else {
        UplinkError::Broken { call, message }
    }
}

/// A connection to the site, verified against the fleet's CA.
async fn channel(
    link: &str,
    fleet_ca: &Path,
    identity: Option<&Identity>,
) -> Result<Channel, UplinkError> {
    let ca = std::fs::read(fleet_ca)
        .map_err(|source| UplinkError::FleetCa { path: fleet_ca.to_owned(), source })?;
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)).timeout(CALL);
    if let Some(identity) = identity {
        let own = tonic::transport::Identity::from_pem(&identity.chain_pem, &identity.key_pem);
        tls = tls.identity(own);
    }
    let connect = |source| UplinkError::Connect { link: link.to_owned(), source };
    Endpoint::from_shared(format!("https://{link}"))
        .and_then(|endpoint| endpoint.tls_config(tls))
        .map_err(connect)?
        .connect_timeout(CALL)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .connect()
        .await
        .map_err(connect)
}

/// Keeps the host attached until the node goes away.
pub async fn run(
    paths: Paths,
    backoff: Backoff,
    status: watch::Receiver<Arc<HostStatus>>,
    interface: Interface,
    hand_overs: mpsc::Receiver<LeaseId>,
    events: mpsc::Sender<Event>,
) {
    let mut outgoing = Outgoing { status, hand_overs };
    let mut failures = 0_u32;
    // A certificate that is due again as soon as it was given is not asked for again at once.
    let mut renewable = Instant::now();
    loop {
        let began = Instant::now();
        let error = match enrol::identity(&paths, Timestamp::now()).await {
            Err(error) => error,
            Ok(identity) => {
                let enrolled = Event::Enrolled(Box::new(identity.clone()));
                if events.send(enrolled).await.is_err() {
                    return;
                }
                let session = Session {
                    paths: &paths,
                    identity: &identity,
                    events: &events,
                    interface: &interface,
                };
                match session.run(&mut outgoing, renewable).await {
                    Ok(Renewed) => {
                        renewable = Instant::now() + RENEWAL_PAUSE;
                        continue;
                    }
                    Err(error) => error,
                }
            }
        };
        if began.elapsed() >= STABLE {
            failures = 0;
        }
        failures = failures.saturating_add(1);
        let tries = if error.is_refusal() { u32::MAX } else { failures };
        let delay = backoff.delay(tries, random());
        let (label, owner, delay_ms) = (error.label(), error.owner(), delay.as_millis());
        info!(label, error = %Chain(&error), failures, delay_ms, "no stream to the site");
        let message = Chain(&error).to_string();
        let next = Timestamp::now().saturating_add(delay).unwrap_or(Timestamp::MAX);
        if events.send(Event::Lost { label, message, owner, next }).await.is_err() {
            return;
        }
        tokio::time::sleep(delay).await;
    }
}

fn random() -> u32 {
    let mut bytes = [0_u8; 4];
    if SystemRandom::new().fill(&mut bytes).is_err() {
        warn!("no random numbers, waiting without jitter");
    }
    u32::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests;
