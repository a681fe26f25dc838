use bulkhead_api::condition::{self, Truth};

use super::super::report::{Moment, report};
use super::super::spec::tests::{enrolled, node};
use super::*;

fn reason(node: &Node, kind: &str) -> (Truth, String) {
    let moment = Moment { now: Timestamp::now(), seq: 1, supervisor_rss: 0 };
    let status = report(&node.state, moment, &[]);
    let found = condition::find(&status.conditions, kind).unwrap();
    (found.status, found.reason.clone())
}

#[tokio::test]
async fn hardware_that_hangs_is_said_and_leases_are_looked_after_all_the_same() {
    let (_dir, paths) = enrolled();
    let mut node = node(&paths);
    node.hardware_due = None;
    node.hardware_since = Some(Instant::now());
    node.start_jobs();
    assert!(matches!(node.seat, Seat::Absent), "it is waited for a while");
    node.hardware_since = Instant::now().checked_sub(HARDWARE_PATIENCE + LOOK);
    node.start_jobs();
    assert!(matches!(node.seat, Seat::Busy(_)), "the domain is opened");
    assert_eq!(reason(&node, "HardwareReadable"), (Truth::False, "NoAnswer".to_owned()));
    node.done(Done::Hardware(Box::default()));
    node.start_jobs();
    assert_eq!(reason(&node, "HardwareReadable"), (Truth::True, "AllRead".to_owned()));
}

#[test]
fn a_host_whose_leases_could_not_be_looked_at_is_not_ready() {
    let (_dir, paths) = enrolled();
    let mut node = node(&paths);
    node.state.domain = domain(None, &Pass::default());
    assert_eq!(reason(&node, "Ready"), (Truth::True, "Observed".to_owned()));
    let unseen = Pass { unseen: Some("no answer".to_owned()), ..Pass::default() };
    node.state.domain = domain(None, &unseen);
    assert_eq!(reason(&node, "Ready"), (Truth::False, "SystemdUnreachable".to_owned()));
}

#[test]
fn hardware_is_read_often_while_drivers_are_still_coming() {
    assert_eq!(next_reading(Duration::from_secs(20)), LOOK);
    assert!(next_reading(Duration::from_secs(3600)) > LOOK);
}
