//! Enrolled machines.

use bulkhead_api::id::{HostId, MacAddr, SiteName, SystemUuid};
use bulkhead_api::time::Timestamp;
use sqlx::{SqliteConnection, query, query_as, query_scalar};

use super::{StoreError, column, doing};

/// A host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRow {
    /// Its id.
    pub id: HostId,
    /// Where it is.
    pub site: SiteName,
    /// Hardware address of its boot NIC; no two hosts have the same.
    pub mac: MacAddr,
    /// Its system UUID; no two hosts have the same.
    pub uuid: Option<SystemUuid>,
    /// When it first enrolled.
    pub enrolled_at: Timestamp,
}

type Columns = (String, String, String, Option<String>, i64);

impl HostRow {
    fn new((id, site, mac, uuid, enrolled_at): Columns) -> Result<Self, StoreError> {
        Ok(Self {
            id: column::parse("hosts.id", &id)?,
            site: column::parse("hosts.site", &site)?,
            mac: column::parse("hosts.mac", &mac)?,
            uuid: uuid.map(|uuid| column::parse("hosts.uuid", &uuid)).transpose()?,
            enrolled_at: column::time("hosts.enrolled_at", enrolled_at)?,
        })
    }
}

/// All, by id.
///
/// # Errors
/// [`StoreError`].
pub async fn list(conn: &mut SqliteConnection) -> Result<Vec<HostRow>, StoreError> {
    let sql = "SELECT id, site, mac, uuid, enrolled_at FROM hosts ORDER BY id";
    let rows = query_as(sql).fetch_all(conn).await.map_err(doing("list hosts"))?;
    rows.into_iter().map(HostRow::new).collect()
}

/// Those of a site, by id.
///
/// # Errors
/// [`StoreError`].
pub async fn of_site(
    conn: &mut SqliteConnection,
    site: &SiteName,
) -> Result<Vec<HostRow>, StoreError> {
    let sql = "SELECT id, site, mac, uuid, enrolled_at FROM hosts WHERE site = $1 ORDER BY id";
    let rows = query_as(sql).bind(site.as_str()).fetch_all(conn);
    let rows = rows.await.map_err(doing("list hosts of site"))?;
    rows.into_iter().map(HostRow::new).collect()
}

/// One.
///
/// # Errors
/// [`StoreError`].
pub async fn get(conn: &mut SqliteConnection, id: &HostId) -> Result<Option<HostRow>, StoreError> {
    let sql = "SELECT id, site, mac, uuid, enrolled_at FROM hosts WHERE id = $1";
    let row = query_as(sql).bind(id.as_str()).fetch_optional(conn);
    row.await.map_err(doing("read host"))?.map(HostRow::new).transpose()
}

/// Those whose last spec ends by `until`, or that have none.
///
/// # Errors
/// [`StoreError`].
pub async fn spec_ends_by(
    conn: &mut SqliteConnection,
    until: Timestamp,
) -> Result<Vec<HostId>, StoreError> {
    let sql = "SELECT id FROM hosts LEFT JOIN specs ON specs.host = hosts.id
               WHERE specs.expiry IS NULL OR specs.expiry <= $1 ORDER BY id";
    let ids: Vec<String> = query_scalar(sql)
        .bind(until.as_millisecond())
        .fetch_all(conn)
        .await
        .map_err(doing("list hosts whose spec ends"))?;
    ids.iter().map(|id| column::parse("hosts.id", id)).collect()
}

/// Hosts that share the id, the address or the UUID of a machine.
///
/// # Errors
/// [`StoreError`].
pub async fn alike(
    conn: &mut SqliteConnection,
    id: &HostId,
    mac: MacAddr,
    uuid: Option<SystemUuid>,
) -> Result<Vec<HostRow>, StoreError> {
    let sql = "SELECT id, site, mac, uuid, enrolled_at FROM hosts
               WHERE id = $1 OR mac = $2 OR uuid = $3 ORDER BY id";
    let statement = query_as(sql).bind(id.as_str()).bind(mac.to_string());
    let rows = statement.bind(uuid.map(|u| u.to_string())).fetch_all(conn);
    let rows = rows.await.map_err(doing("find hosts alike"))?;
    rows.into_iter().map(HostRow::new).collect()
}

/// Adds a host.
///
/// # Errors
/// [`StoreError`], also where id, address or UUID are another host's.
pub async fn insert(conn: &mut SqliteConnection, host: &HostRow) -> Result<(), StoreError> {
    let sql = "INSERT INTO hosts (id, site, mac, uuid, enrolled_at) VALUES ($1, $2, $3, $4, $5)";
    let statement = query(sql)
        .bind(host.id.as_str())
        .bind(host.site.as_str())
        .bind(host.mac.to_string())
        .bind(host.uuid.map(|uuid| uuid.to_string()))
        .bind(host.enrolled_at.as_millisecond());
    statement.execute(conn).await.map(drop).map_err(doing("write host"))
}

/// Removes a host without leases, with its report; the last spec stays, see [`super::specs`].
///
/// # Errors
/// [`StoreError`], also where it has leases.
pub async fn delete(conn: &mut SqliteConnection, id: &HostId) -> Result<(), StoreError> {
    let sql = "DELETE FROM hosts WHERE id = $1";
    let done = query(sql).bind(id.as_str()).execute(conn).await;
    done.map(drop).map_err(doing("delete host"))
}
