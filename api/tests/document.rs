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

/// Path of the field that the check of a lease names.
fn checked(change: impl FnOnce(&mut Value)) -> String {
    let mut json = lease();
    json.as_object_mut().unwrap().remove("kind");
    change(json.get_mut("spec").unwrap());
    from_json::<Lease>(json.to_string().as_bytes()).unwrap().spec.check().unwrap_err().0
}

#[test]
fn what_this_version_cannot_lease_is_refused_by_field() {
    let field = |change: fn(&mut Value)| checked(change);
    assert_eq!(field(|spec| spec["gpus"] = json!([{ "whole": 0 }])), "spec.gpus[0].whole");
    assert_eq!(field(|spec| spec["networks"] = json!([{}])), "spec.networks");
    let volume = |name: &str, more: Value| {
        let mut volume = json!({ "name": name, "size": "64Mi" });
        volume.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        volume
    };
    let second = |more: Value| json!([volume("a", json!({})), volume("b", more)]);
    for (volumes, wrong) in [
        (second(json!({ "name": "a" })), "spec.volumes[1].name"),
        (second(json!({ "size": "1Mi" })), "spec.volumes[1].size"),
        (second(json!({ "local": false })), "spec.volumes[1].local"),
        (second(json!({ "path": "data" })), "spec.volumes[1].path"),
        (second(json!({ "path": "/proc/x" })), "spec.volumes[1].path"),
        (second(json!({ "path": "/a/../b" })), "spec.volumes[1].path"),
        (Value::Array(vec![volume("a", json!({})); 17]), "spec.volumes"),
    ] {
        assert_eq!(checked(|spec| spec["volumes"] = volumes.clone()), wrong, "{volumes}");
    }
    let huge = |amount: &str| json!({ "pageSize": "2Mi", "amount": amount });
    for amount in ["0", "3Mi"] {
        let wrong = checked(|spec| spec["hugepages"] = huge(amount));
        assert_eq!(wrong, "spec.hugepages.amount");
    }
    let vm = |spec: &mut Value, more: &str| {
        spec["instance"] = json!("vm");
        spec["hugepages"] = huge(more);
    };
    assert_eq!(checked(|spec| vm(spec, "2Mi")), "spec.hugepages.amount", "a vm lies in them whole");
    assert_eq!(checked(|spec| spec["cache"] = json!({ "ways": 0 })), "spec.cache.ways");
    let cache = json!({ "ways": 1, "bandwidthPercent": 101 });
    assert_eq!(checked(|spec| spec["cache"] = cache.clone()), "spec.cache.bandwidthPercent");
    for (needless, value) in [
        ("isolation", json!("l3")),
        ("cpuPartition", json!("isolated")),
        ("hugepages", huge("2Mi")),
        ("cache", json!({ "ways": 1 })),
        ("volumes", json!([volume("a", json!({}))])),
    ] {
        let wrong = checked(|spec| {
            spec["instance"] = json!("bareMetal");
            spec[needless] = value.clone();
        });
        assert_eq!(wrong, format!("spec.{needless}"), "the whole host is the lease's");
    }
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
