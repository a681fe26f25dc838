//! Tenants.

use bulkhead_api::document::TenantSpec;
use bulkhead_api::id::TenantName;
use bulkhead_api::time::Timestamp;
use sqlx::{SqliteConnection, query, query_as};

use super::{StoreError, column, doing};

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRow {
    /// Its name.
    pub name: TenantName,
    /// Its description.
    pub spec: TenantSpec,
}

impl TenantRow {
    fn new((name, spec): (String, String)) -> Result<Self, StoreError> {
        Ok(Self {
            name: column::parse("tenants.name", &name)?,
            spec: column::from_json("tenants.spec", &spec)?,
        })
    }
}

/// All, by name.
///
/// # Errors
/// [`StoreError`].
pub async fn list(conn: &mut SqliteConnection) -> Result<Vec<TenantRow>, StoreError> {
    let sql = "SELECT name, spec FROM tenants ORDER BY name";
    let rows = query_as(sql).fetch_all(conn).await.map_err(doing("list tenants"))?;
    rows.into_iter().map(TenantRow::new).collect()
}

/// One.
///
/// # Errors
/// [`StoreError`].
pub async fn get(
    conn: &mut SqliteConnection,
    name: &TenantName,
) -> Result<Option<TenantRow>, StoreError> {
    let sql = "SELECT name, spec FROM tenants WHERE name = $1";
    let row = query_as(sql).bind(name.as_str()).fetch_optional(conn);
    row.await.map_err(doing("read tenant"))?.map(TenantRow::new).transpose()
}

/// Creates a tenant or changes its description.
///
/// # Errors
/// [`StoreError`].
pub async fn put(
    conn: &mut SqliteConnection,
    name: &TenantName,
    spec: &TenantSpec,
    now: Timestamp,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO tenants (name, spec, created_at) VALUES ($1, $2, $3)
               ON CONFLICT (name) DO UPDATE SET spec = excluded.spec";
    let spec = column::to_json("tenants.spec", spec)?;
    let statement = query(sql).bind(name.as_str()).bind(spec).bind(now.as_millisecond());
    statement.execute(conn).await.map(drop).map_err(doing("write tenant"))
}

/// Removes a tenant that has no leases.
///
/// # Errors
/// [`StoreError`], also where it has leases.
pub async fn delete(conn: &mut SqliteConnection, name: &TenantName) -> Result<(), StoreError> {
    let sql = "DELETE FROM tenants WHERE name = $1";
    let done = query(sql).bind(name.as_str()).execute(conn).await;
    done.map(drop).map_err(doing("delete tenant"))
}
