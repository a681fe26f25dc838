//! `serve`: REST and the link on one TLS port, and the tasks behind them.
//!
//! ```text
//!  TCP ─► TLS (certificate of the client: optional, checked if shown) ─► HTTP/1.1 or 2
//!         ├─ /bulkhead.link.v1.Link/…  gRPC, by the certificate
//!         └─ everything else            REST, by the bearer token
//! ```

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use bulkhead_api::chain::Chain;
use bulkhead_api::link::rpc::link_server::LinkServer;
use http_body_util::Limited;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tonic::Status;
use tower::ServiceExt as _;
use tracing::{debug, info, warn};

use crate::config::RegistryConfig;
use crate::files::FileError;
use crate::http::router;
use crate::identity::Peer;
use crate::link::{Client, LinkService};
use crate::signer::client::SignerClient;
use crate::state::{Registry, stopped};
use crate::store::{Store, StoreError};
use crate::tls::{self, TlsError};
use crate::token::TokenHash;
use crate::{ingest, signing};

const HANDSHAKE: Duration = Duration::from_secs(10);
/// Sites are told by a ping when the way to them is cut without a word.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_ANSWER: Duration = Duration::from_secs(10);
const HEADERS: Duration = Duration::from_secs(15);
/// One connection a site and a few people.
const MAX_CONNECTIONS: usize = 15_000;
/// Connections without a certificate: of people, and of sites that join. The rest is kept for sites.
pub const MAX_STRANGERS: usize = 512;
/// What one of them may have under way, and not yet read: its memory is ours.
const STRANGER_STREAMS: u32 = 16;
const STRANGER_WINDOW: u32 = 256 << 10;
/// Anybody may send an enrolment: this much, in this time.
const MAX_ENROL: usize = 64 << 10;
const ENROL: Duration = Duration::from_secs(30);
/// What is under way when the registry is told to stop.
const FAREWELL: Duration = Duration::from_secs(5);

/// Why the registry does not serve, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A file of the configuration.
    #[error(transparent)]
    File(#[from] FileError),
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Not 64 hexadecimal digits.
    #[error("adminTokenHash: expected 64 hexadecimal digits")]
    AdminToken,
    /// The port is taken or not allowed.
    #[error("listen on {address}")]
    Listen {
        /// Address and port.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A task that must not end has ended.
    #[error("task {0} ended")]
    Ended(&'static str),
    /// A task panicked.
    #[error("a task of the registry failed")]
    Task(#[source] tokio::task::JoinError),
}

/// Opens the port that the configuration names.
///
/// # Errors
/// [`ServeError::Listen`].
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })
}

/// Serves until `shutdown` ends.
///
/// # Errors
/// [`ServeError`].
pub async fn serve(
    config: &RegistryConfig,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let acceptor = TlsAcceptor::from(Arc::new(tls_config(config)?));
    let admin = TokenHash::from_hex(&config.admin_token_hash).ok_or(ServeError::AdminToken)?;
    let store = Store::open(&config.database).await?;
    let (registry, reports) = Registry::new(store, SignerClient::new(&config.signer), admin);
    let registry = Arc::new(registry);

    let mut tasks = JoinSet::new();
    let (for_ingest, for_signing) = (Arc::clone(&registry), Arc::clone(&registry));
    tasks.spawn(async move {
        ingest::run(for_ingest, reports).await;
        "ingest"
    });
    tasks.spawn(async move {
        signing::run(for_signing).await;
        "signing"
    });

    let link = LinkServer::new(LinkService::new(Arc::clone(&registry)));
    let enrolment = Router::new()
        .route_service("/bulkhead.link.v1.Link/Enrol", link.clone())
        .layer(from_fn(bound_enrolment));
    let app = router(Arc::clone(&registry))
        .merge(enrolment)
        .route_service("/bulkhead.link.v1.Link/{method}", link);
    let strangers = Arc::new(Semaphore::new(MAX_STRANGERS));
    let door = Door { acceptor, app, strangers };
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    let address = listener.local_addr().unwrap_or(config.listen);
    info!(%address, database = %config.database.display(), "registry serves");
    let ended = loop {
        tokio::select! {
            () = &mut shutdown => break Ok(()),
            Some(ended) = tasks.join_next() => {
                break Err(ended.map_or_else(ServeError::Task, ServeError::Ended));
            }
            Some(done) = connections.join_next() => {
                if let Err(panic) = done {
                    break Err(ServeError::Task(panic));
                }
            }
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((tcp, from)) => {
                    let stopping = registry.stopping();
                    connections.spawn(connection(tcp, from, door.clone(), stopping));
                }
                // Of one connection, or no files left: the next one may do.
                Err(error) => {
                    warn!(%error, "connection not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    };
    registry.stop();
    let all_gone = async { while connections.join_next().await.is_some() {} };
    if timeout(FAREWELL, all_gone).await.is_err() {
        warn!("connections cut that did not end by themselves");
    }
    connections.shutdown().await;
    tasks.shutdown().await;
    registry.store.close().await;
    info!("registry stopped");
    ended
}

fn tls_config(config: &RegistryConfig) -> Result<ServerConfig, ServeError> {
    let read = |path: &PathBuf| crate::files::read(path);
    let chain = read(&config.tls_certificate)?;
    let key = read(&config.tls_key)?;
    let ca = config.ca_pem()?;
    Ok(tls::server(&chain, &key, ca.as_bytes())?)
}

/// What every connection comes through.
#[derive(Clone)]
struct Door {
    acceptor: TlsAcceptor,
    app: Router,
    strangers: Arc<Semaphore>,
}

async fn bound_enrolment(request: Request<Body>, next: Next) -> Response {
    let request = request.map(|body| Body::new(Limited::new(body, MAX_ENROL)));
    match timeout(ENROL, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Status::deadline_exceeded("the request did not arrive in time").into_http(),
    }
}

async fn connection(
    tcp: TcpStream,
    from: SocketAddr,
    Door { acceptor, app, strangers }: Door,
    mut stopping: tokio::sync::watch::Receiver<bool>,
) {
    // Small messages each way: waiting for more to send would only delay them.
    if let Err(error) = tcp.set_nodelay(true) {
        debug!(%from, %error, "nodelay");
    }
    let tls = match timeout(HANDSHAKE, acceptor.accept(tcp)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => return debug!(%from, %error, "TLS handshake"),
        Err(_) => return debug!(%from, "TLS handshake took too long"),
    };
    let shown = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let peer = shown.and_then(|leaf| {
        Peer::from_certificate(leaf)
            .inspect_err(|error| warn!(%from, error = %Chain(error), "client certificate"))
            .ok()
    });
    let stranger = match (&peer, strangers.try_acquire_owned()) {
        (Some(_), _) => None,
        (None, Ok(place)) => Some(place),
        (None, Err(_)) => return warn!(%from, "too many connections without a certificate: closed"),
    };
    let client = Client(peer);
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(client.clone());
        app.clone().oneshot(request)
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_ANSWER);
    if stranger.is_some() {
        builder
            .http2()
            .max_concurrent_streams(STRANGER_STREAMS)
            .initial_stream_window_size(STRANGER_WINDOW)
            .initial_connection_window_size(STRANGER_WINDOW);
    }
    let mut served = std::pin::pin!(builder.serve_connection(TokioIo::new(tls), service));
    let done = tokio::select! {
        done = served.as_mut() => done,
        () = stopped(&mut stopping) => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = done {
        debug!(%from, %error, "connection");
    }
}
