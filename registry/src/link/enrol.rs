//! Enrolment: who asks, may it, and a certificate for it.
//!
//! | who | proves itself by | asks again with |
//! |---|---|---|
//! | site | join ticket of an operator | the same ticket and key, or its certificate |
//! | host | its site, which checked the boot ticket | the same address and UUID, through its site |
//!
//! The machine is written down before the signer is asked: a crash or an absent signer between the two
//! leaves a state from which the same request succeeds.

use bulkhead_api::chain::Chain;
use bulkhead_api::document::from_json;
use bulkhead_api::id::{HostId, MacAddr, SiteName, SystemUuid};
use bulkhead_api::link::{EnrolFacts, rpc};
use bulkhead_api::time::Timestamp;
use tonic::Status;
use tracing::{error, info, warn};

use crate::fleet::identify::{Identified, Verdict, alias, host_id, identify, real};
use crate::identity::{Identity, KeyDigest, Peer};
use crate::signer::client::SignError;
use crate::signer::csr;
use crate::signer::protocol::Refusal;
use crate::state::Registry;
use crate::store::audit::{self, Entry};
use crate::store::hosts::HostRow;
use crate::store::refusals::RefusalRow;
use crate::store::sites::SiteRow;
use crate::store::tickets::TicketRow;
use crate::store::{Durability, StoreError, Write, hosts, refusals, sites, tickets};
use crate::token::{Purpose, TokenHash};

pub(super) fn store_fault(error: &StoreError) -> Status {
    error!(error = %Chain(error), "store");
    Status::unavailable("the registry's database does not answer; try again")
}

fn sign_fault(error: &SignError) -> Status {
    match error {
        SignError::Refused(refusal @ (Refusal::Csr { .. } | Refusal::Name { .. })) => {
            Status::invalid_argument(refusal.to_string())
        }
        SignError::Refused(_) | SignError::Kind => {
            error!(error = %Chain(error), "certificate not issued");
            Status::internal("the signer does not issue this certificate; see the registry's log")
        }
        SignError::Connect { .. }
        | SignError::Exchange(_)
        | SignError::Closed
        | SignError::Deadline => {
            warn!(error = %Chain(error), "certificate not issued");
            Status::unavailable("the signer is away; try again")
        }
    }
}

/// The site that a certificate speaks for, if its key is still the site's.
///
/// # Errors
/// UNAUTHENTICATED without certificate or with a void one, PERMISSION_DENIED for another identity.
pub(super) async fn site_of(registry: &Registry, peer: Option<&Peer>) -> Result<SiteRow, Status> {
    let Some(peer) = peer else {
        return Err(Status::unauthenticated(
            "the client certificate of an enrolled site is wanted",
        ));
    };
    let Identity::Site(name) = &peer.identity else {
        let message = format!("{} is no site", peer.identity);
        return Err(Status::permission_denied(message));
    };
    let find = async {
        let mut read = registry.store.read().await?;
        sites::get(&mut read, name).await
    };
    let site = find.await.map_err(|e| store_fault(&e))?;
    site.filter(|site| site.knows(&peer.key)).ok_or_else(|| {
        // Not PERMISSION_DENIED: the site would take it for a verdict on the host that it asks for.
        Status::unauthenticated(format!(
            "this certificate of site {name} is void; the site must join with a new join ticket"
        ))
    })
}

/// One enrolment.
///
/// # Errors
/// As `proto/link.proto` says.
pub async fn enrol(
    registry: &Registry,
    peer: Option<&Peer>,
    request: &rpc::EnrolRequest,
) -> Result<rpc::EnrolReply, Status> {
    let facts: EnrolFacts = from_json(&request.facts_json)
        .map_err(|e| Status::invalid_argument(format!("facts_json: {e}")))?;
    let key = csr::digest_of(&request.csr_der)
        .map_err(|e| Status::invalid_argument(format!("csr_der: {e}")))?;
    let enrolment = Enrolment { registry, csr: &request.csr_der, key, now: Timestamp::now() };
    match facts {
        EnrolFacts::Site { names } if request.ticket.is_empty() => {
            let site = site_of(registry, peer).await?;
            enrolment.renew_site(&site.name, names).await
        }
        EnrolFacts::Site { names } => enrolment.join_site(&request.ticket, names).await,
        EnrolFacts::Host { mac, uuid } => {
            // The ticket is one of the site, which has checked it.
            let site = site_of(registry, peer).await?;
            enrolment.admit_host(&site.name, mac, real(uuid)).await
        }
    }
}

struct Enrolment<'a> {
    registry: &'a Registry,
    csr: &'a [u8],
    key: KeyDigest,
    now: Timestamp,
}

impl Enrolment<'_> {
    async fn join_site(&self, ticket: &str, names: Vec<String>) -> Result<rpc::EnrolReply, Status> {
        let hash = TokenHash::of(Purpose::Join, ticket);
        // Strangers are turned away by a reader: they cannot keep the one writer busy.
        let look = async {
            let mut read = self.registry.store.read().await?;
            tickets::get(&mut read, &hash).await
        };
        self.check_ticket(look.await.map_err(|e| store_fault(&e))?)?;
        let mut write = self.write().await?;
        let found = tickets::get(write.conn(), &hash).await.map_err(|e| store_fault(&e))?;
        let site = self.check_ticket(found)?;
        let done = async {
            tickets::mark_used(write.conn(), &hash, &self.key).await?;
            // A renewed key in hand must not keep an older one alive beside it.
            sites::set_key(write.conn(), &site, &self.key).await?;
            let who = Identity::Site(site.clone()).to_string();
            self.audit(&mut write, who, format!("sites/{site}"), 200, "").await?;
            write.commit().await
        };
        done.await.map_err(|e| store_fault(&e))?;
        self.registry.sessions.close(&site, "the site joined again");
        info!(%site, "site joined");
        self.registry.changed();
        let id = site.to_string();
        self.issue(Identity::Site(site), id, names).await
    }

    fn check_ticket(&self, found: Option<TicketRow>) -> Result<SiteName, Status> {
        let refuse = |why: String| {
            warn!(why, "join ticket refused");
            Err(Status::permission_denied(why))
        };
        let Some(found) = found else { return refuse("join ticket is unknown".to_owned()) };
        if found.used_by.as_deref().is_some_and(|used| used != self.key.as_bytes()) {
            return refuse("join ticket was used before, by another key".to_owned());
        }
        if self.now >= found.expires_at {
            return refuse(format!("join ticket expired at {:.0}", found.expires_at));
        }
        Ok(found.site)
    }

    /// The old key stays valid until the new one is shown: the reply may get lost.
    async fn renew_site(
        &self,
        site: &SiteName,
        names: Vec<String>,
    ) -> Result<rpc::EnrolReply, Status> {
        let mut write = self.write().await?;
        let done = async {
            sites::offer_key(write.conn(), site, &self.key).await?;
            write.commit().await
        };
        done.await.map_err(|e| store_fault(&e))?;
        info!(%site, "site renews its certificate");
        self.issue(Identity::Site(site.clone()), site.to_string(), names).await
    }

    async fn admit_host(
        &self,
        site: &SiteName,
        mac: MacAddr,
        uuid: Option<SystemUuid>,
    ) -> Result<rpc::EnrolReply, Status> {
        let named = |e| Status::internal(format!("name of the machine: {e}"));
        let id = host_id(site, mac).map_err(named)?;
        let machine = Identified { id, site: site.clone(), mac, uuid };
        let other = alias(site, mac, uuid).map_err(named)?;
        let verdict = self.decide(&machine, other).await.map_err(|e| store_fault(&e))?;
        self.registry.changed();
        let Identified { id, site, .. } = machine;
        match verdict {
            Verdict::Taken(why) => {
                warn!(%site, %mac, why, "machine refused");
                return Err(Status::permission_denied(why));
            }
            Verdict::New => info!(host = %id, %site, %mac, "host enrolled"),
            Verdict::Same => info!(host = %id, %site, "host enrols again"),
        }
        self.registry.unsigned.add(&id);
        let text = id.to_string();
        self.issue(Identity::Host { site, host: id }, text, Vec::new()).await
    }

    /// Decides and writes it down.
    async fn decide(&self, machine: &Identified, other: HostId) -> Result<Verdict, StoreError> {
        let Identified { id, site, mac, uuid } = machine;
        let mut write = self.registry.store.write(Durability::Durable).await?;
        let alike = hosts::alike(write.conn(), id, *mac, *uuid).await?;
        let id_taken = alike.iter().any(|host| host.id == *id);
        let alike: Vec<Identified> = alike
            .into_iter()
            .map(|HostRow { id, site, mac, uuid, .. }| Identified { id, site, mac, uuid })
            .collect();
        let verdict = identify(machine, &alike);
        let who = Identity::Site(site.clone()).to_string();
        match &verdict {
            Verdict::New => {
                let row = HostRow {
                    id: id.clone(),
                    site: site.clone(),
                    mac: *mac,
                    uuid: *uuid,
                    enrolled_at: self.now,
                };
                hosts::insert(write.conn(), &row).await?;
                refusals::settle(write.conn(), site, *mac, *uuid).await?;
                self.audit(&mut write, who, format!("hosts/{id}"), 201, "").await?;
            }
            Verdict::Same => refusals::settle(write.conn(), site, *mac, *uuid).await?,
            Verdict::Taken(why) => {
                let shown = if id_taken { other } else { id.clone() };
                self.audit(&mut write, who, format!("hosts/{shown}"), 403, why).await?;
                let row = RefusalRow {
                    id: shown,
                    site: site.clone(),
                    mac: *mac,
                    uuid: *uuid,
                    reason: why.clone(),
                    since: self.now,
                    last_at: self.now,
                    attempts: 1,
                };
                refusals::note(write.conn(), &row).await?;
            }
        }
        write.commit().await?;
        Ok(verdict)
    }

    async fn issue(
        &self,
        identity: Identity,
        id: String,
        names: Vec<String>,
    ) -> Result<rpc::EnrolReply, Status> {
        let issued = self.registry.signer.issue_certificate(identity, self.csr, names).await;
        let chain = issued.map_err(|e| sign_fault(&e))?;
        Ok(rpc::EnrolReply { id, cert_chain_pem: chain.into_bytes().into() })
    }

    async fn write(&self) -> Result<Write, Status> {
        self.registry.store.write(Durability::Durable).await.map_err(|e| store_fault(&e))
    }

    async fn audit(
        &self,
        write: &mut Write,
        who: String,
        object: String,
        status: u16,
        reason: &str,
    ) -> Result<(), StoreError> {
        let reason = reason.to_owned();
        let entry = Entry { at: self.now, who, action: "ENROL", object, status, reason };
        audit::append(write.conn(), &entry).await
    }
}
