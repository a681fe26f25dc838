use expect_test::{Expect, expect};

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
        &expect![[]],
    );
}

#[test]
fn a_negative_number_is_refused() {
    refused(&lease_with("cpus: 1", "cpus: -1"), &expect![[]]);
}

#[test]
fn half_a_core_is_refused() {
    refused(&lease_with("cpus: 1", "cpus: 0.5"), &expect![[]]);
}

#[test]
fn nothing_for_a_number_is_refused() {
    refused(&lease_with("cpus: 1", "cpus:"), &expect![[]]);
}

#[test]
fn zero_cores_are_refused_before_sending() {
    refused(&lease_with("cpus: 1", "cpus: 0"), &expect![[]]);
}

#[test]
fn an_unknown_field_names_the_nearest_known_one() {
    refused(&lease_with("cpus: 1", "cpu: 1"), &expect![[]]);
}

#[test]
fn an_unknown_field_far_from_all_known_lists_them() {
    refused(&lease_with("cpus: 1", "colour: red"), &expect![[]]);
}

#[test]
fn a_missing_field_is_named() {
    refused(&lease_with("  cpus: 1\n", ""), &expect![[]]);
}

#[test]
fn a_number_for_text_says_to_quote_it() {
    refused(&lease_with("memory: 128Mi", "memory: 134217728"), &expect![[]]);
}

#[test]
fn a_decimal_unit_is_refused_with_the_units_known() {
    refused(&lease_with("memory: 128Mi", "memory: 128MB"), &expect![[]]);
}

#[test]
fn too_little_memory_is_refused_with_the_least() {
    refused(&lease_with("memory: 128Mi", "memory: 1Mi"), &expect![[]]);
}

#[test]
fn a_wrong_choice_names_the_nearest() {
    refused(&lease_with("instance: container", "instance: contaner"), &expect![[]]);
}

#[test]
fn a_choice_that_cannot_be_granted_yet_is_refused_by_name() {
    refused(&lease_with("instance: container", "instance: vm"), &expect![[]]);
}

#[test]
fn a_name_out_of_form_is_refused() {
    refused(&lease_with("name: hello", "name: Hello_1"), &expect![[]]);
}

#[test]
fn an_item_of_a_list_is_found() {
    let args = "    args: [echo, 5]\n    image:";
    refused(&lease_with("    image:", args), &expect![[]]);
}

#[test]
fn a_mapping_for_text_is_refused() {
    refused(&lease_with("image: oci", "image: { oci: x } # oci"), &expect![[]]);
}

#[test]
fn an_image_of_another_scheme_is_refused() {
    refused(&lease_with("oci://", "docker://"), &expect![[]]);
}

#[test]
fn an_unknown_kind_names_the_nearest() {
    refused(&lease_with("kind: Lease", "kind: Leese"), &expect![[]]);
}

#[test]
fn a_missing_kind_is_named() {
    refused(&lease_with("kind: Lease\n", ""), &expect![[]]);
}

#[test]
fn another_version_is_refused() {
    refused(&lease_with("bulkhead.io/v1", "bulkhead.io/v2"), &expect![[]]);
}

#[test]
fn a_list_where_a_mapping_belongs_is_refused() {
    refused(&lease_with("metadata: { name: hello, tenant: demo }", "metadata: [hello]"), &expect![[]]);
}

#[test]
fn a_duplicate_field_is_refused() {
    refused(&lease_with("cpus: 1", "cpus: 1\n  cpus: 2"), &expect![[]]);
}

#[test]
fn a_tab_for_indentation_is_refused() {
    refused(&lease_with("  cpus: 1", "\tcpus: 1"), &expect![[]]);
}

#[test]
fn a_bracket_left_open_is_refused() {
    refused(&lease_with("tenant: demo }", "tenant: demo"), &expect![[]]);
}

#[test]
fn an_empty_file_is_refused() {
    refused("# nothing\n", &expect![[]]);
}

#[test]
fn a_text_alone_is_refused() {
    refused("hello\n", &expect![[]]);
}

#[test]
fn a_fault_in_the_second_document_is_found_at_its_line() {
    let text = lease_with("kind", "kind") + "---\n" + &lease_with("cpus: 1", "cpus: no");
    refused(&text, &expect![[]]);
}

#[test]
fn a_fault_in_json_is_found_at_its_line() {
    let text = r#"{
  "apiVersion": "bulkhead.io/v1", "kind": "Tenant",
  "metadata": {"name": "demo"},
  "spec": {"displayname": "Demo"}
}"#;
    refused(text, &expect![[]]);
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
    expect![[]].assert_eq(&fault.to_string());
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
