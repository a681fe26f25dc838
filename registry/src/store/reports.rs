//! The last report of each host.

use bulkhead_api::id::HostId;
use bulkhead_api::status::HostStatus;
use bulkhead_api::time::Timestamp;
use sqlx::{SqliteConnection, query, query_as};

use super::{StoreError, column, doing};

/// A report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportRow {
    /// What the host said.
    pub status: HostStatus,
    /// When it arrived, by the registry's clock.
    pub received_at: Timestamp,
}

impl ReportRow {
    fn new((status, received_at): (String, i64)) -> Result<Self, StoreError> {
        Ok(Self {
            status: column::from_json("reports.status", &status)?,
            received_at: column::time("reports.received_at", received_at)?,
        })
    }
}

/// All, by host.
///
/// # Errors
/// [`StoreError`].
pub async fn list(conn: &mut SqliteConnection) -> Result<Vec<ReportRow>, StoreError> {
    let sql = "SELECT status, received_at FROM reports ORDER BY host";
    let rows = query_as(sql).fetch_all(conn).await.map_err(doing("list reports"))?;
    rows.into_iter().map(ReportRow::new).collect()
}

/// That of a host.
///
/// # Errors
/// [`StoreError`].
pub async fn get(
    conn: &mut SqliteConnection,
    host: &HostId,
) -> Result<Option<ReportRow>, StoreError> {
    let sql = "SELECT status, received_at FROM reports WHERE host = $1";
    let row = query_as(sql).bind(host.as_str()).fetch_optional(conn);
    row.await.map_err(doing("read report"))?.map(ReportRow::new).transpose()
}

/// Takes a report of an enrolled host if its (boot, seq) is above the last one. `true` if it was taken.
///
/// # Errors
/// [`StoreError`].
pub async fn put(
    conn: &mut SqliteConnection,
    status: &HostStatus,
    now: Timestamp,
) -> Result<bool, StoreError> {
    // From `hosts`: a host that was forgotten may still be talking.
    let sql = "INSERT INTO reports (host, boot, seq, status, received_at)
               SELECT id, $2, $3, $4, $5 FROM hosts WHERE id = $1
               ON CONFLICT (host) DO UPDATE SET
                   boot = excluded.boot, seq = excluded.seq, status = excluded.status,
                   received_at = excluded.received_at
               WHERE (excluded.boot, excluded.seq) > (reports.boot, reports.seq)";
    let statement = query(sql)
        .bind(status.host.as_str())
        .bind(column::integer("reports.boot", status.boot)?)
        .bind(column::integer("reports.seq", status.seq)?)
        .bind(column::to_json("reports.status", status)?)
        .bind(now.as_millisecond());
    let done = statement.execute(conn).await.map_err(doing("write report"))?;
    Ok(done.rows_affected() > 0)
}
