//! What the site sends on one stream to the registry: hello, its machines, then what the relay has.
//!
//! A message is made when the connection has room for it, so that of a status or a machine list that
//! changes faster than the network only the latest goes out.

use std::sync::Arc;

use bulkhead_api::link::Hello;
use bulkhead_api::link::rpc::{Up, up};
use futures_util::stream::{Stream, unfold};
use tokio::sync::watch;
use tracing::error;

use super::super::Shared;
use super::super::relay::Taken;
use super::UplinkError;
use crate::service::Service;

pub(super) struct Outgoing {
    shared: Arc<Shared>,
    service: Arc<Service>,
    connection: u64,
    news: watch::Receiver<u64>,
    machines: watch::Receiver<u64>,
    hello: Option<Up>,
    machines_due: bool,
}

fn of_site(body: up::Body) -> Up {
    Up { host: String::new(), body: Some(body) }
}

impl Outgoing {
    /// Takes over from the stream before: everything is said again.
    pub(super) fn open(shared: &Arc<Shared>, service: &Arc<Service>) -> Result<Self, UplinkError> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let hello = Hello { version, boot: 0, accepted_generation: 0 };
        let hello = serde_json::to_vec(&hello).map_err(UplinkError::Encode)?;
        let (connection, news) = shared.relay.connected();
        Ok(Self {
            shared: Arc::clone(shared),
            service: Arc::clone(service),
            connection,
            news,
            machines: service.changes(),
            hello: Some(of_site(up::Body::HelloJson(hello.into()))),
            machines_due: true,
        })
    }

    pub(super) fn into_stream(self) -> impl Stream<Item = Up> + Send + 'static {
        unfold(self, |mut this| async move { Some((this.next().await?, this)) })
    }

    async fn next(&mut self) -> Option<Up> {
        if let Some(hello) = self.hello.take() {
            return Some(hello);
        }
        loop {
            if std::mem::take(&mut self.machines_due) {
                self.machines.mark_unchanged();
                match serde_json::to_vec(&self.service.machines()) {
                    Ok(json) => return Some(of_site(up::Body::MachinesJson(json.into()))),
                    Err(problem) => error!(error = %problem, "machine list is no JSON"),
                }
            }
            self.news.mark_unchanged();
            match self.shared.relay.take(self.connection) {
                Taken::Message(message) => return Some(message),
                Taken::Superseded => return None,
                Taken::Nothing => {}
            }
            tokio::select! {
                changed = self.news.changed() => changed.ok()?,
                changed = self.machines.changed() => {
                    changed.ok()?;
                    self.machines_due = true;
                }
            }
        }
    }
}
