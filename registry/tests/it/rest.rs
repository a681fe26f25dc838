//! What people meet: documents, refusals, the audit log.

use serde_json::{Value, json};

use crate::fleet::Fleet;
use crate::people::{Rest, condition, lease_document, site_document, tenant_document};

fn refused(answer: (u16, Value), status: u16, reason: &str, field: Option<&str>) -> String {
    let (found, body) = answer;
    assert_eq!(found, status, "{body}");
    assert_eq!(body["reason"], reason, "{body}");
    assert_eq!(body["field"].as_str(), field, "{body}");
    body["message"].as_str().unwrap().to_owned()
}

#[test]
fn nobody_without_the_token_gets_anything_but_the_description() {
    let fleet = Fleet::start();
    let mut rest = fleet.rest();
    for token in ["", "0000", "admin"] {
        rest.token = token.to_owned();
        for path in ["/v1/sites", "/v1/hosts", "/v1/leases?watch=true", "/v1/nothing", "/"] {
            refused(rest.get(path), 401, "Unauthorized", None);
        }
        refused(rest.put("/v1/tenants/acme", &tenant_document("acme")), 401, "Unauthorized", None);
        assert_eq!(rest.get("/healthz"), (200, Value::String("ok".to_owned())));
        assert_eq!(rest.get("/v1/openapi.json").0, 200);
    }
    let rest = fleet.rest();
    assert_eq!(rest.get("/v1/tenants"), (200, json!([])));
}

#[test]
fn a_document_is_created_found_changed_and_deleted() {
    let fleet = Fleet::start();
    let rest = fleet.rest();
    let mut tenant = tenant_document("acme");
    assert_eq!(rest.put("/v1/tenants/acme", &tenant), (201, tenant.clone()));
    assert_eq!(rest.put("/v1/tenants/acme", &tenant).0, 200);
    tenant["spec"]["displayName"] = "Acme".into();
    assert_eq!(rest.put("/v1/tenants/acme", &tenant), (200, tenant.clone()));
    assert_eq!(rest.get("/v1/tenants/acme"), (200, tenant.clone()));
    assert_eq!(rest.get("/v1/tenants"), (200, json!([tenant])));
    assert_eq!(rest.delete("/v1/tenants/acme").0, 200);
    refused(rest.get("/v1/tenants/acme"), 404, "NotFound", None);
    refused(rest.delete("/v1/tenants/acme"), 404, "NotFound", None);

    let (status, site) = rest.put("/v1/sites/sjc-01", &site_document("sjc-01"));
    assert_eq!(status, 201);
    assert_eq!(condition(&site, "Enrolled")["reason"], "WaitingForTicket");
    assert_eq!(rest.delete("/v1/sites/sjc-01").0, 200);
    refused(rest.get("/v1/sites/sjc-01"), 404, "NotFound", None);
    let ticket = rest.ask("POST", "/v1/sites/sjc-01/join-tickets", &[]);
    refused(ticket, 404, "NotFound", None);
}

#[test]
fn a_document_that_cannot_be_read_is_refused_by_its_field() {
    let fleet = Fleet::start();
    let rest = fleet.rest();
    let put = |path: &str, text: &str| rest.ask("PUT", path, text.as_bytes());
    refused(put("/v1/tenants/acme", "{"), 400, "BadField", Some("."));
    refused(put("/v1/tenants/acme", "[]"), 400, "BadField", Some("."));
    let site = rest.put("/v1/tenants/acme", &site_document("acme"));
    refused(site, 400, "BadField", Some("kind"));
    let other = rest.put("/v1/tenants/acme", &tenant_document("other"));
    let message = refused(other, 400, "BadField", Some("metadata.name"));
    assert_eq!(message, "other: the path says acme");
    let mut wrong = site_document("sjc-01");
    wrong["spec"]["admission"]["mode"] = "always".into();
    let answer = rest.put("/v1/sites/sjc-01", &wrong);
    refused(answer, 400, "BadField", Some("spec.admission.mode"));
    refused(rest.get("/v1/tenants/UPPER"), 404, "NotFound", None);
    refused(rest.get("/v1/tenants?all=1"), 400, "BadField", Some("query"));
    refused(rest.get("/v1/hosts?tenant=acme"), 400, "BadField", Some("tenant"));
    refused(rest.get("/v1/nothing"), 404, "NotFound", None);
    refused(rest.ask("POST", "/v1/tenants", &[]), 405, "BadMethod", None);
}

fn put_lease(rest: &Rest, change: impl FnOnce(&mut Value)) -> (u16, Value) {
    let mut lease = lease_document("llm", 1, "64Mi");
    change(&mut lease);
    rest.put("/v1/tenants/acme/leases/llm", &lease)
}

#[test]
fn a_lease_that_this_version_cannot_grant_is_refused_by_its_field() {
    let fleet = Fleet::start();
    let rest = fleet.rest();
    let message = refused(put_lease(&rest, |_| {}), 404, "NotFound", Some("metadata.tenant"));
    assert_eq!(message, "no tenant acme; create it first");
    rest.put("/v1/tenants/acme", &tenant_document("acme"));

    for (field, value, at) in [
        ("gpus", json!([{ "whole": 0 }]), "[0].whole"),
        ("gpus", json!([{ "profile": "3g" }]), "[0].profile"),
        ("networks", json!([{ "network": "a" }]), ""),
        ("revocable", json!("10s"), ""),
        ("instance", json!("pod"), ""),
        ("cpus", json!(0), ""),
        ("memory", json!("1Mi"), ""),
        ("isolation", json!("none"), ""),
        ("volumes", json!([{ "name": "a" }]), "[0]"),
        ("volumes", json!([{ "name": "a", "size": "1Mi" }]), "[0].size"),
        ("hugepages", json!({ "pageSize": "2Mi", "amount": "3Mi" }), ".amount"),
        ("cache", json!({ "ways": 0 }), ".ways"),
    ] {
        let answer = put_lease(&rest, |lease| lease["spec"][field] = value);
        refused(answer, 400, "BadField", Some(&format!("spec.{field}{at}")));
    }
    let answer = put_lease(&rest, |lease| lease["spec"]["site"] = "fra-01".into());
    refused(answer, 404, "NotFound", Some("spec.site"));
    let message = refused(put_lease(&rest, |_| {}), 409, "DoesNotFit", None);
    assert_eq!(message, "no host has enrolled and reported yet");
    assert_eq!(rest.get("/v1/leases"), (200, json!([])));
    refused(rest.delete("/v1/tenants/acme/leases/llm"), 404, "NotFound", None);
    refused(rest.get("/v1/tenants/acme/leases/llm/log?lines=0"), 400, "BadField", Some("lines"));
    refused(rest.get("/v1/tenants/acme/leases/llm/log"), 404, "NotFound", None);
}

#[tokio::test]
async fn every_change_and_every_refused_one_is_in_the_audit_log() {
    let fleet = Fleet::start();
    let rest = fleet.rest();
    rest.put("/v1/tenants/acme", &tenant_document("acme"));
    rest.put("/v1/tenants/acme", &tenant_document("acme"));
    put_lease(&rest, |_| {});
    rest.get("/v1/tenants/none");
    rest.delete("/v1/tenants/acme");
    let store = fleet.store().await;
    let mut read = store.read().await.unwrap();
    let lines = bulkhead_registry::store::audit::tail(&mut read, 100).await.unwrap();
    let text: Vec<&str> = lines.iter().rev().map(|line| line.text.as_str()).collect();
    assert_eq!(
        text,
        [
            "admin PUT tenants/acme 201",
            "admin PUT tenants/acme/leases/llm 409 DoesNotFit: no host has enrolled and reported yet",
            "admin DELETE tenants/acme 200",
        ]
    );
}

#[test]
fn a_watch_tells_what_is_there_then_what_changes_and_ends_with_the_registry() {
    let mut fleet = Fleet::start();
    let rest = fleet.rest();
    rest.put("/v1/tenants/acme", &tenant_document("acme"));
    let mut watch = rest.watch("/v1/tenants?watch=true");
    let snapshot = json!({ "type": "SNAPSHOT", "object": tenant_document("acme") });
    assert_eq!(watch.next(), snapshot);
    rest.put("/v1/tenants/beta", &tenant_document("beta"));
    assert_eq!(watch.next(), json!({ "type": "CHANGED", "object": tenant_document("beta") }));
    rest.delete("/v1/tenants/acme");
    assert_eq!(watch.next(), json!({ "type": "DELETED", "object": tenant_document("acme") }));
    fleet.restart();
    assert!(watch.ended());
}

#[test]
fn the_description_is_openapi_3_1_and_has_every_path() {
    let fleet = Fleet::start();
    let (_, description) = fleet.rest().get("/v1/openapi.json");
    assert_eq!(description["openapi"], "3.1.0");
    let paths = description["paths"].as_object().unwrap();
    let mut calls: Vec<String> = paths
        .iter()
        .flat_map(|(path, calls)| {
            calls.as_object().unwrap().keys().map(move |method| format!("{method} {path}"))
        })
        .collect();
    calls.sort();
    assert_eq!(
        calls,
        [
            "delete /v1/hosts/{id}",
            "delete /v1/sites/{name}",
            "delete /v1/tenants/{name}",
            "delete /v1/tenants/{tenant}/leases/{name}",
            "get /healthz",
            "get /v1/hosts",
            "get /v1/hosts/{id}",
            "get /v1/hosts/{id}/supervisor/{path}",
            "get /v1/leases",
            "get /v1/sites",
            "get /v1/sites/{name}",
            "get /v1/tenants",
            "get /v1/tenants/{name}",
            "get /v1/tenants/{tenant}/leases/{name}",
            "get /v1/tenants/{tenant}/leases/{name}/log",
            "post /v1/fit",
            "post /v1/hosts/{id}/supervisor/{path}",
            "post /v1/sites/{name}/join-tickets",
            "put /v1/sites/{name}",
            "put /v1/tenants/{name}",
            "put /v1/tenants/{tenant}/leases/{name}",
        ]
    );
    // Every schema that is referred to is there.
    let schemas = description["components"]["schemas"].as_object().unwrap();
    let text = description.to_string();
    for name in text.split("#/components/schemas/").skip(1).map(|rest| rest.split('"').next()) {
        assert!(schemas.contains_key(name.unwrap()), "{name:?}");
    }
    assert!(schemas.contains_key("LeaseSpec"));
}
