use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use bulkhead_api::inventory::{HugepagePool, Resctrl};
use bulkhead_api::resource::PageSize;
use bulkhead_api::units::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// A file tree like the one of a host: files by path, links by path and target.
struct Recorded {
    dir: TempDir,
    files: Vec<PathBuf>,
}

impl Recorded {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), files: Vec::new() }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    fn file(&mut self, below: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        self.files.push(path);
    }

    fn files(&mut self, below: &str, files: &[(&str, &str)]) {
        for (name, text) in files {
            self.file(&format!("{below}/{name}"), format!("{text}\n"));
        }
    }

    /// A link as sysfs has them; the target is a directory that is made.
    fn link(&mut self, below: &str, target: &str) {
        let (path, target) = (self.path(below), self.path(target));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::create_dir_all(&target).unwrap();
        symlink(target, path).unwrap();
    }

    fn observe(&self) -> Inventory {
        observe_tree(self.dir.path(), "1.2.3")
    }

    fn problems(&self) -> Vec<String> {
        self.observe().problems
    }
}

fn processors(tree: &mut Recorded) {
    let cpu = "sys/devices/system/cpu";
    tree.file(&format!("{cpu}/online"), "0-3\n");
    tree.file("proc/cpuinfo", "processor\t: 0\nmodel name\t: AMD EPYC 9654\n\nprocessor\t: 1\n");
    // Two sockets of one core each; siblings are 0,2 and 1,3 as the kernel numbers them.
    for (number, siblings) in [(0, "0,2"), (1, "1,3"), (2, "0,2"), (3, "1,3")] {
        let socket = (number % 2).to_string();
        let topology = [
            ("thread_siblings_list", siblings),
            ("physical_package_id", socket.as_str()),
            ("core_id", "0"),
        ];
        tree.files(&format!("{cpu}/cpu{number}/topology"), &topology);
        let l1 = [("level", "1"), ("type", "Data"), ("size", "32K"), ("shared_cpu_list", siblings)];
        tree.files(&format!("{cpu}/cpu{number}/cache/index0"), &l1);
        let l3 = [
            ("level", "3"),
            ("id", socket.as_str()),
            ("type", "Unified"),
            ("size", "262144K"),
            ("shared_cpu_list", siblings),
        ];
        tree.files(&format!("{cpu}/cpu{number}/cache/index3"), &l3);
    }
    for (node, cpus) in [("0", "0,2"), ("1", "1,3")] {
        let below = format!("sys/devices/system/node/node{node}");
        let meminfo = format!("Node {node} MemTotal:  1048576 kB\nNode {node} MemFree: 1 kB");
        tree.files(&below, &[("cpulist", cpus), ("meminfo", &meminfo)]);
        let small = [("nr_hugepages", "512"), ("free_hugepages", "12")];
        tree.files(&format!("{below}/hugepages/hugepages-2048kB"), &small);
        let large = [("nr_hugepages", "0"), ("free_hugepages", "0")];
        tree.files(&format!("{below}/hugepages/hugepages-1048576kB"), &large);
    }
}

fn devices(tree: &mut Recorded) {
    let pci = "sys/devices/pci0000:00";
    // A virtio NIC is a child of its PCI function.
    tree.link("sys/class/net/eth0/device", &format!("{pci}/0000:00:02.0/virtio0"));
    tree.link(&format!("{pci}/0000:00:02.0/virtio0/driver"), "sys/bus/virtio/drivers/virtio_net");
    tree.files(
        "sys/class/net/eth0",
        &[("address", "52:54:00:00:00:01"), ("carrier", "1"), ("speed", "-1")],
    );
    let igb = format!("{pci}/0000:00:1c.0/0000:01:00.0");
    tree.link("sys/class/net/ens1/device", &igb);
    tree.link(&format!("{igb}/driver"), "sys/bus/pci/drivers/igb");
    tree.link(&format!("{igb}/virtfn1"), &format!("{pci}/0000:01:10.2"));
    tree.link(&format!("{igb}/virtfn0"), &format!("{pci}/0000:01:10.0"));
    tree.file(&format!("{igb}/sriov_totalvfs"), "7\n");
    tree.files(
        "sys/class/net/ens1",
        &[("address", "52:54:00:00:00:02"), ("carrier", "1"), ("speed", "1000")],
    );
    tree.files("sys/class/net/lo", &[("address", "00:00:00:00:00:00")]);

    // With several paths a namespace hangs below its subsystem, which links to its controllers.
    let subsystem = "sys/devices/virtual/nvme-subsystem/nvme-subsys0";
    tree.link("sys/block/nvme0n1/device", subsystem);
    tree.link(&format!("{subsystem}/subsystem"), "sys/class/nvme-subsystem");
    tree.files(subsystem, &[("model", "SAMSUNG X   "), ("serial", "S1")]);
    tree.link(
        &format!("{subsystem}/nvme0"),
        &format!("{pci}/0000:00:1d.0/0000:02:00.0/nvme/nvme0"),
    );
    tree.files(
        "sys/block/nvme0n1",
        &[("size", "2048"), ("hidden", "0"), ("queue/rotational", "0")],
    );
    tree.link("sys/block/nvme0c0n1/device", subsystem);
    tree.files("sys/block/nvme0c0n1", &[("size", "2048"), ("hidden", "1")]);
    tree.files("sys/block/loop0", &[("size", "8")]);

    let function = "sys/bus/pci/devices/0000:01:00.0";
    tree.link(function, &igb);
    tree.link("sys/bus/pci/devices/0000:00:1c.0", &format!("{pci}/0000:00:1c.0"));
    tree.files(
        "sys/bus/pci/devices/0000:00:1c.0",
        &[("vendor", "0x8086"), ("device", "0x3420"), ("class", "0x060400"), ("numa_node", "-1")],
    );
    // No list of capabilities: a bridge to a shared bus.
    tree.file("sys/bus/pci/devices/0000:00:1c.0/config", [0; 64]);
    tree.link("sys/bus/pci/devices/0000:02:00.0", &format!("{pci}/0000:00:1d.0/0000:02:00.0"));
    tree.files(
        "sys/bus/pci/devices/0000:02:00.0",
        &[("vendor", "0x144d"), ("device", "0xa80a"), ("class", "0x010802"), ("numa_node", "1")],
    );
    tree.files(
        function,
        &[("vendor", "0x8086"), ("device", "0x10c9"), ("class", "0x020000"), ("numa_node", "1")],
    );
    tree.link(&format!("{function}/iommu_group"), "sys/kernel/iommu_groups/14");
    tree.files(
        "sys/class/ptp/ptp0",
        &[("clock_name", "igb-52:54"), ("max_adjustment", "999999999")],
    );
    tree.file("sys/class/tpm/tpm0/tpm_version_major", "2\n");
}

fn server() -> Recorded {
    let mut tree = Recorded::new();
    processors(&mut tree);
    devices(&mut tree);
    let dmi = [
        ("product_uuid", "11111111-2222-3333-4444-555555555555"),
        ("sys_vendor", "QEMU"),
        ("product_name", "MGX"),
        ("product_serial", "42"),
        ("bios_version", "2025.02"),
    ];
    tree.files("sys/class/dmi/id", &dmi);
    let secure_boot = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
    tree.file(secure_boot, [6, 0, 0, 0, 1]);
    tree.file("proc/sys/kernel/osrelease", "6.12.117\n");
    tree.file("proc/self/mountinfo", "");
    tree
}

#[test]
fn a_recorded_server_is_read_without_a_problem() {
    let inventory = server().observe();
    assert_eq!(inventory.problems, Vec::<String>::new());
    assert_eq!(inventory.system_uuid.unwrap().to_string(), "11111111-2222-3333-4444-555555555555");
    assert_eq!((inventory.kernel.as_str(), inventory.image.as_str()), ("6.12.117", "1.2.3"));
    assert_eq!(inventory.firmware.vendor, "QEMU");
    assert!(inventory.firmware.uefi && inventory.firmware.secure_boot);
    assert_eq!(inventory.tpm.unwrap().version_major, 2);
    assert_eq!(inventory.ptp_clocks[0].max_adjustment_ppb, 999_999_999);
}

#[test]
fn cores_are_whole_with_their_siblings_socket_and_node() {
    let inventory = server().observe();
    assert_eq!(inventory.cpu.model, "AMD EPYC 9654");
    let cores: Vec<_> = inventory.cpu.cores.iter().map(|c| (c.socket, c.id, c.node)).collect();
    assert_eq!(cores, [(0, 0, 0), (1, 0, 1)]);
    assert_eq!(inventory.cpu.cores[0].cpus, [0, 2].into());
    let caches: Vec<_> =
        inventory.cpu.caches.iter().map(|c| (c.level, c.kind.as_str(), c.size.get())).collect();
    let (l1, l3) = ((1, "Data", 32 << 10), (3, "Unified", 256 << 20));
    assert_eq!(caches, [l1, l1, l3, l3]);
    let ids: Vec<_> = inventory.cpu.caches.iter().map(|c| c.id).collect();
    assert_eq!(ids, [None, None, Some(0), Some(1)]);
    let memory: Vec<_> = inventory.memory.iter().map(|n| (n.id, n.total)).collect();
    assert_eq!(memory, [(0, Bytes::new(1 << 30)), (1, Bytes::new(1 << 30))]);
}

#[test]
fn nics_have_their_functions_and_those_without_a_device_are_none() {
    let nics = server().observe().nics;
    let names: Vec<_> = nics.iter().map(|nic| nic.name.as_str()).collect();
    assert_eq!(names, ["ens1", "eth0"]);
    assert_eq!(nics[0].bdf.as_deref(), Some("0000:01:00.0"));
    assert_eq!((nics[0].driver.as_str(), nics[0].total_vfs), ("igb", 7));
    assert_eq!(nics[0].vfs, ["0000:01:10.0", "0000:01:10.2"]);
    assert_eq!(nics[0].speed_mbps, Some(1000));
    assert_eq!(nics[1].bdf.as_deref(), Some("0000:00:02.0"));
    assert_eq!((nics[1].speed_mbps, nics[1].up), (None, true));
}

#[test]
fn whole_disks_alone_are_disks() {
    let disks = server().observe().disks;
    assert_eq!(disks.len(), 1, "{disks:?}");
    let disk = &disks[0];
    assert_eq!((disk.name.as_str(), disk.transport.as_str()), ("nvme0n1", "nvme"));
    assert_eq!((disk.model.as_str(), disk.serial.as_str()), ("SAMSUNG X", "S1"));
    assert_eq!(disk.size, Bytes::new(1 << 20));
    assert_eq!((disk.bdf.as_deref(), disk.node), (Some("0000:02:00.0"), Some(1)));
}

#[test]
fn a_disk_with_one_path_has_its_own_controller() {
    let mut tree = server();
    let device = "sys/devices/pci0000:00/0000:00:04.0/virtio1";
    tree.link("sys/block/vda/device", device);
    tree.files("sys/block/vda", &[("size", "2048")]);
    let disks = tree.observe().disks;
    let disk = disks.iter().find(|disk| disk.name == "vda").unwrap();
    assert_eq!((disk.bdf.as_deref(), disk.node), (Some("0000:00:04.0"), None));
}

#[test]
fn functions_have_driver_group_and_node() {
    let pci = server().observe().pci;
    let names: Vec<_> = pci.iter().map(|f| (f.bdf.as_str(), f.parent.as_deref(), f.acs)).collect();
    assert_eq!(
        names,
        [
            ("0000:00:1c.0", None, Some(false)),
            ("0000:01:00.0", Some("0000:00:1c.0"), None),
            ("0000:02:00.0", Some("0000:00:1d.0"), None),
        ]
    );
    let function = &pci[1];
    assert_eq!((function.vendor, function.device, function.class), (0x8086, 0x10c9, 0x02_0000));
    assert_eq!(function.driver.as_deref(), Some("igb"));
    assert_eq!((function.iommu_group, function.node), (Some(14), Some(1)));
}

#[test]
fn an_empty_tree_is_a_host_without_anything() {
    let inventory = Recorded::new().observe();
    assert_eq!(inventory.problems, Vec::<String>::new());
    assert!(inventory.cpu.cores.is_empty() && inventory.nics.is_empty());
}

#[test]
fn a_kernel_without_numa_has_one_node() {
    let mut tree = Recorded::new();
    tree.file("sys/devices/system/cpu/online", "0-1\n");
    tree.file("proc/meminfo", "MemTotal:        2048 kB\n");
    let memory = tree.observe().memory;
    assert_eq!(memory.len(), 1);
    assert_eq!((memory[0].id, memory[0].total), (0, Bytes::new(2 << 20)));
    assert_eq!(memory[0].cpus, [0, 1].into());
}

#[test]
fn huge_pages_are_counted_by_node_and_size() {
    let memory = server().observe().memory;
    let pool = |page_size, total, free| HugepagePool { page_size, total, free };
    let pools = [pool(PageSize::TwoMiB, 512, 12), pool(PageSize::OneGiB, 0, 0)];
    assert_eq!(memory[0].hugepages, pools);
    assert_eq!(memory[1].hugepages, pools);
}

fn cache_control(tree: &mut Recorded) {
    let info = "sys/fs/resctrl/info";
    let l3 = [
        ("num_closids", "16"),
        ("cbm_mask", "fffff"),
        ("min_cbm_bits", "1"),
        ("shareable_bits", "c0000"),
    ];
    tree.files(&format!("{info}/L3"), &l3);
    let mb = [("num_closids", "8"), ("min_bandwidth", "10"), ("bandwidth_gran", "10")];
    tree.files(&format!("{info}/MB"), &mb);
}

#[test]
fn cache_control_says_its_groups_ways_and_bandwidth() {
    let mut tree = server();
    cache_control(&mut tree);
    tree.file("proc/cpuinfo", "processor\t: 0\nvendor_id\t: GenuineIntel\n");
    let expected = Resctrl {
        groups: 8,
        ways: 20,
        min_ways: 1,
        shareable: 0xc_0000,
        min_bandwidth_percent: Some(10),
        bandwidth_step_percent: 10,
    };
    let inventory = tree.observe();
    assert_eq!(inventory.cpu.resctrl, Some(expected.clone()));
    assert_eq!(inventory.problems, Vec::<String>::new());
    // There it counts eighths of a gigabyte a second.
    tree.file("proc/cpuinfo", "processor\t: 0\nvendor_id\t: AuthenticAMD\n");
    let amd = Resctrl { min_bandwidth_percent: None, bandwidth_step_percent: 0, ..expected };
    assert_eq!(tree.observe().cpu.resctrl, Some(amd));
}

#[test]
fn cache_control_that_is_not_mounted_garbled_or_parts_code_and_data_is_none() {
    let mut tree = server();
    fs::create_dir_all(tree.path("sys/fs/resctrl")).unwrap();
    let inventory = tree.observe();
    assert_eq!(inventory.cpu.resctrl, None);
    assert_eq!(inventory.problems, ["sys/fs/resctrl: not mounted, no lease gets cache of its own"]);
    cache_control(&mut tree);
    tree.file("sys/fs/resctrl/info/L3/cbm_mask", "0xfffff\n");
    let inventory = tree.observe();
    assert_eq!(inventory.cpu.resctrl, None);
    assert!(inventory.problems[0].ends_with("\"0xfffff\" is not a hexadecimal mask"));
    fs::rename(tree.path("sys/fs/resctrl/info/L3"), tree.path("sys/fs/resctrl/info/L3CODE"))
        .unwrap();
    let inventory = tree.observe();
    assert_eq!((inventory.cpu.resctrl, inventory.problems), (None, Vec::new()));
}

#[test]
fn a_bridge_whose_config_ends_early_is_named_and_not_judged() {
    let mut tree = server();
    let mut config = [0; 64];
    (config[6], config[0x34]) = (0x10, 0x40);
    tree.file("sys/bus/pci/devices/0000:00:1c.0/config", config);
    let inventory = tree.observe();
    assert_eq!(inventory.pci[0].acs, None);
    assert!(inventory.problems[0].contains("0000:00:1c.0/config: 64 bytes do not tell"));
}

#[test]
fn an_unset_uuid_is_none() {
    let mut tree = server();
    let uuid = "sys/class/dmi/id/product_uuid";
    tree.file(uuid, "00000000-0000-0000-0000-000000000000\n");
    assert_eq!(tree.observe().system_uuid, None);
}

#[test]
fn garbled_files_cost_their_own_device_and_are_named() {
    let table: [(&str, &[u8], &str); 9] = [
        ("sys/class/dmi/id/product_uuid", b"none", "\"none\" is not of the expected form"),
        ("sys/class/net/ens1/address", b"52:54", "\"52:54\" is not of the expected form"),
        ("sys/bus/pci/devices/0000:01:00.0/vendor", b"zz", "\"zz\" is not a hexadecimal number"),
        (
            "sys/bus/pci/devices/0000:01:00.0/device",
            b"0x12345",
            "\"0x12345\" is not a hexadecimal number",
        ),
        (
            "sys/devices/system/cpu/cpu1/topology/thread_siblings_list",
            b"1-",
            "\"1-\" is not a list of numbers",
        ),
        (
            "sys/devices/system/cpu/cpu0/cache/index0/level",
            b"L1",
            "\"L1\" is not of the expected form",
        ),
        ("sys/devices/system/cpu/cpu0/cache/index0/size", b"big", "\"big\" is not a size"),
        ("sys/block/nvme0n1/size", b"-5", "\"-5\" is not of the expected form"),
        ("sys/class/ptp/ptp0/max_adjustment", &[0xff, 0xfe], "is not of the expected form"),
    ];
    let whole = server().observe();
    for (path, bytes, expected) in table {
        let mut tree = server();
        tree.file(path, bytes);
        let inventory = tree.observe();
        let said = inventory.problems.join("\n");
        assert!(said.contains(path) && said.contains(expected), "{path}: {said}");
        assert_eq!(inventory.firmware, whole.firmware, "{path}");
        assert!(inventory.nics.iter().any(|nic| nic.name == "eth0"), "{path}");
    }
}

#[test]
fn unreadable_files_and_directories_are_named() {
    let mut tree = server();
    let serial = tree.path("sys/devices/virtual/nvme-subsystem/nvme-subsys0/serial");
    fs::remove_file(&serial).unwrap();
    fs::create_dir(&serial).unwrap();
    fs::remove_dir_all(tree.path("sys/class/tpm")).unwrap();
    tree.file("sys/class/tpm", "not a directory");
    let problems = tree.problems();
    assert!(
        problems.iter().any(|p| p.starts_with("read sys/block/nvme0n1/device/serial: ")),
        "{problems:?}"
    );
    assert!(problems.iter().any(|p| p.starts_with("list sys/class/tpm: ")), "{problems:?}");
    assert_eq!(tree.observe().disks[0].serial, "");
}

#[test]
fn a_cpu_without_topology_is_not_leased_and_named() {
    let tree = server();
    fs::remove_dir_all(tree.path("sys/devices/system/cpu/cpu3/topology")).unwrap();
    fs::remove_dir_all(tree.path("sys/devices/system/cpu/cpu1/topology")).unwrap();
    let inventory = tree.observe();
    assert_eq!(inventory.cpu.cores.len(), 1);
    assert_eq!(inventory.problems.len(), 2, "{:?}", inventory.problems);
}

#[test]
fn this_machine_is_read() {
    let inventory = observe_tree(Path::new("/"), "");
    assert!(!inventory.cpu.cores.is_empty());
    assert!(inventory.memory.iter().any(|node| node.total.get() > 0));
}

#[test]
fn any_bytes_in_any_file_leave_the_other_devices() {
    let tree = server();
    let bytes = prop::collection::vec(any::<u8>(), 0..40);
    proptest!(|(at in any::<prop::sample::Index>(), bytes in bytes)| {
        let file = &tree.files[at.index(tree.files.len())];
        let good = fs::read(file).unwrap();
        fs::write(file, bytes).unwrap();
        let Inventory { nics, disks, pci, cpu, .. } = tree.observe();
        fs::write(file, good).unwrap();
        let left = nics.len() + disks.len() + pci.len() + cpu.cores.len();
        prop_assert!(left >= 4, "{:?}: {} left", file, left);
    });
}
