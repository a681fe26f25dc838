//! The TLS port: HTTP/2 and HTTP/1.1, client certificates of the fleet optional, certificate of the
//! site as of now.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use bulkhead_api::chain::Chain;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::WebPkiClientVerifier;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, error, info, warn};

use super::credentials::{Credentials, Current};
use super::peer::Peer;
use super::{BACKLOG, LinkError};
use crate::net::places::Places;

/// Connections at a time; more wait in the listen queue.
const CONNECTIONS: usize = 1000;
/// Connections of one address at a time, more are closed: a host has a stream and pulls some layers.
const PER_PEER: usize = 32;
/// A peer without a certificate enrols and goes.
const STRANGER_LIFE: Duration = Duration::from_secs(60);
/// What it may have under way, and not yet read: its memory is ours.
const STRANGER_STREAMS: u32 = 4;
const STRANGER_WINDOW: u32 = 64 << 10;
/// Time for a handshake, and for the head of an HTTP/1.1 request.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pings to hosts on open connections: a host without power must not count as attached for long.
const PING: Duration = Duration::from_secs(10);

/// The port's TLS settings.
#[derive(Debug)]
pub(super) struct Tls(Arc<rustls::ServerConfig>);

impl Tls {
    /// Trusts clients of the CA in `ca_pem` (read from `ca_path`), shows the certificate in
    /// `credentials`.
    pub(super) fn new(
        ca_path: &Path,
        ca_pem: &[u8],
        credentials: Arc<Credentials>,
    ) -> Result<Self, LinkError> {
        let bad = |problem: String| LinkError::Trust { path: ca_path.to_owned(), problem };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca_pem) {
            let certificate = certificate.map_err(|error| bad(error.to_string()))?;
            roots.add(certificate).map_err(|error| bad(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(bad("no certificate in it".to_owned()));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .allow_unauthenticated()
                .build()
                .map_err(LinkError::Tls)?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| bad(error.to_string()))?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(credentials);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config)))
    }

    /// Waits for a certificate, then listens and serves for ever.
    pub(super) async fn serve(
        self,
        socket: TcpSocket,
        mut certificate: watch::Receiver<Option<Current>>,
        routes: Router,
    ) {
        if certificate.wait_for(Option::is_some).await.is_err() {
            return;
        }
        let listener = match socket.listen(BACKLOG) {
            Ok(listener) => listener,
            Err(problem) => {
                error!(error = %Chain(&problem), "link does not listen");
                return;
            }
        };
        info!("link listens");
        accept(&listener, &TlsAcceptor::from(self.0), &routes).await;
    }
}

async fn accept(listener: &TcpListener, acceptor: &TlsAcceptor, routes: &Router) {
    let places = Places::new(CONNECTIONS, PER_PEER);
    let mut connections: JoinSet<()> = JoinSet::new();
    loop {
        while connections.len() >= CONNECTIONS {
            connections.join_next().await;
        }
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((_, SocketAddr::V6(_))) => {}
            Ok((stream, SocketAddr::V4(from))) => {
                let Some(place) = places.enter(*from.ip()) else {
                    debug!(%from, "link connection over the share of one address closed");
                    continue;
                };
                let (acceptor, routes) = (acceptor.clone(), routes.clone());
                connections.spawn(async move {
                    let _place = place;
                    if let Err(reason) = serve_connection(stream, &acceptor, routes).await {
                        debug!(%from, reason, "link connection ended");
                    }
                });
            }
            Err(problem) => {
                warn!(error = %Chain(&problem), "link accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One connection; the reason of its end for the log.
async fn serve_connection(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    routes: Router,
) -> Result<(), String> {
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let stream = tokio::time::timeout(PATIENCE, acceptor.accept(stream))
        .await
        .map_err(|_| "no TLS handshake in time".to_owned())?
        .map_err(|error| error.to_string())?;
    let (_, session) = stream.get_ref();
    let leaf = session.peer_certificates().and_then(<[_]>::first);
    let is_stranger = leaf.is_none();
    let peer = Peer::new(leaf.map(AsRef::as_ref));
    let service = TowerToHyperService::new(routes.layer(Extension(peer)));
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    http.http2().timer(TokioTimer::new()).keep_alive_interval(PING).keep_alive_timeout(PING);
    if !is_stranger {
        let served = http.serve_connection(TokioIo::new(stream), service).await;
        return served.map_err(|error| error.to_string());
    }
    http.http2()
        .max_concurrent_streams(STRANGER_STREAMS)
        .initial_stream_window_size(STRANGER_WINDOW)
        .initial_connection_window_size(STRANGER_WINDOW);
    let served = http.serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(STRANGER_LIFE, served).await {
        Ok(served) => served.map_err(|error| error.to_string()),
        Err(_) => Err("a peer without a certificate stayed too long".to_owned()),
    }
}
