//! `/v1/hosts`.

use axum::Json;
use axum::response::Response;
use bulkhead_api::document::{ApiError, Document, Kind};
use bulkhead_api::id::HostId;
use bulkhead_api::time::Timestamp;

use super::Shared;
use super::answer::Fault;
use super::auth::audit_change;
use super::body::{Asked, Named};
use super::watch::{self, Listing};
use crate::documents::Picture;
use crate::store::{Durability, hosts, leases, machines, refusals};

/// Lists hosts and machines that are not yet or not allowed to be hosts, or watches them.
#[utoipa::path(
    tag = "hosts",
    get, path = "/v1/hosts", params(Listing),
    responses((status = 200, body = [Document], description = "With `watch`: lines of WatchEvent"),
              (status = 401, body = ApiError)),
)]
pub(crate) async fn list(
    registry: Shared,
    Asked(listing): Asked<Listing>,
) -> Result<Response, Fault> {
    watch::list(registry, Kind::Host, listing).await
}

fn find(picture: &Picture, id: &HostId) -> Result<Document, Fault> {
    let named = |host: &Document| matches!(host, Document::Host(h) if h.metadata.name == *id);
    let found = picture.documents(Kind::Host)?.into_iter().find(named);
    found.ok_or_else(|| Fault::not_found(format!("no host {id}")))
}

/// One host.
#[utoipa::path(
    tag = "hosts",
    get, path = "/v1/hosts/{id}", params(("id" = String, Path)),
    responses((status = 200, body = Document), (status = 404, body = ApiError)),
)]
pub(crate) async fn get(
    registry: Shared,
    Named(id): Named<HostId>,
) -> Result<Json<Document>, Fault> {
    let live = registry.presence.snapshot();
    let mut read = registry.store.read().await?;
    let picture = Picture::of_kind(&mut read, Kind::Host, live, Timestamp::now()).await?;
    find(&picture, &id).map(Json)
}

/// Forgets a host without leases, a refused machine or one that was only seen. The machine may enrol again.
#[utoipa::path(
    tag = "hosts",
    delete, path = "/v1/hosts/{id}", params(("id" = String, Path)),
    responses((status = 200, body = Document), (status = 404, body = ApiError),
              (status = 409, body = ApiError)),
)]
pub(crate) async fn delete(
    registry: Shared,
    Named(id): Named<HostId>,
) -> Result<Json<Document>, Fault> {
    let live = registry.presence.snapshot();
    let mut write = registry.store.write(Durability::Durable).await?;
    let picture = Picture::of_kind(write.conn(), Kind::Host, live, Timestamp::now()).await?;
    let last = find(&picture, &id)?;
    let held = leases::of_host(write.conn(), &id).await?.len();
    if held > 0 {
        let message =
            format!("host {id} has {held} leases; delete them first and wait until they are gone");
        return Err(Fault::conflict(message));
    }
    let host = hosts::get(write.conn(), &id).await?;
    if let Some(host) = host {
        hosts::delete(write.conn(), &id).await?;
        machines::delete(write.conn(), &host.site, host.mac).await?;
    } else if let Some((site, mac)) = picture.machine_named(&id)? {
        refusals::delete(write.conn(), &id).await?;
        machines::delete(write.conn(), &site, mac).await?;
    }
    audit_change(&mut write, "DELETE", format!("hosts/{id}"), 200).await?;
    write.commit().await?;
    registry.presence.forget(&id);
    registry.changed();
    Ok(Json(last))
}
