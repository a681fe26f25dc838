//! Leases over every class against what a host has.

use serde_json::{Value, json};

use crate::fleet::Fleet;
use crate::joined::{LEASE, joined};
use crate::people::lease_document;

fn lease(changes: &[(&str, Value)]) -> Value {
    let mut lease = lease_document("llm", 1, "1Gi");
    for (name, value) in changes {
        lease["spec"][name] = value.clone();
    }
    lease
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_short_of_something_is_refused_with_each_host_and_class() {
    let fleet = Fleet::start();
    let all = joined(&fleet).await;
    let (rest, host) = (fleet.rest(), all.host.id.as_str());
    let refused = |changes: &[(&str, Value)]| {
        let (status, refusal) = rest.put(LEASE, &lease(changes));
        assert_eq!((status, &refusal["reason"]), (409, &json!("DoesNotFit")), "{refusal}");
        assert_eq!(refusal["shortages"][0]["host"], host);
        let short = refusal["shortages"][0]["short"].as_array().unwrap().clone();
        short.iter().map(|text| text.as_str().unwrap().to_owned()).collect::<Vec<String>>()
    };
    let volumes = json!([{ "name": "scratch", "size": "200Gi" }]);
    let hugepages = json!({ "pageSize": "1Gi", "amount": "9Gi" });
    let more = [("cpus", json!(4)), ("volumes", volumes), ("hugepages", hugepages)];
    assert_eq!(
        refused(&more),
        [
            "cpus: 4 cores wanted, 3 free of 3",
            "memory: 10240 MiB wanted, 7424 MiB free of 7424 MiB",
            "hugepages: 9 of 1Gi wanted, 7 fit into free memory",
            "volumes: 204800 MiB wanted, 0 MiB free of 0 MiB",
        ]
    );
    assert_eq!(
        refused(&[("isolation", json!("l3"))]),
        [
            "isolation l3: 1 cores wanted, 0 free behind last-level caches that nobody else is behind; 3 \
          more are not given at this level, beside the host's own; of 3 more the last-level cache is \
          not known"
        ]
    );
    assert_eq!(
        refused(&[("isolation", json!("socket"))]),
        [
            "isolation socket: 1 cores wanted, 0 free on sockets where nobody else has a core or memory; 3 \
          more are not given at this level, beside the host's own"
        ]
    );
    assert_eq!(rest.get("/v1/leases"), (200, json!([])), "a refusal leaves nothing behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_as_a_whole_goes_to_one_lease() {
    let fleet = Fleet::start();
    let all = joined(&fleet).await;
    let (rest, host) = (fleet.rest(), all.host.id.as_str());
    let whole = lease(&[("instance", json!("bareMetal")), ("cpus", json!(4))]);
    assert_eq!(rest.put(LEASE, &whole).0, 201);
    let free = &rest.get(&format!("/v1/hosts/{host}")).1["status"]["capacity"];
    assert_eq!((&free["cores"], &free["coresFree"]), (&json!(3), &json!(0)));
    let (status, refusal) = rest.put("/v1/tenants/acme/leases/b", &lease_document("b", 1, "64Mi"));
    assert_eq!(status, 409);
    assert_eq!(refusal["shortages"][0]["short"][0], "lease acme/llm has the host to itself");
}
