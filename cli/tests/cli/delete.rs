use serde_json::json;

use crate::scene::{LEASE, SITE, Scene, TENANT};

fn filled() -> (Scene, String) {
    let scene = Scene::with_host();
    let file = scene.file("all.yaml", &[SITE, TENANT, LEASE].join("---\n"));
    scene.run(&["apply", "-f", &file]).ok();
    (scene, file)
}

#[test]
fn a_lease_is_waited_for_until_it_is_observed_gone() {
    let (scene, _) = filled();
    let said = scene.run(&["delete", "lease", "demo/hello", "--wait"]).ok();
    assert_eq!(said, "lease demo/hello releasing\nlease demo/hello gone\n");
    let fleet = scene.registry.fleet();
    let looks = fleet.requests.iter().filter(|r| *r == "GET /v1/tenants/demo/leases/hello").count();
    // Once by apply, then four times until it was gone.
    assert_eq!(looks, 5);
}

#[test]
fn without_waiting_a_lease_is_only_releasing() {
    let (scene, _) = filled();
    let said = scene.run(&["delete", "lease", "hello", "--tenant", "demo"]).ok();
    assert_eq!(said, "lease demo/hello releasing\n");
    assert!(scene.run(&["get", "leases"]).ok().contains("Releasing"));
}

#[test]
fn waiting_in_vain_ends_with_what_is_still_there() {
    let (scene, _) = filled();
    scene.registry.fleet().looks_until_gone = u32::MAX;
    let said = scene.run(&["delete", "lease", "demo/hello", "--wait", "--timeout", "30ms"]);
    assert_eq!(said.status, 1);
    assert_eq!(said.out, "lease demo/hello releasing\n");
    assert_eq!(
        said.err,
        "error: lease demo/hello is not gone after 30 ms: Releasing\n  \
         help: bulkhead explain lease demo/hello\n"
    );
}

#[test]
fn what_a_file_describes_goes_leases_first_and_may_be_gone_already() {
    let (scene, file) = filled();
    let said = scene.run(&["delete", "-f", &file, "--wait"]).ok();
    assert_eq!(
        said,
        "lease demo/hello releasing\nlease demo/hello gone\nsite lab-01 deleted\ntenant demo deleted\n"
    );
    let said = scene.run(&["delete", "-f", &file]).ok();
    assert_eq!(said, "lease demo/hello not there\nsite lab-01 not there\ntenant demo not there\n");
}

#[test]
fn a_name_that_is_not_there_is_an_error() {
    let (scene, _) = filled();
    let said = scene.run(&["delete", "tenant", "nobody"]).failed(1);
    assert_eq!(said, "error: tenants/nobody is not there\n");
}

#[test]
fn a_refusal_of_one_does_not_keep_the_others() {
    let (scene, file) = filled();
    let refusal = json!({ "reason": "Conflict", "message": "site lab-01 has hosts" });
    scene.registry.fleet().answer("DELETE /v1/sites/lab-01", 409, refusal.to_string());
    let said = scene.run(&["delete", "-f", &file]);
    assert_eq!(said.status, 1);
    assert_eq!(said.out, "lease demo/hello releasing\ntenant demo deleted\n");
    assert_eq!(
        said.err,
        "site lab-01:\nerror: site lab-01 has hosts\nerror: 1 of 3 documents were refused\n"
    );
}

#[test]
fn a_lease_is_waited_for_until_it_runs_even_while_the_registry_is_away() {
    let (scene, _) = filled();
    let path = "GET /v1/tenants/demo/leases/hello";
    let away = json!({ "reason": "Unavailable", "message": "starting" }).to_string();
    scene.registry.fleet().answer(path, 503, away.clone());
    scene.registry.fleet().answer(path, 503, away);
    let said = scene.run(&["wait", "lease", "demo/hello", "--for", "running"]).ok();
    assert_eq!(said, "lease demo/hello running\n");
}

#[test]
fn a_host_is_waited_for_until_it_is_ready() {
    let (scene, _) = filled();
    let said = scene.run(&["wait", "host", "lab-01-000001", "--for", "ready"]).ok();
    assert_eq!(said, "host lab-01-000001 ready\n");
}

#[test]
fn a_lease_that_will_never_run_is_not_waited_for() {
    let (scene, _) = filled();
    let wait = ["wait", "lease", "demo/hello", "--for", "running"];
    scene.run(&["delete", "lease", "demo/hello"]).ok();
    assert_eq!(
        scene.run(&wait).failed(1),
        "error: lease demo/hello will not be running: Releasing, its deletion was asked for\n  \
         help: bulkhead explain lease demo/hello\n"
    );
    scene.registry.fleet().remove("/v1/tenants/demo/leases/hello");
    assert!(scene.run(&wait).failed(1).contains("will not be running: it is not there"));
}

#[test]
fn a_join_ticket_goes_to_a_file_of_its_owner_or_to_standard_output() {
    use std::os::unix::fs::PermissionsExt as _;
    let (scene, _) = filled();
    let said = scene.run(&["join-ticket", "lab-01"]);
    assert_eq!(said.err, "ticket of site lab-01, valid until 2026-03-01T13:00:00Z\n");
    assert_eq!(said.ok(), "c0ffee\n");
    let file = scene.path("ticket");
    let said = scene.run(&["join-ticket", "lab-01", "-o", &file]).ok();
    assert_eq!(
        said,
        format!("ticket of site lab-01 in {file}, valid until 2026-03-01T13:00:00Z\n")
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "c0ffee\n");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}
