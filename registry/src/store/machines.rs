//! What the boot services of sites have seen.

use bulkhead_api::id::{MacAddr, SiteName};
use bulkhead_api::machine::Machine;
use sqlx::{SqliteConnection, query, query_as, query_scalar};

use super::{StoreError, column, doing};

/// All, by site and address.
///
/// # Errors
/// [`StoreError`].
pub async fn list(conn: &mut SqliteConnection) -> Result<Vec<(SiteName, Machine)>, StoreError> {
    let sql = "SELECT site, machine FROM machines ORDER BY site, mac";
    let rows: Vec<(String, String)> =
        query_as(sql).fetch_all(conn).await.map_err(doing("list machines"))?;
    let read = |(site, machine): (String, String)| {
        let site = column::parse("machines.site", &site)?;
        Ok((site, column::from_json("machines.machine", &machine)?))
    };
    rows.into_iter().map(read).collect()
}

/// Takes a site's list in place of the one before.
///
/// # Errors
/// [`StoreError`].
pub async fn replace(
    conn: &mut SqliteConnection,
    site: &SiteName,
    machines: &[Machine],
) -> Result<(), StoreError> {
    let sql = "DELETE FROM machines WHERE site = $1";
    let done = query(sql).bind(site.as_str()).execute(&mut *conn).await;
    done.map_err(doing("clear machines of site"))?;
    let sql = "INSERT INTO machines (site, mac, machine) VALUES ($1, $2, $3)
               ON CONFLICT (site, mac) DO UPDATE SET machine = excluded.machine";
    for machine in machines {
        let statement = query(sql).bind(site.as_str()).bind(machine.mac.to_string());
        let text = column::to_json("machines.machine", machine)?;
        statement.bind(text).execute(&mut *conn).await.map_err(doing("write machine"))?;
    }
    Ok(())
}

/// Forgets a machine until its site reports it again. `true` if it was known.
///
/// # Errors
/// [`StoreError`].
pub async fn delete(
    conn: &mut SqliteConnection,
    site: &SiteName,
    mac: MacAddr,
) -> Result<bool, StoreError> {
    let sql = "DELETE FROM machines WHERE site = $1 AND mac = $2";
    let done = query(sql).bind(site.as_str()).bind(mac.to_string()).execute(conn).await;
    done.map(|done| done.rows_affected() > 0).map_err(doing("forget machine"))
}

/// A machine of a site, if it was seen.
///
/// # Errors
/// [`StoreError`].
pub async fn get(
    conn: &mut SqliteConnection,
    site: &SiteName,
    mac: MacAddr,
) -> Result<Option<Machine>, StoreError> {
    let sql = "SELECT machine FROM machines WHERE site = $1 AND mac = $2";
    let row = query_scalar(sql).bind(site.as_str()).bind(mac.to_string()).fetch_optional(conn);
    let text: Option<String> = row.await.map_err(doing("read machine"))?;
    text.map(|text| column::from_json("machines.machine", &text)).transpose()
}
