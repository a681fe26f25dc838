//! `/v1/tenants/{tenant}/leases/{name}/log`: the console of a lease, asked of its host.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue};
use bulkhead_api::document::ApiError;
use bulkhead_api::id::LeaseId;
use serde::Deserialize;
use tokio::time::timeout;
use utoipa::IntoParams;

use super::Shared;
use super::answer::Fault;
use super::body::{Asked, Named};
use super::leases::no_lease;
use crate::store::{hosts, leases};

const DEADLINE: Duration = Duration::from_secs(10);

/// How much of a log.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Extent {
    /// Last lines wanted, 1 to 10000.
    #[serde(default = "some")]
    lines: u32,
}

fn some() -> u32 {
    200
}

/// The last lines that a lease's program wrote.
#[utoipa::path(
    tag = "leases",
    get, path = "/v1/tenants/{tenant}/leases/{name}/log",
    params(("tenant" = String, Path), ("name" = String, Path), Extent),
    responses((status = 200, body = String, content_type = "text/plain"),
              (status = 404, body = ApiError),
              (status = 503, body = ApiError, description = "The host does not answer")),
)]
pub(crate) async fn get(
    registry: Shared,
    Named(id): Named<LeaseId>,
    Asked(Extent { lines }): Asked<Extent>,
) -> Result<([(HeaderName, HeaderValue); 1], Bytes), Fault> {
    if !(1..=10_000).contains(&lines) {
        return Err(Fault::field("lines", format!("{lines}: expected 1 to 10000")));
    }
    let mut read = registry.store.read().await?;
    let lease = leases::get(&mut read, &id).await?.ok_or_else(|| no_lease(&id))?;
    let host = hosts::get(&mut read, &lease.host).await?;
    drop(read);
    let site = host.ok_or_else(|| no_lease(&id))?.site;
    let away = |why: &str| Fault::unavailable(format!("host {} {why}; try again", lease.host));
    let question = registry.sessions.ask_log(&site, &lease.host, &id, lines);
    let Some(mut question) = question else {
        return Err(away(&format!("is out of reach: site {site} is not connected")));
    };
    let reply = timeout(DEADLINE, question.answer())
        .await
        .map_err(|_| away("did not answer within 10 s"))?
        .ok_or_else(|| away(&format!("is out of reach: the stream of site {site} ended")))?;
    if !reply.error.is_empty() {
        return Err(away(&format!("has no log of lease {id}: {}", reply.error)));
    }
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    Ok(([(CONTENT_TYPE, plain)], reply.text))
}
