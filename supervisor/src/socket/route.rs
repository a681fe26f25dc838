//! The requests.

use std::collections::VecDeque;

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bulkhead_api::chain::Chain;
use bulkhead_api::id::LeaseId;
use bulkhead_api::lease::ReportedLease;
use bulkhead_api::receipt::SignedReceipt;
use bulkhead_api::statement::SignedStatement;
use bulkhead_api::status::HostStatus;
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::watch;

use super::reply::{Refused, bad_field, broken, not_found, refused};
use super::{View, engine};
use crate::events::{Event, Events};
use crate::proof::ring::{KEPT, Ring};
use crate::receipts::Receipts;
use crate::tenant::{self, LogError};

/// Most lines of a log that are given at once.
const MOST_LINES: u32 = 10_000;
/// Lines of a log where none are asked for.
const LINES: u32 = 100;

pub(super) fn routes(view: View) -> Router {
    let absent = |uri: Uri| async move {
        not_found(format!(
            "{}: expected /v1/host, /v1/leases, /v1/leases/TENANT/NAME, /v1/leases/TENANT/NAME/log, \
             /v1/events, /v1/isolation, /v1/isolation/chain, /v1/receipts, /v1/receipts/repair, \
             /v1/ledger, /v1/ledger/repair or /v1/quarantine/retry",
            uri.path()
        ))
    };
    let wrong_method = || async {
        let message = "the supervisor answers GET, and POST of /v1/ledger/repair, /v1/receipts/repair and \
                       /v1/quarantine/retry: leases are changed at the registry";
        refused(StatusCode::METHOD_NOT_ALLOWED, "BadMethod", message.to_owned())
    };
    Router::new()
        .route("/v1/host", get(host))
        .route("/v1/leases", get(leases))
        .route("/v1/leases/{tenant}/{name}", get(lease))
        .route("/v1/leases/{tenant}/{name}/log", get(log))
        .route("/v1/events", get(events))
        .route("/v1/isolation", get(isolation))
        .route("/v1/isolation/chain", get(isolation_chain))
        .route("/v1/receipts", get(receipts))
        .route("/v1/receipts/repair", post(engine::repair_receipts))
        .route("/v1/ledger", get(engine::ledger))
        .route("/v1/ledger/repair", post(engine::repair))
        .route("/v1/quarantine/retry", post(engine::retry))
        .fallback(absent)
        .method_not_allowed_fallback(wrong_method)
        .with_state(view)
}

async fn host(State(view): State<View>) -> Json<HostStatus> {
    let status = view.status.borrow().clone();
    Json(HostStatus::clone(&status))
}

async fn leases(State(view): State<View>) -> Json<Vec<ReportedLease>> {
    Json(view.status.borrow().leases.clone())
}

async fn lease(
    State(view): State<View>,
    Path(names): Path<(String, String)>,
) -> Result<Json<ReportedLease>, Refused> {
    let id = lease_id(&names)?;
    let found = view.status.borrow().leases.iter().find(|lease| lease.id == id).cloned();
    found.map(Json).ok_or_else(|| {
        not_found(format!("lease {id} is neither wanted nor found on this host: see /v1/leases"))
    })
}

#[derive(Deserialize)]
struct LogQuery {
    lines: Option<u32>,
}

async fn log(
    State(view): State<View>,
    Path(names): Path<(String, String)>,
    query: Result<Query<LogQuery>, QueryRejection>,
) -> Result<Response, Refused> {
    let id = lease_id(&names)?;
    let Query(LogQuery { lines }) = query.map_err(|e| bad_field("lines", e.body_text()))?;
    let lines = lines.unwrap_or(LINES);
    if !(1..=MOST_LINES).contains(&lines) {
        return Err(bad_field("lines", format!("{lines}: expected 1 to {MOST_LINES}")));
    }
    let read = tokio::task::spawn_blocking(move || tenant::log(&view.paths, &id, lines));
    match read.await {
        Ok(Ok(text)) => Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()),
        Ok(Err(error @ LogError::Absent(_))) => Err(not_found(error.to_string())),
        Ok(Err(error @ LogError::Read { .. })) => Err(broken(&Chain(&error).to_string())),
        Err(error) => Err(broken(&Chain(&error).to_string())),
    }
}

async fn isolation(State(view): State<View>) -> Result<Json<SignedStatement>, Refused> {
    let latest = statements(view).await?.pop();
    latest.map(Json).ok_or_else(|| {
        not_found(
            "no isolation statement was made yet: see condition Isolated of /v1/host".to_owned(),
        )
    })
}

async fn isolation_chain(State(view): State<View>) -> Result<Json<Vec<SignedStatement>>, Refused> {
    statements(view).await.map(Json)
}

/// Those that are kept, oldest first.
async fn statements(view: View) -> Result<Vec<SignedStatement>, Refused> {
    let ring = Ring::new(view.paths.isolation(), KEPT);
    match tokio::task::spawn_blocking(move || ring.all()).await {
        Ok(Ok(all)) => Ok(all),
        Ok(Err(error)) => Err(broken(&Chain(&error).to_string())),
        Err(error) => Err(broken(&Chain(&error).to_string())),
    }
}

#[derive(Deserialize)]
struct ReceiptsQuery {
    lease: Option<String>,
    /// Only those with a greater number.
    #[serde(default)]
    after: u64,
    /// At most so many; absent = all.
    most: Option<usize>,
}

async fn receipts(
    State(view): State<View>,
    query: Result<Query<ReceiptsQuery>, QueryRejection>,
) -> Result<Json<Vec<SignedReceipt>>, Refused> {
    let Query(ReceiptsQuery { lease, after, most }) =
        query.map_err(|e| bad_field("query", e.body_text()))?;
    let lease = lease.map(|text| match text.split_once('/') {
        Some((tenant, name)) => lease_id(&(tenant.to_owned(), name.to_owned())),
        None => Err(bad_field("lease", format!("{text:?}: expected TENANT/NAME"))),
    });
    let lease = lease.transpose()?;
    let receipts = Receipts::new(&view.paths);
    match tokio::task::spawn_blocking(move || receipts.all(lease.as_ref())).await {
        Ok(Ok(mut all)) => {
            if after > 0 {
                // What says no number of its own is shown rather than hidden.
                all.retain(|one| one.unchecked().map_or(true, |one| one.sequence > after));
            }
            all.truncate(most.unwrap_or(usize::MAX));
            Ok(Json(all))
        }
        Ok(Err(error)) => Err(broken(&Chain(&error).to_string())),
        Err(error) => Err(broken(&Chain(&error).to_string())),
    }
}

#[derive(Deserialize)]
struct EventsQuery {
    #[serde(default)]
    watch: bool,
}

async fn events(
    State(view): State<View>,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Response, Refused> {
    let Query(EventsQuery { watch }) = query.map_err(|e| bad_field("watch", e.body_text()))?;
    if !watch {
        return Ok(Json(view.events.after(0)).into_response());
    }
    let newest = view.events.watch();
    let watching = Watching { events: view.events, newest, last: 0, ready: VecDeque::new() };
    let lines = stream::unfold(watching, |mut watching| async move {
        let line = watching.line().await?;
        Some((Ok::<_, serde_json::Error>(line), watching))
    });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

/// One asker who watches.
struct Watching {
    events: Events,
    newest: watch::Receiver<u64>,
    last: u64,
    ready: VecDeque<Event>,
}

impl Watching {
    /// The next event as a line; `None` at the end of the supervisor.
    async fn line(&mut self) -> Option<Bytes> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.last = event.seq;
                let mut line = serde_json::to_vec(&event).ok()?;
                line.push(b'\n');
                return Some(line.into());
            }
            self.newest.wait_for(|newest| *newest > self.last).await.ok()?;
            self.ready = self.events.after(self.last).into();
        }
    }
}

fn lease_id((tenant, name): &(String, String)) -> Result<LeaseId, Refused> {
    let tenant = tenant.parse().map_err(|e| bad_field("tenant", format!("{e}")))?;
    let name = name.parse().map_err(|e| bad_field("name", format!("{e}")))?;
    Ok(LeaseId { tenant, name })
}
