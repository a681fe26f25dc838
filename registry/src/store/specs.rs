//! The last signed spec of each host. It outlives the host, so that generations never go back.

use std::collections::BTreeSet;

use bulkhead_api::id::{HostId, LeaseId};
use bulkhead_api::resource::ResourceClass;
use bulkhead_api::spec::{HostSpec, SignedSpec, WantedLease};
use bulkhead_api::time::Timestamp;
use sqlx::{SqliteConnection, query, query_as};

use super::{StoreError, column, doing};

/// A signed spec and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecRow {
    /// For which host.
    pub host: HostId,
    /// Its generation.
    pub generation: u64,
    /// The leases in it.
    pub leases: Vec<WantedLease>,
    /// As it travels.
    pub signed: SignedSpec,
    /// Start of its time.
    pub not_before: Timestamp,
    /// End of its time.
    pub expiry: Timestamp,
}

type Columns = (String, i64, String, String, i64, i64);

impl SpecRow {
    /// What the signed bytes say beside the leases: whose tenant the machine comes back from, and which weaker
    /// erases are accepted. Bytes that say nothing are replaced by a spec that does.
    #[must_use]
    pub fn said(&self) -> (Option<LeaseId>, BTreeSet<ResourceClass>) {
        let spec = serde_json::from_slice(&self.signed.body.0);
        spec.map(|spec: HostSpec| (spec.returning, spec.weaker_erase)).unwrap_or_default()
    }

    fn new(columns: Columns) -> Result<Self, StoreError> {
        let (host, generation, leases, signed, not_before, expiry) = columns;
        Ok(Self {
            host: column::parse("specs.host", &host)?,
            generation: column::count("specs.generation", generation)?,
            leases: column::from_json("specs.leases", &leases)?,
            signed: column::from_json("specs.signed", &signed)?,
            not_before: column::time("specs.not_before", not_before)?,
            expiry: column::time("specs.expiry", expiry)?,
        })
    }
}

/// All, by host.
///
/// # Errors
/// [`StoreError`].
pub async fn list(conn: &mut SqliteConnection) -> Result<Vec<SpecRow>, StoreError> {
    let sql = "SELECT host, generation, leases, signed, not_before, expiry
               FROM specs ORDER BY host";
    let rows = query_as(sql).fetch_all(conn).await.map_err(doing("list specs"))?;
    rows.into_iter().map(SpecRow::new).collect()
}

/// That of a host.
///
/// # Errors
/// [`StoreError`].
pub async fn get(
    conn: &mut SqliteConnection,
    host: &HostId,
) -> Result<Option<SpecRow>, StoreError> {
    let sql = "SELECT host, generation, leases, signed, not_before, expiry
               FROM specs WHERE host = $1";
    let row = query_as(sql).bind(host.as_str()).fetch_optional(conn);
    row.await.map_err(doing("read spec"))?.map(SpecRow::new).transpose()
}

/// Keeps a newly signed spec. One that is not above the last is left out.
///
/// # Errors
/// [`StoreError`].
pub async fn put(conn: &mut SqliteConnection, spec: &SpecRow) -> Result<(), StoreError> {
    let sql = "INSERT INTO specs (host, generation, leases, signed, not_before, expiry)
               VALUES ($1, $2, $3, $4, $5, $6)
               ON CONFLICT (host) DO UPDATE SET
                   generation = excluded.generation, leases = excluded.leases,
                   signed = excluded.signed, not_before = excluded.not_before,
                   expiry = excluded.expiry
               WHERE excluded.generation > specs.generation";
    let statement = query(sql)
        .bind(spec.host.as_str())
        .bind(column::integer("specs.generation", spec.generation)?)
        .bind(column::to_json("specs.leases", &spec.leases)?)
        .bind(column::to_json("specs.signed", &spec.signed)?)
        .bind(spec.not_before.as_millisecond())
        .bind(spec.expiry.as_millisecond());
    statement.execute(conn).await.map(drop).map_err(doing("write spec"))
}
