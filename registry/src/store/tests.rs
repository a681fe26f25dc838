//! The store on real files.

use bulkhead_api::document::TenantSpec;
use bulkhead_api::id::{HostId, LeaseId};
use bulkhead_api::site::SiteSpec;
use bulkhead_api::spec::{Base64, SignedSpec};
use bulkhead_api::status::HostStatus;
use bulkhead_api::time::Timestamp;
use tempfile::TempDir;

use super::hosts::HostRow;
use super::specs::SpecRow;
use super::*;
use crate::identity::KeyDigest;

fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

fn host() -> HostId {
    "sjc-01-000001".parse().unwrap()
}

fn lease_id() -> LeaseId {
    LeaseId { tenant: "acme".parse().unwrap(), name: "llm".parse().unwrap() }
}

fn report(boot: u64, seq: u64) -> HostStatus {
    serde_json::from_value(serde_json::json!({
        "host": host(), "boot": boot, "seq": seq, "observed": now(), "acceptedGeneration": 0,
        "settledGeneration": 0, "conditions": [], "leases": [], "inventory": {},
    }))
    .unwrap()
}

fn spec(generation: u64) -> SpecRow {
    SpecRow {
        host: host(),
        generation,
        leases: Vec::new(),
        signed: SignedSpec {
            key_id: "k".to_owned(),
            body: Base64(vec![1]),
            signature: Base64(vec![2]),
        },
        not_before: now(),
        expiry: now(),
    }
}

/// A site with a host, a tenant and a lease on it.
async fn fleet(path: &Path) -> Store {
    let store = Store::open(path).await.unwrap();
    let mut write = store.write(Durability::Durable).await.unwrap();
    let conn = write.conn();
    let site = "sjc-01".parse().unwrap();
    sites::put(conn, &site, &SiteSpec::default(), now()).await.unwrap();
    let row = HostRow {
        id: host(),
        site,
        mac: "52:54:00:00:00:01".parse().unwrap(),
        uuid: None,
        enrolled_at: now(),
    };
    hosts::insert(conn, &row).await.unwrap();
    tenants::put(conn, &lease_id().tenant, &TenantSpec::default(), now()).await.unwrap();
    let wanted = serde_json::from_value(serde_json::json!({
        "instance": "container", "cpus": 1, "memory": "64Mi", "workload": { "image": "oci://x/y:z" },
    }));
    leases::insert(conn, &lease_id(), &host(), &wanted.unwrap(), now()).await.unwrap();
    write.commit().await.unwrap();
    store
}

fn file(folder: &TempDir) -> PathBuf {
    folder.path().join("registry.db")
}

#[tokio::test]
async fn what_was_committed_is_there_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let store = fleet(&file(&folder)).await;
    let mut open = store.write(Durability::Durable).await.unwrap();
    leases::mark_deleting(open.conn(), &lease_id(), now()).await.unwrap();

    // What a killed process leaves: the file and its log, as they are on disk now.
    let left = tempfile::tempdir().unwrap();
    for name in ["registry.db", "registry.db-wal"] {
        std::fs::copy(folder.path().join(name), left.path().join(name)).unwrap();
    }
    let store = Store::open(&file(&left)).await.unwrap();
    let mut read = store.read().await.unwrap();
    let row = leases::get(&mut read, &lease_id()).await.unwrap().unwrap();
    assert_eq!((row.host, row.deleting_at), (host(), None));
}

#[tokio::test]
async fn a_transaction_that_is_dropped_never_was() {
    let folder = tempfile::tempdir().unwrap();
    let store = fleet(&file(&folder)).await;
    let mut write = store.write(Durability::Durable).await.unwrap();
    leases::delete(write.conn(), &lease_id()).await.unwrap();
    drop(write);
    let mut write = store.write(Durability::Relaxed).await.unwrap();
    assert!(leases::get(write.conn(), &lease_id()).await.unwrap().is_some());
}

#[tokio::test]
async fn the_greatest_boot_and_sequence_of_a_report_wins() {
    let folder = tempfile::tempdir().unwrap();
    let store = fleet(&file(&folder)).await;
    let mut write = store.write(Durability::Relaxed).await.unwrap();
    for (boot, seq, taken) in
        [(1, 5, true), (1, 4, false), (1, 5, false), (1, 6, true), (2, 1, true), (1, 99, false)]
    {
        let put = reports::put(write.conn(), &report(boot, seq), now()).await.unwrap();
        assert_eq!(put, taken, "boot {boot}, seq {seq}");
    }
    let last = reports::get(write.conn(), &host()).await.unwrap().unwrap().status;
    assert_eq!((last.boot, last.seq), (2, 1));
}

#[tokio::test]
async fn a_report_of_a_host_that_is_not_enrolled_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&file(&folder)).await.unwrap();
    let mut write = store.write(Durability::Relaxed).await.unwrap();
    assert!(!reports::put(write.conn(), &report(1, 1), now()).await.unwrap());
}

#[tokio::test]
async fn generations_never_go_back_and_outlive_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let store = fleet(&file(&folder)).await;
    let mut write = store.write(Durability::Durable).await.unwrap();
    for generation in [7, 6] {
        specs::put(write.conn(), &spec(generation)).await.unwrap();
    }
    leases::delete(write.conn(), &lease_id()).await.unwrap();
    hosts::delete(write.conn(), &host()).await.unwrap();
    assert_eq!(specs::get(write.conn(), &host()).await.unwrap(), Some(spec(7)));
}

#[tokio::test]
async fn a_host_with_leases_and_a_site_with_hosts_cannot_be_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let store = fleet(&file(&folder)).await;
    let mut write = store.write(Durability::Durable).await.unwrap();
    assert!(hosts::delete(write.conn(), &host()).await.is_err());
    assert!(sites::delete(write.conn(), &"sjc-01".parse().unwrap()).await.is_err());
    assert!(tenants::delete(write.conn(), &lease_id().tenant).await.is_err());
}

#[tokio::test]
async fn an_offered_key_is_known_beside_the_old_one_until_it_is_set() {
    let folder = tempfile::tempdir().unwrap();
    let store = fleet(&file(&folder)).await;
    let mut write = store.write(Durability::Durable).await.unwrap();
    let (site, old, new) =
        ("sjc-01".parse().unwrap(), KeyDigest::of(b"old"), KeyDigest::of(b"new"));
    let known = async |write: &mut Write| {
        let row = sites::get(write.conn(), &site).await.unwrap().unwrap();
        (row.knows(&old), row.knows(&new))
    };
    assert_eq!(known(&mut write).await, (false, false));
    sites::set_key(write.conn(), &site, &old).await.unwrap();
    sites::offer_key(write.conn(), &site, &new).await.unwrap();
    assert_eq!(known(&mut write).await, (true, true));
    sites::set_key(write.conn(), &site, &new).await.unwrap();
    assert_eq!(known(&mut write).await, (false, true));
}

#[tokio::test]
async fn the_audit_log_only_grows() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&file(&folder)).await.unwrap();
    let mut write = store.write(Durability::Durable).await.unwrap();
    let entry = audit::Entry {
        at: now(),
        who: "admin".to_owned(),
        action: "PUT",
        object: "tenants/acme".to_owned(),
        status: 201,
        reason: String::new(),
    };
    audit::append(write.conn(), &entry).await.unwrap();
    for sql in ["UPDATE audit SET who = 'nobody'", "DELETE FROM audit"] {
        let refused = sqlx::query(sql).execute(write.conn()).await.unwrap_err();
        assert!(refused.to_string().contains("only grows"), "{refused}");
    }
    let lines = audit::tail(write.conn(), 10).await.unwrap();
    assert_eq!(lines[0].text, "admin PUT tenants/acme 201");
}

#[tokio::test]
async fn a_value_that_was_never_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let store = fleet(&file(&folder)).await;
    let mut write = store.write(Durability::Durable).await.unwrap();
    let sql = "UPDATE leases SET spec = '{'";
    sqlx::query(sql).execute(write.conn()).await.unwrap();
    let error = leases::get(write.conn(), &lease_id()).await.unwrap_err();
    assert!(error.to_string().starts_with("leases.spec in the database: "), "{error}");
}

#[tokio::test]
async fn readers_cannot_write_and_the_file_is_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let store = fleet(&file(&folder)).await;
    let mut read = store.read().await.unwrap();
    assert!(leases::delete(&mut read, &lease_id()).await.is_err());
    for name in ["registry.db", "registry.db-wal"] {
        let mode = std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}
