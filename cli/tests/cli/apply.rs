use expect_test::expect;
use serde_json::json;

use crate::scene::{LEASE, SITE, Scene, TENANT};

#[test]
fn documents_are_created_changed_and_left_unchanged() {
    let scene = Scene::with_host();
    let file = scene.file("all.yaml", &[LEASE, SITE, TENANT].join("---\n"));
    let said = scene.run(&["apply", "-f", &file]).ok();
    assert_eq!(said, "site lab-01 created\ntenant demo created\nlease demo/hello created\n");
    let said = scene.run(&["apply", "-f", &file]).ok();
    assert_eq!(said, "site lab-01 unchanged\ntenant demo unchanged\nlease demo/hello unchanged\n");
    let more = scene.file("more.yaml", &LEASE.replace("256Mi", "512Mi"));
    assert_eq!(scene.run(&["apply", "-f", &more]).ok(), "lease demo/hello changed\n");
}

#[test]
fn documents_are_read_from_standard_input_and_from_several_files() {
    let scene = Scene::with_host();
    let tenant = scene.file("tenant.yaml", TENANT);
    let said = scene.run_with(LEASE, &["apply", "-f", "-", "-f", &tenant]).ok();
    assert_eq!(said, "tenant demo created\nlease demo/hello created\n");
}

#[test]
fn a_lease_larger_than_every_host_is_refused_with_the_numbers_of_each() {
    let scene = Scene::with_host();
    let file = scene.file("lease.yaml", &LEASE.replace("cpus: 1 ", "cpus: 64"));
    let said = scene.run(&["apply", "-f", &file]).failed(1).replace(&file, "lease.yaml");
    expect![[r#"
        error: lease.yaml:7:9: spec.cpus: no host has room for the lease
         7 |   cpus: 64                      # whole physical cores, SMT siblings together
           |         ^
          lab-01-000001: cpus: 64 cores wanted, 2 free of 3
          lab-01-000002: cpus: no core free of 3; memory: 64Gi wanted, 2Gi free
    "#]]
    .assert_eq(&said);
}

#[test]
fn a_refusal_of_the_registry_points_to_the_line() {
    let scene = Scene::with_host();
    let text = format!("{TENANT}---\n{LEASE}");
    let file = scene.file("lease.yaml", &text);
    let refusal = json!({
        "reason": "BadField", "field": "spec.workload.image",
        "message": "bulkhead.site has no image demo:latest",
    });
    let put = "PUT /v1/tenants/demo/leases/hello";
    scene.registry.fleet().answer(put, 422, refusal.to_string());
    let said = scene.run(&["apply", "-f", &file]);
    assert_eq!(said.status, 1);
    assert_eq!(said.out, "tenant demo created\n");
    expect![[r#"
        error: lease.yaml:16:12: spec.workload.image: bulkhead.site has no image demo:latest
         16 |     image: "oci://bulkhead.site/demo:latest"
            |            ^
        error: 1 of 2 documents were refused
    "#]]
    .assert_eq(&said.err.replace(&file, "lease.yaml"));
}

#[test]
fn a_refusal_without_a_field_names_the_document() {
    let scene = Scene::with_host();
    let file = scene.file("lease.yaml", LEASE);
    let refusal = json!({ "reason": "NotFound", "message": "tenant demo is not there" });
    let put = "PUT /v1/tenants/demo/leases/hello";
    scene.registry.fleet().answer(put, 404, refusal.to_string());
    let said = scene.run(&["apply", "-f", &file]).failed(1).replace(&file, "lease.yaml");
    expect![[r#"
        error: lease.yaml:2:1: lease demo/hello: tenant demo is not there
         2 | apiVersion: bulkhead.io/v1
           | ^
    "#]]
    .assert_eq(&said);
}

#[test]
fn a_fault_in_any_file_keeps_every_document_back() {
    let scene = Scene::with_host();
    let good = scene.file("tenant.yaml", TENANT);
    let bad = scene.file("lease.yaml", &LEASE.replace("cpus: 1 ", "cpus: four"));
    let said = scene.run(&["apply", "-f", &good, "-f", &bad]).failed(1).replace(&bad, "lease.yaml");
    expect![[r#"
        error: lease.yaml:7:9: spec.cpus: found the text "four", expected a whole number, 0 or more
         7 |   cpus: four                      # whole physical cores, SMT siblings together
           |         ^
          help: bulkhead explain lease.spec.cpus
    "#]]
    .assert_eq(&said);
    let puts = scene.registry.fleet().requests.iter().filter(|r| r.starts_with("PUT")).count();
    assert_eq!(puts, 0);
}

#[test]
fn a_host_cannot_be_applied() {
    let scene = Scene::with_host();
    let yaml = scene.run(&["get", "host", "lab-01-000001", "-o", "yaml"]).ok();
    let file = scene.file("host.yaml", &yaml);
    let said = scene.run(&["apply", "-f", &file]).failed(1).replace(&file, "host.yaml");
    expect![[r#"
        error: host.yaml:2:7: kind: hosts are written by the system only
         2 | kind: Host
           |       ^
          help: machines become hosts by booting at a site that admits them: bulkhead explain site.spec.admission
    "#]].assert_eq(&said);
}

#[test]
fn a_reply_that_is_no_refusal_of_a_registry_is_told() {
    let scene = Scene::with_host();
    let file = scene.file("tenant.yaml", TENANT);
    scene.registry.fleet().answer("PUT /v1/tenants/demo", 502, "<html>");
    let said = scene.run(&["apply", "-f", &file]).failed(1);
    let url = &scene.registry.url;
    assert_eq!(
        said,
        format!(
            "error: {url} answers with status 502, not as a registry\n  \
             help: is this the URL of a registry?\n"
        )
    );
}

#[test]
fn a_redirect_is_not_followed_with_the_token() {
    let scene = Scene::with_host();
    scene.registry.fleet().answer("GET /v1/sites", 307, "");
    let said = scene.run(&["get", "sites"]).failed(1);
    assert!(said.contains("answers with status 307"), "{said}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let scene = Scene::with_host();
    let said = scene.run(&["apply", "-f", "/nowhere/lease.yaml"]).failed(1);
    assert!(said.starts_with("error: read /nowhere/lease.yaml: No such file"), "{said}");
}

#[test]
fn bytes_that_are_no_text_are_refused_at_their_place() {
    let scene = Scene::with_host();
    let path = scene.path("bytes.yaml");
    std::fs::write(&path, b"kind: Lease\nspec: \xff\xfe\n").unwrap();
    let said = scene.run(&["apply", "-f", &path]).failed(1);
    assert!(said.starts_with(&format!("error: {path}:")), "{said}");
}
