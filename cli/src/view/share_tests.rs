//! Pages of leases and hosts with huge pages, caches, volumes, devices and a quarantine.

use bulkhead_api::document::Document;
use bulkhead_api::status::HostStatus;
use bulkhead_api::time::Timestamp;
use expect_test::expect;
use serde_json::{Value, json};

use super::describe::page;
use super::host;

fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

fn holding() -> Value {
    json!({
        "cpus": [2, 3], "memoryNodes": [0], "memory": "256Mi", "isolation": "l3",
        "hugepages": { "pageSize": "2Mi", "pages": [{ "node": 0, "pages": 256 }] },
        "cache": [{ "cache": 0, "mask": 15, "bandwidthPercent": 50 }],
        "volumes": [
            { "name": "data", "pool": "3f0c", "extents": [{ "start": 0, "length": 1_073_741_824 }] },
        ],
        "devices": [{ "kind": "vf", "id": "0000:c1:00.2" }],
    })
}

fn lease(instance: &str) -> Document {
    let path = if instance == "container" { json!("/srv/data") } else { Value::Null };
    serde_json::from_value(json!({
        "apiVersion": "bulkhead.io/v1", "kind": "Lease",
        "metadata": { "name": "store", "tenant": "demo" },
        "spec": {
            "instance": instance, "cpus": 1, "memory": "256Mi", "isolation": "l3",
            "cpuPartition": "isolated",
            "hugepages": { "pageSize": "2Mi", "amount": "512Mi" },
            "cache": { "ways": 4, "bandwidthPercent": 50 },
            "volumes": [{ "name": "data", "size": "1Gi", "path": path }],
            "workload": { "image": "oci://bulkhead.site/demo:latest" },
        },
        "status": {
            "phase": "Running", "host": "lab-01-000001", "starts": 1, "conditions": [],
            "holding": holding(),
        },
    }))
    .unwrap()
}

fn status() -> HostStatus {
    serde_json::from_value(json!({
        "host": "lab-01-000001", "boot": 1, "seq": 12, "observed": "2026-03-01T11:59:58Z",
        "acceptedGeneration": 1, "settledGeneration": 1, "conditions": [],
        "leases": [{ "id": { "tenant": "demo", "name": "store" }, "status": {
            "phase": "Running", "starts": 1, "pid": 812, "holding": holding(), "conditions": [],
        } }],
        "quarantine": [{
            "resource": {
                "class": "volume", "name": "old", "pool": "3f0c",
                "extents": [{ "start": 1_073_741_824, "length": 1_073_741_824 }],
            },
            "lease": { "tenant": "demo", "name": "before" },
            "reason": "marker at byte 0: expected none, found one",
            "since": "2026-03-01T11:00:00Z",
        }],
        "inventory": {
            "cpu": { "resctrl": {
                "groups": 16, "ways": 12, "minWays": 1, "shareable": 0, "minBandwidthPercent": 10,
                "bandwidthStepPercent": 10,
            } },
            "memory": [{ "id": 0, "total": "4Gi", "cpus": [0, 1, 2, 3], "hugepages": [
                { "pageSize": "2Mi", "total": 512, "free": 256 },
                { "pageSize": "1Gi", "total": 0, "free": 0 },
            ] }],
            "disks": [
                { "name": "nvme0n1", "transport": "nvme", "model": "Fast", "serial": "S1",
                  "size": "10Gi", "rotational": false,
                  "claim": { "state": "pool", "id": "3f0c", "size": "8Gi" } },
                { "name": "sda", "transport": "scsi", "model": "", "serial": "S2", "size": "1Ti",
                  "rotational": true, "claim": { "state": "foreign", "what": "an ext4 file system" } },
                { "name": "sdb", "transport": "scsi", "model": "", "serial": "S3", "size": "1Ti",
                  "rotational": true, "claim": { "state": "blank" } },
            ],
        },
    }))
    .unwrap()
}

#[test]
fn a_lease_is_shown_with_all_it_asks_for_and_holds() {
    expect![[r#"
        Lease:        demo/store
        Site:         any
        CPUs:         1 whole core
        Memory:       256Mi
        Isolation:    l3: no other lease on its last-level caches
        CPU set:      isolated: no load is balanced over its CPUs
        Huge pages:   512Mi in pages of 2Mi
        Cache:        4 ways of each last-level cache, at most 50 % of the memory bandwidth
        Volume:       data, 1Gi at /srv/data
        Image:        oci://bulkhead.site/demo:latest
        Restart:      Always
        Phase:        Running
        Host:         lab-01-000001
        Holds:        CPUs 2-3, 256Mi of nodes 0
        Holds:        vf 0000:c1:00.2
        Holds:        volume data, 1Gi of pool 3f0c
        Holds:        4 cache ways
        Holds:        256 huge pages of 2Mi
        Starts:       1

        Conditions: none
    "#]]
    .assert_eq(&page(&lease("container"), &[], now()));
}

#[test]
fn a_virtual_machine_sees_its_volumes_as_disks() {
    let text = page(&lease("vm"), &[], now());
    assert!(text.contains("Instance:     virtual machine\n"), "{text}");
    assert!(text.contains("Volume:       data, 1Gi as a disk\n"), "{text}");
}

#[test]
fn a_host_is_shown_with_what_is_left_of_its_pools_and_with_what_nobody_gets() {
    expect![[r#"
        Host:         lab-01-000001
        Boot:         1
        Observed:     2s ago
        Generation:   1 accepted, 1 settled

        Conditions: none

        Leases:
          LEASE       PHASE    CPU SET  MEMORY  STARTS  PID
          demo/store  Running  2-3      256Mi   1       812

        Held besides cores and memory:
          LEASE       RESOURCE
          demo/store  vf 0000:c1:00.2
          demo/store  volume data, 1Gi of pool 3f0c
          demo/store  4 cache ways
          demo/store  256 huge pages of 2Mi

        Quarantine:
          RESOURCE                      LAST HAD BY  FOR  REASON
          volume old, 1Gi of pool 3f0c  demo/before  60m  marker at byte 0: expected none, found one

        Hardware:
          Firmware:      (not UEFI)
          Cores:        0 with 0 threads
          Cache parts:  12 ways, 1 or more each, in 16 groups, bandwidth from 10 % in steps of 10 %
          Memory:       node 0: 4Gi, CPUs 0-3
          Huge pages:   node 0: 256 of 512 of 2Mi free
          Disk:         nvme0n1 nvme 10Gi Fast, pool 3f0c: 6Gi of 8Gi free
          Disk:         sda scsi 1Ti, not ours: an ext4 file system
          Disk:         sdb scsi 1Ti, blank
          PCI:          0 functions
    "#]]
    .assert_eq(&host::page(&status(), now()));
}

#[test]
fn a_host_shows_how_much_storage_is_free() {
    let host: Document = serde_json::from_value(json!({
        "apiVersion": "bulkhead.io/v1", "kind": "Host",
        "metadata": { "name": "lab-01-000001", "site": "lab-01" },
        "spec": { "mac": "52:54:00:00:00:01" },
        "status": { "phase": "Ready", "capacity": {
            "cores": 3, "coresFree": 1, "memory": "4Gi", "memoryFree": "1Gi",
            "storage": "8Gi", "storageFree": "6Gi",
        } },
    }))
    .unwrap();
    let text = page(&host, &[], now());
    let line = "Free:         1 of 3 cores, 1Gi of 4Gi, storage 6Gi of 8Gi\n";
    assert!(text.contains(line), "{text}");
}
