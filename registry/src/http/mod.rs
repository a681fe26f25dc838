//! REST for people: JSON documents under `/v1`, a bearer token, one kind of error.
//!
//! ```text
//!  request ──► auth (401) ──► audit of refusals ──► sites | hosts | tenants | leases | fit | watch | log | ask
//! ```

pub mod answer;
pub mod ask;
pub mod auth;
pub mod body;
pub mod fit;
pub mod hosts;
pub mod leases;
pub mod log;
pub mod openapi;
pub mod sites;
pub mod tenants;
pub mod watch;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post, put};
use axum::{Json, Router};

use crate::state::Registry;

/// The largest document; a lease has some hundred bytes.
const MAX_BODY: usize = 256 << 10;

/// What handlers share.
pub(crate) type Shared = axum::extract::State<Arc<Registry>>;

/// Every route.
pub fn router(registry: Arc<Registry>) -> Router {
    let guarded = Router::new()
        .route("/v1/sites", get(sites::list))
        .route("/v1/sites/{name}", put(sites::put).get(sites::get).delete(sites::delete))
        .route("/v1/sites/{name}/join-tickets", post(sites::join_ticket))
        .route("/v1/hosts", get(hosts::list))
        .route("/v1/hosts/{id}", get(hosts::get).delete(hosts::delete))
        .route("/v1/hosts/{id}/supervisor/{*path}", get(ask::get).post(ask::post))
        .route("/v1/tenants", get(tenants::list))
        .route("/v1/tenants/{name}", put(tenants::put).get(tenants::get).delete(tenants::delete))
        .route("/v1/leases", get(leases::list))
        .route("/v1/fit", post(fit::post))
        .route(
            "/v1/tenants/{tenant}/leases/{name}",
            put(leases::put).get(leases::get).delete(leases::delete),
        )
        .route("/v1/tenants/{tenant}/leases/{name}/log", get(log::get))
        .method_not_allowed_fallback(answer::wrong_method)
        .fallback(answer::no_such_path)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state(Arc::clone(&registry), auth::audit_refusals))
        .layer(from_fn_with_state(Arc::clone(&registry), auth::require_token));
    Router::new()
        .route("/healthz", get(healthz))
        .route("/v1/openapi.json", get(async || Json(openapi::document())))
        .merge(guarded)
        .with_state(registry)
        .layer(from_fn(auth::log_request))
}

/// Whether the registry serves; it reads the database.
#[utoipa::path(
    tag = "registry",
    get, path = "/healthz", security(()),
    responses((status = 200, body = String, description = "`ok`"),
              (status = 503, body = bulkhead_api::document::ApiError)),
)]
pub(crate) async fn healthz(registry: Shared) -> Result<&'static str, answer::Fault> {
    let mut read = registry.store.read().await?;
    crate::store::audit::tail(&mut read, 1).await?;
    Ok("ok")
}
