//! Faults of what a lease asks for besides cores and memory, each at its line and column; and the examples.

use expect_test::{Expect, expect};

use super::read;

/// A good lease with more fields behind its memory.
fn with(fields: &str) -> String {
    format!(
        "apiVersion: bulkhead.io/v1
kind: Lease
metadata: {{ name: hello, tenant: demo }}
spec:
  instance: container
  cpus: 1
  memory: 128Mi
{fields}  workload:
    image: oci://bulkhead.site/demo:latest
"
    )
}

fn refused(fields: &str, want: &Expect) {
    let fault = read("lease.yaml", &with(fields)).expect_err("a faulty manifest");
    want.assert_eq(&fault.to_string());
}

#[test]
fn every_example_is_read() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the examples") {
        let path = entry.expect("an example").path();
        let text = std::fs::read_to_string(&path).expect("text");
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        assert_eq!(read(&name, &text).expect(&name).len(), 1, "{name}");
        names.push(name);
    }
    for wanted in ["lease.yaml", "volumes.yaml", "hugepages.yaml", "isolation.yaml"] {
        assert!(names.iter().any(|name| name == wanted), "{wanted} of {names:?}");
    }
}

#[test]
fn an_isolation_that_is_none_is_refused() {
    refused(
        "  isolation: node\n",
        &expect![[r#"
        lease.yaml:8:14: spec.isolation: found `node`, expected one of core, l3, socket
         8 |   isolation: node
           |              ^
          help: did you mean `core`?"#]],
    );
}

#[test]
fn a_partition_that_is_none_is_refused() {
    refused(
        "  cpuPartition: root\n",
        &expect![[r#"
        lease.yaml:8:17: spec.cpuPartition: found `root`, expected one of member, isolated
         8 |   cpuPartition: root
           |                 ^
          help: bulkhead explain lease.spec.cpuPartition"#]],
    );
}

#[test]
fn huge_pages_of_another_size_are_refused() {
    refused(
        "  hugepages: { pageSize: 4Ki, amount: 4Mi }\n",
        &expect![[r#"
        lease.yaml:8:26: spec.hugepages.pageSize: found `4Ki`, expected one of 2Mi, 1Gi
         8 |   hugepages: { pageSize: 4Ki, amount: 4Mi }
           |                          ^
          help: bulkhead explain lease.spec.hugepages.pageSize"#]],
    );
}

#[test]
fn huge_pages_that_are_no_whole_number_are_refused() {
    refused(
        "  hugepages:\n    pageSize: 2Mi\n    amount: 3Mi\n",
        &expect![[r#"
        lease.yaml:10:13: spec.hugepages.amount: 3Mi: expected a multiple of 2Mi above 0
         10 |     amount: 3Mi
            |             ^
          help: bulkhead explain lease.spec.hugepages.amount"#]],
    );
}

#[test]
fn huge_pages_without_an_amount_are_refused() {
    refused(
        "  hugepages:\n    pageSize: 2Mi\n",
        &expect![[r#"
        lease.yaml:8:3: spec.hugepages.amount: missing
         8 |   hugepages:
           |   ^
          help: bulkhead explain lease.spec.hugepages.amount"#]],
    );
}

#[test]
fn a_part_of_the_cache_without_ways_is_refused() {
    refused(
        "  cache: { ways: 0 }\n",
        &expect![[r#"
        lease.yaml:8:18: spec.cache.ways: 0: expected 1 to 32
         8 |   cache: { ways: 0 }
           |                  ^
          help: bulkhead explain lease.spec.cache.ways"#]],
    );
}

#[test]
fn more_bandwidth_than_there_is_is_refused() {
    refused(
        "  cache: { ways: 2, bandwidthPercent: 101 }\n",
        &expect![[r#"
        lease.yaml:8:39: spec.cache.bandwidthPercent: 101: expected 1 to 100
         8 |   cache: { ways: 2, bandwidthPercent: 101 }
           |                                       ^
          help: bulkhead explain lease.spec.cache.bandwidthPercent"#]],
    );
}

#[test]
fn a_bandwidth_beyond_its_form_is_refused() {
    refused(
        "  cache: { ways: 2, bandwidthPercent: 300 }\n",
        &expect![[r#"
            lease.yaml:8:39: spec.cache.bandwidthPercent: found the number 300, expected a whole number, 0 to 255
             8 |   cache: { ways: 2, bandwidthPercent: 300 }
               |                                       ^
              help: bulkhead explain lease.spec.cache.bandwidthPercent"#]],
    );
}

#[test]
fn a_volume_without_a_size_is_refused() {
    refused(
        "  volumes:\n    - { name: data }\n",
        &expect![[r#"
            lease.yaml:9:7: spec.volumes[0].size: missing
             9 |     - { name: data }
               |       ^
              help: bulkhead explain lease.spec.volumes.size"#]],
    );
}

#[test]
fn a_volume_that_is_too_small_is_refused() {
    refused(
        "  volumes:\n    - { name: data, size: 1Mi }\n",
        &expect![[r#"
            lease.yaml:9:27: spec.volumes[0].size: 1Mi of volume data: expected at least 32Mi
             9 |     - { name: data, size: 1Mi }
               |                           ^
              help: bulkhead explain lease.spec.volumes.size"#]],
    );
}

#[test]
fn a_volume_of_a_bad_name_is_refused() {
    refused(
        "  volumes:\n    - { name: ../etc, size: 1Gi }\n",
        &expect![[r#"
            lease.yaml:9:15: spec.volumes[0].name: volume name "../etc": expected 1 to 40 of a-z, 0-9 and '-', beginning and ending with a letter or digit
             9 |     - { name: ../etc, size: 1Gi }
               |               ^
              help: bulkhead explain lease.spec.volumes.name"#]],
    );
}

#[test]
fn two_volumes_of_one_name_are_refused() {
    let volume = "    - { name: data, size: 1Gi }\n";
    refused(
        &format!("  volumes:\n{volume}{volume}"),
        &expect![[r#"
            lease.yaml:10:15: spec.volumes[1].name: two volumes are called data
             10 |     - { name: data, size: 1Gi }
                |               ^
              help: bulkhead explain lease.spec.volumes.name"#]],
    );
}

#[test]
fn a_volume_over_a_folder_of_the_kernel_is_refused() {
    refused(
        "  volumes:\n    - { name: data, size: 1Gi, path: /proc }\n",
        &expect![[r#"
            lease.yaml:9:38: spec.volumes[0].path: "/proc" of volume data: expected an absolute path outside /proc, /sys and /dev
             9 |     - { name: data, size: 1Gi, path: /proc }
               |                                      ^
              help: bulkhead explain lease.spec.volumes.path"#]],
    );
}

#[test]
fn an_unknown_field_of_a_volume_names_the_nearest_known_one() {
    refused(
        "  volumes:\n    - { name: data, size: 1Gi, paht: /data }\n",
        &expect![[r#"
        lease.yaml:9:38: spec.volumes[0].paht: unknown field `paht`, expected one of name, size, local, path
         9 |     - { name: data, size: 1Gi, paht: /data }
           |                                      ^
          help: did you mean `path`?"#]],
    );
}
