//! `/v1/fit`: which host would take a lease, without taking one.

use std::slice;

use axum::Json;
use axum::body::Bytes;
use bulkhead_api::document::{ApiError, Document, HostShortage};
use bulkhead_api::fit::Fit;
use bulkhead_api::id::LeaseId;
use bulkhead_api::time::Timestamp;

use super::Shared;
use super::answer::Fault;
use super::leases::{checked, has_tenant, hosts_for};
use crate::fleet::place::{Candidate, choose, wants};
use crate::store::leases;

/// Says which host would get a lease, and what is short on each. Nothing is kept.
#[utoipa::path(
    tag = "leases",
    post, path = "/v1/fit", request_body = Document,
    responses((status = 200, body = Fit, description = "Whether it fits or not"),
              (status = 400, body = ApiError),
              (status = 404, body = ApiError, description = "No such tenant or site")),
)]
pub(crate) async fn post(registry: Shared, body: Bytes) -> Result<Json<Fit>, Fault> {
    let lease = checked(&body)?;
    let (spec, metadata) = (lease.spec, lease.metadata);
    let id = LeaseId { tenant: metadata.tenant, name: metadata.name };
    let mut read = registry.store.read().await?;
    has_tenant(&mut read, &id.tenant).await?;
    let placed = leases::get(&mut read, &id).await?.map(|row| row.host);
    let picture = hosts_for(&registry, &mut read, &spec, Timestamp::now()).await?;
    let (candidates, wants) = (picture.candidates(spec.site.as_ref()), wants(&spec));
    // Each host is asked as if it were the only one: what is then short is short there.
    let shortage = |host: &Candidate<'_>| {
        let alone = choose(slice::from_ref(host), &wants);
        let short = alone.err().into_iter().flatten().flat_map(|shortage| shortage.short);
        HostShortage { host: host.id.clone(), short: short.collect() }
    };
    let mut hosts: Vec<HostShortage> = candidates.iter().map(shortage).collect();
    hosts.sort_by(|a, b| a.host.cmp(&b.host));
    Ok(Json(Fit { host: choose(&candidates, &wants).ok(), placed, hosts }))
}
