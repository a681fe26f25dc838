//! `host ledger` and `host quarantine` against HTTP over a unix socket.

use std::path::Path;

use axum::Router;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::routing::{get, post};
use bulkhead_api::local::{RepairOrder, RetryOrder};
use expect_test::expect;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;

use crate::scene::{Said, run, status};

fn volume() -> Value {
    json!({
        "class": "volume", "name": "data", "pool": "3f0c",
        "extents": [{ "start": 0, "length": 1_073_741_824 }],
    })
}

fn quarantine() -> Value {
    json!([{
        "resource": volume(), "lease": { "tenant": "demo", "name": "store" },
        "reason": "marker at byte 1048576 of pool 3f0c: expected none, found one",
        "since": "2026-03-01T11:58:00Z",
    }])
}

fn ledger() -> Value {
    let cpus = |cpus: Value| json!({ "class": "cpu", "cpus": cpus });
    json!({
        "entries": [
            { "id": { "tenant": "demo", "name": "hello" }, "releasing": false, "resources": [
                { "resource": { "class": "instance" }, "clean": false },
                { "resource": { "class": "memory", "nodes": [0], "bytes": "256Mi" }, "clean": false },
                { "resource": cpus(json!([2, 3])), "clean": false },
            ] },
            { "id": { "tenant": "demo", "name": "store" }, "releasing": true, "resources": [
                { "resource": { "class": "instance" }, "clean": true },
                { "resource": cpus(json!([4, 5])), "clean": false },
            ] },
        ],
        "quarantine": quarantine(),
    })
}

fn repaired(body: &str) -> String {
    let order: RepairOrder = serde_json::from_str(body).unwrap();
    let mut ledger = ledger();
    for entry in ledger["entries"].as_array_mut().unwrap() {
        entry["releasing"] = true.into();
    }
    let mut repair = json!({
        "applied": order.apply,
        "problem": "ledger /run/bulkhead/ledger.json is damaged (its digest does not match its body)",
        "ledger": ledger,
    });
    if order.apply {
        repair["kept"] = "/run/bulkhead/ledger.json.damaged-1".into();
    }
    repair.to_string()
}

fn retried(body: &str) -> String {
    let order: RetryOrder = serde_json::from_str(body).unwrap();
    if let Some(resource) = order.resource {
        assert_eq!(serde_json::to_value(resource).unwrap(), volume());
    }
    json!({ "again": quarantine() }).to_string()
}

/// The requests about ledger and quarantine.
pub(crate) fn routes() -> Router {
    Router::new()
        .route("/v1/ledger", get(async || ledger().to_string()))
        .route("/v1/ledger/repair", post(async |body: String| repaired(&body)))
        .route("/v1/quarantine/retry", post(async |body: String| retried(&body)))
}

/// A supervisor with something in quarantine, until the runtime is dropped.
pub(crate) fn start(socket: &Path) -> Runtime {
    let mut status = status();
    status["quarantine"] = quarantine();
    serve(socket, routes().route("/v1/host", get(async move || status.to_string())))
}

fn serve(socket: &Path, router: Router) -> Runtime {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let guard = runtime.enter();
    let listener = UnixListener::bind(socket).unwrap();
    drop(guard);
    runtime.spawn(async move { axum::serve(listener, router).await });
    runtime
}

fn ask(start: fn(&Path) -> Runtime, arguments: &[&str]) -> Said {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("s.sock");
    let _supervisor = start(&socket);
    let socket = ["--socket", socket.to_str().unwrap()];
    run(dir.path().to_owned(), "", &[arguments, &socket].concat(), |_| Ok(()))
}

#[test]
fn who_holds_what_is_shown_with_what_is_clean_already() {
    expect![[r#"
        Leases:
          LEASE       STATE      RESOURCE
          demo/hello  held       instance
          demo/hello  held       memory 256Mi of nodes 0
          demo/hello  held       cpus 2,3
          demo/store  clean      instance
          demo/store  releasing  cpus 4,5

        Quarantine:
          RESOURCE                       LAST HAD BY  FOR   REASON
          volume data, 1Gi of pool 3f0c  demo/store   2m0s  marker at byte 1048576 of pool 3f0c: expected none, found one
    "#]].assert_eq(&ask(start, &["host", "ledger"]).ok());
    let json: Value =
        serde_json::from_str(&ask(start, &["host", "ledger", "-o", "json"]).ok()).unwrap();
    assert_eq!(json["entries"][1]["releasing"], true);
}

#[test]
fn a_repair_is_shown_before_it_is_done() {
    let said = ask(start, &["host", "ledger", "repair"]);
    assert_eq!(said.status, 1, "{}", said.all);
    expect![[r#"
        Problem:      ledger /run/bulkhead/ledger.json is damaged (its digest does not match its body)
        Ledger:       would be rebuilt from what is found on the host

        Leases:
          LEASE       STATE      RESOURCE
          demo/hello  releasing  instance
          demo/hello  releasing  memory 256Mi of nodes 0
          demo/hello  releasing  cpus 2,3
          demo/store  clean      instance
          demo/store  releasing  cpus 4,5

        Quarantine:
          RESOURCE                       LAST HAD BY  FOR   REASON
          volume data, 1Gi of pool 3f0c  demo/store   2m0s  marker at byte 1048576 of pool 3f0c: expected none, found one

        Leases would be taken back (2), erased, and granted anew where the registry still wants them; resources in quarantine (1) are given to nobody until they have a receipt.
        error: nothing was changed
          help: bulkhead host ledger repair --yes does what is shown
    "#]].assert_eq(&said.all);
    expect![[r#"
        Problem:      ledger /run/bulkhead/ledger.json is damaged (its digest does not match its body)
        Kept as:      /run/bulkhead/ledger.json.damaged-1
        Ledger:       was rebuilt from what is found on the host

        Leases:
          LEASE       STATE      RESOURCE
          demo/hello  releasing  instance
          demo/hello  releasing  memory 256Mi of nodes 0
          demo/hello  releasing  cpus 2,3
          demo/store  clean      instance
          demo/store  releasing  cpus 4,5

        Quarantine:
          RESOURCE                       LAST HAD BY  FOR   REASON
          volume data, 1Gi of pool 3f0c  demo/store   2m0s  marker at byte 1048576 of pool 3f0c: expected none, found one

        Leases are taken back (2), erased, and granted anew where the registry still wants them; resources in quarantine (1) are given to nobody until they have a receipt.
    "#]].assert_eq(&ask(start, &["host", "ledger", "repair", "--yes"]).ok());
}

#[test]
fn a_repair_of_the_receipts_is_shown_before_it_is_done() {
    let damaged = |socket: &Path| {
        let answer = async |body: String| {
            let order: RepairOrder = serde_json::from_str(&body).unwrap();
            let mut repair = json!({
                "applied": order.apply,
                "problem": "the receipt /state/receipts/0000000003.json is damaged (EOF)",
                "receipts": 7,
            });
            if order.apply {
                repair["kept"] = "/state/receipts.damaged-1".into();
            }
            repair.to_string()
        };
        serve(socket, Router::new().route("/v1/receipts/repair", post(answer)))
    };
    let said = ask(damaged, &["host", "receipts", "repair"]);
    assert_eq!(said.status, 1, "{}", said.all);
    expect![[r#"
        Problem:      the receipt /state/receipts/0000000003.json is damaged (EOF)
        Receipts:     the chain of 7 would be put aside, a new one would begin
        error: nothing was changed
          help: bulkhead host receipts repair --yes does what is shown
    "#]]
    .assert_eq(&said.all);
    expect![[r#"
        Problem:      the receipt /state/receipts/0000000003.json is damaged (EOF)
        Kept as:      /state/receipts.damaged-1
        Receipts:     the chain of 7 was put aside, a new one begins
    "#]]
    .assert_eq(&ask(damaged, &["host", "receipts", "repair", "--yes"]).ok());
}

#[test]
fn a_ledger_that_is_whole_is_not_repaired() {
    let whole = |socket: &Path| {
        let refusal =
            r#"{"reason":"LedgerWhole","message":"the ledger is whole: nothing is repaired"}"#;
        let answer = async move |_: String| (StatusCode::CONFLICT, refusal).into_response();
        serve(socket, Router::new().route("/v1/ledger/repair", post(answer)))
    };
    let said = ask(whole, &["host", "ledger", "repair", "--yes"]).failed(1);
    assert!(
        said.ends_with("refuses with status 409: the ledger is whole: nothing is repaired\n"),
        "{said}"
    );
}

#[test]
fn what_nobody_gets_is_shown_with_the_reason() {
    expect![[r#"
        RESOURCE                       LAST HAD BY  FOR   REASON
        volume data, 1Gi of pool 3f0c  demo/store   2m0s  marker at byte 1048576 of pool 3f0c: expected none, found one
    "#]].assert_eq(&ask(start, &["host", "quarantine"]).ok());
    let clean = |socket: &Path| {
        serve(socket, Router::new().route("/v1/host", get(async || status().to_string())))
    };
    assert_eq!(ask(clean, &["host", "quarantine"]).nothing(), "nothing is in quarantine\n");
    assert_eq!(ask(clean, &["host", "quarantine", "-o", "json"]).ok(), "[]\n");
}

#[test]
fn what_is_in_quarantine_is_erased_again_all_of_it_or_one_resource() {
    let said = "volume data, 1Gi of pool 3f0c is erased again in the next pass\n";
    assert_eq!(ask(start, &["host", "quarantine", "retry"]).ok(), said);
    for name in ["volume data, 1Gi of pool 3f0c", "data", "3f0c"] {
        assert_eq!(ask(start, &["host", "quarantine", "retry", name]).ok(), said, "{name}");
    }
    assert_eq!(
        ask(start, &["host", "quarantine", "retry", "scratch"]).failed(2),
        "error: \"scratch\" names nothing in quarantine\n  help: bulkhead host quarantine lists them\n"
    );
}

#[test]
fn a_name_of_two_resources_in_quarantine_is_none() {
    let two = |socket: &Path| {
        let mut status = status();
        let mut kept = quarantine();
        let mut other = kept[0].clone();
        other["resource"]["name"] = "data-2".into();
        kept.as_array_mut().unwrap().push(other);
        status["quarantine"] = kept;
        serve(socket, Router::new().route("/v1/host", get(async move || status.to_string())))
    };
    let said = ask(two, &["host", "quarantine", "retry", "volume"]).failed(2);
    assert_eq!(
        said,
        "error: \"volume\" names more than one resource in quarantine\n  \
         help: one of: volume data, 1Gi of pool 3f0c; volume data-2, 1Gi of pool 3f0c\n"
    );
}
