//! Machines whose enrolment was refused.

use bulkhead_api::id::{HostId, MacAddr, SiteName, SystemUuid};
use bulkhead_api::time::Timestamp;
use sqlx::{SqliteConnection, query, query_as};

use super::{StoreError, column, doing};

/// A refused machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusalRow {
    /// Under which name it is shown.
    pub id: HostId,
    /// Where it asked.
    pub site: SiteName,
    /// Hardware address of its boot NIC.
    pub mac: MacAddr,
    /// Its system UUID.
    pub uuid: Option<SystemUuid>,
    /// Why, in one sentence.
    pub reason: String,
    /// First refused.
    pub since: Timestamp,
    /// Last refused.
    pub last_at: Timestamp,
    /// How often.
    pub attempts: u64,
}

type Columns = (String, String, String, Option<String>, String, i64, i64, i64);

impl RefusalRow {
    fn new(columns: Columns) -> Result<Self, StoreError> {
        let (id, site, mac, uuid, reason, since, last_at, attempts) = columns;
        Ok(Self {
            id: column::parse("refusals.id", &id)?,
            site: column::parse("refusals.site", &site)?,
            mac: column::parse("refusals.mac", &mac)?,
            uuid: uuid.map(|uuid| column::parse("refusals.uuid", &uuid)).transpose()?,
            reason,
            since: column::time("refusals.since", since)?,
            last_at: column::time("refusals.last_at", last_at)?,
            attempts: column::count("refusals.attempts", attempts)?,
        })
    }
}

/// All, by id.
///
/// # Errors
/// [`StoreError`].
pub async fn list(conn: &mut SqliteConnection) -> Result<Vec<RefusalRow>, StoreError> {
    let sql = "SELECT id, site, mac, uuid, reason, since, last_at, attempts
               FROM refusals ORDER BY id";
    let rows = query_as(sql).fetch_all(conn).await.map_err(doing("list refused machines"))?;
    rows.into_iter().map(RefusalRow::new).collect()
}

/// Notes a refusal; one more of the same machine counts up.
///
/// # Errors
/// [`StoreError`].
pub async fn note(conn: &mut SqliteConnection, refusal: &RefusalRow) -> Result<(), StoreError> {
    let sql = "INSERT INTO refusals (id, site, mac, uuid, reason, since, last_at, attempts)
               VALUES ($1, $2, $3, $4, $5, $6, $7, 1)
               ON CONFLICT (id) DO UPDATE SET
                   mac = excluded.mac, uuid = excluded.uuid, reason = excluded.reason,
                   last_at = excluded.last_at, attempts = attempts + 1";
    let statement = query(sql)
        .bind(refusal.id.as_str())
        .bind(refusal.site.as_str())
        .bind(refusal.mac.to_string())
        .bind(refusal.uuid.map(|uuid| uuid.to_string()))
        .bind(&refusal.reason)
        .bind(refusal.since.as_millisecond())
        .bind(refusal.last_at.as_millisecond());
    statement.execute(conn).await.map(drop).map_err(doing("note refused machine"))
}

/// Forgets the refusals of a machine that was admitted since.
///
/// # Errors
/// [`StoreError`].
pub async fn settle(
    conn: &mut SqliteConnection,
    site: &SiteName,
    mac: MacAddr,
    uuid: Option<SystemUuid>,
) -> Result<(), StoreError> {
    let sql = "DELETE FROM refusals WHERE site = $1 AND mac = $2 AND uuid IS $3";
    let statement = query(sql).bind(site.as_str()).bind(mac.to_string());
    let done = statement.bind(uuid.map(|u| u.to_string())).execute(conn).await;
    done.map(drop).map_err(doing("forget refusals of machine"))
}

/// Forgets a refused machine. `true` if it was known.
///
/// # Errors
/// [`StoreError`].
pub async fn delete(conn: &mut SqliteConnection, id: &HostId) -> Result<bool, StoreError> {
    let sql = "DELETE FROM refusals WHERE id = $1";
    let done = query(sql).bind(id.as_str()).execute(conn).await;
    done.map(|done| done.rows_affected() > 0).map_err(doing("forget refused machine"))
}
