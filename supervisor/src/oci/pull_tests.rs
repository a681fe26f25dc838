//! Pulling from a site that speaks HTTP over TLS, wants a certificate and can lie.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::*;

/// A fleet's authority with a certificate of the site and one of the host.
pub(crate) struct Fleet {
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Fleet {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { ca }
    }

    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.ca).unwrap().pem(), key.serialize_pem())
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.pem().as_bytes()).unwrap()).unwrap();
        roots
    }

    pub(crate) fn access(&self, link: String) -> SiteAccess {
        let (chain_pem, key_pem) = self.issue("host");
        SiteAccess { link, ca_pem: self.ca.pem(), chain_pem, key_pem }
    }
}

pub(crate) type Paths = BTreeMap<String, Vec<u8>>;

/// Serves these paths on loopback until dropped; `alpn` is what it speaks.
pub(crate) async fn site(fleet: &Fleet, paths: Paths, alpn: &[&[u8]]) -> (String, JoinSet<()>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(fleet.roots()), Arc::clone(&provider));
    let (chain, key) = fleet.issue("127.0.0.1");
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let link = listener.local_addr().unwrap().to_string();
    let paths = Arc::new(paths);
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let paths = Arc::clone(&paths);
            let answer = service_fn(move |request: Request<Incoming>| {
                let found = paths.get(request.uri().path()).cloned();
                async move {
                    let (status, body) = match found {
                        Some(body) => (StatusCode::OK, body),
                        None => (StatusCode::NOT_FOUND, Vec::new()),
                    };
                    let mut response = Response::new(Full::new(Bytes::from(body)));
                    *response.status_mut() = status;
                    Ok::<_, Infallible>(response)
                }
            });
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(TokioIo::new(stream), answer).await;
        }
    });
    (link, serving)
}

pub(crate) struct Sample {
    pub(crate) paths: Paths,
    pub(crate) manifest: Digest,
    layer: String,
    config: String,
}

/// An index, its manifest, one layer with `/hello`.
pub(crate) fn image() -> Sample {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(2);
    header.set_mode(0o644);
    tar.append_data(&mut header, "hello", &b"hi"[..]).unwrap();
    let plain = tar.into_inner().unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    io::Write::write_all(&mut gzip, &plain).unwrap();
    let layer = gzip.finish().unwrap();
    let config = json!({
        "os": "linux", "architecture": "amd64", "config": { "Cmd": ["/hello"] },
        "rootfs": { "type": "layers", "diff_ids": [Digest::of(&plain).to_string()] },
    });
    let config = config.to_string().into_bytes();
    let describe = |kind: &str, bytes: &[u8]| json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": Digest::of(bytes).to_string(), "size": bytes.len() });
    let manifest = json!({
        "schemaVersion": 2,
        "config": describe("config.v1+json", &config),
        "layers": [describe("layer.v1.tar+gzip", &layer)],
    });
    let manifest = manifest.to_string().into_bytes();
    let mut entry = describe("manifest.v1+json", &manifest);
    entry["platform"] = json!({ "os": "linux", "architecture": "amd64" });
    let index = json!({ "schemaVersion": 2, "manifests": [entry] }).to_string().into_bytes();
    let blob = |bytes: &[u8]| format!("/v2/demo/blobs/{}", Digest::of(bytes));
    let digest = Digest::of(&manifest);
    let (layer_path, config_path) = (blob(&layer), blob(&config));
    let paths = Paths::from([
        ("/v2/demo/manifests/latest".to_owned(), index),
        (format!("/v2/demo/manifests/{digest}"), manifest),
        (config_path.clone(), config),
        (layer_path.clone(), layer),
    ]);
    Sample { paths, manifest: digest, layer: layer_path, config: config_path }
}

fn order(access: SiteAccess, dir: &Path, reference: &str) -> Order {
    let reference = reference.parse().unwrap();
    Order {
        reference,
        access,
        dir: dir.join("acme/a"),
        base: 0x1000_0000,
        limits: Limits::default(),
    }
}

async fn pull_all(order: Order) -> Result<Image, PullError> {
    let (_keep, cancel) = watch::channel(false);
    tokio::time::timeout(Duration::from_secs(60), pull(order, cancel)).await.unwrap()
}

const LATEST: &str = "oci://bulkhead.site/demo:latest";
pub(crate) const H2: &[&[u8]] = &[b"h2", b"http/1.1"];
const H1: &[&[u8]] = &[b"http/1.1"];

#[tokio::test]
async fn an_image_comes_by_either_http_and_by_tag_or_digest() {
    let (fleet, image) = (Fleet::new(), image());
    let by_digest = format!("oci://bulkhead.site/demo@{}", image.manifest);
    for (alpn, reference) in [(H2, LATEST), (H1, by_digest.as_str()), (&[], LATEST)] {
        let dir = tempfile::tempdir().unwrap();
        let (link, _site) = site(&fleet, image.paths.clone(), alpn).await;
        let pulled = pull_all(order(fleet.access(link), dir.path(), reference)).await.unwrap();
        assert_eq!(pulled.digest, image.manifest.to_string());
        assert_eq!(pulled.program.cmd, ["/hello"]);
        let lease = dir.path().join("acme/a");
        assert_eq!(fs::read(lease.join(ROOTFS).join("hello")).unwrap(), b"hi");
        let mut left: Vec<_> =
            fs::read_dir(lease).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [IMAGE, ROOTFS], "no layer and no half image is left");
    }
}

#[tokio::test]
async fn other_bytes_than_were_named_are_refused_and_leave_no_image() {
    let (fleet, image) = (Fleet::new(), image());
    let damage: [fn(&mut Vec<u8>); 3] = [
        |bytes| *bytes.last_mut().unwrap() ^= 1,
        |bytes| bytes.push(0),
        |bytes| assert!(bytes.pop().is_some()),
    ];
    let manifest = format!("/v2/demo/manifests/{}", image.manifest);
    for path in [&image.layer, &image.config, &manifest] {
        for damage in damage {
            let mut paths = image.paths.clone();
            damage(paths.get_mut(path).unwrap());
            let dir = tempfile::tempdir().unwrap();
            let (link, _site) = site(&fleet, paths, H2).await;
            let error = pull_all(order(fleet.access(link), dir.path(), LATEST)).await.unwrap_err();
            let refused = matches!(
                error,
                PullError::Corrupt { .. } | PullError::Client(ClientError::TooLarge { .. })
            );
            assert!(refused, "{path}: {error}");
            assert!(!dir.path().join("acme/a").join(IMAGE).exists());
            assert!(!dir.path().join("acme/a").join(ROOTFS).exists());
        }
    }
}

#[tokio::test]
async fn an_image_that_the_site_has_not_is_said_so() {
    let fleet = Fleet::new();
    let dir = tempfile::tempdir().unwrap();
    let (link, _site) = site(&fleet, Paths::new(), H2).await;
    let error = pull_all(order(fleet.access(link), dir.path(), LATEST)).await.unwrap_err();
    assert_eq!(error.to_string(), "the site has no /v2/demo/manifests/latest");
    assert_eq!(error.label(), "ImageAbsent");
}

#[tokio::test]
async fn a_site_of_another_fleet_is_not_talked_to() {
    let (ours, theirs) = (Fleet::new(), Fleet::new());
    let dir = tempfile::tempdir().unwrap();
    let (link, _site) = site(&theirs, image().paths, H2).await;
    let error = pull_all(order(ours.access(link), dir.path(), LATEST)).await.unwrap_err();
    assert!(matches!(error, PullError::Client(ClientError::Connect { .. })), "{error}");
}

#[tokio::test]
async fn a_lease_that_is_no_longer_wanted_stops_its_download() {
    let fleet = Fleet::new();
    let dir = tempfile::tempdir().unwrap();
    // Accepts and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let link = listener.local_addr().unwrap().to_string();
    let (cancel, cancelled) = watch::channel(false);
    let pulling = pull(order(fleet.access(link), dir.path(), LATEST), cancelled);
    cancel.send_replace(true);
    let error = tokio::time::timeout(Duration::from_secs(5), pulling).await.unwrap().unwrap_err();
    assert!(matches!(error, PullError::Unpack(UnpackError::Cancelled)));
}

#[tokio::test]
async fn only_so_many_images_are_unpacked_at_once_and_who_waits_can_be_cancelled() {
    let (fleet, image) = (Fleet::new(), image());
    let dir = tempfile::tempdir().unwrap();
    let (link, _site) = site(&fleet, image.paths, H2).await;
    let others = UNPACKING.acquire_many(2).await.unwrap();
    let (cancel, cancelled) = watch::channel(false);
    let mut pulls = JoinSet::new();
    pulls.spawn(pull(order(fleet.access(link), dir.path(), LATEST), cancelled));
    let fetched = dir.path().join("acme/a/layer.0");
    while !fs::metadata(&fetched).is_ok_and(|file| file.len() > 0) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    cancel.send_replace(true);
    let error = pulls.join_next().await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, PullError::Unpack(UnpackError::Cancelled)));
    assert!(!dir.path().join("acme/a/rootfs.new").exists(), "it was not its turn");
    drop(others);
}
