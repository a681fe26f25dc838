//! Documents: golden JSON of the version that is released, and errors that name the field.

#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use bulkhead_api::document::{Document, Host, Lease, Site, from_json};
use proptest::prelude::*;
use serde_json::{Value, json};

fn lease() -> Value {
    json!({
        "apiVersion": "bulkhead.io/v1",
        "kind": "Lease",
        "metadata": { "name": "llm-a", "tenant": "acme" },
        "spec": {
            "instance": "container", "cpus": 8, "memory": "64Gi",
            "workload": { "image": "oci://bulkhead.site/demo:latest" }
        }
    })
}

fn error(change: impl FnOnce(&mut Value)) -> String {
    let mut json = lease();
    json.as_object_mut().unwrap().remove("kind");
    change(&mut json);
    from_json::<Lease>(json.to_string().as_bytes()).unwrap_err().to_string()
}

#[test]
fn a_lease_is_read_and_written_as_it_was() {
    let document: Document = from_json(lease().to_string().as_bytes()).unwrap();
    let Document::Lease(lease) = &document else { panic!("not a lease") };
    assert_eq!(lease.spec.check(), Ok(()));
    let text = serde_json::to_string_pretty(&document).unwrap();
    expect_test::expect_file!["golden/lease.json"].assert_eq(&text);
    assert_eq!(from_json::<Document>(text.as_bytes()).unwrap(), document);
}

#[test]
fn an_error_names_the_field_and_what_was_expected() {
    let wrong = error(|json| json["spec"]["cpus"] = json!("eight"));
    assert!(
        wrong.starts_with("spec.cpus: invalid type: string \"eight\", expected u32"),
        "{wrong}"
    );
    let unknown = error(|json| json["spec"]["cpu"] = json!(8));
    assert!(unknown.starts_with("spec.cpu: unknown field `cpu`, expected one of"), "{unknown}");
    let name = error(|json| json["metadata"]["tenant"] = json!("Acme"));
    assert!(name.starts_with("metadata.tenant: tenant name \"Acme\": expected"), "{name}");
    let size = error(|json| json["spec"]["memory"] = json!("64GB"));
    assert!(size.starts_with("spec.memory: size \"64GB\": expected"), "{size}");
    let version = error(|json| json["apiVersion"] = json!("v2"));
    assert!(version.contains("unknown variant `v2`, expected `bulkhead.io/v1`"), "{version}");
}

#[test]
fn what_this_version_cannot_lease_is_refused_by_field() {
    let field = |change: fn(&mut Value)| {
        let mut json = lease();
        json.as_object_mut().unwrap().remove("kind");
        change(&mut json["spec"]);
        from_json::<Lease>(json.to_string().as_bytes()).unwrap().spec.check().unwrap_err().0
    };
    assert_eq!(field(|spec| spec["instance"] = json!("vm")), "spec.instance");
    assert_eq!(field(|spec| spec["gpus"] = json!([{ "whole": 1 }])), "spec.gpus");
    assert_eq!(field(|spec| spec["networks"] = json!([{}])), "spec.networks");
    assert_eq!(field(|spec| spec["volumes"] = json!([{}])), "spec.volumes");
    assert_eq!(field(|spec| spec["cpus"] = json!(0)), "spec.cpus");
    assert_eq!(field(|spec| spec["memory"] = json!("1Mi")), "spec.memory");
    assert_eq!(field(|spec| spec["revocable"] = json!("10s")), "spec.revocable");
    assert_eq!(field(|spec| spec["workload"]["image"] = json!("busybox")), "spec.workload.image");
}

#[test]
fn a_site_that_says_nothing_of_admission_admits_nobody() {
    let site: Site =
        from_json(br#"{"apiVersion":"bulkhead.io/v1","metadata":{"name":"lab"}}"#).unwrap();
    assert_eq!(
        serde_json::to_value(&site.spec).unwrap(),
        json!({ "admission": { "mode": "list" } })
    );
}

#[test]
fn a_site_names_the_classes_of_which_it_accepts_a_weaker_erase() {
    let site = |classes: &str| {
        let spec = format!(r#"{{"weakerErase":{classes}}}"#);
        let text = format!(
            r#"{{"apiVersion":"bulkhead.io/v1","metadata":{{"name":"lab"}},"spec":{spec}}}"#
        );
        from_json::<Site>(text.as_bytes())
    };
    let spec = serde_json::to_value(site(r#"["volume","memory"]"#).unwrap().spec).unwrap();
    assert_eq!(spec["weakerErase"], json!(["memory", "volume"]));
    assert!(serde_json::to_value(site("[]").unwrap().spec).unwrap().get("weakerErase").is_none());
    assert_eq!(site(r#"["disks"]"#).unwrap_err().path, "spec.weakerErase[0]");
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        prop_assert!(from_json::<Document>(&bytes).is_err());
        prop_assert!(from_json::<Host>(&bytes).is_err());
    }
}
