//! Keeps each host's signed spec equal to its wanted leases.
//!
//! ```text
//!  a lease came or goes, a host enrolled ─┐
//!  a site's policy changed: its hosts ────┤
//!  at the start: all hosts ───────────────┤
//!  every minute: specs at half of life ───┼─► wanted ─► next spec? ─► signer ─► store ─► site
//!  a try that failed: again, later ───────┘
//! ```
//!
//! One task, one host after the other: two generations of a host never race.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_api::chain::Chain;
use bulkhead_api::id::HostId;
use bulkhead_api::spec::{HostSpec, SignedSpec, WantedLease};
use bulkhead_api::time::Timestamp;
use jiff::SignedDuration;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::{info, warn};

use crate::fleet::release::returning;
use crate::fleet::spec::{LIFE, Last, Wanted, next};
use crate::ingest::release_gone;
use crate::presence::Trouble;
use crate::signer::client::SignError;
use crate::signer::protocol::Refusal;
use crate::state::Registry;
use crate::store::specs::SpecRow;
use crate::store::{Durability, StoreError, hosts, leases, sites, specs};

const SWEEP: Duration = Duration::from_secs(60);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// Why a host's spec was not brought up to date.
#[derive(Debug, thiserror::Error)]
enum SigningError {
    /// No signature.
    #[error("sign spec of host {host}")]
    Sign {
        /// The host.
        host: HostId,
        /// Why.
        source: SignError,
    },
    /// Nowhere to read or keep it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SigningError {
    fn label(&self) -> &'static str {
        match self {
            Self::Sign { source: SignError::Refused(_), .. } => "SignerRefuses",
            Self::Sign { .. } => "SignerAway",
            Self::Store(_) => "StoreFault",
        }
    }
}

/// A host to try again.
#[derive(Debug, Clone, Copy)]
struct Retry {
    at: Instant,
    after: Duration,
}

/// Runs for ever.
pub async fn run(registry: Arc<Registry>) {
    let mut retries: BTreeMap<HostId, Retry> = BTreeMap::new();
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // What was asked for before a crash may not be signed: everything is compared once.
    let mut look_at_all = true;
    loop {
        let due = retries.values().map(|retry| retry.at).min();
        let todo: Vec<HostId> = tokio::select! {
            _ = sweep.tick() => match due_hosts(&registry, look_at_all).await {
                Ok(hosts) => {
                    look_at_all = false;
                    hosts
                }
                Err(error) => {
                    warn!(error = %Chain(&error), "hosts not looked through for specs that end");
                    Vec::new()
                }
            },
            taken = registry.unsigned.take() => taken.into_iter().collect(),
            () = until(due) => {
                let now = Instant::now();
                retries.iter().filter(|(_, r)| r.at <= now).map(|(host, _)| host.clone()).collect()
            }
        };
        for host in todo {
            match bring_up_to_date(&registry, &host).await {
                Ok(news) => {
                    retries.remove(&host);
                    if registry.presence.signing(&host, None) || news {
                        registry.changed();
                    }
                }
                Err(error) => {
                    let retry = note_trouble(&registry, &host, &error, retries.get(&host));
                    retries.insert(host, retry);
                }
            }
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

async fn due_hosts(registry: &Registry, all: bool) -> Result<Vec<HostId>, StoreError> {
    let mut read = registry.store.read().await?;
    if all {
        return Ok(hosts::list(&mut read).await?.into_iter().map(|row| row.id).collect());
    }
    hosts::spec_ends_by(&mut read, Timestamp::now() + LIFE / 2).await
}

fn note_trouble(
    registry: &Registry,
    host: &HostId,
    error: &SigningError,
    before: Option<&Retry>,
) -> Retry {
    let after = before.map_or(FIRST_RETRY, |retry| (retry.after * 2).min(LAST_RETRY));
    warn!(%host, error = %Chain(error), retry_s = after.as_secs(), "host spec not signed");
    let now = Timestamp::now();
    let trouble = Trouble {
        reason: error.label(),
        message: Chain(error).to_string(),
        since: now,
        next_retry: now + SignedDuration::try_from(after).unwrap_or_default(),
    };
    registry.presence.signing(host, Some(trouble));
    registry.changed();
    Retry { at: Instant::now() + after, after }
}

/// `true` if anything changed.
async fn bring_up_to_date(registry: &Registry, host: &HostId) -> Result<bool, SigningError> {
    let mut read = registry.store.read().await?;
    let Some(row) = hosts::get(&mut read, host).await? else { return Ok(false) };
    let on_it = leases::of_host(&mut read, host).await?;
    let last = specs::get(&mut read, host).await?;
    let site = sites::get(&mut read, &row.site).await?;
    drop(read);

    let wanted: Vec<WantedLease> = on_it
        .iter()
        .filter(|lease| lease.deleting_at.is_none())
        .map(|lease| WantedLease { id: lease.id.clone(), spec: lease.spec.clone() })
        .collect();
    let (said_returning, said_weaker) = last.as_ref().map(SpecRow::said).unwrap_or_default();
    let basis = last.as_ref().map(|last| Last {
        generation: last.generation,
        leases: &last.leases,
        returning: said_returning.as_ref(),
        weaker_erase: &said_weaker,
        expiry: last.expiry,
    });
    let wanted = Wanted {
        leases: &wanted,
        returning: returning(&on_it).map(|lease| &lease.id),
        weaker_erase: &site.map(|site| site.spec.weaker_erase).unwrap_or_default(),
    };
    let fresh = match next(host, basis, wanted, Timestamp::now()) {
        Some(spec) => Some(sign(registry, spec).await?),
        None => None,
    };

    let Some(current) = fresh.as_ref().or(last.as_ref()) else { return Ok(false) };
    let released: Vec<_> = on_it
        .iter()
        .filter(|lease| lease.deleting_at.is_some() && lease.gone_generation.is_none())
        .filter(|lease| !current.leases.iter().any(|wanted| wanted.id == lease.id))
        .collect();
    if fresh.is_none() && released.is_empty() {
        return Ok(false);
    }
    let mut write = registry.store.write(Durability::Durable).await?;
    if let Some(fresh) = &fresh {
        specs::put(write.conn(), fresh).await?;
    }
    for lease in released {
        leases::mark_gone_with(write.conn(), &lease.id, current.generation).await?;
    }
    let gone = release_gone(write.conn(), host).await?;
    write.commit().await?;
    if gone {
        registry.unsigned.add(host);
    }
    if let Some(fresh) = &fresh {
        let leases = fresh.leases.len();
        info!(%host, generation = fresh.generation, leases, "host spec signed");
        registry.sessions.spec_changed(&row.site, host);
    }
    Ok(true)
}

async fn sign(registry: &Registry, mut spec: HostSpec) -> Result<SpecRow, SigningError> {
    let failed = |host: &HostId, source| SigningError::Sign { host: host.clone(), source };
    let ask = |spec: &HostSpec| registry.signer.sign_spec(spec.clone());
    let signed: SignedSpec = match ask(&spec).await {
        // It signed before a crash of ours what we did not get to keep. That spec reached nobody.
        Err(SignError::Refused(Refusal::OldGeneration { last, .. })) => {
            spec.generation = last.saturating_add(1);
            ask(&spec).await.map_err(|source| failed(&spec.host, source))?
        }
        done => done.map_err(|source| failed(&spec.host, source))?,
    };
    Ok(SpecRow {
        host: spec.host,
        generation: spec.generation,
        leases: spec.leases,
        signed,
        not_before: spec.not_before,
        expiry: spec.expiry,
    })
}
