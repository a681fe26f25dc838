use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::{fault::nearest, read};

/// A good lease with one line put in the place of another.
fn lease_with(line: &str, new: &str) -> String {
    let good = "\
apiVersion: bulkhead.io/v1
kind: Lease
metadata: { name: hello, tenant: demo }
spec:
  instance: container
  cpus: 1
  memory: 128Mi
  workload:
    image: oci://bulkhead.site/demo:latest
";
    assert!(good.contains(line), "{line} is a line of the good lease");
    good.replace(line, new)
}

fn refused(text: &str, want: &Expect) {
    let fault = read("lease.yaml", text).expect_err("a faulty manifest");
    want.assert_eq(&fault.to_string());
}

#[test]
fn a_good_lease_is_read() {
    assert_eq!(read("f", &lease_with("kind", "kind")).expect("good").len(), 1);
}

#[test]
fn text_for_a_number_is_refused_with_its_place() {
    refused(
        &lease_with("cpus: 1", "cpus: four"),
        &expect![[r#"
        lease.yaml:6:9: spec.cpus: found the text "four", expected a whole number, 0 or more
         6 |   cpus: four
           |         ^
          help: bulkhead explain lease.spec.cpus"#]],
    );
}

#[test]
fn a_negative_number_is_refused() {
    refused(
        &lease_with("cpus: 1", "cpus: -1"),
        &expect![[r#"
        lease.yaml:6:9: spec.cpus: found the number -1, expected a whole number, 0 or more
         6 |   cpus: -1
           |         ^
          help: bulkhead explain lease.spec.cpus"#]],
    );
}

#[test]
fn half_a_core_is_refused() {
    refused(
        &lease_with("cpus: 1", "cpus: 0.5"),
        &expect![[r#"
        lease.yaml:6:9: spec.cpus: found the number 0.5, expected a whole number, 0 or more
         6 |   cpus: 0.5
           |         ^
          help: bulkhead explain lease.spec.cpus"#]],
    );
}

#[test]
fn nothing_for_a_number_is_refused() {
    refused(
        &lease_with("cpus: 1", "cpus:"),
        &expect![[r#"
        lease.yaml:6:7: spec.cpus: found nothing, expected a whole number, 0 or more
         6 |   cpus:
           |       ^
          help: bulkhead explain lease.spec.cpus"#]],
    );
}

#[test]
fn zero_cores_are_refused_before_sending() {
    refused(
        &lease_with("cpus: 1", "cpus: 0"),
        &expect![[r#"
        lease.yaml:6:9: spec.cpus: 0 cores: expected 1 or more
         6 |   cpus: 0
           |         ^
          help: bulkhead explain lease.spec.cpus"#]],
    );
}

#[test]
fn an_unknown_field_names_the_nearest_known_one() {
    refused(
        &lease_with("cpus: 1", "cpu: 1"),
        &expect![[r#"
            lease.yaml:6:3: spec.cpu: unknown field `cpu`, expected one of site, instance, cpus, memory, isolation, cpuPartition, hugepages, cache, gpus, networks, volumes, workload, revocable
             6 |   cpu: 1
               |   ^
              help: did you mean `cpus`?"#]],
    );
}

#[test]
fn an_unknown_field_far_from_all_known_lists_them() {
    refused(
        &lease_with("cpus: 1", "colour: red"),
        &expect![[r#"
            lease.yaml:6:3: spec.colour: unknown field `colour`, expected one of site, instance, cpus, memory, isolation, cpuPartition, hugepages, cache, gpus, networks, volumes, workload, revocable
             6 |   colour: red
               |   ^
              help: bulkhead explain lease.spec"#]],
    );
}

#[test]
fn a_missing_field_is_named() {
    refused(
        &lease_with("  cpus: 1\n", ""),
        &expect![[r#"
        lease.yaml:4:1: spec.cpus: missing
         4 | spec:
           | ^
          help: bulkhead explain lease.spec.cpus"#]],
    );
}

#[test]
fn a_number_for_text_says_to_quote_it() {
    refused(
        &lease_with("memory: 128Mi", "memory: 134217728"),
        &expect![[r#"
        lease.yaml:7:11: spec.memory: found the number 134217728, expected text
         7 |   memory: 134217728
           |           ^
          help: write it in quotes: "134217728""#]],
    );
}

#[test]
fn a_decimal_unit_is_refused_with_the_units_known() {
    refused(
        &lease_with("memory: 128Mi", "memory: 128MB"),
        &expect![[r#"
        lease.yaml:7:11: spec.memory: size "128MB": expected a whole number with Ki, Mi, Gi or Ti, such as 64Gi
         7 |   memory: 128MB
           |           ^
          help: bulkhead explain lease.spec.memory"#]],
    );
}

#[test]
fn too_little_memory_is_refused_with_the_least() {
    refused(
        &lease_with("memory: 128Mi", "memory: 1Mi"),
        &expect![[r#"
        lease.yaml:7:11: spec.memory: 1Mi: expected at least 16Mi
         7 |   memory: 1Mi
           |           ^
          help: bulkhead explain lease.spec.memory"#]],
    );
}

#[test]
fn a_wrong_choice_names_the_nearest() {
    refused(
        &lease_with("instance: container", "instance: contaner"),
        &expect![[r#"
        lease.yaml:5:13: spec.instance: found `contaner`, expected one of container, vm, bareMetal
         5 |   instance: contaner
           |             ^
          help: did you mean `container`?"#]],
    );
}

#[test]
fn a_choice_that_cannot_be_granted_yet_is_refused_by_name() {
    refused(
        &lease_with("cpus: 1", "cpus: 1\n  revocable: 10s"),
        &expect![[r#"
            lease.yaml:7:14: spec.revocable: opportunistic leases cannot be leased by this version of Bulkhead
             7 |   revocable: 10s
               |              ^
              help: bulkhead explain lease.spec.revocable"#]],
    );
    refused(
        &lease_with("cpus: 1", "cpus: 1\n  gpus: [{ profile: 3g.40gb, count: 0 }]"),
        &expect![[r#"
            lease.yaml:7:37: spec.gpus[0].count: 0: expected 1 to 1024
             7 |   gpus: [{ profile: 3g.40gb, count: 0 }]
               |                                     ^
              help: bulkhead explain lease.spec.gpus.count"#]],
    );
}

#[test]
fn a_name_out_of_form_is_refused() {
    refused(
        &lease_with("name: hello", "name: Hello_1"),
        &expect![[r#"
        lease.yaml:3:19: metadata.name: lease name "Hello_1": expected 1 to 40 of a-z, 0-9 and '-', beginning and ending with a letter or digit
         3 | metadata: { name: Hello_1, tenant: demo }
           |                   ^
          help: bulkhead explain lease.metadata.name"#]],
    );
}

#[test]
fn an_item_of_a_list_is_found() {
    let args = "    args: [echo, 5]\n    image:";
    refused(
        &lease_with("    image:", args),
        &expect![[r#"
        lease.yaml:9:18: spec.workload.args[1]: found the number 5, expected text
         9 |     args: [echo, 5]
           |                  ^
          help: write it in quotes: "5""#]],
    );
}

#[test]
fn a_mapping_for_text_is_refused() {
    refused(
        &lease_with("image: oci", "image: { oci: x } # oci"),
        &expect![[r#"
        lease.yaml:9:12: spec.workload.image: found a mapping, expected text
         9 |     image: { oci: x } # oci://bulkhead.site/demo:latest
           |            ^
          help: bulkhead explain lease.spec.workload.image"#]],
    );
}

#[test]
fn an_image_of_another_scheme_is_refused() {
    refused(
        &lease_with("oci://", "docker://"),
        &expect![[r#"
        lease.yaml:9:12: spec.workload.image: "docker://bulkhead.site/demo:latest": expected oci://HOST/NAME:TAG
         9 |     image: docker://bulkhead.site/demo:latest
           |            ^
          help: bulkhead explain lease.spec.workload.image"#]],
    );
}

#[test]
fn an_unknown_kind_names_the_nearest() {
    refused(
        &lease_with("kind: Lease", "kind: Leese"),
        &expect![[r#"
        lease.yaml:2:7: kind: found `Leese`, expected one of Site, Host, Tenant, Lease
         2 | kind: Leese
           |       ^
          help: did you mean `Lease`?"#]],
    );
}

#[test]
fn a_missing_kind_is_named() {
    refused(
        &lease_with("kind: Lease\n", ""),
        &expect![[r#"
        lease.yaml:1:1: kind: missing, expected one of Site, Host, Tenant, Lease
         1 | apiVersion: bulkhead.io/v1
           | ^"#]],
    );
}

#[test]
fn another_version_is_refused() {
    refused(
        &lease_with("bulkhead.io/v1", "bulkhead.io/v2"),
        &expect![[r#"
        lease.yaml:1:13: apiVersion: found `bulkhead.io/v2`, expected bulkhead.io/v1
         1 | apiVersion: bulkhead.io/v2
           |             ^
          help: did you mean `bulkhead.io/v1`?"#]],
    );
}

#[test]
fn a_list_where_a_mapping_belongs_is_refused() {
    refused(
        &lease_with("metadata: { name: hello, tenant: demo }", "metadata: [hello]"),
        &expect![[r#"
            lease.yaml:3:11: metadata: found a list, expected a mapping
             3 | metadata: [hello]
               |           ^
              help: bulkhead explain lease.metadata"#]],
    );
}

#[test]
fn a_duplicate_field_is_refused() {
    refused(
        &lease_with("cpus: 1", "cpus: 1\n  cpus: 2"),
        &expect![[r#"
        lease.yaml:7:3: not YAML: duplicate mapping key: cpus
         7 |   cpus: 2
           |   ^"#]],
    );
}

#[test]
fn a_tab_for_indentation_is_refused() {
    refused(
        &lease_with("  cpus: 1", "\tcpus: 1"),
        &expect![[r#"
        lease.yaml:5:13: not YAML: while scanning a plain scalar, found a tab
         5 |   instance: container
           |             ^"#]],
    );
}

#[test]
fn a_bracket_left_open_is_refused() {
    refused(
        &lease_with("tenant: demo }", "tenant: demo"),
        &expect![[r#"
        lease.yaml:4:5: not YAML: while parsing a flow mapping, did not find expected ',' or '}'
         4 | spec:
           |     ^"#]],
    );
}

#[test]
fn an_empty_file_is_refused() {
    refused(
        "# nothing\n",
        &expect![[r#"
        lease.yaml:1:1: no document, expected at least one with apiVersion, kind and metadata
         1 | # nothing
           | ^"#]],
    );
}

#[test]
fn a_text_alone_is_refused() {
    refused(
        "hello\n",
        &expect![[r#"
        lease.yaml:1:1: expected a document: a mapping with apiVersion, kind, metadata and spec
         1 | hello
           | ^"#]],
    );
}

#[test]
fn a_fault_in_the_second_document_is_found_at_its_line() {
    let text = lease_with("kind", "kind") + "---\n" + &lease_with("cpus: 1", "cpus: no");
    refused(
        &text,
        &expect![[r#"
        lease.yaml:16:9: spec.cpus: found the text "no", expected a whole number, 0 or more
         16 |   cpus: no
            |         ^
          help: bulkhead explain lease.spec.cpus"#]],
    );
}

#[test]
fn a_fault_in_json_is_found_at_its_line() {
    let text = r#"{
  "apiVersion": "bulkhead.io/v1", "kind": "Tenant",
  "metadata": {"name": "demo"},
  "spec": {"displayname": "Demo"}
}"#;
    refused(
        text,
        &expect![[r#"
        lease.yaml:4:12: spec.displayname: unknown field `displayname`, expected displayName
         4 |   "spec": {"displayname": "Demo"}
           |            ^
          help: did you mean `displayName`?"#]],
    );
}

#[test]
fn no_is_text_and_not_a_truth_value() {
    let text = "apiVersion: bulkhead.io/v1\nkind: Tenant\nmetadata: { name: no }\n";
    assert_eq!(read("f", text).expect("a tenant of Norway").len(), 1);
}

#[test]
fn a_list_of_documents_is_read_as_documents() {
    let tenant = r#"{"apiVersion":"bulkhead.io/v1","kind":"Tenant","metadata":{"name":"a"}}"#;
    assert_eq!(read("f", &format!("[{tenant},{tenant}]")).expect("two").len(), 2);
}

#[test]
fn a_refusal_of_the_registry_points_into_the_file() {
    let manifests = read("lease.yaml", &lease_with("kind", "kind")).expect("good");
    let fault = manifests[0].fault("spec.workload.image", "no such image".to_owned());
    expect![[r#"
        lease.yaml:9:12: spec.workload.image: no such image
         9 |     image: oci://bulkhead.site/demo:latest
           |            ^"#]]
    .assert_eq(&fault.to_string());
}

#[test]
fn near_names_are_near_and_far_ones_are_not() {
    let known = ["cpus", "memory", "displayName", "site"];
    assert_eq!(nearest("cpu", &known), Some("cpus"));
    assert_eq!(nearest("mem", &known), Some("memory"));
    assert_eq!(nearest("DisplayName", &known), Some("displayName"));
    assert_eq!(nearest("colour", &known), None);
    assert_eq!(nearest("", &known), None);
}

/// What people write: pieces of YAML, in any order.
fn scraps() -> impl Strategy<Value = String> {
    let pieces = [
        "apiVersion",
        "kind",
        "Lease",
        "metadata",
        "spec",
        "bulkhead.io/v1",
        "cpus",
        ": ",
        "\n",
        "  ",
        "- ",
        "{",
        "}",
        "[",
        "]",
        "&a",
        "*a",
        "!!int",
        "|",
        ">",
        "'",
        "\"",
        "#",
        "---\n",
        "...",
        "\t",
        "1",
        "é",
        "<<",
        "\u{feff}",
        "\u{85}",
        ",",
        "?",
        "%",
        "@",
        "~",
    ];
    proptest::collection::vec(proptest::sample::select(pieces.to_vec()), 0..40)
        .prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Err(fault) = read("f", &String::from_utf8_lossy(&bytes)) {
            prop_assert!(fault.to_string().starts_with("f:"));
        }
    }

    #[test]
    fn any_scraps_of_yaml_are_read_or_refused_without_a_panic(text in scraps()) {
        if let Err(fault) = read("f", &text) {
            prop_assert!(fault.to_string().starts_with("f:"));
        }
    }

    #[test]
    fn a_good_lease_with_any_byte_changed_is_read_or_refused(at in 0..140_usize, byte in any::<u8>()) {
        let mut bytes = lease_with("kind", "kind").into_bytes();
        bytes[at] = byte;
        if let Err(fault) = read("f", &String::from_utf8_lossy(&bytes)) {
            fault.to_string();
        }
    }

    #[test]
    fn any_path_of_a_refusal_finds_a_place(path in "[a-z.\\[\\]0-9]{0,24}") {
        let manifests = read("f", &lease_with("kind", "kind")).expect("good");
        manifests[0].fault(&path, String::new()).to_string();
    }
}
