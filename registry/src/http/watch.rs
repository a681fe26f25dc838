//! Lists of documents, once or for as long as somebody watches.
//!
//! A watch is the list, taken again after each change, and what differs from the one before. It misses
//! steps between two looks, never the last one; and it needs no log of events to be right.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use bulkhead_api::chain::Chain;
use bulkhead_api::document::{Document, Kind, WatchEvent, WatchKind};
use bulkhead_api::id::TenantName;
use bulkhead_api::time::Timestamp;
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::warn;
use utoipa::IntoParams;

use super::Shared;
use super::answer::Fault;
use crate::documents::Picture;
use crate::state::{Registry, stopped};
use crate::store::StoreError;

/// An empty line after so long without an event: proxies close silent connections.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Time alone changes documents: a host falls silent.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// Changes that come together are told together.
const GATHER: Duration = Duration::from_millis(50);

/// Which documents, and for how long.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Listing {
    /// Leases of this tenant only.
    #[param(value_type = Option<String>)]
    tenant: Option<TenantName>,
    /// Go on with what changes: one WatchEvent a line (NDJSON), an empty line every 15 s.
    #[serde(default)]
    watch: bool,
}

async fn look(
    registry: &Registry,
    kind: Kind,
    tenant: Option<&TenantName>,
) -> Result<Vec<Document>, StoreError> {
    let live = registry.presence.snapshot();
    let mut read = registry.store.read().await?;
    let picture = Picture::of_kind(&mut read, kind, live, Timestamp::now()).await?;
    drop(read);
    let mut documents = picture.documents(kind)?;
    if let Some(tenant) = tenant {
        documents.retain(
            |document| matches!(document, Document::Lease(l) if l.metadata.tenant == *tenant),
        );
    }
    Ok(documents)
}

/// Answers a list request of a kind.
pub(crate) async fn list(
    State(registry): Shared,
    kind: Kind,
    listing: Listing,
) -> Result<Response, Fault> {
    if listing.tenant.is_some() && kind != Kind::Lease {
        return Err(Fault::field("tenant", format!("{} have no tenant", kind.plural())));
    }
    // Before the first look: what changes after it is not missed.
    let changes = registry.changes();
    let documents = look(&registry, kind, listing.tenant.as_ref()).await?;
    if !listing.watch {
        return Ok(Json(documents).into_response());
    }
    let mut watch = Watch {
        stopping: registry.stopping(),
        registry,
        kind,
        tenant: listing.tenant,
        changes,
        told: BTreeMap::new(),
        lines: VecDeque::new(),
    };
    watch.compare(documents, WatchKind::Snapshot);
    let lines = stream::unfold(watch, |mut watch| async {
        let line = watch.next().await?;
        Some((Ok::<_, std::convert::Infallible>(line), watch))
    });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

struct Watch {
    registry: Arc<Registry>,
    kind: Kind,
    tenant: Option<TenantName>,
    changes: Receiver<u64>,
    stopping: Receiver<bool>,
    told: BTreeMap<String, Document>,
    lines: VecDeque<Bytes>,
}

impl Watch {
    /// The next line; `None` when the registry stops or its store does not answer.
    async fn next(&mut self) -> Option<Bytes> {
        let silent = Instant::now() + KEEP_ALIVE;
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(line);
            }
            tokio::select! {
                () = stopped(&mut self.stopping) => return None,
                () = sleep_until(silent) => return Some(Bytes::from_static(b"\n")),
                () = sleep(LOOK_AGAIN) => {}
                changed = self.changes.changed() => {
                    changed.ok()?;
                    sleep(GATHER).await;
                    self.changes.mark_unchanged();
                }
            }
            match look(&self.registry, self.kind, self.tenant.as_ref()).await {
                Ok(documents) => self.compare(documents, WatchKind::Changed),
                Err(error) => {
                    warn!(error = %Chain(&error), "watch ended");
                    return None;
                }
            }
        }
    }

    fn compare(&mut self, documents: Vec<Document>, kind: WatchKind) {
        let mut gone = std::mem::take(&mut self.told);
        for object in documents {
            let name = name(&object);
            let same = gone.remove(&name).is_some_and(|told| says_the_same(&told, &object));
            self.told.insert(name, object.clone());
            if !same {
                self.tell(&WatchEvent { kind, object });
            }
        }
        for object in gone.into_values() {
            self.tell(&WatchEvent { kind: WatchKind::Deleted, object });
        }
    }

    fn tell(&mut self, event: &WatchEvent) {
        match serde_json::to_vec(event) {
            Ok(mut line) => {
                line.push(b'\n');
                self.lines.push_back(line.into());
            }
            Err(error) => warn!(%error, "document not written"),
        }
    }
}

fn name(document: &Document) -> String {
    match document {
        Document::Site(site) => site.metadata.name.to_string(),
        Document::Host(host) => host.metadata.name.to_string(),
        Document::Tenant(tenant) => tenant.metadata.name.to_string(),
        Document::Lease(lease) => format!("{}/{}", lease.metadata.tenant, lease.metadata.name),
    }
}

/// Whether two documents say the same but for when it was last observed: a beat every ten seconds is no
/// news.
fn says_the_same(before: &Document, after: &Document) -> bool {
    let mut pair = [before.clone(), after.clone()];
    for document in &mut pair {
        match document {
            Document::Site(site) => {
                if let Some(status) = &mut site.status {
                    status.last_seen = None;
                    status.conditions.iter_mut().for_each(|c| c.since = Timestamp::UNIX_EPOCH);
                }
            }
            Document::Host(host) => {
                host.status.last_seen = None;
                if let Some(reported) = &mut host.status.reported {
                    reported.seq = 0;
                    reported.observed = Timestamp::UNIX_EPOCH;
                    reported.supervisor_rss = 0;
                    reported.leases.iter_mut().for_each(|lease| lease.status.observed = None);
                }
            }
            Document::Lease(lease) => {
                if let Some(status) = &mut lease.status {
                    status.observed = None;
                }
            }
            Document::Tenant(_) => {}
        }
    }
    let [before, after] = pair;
    before == after
}
