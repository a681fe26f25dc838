use std::io;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::scene::Scene;

/// A lease in a phase.
fn lease(phase: &str, starts: u32, observed: &str) -> Value {
    named("hello", phase, starts, observed)
}

fn named(name: &str, phase: &str, starts: u32, observed: &str) -> Value {
    json!({
        "apiVersion": "bulkhead.io/v1", "kind": "Lease",
        "metadata": { "name": name, "tenant": "demo" },
        "spec": {
            "instance": "container", "cpus": 1, "memory": "256Mi",
            "workload": { "image": "oci://bulkhead.site/demo:latest" },
        },
        "status": { "phase": phase, "starts": starts, "observed": observed },
    })
}

/// What to do when a text was printed.
type Step = (&'static str, fn(&Scene));

/// Runs a watch. Each step waits until its text was printed and then does what it says; the last leaves.
fn watch(arguments: &[&str], steps: Vec<Step>) -> crate::scene::Said {
    let scene = Arc::new(Scene::new());
    scene.registry.fleet().put(lease("Pending", 0, "2026-03-01T11:59:00Z"));
    let theirs = Arc::clone(&scene);
    let steps = Mutex::new(steps.into_iter().peekable());
    scene.run_read(arguments, move |text| {
        let mut steps = steps.lock().unwrap();
        while let Some((_, act)) = steps.next_if(|(want, _)| text.contains(want)) {
            act(&theirs);
        }
        match steps.peek() {
            Some(_) => Ok(()),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    })
}

fn run_it(scene: &Scene) {
    let mut fleet = scene.registry.fleet();
    // Only its clock moves: not worth a line.
    fleet.put(lease("Pending", 0, "2026-03-01T11:59:30Z"));
    fleet.put(lease("Running", 1, "2026-03-01T11:59:40Z"));
}

fn remove_it(scene: &Scene) {
    scene.registry.fleet().remove("/v1/tenants/demo/leases/hello");
}

fn end_watches(scene: &Scene) {
    scene.registry.fleet().end_watches();
}

fn remove_it_unseen(scene: &Scene) {
    let mut fleet = scene.registry.fleet();
    fleet.end_watches();
    fleet.remove("/v1/tenants/demo/leases/hello");
}

fn add_another(scene: &Scene) {
    scene.registry.fleet().put(named("another", "Running", 1, "2026-03-01T11:59:00Z"));
}

fn nothing(_: &Scene) {}

#[test]
fn a_watched_table_prints_the_rows_that_change() {
    let said = watch(
        &["get", "leases", "-w", "-o", "wide"],
        vec![("Pending", run_it), ("Running", remove_it), ("deleted", nothing)],
    );
    let rows: Vec<&str> = said.out.lines().map(str::trim_end).collect();
    assert_eq!(rows.len(), 4, "{}", said.out);
    assert!(rows[0].starts_with("TENANT  NAME   HOST  PHASE"), "{}", said.out);
    assert!(rows[1].contains("Pending"), "{}", said.out);
    assert!(rows[2].contains("Running"), "{}", said.out);
    assert_eq!(rows[3], "lease demo/hello deleted");
    assert_eq!(said.err, "");
    assert_eq!(said.status, 0, "the reader has left");
}

#[test]
fn a_watch_that_breaks_is_opened_again_without_telling_twice() {
    let said = watch(
        &["get", "leases", "-w"],
        vec![("Pending", end_watches), ("Pending", run_it), ("Running", nothing)],
    );
    assert_eq!(said.out.matches("Pending").count(), 1, "{}", said.out);
    assert_eq!(said.out.matches("TENANT").count(), 1, "{}", said.out);
}

#[test]
fn what_went_while_no_watch_was_open_is_told() {
    let said = watch(
        &["get", "leases", "-w"],
        vec![("Pending", add_another), ("another", remove_it_unseen), ("deleted", nothing)],
    );
    assert_eq!(said.err, "watch broken: the registry ended it; opening another\n");
    assert_eq!(said.out.lines().last(), Some("lease demo/hello deleted"));
    assert_eq!(said.out.matches("another").count(), 1, "{}", said.out);
    assert_eq!(said.status, 0);
}

#[test]
fn a_watched_object_that_goes_unseen_is_told() {
    let said = watch(
        &["get", "lease", "demo/hello", "-w"],
        vec![("Pending", remove_it_unseen), ("deleted", nothing)],
    );
    assert_eq!(said.out.lines().last(), Some("lease demo/hello deleted"));
}

#[test]
fn a_watch_as_json_is_an_event_a_line() {
    let said = watch(
        &["get", "leases", "-w", "-o", "json"],
        vec![("Pending", run_it), ("Running", remove_it), ("DELETED", nothing)],
    );
    let events: Vec<Value> =
        said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<(&str, &str)> = events
        .iter()
        .map(|event| {
            let phase = event["object"]["status"]["phase"].as_str().unwrap();
            (event["type"].as_str().unwrap(), phase)
        })
        .collect();
    // In JSON everything is told, that only a clock moved too.
    assert_eq!(
        told,
        [
            ("SNAPSHOT", "Pending"),
            ("CHANGED", "Pending"),
            ("CHANGED", "Running"),
            ("DELETED", "Running")
        ]
    );
    assert_eq!(events[0]["object"]["kind"], "Lease");
}

#[test]
fn a_watch_of_what_is_not_there_does_not_begin() {
    let scene = Scene::new();
    let said = scene.run(&["get", "lease", "demo/none", "-w"]).failed(1);
    assert_eq!(said, "error: tenants/demo/leases/none is not there\n");
}
