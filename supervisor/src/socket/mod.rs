//! REST over a unix socket, for people and programs on the host.
//!
//! | request | reply |
//! |---|---|
//! | `GET /v1/host` | [`HostStatus`], as it was reported last |
//! | `GET /v1/leases` | list of [`ReportedLease`] |
//! | `GET /v1/leases/{tenant}/{name}` | [`ReportedLease`] |
//! | `GET /v1/leases/{tenant}/{name}/log?lines=N` | text, the end of the lease's console |
//! | `GET /v1/events` | list of [`Event`]; with `?watch=true` one a line, for as long as the asker stays |
//! | `GET /v1/isolation` | [`SignedStatement`], the latest |
//! | `GET /v1/isolation/chain` | list of [`SignedStatement`], oldest first |
//! | `GET /v1/receipts` | list of [`SignedReceipt`], oldest first; with `?lease=TENANT/NAME` those of one lease, with `?after=N&most=M` the first M behind number N |
//! | `GET /v1/ledger` | [`Ledger`]: who holds what, and what is clean |
//! | `POST /v1/ledger/repair` | [`RepairOrder`]; [`Repair`], what was done or would be |
//! | `POST /v1/receipts/repair` | [`RepairOrder`]; [`ReceiptsRepair`], what was done or would be |
//! | `POST /v1/quarantine/retry` | [`RetryOrder`]; [`Retry`], what the next pass erases again |
//!
//! The registry asks the same over the link ([`Interface`]), for operators who are elsewhere.
//!
//! Whoever is not root gets 403 and [`ApiError`]. The socket is open to everybody so that the reply can say
//! so; credentials are those of the process at the time of its `connect` (unix(7), `SO_PEERCRED`).
//!
//! [`HostStatus`]: bulkhead_api::status::HostStatus
//! [`SignedStatement`]: bulkhead_api::statement::SignedStatement
//! [`SignedReceipt`]: bulkhead_api::receipt::SignedReceipt
//! [`Ledger`]: bulkhead_api::local::Ledger
//! [`RepairOrder`]: bulkhead_api::local::RepairOrder
//! [`Repair`]: bulkhead_api::local::Repair
//! [`ReceiptsRepair`]: bulkhead_api::local::ReceiptsRepair
//! [`RetryOrder`]: bulkhead_api::local::RetryOrder
//! [`Retry`]: bulkhead_api::local::Retry
//! [`ReportedLease`]: bulkhead_api::lease::ReportedLease
//! [`Event`]: crate::events::Event
//! [`ApiError`]: bulkhead_api::document::ApiError

mod engine;
mod peer;
mod remote;
mod reply;
mod route;

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use bulkhead_api::status::HostStatus;
use tokio::net::UnixListener;
use tokio::sync::watch;

pub use self::remote::Interface;

use self::peer::{Allowed, Peer};
use crate::events::Events;
use crate::node::ask::Asks;
use crate::paths::Paths;

/// What the requests read.
#[derive(Debug, Clone)]
pub struct View {
    /// The latest report.
    pub status: watch::Receiver<Arc<HostStatus>>,
    /// What happened.
    pub events: Events,
    /// Where consoles of leases are.
    pub paths: Paths,
    /// Where questions to the engine go.
    pub asks: Asks,
    /// The user who may ask besides root: root itself on a host.
    pub user: u32,
}

/// Binds the socket, in place of one that an earlier run left.
///
/// # Errors
/// As the file system says.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Answers for ever.
///
/// # Errors
/// The listener broke.
pub async fn run(listener: UnixListener, view: View) -> io::Result<()> {
    let allowed = Allowed(view.user);
    let routes = route::routes(view)
        .layer(axum::middleware::from_fn_with_state(allowed, peer::admit))
        .into_make_service_with_connect_info::<Peer>();
    axum::serve(listener, routes).await
}

#[cfg(test)]
mod tests;
