//! From a configuration to a running site.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bulkhead_api::chain::Chain;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::artefacts::{ArtefactError, Artefacts};
use crate::config::{ConfigError, SiteConfig};
use crate::link::{Link, LinkError};
use crate::net::NetError;
use crate::net::dhcp::DhcpSocket;
use crate::net::http::HttpServer;
use crate::net::tftp::TftpServer;
use crate::policy::{Door, Rules};
use crate::service::{BootAnswers, Service};
use crate::site::Site;
use crate::store::{Store, StoreError};
use crate::tenant_uki::TenantUkis;

/// Why a site does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration contradicts itself.
    #[error("configuration")]
    Config(#[source] ConfigError),
    /// The state directory.
    #[error("site state")]
    Store(#[source] StoreError),
    /// The image directory.
    #[error("boot artefacts")]
    Artefacts(#[source] ArtefactError),
    /// A socket.
    #[error("boot services")]
    Net(#[source] NetError),
    /// The link to hosts and registry.
    #[error("site link")]
    Link(#[source] LinkError),
    /// A task that serves for ever ended; the cause is in the log.
    #[error("{0} ended by itself")]
    Ended(&'static str),
}

/// A site whose sockets are bound and that serves nothing yet.
#[derive(Debug)]
pub struct Bound {
    service: Arc<Service>,
    dhcp: DhcpSocket,
    boot_server: DhcpSocket,
    tftp: TftpServer,
    http: HttpServer,
    link: Link,
    /// Ports in use.
    pub ports: crate::config::Ports,
}

/// Tells blocking threads to end, also when the future that runs the site is dropped.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Bound {
    /// Reads state and artefacts, binds every socket.
    ///
    /// # Errors
    /// See [`RunError`].
    pub async fn bind(config: &SiteConfig) -> Result<Self, RunError> {
        config.check().map_err(RunError::Config)?;
        let (store, mut state) = Store::open(&config.state_dir).map_err(RunError::Store)?;
        state.tickets.forget_forwarded();
        let artefacts =
            Artefacts::open(&config.image_dir, &config.extensions).map_err(RunError::Artefacts)?;
        let mut ports = config.ports;
        let bind = |port, door| DhcpSocket::bind(&config.interface, config.address, port, door);
        let dhcp = bind(ports.dhcp, Door::Server).map_err(RunError::Net)?;
        let boot_server = bind(ports.boot_server, Door::BootServer).map_err(RunError::Net)?;
        ports.dhcp = dhcp.port().map_err(RunError::Net)?;
        ports.boot_server = boot_server.port().map_err(RunError::Net)?;
        let tftp = TftpServer::bind(config.address, ports.tftp).await.map_err(RunError::Net)?;
        let http = HttpServer::bind(config.address, ports.http).await.map_err(RunError::Net)?;
        let link = Link::bind(config).map_err(RunError::Link)?;
        let unknown = |service, source| {
            let target = config.address.to_string();
            RunError::Net(NetError::Socket {
                service,
                doing: "ask for the port of",
                target,
                source,
            })
        };
        ports.tftp = tftp.port().map_err(|source| unknown("TFTP", source))?;
        ports.http = http.port().map_err(|source| unknown("HTTP", source))?;
        ports.tls = link.port();
        let admission = link.admission().unwrap_or_else(|| config.admission.clone());
        let http_base = match ports.http {
            80 => format!("http://{}", config.address),
            port => format!("http://{}:{port}", config.address),
        };
        let rules = Rules {
            server: config.address,
            subnet: config.subnet(),
            admission,
            authoritative: config.authoritative,
        };
        let site =
            Site { state, rules, pool: config.pool.clone(), loops: config.boot_loop, http_base };
        let boot = BootAnswers {
            site: config.site.clone(),
            link: SocketAddr::from((config.address, ports.tls)).to_string(),
            extensions: config.extensions.clone(),
        };
        let tenant_ukis = TenantUkis::open(&config.state_dir.join("tenant-uki"));
        let tenant_ukis = tenant_ukis.map_err(RunError::Store)?;
        let service = Service::new(site, store, artefacts, tenant_ukis, boot);
        link.recall(&service);
        service.tenant_ukis.forget_others(service.tenancies().into_iter().map(|(_, name)| name));
        Ok(Self { service, dhcp, boot_server, tftp, http, link, ports })
    }

    /// Serves until `shutdown` completes.
    ///
    /// # Errors
    /// [`RunError::Ended`] when a service stops by itself, which none should.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        let stop = StopOnDrop(Arc::default());
        let mut tasks: JoinSet<&'static str> = JoinSet::new();
        for (name, socket) in [("DHCP", self.dhcp), ("PXE boot server", self.boot_server)] {
            let (service, stop) = (Arc::clone(&self.service), Arc::clone(&stop.0));
            tasks.spawn_blocking(move || {
                socket.serve(&service, &stop);
                name
            });
        }
        let service = Arc::clone(&self.service);
        let tftp = self.tftp;
        tasks.spawn(async move {
            tftp.serve(service).await;
            "TFTP"
        });
        let service = Arc::clone(&self.service);
        let http = self.http;
        tasks.spawn(async move {
            http.serve(service).await;
            "HTTP"
        });
        let service = Arc::clone(&self.service);
        let link = self.link;
        tasks.spawn(async move {
            link.serve(service).await;
            "site link"
        });
        info!(ports = ?self.ports, image = self.service.artefacts.manifest.image_version, "site runs");
        let ended = tokio::select! {
            () = shutdown => Ok(()),
            ended = tasks.join_next() => match ended {
                Some(Ok(name)) => Err(RunError::Ended(name)),
                Some(Err(error)) => {
                    error!(error = %Chain(&error), "a service ended");
                    Err(RunError::Ended("a service"))
                }
                None => Ok(()),
            },
        };
        drop(stop);
        tasks.abort_all();
        while let Some(task) = tasks.join_next().await {
            if let Err(error) = task
                && !error.is_cancelled()
            {
                warn!(error = %Chain(&error), "a service ended");
            }
        }
        ended
    }
}

/// Binds and runs a site.
///
/// # Errors
/// See [`RunError`].
pub async fn run(config: &SiteConfig, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
    Bound::bind(config).await?.run(shutdown).await
}
