//! Puts the supervisor together and takes it apart.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bulkhead_api::chain::Chain;
use bulkhead_api::time::Timestamp;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tracing::{info, warn};

use crate::events::{self, Events};
use crate::files;
use crate::host::service::Service;
use crate::host::uevent::Uevents;
use crate::node::state::{Home, Trouble};
use crate::node::{self, Ends, Node, NodeError, ask};
use crate::paths::Paths;
use crate::socket::{self, Interface, View};
use crate::storage::state::{self, StateHome};
use crate::uplink;
use crate::uplink::backoff::Backoff;
use crate::uplink::enrol::boot_facts;

/// A state that cannot be used is looked at again after this time, by a supervisor that starts anew.
const HOME_AGAIN: Duration = Duration::from_secs(300);

/// For so long a state that cannot be used is looked for at the start.
const HOME_PATIENCE: Duration = Duration::from_secs(20);

/// Messages between the parts before a sender waits.
const QUEUE: usize = 16;

/// Why the supervisor ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The socket cannot be bound.
    #[error("bind {path}")]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The socket broke.
    #[error("answer on the local socket")]
    Answer(#[source] io::Error),
    /// The node loop ended.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A part panicked: the process ends and systemd starts it again.
    #[error("a part of the supervisor broke")]
    Broken(#[from] JoinError),
    /// The host's state could not be used: the supervisor starts again and looks again.
    #[error("the host's state could not be used for {} s: starting again", HOME_AGAIN.as_secs())]
    Home,
    /// A part ended that should not have.
    #[error("the {0} ended by itself")]
    Ended(&'static str),
}

/// Runs the supervisor until `stop` resolves. Tenants go on: they are systemd's.
///
/// # Errors
/// [`DaemonError`]
pub async fn run(mut paths: Paths, stop: impl Future<Output = ()>) -> Result<(), DaemonError> {
    let service = Service::of_process();
    let home = home(&mut paths).await?;
    let bind = |source| DaemonError::Socket { path: paths.socket(), source };
    files::directory(&paths.run, 0o755).map_err(bind)?;
    let listener = socket::bind(&paths.socket()).map_err(bind)?;

    let status = watch::Sender::new(Arc::new(node::starting(&paths)));
    let events = Events::new(events::KEPT);
    let (uplink_events, uplink) = mpsc::channel(QUEUE);
    let (hand_overs, departures) = mpsc::channel(QUEUE);
    let (asks, asked) = mpsc::channel(ask::QUEUE);
    let view = View {
        status: status.subscribe(),
        events: events.clone(),
        paths: paths.clone(),
        asks,
        user: ROOT,
    };
    let interface = Interface::new(view.clone());
    let reports = status.subscribe();
    let hardware = Arc::new(Notify::new());
    let told = Arc::clone(&hardware);
    let ends = Ends { uplink, hand_overs, asks: asked, status, events, hardware };
    let closed = matches!(home, Home::Closed(_));
    let node = Node::new(paths.clone(), home, service, ends);

    let mut parts: JoinSet<Result<&'static str, DaemonError>> = JoinSet::new();
    parts.spawn(async move {
        node.run().await?;
        Ok("node")
    });
    parts.spawn(async move {
        socket::run(listener, view).await.map_err(DaemonError::Answer)?;
        Ok("socket")
    });
    let up = paths.clone();
    parts.spawn(async move {
        uplink::run(up, Backoff::LINK, reports, interface, departures, uplink_events).await;
        Ok("uplink")
    });
    parts.spawn(async move {
        // Without the kernel's word changes are seen by the clock.
        let error = match Uevents::open() {
            Ok(uevents) => uevents.wake(told).await.map(|never| match never {}).err(),
            Err(error) => Some(error),
        };
        warn!(
            error = error.as_ref().map(tracing::field::display),
            "changes of hardware are not heard"
        );
        std::future::pending().await
    });
    if closed {
        parts.spawn(async {
            tokio::time::sleep(HOME_AGAIN).await;
            Err(DaemonError::Home)
        });
    }
    tokio::select! {
        ended = parts.join_next() => match ended {
            Some(ended) => Err(DaemonError::Ended(ended??)),
            None => Ok(()),
        },
        () = stop => {
            service.stopping();
            info!("stopping; tenants go on");
            parts.shutdown().await;
            Ok(())
        }
    }
}

/// Finds the host's state before any record of it is read. What lies on a disk that a tenant had is not the host's.
async fn home(paths: &mut Paths) -> Result<Home, DaemonError> {
    let facts = boot_facts(&paths.boot_facts()).ok();
    if let Some(lease) = facts.and_then(|facts| facts.site.returning) {
        return Ok(Home::Memory(format!("the tenant of lease {lease} had the disks")));
    }
    let latest = Instant::now() + HOME_PATIENCE;
    let found = loop {
        let look = paths.clone();
        match tokio::task::spawn_blocking(move || state::mount(&look)).await? {
            Err(error) if error.may_pass() && Instant::now() < latest => {
                warn!(error = %Chain(&error), "the host's state is looked for again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            found => break found,
        }
    };
    Ok(match found {
        Ok(home @ StateHome::Disk { .. }) => {
            paths.state = home.directory().to_owned();
            Home::Disk(home.condition(Timestamp::now()).message)
        }
        Ok(StateHome::Memory { why, .. }) => Home::Memory(why),
        Err(error) => {
            let (reason, message) = (error.label(), Chain(&error).to_string());
            warn!(reason, error = message, "the host's state cannot be used");
            let next = Timestamp::now().checked_add(HOME_AGAIN).ok();
            Home::Closed(Trouble { reason, message, owner: "operator", next })
        }
    })
}

/// The one user who may ask on a host.
const ROOT: u32 = 0;

#[cfg(test)]
#[path = "daemon_tests.rs"]
mod tests;
