//! Tickets with which sites join. Only their hashes are kept.

use bulkhead_api::id::SiteName;
use bulkhead_api::time::Timestamp;
use sqlx::{SqliteConnection, query, query_as};

use super::{StoreError, column, doing};
use crate::identity::KeyDigest;
use crate::token::TokenHash;

/// A ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketRow {
    /// Which site may join with it.
    pub site: SiteName,
    /// Not taken from then on.
    pub expires_at: Timestamp,
    /// Digest of the key that used it; that key may use it again.
    pub used_by: Option<Vec<u8>>,
}

/// Remembers a new ticket.
///
/// # Errors
/// [`StoreError`], also where there is no such site.
pub async fn mint(
    conn: &mut SqliteConnection,
    hash: &TokenHash,
    site: &SiteName,
    expires_at: Timestamp,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO tickets (hash, site, expires_at) VALUES ($1, $2, $3)";
    let statement = query(sql).bind(hash.as_bytes()).bind(site.as_str());
    let done = statement.bind(expires_at.as_millisecond()).execute(conn).await;
    done.map(drop).map_err(doing("write join ticket"))
}

/// The ticket of that hash.
///
/// # Errors
/// [`StoreError`].
pub async fn get(
    conn: &mut SqliteConnection,
    hash: &TokenHash,
) -> Result<Option<TicketRow>, StoreError> {
    let sql = "SELECT site, expires_at, used_by FROM tickets WHERE hash = $1";
    let row: Option<(String, i64, Option<Vec<u8>>)> = query_as(sql)
        .bind(hash.as_bytes())
        .fetch_optional(conn)
        .await
        .map_err(doing("read join ticket"))?;
    row.map(|(site, expires_at, used_by)| {
        Ok(TicketRow {
            site: column::parse("tickets.site", &site)?,
            expires_at: column::time("tickets.expires_at", expires_at)?,
            used_by,
        })
    })
    .transpose()
}

/// Marks a ticket as used by a key.
///
/// # Errors
/// [`StoreError`].
pub async fn mark_used(
    conn: &mut SqliteConnection,
    hash: &TokenHash,
    key: &KeyDigest,
) -> Result<(), StoreError> {
    let sql = "UPDATE tickets SET used_by = $2 WHERE hash = $1";
    let statement = query(sql).bind(hash.as_bytes()).bind(key.as_bytes());
    statement.execute(conn).await.map(drop).map_err(doing("mark join ticket as used"))
}

/// Forgets tickets that expired before `until`.
///
/// # Errors
/// [`StoreError`].
pub async fn forget(conn: &mut SqliteConnection, until: Timestamp) -> Result<(), StoreError> {
    let sql = "DELETE FROM tickets WHERE expires_at < $1";
    let done = query(sql).bind(until.as_millisecond()).execute(conn).await;
    done.map(drop).map_err(doing("forget join tickets"))
}
