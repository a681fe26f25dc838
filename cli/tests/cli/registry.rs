//! A registry of the tests: the REST interface over real TLS, its objects in memory, refusals by script.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::serve::Listener;
use bulkhead_api::document::{
    ApiError, Document, HostShortage, Lease, WatchEvent, WatchKind, from_json,
};
use bulkhead_api::fit::Fit;
use bulkhead_api::lease::{Holding, LeasePhase, LeaseStatus};
use futures_util::stream;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The token that it accepts.
pub(crate) const TOKEN: &str = "b5f2a6c1";
/// Cores that its only host has for leases.
const CORES: u32 = 3;

/// What it knows and what it is to do.
#[derive(Default)]
pub(crate) struct Fleet {
    /// By path.
    pub(crate) objects: BTreeMap<String, Document>,
    /// Replies in place of what it would do, by method and path; each for one request.
    pub(crate) script: BTreeMap<String, VecDeque<(StatusCode, Vec<u8>)>>,
    /// Logs of leases, by path of the lease; the last one stays.
    pub(crate) logs: BTreeMap<String, VecDeque<String>>,
    /// Looks at a lease that is being released until it is gone.
    pub(crate) looks_until_gone: u32,
    /// Method and path of every request with the right token.
    pub(crate) requests: Vec<String>,
    watchers: Vec<UnboundedSender<Bytes>>,
}

/// A registry that runs until it is dropped.
pub(crate) struct Registry {
    /// `https://127.0.0.1:PORT`.
    pub(crate) url: String,
    /// Certificate of its CA, PEM.
    pub(crate) ca: String,
    fleet: Arc<Mutex<Fleet>>,
    _runtime: Runtime,
}

impl Registry {
    pub(crate) fn start() -> Self {
        let (ca, acceptor) = identity();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let fleet = Arc::new(Mutex::new(Fleet { looks_until_gone: 3, ..Fleet::default() }));
        let socket = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("https://{}", socket.local_addr().unwrap());
        let router = Router::new().fallback(reply).with_state(Arc::clone(&fleet));
        let listener = Tls { socket, acceptor };
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { url, ca, fleet, _runtime: runtime }
    }

    /// The fleet for somebody who outlives a borrow.
    pub(crate) fn share(&self) -> Arc<Mutex<Fleet>> {
        Arc::clone(&self.fleet)
    }

    pub(crate) fn fleet(&self) -> MutexGuard<'_, Fleet> {
        self.fleet.lock().unwrap()
    }
}

impl Fleet {
    /// Puts an object where it belongs, and tells the watchers.
    pub(crate) fn put(&mut self, object: serde_json::Value) {
        let document: Document = serde_json::from_value(object).unwrap();
        self.store(document);
    }

    fn store(&mut self, document: Document) {
        self.objects.insert(path(&document), document.clone());
        self.tell(WatchKind::Changed, document);
    }

    /// Removes an object, and tells the watchers.
    pub(crate) fn remove(&mut self, path: &str) {
        let object = self.objects.remove(path).unwrap();
        self.tell(WatchKind::Deleted, object);
    }

    /// What is answered to the next such request (`PUT /v1/...`).
    pub(crate) fn answer(&mut self, request: &str, status: u16, body: impl Into<Vec<u8>>) {
        let reply = (StatusCode::from_u16(status).unwrap(), body.into());
        self.script.entry(request.to_owned()).or_default().push_back(reply);
    }

    /// Ends every watch.
    pub(crate) fn end_watches(&mut self) {
        self.watchers.clear();
    }

    fn tell(&mut self, kind: WatchKind, object: Document) {
        let line = line(&WatchEvent { kind, object });
        self.watchers.retain(|watcher| watcher.send(line.clone()).is_ok());
    }

    fn answered(&mut self, method: &Method, path: &str, query: &str, body: &[u8]) -> Response {
        self.requests.push(format!("{method} {path}"));
        let scripted = self.script.get_mut(&format!("{method} {path}"));
        if let Some((status, body)) = scripted.and_then(VecDeque::pop_front) {
            return (status, body).into_response();
        }
        let parts: Vec<&str> = path.split('/').skip(2).collect();
        match (method.as_str(), parts.as_slice()) {
            ("GET", [plural]) => self.list(plural, query),
            ("GET", ["tenants", _, "leases", _, "log"]) => self.log(path, query),
            ("POST", ["fit"]) => self.fit(body),
            ("POST", ["sites", _, "join-tickets"]) => {
                let ticket =
                    json!({ "ticket": "c0ffee", "expires": "2026-03-01T13:00:00.605827977Z" });
                json_reply(StatusCode::OK, &ticket)
            }
            ("GET", _) => self.get(path),
            ("PUT", _) => self.accept(path, body),
            ("DELETE", _) => self.delete(path),
            _ => error(StatusCode::NOT_FOUND, "NotFound", "no such path"),
        }
    }

    fn list(&mut self, plural: &str, query: &str) -> Response {
        let tenant = query.split('&').find_map(|part| part.strip_prefix("tenant="));
        let wanted = |path: &String| match (plural, tenant) {
            ("leases", None) => path.contains("/leases/"),
            ("leases", Some(tenant)) => path.starts_with(&format!("/v1/tenants/{tenant}/leases/")),
            _ => path.starts_with(&format!("/v1/{plural}/")) && !path.contains("/leases/"),
        };
        let found = self.objects.iter().filter(|(path, _)| wanted(path));
        let found: Vec<Document> = found.map(|(_, document)| document.clone()).collect();
        if !query.contains("watch=true") {
            return json_reply(StatusCode::OK, &serde_json::to_value(found).unwrap());
        }
        let (sender, receiver) = unbounded_channel();
        for object in found {
            sender.send(line(&WatchEvent { kind: WatchKind::Snapshot, object })).unwrap();
        }
        sender.send(Bytes::from_static(b"\n")).unwrap();
        self.watchers.push(sender);
        let lines = stream::unfold(receiver, async |mut receiver| {
            receiver.recv().await.map(|line| (Ok::<_, Infallible>(line), receiver))
        });
        Body::from_stream(lines).into_response()
    }

    fn get(&mut self, path: &str) -> Response {
        let releasing = match self.objects.get(path) {
            Some(Document::Lease(lease)) => lease.metadata.deletion_timestamp.is_some(),
            Some(_) => false,
            None => return not_found(path),
        };
        if releasing && self.looks_until_gone == 0 {
            self.remove(path);
            return not_found(path);
        }
        if releasing {
            self.looks_until_gone -= 1;
        }
        json_reply(StatusCode::OK, &serde_json::to_value(&self.objects[path]).unwrap())
    }

    fn accept(&mut self, place: &str, body: &[u8]) -> Response {
        let mut document: Document = match from_json(body) {
            Ok(document) => document,
            Err(fault) => return error(StatusCode::BAD_REQUEST, "BadField", &fault.to_string()),
        };
        assert_eq!(path(&document), place, "a document is put where it belongs");
        if let Document::Lease(lease) = &mut document {
            if lease.spec.cpus > CORES {
                return json_reply(StatusCode::CONFLICT, &shortage(lease));
            }
            lease.status = Some(granted());
        }
        let created = !self.objects.contains_key(place);
        let reply = serde_json::to_value(&document).unwrap();
        self.store(document);
        json_reply(if created { StatusCode::CREATED } else { StatusCode::OK }, &reply)
    }

    /// Each host has room for as many cores as its capacity says.
    fn fit(&self, body: &[u8]) -> Response {
        let Document::Lease(lease) = from_json(body).unwrap() else { panic!("{body:?}") };
        let host = |document: &Document| {
            let Document::Host(host) = document else { return None };
            Some(host.clone())
        };
        let hosts = self.objects.values().filter_map(host).map(|host| {
            let (free, want) = (host.status.capacity.unwrap().cores_free, lease.spec.cpus);
            let short = format!("cpus: {want} cores wanted, {free} free of {CORES}");
            let short = if want > free { vec![short] } else { Vec::new() };
            HostShortage { host: host.metadata.name, short }
        });
        let hosts: Vec<HostShortage> = hosts.collect();
        let placed = match self.objects.get(&path(&Document::Lease(lease))) {
            Some(Document::Lease(there)) => there.status.as_ref().and_then(|s| s.host.clone()),
            _ => None,
        };
        let host = hosts.iter().find(|host| host.short.is_empty()).map(|host| host.host.clone());
        json_reply(StatusCode::OK, &serde_json::to_value(Fit { host, placed, hosts }).unwrap())
    }

    fn delete(&mut self, path: &str) -> Response {
        match self.objects.get(path).cloned() {
            None => not_found(path),
            Some(Document::Lease(mut lease)) => {
                lease.metadata.deletion_timestamp = Some("2026-03-01T12:00:00Z".parse().unwrap());
                if let Some(status) = &mut lease.status {
                    status.phase = LeasePhase::Releasing;
                }
                let reply = serde_json::to_value(Document::Lease(lease.clone())).unwrap();
                self.store(Document::Lease(lease));
                json_reply(StatusCode::ACCEPTED, &reply)
            }
            Some(_) => {
                self.remove(path);
                StatusCode::NO_CONTENT.into_response()
            }
        }
    }

    fn log(&mut self, path: &str, query: &str) -> Response {
        let lease = path.trim_end_matches("/log");
        let Some(logs) = self.logs.get_mut(lease) else { return not_found(lease) };
        let text = if logs.len() > 1 { logs.pop_front().unwrap() } else { logs[0].clone() };
        if text.is_empty() {
            self.logs.remove(lease);
            return not_found(lease);
        }
        let most: usize = query.strip_prefix("lines=").unwrap().parse().unwrap();
        let skip = text.lines().count().saturating_sub(most);
        text.split_inclusive('\n').skip(skip).collect::<String>().into_response()
    }
}

async fn reply(
    State(fleet): State<Arc<Mutex<Fleet>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let sent = headers.get("authorization").and_then(|value| value.to_str().ok());
    if sent != Some(&format!("Bearer {TOKEN}")) {
        return error(StatusCode::UNAUTHORIZED, "Unauthorized", "no such token");
    }
    let mut fleet = fleet.lock().unwrap();
    fleet.answered(&method, uri.path(), uri.query().unwrap_or_default(), &body)
}

fn path(document: &Document) -> String {
    match document {
        Document::Site(site) => format!("/v1/sites/{}", site.metadata.name),
        Document::Host(host) => format!("/v1/hosts/{}", host.metadata.name),
        Document::Tenant(tenant) => format!("/v1/tenants/{}", tenant.metadata.name),
        Document::Lease(lease) => {
            let (tenant, name) = (&lease.metadata.tenant, &lease.metadata.name);
            format!("/v1/tenants/{tenant}/leases/{name}")
        }
    }
}

fn granted() -> LeaseStatus {
    LeaseStatus {
        phase: LeasePhase::Running,
        host: Some("lab-01-000001".parse().unwrap()),
        holding: Some(Holding {
            cpus: [2, 3].into(),
            memory_nodes: [0].into(),
            memory: "256Mi".parse().unwrap(),
            ..Holding::default()
        }),
        starts: 1,
        pid: Some(812),
        ..LeaseStatus::default()
    }
}

fn shortage(lease: &Lease) -> serde_json::Value {
    let short = format!("cpus: {} cores wanted, 2 free of {CORES}", lease.spec.cpus);
    let shortages = vec![
        HostShortage { host: "lab-01-000001".parse().unwrap(), short: vec![short] },
        HostShortage {
            host: "lab-01-000002".parse().unwrap(),
            short: vec![
                "cpus: no core free of 3".to_owned(),
                "memory: 64Gi wanted, 2Gi free".to_owned(),
            ],
        },
    ];
    serde_json::to_value(ApiError {
        reason: "DoesNotFit".to_owned(),
        message: "no host has room for the lease".to_owned(),
        field: Some("spec.cpus".to_owned()),
        shortages,
    })
    .unwrap()
}

fn not_found(path: &str) -> Response {
    let name = path.trim_start_matches("/v1/");
    error(StatusCode::NOT_FOUND, "NotFound", &format!("{name} is not there"))
}

fn error(status: StatusCode, reason: &str, message: &str) -> Response {
    json_reply(status, &json!({ "reason": reason, "message": message }))
}

fn json_reply(status: StatusCode, body: &serde_json::Value) -> Response {
    (status, [("content-type", "application/json")], body.to_string()).into_response()
}

fn line(event: &WatchEvent) -> Bytes {
    Bytes::from(serde_json::to_string(event).unwrap() + "\n")
}

/// A CA and a server with a certificate of it.
fn identity() -> (String, TlsAcceptor) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &ca).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    (ca.pem(), TlsAcceptor::from(Arc::new(config)))
}

struct Tls {
    socket: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let (stream, from) = self.socket.accept().await.unwrap();
            // A client that does not trust this certificate goes away here.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}
