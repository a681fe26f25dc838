//! The site between its hosts and the registry: one TLS port for hosts, one stream to the registry.
//!
//! ```text
//!   host ──Enrol───► rpc ──► enrol: ticket checked by site::Site ──► uplink ──► registry
//!   host ◄─Attach──► rpc ──► stream ◄────────── relay ───────────► uplink ◄──► registry
//!                               └──► specs (disk): handed out whether the registry is there or not
//!   host ──GET /v2/─► oci (disk)
//! ```
//!
//! Messages pass unchanged. The site adds only what it observes itself: that a host's stream ended, and
//! the machines that asked to boot. Host specs are signed for one host, so the site could not forge one
//! if it wanted to.

mod backoff;
mod credentials;
mod enrol;
mod hand_over;
mod listener;
mod oci;
mod peer;
mod relay;
mod rpc;
mod settings;
mod specs;
mod stream;
mod uplink;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulkhead_api::chain::Chain;
use bulkhead_api::id::SiteName;
use bulkhead_api::link::rpc::link_client::LinkClient;
use bulkhead_api::site::Admission;
use bulkhead_api::spec::SpecKeys;
use bulkhead_api::time::Timestamp;
use tokio::net::TcpSocket;
use tokio::sync::watch;
use tonic::transport::Channel;
use tracing::warn;

use self::credentials::Credentials;
pub use self::credentials::CredentialsError;
use self::relay::Relay;
use self::settings::Settings;
use self::specs::SpecCache;
use crate::config::SiteConfig;
use crate::service::Service;
use crate::store::StoreError;

/// Hosts waiting to be accepted.
const BACKLOG: u32 = 1024;

/// Why the link cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// A trust anchor cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A trust anchor holds something else.
    #[error("{}: {problem}", path.display())]
    Trust {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The site's key or certificate.
    #[error("identity of the site")]
    Credentials(#[source] CredentialsError),
    /// The site spec or the cache of host specs.
    #[error("what the registry said last")]
    Store(#[source] StoreError),
    /// TLS cannot be set up with the fleet's CA.
    #[error("set up TLS")]
    Tls(#[source] rustls::server::VerifierBuilderError),
    /// The port is taken, or the address is not this machine's.
    #[error("{doing} {address}")]
    Socket {
        /// What was attempted.
        doing: &'static str,
        /// Address and port.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
}

/// The link of one site, its port reserved.
#[derive(Debug)]
pub struct Link {
    socket: TcpSocket,
    port: u16,
    fleet: Option<Fleet>,
}

/// What a site that belongs to a fleet has.
#[derive(Debug)]
struct Fleet {
    shared: Arc<Shared>,
    hosts: listener::Tls,
    registry: uplink::Registry,
    settings: Settings,
}

/// What hosts' connections and the uplink share.
#[derive(Debug)]
struct Shared {
    site: SiteName,
    credentials: Arc<Credentials>,
    relay: Arc<Relay>,
    specs: SpecCache,
    oci_dir: PathBuf,
    /// Set while the registry is reachable.
    registry: watch::Sender<Option<LinkClient<Channel>>>,
}

impl Link {
    /// Reads trust and state, reserves the port. Nothing listens yet: there may be no certificate.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub fn bind(config: &SiteConfig) -> Result<Self, LinkError> {
        let (socket, port) = reserve(config.address, config.ports.tls)?;
        let Some(registry) = &config.registry else {
            return Ok(Self { socket, port, fleet: None });
        };
        let ca_path = config.trust_dir.join("ca.pem");
        let ca_pem = read(&ca_path)?;
        let keys = spec_keys(&config.trust_dir.join("spec-keys.json"))?;
        let credentials = Credentials::open(&config.state_dir, &config.site, Timestamp::now());
        let credentials = Arc::new(credentials.map_err(LinkError::Credentials)?);
        let shared = Arc::new(Shared {
            site: config.site.clone(),
            credentials: Arc::clone(&credentials),
            relay: Arc::new(Relay::new()),
            specs: SpecCache::open(&config.state_dir.join("specs"), keys)
                .map_err(LinkError::Store)?,
            oci_dir: config.oci_dir(),
            registry: watch::Sender::new(None),
        });
        let registry = uplink::Registry {
            url: registry.url.clone(),
            join_ticket_file: registry.join_ticket_file.clone(),
            names: vec![config.address.to_string()],
            ca_pem: ca_pem.clone(),
        };
        let hosts = listener::Tls::new(&ca_path, &ca_pem, credentials)?;
        let settings = Settings::open(&config.state_dir).map_err(LinkError::Store)?;
        Ok(Self { socket, port, fleet: Some(Fleet { shared, hosts, registry, settings }) })
    }

    /// The port reserved.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The admission policy that the registry sent last; `None` when it never did.
    #[must_use]
    pub fn admission(&self) -> Option<Admission> {
        self.fleet.as_ref().and_then(|fleet| fleet.settings.admission())
    }

    /// Compares what is remembered of tenants' machines with the kept specs: a crash may have come between the two.
    pub fn recall(&self, service: &Service) {
        let Some(fleet) = &self.fleet else { return };
        for (host, _) in service.tenancies() {
            match fleet.shared.specs.get(&host) {
                Ok(Some(kept)) => service.note(|site, now| site.spec_verified(&kept.spec, now)),
                Ok(None) => {}
                Err(error) => {
                    warn!(%host, error = %Chain(&error), "kept spec of the host cannot be used");
                }
            }
        }
    }

    /// Serves for ever. A site without a registry has no identity and therefore nothing to serve.
    pub async fn serve(self, service: Arc<Service>) {
        let Some(fleet) = self.fleet else { return std::future::pending().await };
        let Fleet { shared, hosts, registry, settings } = fleet;
        let routes = rpc::routes(&shared, &service);
        let certificate = shared.credentials.changes();
        let uplink = uplink::Uplink { registry, settings, shared, service, refused: false };
        tokio::join!(hosts.serve(self.socket, certificate, routes), uplink.run());
    }
}

fn reserve(address: Ipv4Addr, port: u16) -> Result<(TcpSocket, u16), LinkError> {
    let at = SocketAddr::from((address, port));
    let error = |doing| move |source| LinkError::Socket { doing, address: at, source };
    let socket = TcpSocket::new_v4().map_err(error("open socket for"))?;
    socket.set_reuseaddr(true).map_err(error("share the port of"))?;
    socket.bind(at).map_err(error("bind"))?;
    let bound = socket.local_addr().map_err(error("ask for the port of"))?;
    Ok((socket, bound.port()))
}

fn read(path: &Path) -> Result<Vec<u8>, LinkError> {
    std::fs::read(path).map_err(|source| LinkError::Read { path: path.to_owned(), source })
}

fn spec_keys(path: &Path) -> Result<SpecKeys, LinkError> {
    serde_json::from_slice(&read(path)?)
        .map_err(|error| LinkError::Trust { path: path.to_owned(), problem: error.to_string() })
}
