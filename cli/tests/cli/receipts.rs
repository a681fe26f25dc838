//! `host receipts` and `verify` on receipts that are signed as a host signs them.

use std::collections::BTreeSet;

use axum::Router;
use axum::extract::RawQuery;
use axum::routing::get;
use bulkhead_api::id::LeaseId;
use bulkhead_api::receipt::{Evidence, Receipt, SignedReceipt};
use bulkhead_api::resource::Resource;
use bulkhead_api::units::Bytes;
use tempfile::TempDir;

use crate::isolation::{Fleet, json, verify};
use crate::scene::{Said, run};
use crate::supervisor;

fn receipt(sequence: u64, name: &str, resource: Resource, method: &str) -> Receipt {
    let at =
        |second: u64| format!("2026-03-01T11:{:02}:{second:02}Z", 50 + sequence).parse().unwrap();
    let evidence = vec![Evidence { what: "what is left".to_owned(), found: "none".to_owned() }; 3];
    Receipt {
        api_version: "bulkhead.io/v1".to_owned(),
        host: "lab-01-000001".parse().unwrap(),
        boot: 1,
        sequence,
        lease: LeaseId { tenant: "demo".parse().unwrap(), name: name.parse().unwrap() },
        resource,
        methods: vec![method.to_owned()],
        evidence,
        weaker: None,
        started: at(0),
        finished: at(1),
        previous: None,
    }
}

fn linked(fleet: &Fleet, receipts: Vec<Receipt>) -> Vec<SignedReceipt> {
    let mut chain: Vec<SignedReceipt> = Vec::new();
    for mut receipt in receipts {
        if receipt.sequence > 1 {
            receipt.previous = chain.last().map(SignedReceipt::digest);
        }
        chain.push(fleet.sign(&receipt));
    }
    chain
}

/// A lease that was taken back, and the program of another one.
pub(crate) fn chain(fleet: &Fleet) -> Vec<SignedReceipt> {
    let memory = Resource::Memory { nodes: BTreeSet::from([0]), bytes: Bytes::new(256 << 20) };
    let cpu = Resource::Cpu { cpus: BTreeSet::from([2, 3]) };
    let why = "frames cannot be read: the kernel is locked down".to_owned();
    linked(
        fleet,
        vec![
            receipt(1, "hello", Resource::Instance, "removeInstance"),
            Receipt { weaker: Some(why), ..receipt(2, "hello", memory, "zeroOnFree") },
            receipt(3, "hello", cpu, "evictPrivateCaches"),
            receipt(4, "other", Resource::Instance, "removeInstance"),
        ],
    )
}

/// The route of a supervisor that keeps these receipts.
pub(crate) fn routes(chain: &[SignedReceipt]) -> Router {
    let chain = chain.to_vec();
    let answer = async move |RawQuery(query): RawQuery| {
        let wanted = query.and_then(|query| Some(query.strip_prefix("lease=")?.to_owned()));
        let of = |signed: &&SignedReceipt| match &wanted {
            Some(wanted) => signed.unchecked().unwrap().lease.to_string() == *wanted,
            None => true,
        };
        serde_json::to_string(&chain.iter().filter(of).collect::<Vec<_>>()).unwrap()
    };
    Router::new().route("/v1/receipts", get(answer))
}

fn ask(chain: &[SignedReceipt], arguments: &[&str]) -> Said {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("s.sock");
    let _supervisor = supervisor::start(&socket, &Fleet::new().chain(1, &[]), chain);
    let at = ["host", "receipts", "--socket", socket.to_str().unwrap()];
    run(dir.path().to_owned(), "", &[&at, arguments].concat(), |_| Ok(()))
}

#[test]
fn what_receipts_prints_as_json_is_what_verify_reads() {
    let fleet = Fleet::new();
    let all = ask(&chain(&fleet), &["-o", "json"]).ok();
    let said = verify(&fleet.ca, all.as_bytes()).ok();
    assert_eq!(
        said,
        "receipts 1 of boot 1 to 4 of boot 1 of host lab-01-000001, the last of 2026-03-01T11:54:01Z: signed by this \
         fleet\n\
         receipt 2: weaker erase of memory 256Mi of nodes 0 of demo/hello: frames cannot be read: the kernel is \
         locked down\n"
    );
    let none = ask(&[], &[]).ok();
    assert_eq!(none, "RECEIPT  LEASE  RESOURCE  METHODS  EVIDENCE  AGE\n");
}

#[test]
fn one_receipt_alone_is_verified_and_a_chain_that_begins_anew_is_told() {
    let fleet = Fleet::new();
    let chain = chain(&fleet);
    let one = verify(&fleet.ca, &json(&chain[2])).ok();
    assert!(one.starts_with("receipt 3 of boot 1 of host lab-01-000001, "), "{one}");
    assert!(one.ends_with("every resource was sanitised in full\n"), "{one}");
    let later = Receipt { boot: 2, ..receipt(1, "new", Resource::Instance, "removeInstance") };
    let at = "2026-03-01T12:00:00Z".parse().unwrap();
    let later = fleet.sign(&Receipt { started: at, finished: at, ..later });
    let said = verify(&fleet.ca, &json(&[chain.clone(), vec![later]].concat())).ok();
    let told = "the host lost its state after receipt 4: a new chain begins in boot 2\n";
    assert!(said.contains(told), "{said}");
}

#[test]
fn a_bit_that_was_flipped_anywhere_is_refused() {
    let fleet = Fleet::new();
    let bytes = json(&chain(&fleet)[0]);
    verify(&fleet.ca, &bytes).ok();
    for at in (0..bytes.len()).step_by(7) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        let said = verify(&fleet.ca, &flipped);
        assert_eq!(said.status, 1, "byte {at}: {}", said.all);
    }
}

#[test]
fn what_is_missing_or_of_the_other_kind_is_refused_with_its_place() {
    let fleet = Fleet::new();
    let chain = chain(&fleet);
    let gap = [chain[0].clone(), chain[2].clone()];
    assert_eq!(
        verify(&fleet.ca, &json(&gap)).failed(1),
        "error: s.json: entry 2 of 2 is not to be believed: receipt 3 of boot 1 follows receipt 1 of boot 1: expected \
         receipt 2, or the first of a new chain in a later boot\n"
    );
    let statement = serde_json::to_value(&fleet.chain(1, &[])[0]).unwrap();
    let mixed = [serde_json::to_value(&chain[0]).unwrap(), statement];
    let said = verify(&fleet.ca, &json(&mixed)).failed(1);
    assert!(said.contains("entry 2 of 2 is not to be believed: body of the receipt: "), "{said}");
}

#[test]
fn a_lease_that_is_no_name_is_a_wrong_command_line() {
    let said = ask(&[], &["--lease", "demo"]).failed(2);
    assert!(said.starts_with("error: "), "{said}");
}
