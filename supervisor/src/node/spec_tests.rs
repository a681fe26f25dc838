use std::sync::Arc;

use bulkhead_api::condition::{self, Truth};
use bulkhead_api::spec::HostSpec;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};

use super::super::report::{Moment, report};
use super::super::{Ends, starting};
use super::*;
use crate::events::Events;
use crate::host::service::Service;
use crate::node::state::Home;
use crate::testing::{Authority, DayRange, boot_files, host_id, json, spec};
use crate::uplink::identity::Named;

/// A host that enrolled in an earlier run of the supervisor.
pub(in crate::node) fn enrolled() -> (TempDir, Paths) {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let paths = boot_files(dir.path(), &authority, "127.0.0.1:1");
    let (key, request) = identity::key_and_request(&paths.identity()).unwrap();
    let chain = authority.certify(&request, DayRange::FRESH);
    let (site, link) = ("s1".parse().unwrap(), "127.0.0.1:1".to_owned());
    let named = Named { host: host_id(), site, link };
    identity::store(&paths.identity(), named, key, chain).unwrap();
    (dir, paths)
}

pub(in crate::node) fn node(paths: &Paths) -> Node {
    let status = watch::Sender::new(Arc::new(starting(paths)));
    let ends = Ends {
        uplink: mpsc::channel(1).1,
        hand_overs: mpsc::channel(1).0,
        asks: mpsc::channel(1).1,
        status,
        events: Events::new(8),
        hardware: Arc::default(),
    };
    let home = Home::Memory("none".to_owned());
    Node::new(paths.clone(), home, Service::of_process(), ends)
}

fn accepted(node: &Node) -> (u64, Truth, String) {
    let moment = Moment { now: Timestamp::now(), seq: 1, supervisor_rss: 0 };
    let status = report(&node.state, moment, &[]);
    let found = condition::find(&status.conditions, "SpecAccepted").unwrap();
    (status.accepted_generation, found.status, found.reason.clone())
}

fn taken(generation: u64) -> (u64, Truth, String) {
    (generation, Truth::True, "Accepted".to_owned())
}

fn refused(generation: u64, reason: &str) -> (u64, Truth, String) {
    (generation, Truth::False, reason.to_owned())
}

#[test]
fn the_host_is_known_from_the_start_and_no_spec_is_not_a_refusal() {
    let (_dir, paths) = enrolled();
    let node = node(&paths);
    assert_eq!(node.state.host, Some(host_id()));
    assert_eq!(node.state.boot, 3);
    assert!(node.access.is_some());
    assert_eq!(accepted(&node), (0, Truth::Unknown, "NoSpec".to_owned()));
}

#[test]
fn a_refused_spec_leaves_the_old_one_in_force_in_memory_and_on_disk() {
    let (_dir, paths) = enrolled();
    let mut node = node(&paths);
    node.offered(&json(&spec(5)));
    assert_eq!(accepted(&node), taken(5));
    let kept = std::fs::read(paths.accepted_spec()).unwrap();
    let elsewhere = HostSpec { host: "s1-000002".parse().unwrap(), ..spec(6) };
    for (offered, reason) in [
        (json(&elsewhere), "WrongHost"),
        (json(&spec(4)), "OldGeneration"),
        (b"{".to_vec(), "NotASpec"),
    ] {
        node.offered(&offered);
        assert_eq!(accepted(&node), refused(5, reason));
        assert_eq!(std::fs::read(paths.accepted_spec()).unwrap(), kept, "{reason}");
    }
    node.offered(&json(&spec(6)));
    assert_eq!(accepted(&node), taken(6));
}

#[test]
fn the_spec_in_force_handed_out_again_clears_a_refusal() {
    let (_dir, paths) = enrolled();
    let mut node = node(&paths);
    let good = json(&spec(5));
    node.offered(&good);
    node.offered(b"");
    assert_eq!(accepted(&node), refused(5, "NotASpec"));
    node.offered(&good);
    assert_eq!(accepted(&node), taken(5));
}

#[test]
fn a_restarted_supervisor_goes_on_with_the_spec_it_accepted() {
    let (_dir, paths) = enrolled();
    node(&paths).offered(&json(&spec(5)));
    let mut again = node(&paths);
    assert_eq!(accepted(&again), taken(5));
    again.offered(&json(&spec(4)));
    assert_eq!(accepted(&again), refused(5, "OldGeneration"));
}

#[test]
fn a_damaged_memory_of_the_spec_takes_no_spec_until_somebody_looks() {
    let (_dir, paths) = enrolled();
    node(&paths).offered(&json(&spec(5)));
    std::fs::write(paths.accepted_spec(), b"{\"format\":").unwrap();
    let mut again = node(&paths);
    assert_eq!(accepted(&again), refused(0, "LedgerDamaged"));
    again.offered(&json(&spec(6)));
    assert_eq!(accepted(&again), refused(0, "LedgerDamaged"));
    std::fs::remove_file(paths.accepted_spec()).unwrap();
    again.offered(&json(&spec(6)));
    assert_eq!(accepted(&again), taken(6));
}

#[test]
fn a_spec_that_cannot_be_kept_is_not_applied() {
    let (_dir, paths) = enrolled();
    let mut node = node(&paths);
    // The temporary file's name is taken by a directory.
    std::fs::create_dir(paths.run.join("accepted-spec.json.new")).unwrap();
    node.offered(&json(&spec(1)));
    assert_eq!(accepted(&node), refused(0, "LedgerUnwritable"));
}

#[test]
fn without_the_keys_of_the_image_no_spec_is_taken() {
    let (_dir, paths) = enrolled();
    std::fs::write(paths.spec_keys(), b"{}").unwrap();
    let mut node = node(&paths);
    node.offered(&json(&spec(1)));
    assert_eq!(accepted(&node), refused(0, "NoSpecKeys"));
}

#[test]
fn a_host_without_an_id_takes_no_spec() {
    let (_dir, paths) = enrolled();
    std::fs::remove_dir_all(paths.identity()).unwrap();
    let mut node = node(&paths);
    node.offered(&json(&spec(1)));
    assert_eq!(accepted(&node), refused(0, "NotEnrolled"));
}
