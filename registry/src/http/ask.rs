//! `/v1/hosts/{id}/supervisor/…`: what a host's supervisor answers over its own socket, asked over the link.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri};
use bulkhead_api::document::{ApiError, from_json};
use bulkhead_api::id::HostId;
use bulkhead_api::link::rpc::Question;

use super::Shared;
use super::answer::Fault;
use super::auth::audit_change;
use super::body::Named;
use crate::state::Registry;
use crate::store::{Durability, hosts};

/// The supervisor answers a question from memory, or says within this time why not.
const PATIENCE: Duration = Duration::from_secs(10);
/// An order waits for the end of a pass.
const PATIENCE_FOR_ORDERS: Duration = Duration::from_secs(330);

/// As the host answered it.
pub(crate) type Passed = (StatusCode, [(HeaderName, HeaderValue); 1], Bytes);

/// What a host's supervisor knows: `host`, `isolation`, `isolation/chain`, `receipts`, `ledger`, `events`, …
#[utoipa::path(
    tag = "hosts",
    get, path = "/v1/hosts/{id}/supervisor/{path}", params(("id" = String, Path), ("path" = String, Path)),
    responses((status = 200, body = serde_json::Value, description = "As the supervisor answers it"),
              (status = 404, body = ApiError),
              (status = 503, body = ApiError, description = "The host does not answer")),
)]
pub(crate) async fn get(
    registry: Shared,
    Named((id, _)): Named<(HostId, String)>,
    uri: Uri,
) -> Result<Passed, Fault> {
    let path = local(&id, uri.path_and_query().map_or("", |path| path.as_str()))?;
    passed(&id, asked(&registry, &id, Question { path, ..Question::default() }).await?)
}

/// Orders a host's supervisor to do one of: `ledger/repair`, `receipts/repair`, `quarantine/retry`.
#[utoipa::path(
    tag = "hosts",
    post, path = "/v1/hosts/{id}/supervisor/{path}", params(("id" = String, Path), ("path" = String, Path)),
    request_body = serde_json::Value,
    responses((status = 200, body = serde_json::Value, description = "As the supervisor answers it"),
              (status = 404, body = ApiError), (status = 409, body = ApiError),
              (status = 503, body = ApiError, description = "The host does not answer")),
)]
pub(crate) async fn post(
    registry: Shared,
    Named((id, rest)): Named<(HostId, String)>,
    uri: Uri,
    body: Bytes,
) -> Result<Passed, Fault> {
    let path = local(&id, uri.path_and_query().map_or("", |path| path.as_str()))?;
    let question = Question { path, order: true, body, ..Question::default() };
    let passed = passed(&id, asked(&registry, &id, question).await?)?;
    let mut write = registry.store.write(Durability::Durable).await?;
    audit_change(&mut write, "POST", format!("hosts/{id}/supervisor/{rest}"), 200).await?;
    write.commit().await?;
    Ok(passed)
}

/// Asks a host; nothing is sent where its site is away.
///
/// # Errors
/// 404 where there is no such host, 503 where it is not reached or does not answer in time.
pub(super) async fn asked(
    registry: &Registry,
    host: &HostId,
    question: Question,
) -> Result<(StatusCode, Bytes), Fault> {
    let mut read = registry.store.read().await?;
    let row = hosts::get(&mut read, host).await?;
    drop(read);
    let site = row.ok_or_else(|| Fault::not_found(format!("no host {host}")))?.site;
    let away = |why: &str| Fault::unavailable(format!("host {host} {why}; try again"));
    let patience = if question.order { PATIENCE_FOR_ORDERS } else { PATIENCE };
    let Some(mut question) = registry.sessions.ask(&site, host, question) else {
        return Err(away(&format!("is out of reach: site {site} is not connected")));
    };
    let answer = tokio::time::timeout(patience, question.answer())
        .await
        .map_err(|_| away(&format!("did not answer within {} s", patience.as_secs())))?
        .ok_or_else(|| away(&format!("is out of reach: the stream of site {site} ended")))?;
    let status = u16::try_from(answer.status).ok().and_then(|code| StatusCode::from_u16(code).ok());
    match status.filter(|status| *status == StatusCode::OK || status.as_u16() >= 400) {
        Some(status) => Ok((status, answer.body)),
        None => Err(away(&format!("answers with status {}, which is none", answer.status))),
    }
}

/// A refusal of the host is one of the registry; what is no JSON is not passed on.
fn passed(host: &HostId, (status, body): (StatusCode, Bytes)) -> Result<Passed, Fault> {
    let garbled =
        |fault| Fault::unavailable(format!("host {host} answers what is no document: {fault}"));
    if status != StatusCode::OK {
        let error: ApiError = from_json(&body).map_err(garbled)?;
        return Err(Fault { status, error });
    }
    let _: serde::de::IgnoredAny = from_json(&body).map_err(garbled)?;
    let json = HeaderValue::from_static("application/json");
    Ok((status, [(CONTENT_TYPE, json)], body))
}

/// `/v1/hosts/ID/supervisor/REST` is `/v1/REST` there.
fn local(host: &HostId, path: &str) -> Result<String, Fault> {
    let rest = path.strip_prefix(&format!("/v1/hosts/{host}/supervisor/"));
    let rest = rest.ok_or_else(|| Fault::not_found(format!("no such path: {path}")))?;
    if rest.contains("watch=") {
        // An answer has an end.
        return Err(Fault::field("watch", "a host is not watched from far: ask again and again"));
    }
    Ok(format!("/v1/{rest}"))
}
