//! Puts the supervisor together and takes it apart.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tracing::info;

use crate::events::{self, Events};
use crate::files;
use crate::host::service::Service;
use crate::node::{self, Ends, Node, NodeError, ask};
use crate::paths::Paths;
use crate::socket::{self, View};
use crate::uplink;
use crate::uplink::backoff::Backoff;

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
    /// A part ended that should not have.
    #[error("the {0} ended by itself")]
    Ended(&'static str),
}

/// Runs the supervisor until `stop` resolves. Tenants go on: they are systemd's.
///
/// # Errors
/// [`DaemonError`]
pub async fn run(paths: Paths, stop: impl Future<Output = ()>) -> Result<(), DaemonError> {
    let service = Service::of_process();
    let bind = |source| DaemonError::Socket { path: paths.socket(), source };
    files::directory(&paths.run, 0o755).map_err(bind)?;
    let listener = socket::bind(&paths.socket()).map_err(bind)?;

    let status = watch::Sender::new(Arc::new(node::starting(&paths)));
    let events = Events::new(events::KEPT);
    let (uplink_events, uplink) = mpsc::channel(QUEUE);
    let (logs, replies) = mpsc::channel(QUEUE);
    let (asks, asked) = mpsc::channel(ask::QUEUE);
    let view = View {
        status: status.subscribe(),
        events: events.clone(),
        paths: paths.clone(),
        asks,
        user: ROOT,
    };
    let reports = status.subscribe();
    let ends = Ends { uplink, logs, asks: asked, status, events };
    let node = Node::new(paths.clone(), service, ends);

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
        uplink::run(up, Backoff::LINK, reports, replies, uplink_events).await;
        Ok("uplink")
    });
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

/// The one user who may ask on a host.
const ROOT: u32 = 0;

#[cfg(test)]
#[path = "daemon_tests.rs"]
mod tests;
