//! `/v1/tenants/{tenant}/leases/{name}/log`: the console of a lease, asked of its host.

use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use bulkhead_api::document::ApiError;
use bulkhead_api::id::LeaseId;
use bulkhead_api::link::rpc::Question;
use serde::Deserialize;
use utoipa::IntoParams;

use super::Shared;
use super::answer::Fault;
use super::ask;
use super::body::{Asked, Named};
use super::leases::no_lease;
use crate::store::leases;

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
    drop(read);
    let path = format!("/v1/leases/{}/{}/log?lines={lines}", id.tenant, id.name);
    let question = Question { path, ..Question::default() };
    let (status, body) = ask::asked(&registry, &lease.host, question).await?;
    if status != StatusCode::OK {
        let plain = || String::from_utf8_lossy(&body).into_owned();
        let why = serde_json::from_slice(&body).map_or_else(|_| plain(), |e: ApiError| e.message);
        let host = &lease.host;
        return Err(Fault::unavailable(format!(
            "host {host} has no log of lease {id}: {why}; try again"
        )));
    }
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    Ok(([(CONTENT_TYPE, plain)], body))
}
