//! Hosts as directory trees: what is read of them, what follows, and what is signed and kept.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::PathBuf;

use bulkhead_api::id::LeaseId;
use bulkhead_api::inventory::{Core, CpuTopology, NumaNode};
use bulkhead_api::isolation::{Class, Holder, IdRange, Namespace, Stray};
use bulkhead_api::lease::Isolation;
use bulkhead_api::signed::Refusal;
use bulkhead_api::statement::{verify, verify_chain};
use bulkhead_api::units::Bytes;
use tempfile::TempDir;

use super::mapping::Mapping;
use super::observe::Claims;
use super::ring::KEPT;
use super::*;
use crate::testing::{Authority, host_id};
use crate::uplink::identity::Named;

/// What every container has: a root in memory, and null on a file of its own.
pub(super) const MOUNTS: &str = "30 20 0:25 / / ro,nosuid - tmpfs tmpfs rw\n\
    31 30 0:61 / /dev rw,nosuid - tmpfs tmpfs rw\n\
    32 31 0:6 /null /dev/null rw,nosuid - devtmpfs udev rw\n";

/// A host of four cores with two CPUs each on one node, and the directories of its kernel.
pub(super) struct Host(TempDir);

impl Host {
    /// Without leases.
    pub(super) fn new() -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        host.write("sys/fs/cgroup/cpuset.cpus.effective", "0-7\n");
        host.write("sys/fs/cgroup/cpuset.mems.effective", "0\n");
        host.write("sys/fs/cgroup/tenant.slice/cgroup.procs", "");
        host.write("sys/fs/cgroup/tenant.slice/cgroup.events", "populated 0\n");
        host.process("self", 4_026_531_000, "0 0 4294967295", "0-7", "", 1);
        host
    }

    /// With the leases acme/a on CPUs 2-3 and other/b on CPUs 4-5, each with runtime and program.
    pub(super) fn leased() -> Self {
        let host = Self::new();
        host.lease("acme.a", 100, "2-3", 0x1000_0000 + 2 * 65536);
        host.lease("other.b", 200, "4-5", 0x1000_0000 + 4 * 65536);
        host
    }

    fn lease(&self, stem: &str, pid: u32, cpus: &str, first_id: u32) {
        let slice = format!("sys/fs/cgroup/tenant.slice/tenant-{stem}.slice");
        for (file, text) in [
            ("cgroup.procs", ""),
            ("cgroup.events", "populated 1\n"),
            ("cpuset.cpus.effective", cpus),
            ("cpuset.mems.effective", "0"),
            ("memory.max", "268435456"),
        ] {
            self.write(&format!("{slice}/{file}"), text);
        }
        let (runtime, program) = (pid, pid + 1);
        let service = format!("{slice}/tenant-{stem}.service/cgroup.procs");
        self.write(&service, &format!("{runtime}\n{program}\n{}\n", pid + 2));
        let crun = "PPid:\t1\nName:\tcrun\n";
        self.process(&runtime.to_string(), 4_026_531_000, "", cpus, crun, 1);
        let map = format!("0 {first_id} 65536");
        for pid in [program, pid + 2] {
            let (first_ns, of_tenant) = (4_026_540_000 + u64::from(program) * 10, "PPid:\t100\n");
            self.process(&pid.to_string(), first_ns, &map, cpus, of_tenant, 2);
        }
    }

    fn process(&self, pid: &str, first_ns: u64, map: &str, cpus: &str, more: &str, depth: usize) {
        let below = format!("proc/{pid}");
        let spaces = ["7"; 2].get(..depth).unwrap().join("\t");
        let status = format!(
            "State:\tS (sleeping)\nUid:\t0\t0\t0\t0\nNSpid:\t{spaces}\nCpus_allowed_list:\t{cpus}\n\
             Mems_allowed_list:\t0\n{more}"
        );
        self.write(&format!("{below}/status"), &status);
        self.write(&format!("{below}/uid_map"), map);
        self.write(&format!("{below}/gid_map"), map);
        fs::create_dir_all(self.path(&format!("{below}/ns"))).unwrap();
        for (kind, number) in Namespace::ALL.into_iter().zip(first_ns..) {
            let name = kind.name();
            symlink(format!("{name}:[{number}]"), self.path(&format!("{below}/ns/{name}")))
                .unwrap();
        }
        // Alike namespaces have alike roots.
        let root = self.path(&format!("roots/{first_ns}"));
        fs::create_dir_all(root.join("dev")).unwrap();
        fs::create_dir_all(self.path(&format!("{below}/task/{pid}/fd"))).unwrap();
        self.write(&format!("{below}/mountinfo"), MOUNTS);
        symlink(root, self.path(&format!("{below}/root"))).unwrap();
    }

    pub(super) fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    pub(super) fn write(&self, below: &str, text: &str) {
        let path = self.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(super) fn slice(&self, stem: &str, file: &str, text: &str) {
        self.write(&format!("sys/fs/cgroup/tenant.slice/tenant-{stem}.slice/{file}"), text);
    }

    pub(super) fn facts(&self) -> Facts {
        self.facts_with(Ok(Vec::new()))
    }

    pub(super) fn facts_with(&self, mappings: Result<Vec<Mapping>, String>) -> Facts {
        observe::observe(self.0.path(), &inventory(), &claims(), mappings).facts
    }

    pub(super) fn violations(&self) -> Vec<(Class, String)> {
        let violations = prove(&self.facts()).violations;
        violations.into_iter().map(|violation| (violation.class, violation.message)).collect()
    }
}

pub(super) fn id(tenant: &str, name: &str) -> LeaseId {
    LeaseId { tenant: tenant.parse().unwrap(), name: name.parse().unwrap() }
}

pub(super) fn claims() -> Claims {
    [id("acme", "a"), id("other", "b")].map(|id| (id, Isolation::Core)).into()
}

pub(super) fn inventory() -> Inventory {
    let core =
        |id: u32| Core { socket: 0, id, node: 0, cpus: BTreeSet::from([2 * id, 2 * id + 1]) };
    let node = NumaNode {
        id: 0,
        total: Bytes::new(4 << 30),
        cpus: (0..8).collect(),
        hugepages: Vec::new(),
    };
    let cpu = CpuTopology { cores: (0..4).map(core).collect(), ..CpuTopology::default() };
    Inventory { cpu, memory: vec![node], ..Inventory::default() }
}

#[test]
fn two_leases_are_read_whole_and_are_isolated() {
    let host = Host::leased();
    let facts = host.facts();
    assert_eq!(host.violations(), []);
    let lease = &facts.holders[1];
    assert_eq!(lease.holder, Holder::Lease(id("acme", "a")));
    assert_eq!(lease.cpus, Some(BTreeSet::from([2, 3])));
    assert_eq!(lease.memory_max, Some(Bytes::new(256 << 20)));
    let [runtime, program] = lease.processes.as_slice() else { panic!("{lease:?}") };
    assert!(runtime.runtime && runtime.pids == [100] && runtime.namespaces.is_empty());
    assert_eq!(program.pids, [101, 102], "processes that are alike are told together");
    assert_eq!(program.user_ids, [IdRange { first: 0x1000_0000 + 2 * 65536, count: 65536 }]);
    assert_eq!(program.namespaces.len(), 7);
}

#[test]
fn a_host_that_never_had_a_lease_is_isolated() {
    assert_eq!(Host::new().violations(), []);
    let empty = tempfile::tempdir().unwrap();
    let (inventory, claims) = (Inventory::default(), Claims::new());
    let facts = observe::observe(empty.path(), &inventory, &claims, Ok(Vec::new())).facts;
    assert_eq!(prove(&facts).violations, []);
}

#[test]
fn a_slice_that_was_given_a_neighbours_cpus_is_found() {
    let host = Host::leased();
    host.slice("acme.a", "cpuset.cpus.effective", "2-4\n");
    assert_eq!(
        host.violations(),
        [(Class::Cpu, "CPUs 4 are in effect for acme/a and other/b".to_owned())]
    );
    host.slice("acme.a", "cpuset.cpus.effective", "2\n");
    host.slice("other.b", "cpuset.cpus.effective", "3-5\n");
    let found = host.violations();
    let sibling = "CPU 2 of acme/a is SMT sibling of CPU 3 of other/b in core 1 of socket 0";
    assert_eq!(found[0], (Class::SmtSibling, sibling.to_owned()), "{found:?}");
}

#[test]
fn a_process_that_reaches_out_of_its_slice_is_found() {
    let host = Host::leased();
    let status = fs::read_to_string(host.path("proc/101/status")).unwrap();
    host.write("proc/101/status", &status.replace("2-3", "0-3"));
    let found = host.violations();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, Class::ProcessCpus);
}

#[test]
fn a_network_of_the_host_and_root_ids_are_found() {
    let host = Host::leased();
    let link = host.path("proc/101/ns/net");
    fs::remove_file(&link).unwrap();
    symlink(fs::read_link(host.path("proc/self/ns/net")).unwrap(), link).unwrap();
    host.write("proc/201/uid_map", "0 0 65536");
    let classes: Vec<Class> = host.violations().into_iter().map(|(class, _)| class).collect();
    assert_eq!(classes, [Class::UserIds, Class::Namespace]);
}

#[test]
fn what_cannot_be_read_is_not_isolated() {
    for file in ["ns/net", "root", "uid_map", "gid_map", "mountinfo"] {
        let host = Host::leased();
        fs::remove_file(host.path(&format!("proc/101/{file}"))).unwrap();
        let classes: Vec<Class> = host.violations().into_iter().map(|(class, _)| class).collect();
        assert!(classes.contains(&Class::NotObservable), "{file}: {classes:?}");
    }
    let host = Host::leased();
    host.slice("acme.a", "memory.max", "much");
    let found = host.violations();
    assert!(found.iter().any(|(class, _)| *class == Class::NotObservable), "{found:?}");
}

#[test]
fn what_ended_meanwhile_holds_nothing() {
    let host = Host::leased();
    fs::remove_dir_all(host.path("proc/101")).unwrap();
    host.write("proc/102/status", "State:\tZ (zombie)\n");
    assert_eq!(host.violations(), []);
    assert_eq!(host.facts().holders[1].processes.len(), 1, "the runtime");
}

#[test]
fn processes_of_nobody_are_found_in_every_place() {
    let host = Host::leased();
    host.write("sys/fs/cgroup/tenant.slice/cgroup.procs", "900\n");
    host.process("900", 4_026_590_000, "0 400000000 1", "6", "", 2);
    host.lease("acme.c", 300, "6-7", 0x1000_0000 + 6 * 65536);
    let found = host.violations();
    let told = |class, text: &str| found.iter().any(|(c, m)| *c == class && m.contains(text));
    assert!(told(Class::Stranger, "process 900 and all 1 in /tenant.slice"), "{found:?}");
    assert!(told(Class::NotGranted, "acme/c, which was not granted here"), "{found:?}");
}

#[test]
fn a_tenants_process_in_another_slice_is_found_by_its_user() {
    let host = Host::leased();
    let user = 0x1000_0000 + 2 * 65536 + 33;
    host.write("proc/311/cgroup", "0::/system.slice/x.service\n");
    chown(host.path("proc/311"), Some(user), None).expect("tests of the supervisor run as root");
    // This one came to its group after the group was read.
    host.write("proc/312/cgroup", "0::/tenant.slice/tenant-acme.a.slice\n");
    chown(host.path("proc/312"), Some(user), None).unwrap();
    let cgroup = "/system.slice/x.service".to_owned();
    assert_eq!(host.facts().strays, [Stray { pid: 311, user, cgroup }]);
    let message = "process 311 of acme/a is outside its slice, in /system.slice/x.service";
    assert_eq!(host.violations(), [(Class::OutsideSlice, message.to_owned())]);
}

fn identity(authority: &Authority) -> Identity {
    let (chain_pem, key_pem) = authority.host("spiffe://bulkhead/site/s1/host/s1-000001");
    let named =
        Named { host: host_id(), site: "s1".parse().unwrap(), link: "127.0.0.1:1".to_owned() };
    let now = Timestamp::now();
    Identity { named, key_pem, chain_pem, begins: now, expires: now }
}

fn moment(boot: u64) -> Moment {
    Moment { boot, time: Timestamp::now(), generation: 7 }
}

#[test]
fn statements_are_believed_by_the_fleet_ca_alone_and_follow_each_other() {
    let host = Host::leased();
    let (authority, ring) = (Authority::new(), Ring::new(host.path("isolation"), 3));
    let identity = identity(&authority);
    for _ in 0..5 {
        let seen = look(host.0.path(), &inventory(), &claims());
        let signed = state(&ring, &identity, moment(1), seen).unwrap();
        verify(&signed, authority.ca_pem()).unwrap();
    }
    let chain = ring.all().unwrap();
    let statements = verify_chain(&chain, authority.ca_pem()).unwrap();
    let sequences: Vec<u64> = statements.iter().map(|s| s.sequence).collect();
    assert_eq!(sequences, [3, 4, 5], "the last three");
    assert_eq!(statements[0].finding.violations, []);
    assert_eq!(statements[0].generation, 7);
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(host.path("isolation/0000000005.json")), 0o600);
    assert_eq!(mode(host.path("isolation")), 0o700);
    // Another boot begins anew, and what was of the one before is no longer kept beside it.
    let seen = look(host.0.path(), &inventory(), &claims());
    state(&ring, &identity, moment(2), seen).unwrap();
    assert_eq!(ring.last().unwrap().unwrap().1.sequence, 1);
    assert_eq!(ring.all().unwrap().len(), 1);
}

#[test]
fn a_chain_with_a_gap_or_of_another_fleet_is_refused() {
    let host = Host::leased();
    let (authority, ring) = (Authority::new(), Ring::new(host.path("isolation"), KEPT));
    let identity = identity(&authority);
    for _ in 0..3 {
        let seen = look(host.0.path(), &inventory(), &claims());
        state(&ring, &identity, moment(1), seen).unwrap();
    }
    let mut chain = ring.all().unwrap();
    let other = Authority::new();
    let (at, refusal) = verify_chain(&chain, other.ca_pem()).unwrap_err();
    assert!(at == 0 && matches!(refusal, Refusal::Untrusted { .. }), "{refusal}");
    chain.remove(1);
    let (at, refusal) = verify_chain(&chain, authority.ca_pem()).unwrap_err();
    assert_eq!(at, 1);
    let text = "statement 3 of boot 1 follows statement 1 of boot 1: expected statement 2 of boot 1, or \
                the first of a later boot";
    assert_eq!(refusal.to_string(), text);
}

#[test]
fn a_statement_for_somebody_elses_certificate_is_refused() {
    let host = Host::leased();
    let authority = Authority::new();
    let (chain_pem, key_pem) = authority.host("spiffe://bulkhead/site/s1/host/s1-000002");
    let identity = Identity { chain_pem, key_pem, ..identity(&authority) };
    let seen = look(host.0.path(), &inventory(), &claims());
    let ring = Ring::new(host.path("isolation"), KEPT);
    let signed = state(&ring, &identity, moment(1), seen).unwrap();
    let refusal = verify(&signed, authority.ca_pem()).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "statement of host s1-000001 is signed with the certificate of s1-000002"
    );
}

#[test]
fn a_damaged_statement_begins_the_chain_anew() {
    let host = Host::leased();
    let (authority, ring) = (Authority::new(), Ring::new(host.path("isolation"), KEPT));
    let identity = identity(&authority);
    let seen = || look(host.0.path(), &inventory(), &claims());
    state(&ring, &identity, moment(1), seen()).unwrap();
    host.write("isolation/0000000001.json", "{");
    state(&ring, &identity, moment(1), seen()).unwrap();
    assert_eq!(ring.all().unwrap().len(), 1);
}

#[test]
fn a_violation_that_stays_is_stated_and_told_in_one_sentence() {
    let host = Host::leased();
    host.slice("acme.a", "cpuset.cpus.effective", "2-7\n");
    let seen = look(host.0.path(), &inventory(), &claims());
    assert_eq!(seen.finding.violations.len(), 1, "{:?}", seen.finding);
    assert_eq!(sentence(&seen.finding.violations), "CPUs 4-5 are in effect for acme/a and other/b");
    let many = vec![seen.finding.violations[0].clone(); 5];
    assert!(sentence(&many).ends_with("; and 2 more"));
}

#[test]
fn the_host_says_whether_it_is_isolated() {
    use crate::node::report::{Moment, report};
    use crate::node::state::State;
    use bulkhead_api::condition::{Condition, Truth, find};

    let host = Host::leased();
    host.slice("acme.a", "cpuset.cpus.effective", "2-7\n");
    let violations = look(host.0.path(), &inventory(), &claims()).finding.violations;
    let told = |isolation: Option<Round>| -> Condition {
        let state = State { isolation, ..State::new(1, Inventory::default()) };
        let moment = Moment { now: Timestamp::now(), seq: 1, supervisor_rss: 1 };
        find(&report(&state, moment, &[]).conditions, "Isolated").unwrap().clone()
    };
    assert_eq!(told(None).status, Truth::Unknown);
    assert_eq!(told(Some(Round::default())).status, Truth::True);
    let unkept = Some("no room".to_owned());
    let condition = told(Some(Round { unkept, ..Round::default() }));
    assert_eq!((condition.status, condition.reason.as_str()), (Truth::True, "ProvedNotStated"));
    let condition = told(Some(Round { violations, unkept: None }));
    assert_eq!((condition.status, condition.owner.as_str()), (Truth::False, "operator"));
    let message = "CPUs 4-5 are in effect for acme/a and other/b; no new lease is granted";
    assert_eq!(condition.message, message);
}

#[test]
fn a_round_without_an_identity_looks_and_says_why_nothing_is_signed() {
    let host = Host::leased();
    let paths = Paths::below(host.0.path());
    let round = round(&paths, &inventory(), &claims(), moment(1));
    assert_eq!(round.violations, []);
    let why = "the host has no certificate to sign with yet";
    assert_eq!(round.unkept.as_deref(), Some(why));
}
