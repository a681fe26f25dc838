//! Trades the boot ticket for an identity, once. The ticket is wiped as soon as it was answered.

use std::path::Path;

use bulkhead_api::boot::BootFacts;
use bulkhead_api::id::TicketSecret;
use bulkhead_api::link::EnrolFacts;
use bulkhead_api::link::rpc::EnrolRequest;
use bulkhead_api::link::rpc::link_client::LinkClient;
use bulkhead_api::time::Timestamp;
use tracing::info;

use super::identity::{self, Identity, Named};
use super::{CALL, UplinkError, channel, refused};
use crate::files;
use crate::paths::Paths;

/// What stage 1 left.
///
/// # Errors
/// [`UplinkError::BootFacts`].
pub fn boot_facts(path: &Path) -> Result<BootFacts, UplinkError> {
    let bad = |why: String| UplinkError::BootFacts { path: path.to_owned(), why };
    let bytes = std::fs::read(path).map_err(|e| bad(e.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))
}

/// The identity kept from before, or a new one for the ticket.
///
/// # Errors
/// [`UplinkError`]: no facts, no usable ticket, refused, unreachable.
pub(super) async fn identity(paths: &Paths, now: Timestamp) -> Result<Identity, UplinkError> {
    let kept = identity::load(&paths.identity())?;
    let expired = match kept {
        Some(identity) if identity.expires > now => return Ok(identity),
        Some(identity) => Some(identity.expires),
        None => None,
    };
    let facts = boot_facts(&paths.boot_facts())?;
    if facts.site.ticket.expose().is_empty() {
        return Err(expired.map_or(UplinkError::TicketSpent, |expired| {
            UplinkError::CertificateExpired { expired }
        }));
    }
    enrol(paths, facts).await
}

async fn enrol(paths: &Paths, facts: BootFacts) -> Result<Identity, UplinkError> {
    let (key_pem, csr_der) = identity::key_and_request(&paths.identity())?;
    let who = EnrolFacts::Host { mac: facts.mac, uuid: facts.uuid };
    let request = EnrolRequest {
        ticket: facts.site.ticket.expose().to_owned(),
        csr_der: csr_der.into(),
        facts_json: serde_json::to_vec(&who).map_err(UplinkError::Encode)?.into(),
    };
    let channel = channel(&facts.site.link, &paths.fleet_ca(), None).await?;
    let mut client = LinkClient::new(channel);
    let reply = tokio::time::timeout(CALL, client.enrol(request))
        .await
        .map_err(|_| UplinkError::Deadline { call: "Enrol", seconds: CALL.as_secs() })?
        .map_err(|status| refused("Enrol", &status))?
        .into_inner();
    let named = Named {
        host: reply.id.parse().map_err(UplinkError::HostId)?,
        site: facts.site.site.clone(),
        link: facts.site.link.clone(),
    };
    let chain = String::from_utf8_lossy(&reply.cert_chain_pem).into_owned();
    let identity = identity::store(&paths.identity(), named, key_pem, chain)?;
    wipe_ticket(&paths.boot_facts(), facts)?;
    info!(host = %identity.named.host, site = %identity.named.site, "enrolled");
    Ok(identity)
}

/// Facts stay readable for the rest of the boot; the ticket in them does not.
fn wipe_ticket(path: &Path, mut facts: BootFacts) -> Result<(), UplinkError> {
    facts.site.ticket = TicketSecret::new(String::new());
    let bytes = serde_json::to_vec(&facts).map_err(UplinkError::Encode)?;
    files::replace(path, &bytes, 0o600)
        .map_err(|source| UplinkError::WipeTicket { path: path.to_owned(), source })
}
