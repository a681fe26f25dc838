use std::collections::BTreeSet;

use bulkhead_api::document::API_VERSION;
use bulkhead_api::inventory::{Core, CpuTopology, Disk, DiskClaim, Inventory, NumaNode};
use bulkhead_api::lease::LeasePhase;
use bulkhead_api::link::HandOverRefusal;
use bulkhead_api::spec::{HostSpec, WantedLease};
use bulkhead_api::units::Bytes;
use proptest::prelude::*;

use super::*;
use crate::metal::model::REST;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + second).unwrap()
}

fn id(name: &str) -> LeaseId {
    LeaseId { tenant: "acme".parse().unwrap(), name: name.parse().unwrap() }
}

fn wanted(name: &str, instance: &str) -> WantedLease {
    let spec = serde_json::json!({
        "instance": instance, "cpus": 1, "memory": "1Gi",
        "workload": { "image": "oci://bulkhead.site/os:1" },
    });
    WantedLease { id: id(name), spec: serde_json::from_value(spec).unwrap() }
}

fn spec(generation: u64, leases: &[WantedLease], returning: Option<&str>) -> HostSpec {
    HostSpec {
        api_version: API_VERSION.to_owned(),
        host: "lab-000001".parse().unwrap(),
        generation,
        not_before: at(0),
        expiry: at(1_000_000),
        leases: leases.to_vec(),
        weaker_erase: BTreeSet::new(),
        returning: returning.map(id),
    }
}

fn disk(name: &str) -> Disk {
    Disk {
        name: name.to_owned(),
        transport: "nvme".to_owned(),
        model: String::new(),
        serial: format!("serial-{name}"),
        size: Bytes::new(1 << 30),
        rotational: false,
        bdf: None,
        node: None,
        claim: DiskClaim::Blank,
    }
}

fn hardware(disks: &[&str]) -> Inventory {
    let core = |cpu: u32| Core { socket: 0, id: cpu, node: 0, cpus: BTreeSet::from([cpu]) };
    Inventory {
        cpu: CpuTopology { cores: (0..4).map(core).collect(), ..CpuTopology::default() },
        memory: vec![NumaNode {
            id: 0,
            total: Bytes::new(8 << 30),
            cpus: (0..4).collect(),
            hugepages: Vec::new(),
        }],
        disks: disks.iter().map(|name| disk(name)).collect(),
        ..Inventory::default()
    }
}

/// A host's boot: what it keeps on its tmpfs is gone with the value.
struct Boot {
    _dir: tempfile::TempDir,
    metal: Metal,
    told: Option<LeaseId>,
    held: BTreeSet<LeaseId>,
    inventory: Inventory,
    linked: bool,
}

impl Boot {
    fn new(told: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(dir.path());
        std::fs::create_dir_all(&paths.run).unwrap();
        let metal = Metal::open(paths);
        let inventory = hardware(&["nvme0n1", "nvme1n1"]);
        Self {
            _dir: dir,
            metal,
            told: told.map(id),
            held: BTreeSet::new(),
            inventory,
            linked: true,
        }
    }

    fn turn(&mut self, spec: Option<&HostSpec>, now: i64) -> Turn {
        let seen = Seen {
            spec,
            told: self.told.as_ref(),
            held: Some(&self.held),
            quarantined: &[],
            inventory: Some(&self.inventory),
            linked: self.linked,
        };
        self.metal.turn(&seen, at(now))
    }

    /// The supervisor is killed and started again within the boot.
    fn restart(&mut self) {
        self.metal = Metal::open(self.metal.paths.clone());
    }

    fn answer(&mut self, lease: &LeaseId, refusal: Option<HandOverRefusal>, now: i64) {
        let lease = lease.clone();
        self.metal.answered(HandOverAnswer { lease, refusal }, at(now));
    }
}

fn reason(turn: &Turn) -> &str {
    let lease = turn.view.lease.as_ref().unwrap();
    &lease.status.conditions.first().unwrap().reason
}

#[test]
fn a_host_goes_away_step_by_step_and_reboots_only_after_the_sites_yes() {
    let mut boot = Boot::new(None);
    let spec = spec(5, &[wanted("metal", "bareMetal")], None);
    boot.held.insert(id("old"));
    let turn = boot.turn(Some(&spec), 0);
    assert_eq!((reason(&turn), &turn.ask, &turn.job), ("Draining", &None, &None));
    assert!(turn.view.bars.unwrap().contains("acme/metal"));
    boot.held.clear();
    let turn = boot.turn(Some(&spec), 1);
    assert_eq!((turn.ask, turn.retry), (None, Some(at(1))), "written down first");
    assert_eq!(boot.turn(Some(&spec), 1).ask, Some(id("metal")));
    let turn = boot.turn(Some(&spec), 2);
    assert_eq!((turn.ask, turn.job), (None, None), "one question at a time");
    assert_eq!(boot.turn(Some(&spec), 31).ask, Some(id("metal")), "and again without an answer");
    boot.answer(&id("other"), None, 32);
    assert_eq!(boot.turn(Some(&spec), 32).job, None, "an answer about another lease");
    let no = HandOverRefusal {
        reason: "NoUki".to_owned(),
        message: "no layer has boot/uki.efi".to_owned(),
        owner: "tenant".to_owned(),
    };
    boot.answer(&id("metal"), Some(no), 33);
    let turn = boot.turn(Some(&spec), 33);
    let said = turn.view.lease.unwrap().status;
    assert!(
        said.conditions[0].message.contains("boot/uki.efi") && said.conditions[0].owner == "tenant"
    );
    assert_eq!((said.phase, turn.job), (LeasePhase::Granting, None));
    // A restart of the supervisor asks again; the site says the same.
    boot.restart();
    assert_eq!(boot.turn(Some(&spec), 70).ask, Some(id("metal")));
    boot.answer(&id("metal"), None, 71);
    let turn = boot.turn(Some(&spec), 71);
    assert_eq!(turn.job, Some(Job::Reboot { lease: id("metal") }));
    assert_eq!(boot.turn(Some(&spec), 72).job, None, "once");
    boot.metal.ended(Ended::Rebooting, at(73));
    assert_eq!(boot.turn(Some(&spec), 74).job, None);
    assert!(
        boot.turn(Some(&spec), 192).job.is_some(),
        "a reboot that does not come is asked for again"
    );
}

#[test]
fn what_is_in_the_way_of_a_hand_over_is_said_with_who_must_act() {
    let metal = [wanted("metal", "bareMetal")];
    let both = [wanted("metal", "bareMetal"), wanted("other", "container")];
    let mut large = wanted("metal", "bareMetal");
    large.spec.cpus = 64;
    let mut foreign = hardware(&["nvme0n1"]);
    foreign.disks[0].claim = DiskClaim::Foreign { what: "an ext4 file system".to_owned() };
    let small = hardware(&["nvme0n1"]);
    for (spec, inventory, expected, owner) in [
        (spec(5, &both, None), small.clone(), "NotAlone", "registry"),
        (spec(5, &[large], None), small, "Shortage", "registry"),
        (spec(5, &metal, None), foreign, "ForeignDisk", "operator"),
    ] {
        let mut boot = Boot::new(None);
        boot.inventory = inventory;
        let turn = boot.turn(Some(&spec), 0);
        let lease = turn.view.lease.as_ref().unwrap();
        assert_eq!(lease.status.phase, LeasePhase::Failed);
        assert_eq!((reason(&turn), &*lease.status.conditions[0].owner), (expected, owner));
        assert!(turn.ask.is_none() && turn.job.is_none() && turn.view.bars.is_some());
    }
}

/// Runs what a turn wants, with success.
fn work(boot: &mut Boot, turn: &Turn, now: i64) -> Option<String> {
    let (lease, what) = match turn.job.clone()? {
        Job::Erase { lease, disk } => (lease, disk.serial),
        Job::Rest { lease, .. } => (lease, REST.to_owned()),
        Job::Reboot { .. } => return None,
    };
    boot.metal.ended(Ended::Clean { lease, what: what.clone() }, at(now));
    Some(what)
}

#[test]
fn a_host_that_comes_back_erases_every_disk_before_it_says_that_it_is_clean() {
    // The registry's word, with a ledger that knows nothing; then the site's word alone, before any spec came.
    let returning = spec(6, &[], Some("metal"));
    for (told, spec) in [(None, Some(&returning)), (Some("metal"), None)] {
        let mut boot = Boot::new(told);
        let mut done = Vec::new();
        for now in 0..3 {
            let turn = boot.turn(spec, now);
            let not_ready = turn.view.not_ready.clone().unwrap();
            assert_eq!((not_ready.reason, &turn.view.sanitised), ("Sanitising", &None));
            assert!(turn.view.bars.is_some());
            done.extend(work(&mut boot, &turn, now));
            // What has a receipt in this boot is not erased again.
            boot.restart();
        }
        assert_eq!(done, ["serial-nvme0n1", "serial-nvme1n1", REST]);
        let turn = boot.turn(spec, 9);
        assert!(turn.job.is_none());
        match spec {
            Some(_) => assert_eq!(turn.view.sanitised, Some(id("metal"))),
            None => assert_eq!(turn.view, View::default(), "the site's word is done with"),
        }
        // A disk that the kernel finds late is one more.
        boot.inventory = hardware(&["nvme0n1", "nvme1n1", "nvme2n1"]);
        let turn = boot.turn(spec, 10);
        assert_eq!(turn.view.sanitised, None);
        assert_eq!(work(&mut boot, &turn, 10).unwrap(), "serial-nvme2n1");
    }
}

#[test]
fn a_disk_that_fails_keeps_the_host_from_being_clean_and_holds_up_no_other_disk() {
    let mut boot = Boot::new(None);
    let spec = spec(6, &[], Some("metal"));
    assert!(boot.turn(Some(&spec), 0).job.is_some());
    let failed = Ended::Failed {
        what: "serial-nvme0n1".to_owned(),
        why: "byte 7: expected 0".to_owned(),
        quarantine: true,
    };
    boot.metal.ended(failed, at(1));
    for now in 1..3 {
        let turn = boot.turn(Some(&spec), now);
        let not_ready = turn.view.not_ready.clone().unwrap();
        assert_eq!((not_ready.reason, not_ready.owner), ("SanitisingFails", "operator"));
        assert!(not_ready.message.contains("serial-nvme0n1 is not clean"), "{}", not_ready.message);
        assert!(work(&mut boot, &turn, now).is_some_and(|what| what != "serial-nvme0n1"));
    }
    let turn = boot.turn(Some(&spec), 3);
    assert_eq!((turn.job, turn.view.sanitised), (None, None));
    assert_eq!(turn.retry, Some(at(61)));
    let turn = boot.turn(Some(&spec), 61);
    assert_eq!(work(&mut boot, &turn, 62).unwrap(), "serial-nvme0n1");
    assert_eq!(boot.turn(Some(&spec), 63).view.sanitised, Some(id("metal")));
}

#[test]
fn a_host_that_never_left_is_clean_without_an_erase_and_one_that_rebooted_is_not() {
    let go = spec(5, &[wanted("metal", "bareMetal")], None);
    let back = spec(6, &[], Some("metal"));
    let mut boot = Boot::new(None);
    boot.turn(Some(&go), 0);
    boot.turn(Some(&go), 1);
    boot.restart();
    let turn = boot.turn(Some(&back), 2);
    assert_eq!((turn.view.sanitised, turn.job), (Some(id("metal")), None));
    assert!(turn.view.not_ready.is_some(), "until the registry takes it back");
    let next = spec(7, &[], None);
    boot.turn(Some(&next), 3);
    assert_eq!(boot.turn(Some(&next), 4).view, View::default());
    // The next boot knows nothing of it.
    let mut boot = Boot::new(None);
    assert!(boot.turn(Some(&back), 5).job.is_some());
}

/// Everything between a tenant's last write and the next lease: registry, site and host in small, cut anywhere.
#[derive(Debug, Default)]
struct World {
    generation: u64,
    lease: Option<(u32, bool)>,
    numbers: u32,
    /// The site's record: whose the machine is; `true` while it returns.
    site: Option<(u32, bool)>,
    site_spec: u64,
    /// The tenant that wrote on the disks, each.
    written: [Option<u32>; 2],
    tenant_runs: Option<u32>,
}

impl World {
    fn spec(&self) -> HostSpec {
        let name = |number: u32| format!("l{number}");
        match self.lease {
            Some((number, false)) => {
                spec(self.generation, &[wanted(&name(number), "bareMetal")], None)
            }
            Some((number, true)) => spec(self.generation, &[], Some(&name(number))),
            None => spec(self.generation, &[], None),
        }
    }
}

fn number(lease: &LeaseId) -> u32 {
    lease.name.as_str().trim_start_matches('l').parse().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn no_cut_lets_a_host_be_ready_or_lent_with_a_tenants_traces(events in proptest::collection::vec(0..9_u8, 0..120)) {
        let mut world = World { generation: 1, ..World::default() };
        let mut host = Some(Boot::new(None));
        let mut accepted: Option<HostSpec> = None;
        let mut pending: Option<LeaseId> = None;
        for (now, event) in (0_i64..).map(|step| step * 200).zip(events) {
            match event {
                // The registry: a lease comes, or is deleted.
                0 => match world.lease {
                    None => {
                        world.numbers += 1;
                        (world.lease, world.generation) = (Some((world.numbers, false)), world.generation + 1);
                    }
                    Some((lease, false)) => {
                        (world.lease, world.generation) = (Some((lease, true)), world.generation + 1);
                    }
                    Some((_, true)) => {}
                },
                // The site takes the latest spec.
                1 => {
                    world.site_spec = world.generation;
                    world.site = match (world.site, world.lease) {
                        (Some((of, false)), Some((lease, false))) if of == lease => Some((of, false)),
                        (Some((of, _)), Some((lease, true))) if of == lease => Some((of, true)),
                        (Some((of, false)), _) => Some((of, true)),
                        (Some((_, true)), _) | (None, _) => None,
                    };
                }
                // The host takes it.
                2 if host.is_some() => accepted = Some(world.spec()),
                // The site answers.
                3 => if let (Some(boot), Some(lease)) = (&mut host, pending.take()) {
                    let fits = world.site_spec == world.generation && world.lease == Some((number(&lease), false));
                    if fits {
                        world.site = Some((number(&lease), false));
                        boot.answer(&lease, None, now);
                    }
                },
                4 => if let Some(boot) = &mut host { boot.restart() },
                // Power is cut, or somebody resets it: the site says what boots.
                5 => {
                    (accepted, pending) = (None, None);
                    match world.site {
                        Some((tenant, false)) => {
                            (host, world.tenant_runs) = (None, Some(tenant));
                            world.written = [Some(tenant); 2];
                        }
                        site => {
                            world.tenant_runs = None;
                            host = Some(Boot::new(site.map(|(of, _)| format!("l{of}")).as_deref()));
                        }
                    }
                }
                // The host looks and works.
                _ => {
                    let Some(boot) = &mut host else { continue };
                    prop_assert_eq!(world.tenant_runs, None);
                    let turn = boot.turn(accepted.as_ref(), now);
                    let dirty = world.written.iter().any(Option::is_some);
                    if let Some(spec) = &accepted {
                        // The engine lets leases in beside exactly when nothing bars them.
                        prop_assert!(!dirty || turn.view.bars.is_some() || spec.returning.is_none());
                    }
                    if let Some(lease) = &turn.view.sanitised {
                        prop_assert!(!dirty, "clean of {} with {:?}", lease, world.written);
                        // The registry hears it.
                        if world.lease == Some((number(lease), true)) {
                            (world.lease, world.generation) = (None, world.generation + 1);
                        }
                    }
                    match &turn.job {
                        Some(Job::Erase { disk, .. }) => {
                            let slot = usize::from(disk.name == "nvme1n1");
                            world.written[slot] = None;
                            work(boot, &turn, now);
                        }
                        Some(Job::Rest { .. }) => drop(work(boot, &turn, now)),
                        Some(Job::Reboot { lease }) => {
                            prop_assert!(!dirty);
                            prop_assert!(world.site.is_some_and(|(of, _)| of == number(lease)), "the site remembers");
                            boot.metal.ended(Ended::Rebooting, at(now));
                        }
                        None => {}
                    }
                    pending = turn.ask.or(pending);
                }
            }
        }
    }
}
