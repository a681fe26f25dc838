//! `host prove` and `verify` on statements that are signed as a host signs them.

use std::collections::BTreeSet;
use std::path::Path;

use axum::Router;
use axum::routing::get;
use bulkhead_api::isolation::{
    Class, Facts, Finding, Holder, HolderFacts, IdRange, ProcessFacts, Sharing,
};
use bulkhead_api::signed::{Record, Signed, sign};
use bulkhead_api::statement::{SignedStatement, Statement, facts_digest};
use bulkhead_api::units::Bytes;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType,
};
use ring::rand::SystemRandom;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;

use crate::scene::{Said, run};

/// A fleet CA, and the key of a host with its certificate.
pub(crate) struct Fleet {
    pub(crate) ca: String,
    chain: String,
    key: String,
}

impl Fleet {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        let uri = "spiffe://bulkhead/site/lab-01/host/lab-01-000001";
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let chain = params.signed_by(&key, &ca).unwrap().pem();
        Self { ca: ca.pem(), chain, key: key.serialize_pem() }
    }

    pub(crate) fn sign<R: Record>(&self, record: &R) -> Signed<R> {
        sign(record, &self.key, &self.chain, &SystemRandom::new()).unwrap()
    }

    /// Statements 1 to `count`; the last one tells these violations.
    pub(crate) fn chain(&self, count: u64, violations: &[Sharing]) -> Vec<SignedStatement> {
        let mut chain: Vec<SignedStatement> = Vec::new();
        for sequence in 1..=count {
            let mut statement = statement(sequence);
            statement.previous = chain.last().map(SignedStatement::digest);
            if sequence == count {
                statement.finding.violations = violations.to_vec();
            }
            chain.push(self.sign(&statement));
        }
        chain
    }
}

fn lease(name: &str, cpus: [u32; 2], first: u32) -> HolderFacts {
    let id =
        bulkhead_api::id::LeaseId { tenant: "demo".parse().unwrap(), name: name.parse().unwrap() };
    let ids = vec![IdRange { first, count: 65536 }];
    let inmates = ProcessFacts { pids: vec![812, 820], user_ids: ids, ..ProcessFacts::default() };
    HolderFacts {
        cpus: Some(BTreeSet::from(cpus)),
        memory_nodes: Some(BTreeSet::from([0])),
        memory_max: Some(Bytes::new(256 << 20)),
        processes: vec![inmates],
        ..HolderFacts::new(Holder::Lease(id))
    }
}

fn statement(sequence: u64) -> Statement {
    let (a, b) = (lease("hello", [2, 3], 268_566_528), lease("other", [4, 5], 268_697_600));
    let note = Sharing {
        class: Class::SharedNode,
        holders: vec![a.holder.clone(), b.holder.clone()],
        resource: "memory bandwidth of nodes 0".to_owned(),
        message: "memory bandwidth of nodes 0 serves demo/hello and demo/other".to_owned(),
    };
    let facts = Facts { holders: vec![a, b], ..Facts::default() };
    Statement {
        api_version: "bulkhead.io/v1".to_owned(),
        host: "lab-01-000001".parse().unwrap(),
        boot: 1,
        sequence,
        time: "2026-03-01T11:59:58Z".parse().unwrap(),
        generation: 1,
        facts_digest: facts_digest(&facts).unwrap(),
        facts,
        finding: Finding { violations: Vec::new(), notes: vec![note] },
        previous: None,
    }
}

fn violation() -> Sharing {
    Sharing {
        class: Class::Cpu,
        holders: Vec::new(),
        resource: "CPUs 4".to_owned(),
        message: "CPUs 4 are in effect for demo/hello and demo/other".to_owned(),
    }
}

/// Runs a verb in a folder with `fleet-ca.pem` and a file.
pub(crate) fn verify(ca: &str, file: &[u8]) -> Said {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("ca.pem"), ca).unwrap();
    std::fs::write(path("s.json"), file).unwrap();
    let arguments = ["verify", &path("s.json"), "--ca", &path("ca.pem")];
    let mut said = run(dir.path().to_owned(), "", &arguments, |_| Ok(()));
    said.err = said.err.replace(&path(""), "");
    said
}

pub(crate) fn json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}

#[test]
fn a_statement_and_a_chain_are_believed_by_the_fleet_ca_alone() {
    let fleet = Fleet::new();
    let chain = fleet.chain(3, &[]);
    assert_eq!(
        verify(&fleet.ca, &json(&chain[2])).ok(),
        "statement 3 of boot 1 of host lab-01-000001, the last of 2026-03-01T11:59:58Z: signed by this fleet\n\
         no resource reachable by two leases\n"
    );
    assert!(
        verify(&fleet.ca, &json(&chain)).ok().starts_with("statements 1 of boot 1 to 3 of boot 1")
    );
}

#[test]
fn a_signed_violation_is_told() {
    let fleet = Fleet::new();
    let out = verify(&fleet.ca, &json(&fleet.chain(2, &[violation()]))).ok();
    let told = "statement 2: Cpu: CPUs 4 are in effect for demo/hello and demo/other\n";
    assert!(out.ends_with(told), "{out}");
}

#[test]
fn a_bit_that_was_flipped_anywhere_is_refused() {
    let fleet = Fleet::new();
    let bytes = json(&fleet.chain(1, &[])[0]);
    verify(&fleet.ca, &bytes).ok();
    // Every byte of what is not long, and bits spread over all of it.
    for at in (0..bytes.len()).step_by(7) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        let said = verify(&fleet.ca, &flipped);
        assert_eq!(said.status, 1, "byte {at}: {}", said.all);
    }
}

#[test]
fn what_is_missing_swapped_or_of_another_fleet_is_refused_with_its_place() {
    let fleet = Fleet::new();
    let chain = fleet.chain(3, &[]);
    let refusal = |ca: &str, chain: &[SignedStatement]| verify(ca, &json(&chain)).failed(1);
    let gap = [chain[0].clone(), chain[2].clone()];
    assert_eq!(
        refusal(&fleet.ca, &gap),
        "error: s.json: entry 2 of 2 is not to be believed: statement 3 of boot 1 follows statement 1 of boot 1: \
         expected statement 2 of boot 1, or the first of a later boot\n"
    );
    let mut other = statement(2);
    other.previous = Some("00".to_owned());
    let link = refusal(&fleet.ca, &[chain[0].clone(), fleet.sign(&other)]);
    assert!(link.contains("statement 2 names 00 as the one before, which has "), "{link}");
    let stranger = refusal(&Fleet::new().ca, &chain);
    assert!(stranger.contains("entry 1 of 3 is not to be believed: certificate"), "{stranger}");
    let mut forged = statement(1);
    forged.facts.strays.clear();
    forged.facts.holders.pop();
    let digest = refusal(&fleet.ca, &[fleet.sign(&forged)]);
    assert!(digest.contains("statement 1 contradicts itself: digest of the facts is "), "{digest}");
    assert!(refusal(&fleet.ca, &[]).contains("its list is empty"));
    let said = verify(&fleet.ca, b"{}").failed(1);
    assert!(
        said.starts_with("error: s.json holds neither an isolation statement nor a receipt: "),
        "{said}"
    );
}

/// The routes of a supervisor that keeps these statements.
pub(crate) fn routes(chain: &[SignedStatement]) -> Router {
    let latest = serde_json::to_string(chain.last().unwrap()).unwrap();
    let all = serde_json::to_string(chain).unwrap();
    Router::new()
        .route("/v1/isolation", get(async move || latest))
        .route("/v1/isolation/chain", get(async move || all))
}

fn prove(chain: Vec<SignedStatement>, arguments: &[&str]) -> Said {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("s.sock");
    let _runtime = serve(&socket, chain);
    let at = ["host", "prove", "--socket", socket.to_str().unwrap()];
    run(dir.path().to_owned(), "", &[&at, arguments].concat(), |_| Ok(()))
}

fn serve(socket: &Path, chain: Vec<SignedStatement>) -> Runtime {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let guard = runtime.enter();
    let listener = UnixListener::bind(socket).unwrap();
    drop(guard);
    runtime.spawn(async move { axum::serve(listener, routes(&chain)).await });
    runtime
}

#[test]
fn a_violation_is_shown_and_fails() {
    let fleet = Fleet::new();
    let said = prove(fleet.chain(1, &[violation()]), &[]);
    assert_eq!(said.status, 1);
    assert!(
        said.out.contains("  Cpu    CPUs 4 are in effect for demo/hello and demo/other\n"),
        "{}",
        said.out
    );
    assert_eq!(said.err, "error: the host's leases are not isolated: 1 violation\n");
}

#[test]
fn what_prove_prints_as_json_is_what_verify_reads() {
    let fleet = Fleet::new();
    let one = prove(fleet.chain(2, &[]), &["-o", "json"]).ok();
    verify(&fleet.ca, one.as_bytes()).ok();
    let all = prove(fleet.chain(2, &[]), &["--chain"]).ok();
    assert!(verify(&fleet.ca, all.as_bytes()).ok().starts_with("statements 1 of boot 1 to 2"));
}
