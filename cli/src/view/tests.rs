use bulkhead_api::condition::{Condition, Truth};
use bulkhead_api::document::{Document, Kind};
use bulkhead_api::time::Timestamp;
use bulkhead_api::units::Bytes;
use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::json;

use super::describe::page;
use super::table::Table;
use super::text::{age, cpu_list, rounded, trouble, yaml};
use super::{host, rows};
use crate::manifest;

fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

fn document(value: serde_json::Value) -> Document {
    serde_json::from_value(value).unwrap()
}

fn sites() -> Vec<Document> {
    let site = |name: &str, spec: serde_json::Value, status: serde_json::Value| {
        document(json!({
            "apiVersion": "bulkhead.io/v1", "kind": "Site", "metadata": { "name": name },
            "spec": spec, "status": status,
        }))
    };
    let machine =
        json!({ "mac": "52:54:00:00:00:01", "uuid": "8f7a2c1e-0000-4000-8000-000000000001" });
    let listed = json!({
        "admission": { "mode": "list", "machines": [machine] }, "weakerErase": ["volume", "memory"],
    });
    let away = json!({
        "connected": false, "lastSeen": "2026-03-01T09:30:00Z",
        "conditions": [{
            "type": "Connected", "status": "False", "reason": "StreamClosed",
            "message": "the site closed its stream", "owner": "site", "since": "2026-03-01T09:30:00Z",
        }],
    });
    let here = json!({ "connected": true, "lastSeen": "2026-03-01T11:59:57Z", "conditions": [] });
    vec![
        site("lab-01", json!({ "admission": { "mode": "auto" } }), here),
        site("sjc-04", listed, away),
        site("new", json!({}), serde_json::Value::Null),
    ]
}

fn inventory() -> serde_json::Value {
    json!({
        "systemUuid": "8f7a2c1e-0000-4000-8000-000000000001",
        "firmware": { "vendor": "QEMU", "product": "Standard PC", "biosVersion": "2025.02", "uefi": true },
        "kernel": "6.12.48+deb13-amd64", "image": "0.1.0",
        "cpu": { "model": "AMD EPYC Processor", "cores": [
            { "socket": 0, "id": 0, "node": 0, "cpus": [0, 1] },
            { "socket": 0, "id": 1, "node": 0, "cpus": [2, 3] },
            { "socket": 1, "id": 0, "node": 1, "cpus": [4, 5] },
            { "socket": 1, "id": 1, "node": 1, "cpus": [6, 7] },
        ] },
        "memory": [
            { "id": 0, "total": "1973Mi", "cpus": [0, 1, 2, 3] },
            { "id": 1, "total": "2013Mi", "cpus": [4, 5, 6, 7] },
        ],
        "nics": [{ "name": "enp1s0", "mac": "52:54:00:00:00:01", "driver": "igb", "up": true, "totalVfs": 7 }],
        "disks": [{
            "name": "nvme0n1", "transport": "nvme", "model": "QEMU NVMe Ctrl", "serial": "1",
            "size": "10Gi", "rotational": false,
        }],
        "tpm": { "name": "tpm0", "versionMajor": 2 },
        "problems": ["no NVIDIA driver: libnvidia-ml.so.1 is not there"],
    })
}

fn report() -> serde_json::Value {
    json!({
        "host": "lab-01-000001", "boot": 3, "seq": 41, "observed": "2026-03-01T11:59:58Z",
        "acceptedGeneration": 7, "settledGeneration": 6,
        "conditions": [
            { "type": "Ready", "status": "True", "reason": "Observed", "owner": "supervisor",
              "since": "2026-03-01T11:00:00Z" },
            { "type": "Settled", "status": "False", "reason": "Granting", "owner": "supervisor",
              "message": "1 of 2 leases is not as wanted", "since": "2026-03-01T11:59:50Z",
              "nextRetry": "2026-03-01T12:00:05Z" },
        ],
        "leases": [{ "id": { "tenant": "demo", "name": "hello" }, "status": {
            "phase": "Running", "starts": 1, "pid": 812,
            "holding": { "cpus": [2, 3], "memoryNodes": [0], "memory": "256Mi" },
        } }],
        "inventory": inventory(), "supervisorRss": 14_680_064,
    })
}

fn hosts() -> Vec<Document> {
    let host = |name: &str, mac: &str, status: serde_json::Value| {
        document(json!({
            "apiVersion": "bulkhead.io/v1", "kind": "Host",
            "metadata": { "name": name, "site": "lab-01" }, "spec": { "mac": mac }, "status": status,
        }))
    };
    let ready = json!({
        "phase": "Ready", "generation": 7, "lastSeen": "2026-03-01T11:59:58Z", "reported": report(),
        "capacity": { "cores": 3, "coresFree": 2, "memory": "3500Mi", "memoryFree": "3244Mi" },
    });
    let refused = json!({
        "phase": "Refused", "reason": "system UUID is that of lab-01-000001", "generation": 0,
        "lastSeen": "2026-03-01T11:49:00Z",
        "conditions": [{
            "type": "Enrolled", "status": "False", "reason": "DuplicateUuid", "owner": "operator",
            "message": "system UUID is that of lab-01-000001", "since": "2026-03-01T11:49:00Z",
        }],
    });
    vec![
        host("lab-01-000001", "52:54:00:00:00:01", ready),
        host("lab-01-000002", "52:54:00:00:00:02", refused),
    ]
}

fn tenants() -> Vec<Document> {
    vec![document(json!({
        "apiVersion": "bulkhead.io/v1", "kind": "Tenant", "metadata": { "name": "demo" },
        "spec": { "displayName": "Demonstration" },
    }))]
}

fn leases() -> Vec<Document> {
    let lease = |name: &str, status: serde_json::Value| {
        document(json!({
            "apiVersion": "bulkhead.io/v1", "kind": "Lease",
            "metadata": { "name": name, "tenant": "demo" },
            "spec": {
                "site": "lab-01", "instance": "container", "cpus": 1, "memory": "256Mi",
                "workload": { "image": "oci://bulkhead.site/demo:latest", "args": ["sleep", "1"] },
            },
            "status": status,
        }))
    };
    let running = json!({
        "phase": "Running", "host": "lab-01-000001", "starts": 2, "pid": 812,
        "holding": { "cpus": [2, 3], "memoryNodes": [0], "memory": "256Mi" },
        "imageDigest": "sha256:4f53cda18c2baa0c", "observed": "2026-03-01T11:59:58Z",
        "conditions": [{
            "type": "Granted", "status": "True", "reason": "ReadBack", "owner": "supervisor",
            "since": "2026-03-01T11:58:00Z",
        }],
    });
    let failed = json!({
        "phase": "Failed", "host": "lab-01-000001", "starts": 0,
        "conditions": [{
            "type": "Granted", "status": "False", "reason": "ImageNotFound", "owner": "tenant",
            "message": "bulkhead.site has no demo:latst", "since": "2026-03-01T11:58:00Z",
            "nextRetry": "2026-03-01T12:01:00Z",
        }],
    });
    vec![lease("hello", running), lease("oops", failed), lease("new", serde_json::Value::Null)]
}

fn table(kind: Kind, documents: &[Document], wide: bool, want: &Expect) {
    want.assert_eq(&rows::table(kind, documents, now(), wide).render(false));
}

#[test]
fn sites_as_a_table() {
    table(
        Kind::Site,
        &sites(),
        false,
        &expect![[r#"
        NAME    ADMISSION  MACHINES  CONNECTED  LAST SEEN  REASON
        lab-01  auto       any       yes        3s         -
        sjc-04  list       1         no         2h30m      StreamClosed: the site closed its stream
        new     list       0         -          -          -
    "#]],
    );
}

#[test]
fn hosts_as_a_table() {
    table(
        Kind::Host,
        &hosts(),
        false,
        &expect![[r#"
        NAME           SITE    PHASE    CORES  MEMORY       GPUS  GENERATION  LAST SEEN  REASON
        lab-01-000001  lab-01  Ready    2/3    3.1Gi/3.4Gi  0     7 (at 6)    2s         -
        lab-01-000002  lab-01  Refused  -      -            -     0           11m        system UUID is that of lab-01-000001
    "#]],
    );
}

#[test]
fn hosts_as_a_wide_table() {
    table(
        Kind::Host,
        &hosts(),
        true,
        &expect![[r#"
        NAME           SITE    PHASE    CORES  MEMORY       GPUS  GENERATION  LAST SEEN  MAC                SYSTEM UUID  KERNEL               IMAGE  REASON
        lab-01-000001  lab-01  Ready    2/3    3.1Gi/3.4Gi  0     7 (at 6)    2s         52:54:00:00:00:01  -            6.12.48+deb13-amd64  0.1.0  -
        lab-01-000002  lab-01  Refused  -      -            -     0           11m        52:54:00:00:00:02  -            -                    -      system UUID is that of lab-01-000001
    "#]],
    );
}

#[test]
fn tenants_as_a_table() {
    table(
        Kind::Tenant,
        &tenants(),
        false,
        &expect![[r#"
        NAME  DISPLAY NAME
        demo  Demonstration
    "#]],
    );
}

#[test]
fn leases_as_a_table() {
    table(
        Kind::Lease,
        &leases(),
        false,
        &expect![[r#"
        TENANT  NAME   HOST           PHASE    CPUS  MEMORY  IMAGE                            STARTS  REASON
        demo    hello  lab-01-000001  Running  1     256Mi   oci://bulkhead.site/demo:latest  2       -
        demo    oops   lab-01-000001  Failed   1     256Mi   oci://bulkhead.site/demo:latest  0       ImageNotFound: bulkhead.site has no demo:latst
        demo    new    -              Pending  1     256Mi   oci://bulkhead.site/demo:latest  0       -
    "#]],
    );
}

#[test]
fn leases_as_a_wide_table() {
    table(
        Kind::Lease,
        &leases(),
        true,
        &expect![[r#"
        TENANT  NAME   HOST           PHASE    CPUS  MEMORY  IMAGE                            STARTS  CPU SET  PID  DIGEST                   OBSERVED  REASON
        demo    hello  lab-01-000001  Running  1     256Mi   oci://bulkhead.site/demo:latest  2       2-3      812  sha256:4f53cda18c2baa0c  2s        -
        demo    oops   lab-01-000001  Failed   1     256Mi   oci://bulkhead.site/demo:latest  0       -        -    -                        -         ImageNotFound: bulkhead.site has no demo:latst
        demo    new    -              Pending  1     256Mi   oci://bulkhead.site/demo:latest  0       -        -    -                        -         -
    "#]],
    );
}

#[test]
fn a_site_as_a_page_with_its_hosts() {
    expect![[r#"
        Site:         lab-01
        Admission:    auto: every machine whose identity collides with no other
        Connected:    yes
        Last seen:    3s ago

        Conditions: none

        Hosts:
          NAME           SITE    PHASE    CORES  MEMORY       GPUS  GENERATION  LAST SEEN  REASON
          lab-01-000001  lab-01  Ready    2/3    3.1Gi/3.4Gi  0     7 (at 6)    2s         -
          lab-01-000002  lab-01  Refused  -      -            -     0           11m        system UUID is that of lab-01-000001
    "#]].assert_eq(&page(&sites()[0], &hosts(), now()));
}

#[test]
fn a_site_that_is_away_as_a_page_with_the_reason() {
    expect![[r#"
        Site:         sjc-04
        Admission:    list: only the machines named here
        Machine:      52:54:00:00:00:01 8f7a2c1e-0000-4000-8000-000000000001
        Weaker erase: accepted of memory, volume
        Connected:    no
        Last seen:    2h30m ago

        Conditions:
          TYPE       STATUS  REASON        FOR    NEXT TO ACT  RETRY  MESSAGE
          Connected  False   StreamClosed  2h30m  site         -      the site closed its stream

        Hosts: none
    "#]]
    .assert_eq(&page(&sites()[1], &[], now()));
}

#[test]
fn a_host_as_a_page_with_what_it_reported() {
    expect![[r#"
        Host:         lab-01-000001
        Site:         lab-01
        MAC:          52:54:00:00:00:01
        Phase:        Ready
        Last seen:    2s ago
        Generation:   7 signed, 7 accepted, 6 settled
        Free:         2 of 3 cores, 3.1Gi of 3.4Gi

        Conditions:
          TYPE     STATUS  REASON    FOR  NEXT TO ACT  RETRY  MESSAGE
          Ready    True    Observed  60m  supervisor   -      -
          Settled  False   Granting  10s  supervisor   in 5s  1 of 2 leases is not as wanted

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
          NIC:          enp1s0 52:54:00:00:00:01 igb up, 0 of 7 VFs
          Disk:         nvme0n1 nvme 10Gi QEMU NVMe Ctrl
          TPM:          tpm0 version 2
          PCI:          0 functions
          Problem:      no NVIDIA driver: libnvidia-ml.so.1 is not there
    "#]]
    .assert_eq(&page(&hosts()[0], &[], now()));
}

#[test]
fn a_host_that_was_refused_as_a_page() {
    expect![[r#"
        Host:         lab-01-000002
        Site:         lab-01
        MAC:          52:54:00:00:00:02
        Phase:        Refused
        Reason:       system UUID is that of lab-01-000001
        Last seen:    11m ago
        Generation:   0 signed

        Seen by site and registry:
          TYPE      STATUS  REASON         FOR  NEXT TO ACT  RETRY  MESSAGE
          Enrolled  False   DuplicateUuid  11m  operator     -      system UUID is that of lab-01-000001
    "#]].assert_eq(&page(&hosts()[1], &[], now()));
}

#[test]
fn a_tenant_as_a_page_with_its_leases() {
    expect![[r#"
        Tenant:       demo
        Display name: Demonstration

        Leases:
          TENANT  NAME   HOST           PHASE    CPUS  MEMORY  IMAGE                            STARTS  REASON
          demo    hello  lab-01-000001  Running  1     256Mi   oci://bulkhead.site/demo:latest  2       -
          demo    oops   lab-01-000001  Failed   1     256Mi   oci://bulkhead.site/demo:latest  0       ImageNotFound: bulkhead.site has no demo:latst
          demo    new    -              Pending  1     256Mi   oci://bulkhead.site/demo:latest  0       -
    "#]].assert_eq(&page(&tenants()[0], &leases(), now()));
}

#[test]
fn a_lease_as_a_page() {
    expect![[r#"
        Lease:        demo/hello
        Site:         lab-01
        CPUs:         1 whole core
        Memory:       256Mi
        Image:        oci://bulkhead.site/demo:latest
        Arguments:    sleep 1
        Restart:      Always
        Phase:        Running
        Host:         lab-01-000001
        Holds:        CPUs 2-3, 256Mi of nodes 0
        Digest:       sha256:4f53cda18c2baa0c
        Starts:       2
        PID:          812
        Observed:     2s ago

        Conditions:
          TYPE     STATUS  REASON    FOR   NEXT TO ACT  RETRY  MESSAGE
          Granted  True    ReadBack  2m0s  supervisor   -      -
    "#]]
    .assert_eq(&page(&leases()[0], &[], now()));
}

#[test]
fn a_lease_that_failed_as_a_page() {
    expect![[r#"
        Lease:        demo/oops
        Site:         lab-01
        CPUs:         1 whole core
        Memory:       256Mi
        Image:        oci://bulkhead.site/demo:latest
        Arguments:    sleep 1
        Restart:      Always
        Phase:        Failed
        Host:         lab-01-000001
        Starts:       0

        Conditions:
          TYPE     STATUS  REASON         FOR   NEXT TO ACT  RETRY   MESSAGE
          Granted  False   ImageNotFound  2m0s  tenant       in 60s  bulkhead.site has no demo:latst
    "#]]
    .assert_eq(&page(&leases()[1], &[], now()));
}

#[test]
fn a_report_of_the_supervisor_as_a_page() {
    let report = serde_json::from_value(report()).unwrap();
    expect![[r#"
        Host:         lab-01-000001
        Boot:         3
        Observed:     2s ago
        Generation:   7 accepted, 6 settled
        Supervisor:   14Mi resident

        Conditions:
          TYPE     STATUS  REASON    FOR  NEXT TO ACT  RETRY  MESSAGE
          Ready    True    Observed  60m  supervisor   -      -
          Settled  False   Granting  10s  supervisor   in 5s  1 of 2 leases is not as wanted

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
          NIC:          enp1s0 52:54:00:00:00:01 igb up, 0 of 7 VFs
          Disk:         nvme0n1 nvme 10Gi QEMU NVMe Ctrl
          TPM:          tpm0 version 2
          PCI:          0 functions
          Problem:      no NVIDIA driver: libnvidia-ml.so.1 is not there
    "#]]
    .assert_eq(&host::page(&report, now()));
}

#[test]
fn a_lease_as_yaml() {
    expect![[r#"
        apiVersion: bulkhead.io/v1
        kind: Lease
        metadata:
          name: oops
          tenant: demo
        spec:
          site: lab-01
          instance: container
          cpus: 1
          memory: 256Mi
          isolation: core
          cpuPartition: member
          workload:
            image: oci://bulkhead.site/demo:latest
            args:
            - sleep
            - "1"
            restart: always
        status:
          phase: Failed
          host: lab-01-000001
          starts: 0
          conditions:
          - type: Granted
            status: "False"
            reason: ImageNotFound
            message: bulkhead.site has no demo:latst
            owner: tenant
            since: "2026-03-01T11:58:00Z"
            nextRetry: "2026-03-01T12:01:00Z"
    "#]]
    .assert_eq(&yaml(&leases()[1]).unwrap());
}

#[test]
fn every_document_as_yaml_is_read_back_as_it_was() {
    for document in [sites(), hosts(), tenants(), leases()].concat() {
        let text = yaml(&document).unwrap();
        let mut read = manifest::read("f", &text).unwrap_or_else(|fault| panic!("{fault}\n{text}"));
        assert_eq!(read.remove(0).document, document, "{text}");
    }
}

#[test]
fn states_are_coloured_and_columns_stay_in_line() {
    let header = vec!["PHASE", "X"];
    let cells = |phase: &str| vec![phase.to_owned(), "x".to_owned()];
    let rows = vec![cells("Running"), cells("Failed"), cells("Pending"), cells("Other")];
    let table = Table { header, rows };
    let text = table.render(true);
    assert!(text.contains("\x1b[32mRunning\x1b[0m  x\n\x1b[31mFailed \x1b[0m  x\n"), "{text:?}");
    let plain = ["\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m"]
        .iter()
        .fold(text, |text, code| text.replace(code, ""));
    assert_eq!(plain, table.render(false));
}

#[test]
fn what_steers_a_terminal_does_not_reach_it() {
    let rows = vec![vec!["a\x1b[2Jb\r\nc".to_owned()]];
    assert_eq!(Table { header: vec!["X"], rows }.render(true), "X\na [2Jb  c\n");
}

#[test]
fn ages_have_one_or_two_units() {
    let before = |seconds: i64| Timestamp::from_second(now().as_second() - seconds).unwrap();
    let ages = [-5, 0, 119, 120, 605, 7_199, 7_260, 172_800];
    let texts = ages.map(|seconds| age(now(), before(seconds)));
    assert_eq!(texts, ["0s", "0s", "119s", "2m0s", "10m", "119m", "2h1m", "2d"]);
}

#[test]
fn amounts_are_rounded_down() {
    let amounts = [0, 1023, 1 << 10, (2 << 30) - 1, 2 << 30, 10 << 30, u64::MAX];
    let texts = amounts.map(|bytes| rounded(Bytes::new(bytes)));
    assert_eq!(texts, ["0", "1023", "1Ki", "1.9Gi", "2Gi", "10Gi", "16777215Ti"]);
}

#[test]
fn cpus_are_listed_as_linux_does() {
    assert_eq!(cpu_list(&[0, 1, 2, 3, 8, 10, 11]), "0-3,8,10-11");
    assert_eq!(cpu_list(&[]), "");
    assert_eq!(cpu_list(&[u32::MAX]), "4294967295");
}

#[test]
fn trouble_is_what_does_not_hold_before_what_is_unknown() {
    let condition = |kind: &str, status, message: &str| Condition {
        kind: kind.to_owned(),
        status,
        reason: format!("{kind}Reason"),
        message: message.to_owned(),
        owner: "operator".to_owned(),
        since: now(),
        next_retry: None,
    };
    let unknown = condition("A", Truth::Unknown, "");
    let bad = condition("B", Truth::False, "why");
    assert_eq!(trouble(&[unknown.clone(), bad]), "BReason: why");
    assert_eq!(trouble(&[unknown]), "AReason");
    assert_eq!(trouble(&[condition("C", Truth::True, "fine")]), "");
}

proptest! {
    #[test]
    fn any_cells_make_as_many_lines_as_rows(rows in proptest::collection::vec(proptest::collection::vec(any::<String>(), 0..4), 0..6)) {
        let count = rows.len();
        let table = Table { header: vec!["A", "B", "C"], rows };
        prop_assert_eq!(table.render(false).lines().count(), count + 1);
        prop_assert_eq!(table.render(true).lines().count(), count + 1);
    }

    #[test]
    fn any_time_has_an_age(then in any::<i32>(), now in any::<i32>()) {
        let at = |seconds: i32| Timestamp::from_second(seconds.into()).unwrap();
        prop_assert!(!age(at(now), at(then)).is_empty());
    }

    #[test]
    fn a_rounded_amount_is_at_most_six_characters_below_a_pebi(bytes in 0..(1_u64 << 50)) {
        prop_assert!(rounded(Bytes::new(bytes)).len() <= 6);
    }
}
