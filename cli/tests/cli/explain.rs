//! `explain` of objects and of what would fit.

use std::io;

use expect_test::expect;
use serde_json::{Value, json};

use crate::scene::{LEASE, Scene, TENANT, host, status};

/// A lease that waits.
pub(crate) fn stuck() -> Value {
    json!({
        "apiVersion": "bulkhead.io/v1", "kind": "Lease",
        "metadata": { "name": "stuck", "tenant": "demo" },
        "spec": {
            "instance": "container", "cpus": 2, "memory": "1Gi",
            "workload": { "image": "oci://bulkhead.site/llm:7" },
        },
        "status": {
            "phase": "Pending", "host": "lab-01-000002", "starts": 0,
            "conditions": [
                { "type": "Granted", "status": "False", "reason": "ImageAbsent", "owner": "tenant",
                  "message": "the site has no image llm:7", "since": "2026-03-01T11:55:00Z",
                  "nextRetry": "2026-03-01T12:00:20Z" },
                { "type": "Running", "status": "False", "reason": "NotStarted", "owner": "supervisor",
                  "message": "the program was not started", "since": "2026-03-01T11:55:00Z" },
                { "type": "Placed", "status": "True", "reason": "Placed", "owner": "registry",
                  "since": "2026-03-01T11:54:00Z" },
            ],
        },
    })
}

/// Its host, which has something in quarantine.
pub(crate) fn troubled_host() -> Value {
    let mut host = host();
    host["metadata"]["name"] = "lab-01-000002".into();
    host["spec"]["mac"] = "52:54:00:00:00:02".into();
    host["status"]["capacity"]["coresFree"] = 1.into();
    let mut reported = status();
    reported["host"] = "lab-01-000002".into();
    reported["leases"] = json!([]);
    reported["quarantine"] = json!([{
        "resource": { "class": "device", "kind": "vf", "id": "0000:c1:00.2" },
        "lease": { "tenant": "demo", "name": "before" },
        "reason": "reset of 0000:c1:00.2: expected done, found a driver bound",
        "since": "2026-03-01T11:00:00Z",
    }]);
    host["status"]["reported"] = reported;
    host
}

fn away() -> Value {
    json!({
        "apiVersion": "bulkhead.io/v1", "kind": "Site", "metadata": { "name": "lab-01" }, "spec": {},
        "status": { "connected": false, "conditions": [
            { "type": "Connected", "status": "False", "reason": "NoStream", "owner": "site",
              "since": "2026-03-01T10:00:00Z" },
        ] },
    })
}

fn scene() -> Scene {
    let scene = Scene::with_host();
    scene.registry.fleet().put(troubled_host());
    scene.registry.fleet().put(stuck());
    scene
}

#[test]
fn a_lease_that_waits_is_explained_with_its_host_and_its_site() {
    let scene = scene();
    scene.registry.fleet().put(away());
    expect![[r#"
        lease demo/stuck is Pending on host lab-01-000002

        lease demo/stuck: Granted is False: ImageAbsent
          Waits for:   the site has no image llm:7
          Next to act: tenant
          Since:       5m0s ago
          Next try:    in 20s
          Way out:     put the image into the OCI cache of the site, or correct workload.image

        lease demo/stuck: Running is False: NotStarted
          Waits for:   the program was not started
          Next to act: supervisor
          Since:       5m0s ago
          Next try:    none is planned; at the next change
          Way out:     wait until the lease is granted; condition Granted says what that waits for

        host lab-01-000002: vf 0000:c1:00.2 is in quarantine
          Waits for:   reset of 0000:c1:00.2: expected done, found a driver bound; lease demo/before had it last
          Next to act: operator
          Since:       60m ago
          Next try:    none is planned; at the next change
          Way out:     bulkhead host quarantine on the host says why; bulkhead host quarantine retry erases it again

        site lab-01: Connected is False: NoStream
          Waits for:   nothing more is said
          Next to act: site
          Since:       2h0m ago
          Next try:    none is planned; at the next change
          Way out:     look at the site: its power, its link, journalctl -u bulkhead-site
    "#]].assert_eq(&scene.run(&["explain", "lease", "demo/stuck"]).ok());
    let beside = scene.run(&["explain", "leases", "stuck", "--tenant", "demo"]).ok();
    assert_eq!(beside, scene.run(&["explain", "lease", "demo/stuck"]).ok());
}

#[test]
fn a_lease_that_runs_as_wanted_says_so_in_one_line() {
    let scene = scene();
    scene.run_with(TENANT, &["apply", "-f", "-"]).ok();
    scene.run_with(LEASE, &["apply", "-f", "-"]).ok();
    assert_eq!(
        scene.run(&["explain", "lease", "demo/hello"]).ok(),
        "lease demo/hello runs as wanted on host lab-01-000001\n"
    );
}

#[test]
fn a_host_is_explained_with_what_is_in_quarantine() {
    let scene = scene();
    expect![[r#"
        host lab-01-000002 is Ready

        host lab-01-000002: vf 0000:c1:00.2 is in quarantine
          Waits for:   reset of 0000:c1:00.2: expected done, found a driver bound; lease demo/before had it last
          Next to act: operator
          Since:       60m ago
          Next try:    none is planned; at the next change
          Way out:     bulkhead host quarantine on the host says why; bulkhead host quarantine retry erases it again
    "#]].assert_eq(&scene.run(&["explain", "host", "lab-01-000002"]).ok());
    assert_eq!(
        scene.run(&["explain", "host", "lab-01-000001"]).ok(),
        "host lab-01-000001 is ready, as it should be\n"
    );
}

#[test]
fn a_host_that_only_its_phase_speaks_of_is_explained_by_that() {
    let scene = Scene::new();
    let mut host = host();
    host["status"] = json!({ "phase": "Joining", "reason": "enrolled, has not reported yet" });
    scene.registry.fleet().put(host);
    expect![[r#"
        host lab-01-000001 is Joining

        host lab-01-000001: Phase is Joining
          Waits for:   enrolled, has not reported yet
          Next to act: supervisor
          Since:       not known
          Next try:    none is planned; at the next change
          Way out:     wait for the host's first report; its console says how far its boot came
    "#]]
    .assert_eq(&scene.run(&["explain", "host", "lab-01-000001"]).ok());
}

#[test]
fn a_site_is_explained() {
    let scene = Scene::new();
    scene.registry.fleet().put(away());
    expect![[r#"
        site lab-01 is not as it should be

        site lab-01: Connected is False: NoStream
          Waits for:   nothing more is said
          Next to act: site
          Since:       2h0m ago
          Next try:    none is planned; at the next change
          Way out:     look at the site: its power, its link, journalctl -u bulkhead-site
    "#]]
    .assert_eq(&scene.run(&["explain", "site", "lab-01"]).ok());
}

#[test]
fn what_changes_is_explained_again_until_the_object_is_gone() {
    let scene = scene();
    let fleet = scene.registry.share();
    let mut looks = 0;
    let reader = move |_: &str| -> io::Result<()> {
        looks += 1;
        let mut fleet = fleet.lock().unwrap();
        match looks {
            1 => {
                let mut lease = stuck();
                lease["status"]["conditions"] = json!([]);
                lease["status"]["phase"] = "Running".into();
                fleet.put(lease);
            }
            2 => fleet.remove("/v1/tenants/demo/leases/stuck"),
            _ => {}
        }
        Ok(())
    };
    let said = scene.run_read(&["explain", "lease", "demo/stuck", "-w"], reader).ok();
    assert!(
        said.starts_with("lease demo/stuck is Pending on host lab-01-000002\n\nlease"),
        "{said}"
    );
    let end = "---\nlease demo/stuck runs as wanted on host lab-01-000002\n---\nlease demo/stuck is gone\n";
    assert!(said.ends_with(end), "{said}");
    assert_eq!(said.matches("---\n").count(), 2, "{said}");
}

#[test]
fn the_host_that_would_take_a_lease_is_named_and_what_is_short_elsewhere() {
    let scene = scene();
    let two = scene.file("two.yaml", &LEASE.replace("cpus: 1 ", "cpus: 2 "));
    expect![[r#"
        lease demo/hello would be placed on host lab-01-000001
          lab-01-000001: has room
          lab-01-000002: cpus: 2 cores wanted, 1 free of 3
    "#]]
    .assert_eq(&scene.run(&["explain", "fit", "-f", &two]).ok());
    let all: Vec<String> = scene.registry.fleet().requests.clone();
    assert!(all.iter().all(|request| !request.starts_with("PUT")), "{all:?}");
    let waits = scene.file("stuck.yaml", &LEASE.replace("hello", "stuck"));
    let said = scene.run(&["explain", "fit", "-f", &waits]).ok();
    assert!(said.starts_with("lease demo/stuck is on host lab-01-000002 already"), "{said}");
}

#[test]
fn a_lease_that_fits_nowhere_is_told_host_by_host_and_fails() {
    let scene = scene();
    let big = scene.file("big.yaml", &LEASE.replace("cpus: 1 ", "cpus: 64"));
    let said = scene.run(&["explain", "fit", "-f", &big]);
    assert_eq!(said.status, 1, "{}", said.all);
    expect![[r#"
        lease demo/hello fits none of the 2 hosts
          lab-01-000001: cpus: 64 cores wanted, 3 free of 3
          lab-01-000002: cpus: 64 cores wanted, 1 free of 3
        error: 1 of 1 leases would not be placed
    "#]]
    .assert_eq(&said.all);
    let scene = Scene::new();
    let said = scene.run_with(LEASE, &["explain", "fit", "-f", "-"]);
    assert!(
        said.all.starts_with("lease demo/hello fits nowhere: no host has enrolled"),
        "{}",
        said.all
    );
}

#[test]
fn a_bad_lease_is_refused_at_its_line_by_the_program_or_by_the_registry() {
    let scene = scene();
    let typo = scene.file("typo.yaml", &LEASE.replace("cpus: 1 ", "cpu: 1  "));
    let said = scene.run(&["explain", "fit", "-f", &typo]).failed(1);
    assert!(said.contains("typo.yaml:7:3: spec.cpu: unknown field `cpu`"), "{said}");
    let refusal =
        json!({ "reason": "NotFound", "message": "no site fra-01", "field": "spec.site" });
    scene.registry.fleet().answer("POST /v1/fit", 404, refusal.to_string());
    let far = scene.file("far.yaml", &LEASE.replace("spec:\n", "spec:\n  site: fra-01\n"));
    let said = scene.run(&["explain", "fit", "-f", &far]).failed(1);
    assert!(said.contains("far.yaml:6:9: spec.site: no site fra-01"), "{said}");
    let tenant = scene.file("tenant.yaml", TENANT);
    let said = scene.run(&["explain", "fit", "-f", &tenant]).failed(1);
    assert!(said.contains("kind: found `Tenant`, expected Lease"), "{said}");
}

#[test]
fn arguments_that_do_not_go_together_are_a_wrong_command_line() {
    let scene = Scene::new();
    for (arguments, says) in [
        (&["explain", "fit"][..], "fit wants a file of leases"),
        (&["explain", "fit", "x"], "fit takes no name"),
        (&["explain", "tenant", "demo"], "a tenant waits for nothing"),
        (&["explain", "lease", "-f", "x"], "-f is for explain fit"),
        (&["explain", "lease", "demo/a", "-r"], "--recursive is for fields"),
        (&["explain", "lease", "-w"], "--watch wants an object"),
        (&["explain", "lease", "--tenant", "demo"], "--tenant wants a lease"),
        (&["explain", "leese", "demo/a"], "kind \"leese\" is not known"),
        (&["explain", "lease", "a"], "lease \"a\" needs its tenant"),
    ] {
        let said = scene.run(arguments).failed(2);
        assert!(said.contains(says), "{arguments:?}: {said}");
    }
    assert_eq!(
        scene.run(&["explain", "lease", "demo/none"]).failed(1),
        "error: tenants/demo/leases/none is not there\n"
    );
}
