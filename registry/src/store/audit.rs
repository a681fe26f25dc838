//! Who changed what. Rows are added and never touched again; triggers of the database see to it.

use bulkhead_api::time::Timestamp;
use sqlx::{SqliteConnection, query, query_as};

use super::{StoreError, column, doing};

/// A change, or one that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// `admin`, or the SPIFFE identity of a machine.
    pub who: String,
    /// `PUT`, `DELETE`, `POST` or `ENROL`.
    pub action: &'static str,
    /// Path of the object.
    pub object: String,
    /// HTTP status of the answer.
    pub status: u16,
    /// Why it was refused; empty where it was not.
    pub reason: String,
}

/// Adds an entry.
///
/// # Errors
/// [`StoreError`].
pub async fn append(conn: &mut SqliteConnection, entry: &Entry) -> Result<(), StoreError> {
    let sql = "INSERT INTO audit (at, who, action, object, status, reason)
               VALUES ($1, $2, $3, $4, $5, $6)";
    let statement = query(sql)
        .bind(entry.at.as_millisecond())
        .bind(&entry.who)
        .bind(entry.action)
        .bind(&entry.object)
        .bind(i64::from(entry.status))
        .bind(&entry.reason);
    statement.execute(conn).await.map(drop).map_err(doing("write audit entry"))
}

/// A line of the log, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When.
    pub at: Timestamp,
    /// `who action object status reason`.
    pub text: String,
}

/// The last lines, newest first.
///
/// # Errors
/// [`StoreError`].
pub async fn tail(conn: &mut SqliteConnection, lines: u32) -> Result<Vec<Line>, StoreError> {
    let sql = "SELECT at, who || ' ' || action || ' ' || object || ' ' || status || ' ' || reason
               FROM audit ORDER BY number DESC LIMIT $1";
    let rows: Vec<(i64, String)> =
        query_as(sql).bind(lines).fetch_all(conn).await.map_err(doing("read audit log"))?;
    let line = |(at, text): (i64, String)| {
        Ok(Line { at: column::time("audit.at", at)?, text: text.trim_end().to_owned() })
    };
    rows.into_iter().map(line).collect()
}
