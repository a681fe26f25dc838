//! TLS and HTTP/1.1 by hand: what a client sees that is neither gRPC nor ours.

use std::path::Path;
use std::sync::Arc;

use ring::digest::SHA256;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::fleet::{Fleet, Pair};
use super::{SITE, within};

pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// An open connection.
pub struct Tls(TlsStream<TcpStream>);

/// An answer read to its end.
pub struct Answer {
    pub status: u16,
    head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}: ");
        self.head.lines().find_map(|line| line.strip_prefix(&prefix))
    }
}

impl Tls {
    pub async fn connect(fleet: &Fleet, port: u16, own: Option<&Pair>) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(fleet.ca_pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match own {
            None => config.with_no_client_auth(),
            Some(own) => {
                let chain = CertificateDer::from_pem_slice(own.chain.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
                config.with_client_auth_cert(vec![chain], key).unwrap()
            }
        };
        let open = async || TcpStream::connect((SITE, port)).await.ok();
        let stream = super::until("the site's link", open).await;
        let name = ServerName::from(std::net::IpAddr::V4(SITE));
        let connector = TlsConnector::from(Arc::new(config));
        Self(within("TLS handshake", connector.connect(name, stream)).await.unwrap())
    }

    /// The server's certificate.
    pub fn certificate(&self) -> Vec<u8> {
        self.0.get_ref().1.peer_certificates().unwrap().first().unwrap().to_vec()
    }

    pub async fn request(mut self, method: &str, path: &str) -> Answer {
        let request =
            format!("{method} {path} HTTP/1.1\r\nhost: site\r\nconnection: close\r\n\r\n");
        self.0.write_all(request.as_bytes()).await.unwrap();
        let mut all = Vec::new();
        within("an answer", self.0.read_to_end(&mut all)).await.unwrap();
        let end = all.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let (head, body) = all.split_at(end + 4);
        let head = std::str::from_utf8(head).unwrap().to_owned();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head, body: body.to_vec() }
    }
}

pub fn first_certificate(pem: &str) -> Vec<u8> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

pub fn digest(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&SHA256, bytes);
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// An OCI layout of one image; the digests of its layer and its manifest.
pub fn write_layout(dir: &Path) -> (String, String) {
    let blobs = dir.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        let digest = digest(bytes);
        std::fs::write(blobs.join(digest.strip_prefix("sha256:").unwrap()), bytes).unwrap();
        digest
    };
    let layer = put(&vec![7; 200_000]);
    let config = put(b"{}");
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST_TYPE,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2 },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": layer,
            "size": 200_000 }] });
    let manifest = manifest.to_string();
    let manifest_digest = put(manifest.as_bytes());
    let index = json!({ "schemaVersion": 2, "manifests": [{ "mediaType": MANIFEST_TYPE,
        "digest": manifest_digest, "size": manifest.len(),
        "annotations": { "org.opencontainers.image.ref.name": "latest" } }] });
    std::fs::write(dir.join("index.json"), index.to_string()).unwrap();
    (layer, manifest_digest)
}
