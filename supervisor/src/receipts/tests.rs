//! The chain on a real directory, signed with a real key.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use bulkhead_api::receipt::{Evidence, verify_chain};
use proptest::prelude::*;
use tempfile::TempDir;

use super::repair::RepairError;
use super::*;
use crate::testing::{Authority, host_id};
use crate::uplink::identity::Named;

struct Host {
    dir: TempDir,
    authority: Authority,
}

impl Host {
    fn new() -> Self {
        let host = Self { dir: tempfile::tempdir().unwrap(), authority: Authority::new() };
        host.enrol();
        host
    }

    fn paths(&self) -> Paths {
        Paths::below(self.dir.path())
    }

    fn enrol(&self) {
        let (chain_pem, key_pem) = self.authority.host("spiffe://bulkhead/site/s1/host/s1-000001");
        let (site, link) = ("s1".parse().unwrap(), "127.0.0.1:1".to_owned());
        let named = Named { host: host_id(), site, link };
        let dir = self.paths().identity();
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("key.pem"), &key_pem).unwrap();
        identity::store(&dir, named, key_pem, chain_pem).unwrap();
    }

    fn receipts(&self, most: u64) -> Receipts {
        Receipts::keeping(&self.paths(), most)
    }

    fn file(&self, number: u64) -> PathBuf {
        self.paths().receipts().join(format!("{number:010}.json"))
    }
}

fn lease(name: &str) -> LeaseId {
    LeaseId { tenant: "acme".parse().unwrap(), name: name.parse().unwrap() }
}

fn sanitised(name: &str, boot: u64) -> Sanitised {
    let evidence = vec![Evidence { what: "groups".to_owned(), found: "none".to_owned() }];
    let now = Timestamp::now();
    Sanitised {
        boot,
        lease: lease(name),
        resource: Resource::Cpu { cpus: BTreeSet::from([2, 3]) },
        erased: Erased { methods: vec!["evict".to_owned()], evidence, weaker: None },
        started: now,
        finished: now,
    }
}

#[test]
fn receipts_follow_each_other_over_boots_and_runs_and_are_believed_by_the_ca_alone() {
    let host = Host::new();
    for (boot, name) in [(1, "a"), (1, "b"), (2, "a"), (5, "c")] {
        // A new run of the supervisor each time.
        let receipts = host.receipts(KEPT);
        let kept = receipts.append(sanitised(name, boot)).unwrap();
        let all = receipts.all(None).unwrap();
        assert_eq!(all.last().unwrap().digest(), kept.digest);
    }
    let receipts = host.receipts(KEPT);
    let chain = verify_chain(&receipts.all(None).unwrap(), host.authority.ca_pem()).unwrap();
    assert_eq!(
        chain.iter().map(|r| (r.boot, r.sequence)).collect::<Vec<_>>(),
        [(1, 1), (1, 2), (2, 3), (5, 4)]
    );
    assert_eq!(receipts.all(Some(&lease("a"))).unwrap().len(), 2);
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(host.file(1)), mode(host.paths().receipts())), (0o600, 0o700));
}

#[test]
fn the_oldest_go_and_what_is_left_is_still_a_chain() {
    let host = Host::new();
    let receipts = host.receipts(3);
    for _ in 0..5 {
        receipts.append(sanitised("a", 1)).unwrap();
    }
    let chain = verify_chain(&receipts.all(None).unwrap(), host.authority.ca_pem()).unwrap();
    assert_eq!(chain.iter().map(|r| r.sequence).collect::<Vec<_>>(), [3, 4, 5]);
}

#[test]
fn a_clock_that_was_set_back_makes_no_receipt_older_than_the_one_before() {
    let host = Host::new();
    let receipts = host.receipts(KEPT);
    receipts.append(sanitised("a", 1)).unwrap();
    let early = Timestamp::now() - jiff::SignedDuration::from_hours(1);
    receipts.append(Sanitised { started: early, finished: early, ..sanitised("a", 1) }).unwrap();
    verify_chain(&receipts.all(None).unwrap(), host.authority.ca_pem()).unwrap();
}

#[test]
fn without_an_identity_or_without_evidence_there_is_no_receipt() {
    let host = Host::new();
    let receipts = host.receipts(KEPT);
    let nothing = Sanitised { erased: Erased::default(), ..sanitised("a", 1) };
    let error = receipts.append(nothing).unwrap_err();
    assert_eq!(error.to_string(), "the erase of cpus 2,3 names no method or no evidence");
    fs::remove_dir_all(host.paths().identity()).unwrap();
    let error = receipts.append(sanitised("a", 1)).unwrap_err();
    assert_eq!(error.label(), "NoIdentity");
    assert!(receipts.all(None).unwrap().is_empty());
    host.enrol();
    assert_eq!(receipts.append(sanitised("a", 1)).unwrap().sequence, 1);
}

#[test]
fn a_cut_before_the_rename_leaves_the_old_chain() {
    let host = Host::new();
    let receipts = host.receipts(KEPT);
    receipts.append(sanitised("a", 1)).unwrap();
    let half = fs::read(host.file(1)).unwrap();
    let temporary = host.paths().receipts().join("0000000002.json.new");
    fs::write(&temporary, half.get(..half.len() / 2).unwrap()).unwrap();
    assert_eq!(receipts.all(None).unwrap().len(), 1);
    assert_eq!(receipts.append(sanitised("a", 1)).unwrap().sequence, 2);
    verify_chain(&receipts.all(None).unwrap(), host.authority.ca_pem()).unwrap();
}

#[test]
fn a_damaged_head_stops_everything_and_says_the_way_out() {
    let host = Host::new();
    let receipts = host.receipts(KEPT);
    receipts.append(sanitised("a", 1)).unwrap();
    receipts.append(sanitised("a", 1)).unwrap();
    let whole = fs::read(host.file(2)).unwrap();
    for at in 0..whole.len() {
        fs::write(host.file(2), whole.get(..at).unwrap()).unwrap();
        let error = receipts.append(sanitised("a", 1)).unwrap_err();
        assert!(matches!(error, ReceiptError::Damaged { .. }), "{at}: {error}");
    }
    let text = receipts.append(sanitised("a", 1)).unwrap_err().to_string();
    assert!(text.contains("0000000002.json, is damaged (EOF while parsing"), "{text}");
    assert!(text.ends_with("keeps the chain beside and begins a new one"), "{text}");
    // One that is whole and elsewhere in the chain, or another host's, is no head either.
    fs::copy(host.file(1), host.file(2)).unwrap();
    let text = receipts.append(sanitised("a", 1)).unwrap_err().to_string();
    assert!(text.contains("(it holds receipt 1)"), "{text}");
    fs::rename(host.paths().receipts(), host.dir.path().join("away")).unwrap();
    assert_eq!(receipts.append(sanitised("a", 2)).unwrap().sequence, 1);
}

#[test]
fn a_damaged_chain_is_put_aside_on_request_and_the_next_one_says_so() {
    let host = Host::new();
    let receipts = host.receipts(KEPT);
    assert!(matches!(receipts.repair(true), Err(RepairError::Whole)), "there is none");
    for round in 1..=2 {
        // First the newest, then one in the middle, which keeps nobody from appending.
        for _ in 0..3 {
            receipts.append(sanitised("a", 1)).unwrap();
        }
        assert!(matches!(receipts.repair(true), Err(RepairError::Whole)));
        let damaged = fs::read(host.file(4 - round)).unwrap();
        fs::write(host.file(4 - round), b"{").unwrap();
        let shown = receipts.repair(false).unwrap();
        assert_eq!((shown.applied, shown.receipts, &shown.kept), (false, 3, &None));
        assert!(shown.problem.contains(".json"), "{}", shown.problem);
        assert!(host.file(1).exists(), "only shown");
        let kept = receipts.repair(true).unwrap().kept.unwrap();
        assert!(kept.ends_with(format!("receipts.damaged-{round}")), "{}", kept.display());
        assert_eq!(fs::read_dir(&kept).unwrap().count(), 3);
        fs::write(kept.join(format!("{:010}.json", 4 - round)), damaged).unwrap();
        let old = Shelf::<Receipt>::new(kept).all().unwrap();
        assert_eq!(verify_chain(&old, host.authority.ca_pem()).unwrap().len(), 3);
        assert_eq!(receipts.append(sanitised("a", 1)).unwrap().sequence, 1);
        let chain = verify_chain(&receipts.all(None).unwrap(), host.authority.ca_pem()).unwrap();
        let said = chain[0].evidence.last().unwrap();
        let found = format!("damaged, kept as receipts.damaged-{round}; a new chain begins here");
        assert_eq!((said.what.as_str(), &said.found), ("receipts before this one", &found));
        fs::remove_file(host.file(1)).unwrap();
    }
}

#[test]
fn receipts_of_another_host_are_not_continued() {
    let host = Host::new();
    let receipts = host.receipts(KEPT);
    receipts.append(sanitised("a", 1)).unwrap();
    let named = host.paths().identity().join("host.json");
    let text = fs::read_to_string(&named).unwrap();
    fs::write(&named, text.replace("s1-000001", "s1-000002")).unwrap();
    let text = receipts.append(sanitised("a", 1)).unwrap_err().to_string();
    assert!(text.contains("(it is of host s1-000001, this is s1-000002)"), "{text}");
}

#[test]
fn receipts_that_are_made_at_once_are_one_chain() {
    let host = Host::new();
    let receipts = host.receipts(KEPT);
    std::thread::scope(|scope| {
        for name in ["a", "b", "c", "d"] {
            let receipts = &receipts;
            scope.spawn(move || {
                for _ in 0..5 {
                    receipts.append(sanitised(name, 1)).unwrap();
                }
            });
        }
    });
    let all = receipts.all(None).unwrap();
    assert_eq!(verify_chain(&all, host.authority.ca_pem()).unwrap().len(), 20);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_as_the_newest_receipt_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let host = Host::new();
        fs::create_dir_all(host.paths().receipts()).unwrap();
        fs::write(host.file(7), bytes).unwrap();
        let receipts = host.receipts(KEPT);
        prop_assert!(receipts.all(None).is_err());
        let damaged = matches!(receipts.append(sanitised("a", 1)), Err(ReceiptError::Damaged { .. }));
        prop_assert!(damaged);
    }
}
