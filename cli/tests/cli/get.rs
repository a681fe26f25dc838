use bulkhead_api::document::Document;
use expect_test::expect;
use serde_json::Value;

use crate::scene::{LEASE, SITE, Scene, TENANT};

fn filled() -> Scene {
    let scene = Scene::with_host();
    let file = scene.file("all.yaml", &[LEASE, SITE, TENANT].join("---\n"));
    scene.run(&["apply", "-f", &file]).ok();
    scene
}

#[test]
fn objects_are_shown_as_tables() {
    let scene = filled();
    let tables = ["sites", "hosts", "tenants", "leases"].map(|k| scene.run(&["get", k]).ok());
    expect![[r#"
        NAME    ADMISSION  MACHINES  CONNECTED  LAST SEEN  REASON
        lab-01  auto       any       -          -          -

        NAME           SITE    PHASE  CORES  MEMORY       GPUS  GENERATION  LAST SEEN  REASON
        lab-01-000001  lab-01  Ready  3/3    3.4Gi/3.4Gi  0     1           2s         -

        NAME  DISPLAY NAME
        demo  Demonstration

        TENANT  NAME   HOST           PHASE    CPUS  MEMORY  IMAGE                            STARTS  REASON
        demo    hello  lab-01-000001  Running  1     256Mi   oci://bulkhead.site/demo:latest  1       -
    "#]].assert_eq(&tables.join("\n"));
}

#[test]
fn a_kind_may_be_singular_and_a_name_makes_one_row() {
    let scene = filled();
    for name in [&["demo/hello"][..], &["hello", "--tenant", "demo"]] {
        let said = scene.run(&[&["get", "lease"], name].concat()).ok();
        assert_eq!(said.lines().count(), 2, "{said}");
    }
}

#[test]
fn leases_of_one_tenant_are_asked_for_as_such() {
    let scene = filled();
    let other = scene.file("o.yaml", &LEASE.replace("tenant: demo", "tenant: other"));
    scene.run(&["apply", "-f", &other]).ok();
    assert_eq!(scene.run(&["get", "leases"]).ok().lines().count(), 3);
    let said = scene.run(&["get", "leases", "--tenant", "other"]).ok();
    assert_eq!(said.lines().count(), 2);
    assert!(said.contains("other   hello"), "{said}");
}

#[test]
fn a_list_as_json_is_an_array_and_a_name_is_one_document_with_kinds() {
    let scene = filled();
    let list: Value =
        serde_json::from_str(&scene.run(&["get", "leases", "-o", "json"]).ok()).unwrap();
    assert_eq!(list[0]["kind"], "Lease");
    let one = scene.run(&["get", "lease", "demo/hello", "-o", "json"]).ok();
    let one: Value = serde_json::from_str(&one).unwrap();
    assert_eq!(one, list[0]);
    serde_json::from_value::<Vec<Document>>(list).unwrap();
    assert_eq!(scene.run(&["get", "lease", "-o", "json", "--tenant", "nobody"]).ok(), "[]\n");
}

#[test]
fn yaml_of_a_list_is_applied_again_as_it_is() {
    let scene = filled();
    let tenants =
        scene.file("t.yaml", "apiVersion: bulkhead.io/v1\nkind: Tenant\nmetadata: { name: b }\n");
    scene.run(&["apply", "-f", &tenants]).ok();
    let text = scene.run(&["get", "tenants", "-o", "yaml"]).ok();
    let said = scene.run_with(&text, &["apply", "-f", "-"]).ok();
    assert_eq!(said, "tenant b unchanged\ntenant demo unchanged\n");
    let lease = scene.run(&["get", "lease", "demo/hello", "-o", "yaml"]).ok();
    let said = scene.run_with(&lease, &["apply", "-f", "-"]).ok();
    assert_eq!(said, "lease demo/hello unchanged\n");
}

#[test]
fn an_object_that_is_not_there_is_told() {
    let said = filled().run(&["get", "lease", "demo/none"]).failed(1);
    assert_eq!(said, "error: tenants/demo/leases/none is not there\n");
}

#[test]
fn objects_are_described_with_what_belongs_to_them() {
    let scene = filled();
    let pages = [("site", "lab-01"), ("tenant", "demo"), ("lease", "demo/hello")]
        .map(|(kind, name)| scene.run(&["describe", kind, name]).ok());
    expect![[r#"
        Site:         lab-01
        Admission:    auto: every machine whose identity collides with no other

        Hosts:
          NAME           SITE    PHASE  CORES  MEMORY       GPUS  GENERATION  LAST SEEN  REASON
          lab-01-000001  lab-01  Ready  3/3    3.4Gi/3.4Gi  0     1           2s         -

        ---
        Tenant:       demo
        Display name: Demonstration

        Leases:
          TENANT  NAME   HOST           PHASE    CPUS  MEMORY  IMAGE                            STARTS  REASON
          demo    hello  lab-01-000001  Running  1     256Mi   oci://bulkhead.site/demo:latest  1       -

        ---
        Lease:        demo/hello
        Site:         any
        CPUs:         1 whole core
        Memory:       256Mi
        Image:        oci://bulkhead.site/demo:latest
        Restart:      Always
        Phase:        Running
        Host:         lab-01-000001
        Holds:        CPUs 2-3, 256Mi of nodes 0
        Starts:       1
        PID:          812

        Conditions: none
    "#]].assert_eq(&pages.join("\n---\n"));
    let host = scene.run(&["describe", "host", "lab-01-000001"]).ok();
    assert!(host.contains("Cores:        4 with 8 threads\n"), "{host}");
}

#[test]
fn arguments_that_name_no_object_are_a_wrong_command_line() {
    let scene = filled();
    let cases = [
        (&["get", "lease", "hello"][..], "needs its tenant\n  help: write TENANT/hello, or add"),
        (&["get", "sites", "--tenant", "demo"], "--tenant is for leases, and sites have none"),
        (&["get", "lease", "a/b", "--tenant", "c"], "name two tenants\n  help: leave --tenant out"),
        (&["get", "site", "Lab_01"], "expected 1 to 32 of a-z, 0-9 and '-'"),
        (&["get", "pods"], "[possible values: site, host, tenant, lease]"),
        (&["get"], "<KIND>"),
        (&["get", "hosts", "-o", "xml"], "[possible values: table, wide, yaml, json]"),
        (&["delete"], "<KIND>"),
        (&["delete", "site"], "<NAME>"),
        (&["delete", "site", "x", "-f", "y"], "cannot be used with"),
        (&["apply"], "--file <FILE>"),
        (&["wait", "site", "lab-01", "--for", "running"], "a site is never running: expected gone"),
        (&["wait", "lease", "a/b", "--for", "gone", "--timeout", "5"], "such as 90s, 5m or 1h30m"),
        (&["frobnicate"], "unrecognized subcommand"),
    ];
    for (arguments, want) in cases {
        let said = scene.run(arguments).failed(2);
        assert!(said.contains(want), "{arguments:?}: {said}");
    }
}

#[test]
fn a_reply_of_another_version_names_the_field() {
    let scene = filled();
    let reply =
        r#"{"kind":"Tenant","apiVersion":"bulkhead.io/v1","metadata":{"name":"a","age":3}}"#;
    scene.registry.fleet().answer("GET /v1/tenants/a", 200, reply);
    let said = scene.run(&["get", "tenant", "a"]).failed(1);
    assert!(said.contains("unknown field `age`"), "{said}");
    assert!(said.contains("help: the registry may be of another version"), "{said}");
}

#[test]
fn what_a_registry_says_does_not_steer_the_terminal() {
    let scene = filled();
    let refusal = r#"{"reason":"Conflict","message":"no\u001b[2J"}"#;
    scene.registry.fleet().answer("GET /v1/sites", 409, refusal);
    assert_eq!(scene.run(&["get", "sites"]).failed(1), "error: no\u{fffd}[2J\n");
}
