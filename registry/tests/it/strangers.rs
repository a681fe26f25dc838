//! Connections without a certificate cannot keep sites out.

use std::net::SocketAddr;
use std::sync::Arc;

use bulkhead_registry::server::MAX_STRANGERS;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::fleet::Fleet;
use crate::joined::SITE;
use crate::people::PATIENCE;
use crate::site::{attach, join};

fn connector(fleet: &Fleet) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(fleet.ca_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

async fn stranger(connector: &TlsConnector, address: SocketAddr) -> TlsStream<TcpStream> {
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::IpAddress(address.ip().into());
    let tls = timeout(PATIENCE, connector.connect(name, tcp)).await;
    tls.expect("a handshake in time").unwrap()
}

/// Whether the registry answers on the connection; else it has closed it.
async fn is_served(stream: &mut TlsStream<TcpStream>) -> bool {
    let ask = async {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: registry\r\n\r\n").await?;
        stream.read_u8().await
    };
    timeout(PATIENCE, ask).await.expect("an answer or an end in time").is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_fill_their_own_places_and_no_sites() {
    let fleet = Fleet::start();
    let ticket = fleet.rest().prepare(SITE);
    let site = join(&fleet, &ticket).await;
    let connector = connector(&fleet);
    let mut strangers = Vec::new();
    for _ in 0..MAX_STRANGERS {
        strangers.push(stranger(&connector, fleet.address).await);
    }
    // Some of them may have been turned away: places of connections that just ended were still taken.
    let mut served = 0;
    while is_served(&mut stranger(&connector, fleet.address).await).await {
        served += 1;
        assert!(served < 100, "strangers beyond {MAX_STRANGERS} are served");
    }
    attach(&fleet, &site).await;
    drop(strangers);
    while !is_served(&mut stranger(&connector, fleet.address).await).await {}
}
