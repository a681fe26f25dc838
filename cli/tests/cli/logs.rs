use std::collections::VecDeque;

use serde_json::json;

use crate::scene::Scene;

const LEASE: &str = "/v1/tenants/demo/leases/hello";

/// The log as it is at each question; empty = the lease is gone.
fn logged(texts: &[&str]) -> Scene {
    let scene = Scene::new();
    let texts: VecDeque<String> = texts.iter().map(|text| (*text).to_owned()).collect();
    scene.registry.fleet().logs.insert(LEASE.to_owned(), texts);
    scene
}

#[test]
fn the_last_lines_of_a_log_are_printed() {
    let scene = logged(&["a\nb\nc\n"]);
    assert_eq!(scene.run(&["logs", "demo/hello"]).ok(), "a\nb\nc\n");
    assert_eq!(scene.run(&["logs", "hello", "--tenant", "demo", "--lines", "2"]).ok(), "b\nc\n");
}

#[test]
fn a_followed_log_prints_each_line_once_until_the_lease_is_gone() {
    let scene = logged(&["1\n2\n", "1\n2\n", "1\n2\n3\n4\n", "3\n4\n5\n", ""]);
    let said = scene.run(&["logs", "demo/hello", "-f"]);
    assert_eq!(said.err, "lease demo/hello is gone\n");
    assert_eq!(said.ok(), "1\n2\n3\n4\n5\n");
}

#[test]
fn a_followed_log_that_moved_on_says_so() {
    let said = logged(&["1\n", "7\n8\n", ""]).run(&["logs", "demo/hello", "-f"]);
    assert_eq!(said.err, "lines may be missing here\nlease demo/hello is gone\n");
    assert_eq!(said.ok(), "1\n7\n8\n");
}

#[test]
fn a_follower_outlives_a_host_that_is_out_of_reach() {
    let scene = logged(&["1\n2\n", ""]);
    scene.registry.fleet().answer(&format!("GET {LEASE}/log"), 200, "1\n");
    let away = json!({ "reason": "Unavailable", "message": "host lab-01-000001 is away" });
    scene.registry.fleet().answer(&format!("GET {LEASE}/log"), 503, away.to_string());
    scene.registry.fleet().answer(&format!("GET {LEASE}/log"), 503, away.to_string());
    let said = scene.run(&["logs", "demo/hello", "-f"]);
    assert_eq!(said.err, "host lab-01-000001 is away; asking again\nlease demo/hello is gone\n");
    assert_eq!(said.ok(), "1\n2\n");
}

#[test]
fn the_log_of_a_lease_that_is_not_there_is_an_error() {
    let said = Scene::new().run(&["logs", "demo/none"]).failed(1);
    assert_eq!(said, "error: tenants/demo/leases/none is not there\n");
}
