use proptest::prelude::*;

use super::*;

pub(crate) fn guest() -> Guest {
    Guest {
        id: crate::tenant::plan::tests::id("vm-a"),
        boot: Boot::Kernel { cmdline: "console=ttyS0 a=1,2 b".to_owned() },
        memory: Memory::Pages { bytes: Bytes::new(128 << 20), nodes: BTreeSet::from([0]) },
        cpus: Topology { order: vec![2, 6, 3, 7], sockets: 1, cores: 2, threads: 2 },
        devices: Vec::new(),
    }
}

fn volume(name: &str) -> Device {
    Device::Volume(name.parse().unwrap())
}

fn disk_guest() -> Guest {
    let boot = Boot::Disk { file: "a.qcow2".to_owned(), format: DiskFormat::Qcow2 };
    Guest { boot, ..guest() }
}

/// Values of an option, in order.
fn values<'a>(line: &'a [String], option: &str) -> Vec<&'a str> {
    line.windows(2).filter(|pair| pair[0] == option).map(|pair| pair[1].as_str()).collect()
}

#[test]
fn a_kernel_without_other_devices_is_a_microvm() {
    let line = guest().command();
    assert_eq!(line[0], "/usr/bin/qemu-system-x86_64-microvm");
    assert_eq!(values(&line, "-machine"), ["microvm,rtc=on,memory-backend=memory0"]);
    assert_eq!(values(&line, "-accel"), ["kvm"]);
    assert_eq!(values(&line, "-cpu"), ["host"]);
    assert_eq!(values(&line, "-smp"), ["cpus=4,sockets=1,cores=2,threads=2"]);
    assert_eq!(values(&line, "-m"), ["134217728B"]);
    let memory = "memory-backend-ram,id=memory0,size=134217728B,host-nodes=0,policy=bind";
    assert_eq!(values(&line, "-object"), [memory, "rng-builtin,id=random"]);
    assert_eq!(values(&line, "-device"), ["virtio-rng-device,rng=random"]);
    assert_eq!(values(&line, "-append"), ["console=ttyS0 a=1,2 b"]);
    assert!(values(&line, "-name")[0].ends_with("debug-threads=on"));
    assert!(values(&line, "-netdev").is_empty() && values(&line, "-nic").is_empty());
}

#[test]
fn what_a_microvm_cannot_is_a_q35() {
    assert_eq!(guest().machine(), Machine::MicroVm);
    assert_eq!(disk_guest().machine(), Machine::Q35);
    let volumes = |count: usize| (0..count).map(|n| volume(&format!("v{n}"))).collect();
    assert_eq!(Guest { devices: volumes(7), ..guest() }.machine(), Machine::MicroVm);
    assert_eq!(Guest { devices: volumes(8), ..guest() }.machine(), Machine::Q35);
    let pages = |nodes: &[u32]| Memory::Huge {
        page_size: PageSize::TwoMiB,
        pages: nodes.iter().map(|&node| NodePages { node, pages: 64 }).collect(),
    };
    assert_eq!(Guest { memory: pages(&[1]), ..guest() }.machine(), Machine::MicroVm);
    let line = Guest { memory: pages(&[0, 1]), ..guest() }.command();
    assert_eq!(values(&line, "-machine"), ["q35,vmport=off"]);
    let nodes = ["node,nodeid=0,memdev=memory0,cpus=0-3", "node,nodeid=1,memdev=memory1"];
    assert_eq!(values(&line, "-numa"), nodes);
    assert_eq!(values(&line, "-m"), ["268435456B"]);
    let second = values(&line, "-object")[1];
    assert_eq!(
        second,
        "memory-backend-memfd,id=memory1,size=134217728B,hugetlb=on,hugetlbsize=2097152B,prealloc=on,host-nodes=1,policy=bind"
    );
}

#[test]
fn a_disk_boots_by_firmware_from_a_copy_in_memory_and_names_no_other_file() {
    let line = disk_guest().command();
    assert_eq!(line[0], "/usr/bin/qemu-system-x86_64");
    let drives = values(&line, "-drive");
    assert!(drives[0].contains("readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd"));
    assert!(drives[1].contains("snapshot=on"));
    let (options, json) = drives[2].split_once("file=json:").unwrap();
    assert!(options.contains("snapshot=on,werror=report"), "{options}");
    let node: Value = serde_json::from_str(&json.replace(",,", ",")).unwrap();
    assert_eq!(node["file"]["filename"], "/image/disk/a.qcow2");
    assert_eq!((node["driver"].as_str(), &node["backing"]), (Some("qcow2"), &Value::Null));
    assert!(node.as_object().unwrap().contains_key("backing"));
    assert!(!json.replace(",,", "").contains(','), "{json}");
    assert!(values(&line, "-kernel").is_empty());
    assert!(values(&line, "-device")[1].contains("bootindex=0"));
}

#[test]
fn every_volume_is_a_disk_with_its_name() {
    let long = "a-volume-with-a-long-name";
    let line = Guest { devices: vec![volume("data"), volume(long)], ..guest() }.command();
    let nodes: Vec<Value> =
        values(&line, "-blockdev").iter().map(|node| serde_json::from_str(node).unwrap()).collect();
    assert_eq!(nodes[0]["filename"], "/disks/data");
    assert_eq!(nodes[1]["filename"], format!("/disks/{long}"));
    assert_eq!(nodes[1]["cache"]["direct"], true);
    let devices = values(&line, "-device");
    assert!(devices[1].starts_with("virtio-blk-device,drive=volume0,serial=data,"), "{devices:?}");
    assert!(devices[2].contains("serial=a-volume-with-a-long,"), "{devices:?}");
}

#[test]
fn the_emulator_denies_itself_what_it_does_not_need_and_shows_its_monitor_to_the_host_alone() {
    for guest in [guest(), disk_guest()] {
        let line = guest.command();
        for right in ["elevateprivileges", "spawn", "resourcecontrol", "obsolete"] {
            assert!(values(&line, "-sandbox")[0].contains(&format!("{right}=deny")), "{right}");
        }
        for word in ["-nodefaults", "-no-user-config"] {
            assert!(line.contains(&word.to_owned()), "{word}");
        }
        let chardevs = values(&line, "-chardev");
        assert_eq!(chardevs.len(), 2);
        assert_eq!(chardevs[1], "socket,id=qmp,path=/qmp/sock,server=on,wait=off");
        assert_eq!(values(&line, "-mon"), ["chardev=qmp,mode=control"]);
        assert!(!line.iter().any(|word| word.contains("fw_cfg") || word.contains("smbios")));
    }
}

#[test]
fn memory_is_bound_to_all_nodes_of_the_lease() {
    let nodes = BTreeSet::from([0, 1, 4]);
    let memory = Memory::Pages { bytes: Bytes::new(1 << 30), nodes };
    let line = Guest { memory, ..guest() }.command();
    assert!(values(&line, "-object")[0].ends_with(",host-nodes=0-1,host-nodes=4,policy=bind"));
}

proptest! {
    #[test]
    fn no_command_line_of_an_image_becomes_an_option(cmdline in "[ -~]{0,60}") {
        let boot = Boot::Kernel { cmdline: cmdline.clone() };
        let (plain, line) = (guest().command(), Guest { boot, ..guest() }.command());
        prop_assert_eq!(plain.len(), line.len());
        let differs: Vec<&String> = line.iter().zip(&plain).filter(|(a, b)| a != b).map(|(a, _)| a).collect();
        prop_assert!(differs.is_empty() || differs == [&cmdline]);
    }
}
