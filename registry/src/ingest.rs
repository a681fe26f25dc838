//! Reports of hosts into the store: as many in one commit as have arrived meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_api::chain::Chain;
use bulkhead_api::id::{HostId, SiteName};
use bulkhead_api::lease::InstanceKind;
use bulkhead_api::time::Timestamp;
use sqlx::SqliteConnection;
use tokio::sync::mpsc;
use tracing::{debug, error, info};

use crate::fleet::release::{is_gone, is_sanitised};
use crate::state::{Registry, Report};
use crate::store::{Durability, StoreError, leases, reports, sites};

const BATCH: usize = 1000;

/// Runs until every sender is gone.
pub async fn run(registry: Arc<Registry>, mut receiver: mpsc::Receiver<Report>) {
    let mut batch = Vec::new();
    while receiver.recv_many(&mut batch, BATCH).await > 0 {
        match take(&registry, &batch, Timestamp::now()).await {
            Ok(0) => {}
            Ok(_) => registry.changed(),
            // The hosts report again in some seconds.
            Err(error) => error!(error = %Chain(&error), lost = batch.len(), "reports not kept"),
        }
        batch.clear();
    }
}

/// How many were news.
async fn take(registry: &Registry, batch: &[Report], now: Timestamp) -> Result<usize, StoreError> {
    let mut write = registry.store.write(Durability::Relaxed).await?;
    let (mut news, mut released) = (0, Vec::new());
    let mut heard: BTreeMap<&SiteName, ()> = BTreeMap::new();
    for Report { site, status } in batch {
        heard.insert(site, ());
        if !reports::put(write.conn(), status, now).await? {
            debug!(host = %status.host, boot = status.boot, seq = status.seq, "report is old");
            continue;
        }
        news += 1;
        if release_gone(write.conn(), &status.host).await? {
            released.push(&status.host);
        }
    }
    for site in heard.into_keys() {
        sites::heard(write.conn(), site, now).await?;
    }
    write.commit().await?;
    for host in released {
        // Its spec may say that it comes back from a tenant.
        registry.unsigned.add(host);
    }
    Ok(news)
}

/// Deletes the leases that a host's last report shows it to be without. `true` if there were any.
///
/// # Errors
/// [`StoreError`].
pub async fn release_gone(conn: &mut SqliteConnection, host: &HostId) -> Result<bool, StoreError> {
    let on_it = leases::of_host(&mut *conn, host).await?;
    let leaving: Vec<_> = on_it
        .into_iter()
        .filter_map(|lease| Some((lease.id, lease.spec.instance, lease.gone_generation?)))
        .collect();
    if leaving.is_empty() {
        return Ok(false);
    }
    let Some(report) = reports::get(&mut *conn, host).await? else { return Ok(false) };
    let mut any = false;
    for (id, instance, without) in leaving {
        let gone = match instance {
            InstanceKind::BareMetal => is_sanitised(&id, without, &report.status),
            InstanceKind::Container | InstanceKind::Vm => is_gone(&id, without, &report.status),
        };
        if gone {
            leases::delete(&mut *conn, &id).await?;
            info!(lease = %id, %host, generation = without, "lease released");
            any = true;
        }
    }
    Ok(any)
}
