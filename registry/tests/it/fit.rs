//! What a lease would get, asked without taking one.

use serde_json::{Value, json};

use crate::fleet::Fleet;
use crate::joined::{LEASE, joined};
use crate::people::{Rest, lease_document, tenant_document};

fn fit(rest: &Rest, lease: &Value) -> (u16, Value) {
    rest.ask("POST", "/v1/fit", lease.to_string().as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_that_would_take_a_lease_is_named_and_nothing_is_kept() {
    let fleet = Fleet::start();
    let all = joined(&fleet).await;
    let (rest, host) = (fleet.rest(), all.host.id.as_str());
    let lease = lease_document("llm", 2, "1Gi");
    let answer = json!({ "host": host, "hosts": [{ "host": host, "short": [] }] });
    assert_eq!(fit(&rest, &lease), (200, answer));
    assert_eq!(rest.get("/v1/leases"), (200, json!([])));
    // What is said is what is done.
    assert_eq!(rest.put(LEASE, &lease).1["status"]["host"], host);
    let (status, answer) = fit(&rest, &lease);
    assert_eq!((status, &answer["placed"], &answer["host"]), (200, &json!(host), &Value::Null));
    let short = json!([{ "host": host, "short": ["cpus: 2 cores wanted, 1 free of 3"] }]);
    assert_eq!(answer["hosts"], short);
    let (status, refusal) = rest.put("/v1/tenants/acme/leases/b", &lease_document("b", 2, "1Gi"));
    assert_eq!((status, &refusal["shortages"]), (409, &short));
}

#[test]
fn a_document_that_would_be_refused_is_refused_by_the_same_field() {
    let fleet = Fleet::start();
    let rest = fleet.rest();
    let lease = lease_document("llm", 1, "64Mi");
    let field = |(status, body): (u16, Value)| {
        (status, body["field"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(field(fit(&rest, &lease)), (404, "metadata.tenant".to_owned()));
    rest.put("/v1/tenants/acme", &tenant_document("acme"));
    assert_eq!(fit(&rest, &lease), (200, json!({ "hosts": [] })));
    for (name, value) in [
        ("cpus", json!(0)),
        ("memory", json!("1Mi")),
        ("gpus", json!([{ "profile": "3g.40gb", "count": 0 }])),
        ("hugepages", json!({ "pageSize": "4Ki", "amount": "4Ki" })),
        ("isolation", json!("none")),
        ("site", json!("fra-01")),
    ] {
        let mut wrong = lease.clone();
        wrong["spec"][name] = value;
        let asked = field(fit(&rest, &wrong));
        assert!(asked.1.starts_with(&format!("spec.{name}")), "{asked:?}");
        assert_eq!(asked, field(rest.put(LEASE, &wrong)), "{name}");
    }
    assert_eq!(field(fit(&rest, &tenant_document("acme"))), (400, "kind".to_owned()));
    assert_eq!(rest.get("/v1/fit").0, 405);
}
