//! Enrolment of hosts: the ticket is checked and reserved here, the registry decides, its answer goes
//! back as it is.
//!
//! With an empty ticket it is a renewal: the connection's certificate takes the place of the ticket.

use std::sync::Arc;
use std::time::Duration;

use bulkhead_api::chain::Chain;
use bulkhead_api::id::{HostId, MacAddr, SystemUuid};
use bulkhead_api::link::EnrolFacts;
use bulkhead_api::link::rpc::{EnrolReply, EnrolRequest};
use bulkhead_api::time::Timestamp;
use tonic::{Code, Request, Status};
use tracing::{info, warn};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

use super::Shared;
use super::peer::Peer;
use crate::policy::{Decision, Refusal};
use crate::service::Service;
use crate::site::{EnrolmentResult, Outcome, Pass};
use crate::tickets::{KeyDigest, TicketRefusal};

/// A request of a P-256 key has some 250 bytes.
const LONGEST_CSR: usize = 8192;
/// The host waits thirty seconds.
const FORWARD: Duration = Duration::from_secs(20);

/// Runs `work` where it may wait for the disk.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        warn!(error = %Chain(&error), "request broke");
        Status::internal("the site could not do its part")
    })
}

/// A request that the registry is being asked about. The ticket opens again when this is dropped
/// without an answer: the host hung up, and may ask again.
struct Underway {
    service: Arc<Service>,
    pass: Pass,
    mac: MacAddr,
    answered: bool,
}

impl Underway {
    async fn finish(mut self, result: EnrolmentResult) -> Result<(), Status> {
        self.answered = true;
        blocking(move || self.close(&result)).await
    }

    fn close(&self, result: &EnrolmentResult) {
        self.service.note(|site, now| site.finish_enrolment(&self.pass, self.mac, result, now));
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        if !self.answered {
            // Changes memory alone: on disk the ticket counts as open after a restart anyway.
            self.close(&EnrolmentResult::Away);
        }
    }
}

/// Enrols a host or renews its certificate.
pub(super) async fn enrol(
    shared: &Shared,
    service: &Arc<Service>,
    peer: &Peer,
    mut request: EnrolRequest,
) -> Result<EnrolReply, Status> {
    let Asked { mac, uuid, key } = check(&request)?;
    let ticket = std::mem::take(&mut request.ticket);
    let renews = match ticket.is_empty() {
        true => Some(peer.trusted_host(&shared.site, service, Timestamp::now())?.host),
        false => None,
    };
    let outcome = begin(service, renews.clone(), ticket, Asked { mac, uuid, key }).await?;
    let pass = match (outcome.reply, outcome.decision) {
        (Some(pass), _) => pass,
        (None, Decision::Refuse(Refusal::Ticket(TicketRefusal::UnderWay))) => {
            return Err(Status::unavailable(TicketRefusal::UnderWay.to_string()));
        }
        (None, Decision::Refuse(why)) => return Err(Status::permission_denied(why.to_string())),
        (None, Decision::Quarantine(why, _)) => {
            return Err(Status::permission_denied(why.to_string()));
        }
        (None, Decision::Reply(_) | Decision::Silence(_)) => {
            return Err(Status::internal("no decision on this enrolment"));
        }
    };
    let underway = Underway { service: Arc::clone(service), pass, mac, answered: false };
    let answer = forward(shared, request).await;
    let (result, reply) = judge(answer, renews.as_ref());
    match &result {
        EnrolmentResult::Granted(host) => {
            info!(%mac, %host, renewal = renews.is_some(), "machine enrolled");
        }
        EnrolmentResult::Refused(reason) => warn!(%mac, reason, "registry refused enrolment"),
        EnrolmentResult::Away | EnrolmentResult::Unfit => {
            let reason = reply.as_ref().err().map(|status| status.message().to_owned());
            warn!(%mac, reason, "enrolment not decided");
        }
    }
    underway.finish(result).await?;
    reply
}

/// Which machine asks, with which key.
struct Asked {
    mac: MacAddr,
    uuid: Option<SystemUuid>,
    key: KeyDigest,
}

fn check(request: &EnrolRequest) -> Result<Asked, Status> {
    let bad = |text: String| Err(Status::invalid_argument(text));
    if request.csr_der.is_empty() || request.csr_der.len() > LONGEST_CSR {
        let length = request.csr_der.len();
        return bad(format!("csr_der: {length} bytes, expected 1 to {LONGEST_CSR}"));
    }
    let (mac, uuid) = match serde_json::from_slice(&request.facts_json) {
        Ok(EnrolFacts::Host { mac, uuid }) => (mac, uuid.filter(|uuid| !uuid.is_unset())),
        Ok(EnrolFacts::Site { .. }) => {
            return bad(
                "facts_json.kind: site, expected host: sites enrol at the registry".to_owned()
            );
        }
        Err(error) => return bad(format!("facts_json: {error}")),
    };
    // Whether the sender holds the key is the registry's to check, before it gives a certificate.
    match X509CertificationRequest::from_der(&request.csr_der) {
        Ok((_, csr)) => {
            let key = KeyDigest::of(csr.certification_request_info.subject_pki.raw);
            Ok(Asked { mac, uuid, key })
        }
        Err(_) => bad("csr_der: not a PKCS#10 request in DER".to_owned()),
    }
}

async fn begin(
    service: &Arc<Service>,
    renews: Option<HostId>,
    ticket: String,
    Asked { mac, uuid, key }: Asked,
) -> Result<Outcome<Option<Pass>>, Status> {
    let service = Arc::clone(service);
    let asked = blocking(move || {
        service.ask("enrol", |site, now| match &renews {
            Some(host) => site.begin_renewal(host, mac, uuid, now),
            None => site.begin_enrolment(&ticket, mac, uuid, key, now),
        })
    });
    asked.await?.map_err(|_| Status::unavailable("the site cannot save its state"))
}

async fn forward(shared: &Shared, request: EnrolRequest) -> Result<EnrolReply, Status> {
    let away = || Status::unavailable("the registry is away: ask again");
    let mut registry = shared.registry.borrow().clone().ok_or_else(away)?;
    match tokio::time::timeout(FORWARD, registry.enrol(Request::new(request))).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(Status::unavailable("the registry does not answer: ask again")),
    }
}

/// What the registry's answer means for the ticket, and what the host is told.
fn judge(
    answer: Result<EnrolReply, Status>,
    renews: Option<&HostId>,
) -> (EnrolmentResult, Result<EnrolReply, Status>) {
    let status = match answer {
        Ok(reply) => {
            let host = reply.id.parse::<HostId>();
            return match host {
                Ok(host) if renews.is_none_or(|renewed| *renewed == host) => {
                    (EnrolmentResult::Granted(host), Ok(reply))
                }
                Ok(host) => {
                    let text = format!("the registry renewed this certificate for {host}");
                    (EnrolmentResult::Unfit, Err(Status::internal(text)))
                }
                Err(error) => {
                    let text = format!("the registry's answer: {error}");
                    (EnrolmentResult::Away, Err(Status::unavailable(text)))
                }
            };
        }
        Err(status) => status,
    };
    let text = status.message().to_owned();
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "two codes are the host's business, no other"
    )]
    match status.code() {
        Code::PermissionDenied => {
            (EnrolmentResult::Refused(text.clone()), Err(Status::permission_denied(text)))
        }
        Code::InvalidArgument => (EnrolmentResult::Unfit, Err(Status::invalid_argument(text))),
        // Whatever else is wrong between site and registry is not the host's fault.
        _ => (EnrolmentResult::Away, Err(Status::unavailable(text))),
    }
}
