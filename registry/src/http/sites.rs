//! `/v1/sites`.

use axum::Json;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::Response;
use bulkhead_api::document::{ApiError, Document, Kind, Site};
use bulkhead_api::id::SiteName;
use bulkhead_api::time::Timestamp;
use jiff::SignedDuration;
use serde::Serialize;
use utoipa::ToSchema;

use super::Shared;
use super::answer::Fault;
use super::auth::audit_change;
use super::body::{After, Asked, Done, Named, document, same_name};
use super::watch::{self, Listing};
use crate::documents::Picture;
use crate::store::{Durability, Read, hosts, sites, tickets};
use crate::token::{self, Purpose, TokenHash};

/// An operator copies the ticket to the site by hand.
const TICKET_LIFE: SignedDuration = SignedDuration::from_hours(24);
/// How long the reason of a refusal can be told apart from "unknown".
const TICKET_MEMORY: SignedDuration = SignedDuration::from_hours(24 * 30);

/// Lists sites, or watches them.
#[utoipa::path(
    tag = "sites",
    get, path = "/v1/sites", params(Listing),
    responses((status = 200, body = [Document], description = "With `watch`: lines of WatchEvent"),
              (status = 401, body = ApiError)),
)]
pub(crate) async fn list(
    registry: Shared,
    Asked(listing): Asked<Listing>,
) -> Result<Response, Fault> {
    watch::list(registry, Kind::Site, listing).await
}

async fn read_site(read: &mut Read, registry: &Shared, name: &SiteName) -> Result<Document, Fault> {
    let row = sites::get(read, name).await?.ok_or_else(|| no_site(name))?;
    let live = registry.presence.snapshot();
    let picture = Picture::of_live(live, Timestamp::now());
    Ok(Document::Site(picture.site(&row)))
}

fn no_site(name: &SiteName) -> Fault {
    Fault::not_found(format!("no site {name}"))
}

/// One site.
#[utoipa::path(
    tag = "sites",
    get, path = "/v1/sites/{name}", params(("name" = String, Path)),
    responses((status = 200, body = Document), (status = 404, body = ApiError)),
)]
pub(crate) async fn get(
    registry: Shared,
    Named(name): Named<SiteName>,
) -> Result<Json<Document>, Fault> {
    let mut read = registry.store.read().await?;
    read_site(&mut read, &registry, &name).await.map(Json)
}

/// Creates a site or changes what it should do.
#[utoipa::path(
    tag = "sites",
    put, path = "/v1/sites/{name}", params(("name" = String, Path)), request_body = Document,
    responses((status = 200, body = Document), (status = 201, body = Document),
              (status = 400, body = ApiError)),
)]
pub(crate) async fn put(
    registry: Shared,
    Named(name): Named<SiteName>,
    body: Bytes,
) -> Result<After, Fault> {
    let site: Site = document(Kind::Site, &body)?;
    same_name("metadata.name", &name, &site.metadata.name)?;
    let mut write = registry.store.write(Durability::Durable).await?;
    let before = sites::get(write.conn(), &name).await?;
    let done = match before {
        None => Done::Created,
        Some(row) if row.spec == site.spec => Done::Unchanged,
        Some(_) => Done::Changed,
    };
    if done != Done::Unchanged {
        sites::put(write.conn(), &name, &site.spec, Timestamp::now()).await?;
        let status = done.status().as_u16();
        audit_change(&mut write, "PUT", format!("sites/{name}"), status).await?;
        let hosts = hosts::of_site(write.conn(), &name).await?;
        write.commit().await?;
        for host in hosts {
            registry.unsigned.add(&host.id);
        }
        registry.sessions.site_spec_changed(&name);
        registry.changed();
    } else {
        drop(write);
    }
    let mut read = registry.store.read().await?;
    Ok(After(done, read_site(&mut read, &registry, &name).await?))
}

/// Deletes a site without hosts.
#[utoipa::path(
    tag = "sites",
    delete, path = "/v1/sites/{name}", params(("name" = String, Path)),
    responses((status = 200, body = Document), (status = 404, body = ApiError),
              (status = 409, body = ApiError)),
)]
pub(crate) async fn delete(
    registry: Shared,
    Named(name): Named<SiteName>,
) -> Result<Json<Document>, Fault> {
    let mut write = registry.store.write(Durability::Durable).await?;
    let row = sites::get(write.conn(), &name).await?.ok_or_else(|| no_site(&name))?;
    let on_site = hosts::of_site(write.conn(), &name).await?.len();
    if on_site > 0 {
        let message = format!("site {name} has {on_site} hosts; delete them first");
        return Err(Fault::conflict(message));
    }
    sites::delete(write.conn(), &name).await?;
    audit_change(&mut write, "DELETE", format!("sites/{name}"), 200).await?;
    write.commit().await?;
    registry.sessions.close(&name, "the site was deleted");
    registry.changed();
    let live = registry.presence.snapshot();
    let picture = Picture::of_live(live, Timestamp::now());
    Ok(Json(Document::Site(picture.site(&row))))
}

/// A ticket with which a site joins, once.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JoinTicket {
    /// The secret; it is not shown again.
    ticket: String,
    /// Not taken from then on.
    #[schema(value_type = String, format = DateTime)]
    expires: Timestamp,
}

/// Makes a ticket with which the site's provisioner joins.
#[utoipa::path(
    tag = "sites",
    post, path = "/v1/sites/{name}/join-tickets", params(("name" = String, Path)),
    responses((status = 201, body = JoinTicket), (status = 404, body = ApiError)),
)]
pub(crate) async fn join_ticket(
    registry: Shared,
    Named(name): Named<SiteName>,
) -> Result<(StatusCode, Json<JoinTicket>), Fault> {
    let ticket = token::fresh().map_err(|e| Fault::unavailable(e.to_string()))?;
    let now = Timestamp::now();
    let expires = now + TICKET_LIFE;
    let mut write = registry.store.write(Durability::Durable).await?;
    sites::get(write.conn(), &name).await?.ok_or_else(|| no_site(&name))?;
    tickets::forget(write.conn(), now - TICKET_MEMORY).await?;
    let hash = TokenHash::of(Purpose::Join, &ticket);
    tickets::mint(write.conn(), &hash, &name, expires).await?;
    audit_change(&mut write, "POST", format!("sites/{name}/join-tickets"), 201).await?;
    write.commit().await?;
    Ok((StatusCode::CREATED, Json(JoinTicket { ticket, expires })))
}
