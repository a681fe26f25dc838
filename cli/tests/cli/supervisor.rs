//! `host status`, `host events` against HTTP over a unix socket.

use std::path::Path;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use expect_test::expect;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;

use bulkhead_api::receipt::SignedReceipt;
use bulkhead_api::statement::SignedStatement;

use crate::isolation;
use crate::receipts;
use crate::scene::{Said, run, status};

/// A supervisor that runs until the runtime is dropped.
pub(crate) fn start(
    socket: &Path,
    statements: &[SignedStatement],
    receipts: &[SignedReceipt],
) -> Runtime {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let events = json!([
        { "seq": 1, "at": "2026-03-01T11:55:00Z", "what": "Condition", "object": "host",
          "detail": "Ready True Observed" },
        { "seq": 2, "at": "2026-03-01T11:59:00Z", "what": "Phase", "object": "lease demo/hello",
          "detail": "Running" },
        { "seq": 3, "at": "2026-03-01T11:59:30Z", "what": "Drift", "object": "lease demo/hello",
          "detail": "memory.max is max, wanted 256Mi: set again; it was right at 2026-03-01T11:59:00Z" },
    ]);
    let router = Router::new()
        .route("/v1/host", get(async || status().to_string()))
        .route("/v1/events", get(async move || events.to_string()))
        .merge(crate::ledger::routes())
        .merge(isolation::routes(statements))
        .merge(receipts::routes(receipts));
    let guard = runtime.enter();
    let listener = UnixListener::bind(socket).unwrap();
    drop(guard);
    runtime.spawn(async move { axum::serve(listener, router).await });
    runtime
}

fn ask(arguments: &[&str]) -> Said {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("s.sock");
    let _supervisor = start(&socket, &isolation::Fleet::new().chain(1, &[]), &[]);
    let socket = ["--socket", socket.to_str().unwrap()];
    run(dir.path().to_owned(), "", &[arguments, &socket].concat(), |_| Ok(()))
}

#[test]
fn a_host_tells_its_status_over_its_socket() {
    expect![[r#"
        Host:         lab-01-000001
        Boot:         1
        Observed:     2s ago
        Generation:   1 accepted, 1 settled
        Supervisor:   14Mi resident

        Conditions:
          TYPE   STATUS  REASON    FOR   NEXT TO ACT  RETRY  MESSAGE
          Ready  True    Observed  5m0s  supervisor   -      -

        Leases:
          LEASE       PHASE    CPU SET  MEMORY  STARTS  PID
          demo/hello  Running  2-3      256Mi   1       812

        Hardware:
          Machine:      QEMU Standard PC
          Firmware:     2025.02 (UEFI, Secure Boot off)
          Image:        0.1.0
          Kernel:       6.12.48+deb13-amd64
          Processor:    AMD EPYC Processor
          Cores:        4 with 8 threads
          Memory:       node 0: 1.9Gi, CPUs 0-3
          Memory:       node 1: 1.9Gi, CPUs 4-7
          NIC:          enp1s0 52:54:00:00:00:01 virtio_net up
          PCI:          0 functions
    "#]]
    .assert_eq(&ask(&["host", "status"]).ok());
}

#[test]
fn a_host_tells_its_status_as_json_and_yaml() {
    let json: Value = serde_json::from_str(&ask(&["host", "status", "-o", "json"]).ok()).unwrap();
    assert_eq!(json["host"], "lab-01-000001");
    assert!(ask(&["host", "status", "-o", "yaml"]).ok().starts_with("host: lab-01-000001\n"));
}

#[test]
fn a_host_tells_what_happened() {
    expect![[r#"
        AGE   WHAT       OBJECT            DETAIL
        5m0s  Condition  host              Ready True Observed
        60s   Phase      lease demo/hello  Running
        30s   Drift      lease demo/hello  memory.max is max, wanted 256Mi: set again; it was right at 2026-03-01T11:59:00Z
    "#]]
    .assert_eq(&ask(&["host", "events"]).ok());
}

fn ask_at(socket: &Path) -> String {
    let socket = socket.to_str().unwrap();
    run("/nowhere".into(), "", &["host", "status", "--socket", socket], |_| Ok(())).failed(1)
}

#[test]
fn a_supervisor_that_is_not_there_is_told_with_its_socket() {
    let said = ask_at(Path::new("/nowhere/s.sock"));
    assert!(
        said.starts_with("error: ask the supervisor at /nowhere/s.sock: io: No such file"),
        "{said}"
    );
    assert!(said.contains("help: is this a host of the fleet, and does bulkheadd run?"), "{said}");
}

#[test]
fn a_supervisor_that_refuses_says_why() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("s.sock");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let guard = runtime.enter();
    let listener = UnixListener::bind(&socket).unwrap();
    drop(guard);
    let refusal = r#"{"reason":"Forbidden","message":"uid 1000 may not ask"}"#;
    let router =
        Router::new().route("/v1/host", get(async move || (StatusCode::FORBIDDEN, refusal)));
    runtime.spawn(async move { axum::serve(listener, router).await });
    let said = ask_at(&socket);
    let want = format!(
        "error: supervisor at {} refuses with status 403: uid 1000 may not ask\n",
        socket.display()
    );
    assert_eq!(said, want);
}

#[test]
fn a_socket_that_speaks_no_http_is_told() {
    use std::io::Write as _;
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("s.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"220 smtp.example ESMTP\r\n\r\n").unwrap();
    });
    let said = ask_at(&socket);
    server.join().unwrap();
    assert!(said.starts_with("error: ask the supervisor at "), "{said}");
}
