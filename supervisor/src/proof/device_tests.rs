//! Hosts whose leases reach devices: as directory trees with device files in them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use bulkhead_api::inventory::{Inventory, PciFunction};
use bulkhead_api::isolation::{
    Class, DeviceFacts, DeviceFile, DeviceKind, Facts, Holder, Reach, Stretch, Way,
};
use bulkhead_api::lease::Isolation;
use bulkhead_lease::prove::prove;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::mapping::Mapping;
use super::observe::Claims;
use super::reach::Reached;
use super::tests::{Host, MOUNTS, claims, id, inventory};
use super::{devices, look, observe};
use crate::storage::dm::wire::Target;

fn classes(facts: &Facts) -> Vec<Class> {
    prove(facts).violations.into_iter().map(|violation| violation.class).collect()
}

/// Makes a device file; the tests of the supervisor run as root.
fn node(path: &Path, kind: SFlag, major: u64, minor: u64) {
    mknod(path, kind, Mode::empty(), makedev(major, minor)).unwrap();
}

fn told(facts: &Facts, name: &str) -> DeviceFacts {
    let device = facts.devices.iter().find(|device| device.name == name);
    device.unwrap_or_else(|| panic!("{name}: {:?}", facts.devices)).clone()
}

fn by(pid_of: &str, ways: &[Way]) -> Vec<Reach> {
    let name = if pid_of == "acme" { id("acme", "a") } else { id("other", "b") };
    vec![Reach { holder: Holder::Lease(name), ways: ways.iter().copied().collect() }]
}

impl Host {
    /// Has a process hold a device open.
    fn open(&self, pid: u32, number: u32, kind: SFlag, major: u64, minor: u64) {
        let file = self.path(&format!("files/{pid}.{number}"));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        node(&file, kind, major, minor);
        symlink(file, self.path(&format!("proc/{pid}/task/{pid}/fd/{number}"))).unwrap();
    }

    /// A disk with a partition, and mappings 253:1 of acme and 253:2 of other.
    fn with_disk(&self) {
        let disk = "sys/devices/pci/block/nvme0n1";
        self.write(&format!("{disk}/dev"), "259:0\n");
        self.write(&format!("{disk}/nvme0n1p2/partition"), "2\n");
        self.write(&format!("{disk}/nvme0n1p2/start"), "2048\n");
        self.write(&format!("{disk}/nvme0n1p2/size"), "2097152\n");
        self.write(&format!("{disk}/nvme0n1p2/dev"), "259:2\n");
        for directory in ["sys/dev/block", "sys/class/block", "sys/block"] {
            fs::create_dir_all(self.path(directory)).unwrap();
        }
        let link = |target: &str, at: &str| symlink(self.path(target), self.path(at)).unwrap();
        link(disk, "sys/dev/block/259:0");
        link(disk, "sys/class/block/nvme0n1");
        link(&format!("{disk}/nvme0n1p2"), "sys/dev/block/259:2");
        link(&format!("{disk}/nvme0n1p2"), "sys/class/block/nvme0n1p2");
        for minor in [1, 2] {
            let mapping = format!("sys/devices/virtual/block/dm-{minor}");
            self.write(&format!("{mapping}/ro"), "0\n");
            link(&mapping, &format!("sys/dev/block/253:{minor}"));
        }
    }
}

/// Volumes of 512 KiB of both leases.
fn volumes() -> Vec<Mapping> {
    let volume = |minor: u32, start: u64| Mapping {
        name: format!("bh-{minor}"),
        number: (253, minor),
        targets: vec![Target {
            start: 0,
            length: 1024,
            kind: "crypt".to_owned(),
            parameters: format!("aes-xts-plain64 :64:logon:bulkhead:{minor} 0 259:2 {start} 1 x"),
        }],
    };
    vec![volume(1, 0), volume(2, 1024)]
}

#[test]
fn volumes_are_followed_to_the_disk_which_is_the_hosts() {
    let host = Host::leased();
    host.with_disk();
    host.open(101, 3, SFlag::S_IFBLK, 253, 1);
    let mount = format!("{MOUNTS}40 30 253:2 / /volumes/a rw,nodev - ext4 /dev/dm-2 rw\n");
    host.write("proc/201/mountinfo", &mount);
    let facts = host.facts_with(Ok(volumes()));
    assert_eq!(classes(&facts), []);
    assert_eq!(told(&facts, "dm-1").holders, by("acme", &[Way::Open]));
    assert_eq!(told(&facts, "dm-2").holders, by("other", &[Way::Mount]));
    let on = Stretch { device: "nvme0n1".to_owned(), start: 1 << 20, length: 1 << 30 };
    assert_eq!(told(&facts, "nvme0n1p2").kind, DeviceKind::Partition { on });
    assert_eq!(told(&facts, "nvme0n1").holders[0].holder, Holder::Host);
    // A neighbour's volume, a partition beneath, and one table over another.
    host.open(101, 4, SFlag::S_IFBLK, 253, 2);
    assert_eq!(classes(&host.facts_with(Ok(volumes()))), [Class::Device]);
    fs::remove_file(host.path("proc/101/task/101/fd/4")).unwrap();
    host.open(101, 5, SFlag::S_IFBLK, 259, 2);
    assert_eq!(classes(&host.facts_with(Ok(volumes()))), [Class::BeneathVolume]);
    fs::remove_file(host.path("proc/101/task/101/fd/5")).unwrap();
    let mut both = volumes();
    both[0].targets[0].parameters = both[1].targets[0].parameters.clone();
    let found = classes(&host.facts_with(Ok(both)));
    assert_eq!(found, [Class::VolumeExtent, Class::VolumeKey]);
}

#[test]
fn device_files_are_seen_open_and_in_dev_and_only_the_harmless_ones_are_let_be() {
    let host = Host::leased();
    let dev = fs::canonicalize(host.path("proc/101/root")).unwrap().join("dev");
    for (name, major, minor) in [("null", 1, 3), ("zero", 1, 5), ("tty", 5, 0), ("ptmx", 5, 2)] {
        node(&dev.join(name), SFlag::S_IFCHR, major, minor);
    }
    // Links are a tenant's to make: what they lead to is not what is there.
    symlink("/dev/kmsg", dev.join("log")).unwrap();
    symlink("/", dev.join("up")).unwrap();
    assert_eq!(host.violations(), []);
    host.open(102, 7, SFlag::S_IFCHR, 10, 232);
    let facts = host.facts();
    assert_eq!(classes(&facts), []);
    let note = "/dev/kvm makes virtual machines for acme/a";
    assert!(prove(&facts).notes.iter().any(|found| found.message == note));
    fs::create_dir(dev.join("deep")).unwrap();
    node(&dev.join("deep/memory"), SFlag::S_IFCHR, 1, 1);
    host.open(201, 9, SFlag::S_IFCHR, 5, 1);
    let found = host.violations();
    let messages: Vec<&str> = found.iter().map(|(_, message)| message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "device c 1:1 (c 1:1) is reached by acme/a (node), and nothing is known of it",
            "device c 5:1 (c 5:1) is reached by other/b (open), and nothing is known of it",
        ]
    );
}

#[test]
fn a_group_of_functions_is_told_by_sysfs_and_compared_by_the_inventory() {
    let host = Host::leased();
    host.write("sys/devices/virtual/vfio/12/dev", "511:0\n");
    fs::create_dir_all(host.path("sys/class/vfio")).unwrap();
    fs::create_dir_all(host.path("sys/dev/char")).unwrap();
    let below = host.path("sys/devices/virtual/vfio/12");
    symlink(host.path("sys/class/vfio"), below.join("subsystem")).unwrap();
    symlink(below, host.path("sys/dev/char/511:0")).unwrap();
    host.open(101, 3, SFlag::S_IFCHR, 511, 0);
    host.open(101, 4, SFlag::S_IFCHR, 10, 196);
    let function = |bdf: &str, driver: &str| PciFunction {
        bdf: bdf.to_owned(),
        vendor: 0x10de,
        device: 1,
        class: 0x03_0200,
        driver: Some(driver.to_owned()),
        iommu_group: Some(12),
        node: None,
        parent: None,
        acs: None,
    };
    let facts = |pci| {
        let inventory = Inventory { pci, ..inventory() };
        observe::observe(&host.path(""), &inventory, &claims(), Ok(Vec::new())).facts
    };
    assert_eq!(classes(&facts(Vec::new())), [Class::NotObservable], "a group without functions");
    let gpu = function("0000:41:00.0", "vfio-pci");
    assert_eq!(classes(&facts(vec![gpu.clone()])), []);
    let both = facts(vec![gpu, function("0000:41:00.1", "snd_hda_intel")]);
    assert_eq!(classes(&both), [Class::IommuGroup], "the host drives the other one");
    host.open(201, 3, SFlag::S_IFCHR, 511, 0);
    let gpu = function("0000:41:00.0", "vfio-pci");
    assert_eq!(classes(&facts(vec![gpu])), [Class::Device]);
}

#[test]
fn terminals_are_whose_the_mount_is() {
    let host = Host::leased();
    let own = format!("{MOUNTS}41 31 0:77 / /dev/pts rw,nosuid - devpts devpts rw\n");
    host.write("proc/101/mountinfo", &own);
    assert_eq!(host.violations(), []);
    host.write("proc/201/mountinfo", &own);
    assert_eq!(classes(&host.facts()), [Class::Device]);
}

#[test]
fn bounds_of_now_and_levels_of_the_record_are_proved() {
    let host = Host::leased();
    let pool = "sys/devices/system/node/node0/hugepages/hugepages-2048kB";
    host.write(&format!("{pool}/nr_hugepages"), "8\n");
    host.write(&format!("{pool}/free_hugepages"), "8\n");
    assert_eq!(classes(&host.facts()), [Class::HugepagesUnbounded; 2]);
    for (lease, bound) in [("acme.a", "16777216"), ("other.b", "0")] {
        host.slice(lease, "hugetlb.2MB.max", bound);
        host.slice(lease, "hugetlb.2MB.current", "0");
    }
    assert_eq!(classes(&host.facts()), []);
    host.slice("other.b", "hugetlb.2MB.max", "2097152");
    assert_eq!(classes(&host.facts()), [Class::HugepagesOversubscribed]);
    host.slice("other.b", "hugetlb.2MB.max", "0");
    let claims: Claims = claims().into_keys().map(|id| (id, Isolation::Socket)).collect();
    let facts = observe::observe(&host.path(""), &inventory(), &claims, Ok(Vec::new())).facts;
    assert_eq!(classes(&facts), [Class::Socket]);
}

#[test]
fn a_device_mapper_that_cannot_be_asked_is_not_observable() {
    let host = Host::leased();
    fs::create_dir_all(host.path("sys/block/dm-1")).unwrap();
    let why = devices::mappings(&host.path("")).unwrap_err();
    assert!(why.contains("open the device mapper's control device"), "{why}");
    assert_eq!(classes(&host.facts_with(Err(why))), [Class::NotObservable]);
}

#[test]
fn a_lease_with_more_open_files_than_are_looked_at_is_ended_alone() {
    let host = Host::leased();
    // Threads with a table each, which are compared with each other; their numbers are nobody's.
    for thread in 0..800 {
        let table = format!("proc/101/task/{}/fd", 2_000_000_000 + thread);
        fs::create_dir_all(host.path(&table)).unwrap();
    }
    let observed = observe::observe(&host.path(""), &inventory(), &claims(), Ok(Vec::new()));
    let group =
        |lease: &str| host.path(&format!("sys/fs/cgroup/tenant.slice/tenant-{lease}.slice"));
    assert_eq!(observed.crowded, [(id("acme", "a"), group("acme.a"))]);
    let found = prove(&observed.facts).violations;
    let why = format!("more than {} open files: not all were seen", super::reach::MOST_OPEN);
    let messages: Vec<&str> = found.iter().map(|violation| violation.message.as_str()).collect();
    assert_eq!(messages, [format!("not observable of acme/a: {why}")], "said once");

    let seen = look(&host.path(""), &inventory(), &claims());
    assert_eq!(classes(&seen.facts), [Class::NotObservable], "until it is gone it is stated");
    assert_eq!(fs::read_to_string(group("acme.a").join("cgroup.kill")).unwrap(), "1");
    assert!(!group("other.b").join("cgroup.kill").exists());
    fs::remove_dir_all(host.path("proc/101/task")).unwrap();
    fs::create_dir_all(host.path("proc/101/task/101/fd")).unwrap();
    assert_eq!(classes(&look(&host.path(""), &inventory(), &claims()).facts), []);
}

#[test]
fn our_own_process_is_looked_at_as_a_tenants_would_be() {
    let (dir, pid) = (PathBuf::from("/proc/self"), std::process::id());
    let mut reached = Reached::default();
    let _null = fs::File::open("/dev/full").unwrap();
    reached.open_files(&dir, pid).unwrap();
    reached.file_systems(&dir, pid).unwrap();
    let full = DeviceFile { block: false, major: 1, minor: 7 };
    let ways = reached.files.iter().filter(|(seen, _)| seen.file == full);
    let ways: BTreeSet<Way> = ways.flat_map(|(_, ways)| ways.clone()).collect();
    assert_eq!(ways, BTreeSet::from([Way::Open, Way::Node]));
    assert!(reached.open > 3);
}
