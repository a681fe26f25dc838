//! Trades the boot ticket for an identity, once, and a certificate for its successor.
//!
//! ```text
//!  key ─► Enrol(ticket) ─► certificate, host.json ─► ticket wiped          again after a kill: same key
//!  half of its validity ─► Enrol(no ticket) over mTLS ─► certificate       until it expired
//! ```

use std::path::Path;

use bulkhead_api::boot::BootFacts;
use bulkhead_api::id::{HostId, TicketSecret};
use bulkhead_api::link::EnrolFacts;
use bulkhead_api::link::rpc::EnrolRequest;
use bulkhead_api::link::rpc::link_client::LinkClient;
use bulkhead_api::time::Timestamp;
use tonic::transport::Channel;
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
        Some(identity) if identity.expires > now => {
            finish(&paths.boot_facts())?;
            return Ok(identity);
        }
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
    let channel = channel(&facts.site.link, &paths.fleet_ca(), None).await?;
    let identity = ask(paths, &facts, facts.site.ticket.expose(), channel).await?;
    wipe_ticket(&paths.boot_facts(), facts)?;
    info!(host = %identity.named.host, site = %identity.named.site, "enrolled");
    Ok(identity)
}

/// A new certificate for the same key, by the connection of the one that is still valid.
///
/// # Errors
/// [`UplinkError`]: refused, unreachable, or the answer is for somebody else. The certificate in use stays.
pub(super) async fn renew(
    paths: &Paths,
    old: &Identity,
    channel: Channel,
) -> Result<Identity, UplinkError> {
    let facts = boot_facts(&paths.boot_facts())?;
    let identity = ask(paths, &facts, "", channel).await?;
    info!(host = %old.named.host, expires = %identity.expires, "certificate renewed");
    Ok(identity)
}

async fn ask(
    paths: &Paths,
    facts: &BootFacts,
    ticket: &str,
    channel: Channel,
) -> Result<Identity, UplinkError> {
    let (key_pem, csr_der) = identity::key_and_request(&paths.identity())?;
    let who = EnrolFacts::Host { mac: facts.mac, uuid: facts.uuid };
    let request = EnrolRequest {
        ticket: ticket.to_owned(),
        csr_der: csr_der.into(),
        facts_json: serde_json::to_vec(&who).map_err(UplinkError::Encode)?.into(),
    };
    let reply = tokio::time::timeout(CALL, LinkClient::new(channel).enrol(request))
        .await
        .map_err(|_| UplinkError::Deadline { call: "Enrol", seconds: CALL.as_secs() })?
        .map_err(|status| refused("Enrol", &status))?
        .into_inner();
    let host: HostId = reply.id.parse().map_err(UplinkError::HostId)?;
    let known = identity::load(&paths.identity())?.map(|identity| identity.named.host);
    if let Some(ours) = known.filter(|ours| *ours != host) {
        return Err(UplinkError::OtherHost { ours, theirs: host });
    }
    let named = Named { host, site: facts.site.site.clone(), link: facts.site.link.clone() };
    let chain = String::from_utf8_lossy(&reply.cert_chain_pem).into_owned();
    Ok(identity::store(&paths.identity(), named, key_pem, chain)?)
}

/// Wipes a ticket that an earlier run traded and was killed before it could wipe it.
fn finish(path: &Path) -> Result<(), UplinkError> {
    match boot_facts(path) {
        Ok(facts) if !facts.site.ticket.expose().is_empty() => wipe_ticket(path, facts),
        // Without facts there is no ticket either, and an identity is all that is needed.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Facts stay readable for the rest of the boot; the ticket in them does not.
fn wipe_ticket(path: &Path, mut facts: BootFacts) -> Result<(), UplinkError> {
    facts.site.ticket = TicketSecret::new(String::new());
    let bytes = serde_json::to_vec(&facts).map_err(UplinkError::Encode)?;
    files::replace(path, &bytes, 0o600)
        .map_err(|source| UplinkError::WipeTicket { path: path.to_owned(), source })
}
