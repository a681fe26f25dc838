//! One site's stream.
//!
//! ```text
//!  site ──Up──►  Hello · hosts' hellos and reports · machines · log replies · detached
//!  site ◄─Down── site spec · signed host specs · log requests
//! ```
//!
//! The stream of replies drives both directions: while the site does not read, nothing more is read from
//! it. What is wrong about one host is logged and dropped; the stream of the others goes on (law 4).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bulkhead_api::document::from_json;
use bulkhead_api::id::{HostId, SiteName};
use bulkhead_api::link::Hello;
use bulkhead_api::link::rpc::{Answer, Down, Up, down, up};
use bulkhead_api::machine::Machine;
use bulkhead_api::status::HostStatus;
use bulkhead_api::time::Timestamp;
use futures_util::stream;
use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::{Status, Streaming};
use tracing::{info, warn};

use super::enrol::{site_of, store_fault};
use super::sessions::{Order, Outbox};
use crate::identity::Peer;
use crate::state::{Registry, Report, stopped};
use crate::store::{Durability, StoreError, hosts, machines, sites, specs};

/// Machines of one site; a site has at most a hundred hosts.
const MAX_MACHINES: usize = 4096;

/// An attached site.
pub struct Session {
    registry: Arc<Registry>,
    site: SiteName,
    number: u64,
    inbound: Streaming<Up>,
    outbox: Arc<Outbox>,
    stopping: watch::Receiver<bool>,
    /// Hosts of the site, as far as the stream has named them.
    known: BTreeSet<HostId>,
    /// Generation sent last on this stream.
    sent: BTreeMap<HostId, u64>,
}

/// Checks who attaches and waits for its hello.
///
/// # Errors
/// UNAUTHENTICATED, PERMISSION_DENIED: see [`site_of`]; INVALID_ARGUMENT: the first message is no hello.
pub(super) async fn open(
    registry: &Arc<Registry>,
    peer: Option<Peer>,
    mut inbound: Streaming<Up>,
) -> Result<Session, Status> {
    let site = site_of(registry, peer.as_ref()).await?.name;
    let first = inbound.message().await?;
    let hello = first.filter(|up| up.host.is_empty()).and_then(|up| up.body);
    let Some(up::Body::HelloJson(hello)) = hello else {
        return Err(Status::invalid_argument("the first message must be the site's hello_json"));
    };
    let hello: Hello =
        from_json(&hello).map_err(|e| Status::invalid_argument(format!("hello_json: {e}")))?;

    // Registered before anything is read: a change from here on is an order, and none is missed.
    let (number, outbox) = registry.sessions.open(&site);
    let session = Session {
        registry: Arc::clone(registry),
        number,
        inbound,
        outbox,
        stopping: registry.stopping(),
        known: BTreeSet::new(),
        sent: BTreeMap::new(),
        site,
    };
    session.begin(peer.as_ref()).await.map_err(|e| store_fault(&e))?;
    info!(site = %session.site, version = %hello.version, "site attached");
    Ok(session)
}

impl Session {
    async fn begin(&self, peer: Option<&Peer>) -> Result<(), StoreError> {
        let now = Timestamp::now();
        let mut write = self.registry.store.write(Durability::Durable).await?;
        if let Some(peer) = peer {
            sites::set_key(write.conn(), &self.site, &peer.key).await?;
        }
        sites::heard(write.conn(), &self.site, now).await?;
        let on_site = hosts::of_site(write.conn(), &self.site).await?;
        write.commit().await?;
        self.registry.presence.site(&self.site, true, now);
        self.registry.changed();
        self.outbox.site_spec();
        for host in &on_site {
            self.outbox.spec(&host.id);
        }
        Ok(())
    }

    /// What the site is told, until either end closes.
    pub fn down(self) -> impl Stream<Item = Result<Down, Status>> + Send + 'static {
        stream::unfold(Some(self), |session| async {
            let mut session = session?;
            match session.next().await {
                Ok(Some(down)) => Some((Ok(down), Some(session))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        })
    }

    async fn next(&mut self) -> Result<Option<Down>, Status> {
        loop {
            tokio::select! {
                () = stopped(&mut self.stopping) => {
                    return Err(Status::unavailable("the registry stops"));
                }
                up = self.inbound.message() => match up {
                    Ok(Some(up)) => self.take(up).await?,
                    Ok(None) => return Ok(None),
                    Err(status) => {
                        info!(site = %self.site, %status, "site's stream broke");
                        return Ok(None);
                    }
                },
                order = self.outbox.next() => {
                    if let Some(down) = self.carry_out(order).await? {
                        return Ok(Some(down));
                    }
                }
            }
        }
    }

    async fn carry_out(&mut self, order: Order) -> Result<Option<Down>, Status> {
        let read = async |registry: &Registry| registry.store.read().await;
        match order {
            Order::Close(why) => Err(Status::aborted(why)),
            Order::SiteSpec => {
                let mut read = read(&self.registry).await.map_err(|e| store_fault(&e))?;
                let site = sites::get(&mut read, &self.site).await.map_err(|e| store_fault(&e))?;
                let Some(site) = site else {
                    return Err(Status::aborted("the site was deleted"));
                };
                let text = serde_json::to_vec(&site.spec)
                    .map_err(|e| Status::internal(format!("site spec: {e}")))?;
                let body = Some(down::Body::SiteSpecJson(text.into()));
                Ok(Some(Down { host: String::new(), body }))
            }
            Order::Spec(host) => {
                let mut read = read(&self.registry).await.map_err(|e| store_fault(&e))?;
                let spec = specs::get(&mut read, &host).await.map_err(|e| store_fault(&e))?;
                // None: the host enrolled just now; its first spec follows.
                let Some(spec) = spec else { return Ok(None) };
                if self.sent.get(&host).is_some_and(|sent| *sent >= spec.generation) {
                    return Ok(None);
                }
                let text = serde_json::to_vec(&spec.signed)
                    .map_err(|e| Status::internal(format!("spec of host {host}: {e}")))?;
                let body = Some(down::Body::SignedSpecJson(text.into()));
                let down = Down { host: host.to_string(), body };
                self.sent.insert(host, spec.generation);
                Ok(Some(down))
            }
            Order::Ask(host, question) => {
                let body = Some(down::Body::Question(question));
                Ok(Some(Down { host: host.to_string(), body }))
            }
        }
    }

    async fn take(&mut self, up: Up) -> Result<(), Status> {
        let now = Timestamp::now();
        self.registry.presence.site(&self.site, true, now);
        let Some(body) = up.body else { return Ok(()) };
        if up.host.is_empty() {
            return self.take_of_site(body).await;
        }
        let Some(host) = self.own_host(&up.host).await? else {
            warn!(site = %self.site, host = %up.host, "message about a host that is not the site's");
            return Ok(());
        };
        match body {
            up::Body::HelloJson(json) => {
                if let Some(hello) = self.read::<Hello>(&host, "hello_json", &json) {
                    self.host_opened(&host, &hello, now);
                }
            }
            up::Body::StatusJson(json) => {
                if let Some(status) = self.read::<HostStatus>(&host, "status_json", &json) {
                    self.host_reported(&host, status, now).await?;
                }
            }
            up::Body::Answer(answer) => self.answered(&host, answer, now),
            up::Body::Detached(_) => {
                self.registry.presence.ended(&host, now);
                self.registry.changed();
            }
            up::Body::MachinesJson(_) | up::Body::HandOverJson(_) => {
                warn!(site = %self.site, %host, "message about a host that is none of the registry's");
            }
        }
        Ok(())
    }

    async fn take_of_site(&mut self, body: up::Body) -> Result<(), Status> {
        let up::Body::MachinesJson(json) = body else {
            warn!(site = %self.site, "message of the site that only a host sends");
            return Ok(());
        };
        let seen: Vec<Machine> = match from_json(&json) {
            Ok(seen) => seen,
            Err(error) => {
                warn!(site = %self.site, %error, "machines_json");
                return Ok(());
            }
        };
        if seen.len() > MAX_MACHINES {
            warn!(site = %self.site, machines = seen.len(), "more machines than a site can have");
            return Ok(());
        }
        let keep = async {
            let mut write = self.registry.store.write(Durability::Relaxed).await?;
            machines::replace(write.conn(), &self.site, &seen).await?;
            sites::heard(write.conn(), &self.site, Timestamp::now()).await?;
            write.commit().await
        };
        keep.await.map_err(|e| store_fault(&e))?;
        self.registry.changed();
        Ok(())
    }

    fn read<T: serde::de::DeserializeOwned>(
        &self,
        host: &HostId,
        what: &str,
        json: &[u8],
    ) -> Option<T> {
        from_json(json)
            .inspect_err(|error| warn!(site = %self.site, %host, what, %error, "message dropped"))
            .ok()
    }

    fn host_opened(&mut self, host: &HostId, hello: &Hello, now: Timestamp) {
        if self.registry.presence.opened(host, hello.boot, now) {
            info!(%host, boot = hello.boot, version = %hello.version, "host attached");
        }
        if self.sent.get(host).is_none_or(|sent| *sent > hello.accepted_generation) {
            self.sent.remove(host);
            self.outbox.spec(host);
        }
        self.registry.changed();
    }

    async fn host_reported(
        &mut self,
        host: &HostId,
        status: HostStatus,
        now: Timestamp,
    ) -> Result<(), Status> {
        if status.host != *host {
            warn!(site = %self.site, %host, says = %status.host, "report of another host dropped");
            return Ok(());
        }
        self.registry.presence.heard(host, now);
        let report = Report { site: self.site.clone(), status };
        let sent = self.registry.reports.send(report).await;
        sent.map_err(|_| Status::unavailable("the registry stops"))
    }

    fn answered(&self, host: &HostId, answer: Answer, now: Timestamp) {
        self.registry.presence.heard(host, now);
        self.registry.sessions.answered(&self.site, host, answer);
    }

    /// The host, if it is one of this site.
    async fn own_host(&mut self, text: &str) -> Result<Option<HostId>, Status> {
        let Ok(id) = text.parse::<HostId>() else { return Ok(None) };
        if self.known.contains(&id) {
            return Ok(Some(id));
        }
        let find = async {
            let mut read = self.registry.store.read().await?;
            hosts::get(&mut read, &id).await
        };
        let found = find.await.map_err(|e| store_fault(&e))?;
        if found.is_none_or(|host| host.site != self.site) {
            return Ok(None);
        }
        self.known.insert(id.clone());
        Ok(Some(id))
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("site", &self.site).finish_non_exhaustive()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.registry.sessions.ended(&self.site, self.number) {
            self.registry.presence.site(&self.site, false, Timestamp::now());
            info!(site = %self.site, "site detached");
            self.registry.changed();
        }
    }
}
