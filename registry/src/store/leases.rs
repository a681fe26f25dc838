//! Leases, from acceptance until their host was observed without them.

use bulkhead_api::id::{HostId, LeaseId, TenantName};
use bulkhead_api::lease::LeaseSpec;
use bulkhead_api::time::Timestamp;
use sqlx::{SqliteConnection, query, query_as, query_scalar};

use super::{StoreError, column, doing};

/// A lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRow {
    /// Order of creation.
    pub number: i64,
    /// Tenant and name.
    pub id: LeaseId,
    /// Where it was placed.
    pub host: HostId,
    /// What was asked for.
    pub spec: LeaseSpec,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When deletion was asked for.
    pub deleting_at: Option<Timestamp>,
    /// First generation of the host's spec without it; known some time after `deleting_at`.
    pub gone_generation: Option<u64>,
}

type Columns = (i64, String, String, String, String, i64, Option<i64>, Option<i64>);

impl LeaseRow {
    fn new(columns: Columns) -> Result<Self, StoreError> {
        let (number, tenant, name, host, spec, created_at, deleting_at, gone) = columns;
        Ok(Self {
            number,
            id: LeaseId {
                tenant: column::parse("leases.tenant", &tenant)?,
                name: column::parse("leases.name", &name)?,
            },
            host: column::parse("leases.host", &host)?,
            spec: column::from_json("leases.spec", &spec)?,
            created_at: column::time("leases.created_at", created_at)?,
            deleting_at: deleting_at
                .map(|at| column::time("leases.deleting_at", at))
                .transpose()?,
            gone_generation: gone
                .map(|number| column::count("leases.gone_generation", number))
                .transpose()?,
        })
    }
}

/// All, in order of creation.
///
/// # Errors
/// [`StoreError`].
pub async fn list(conn: &mut SqliteConnection) -> Result<Vec<LeaseRow>, StoreError> {
    let sql = "SELECT number, tenant, name, host, spec, created_at, deleting_at, gone_generation
               FROM leases ORDER BY number";
    let rows = query_as(sql).fetch_all(conn).await.map_err(doing("list leases"))?;
    rows.into_iter().map(LeaseRow::new).collect()
}

/// Those on a host, in order of creation.
///
/// # Errors
/// [`StoreError`].
pub async fn of_host(
    conn: &mut SqliteConnection,
    host: &HostId,
) -> Result<Vec<LeaseRow>, StoreError> {
    let sql = "SELECT number, tenant, name, host, spec, created_at, deleting_at, gone_generation
               FROM leases WHERE host = $1 ORDER BY number";
    let rows = query_as(sql).bind(host.as_str()).fetch_all(conn);
    let rows = rows.await.map_err(doing("list leases of host"))?;
    rows.into_iter().map(LeaseRow::new).collect()
}

/// One.
///
/// # Errors
/// [`StoreError`].
pub async fn get(
    conn: &mut SqliteConnection,
    id: &LeaseId,
) -> Result<Option<LeaseRow>, StoreError> {
    let sql = "SELECT number, tenant, name, host, spec, created_at, deleting_at, gone_generation
               FROM leases WHERE tenant = $1 AND name = $2";
    let statement = query_as(sql).bind(id.tenant.as_str()).bind(id.name.as_str());
    let row = statement.fetch_optional(conn).await.map_err(doing("read lease"))?;
    row.map(LeaseRow::new).transpose()
}

/// How many a tenant has, those being released too.
///
/// # Errors
/// [`StoreError`].
pub async fn count(conn: &mut SqliteConnection, tenant: &TenantName) -> Result<i64, StoreError> {
    let sql = "SELECT count(*) FROM leases WHERE tenant = $1";
    let number = query_scalar(sql).bind(tenant.as_str()).fetch_one(conn);
    number.await.map_err(doing("count leases of tenant"))
}

/// Adds an accepted lease.
///
/// # Errors
/// [`StoreError`], also where tenant or host are unknown or the name is taken.
pub async fn insert(
    conn: &mut SqliteConnection,
    id: &LeaseId,
    host: &HostId,
    spec: &LeaseSpec,
    now: Timestamp,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO leases (tenant, name, host, spec, created_at)
               VALUES ($1, $2, $3, $4, $5)";
    let statement = query(sql)
        .bind(id.tenant.as_str())
        .bind(id.name.as_str())
        .bind(host.as_str())
        .bind(column::to_json("leases.spec", spec)?)
        .bind(now.as_millisecond());
    statement.execute(conn).await.map(drop).map_err(doing("write lease"))
}

/// Notes that deletion was asked for; the first time counts.
///
/// # Errors
/// [`StoreError`].
pub async fn mark_deleting(
    conn: &mut SqliteConnection,
    id: &LeaseId,
    now: Timestamp,
) -> Result<(), StoreError> {
    let sql = "UPDATE leases SET deleting_at = coalesce(deleting_at, $3)
               WHERE tenant = $1 AND name = $2";
    let statement = query(sql).bind(id.tenant.as_str()).bind(id.name.as_str());
    let done = statement.bind(now.as_millisecond()).execute(conn).await;
    done.map(drop).map_err(doing("mark lease as deleting"))
}

/// Notes which generation of the host's spec is without the lease; the first one counts.
///
/// # Errors
/// [`StoreError`].
pub async fn mark_gone_with(
    conn: &mut SqliteConnection,
    id: &LeaseId,
    generation: u64,
) -> Result<(), StoreError> {
    let sql = "UPDATE leases SET gone_generation = coalesce(gone_generation, $3)
               WHERE tenant = $1 AND name = $2 AND deleting_at IS NOT NULL";
    let generation = column::integer("leases.gone_generation", generation)?;
    let statement = query(sql).bind(id.tenant.as_str()).bind(id.name.as_str());
    let done = statement.bind(generation).execute(conn).await;
    done.map(drop).map_err(doing("note the lease's last generation"))
}

/// Removes a lease that its host was observed without.
///
/// # Errors
/// [`StoreError`].
pub async fn delete(conn: &mut SqliteConnection, id: &LeaseId) -> Result<(), StoreError> {
    let sql = "DELETE FROM leases WHERE tenant = $1 AND name = $2";
    let statement = query(sql).bind(id.tenant.as_str()).bind(id.name.as_str());
    statement.execute(conn).await.map(drop).map_err(doing("delete lease"))
}
