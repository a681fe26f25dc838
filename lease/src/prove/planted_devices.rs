//! Faults that are planted into what leases reach: devices, and the caches' ways.

use std::collections::BTreeSet;

use bulkhead_api::inventory::PciFunction;
use bulkhead_api::isolation::{
    Class, DeviceFacts, DeviceFile, DeviceKind, Facts, Holder, Stretch, Way,
};

use super::planted::{Fault, id};

fn of(number: u32) -> Holder {
    Holder::Lease(id(number))
}

/// A device by the start of its name, one that a lease has.
fn volume(facts: &mut Facts, number: u32) -> &mut DeviceFacts {
    device(facts, &format!("dm-{}", number + 1))
}

fn device<'a>(facts: &'a mut Facts, name: &str) -> &'a mut DeviceFacts {
    facts.devices.iter_mut().find(|device| device.name == name).unwrap()
}

/// The card's function of a lease.
fn vf(facts: &mut Facts, lease: u32) -> &mut DeviceFacts {
    let is = |device: &&mut DeviceFacts| matches!(device.kind, DeviceKind::Vf { number, .. } if number == lease);
    facts.devices.iter_mut().find(is).unwrap()
}

fn slice(facts: &mut Facts, instance: u32) -> &mut DeviceFacts {
    let is = |device: &&mut DeviceFacts| matches!(device.kind, DeviceKind::GpuSlice { gpu_instance, .. } if gpu_instance == instance);
    facts.devices.iter_mut().find(is).unwrap()
}

fn function<'a>(facts: &'a mut Facts, bdf: &str) -> &'a mut PciFunction {
    facts.functions.iter_mut().find(|function| function.bdf == bdf).unwrap()
}

/// A disk beside the host's own with a driver of the host's, in a group of its own below the switch of the GPUs.
fn disk_of_the_host(facts: &mut Facts, group: u32, port: &str) {
    let model = facts.functions[0].clone();
    facts.functions.push(PciFunction {
        bdf: "0000:70:00.0".to_owned(),
        class: 0x01_0802,
        driver: Some("nvme".to_owned()),
        iommu_group: Some(group),
        parent: Some(port.to_owned()),
        acs: None,
        ..model
    });
}

fn under(device: &mut DeviceFacts) -> &mut Vec<Stretch> {
    let DeviceKind::Mapping { under, .. } = &mut device.kind else { panic!("no mapping") };
    under
}

fn key(device: &mut DeviceFacts) -> &mut Option<String> {
    let DeviceKind::Mapping { key, .. } = &mut device.kind else { panic!("no mapping") };
    key
}

pub(super) const FAULTS: [Fault; 35] = [
    ("a volume that a neighbour opened", Class::Device, |facts| {
        volume(facts, 0).reach(&of(1), Way::Open);
    }),
    ("a function of the card in two hands", Class::Device, |facts| {
        let function = vf(facts, 0);
        function.port = None;
        function.reach(&of(1), Way::Open);
    }),
    ("a GPU in two hands", Class::Device, |facts| {
        device(facts, "0000:50:00.0").reach(&of(1), Way::Node);
    }),
    ("an IOMMU group opened twice", Class::Device, |facts| {
        let mut group = DeviceFacts::new("vfio/20", DeviceKind::VfioGroup);
        group.iommu_group = Some(20);
        group.reach(&of(0), Way::Open);
        group.reach(&of(1), Way::Node);
        facts.devices.retain(|device| device.iommu_group != Some(20));
        facts.devices.push(group);
    }),
    ("terminals of a neighbour", Class::Device, |facts| {
        let mut terminals = DeviceFacts::new("devpts 0:60", DeviceKind::Terminals);
        terminals.reach(&of(0), Way::Mount);
        terminals.reach(&of(1), Way::Open);
        facts.devices.push(terminals);
    }),
    ("the host's terminals", Class::HostDevice, |facts| {
        let mut terminals = DeviceFacts::new("devpts 0:24", DeviceKind::Terminals);
        terminals.reach(&Holder::Host, Way::Own);
        terminals.reach(&of(1), Way::Open);
        facts.devices.push(terminals);
    }),
    ("the host's card", Class::HostDevice, |facts| {
        let card = device(facts, "tenant0");
        (card.bdf, card.iommu_group) = (None, None);
        card.reach(&of(0), Way::Open);
    }),
    ("a disk of the host on which no volume lies", Class::HostDevice, |facts| {
        let mut disk = DeviceFacts::new("sda", DeviceKind::Disk);
        disk.reach(&Holder::Host, Way::Own);
        disk.reach(&of(0), Way::Node);
        facts.devices.push(disk);
    }),
    ("a device that nobody knows", Class::UnknownDevice, |facts| {
        let mut odd = DeviceFacts::new("c 240:7", DeviceKind::Unknown);
        odd.file = Some(DeviceFile { block: false, major: 240, minor: 7 });
        odd.reach(&of(0), Way::Open);
        facts.devices.push(odd);
    }),
    ("two functions of one group", Class::IommuGroup, |facts| {
        vf(facts, 0).iommu_group = Some(21);
        function(facts, "0000:10:01.0").iommu_group = Some(21);
    }),
    ("a function of the host's in a group", Class::IommuGroup, |facts| {
        disk_of_the_host(facts, 20, "0000:00:01.0");
    }),
    ("a group opened beside a function of it", Class::IommuGroup, |facts| {
        let mut group = DeviceFacts::new("vfio/20", DeviceKind::VfioGroup);
        group.iommu_group = Some(20);
        group.reach(&of(1), Way::Open);
        facts.devices.push(group);
    }),
    ("a port without access control", Class::PeerToPeer, |facts| {
        function(facts, "0000:00:01.0").acs = Some(false);
    }),
    ("a port whose access control is not known", Class::PeerToPeer, |facts| {
        function(facts, "0000:00:01.0").acs = None;
    }),
    ("two ports of a switch without access control", Class::PeerToPeer, |facts| {
        // GPU 1 is in parts by the host's driver: lease 1 has it whole here.
        facts.devices.retain(|device| !matches!(device.kind, DeviceKind::GpuSlice { .. }));
        device(facts, "0000:51:00.0").reach(&of(1), Way::Open);
        function(facts, "0000:41:00.0").acs = Some(false);
    }),
    ("a disk of the host behind the same switch", Class::PeerToPeer, |facts| {
        disk_of_the_host(facts, 77, "0000:40:00.0");
    }),
    ("a trusted function", Class::TrustedFunction, |facts| {
        if let DeviceKind::Vf { trust, .. } = &mut vf(facts, 0).kind {
            *trust = true;
        }
    }),
    ("a function without spoof check", Class::TrustedFunction, |facts| {
        if let DeviceKind::Vf { spoof_check, .. } = &mut vf(facts, 1).kind {
            *spoof_check = false;
        }
    }),
    ("one VLAN of two tenants", Class::Network, |facts| {
        vf(facts, 0).port = vf(facts, 1).port.clone();
    }),
    ("no VLAN of two tenants", Class::Network, |facts| {
        for lease in [0, 1] {
            vf(facts, lease).port.as_mut().unwrap().vlan = None;
        }
    }),
    ("one VXLAN of two tenants", Class::Network, |facts| {
        for lease in [0, 1] {
            vf(facts, lease).port.as_mut().unwrap().vni = Some(7);
            vf(facts, lease).port.as_mut().unwrap().vlan = None;
        }
    }),
    ("two compute instances of one GPU instance", Class::GpuInstance, |facts| {
        let mut second = slice(facts, 1).clone();
        second.name = format!("{}1", second.name.trim_end_matches('0'));
        second.holders.clear();
        second.reach(&of(0), Way::Open);
        facts.devices.push(second);
    }),
    ("a GPU and a part of it", Class::GpuSlice, |facts| {
        slice(facts, 2).holders.clear();
        device(facts, "0000:51:00.0").reach(&of(0), Way::Open);
    }),
    ("volumes that overlap", Class::VolumeExtent, |facts| {
        let start = under(volume(facts, 1))[1].start;
        under(volume(facts, 0))[0].start = start + 4096;
    }),
    ("a volume by the disk over one by the partition", Class::VolumeExtent, |facts| {
        let start = under(volume(facts, 1))[0].start + (1 << 30);
        let disk = "nvme0n1".to_owned();
        under(volume(facts, 0))[0] = Stretch { device: disk, start, length: 512 };
    }),
    ("a volume over one that nobody has open", Class::VolumeExtent, |facts| {
        volume(facts, 1).holders.clear();
        let theirs = under(volume(facts, 1)).clone();
        *under(volume(facts, 0)) = theirs;
    }),
    ("one key of two volumes", Class::VolumeKey, |facts| {
        let theirs = key(volume(facts, 1)).clone();
        *key(volume(facts, 0)) = theirs;
    }),
    ("the partition beneath volumes", Class::BeneathVolume, |facts| {
        device(facts, "nvme0n1p2").reach(&of(0), Way::Node);
    }),
    ("a partition over a volume by the disk", Class::BeneathVolume, |facts| {
        let on = Stretch { device: "nvme0n1".to_owned(), start: 0, length: 2 << 30 };
        let mut partition = DeviceFacts::new("nvme0n1p1", DeviceKind::Partition { on });
        partition.reach(&Holder::Host, Way::Own);
        partition.reach(&of(1), Way::Open);
        facts.devices.push(partition);
    }),
    ("a mapping beneath a volume", Class::BeneathVolume, |facts| {
        let mut lower = volume(facts, 0).clone();
        (lower.name, *key(&mut lower)) = ("dm-90".to_owned(), None);
        lower.holders.clear();
        lower.reach(&of(1), Way::Open);
        facts.devices.push(lower);
        let device = "dm-90".to_owned();
        *under(volume(facts, 0)) = vec![Stretch { device, start: 0, length: 2 << 30 }];
    }),
    ("a way of a neighbour", Class::CacheWays, |facts| {
        // One cache for all, so that both fill it.
        let all: BTreeSet<u32> = facts.cores.iter().flat_map(|core| core.cpus.clone()).collect();
        for cache in facts.caches.iter_mut().filter(|cache| cache.level == 3) {
            cache.cpus = all.clone();
        }
        let theirs = facts.cache_groups[2].ways.clone();
        facts.cache_groups[1].ways = theirs;
    }),
    ("a way that all others fill", Class::CacheWays, |facts| {
        *facts.cache_groups[0].ways.get_mut(&0).unwrap() |= 2;
    }),
    ("a CPU in a neighbour's group", Class::CacheGroup, |facts| {
        let cpus = facts.cache_groups[2].cpus.clone();
        facts.cache_groups[1].cpus.extend(cpus);
    }),
    ("a volume of which nothing is known", Class::NotObservable, |facts| {
        under(volume(facts, 0)).clear();
    }),
    ("a function that hangs on nothing known", Class::NotObservable, |facts| {
        facts.functions.retain(|function| function.bdf != "0000:41:00.0");
    }),
];
