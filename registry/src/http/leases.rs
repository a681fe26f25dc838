//! `/v1/leases` and `/v1/tenants/{tenant}/leases`.

use axum::Json;
use axum::body::Bytes;
use axum::response::Response;
use bulkhead_api::boot::MetalBoot;
use bulkhead_api::document::{ApiError, Document, HostShortage, Kind, Lease};
use bulkhead_api::id::{HostId, LeaseId, TenantName};
use bulkhead_api::lease::{InstanceKind, LeaseSpec};
use bulkhead_api::time::Timestamp;
use sqlx::SqliteConnection;
use tracing::info;

use super::Shared;
use super::answer::Fault;
use super::auth::audit_change;
use super::body::{After, Asked, Done, Named, document, same_name};
use super::watch::{self, Listing};
use crate::documents::Picture;
use crate::fleet::place::{choose, wants};
use crate::store::{Durability, leases, sites, tenants};

/// Lists leases, or watches them; with `tenant`, those of one tenant.
#[utoipa::path(
    tag = "leases",
    get, path = "/v1/leases", params(Listing),
    responses((status = 200, body = [Document], description = "With `watch`: lines of WatchEvent"),
              (status = 401, body = ApiError)),
)]
pub(crate) async fn list(
    registry: Shared,
    Asked(listing): Asked<Listing>,
) -> Result<Response, Fault> {
    watch::list(registry, Kind::Lease, listing).await
}

pub(super) fn no_lease(id: &LeaseId) -> Fault {
    Fault::not_found(format!("tenant {} has no lease {}", id.tenant, id.name))
}

async fn read_lease(
    registry: &Shared,
    conn: &mut SqliteConnection,
    id: &LeaseId,
) -> Result<Document, Fault> {
    let live = registry.presence.snapshot();
    let picture = Picture::of_lease(conn, id, live, Timestamp::now()).await?;
    picture.lease_of(id).ok_or_else(|| no_lease(id))
}

/// One lease.
#[utoipa::path(
    tag = "leases",
    get, path = "/v1/tenants/{tenant}/leases/{name}",
    params(("tenant" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = Document), (status = 404, body = ApiError)),
)]
pub(crate) async fn get(
    registry: Shared,
    Named(id): Named<LeaseId>,
) -> Result<Json<Document>, Fault> {
    let mut read = registry.store.read().await?;
    read_lease(&registry, &mut read, &id).await.map(Json)
}

/// Asks for a lease. It is placed on a host with room, or refused with what is short.
#[utoipa::path(
    tag = "leases",
    put, path = "/v1/tenants/{tenant}/leases/{name}",
    params(("tenant" = String, Path), ("name" = String, Path)), request_body = Document,
    responses((status = 200, body = Document, description = "The same lease is there already"),
              (status = 201, body = Document), (status = 400, body = ApiError),
              (status = 404, body = ApiError, description = "No such tenant or site"),
              (status = 409, body = ApiError, description = "It does not fit, or differs")),
)]
pub(crate) async fn put(
    registry: Shared,
    Named(id): Named<LeaseId>,
    body: Bytes,
) -> Result<After, Fault> {
    let lease = checked(&body)?;
    same_name("metadata.tenant", &id.tenant, &lease.metadata.tenant)?;
    same_name("metadata.name", &id.name, &lease.metadata.name)?;
    let spec = lease.spec;

    let mut write = registry.store.write(Durability::Durable).await?;
    has_tenant(write.conn(), &id.tenant).await?;
    if let Some(row) = leases::get(write.conn(), &id).await? {
        if row.deleting_at.is_some() {
            let message = format!("lease {id} is being released; ask again when it is gone");
            return Err(Fault::conflict(message));
        }
        if row.spec != spec {
            let message = format!(
                "lease {id} exists and a lease's spec cannot be changed; delete it or take another name"
            );
            return Err(Fault::conflict(message));
        }
        return Ok(After(Done::Unchanged, read_lease(&registry, write.conn(), &id).await?));
    }
    let now = Timestamp::now();
    let host = place(&registry, write.conn(), &spec, now).await?;
    leases::insert(write.conn(), &id, &host, &spec, now).await?;
    audit_change(&mut write, "PUT", format!("tenants/{}/leases/{}", id.tenant, id.name), 201)
        .await?;
    let after = read_lease(&registry, write.conn(), &id).await?;
    write.commit().await?;
    info!(lease = %id, %host, cpus = spec.cpus, memory = %spec.memory, "lease accepted");
    registry.unsigned.add(&host);
    registry.changed();
    Ok(After(Done::Created, after))
}

/// A lease that can be granted at all, on a host with room.
pub(super) fn checked(body: &Bytes) -> Result<Lease, Fault> {
    let lease: Lease = document(Kind::Lease, body)?;
    let spec = &lease.spec;
    spec.check().map_err(|(field, message)| Fault::field(&field, message))?;
    if spec.instance == InstanceKind::BareMetal {
        MetalBoot::of(&spec.workload).map_err(|(field, message)| Fault::field(field, message))?;
    }
    Ok(lease)
}

pub(super) async fn has_tenant(
    conn: &mut SqliteConnection,
    tenant: &TenantName,
) -> Result<(), Fault> {
    match tenants::get(conn, tenant).await? {
        Some(_) => Ok(()),
        None => {
            let message = format!("no tenant {tenant}; create it first");
            Err(Fault::missing("metadata.tenant", message))
        }
    }
}

/// Reads what hosts and leases are made of, for a lease whose site is there.
pub(super) async fn hosts_for(
    registry: &Shared,
    conn: &mut SqliteConnection,
    spec: &LeaseSpec,
    now: Timestamp,
) -> Result<Picture, Fault> {
    if let Some(site) = &spec.site
        && sites::get(&mut *conn, site).await?.is_none()
    {
        return Err(Fault::missing("spec.site", format!("no site {site}")));
    }
    let live = registry.presence.snapshot();
    Ok(Picture::of_kind(conn, Kind::Lease, live, now).await?)
}

/// In the transaction that takes the lease in: no two are promised the same room.
async fn place(
    registry: &Shared,
    conn: &mut SqliteConnection,
    spec: &LeaseSpec,
    now: Timestamp,
) -> Result<HostId, Fault> {
    let picture = hosts_for(registry, conn, spec, now).await?;
    let candidates = picture.candidates(spec.site.as_ref());
    choose(&candidates, &wants(spec)).map_err(|shortages| {
        let place = match &spec.site {
            Some(site) => format!(" of site {site}"),
            None => String::new(),
        };
        Fault::does_not_fit(refusal(&place, &shortages), shortages)
    })
}

fn refusal(place: &str, shortages: &[HostShortage]) -> String {
    match shortages {
        [] => format!("no host{place} has enrolled and reported yet"),
        [only] => format!("does not fit host {}: {}", only.host, only.short.join("; ")),
        several => format!("fits none of the {} hosts{place}", several.len()),
    }
}

/// Gives a lease back. It is gone when its host was observed without it.
#[utoipa::path(
    tag = "leases",
    delete, path = "/v1/tenants/{tenant}/leases/{name}",
    params(("tenant" = String, Path), ("name" = String, Path)),
    responses((status = 202, body = Document), (status = 404, body = ApiError)),
)]
pub(crate) async fn delete(registry: Shared, Named(id): Named<LeaseId>) -> Result<After, Fault> {
    let mut write = registry.store.write(Durability::Durable).await?;
    let row = leases::get(write.conn(), &id).await?.ok_or_else(|| no_lease(&id))?;
    if row.deleting_at.is_some() {
        return Ok(After(Done::Releasing, read_lease(&registry, write.conn(), &id).await?));
    }
    leases::mark_deleting(write.conn(), &id, Timestamp::now()).await?;
    audit_change(&mut write, "DELETE", format!("tenants/{}/leases/{}", id.tenant, id.name), 202)
        .await?;
    let after = read_lease(&registry, write.conn(), &id).await?;
    write.commit().await?;
    info!(lease = %id, host = %row.host, "lease is being released");
    registry.unsigned.add(&row.host);
    registry.changed();
    Ok(After(Done::Releasing, after))
}
