use bulkhead_api::document::ApiError;
use bulkhead_api::id::LeaseId;
use bulkhead_api::inventory::Inventory;
use bulkhead_api::lease::{LeaseStatus, ReportedLease};
use bulkhead_api::time::Timestamp;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::*;
use crate::events::{Event, News};
use crate::node::ask::{Ask, Declined};
use crate::node::report::{Moment, report};
use crate::node::state::State;
use crate::tenant::files::LeaseDir;
use crate::testing::{LONG, host_id};

fn id(name: &str) -> LeaseId {
    LeaseId { tenant: "acme".parse().unwrap(), name: name.parse().unwrap() }
}

pub(super) fn status() -> HostStatus {
    let moment = Moment { now: Timestamp::now(), seq: 4, supervisor_rss: 1 };
    let mut status = report(&State::new(2, Inventory::default()), moment, &[]);
    status.host = host_id();
    status.leases = vec![ReportedLease { id: id("a"), status: LeaseStatus::default() }];
    status
}

/// A socket that is served, with the ends that a node has.
struct Served {
    dir: TempDir,
    events: Events,
    paths: Paths,
    asked: Option<mpsc::Receiver<Ask>>,
    _status: watch::Sender<Arc<HostStatus>>,
    tasks: JoinSet<()>,
}

fn serve(user: u32) -> Served {
    let dir = tempfile::tempdir().unwrap();
    let events = Events::new(4);
    let status = watch::Sender::new(Arc::new(status()));
    let paths = Paths::below(dir.path());
    let (asks, asked) = mpsc::channel(1);
    let view = View {
        status: status.subscribe(),
        events: events.clone(),
        paths: paths.clone(),
        asks,
        user,
    };
    let listener = bind(&dir.path().join("sock")).unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { run(listener, view).await.unwrap() });
    Served { dir, events, paths, asked: Some(asked), _status: status, tasks }
}

impl Served {
    async fn request(&mut self, method: Method, target: &str) -> Response<Incoming> {
        self.send(method, target, b"").await
    }

    async fn send(&mut self, method: Method, target: &str, body: &[u8]) -> Response<Incoming> {
        let stream = UnixStream::connect(self.dir.path().join("sock")).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        self.tasks.spawn(async move {
            let _ = connection.await;
        });
        let request = Request::builder().method(method).uri(target).header("host", "host");
        sender
            .send_request(request.body(Full::new(Bytes::copy_from_slice(body))).unwrap())
            .await
            .unwrap()
    }

    async fn get(&mut self, target: &str) -> (StatusCode, Bytes) {
        let reply = self.request(Method::GET, target).await;
        (reply.status(), reply.into_body().collect().await.unwrap().to_bytes())
    }

    async fn post(&mut self, target: &str, body: &str) -> (StatusCode, Bytes) {
        let reply = self.send(Method::POST, target, body.as_bytes()).await;
        (reply.status(), reply.into_body().collect().await.unwrap().to_bytes())
    }

    async fn json<T: DeserializeOwned>(&mut self, target: &str) -> T {
        let (status, body) = self.get(target).await;
        assert_eq!(status, StatusCode::OK, "{body:?}");
        serde_json::from_slice(&body).unwrap()
    }

    async fn refusal(&mut self, target: &str) -> (StatusCode, ApiError) {
        let (status, body) = self.get(target).await;
        (status, serde_json::from_slice(&body).unwrap())
    }
}

#[tokio::test]
async fn a_host_and_its_leases_are_shown_as_reported_last() {
    let mut served = serve(0);
    let host: HostStatus = served.json("/v1/host").await;
    assert_eq!((host.host, host.seq), (host_id(), 4));
    let leases: Vec<ReportedLease> = served.json("/v1/leases").await;
    assert_eq!(leases, host.leases);
    let one: ReportedLease = served.json("/v1/leases/acme/a").await;
    assert_eq!(one, leases[0]);
}

#[tokio::test]
async fn what_is_not_there_or_not_a_name_is_refused_with_a_sentence() {
    let mut served = serve(0);
    for (target, code, reason, field) in [
        ("/v1/leases/acme/b", StatusCode::NOT_FOUND, "NotFound", None),
        ("/v1/leases/Acme/a", StatusCode::BAD_REQUEST, "BadField", Some("tenant")),
        ("/v1/leases/acme/a/log?lines=0", StatusCode::BAD_REQUEST, "BadField", Some("lines")),
        ("/v1/leases/acme/a/log?lines=x", StatusCode::BAD_REQUEST, "BadField", Some("lines")),
        ("/v1/receipts?lease=acme", StatusCode::BAD_REQUEST, "BadField", Some("lease")),
        ("/v1/receipts?lease=acme/A", StatusCode::BAD_REQUEST, "BadField", Some("name")),
        ("/v1/events?watch=maybe", StatusCode::BAD_REQUEST, "BadField", Some("watch")),
        ("/v2/host", StatusCode::NOT_FOUND, "NotFound", None),
    ] {
        let (status, error) = served.refusal(target).await;
        assert_eq!((status, error.reason.as_str()), (code, reason), "{target}");
        assert_eq!(error.field.as_deref(), field, "{target}");
        assert!(error.message.len() > 10, "{target}: {}", error.message);
    }
    let reply = served.request(Method::DELETE, "/v1/leases/acme/a").await;
    assert_eq!(reply.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn the_end_of_a_console_is_shown_and_one_that_cannot_be_read_is_told_from_one_that_is_not_there()
 {
    let mut served = serve(0);
    let log = LeaseDir::new(&served.paths, &id("a")).log();
    fs::create_dir_all(log.parent().unwrap()).unwrap();
    fs::write(&log, "one\ntwo\nthree\n").unwrap();
    assert_eq!(served.get("/v1/leases/acme/a/log").await.1, "one\ntwo\nthree\n");
    assert_eq!(served.get("/v1/leases/acme/a/log?lines=1").await.1, "three\n");
    let (status, error) = served.refusal("/v1/leases/acme/b/log").await;
    assert_eq!((status, error.reason.as_str()), (StatusCode::NOT_FOUND, "NotFound"));
    fs::remove_file(&log).unwrap();
    fs::create_dir(&log).unwrap();
    let (status, error) = served.refusal("/v1/leases/acme/a/log").await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(
        error.message.starts_with("read the console log of lease acme/a: "),
        "{}",
        error.message
    );
}

#[tokio::test]
async fn events_are_listed_and_watched() {
    let mut served = serve(0);
    let push = |events: &Events, detail: &str| {
        let (object, detail) = ("host".to_owned(), detail.to_owned());
        events.push(Timestamp::now(), News { what: "Change", object, detail });
    };
    push(&served.events, "first");
    let listed: Vec<Event> = served.json("/v1/events").await;
    assert_eq!(listed[0].detail, "first");
    let mut lines = served.request(Method::GET, "/v1/events?watch=true").await.into_body();
    for expected in ["first", "second"] {
        let frame = tokio::time::timeout(LONG, lines.frame()).await.expect("a line in time");
        let line = frame.unwrap().unwrap().into_data().unwrap();
        assert!(line.ends_with(b"\n"));
        assert_eq!(serde_json::from_slice::<Event>(&line).unwrap().detail, expected);
        push(&served.events, "second");
    }
}

#[tokio::test]
async fn whoever_is_not_root_is_told_to_ask_as_root() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let served = serve(0);
    let socket = served.dir.path().join("sock");
    fs::set_permissions(served.dir.path(), Permissions::from_mode(0o755)).unwrap();
    let reply = tokio::task::spawn_blocking(move || as_stranger(&socket)).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 403"), "{reply}");
    let error: ApiError = serde_json::from_str(reply.lines().last().unwrap()).unwrap();
    assert_eq!(error.message, "user 65534 may not ask the supervisor: ask as root");
}

/// Asks for the host as user 65534. The thread alone becomes that user: credentials are per thread in
/// Linux, and the C library's wrapper, which changes them all, is not used.
#[expect(unsafe_code, reason = "there is no safe way to change the user of one thread")]
fn as_stranger(socket: &Path) -> String {
    use std::io::{Read as _, Write as _};
    let socket = socket.to_owned();
    let asking = std::thread::spawn(move || {
        // SAFETY: the call takes three numbers and touches no memory of this process.
        let changed = unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) };
        assert_eq!(changed, 0, "this test needs root");
        let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
        stream.write_all(b"GET /v1/host HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply
    });
    asking.join().unwrap()
}

#[tokio::test]
async fn a_socket_that_an_earlier_run_left_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    drop(bind(&path).unwrap());
    drop(bind(&path).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
}

#[tokio::test]
async fn isolation_statements_are_answered_from_what_is_kept() {
    use crate::proof::ring::{KEPT, Ring};
    use bulkhead_api::spec::Base64;
    use bulkhead_api::statement::SignedStatement;

    let mut served = serve(0);
    let (status, error) = served.refusal("/v1/isolation").await;
    assert_eq!((status, error.reason.as_str()), (StatusCode::NOT_FOUND, "NotFound"));
    let none: Vec<SignedStatement> = served.json("/v1/isolation/chain").await;
    assert_eq!(none, []);
    let ring = Ring::new(served.paths.isolation(), KEPT);
    let statement =
        |number: u8| SignedStatement::new(Base64(vec![number]), String::new(), Base64(vec![]));
    ring.keep(1, &statement(1)).unwrap();
    ring.keep(2, &statement(2)).unwrap();
    let latest: SignedStatement = served.json("/v1/isolation").await;
    assert_eq!(latest, statement(2));
    let all: Vec<SignedStatement> = served.json("/v1/isolation/chain").await;
    assert_eq!(all, [statement(1), statement(2)]);
}

#[tokio::test]
async fn receipts_are_answered_from_what_is_kept_all_or_of_one_lease() {
    use crate::receipts::shelf::Shelf;
    use bulkhead_api::receipt::{Evidence, Receipt, SignedReceipt};
    use bulkhead_api::resource::Resource;
    use bulkhead_api::spec::Base64;

    let mut served = serve(0);
    let none: Vec<SignedReceipt> = served.json("/v1/receipts").await;
    assert_eq!(none, []);
    let shelf = Shelf::<Receipt>::new(served.paths.receipts());
    let now = Timestamp::now();
    for (sequence, name) in [(1, "a"), (2, "b"), (3, "a")] {
        let receipt = Receipt {
            api_version: "bulkhead.io/v1".to_owned(),
            host: host_id(),
            boot: 1,
            sequence,
            lease: id(name),
            resource: Resource::Instance,
            methods: vec!["removed".to_owned()],
            evidence: vec![Evidence { what: "files".to_owned(), found: "none".to_owned() }],
            weaker: None,
            started: now,
            finished: now,
            previous: None,
        };
        let body = Base64(serde_json::to_vec(&receipt).unwrap());
        let signed = SignedReceipt::new(body, String::new(), Base64(vec![]));
        shelf.write(sequence, &signed).unwrap();
    }
    let all: Vec<SignedReceipt> = served.json("/v1/receipts").await;
    assert_eq!(all.len(), 3);
    let one: Vec<SignedReceipt> = served.json("/v1/receipts?lease=acme/a").await;
    assert_eq!(one, [all[0].clone(), all[2].clone()]);
    let page: Vec<SignedReceipt> = served.json("/v1/receipts?after=1&most=1").await;
    assert_eq!(page, [all[1].clone()]);
    let last: Vec<SignedReceipt> = served.json("/v1/receipts?lease=acme/a&after=1&most=9").await;
    assert_eq!(last, [all[2].clone()]);
    fs::write(shelf.path(2), "{").unwrap();
    let (status, error) = served.refusal("/v1/receipts").await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(error.message.contains("0000000002.json holds no receipt: "), "{}", error.message);
}

/// Answers every question of the socket as an engine would.
fn engine(served: &mut Served, mut answer: impl FnMut(Ask) + Send + 'static) {
    let mut asked = served.asked.take().unwrap();
    served.tasks.spawn(async move {
        while let Some(ask) = asked.recv().await {
            answer(ask);
        }
    });
}

#[tokio::test]
async fn the_ledger_is_shown_and_a_damaged_one_is_told_with_its_file_and_the_way_out() {
    use crate::ledger;
    use bulkhead_api::local::Ledger;

    let mut served = serve(0);
    let empty: Ledger = served.json("/v1/ledger").await;
    assert_eq!(empty, Ledger::default());
    fs::create_dir_all(&served.paths.state).unwrap();
    let path = served.paths.ledger();
    ledger::store(&path, &ledger::Ledger::default()).unwrap();
    fs::write(&path, &fs::read(&path).unwrap()[..30]).unwrap();
    let (status, error) = served.refusal("/v1/ledger").await;
    assert_eq!((status, error.reason.as_str()), (StatusCode::CONFLICT, "LedgerDamaged"));
    assert!(error.message.contains(path.to_str().unwrap()), "{}", error.message);
    assert!(error.message.contains("bulkhead host ledger repair"), "{}", error.message);
}

#[tokio::test]
async fn a_repair_is_asked_of_the_engine_and_changes_nothing_unless_it_is_told_to() {
    use bulkhead_api::local::{Ledger, Repair};

    let mut served = serve(0);
    engine(&mut served, |ask| {
        let Ask::RepairLedger { apply, reply } = ask else { panic!("{ask:?}") };
        let (problem, ledger) = ("cut off".to_owned(), Ledger::default());
        reply.send(Ok(Repair { applied: apply, problem, kept: None, ledger })).unwrap();
    });
    for (body, applied) in [("", false), ("{}", false), (r#"{"apply":true}"#, true)] {
        let (status, reply) = served.post("/v1/ledger/repair", body).await;
        assert_eq!(status, StatusCode::OK, "{reply:?}");
        assert_eq!(serde_json::from_slice::<Repair>(&reply).unwrap().applied, applied, "{body}");
    }
    for body in [r#"{"apply":"yes"}"#, r#"{"aply":true}"#, "{"] {
        let (status, reply) = served.post("/v1/ledger/repair", body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{reply:?}");
    }
}

#[tokio::test]
async fn a_repair_of_the_receipts_is_asked_of_the_engine_and_a_whole_chain_is_a_conflict() {
    let mut served = serve(0);
    engine(&mut served, |ask| {
        let Ask::RepairReceipts { apply, reply } = ask else { panic!("{ask:?}") };
        assert!(!apply, "not unless it is told to");
        reply.send(Err(Declined::ReceiptsWhole)).unwrap();
    });
    let (status, reply) = served.post("/v1/receipts/repair", "").await;
    assert_eq!(status, StatusCode::CONFLICT);
    let error: ApiError = serde_json::from_slice(&reply).unwrap();
    assert_eq!(error.message, "the chain of receipts is whole: nothing is repaired");
}

#[tokio::test]
async fn a_retry_names_one_resource_or_means_all_and_a_refusal_of_the_engine_has_its_status() {
    use bulkhead_api::local::Retry;
    use bulkhead_api::resource::Resource;

    let mut served = serve(0);
    engine(&mut served, |ask| {
        let Ask::RetryQuarantine { resource, reply } = ask else { panic!("{ask:?}") };
        let answer = match resource {
            Some(resource) => Err(Declined::NotInQuarantine(resource)),
            None => Ok(Retry::default()),
        };
        reply.send(answer).unwrap();
    });
    assert_eq!(served.post("/v1/quarantine/retry", "").await.0, StatusCode::OK);
    let one = serde_json::json!({ "resource": Resource::Cpu { cpus: [3].into() } });
    let (status, reply) = served.post("/v1/quarantine/retry", &one.to_string()).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let error: ApiError = serde_json::from_slice(&reply).unwrap();
    assert_eq!(error.message, "cpus 3 is not in quarantine: see bulkhead host quarantine");
}

#[tokio::test]
async fn an_engine_that_is_busy_or_ends_is_told() {
    let mut served = serve(0);
    // One question waits for an engine that answers nobody.
    let waiting = served.dir.path().join("sock");
    let (sent, mut first) = mpsc::channel(1);
    served.tasks.spawn(async move {
        let stream = UnixStream::connect(waiting).await.unwrap();
        stream.writable().await.unwrap();
        let request = b"POST /v1/ledger/repair HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(stream.try_write(request).unwrap(), request.len());
        sent.send(stream).await.unwrap();
    });
    let _stream = first.recv().await.unwrap();
    let asked = served.asked.as_ref().unwrap();
    while asked.is_empty() {
        tokio::task::yield_now().await;
    }
    let (status, _) = served.post("/v1/ledger/repair", "").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    served.asked = None;
    let (status, _) = served.post("/v1/ledger/repair", "").await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
}
