//! Sites, and with which key each one speaks.

use bulkhead_api::id::SiteName;
use bulkhead_api::site::SiteSpec;
use bulkhead_api::time::Timestamp;
use sqlx::{SqliteConnection, query, query_as};

use super::{StoreError, column, doing};
use crate::identity::KeyDigest;

/// A site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteRow {
    /// Its name.
    pub name: SiteName,
    /// What it should do.
    pub spec: SiteSpec,
    /// When it was created.
    pub created_at: Timestamp,
    /// Digest of the key in use; absent until it enrolled.
    pub enrolled_key: Option<Vec<u8>>,
    /// Digest of a key certified since, not yet shown.
    pub next_key: Option<Vec<u8>>,
    /// Last message from it.
    pub last_seen: Option<Timestamp>,
}

type Columns = (String, String, i64, Option<Vec<u8>>, Option<Vec<u8>>, Option<i64>);

impl SiteRow {
    fn new(columns: Columns) -> Result<Self, StoreError> {
        let (name, spec, created_at, enrolled_key, next_key, last_seen) = columns;
        Ok(Self {
            name: column::parse("sites.name", &name)?,
            spec: column::from_json("sites.spec", &spec)?,
            created_at: column::time("sites.created_at", created_at)?,
            enrolled_key,
            next_key,
            last_seen: last_seen.map(|at| column::time("sites.last_seen", at)).transpose()?,
        })
    }

    /// Whether a certificate of this key speaks for the site.
    #[must_use]
    pub fn knows(&self, key: &KeyDigest) -> bool {
        [&self.enrolled_key, &self.next_key]
            .into_iter()
            .flatten()
            .any(|known| known == key.as_bytes())
    }
}

/// All, by name.
///
/// # Errors
/// [`StoreError`].
pub async fn list(conn: &mut SqliteConnection) -> Result<Vec<SiteRow>, StoreError> {
    let sql = "SELECT name, spec, created_at, enrolled_key, next_key, last_seen
               FROM sites ORDER BY name";
    let rows = query_as(sql).fetch_all(conn).await.map_err(doing("list sites"))?;
    rows.into_iter().map(SiteRow::new).collect()
}

/// One.
///
/// # Errors
/// [`StoreError`].
pub async fn get(
    conn: &mut SqliteConnection,
    name: &SiteName,
) -> Result<Option<SiteRow>, StoreError> {
    let sql = "SELECT name, spec, created_at, enrolled_key, next_key, last_seen
               FROM sites WHERE name = $1";
    let row = query_as(sql).bind(name.as_str()).fetch_optional(conn);
    row.await.map_err(doing("read site"))?.map(SiteRow::new).transpose()
}

/// Creates a site or changes what it should do.
///
/// # Errors
/// [`StoreError`].
pub async fn put(
    conn: &mut SqliteConnection,
    name: &SiteName,
    spec: &SiteSpec,
    now: Timestamp,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO sites (name, spec, created_at) VALUES ($1, $2, $3)
               ON CONFLICT (name) DO UPDATE SET spec = excluded.spec";
    let spec = column::to_json("sites.spec", spec)?;
    let statement = query(sql).bind(name.as_str()).bind(spec).bind(now.as_millisecond());
    statement.execute(conn).await.map(drop).map_err(doing("write site"))
}

/// Removes a site that has no hosts, with its tickets, refusals and machines.
///
/// # Errors
/// [`StoreError`], also where it has hosts.
pub async fn delete(conn: &mut SqliteConnection, name: &SiteName) -> Result<(), StoreError> {
    let sql = "DELETE FROM sites WHERE name = $1";
    let done = query(sql).bind(name.as_str()).execute(conn).await;
    done.map(drop).map_err(doing("delete site"))
}

/// From now on this key alone speaks for the site.
///
/// # Errors
/// [`StoreError`].
pub async fn set_key(
    conn: &mut SqliteConnection,
    name: &SiteName,
    key: &KeyDigest,
) -> Result<(), StoreError> {
    let sql = "UPDATE sites SET enrolled_key = $2, next_key = NULL WHERE name = $1";
    let statement = query(sql).bind(name.as_str()).bind(key.as_bytes());
    statement.execute(conn).await.map(drop).map_err(doing("set the site's key"))
}

/// This key may speak for the site too, until it is shown or another one is offered.
///
/// # Errors
/// [`StoreError`].
pub async fn offer_key(
    conn: &mut SqliteConnection,
    name: &SiteName,
    key: &KeyDigest,
) -> Result<(), StoreError> {
    let sql = "UPDATE sites SET next_key = $2 WHERE name = $1 AND enrolled_key <> $2";
    let statement = query(sql).bind(name.as_str()).bind(key.as_bytes());
    statement.execute(conn).await.map(drop).map_err(doing("offer a key to the site"))
}

/// Notes when the site was last heard; never goes back.
///
/// # Errors
/// [`StoreError`].
pub async fn heard(
    conn: &mut SqliteConnection,
    name: &SiteName,
    at: Timestamp,
) -> Result<(), StoreError> {
    let sql = "UPDATE sites SET last_seen = max(coalesce(last_seen, 0), $2) WHERE name = $1";
    let statement = query(sql).bind(name.as_str()).bind(at.as_millisecond());
    statement.execute(conn).await.map(drop).map_err(doing("note when the site was heard"))
}
