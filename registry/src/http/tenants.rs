//! `/v1/tenants`.

use axum::Json;
use axum::body::Bytes;
use axum::response::Response;
use bulkhead_api::document::{ApiError, Document, Kind, Tenant};
use bulkhead_api::id::TenantName;
use bulkhead_api::time::Timestamp;

use super::Shared;
use super::answer::Fault;
use super::auth::audit_change;
use super::body::{After, Asked, Done, Named, document, same_name};
use super::watch::{self, Listing};
use crate::documents::tenant;
use crate::store::tenants::TenantRow;
use crate::store::{Durability, leases, tenants};

/// Lists tenants, or watches them.
#[utoipa::path(
    tag = "tenants",
    get, path = "/v1/tenants", params(Listing),
    responses((status = 200, body = [Document], description = "With `watch`: lines of WatchEvent"),
              (status = 401, body = ApiError)),
)]
pub(crate) async fn list(
    registry: Shared,
    Asked(listing): Asked<Listing>,
) -> Result<Response, Fault> {
    watch::list(registry, Kind::Tenant, listing).await
}

fn no_tenant(name: &TenantName) -> Fault {
    Fault::not_found(format!("no tenant {name}"))
}

/// One tenant.
#[utoipa::path(
    tag = "tenants",
    get, path = "/v1/tenants/{name}", params(("name" = String, Path)),
    responses((status = 200, body = Document), (status = 404, body = ApiError)),
)]
pub(crate) async fn get(
    registry: Shared,
    Named(name): Named<TenantName>,
) -> Result<Json<Document>, Fault> {
    let mut read = registry.store.read().await?;
    let row = tenants::get(&mut read, &name).await?.ok_or_else(|| no_tenant(&name))?;
    Ok(Json(Document::Tenant(tenant(&row))))
}

/// Creates a tenant or changes its description.
#[utoipa::path(
    tag = "tenants",
    put, path = "/v1/tenants/{name}", params(("name" = String, Path)), request_body = Document,
    responses((status = 200, body = Document), (status = 201, body = Document),
              (status = 400, body = ApiError)),
)]
pub(crate) async fn put(
    registry: Shared,
    Named(name): Named<TenantName>,
    body: Bytes,
) -> Result<After, Fault> {
    let wanted: Tenant = document(Kind::Tenant, &body)?;
    same_name("metadata.name", &name, &wanted.metadata.name)?;
    let mut write = registry.store.write(Durability::Durable).await?;
    let done = match tenants::get(write.conn(), &name).await? {
        None => Done::Created,
        Some(row) if row.spec == wanted.spec => Done::Unchanged,
        Some(_) => Done::Changed,
    };
    if done != Done::Unchanged {
        tenants::put(write.conn(), &name, &wanted.spec, Timestamp::now()).await?;
        let status = done.status().as_u16();
        audit_change(&mut write, "PUT", format!("tenants/{name}"), status).await?;
        write.commit().await?;
        registry.changed();
    }
    let row = TenantRow { name, spec: wanted.spec };
    Ok(After(done, Document::Tenant(tenant(&row))))
}

/// Deletes a tenant without leases.
#[utoipa::path(
    tag = "tenants",
    delete, path = "/v1/tenants/{name}", params(("name" = String, Path)),
    responses((status = 200, body = Document), (status = 404, body = ApiError),
              (status = 409, body = ApiError)),
)]
pub(crate) async fn delete(
    registry: Shared,
    Named(name): Named<TenantName>,
) -> Result<Json<Document>, Fault> {
    let mut write = registry.store.write(Durability::Durable).await?;
    let row = tenants::get(write.conn(), &name).await?.ok_or_else(|| no_tenant(&name))?;
    let held = leases::count(write.conn(), &name).await?;
    if held > 0 {
        let message = format!(
            "tenant {name} has {held} leases; delete them first and wait until they are gone"
        );
        return Err(Fault::conflict(message));
    }
    tenants::delete(write.conn(), &name).await?;
    audit_change(&mut write, "DELETE", format!("tenants/{name}"), 200).await?;
    write.commit().await?;
    registry.changed();
    Ok(Json(Document::Tenant(tenant(&row))))
}
