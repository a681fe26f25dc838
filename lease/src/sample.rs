//! Hosts whose leases share nothing, of any shape: what proofs and placements are measured and tested with.
//!
//! Made without any code of [`crate::prove`] or [`crate::place`]. Each node has one socket, its first core stays free,
//! and leases take turns on the nodes; each has an encrypted volume, a virtual function of one card, huge pages, a way
//! of each last-level cache, and GPUs go round: one whole, one in two parts.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_api::id::LeaseId;
use bulkhead_api::inventory::{
    Cache, Core, CpuTopology, HugepagePool, Inventory, NumaNode, PciFunction,
};
use bulkhead_api::isolation::{
    CacheGroup, DeviceFacts, DeviceFile, DeviceKind, Facts, Holder, HolderFacts, HugepageFacts,
    IdRange, Namespace, Port, ProcessFacts, Stretch, Way,
};
use bulkhead_api::resource::PageSize;
use bulkhead_api::units::Bytes;

/// Shape of a host.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Memory nodes, each a socket.
    pub nodes: u32,
    /// Cores of a node: at least one more than its leases have.
    pub cores: u32,
    /// CPUs of a core.
    pub threads: u32,
    /// Leases: 2 to 19.
    pub leases: u32,
    /// Cores of a lease.
    pub each: u32,
    /// GPUs.
    pub gpus: u32,
}

/// A server for GPUs: two sockets of 64 cores with two threads, 16 leases, 8 GPUs.
pub const SERVER: Shape = Shape { nodes: 2, cores: 64, threads: 2, leases: 16, each: 7, gpus: 8 };

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// Huge pages of a lease.
const PAGES: u64 = 64;
/// Function of the card that is the host's.
const CARD: &str = "0000:10:00.0";

/// The lease of that number: every other one is of tenant `even`.
#[must_use]
#[expect(clippy::expect_used, reason = "these words with a number are names")]
pub fn id(number: u32) -> LeaseId {
    let tenant = if number.is_multiple_of(2) { "even" } else { "odd" };
    LeaseId {
        tenant: tenant.parse().expect("a tenant's name"),
        name: format!("l{number}").parse().expect("a lease's name"),
    }
}

impl Shape {
    fn lease(self, number: u32) -> Holder {
        Holder::Lease(id(number.checked_rem(self.leases).unwrap_or_default()))
    }

    fn all_cores(self) -> Vec<Core> {
        let all = self.nodes.saturating_mul(self.cores);
        let core = |n: u32| {
            let node = n.checked_div(self.cores).unwrap_or_default();
            let id = n.checked_rem(self.cores).unwrap_or_default();
            let cpus = (0..self.threads).map(|thread| n + thread * all).collect();
            Core { socket: node, id, node, cpus }
        };
        (0..all).map(core).collect()
    }

    fn of_node(self, node: u32) -> BTreeSet<u32> {
        let cores = self.all_cores().into_iter().filter(|core| core.node == node);
        cores.flat_map(|core| core.cpus).collect()
    }

    fn memory(self) -> Vec<NumaNode> {
        let total = PAGES.saturating_mul(u64::from(self.leases));
        let node = |id: u32| NumaNode {
            id,
            total: Bytes::new(4 * GIB),
            cpus: self.of_node(id),
            hugepages: vec![HugepagePool { page_size: PageSize::TwoMiB, total, free: 0 }],
        };
        (0..self.nodes).map(node).collect()
    }

    fn caches(self) -> Vec<Cache> {
        let cache = |level, kind: &str, id, cpus| Cache {
            level,
            kind: kind.to_owned(),
            id: Some(id),
            size: Bytes::new(MIB),
            cpus,
        };
        let cores = self.all_cores();
        let private = (0..).zip(&cores).flat_map(|(at, core)| {
            [(1, "Data"), (1, "Instruction"), (2, "Unified")]
                .map(|(level, kind)| cache(level, kind, at, core.cpus.clone()))
        });
        let shared = (0..self.nodes).map(|node| cache(3, "Unified", node, self.of_node(node)));
        private.chain(shared).collect()
    }

    /// CPUs and node of a lease.
    fn place(self, number: u32) -> (BTreeSet<u32>, u32) {
        let node = number.checked_rem(self.nodes).unwrap_or_default();
        let turn = number.checked_div(self.nodes).unwrap_or_default();
        let first = node * self.cores + 1 + turn * self.each;
        let all = self.nodes * self.cores;
        let threads = |core: u32| (0..self.threads).map(move |thread| core + thread * all);
        ((first..first + self.each).flat_map(threads).collect(), node)
    }

    fn functions(self) -> Vec<PciFunction> {
        let mut functions = vec![
            function("0000:00:01.0", BRIDGE, None, None, Some(true)),
            PciFunction {
                driver: Some("mlx5_core".to_owned()),
                ..function(CARD, NETWORK, Some(10), Some("0000:00:01.0"), None)
            },
        ];
        for number in 0..self.leases {
            let driver = Some("vfio-pci".to_owned());
            let (bdf, group) = (vf(number), Some(20 + number));
            let below = function(&bdf, NETWORK, group, Some("0000:00:01.0"), None);
            functions.push(PciFunction { driver, ..below });
        }
        functions.push(function("0000:00:02.0", BRIDGE, None, None, Some(true)));
        // The port of a switch that looks up has no such services and needs none.
        functions.push(function("0000:40:00.0", BRIDGE, None, Some("0000:00:02.0"), None));
        for gpu in 0..self.gpus {
            let port = format!("0000:41:{gpu:02x}.0");
            functions.push(function(&port, BRIDGE, None, Some("0000:40:00.0"), Some(true)));
            let below = function(&gpu_bdf(gpu), GPU, Some(100 + gpu), Some(&port), None);
            functions.push(PciFunction { driver: Some("vfio-pci".to_owned()), ..below });
        }
        functions
    }

    fn devices(self) -> Vec<DeviceFacts> {
        let host = Holder::Host;
        let file = |block, major, minor| Some(DeviceFile { block, major, minor });
        let device =
            |name: &str, kind, number| DeviceFacts { file: number, ..DeviceFacts::new(name, kind) };
        let on = Stretch { device: "nvme0n1".to_owned(), start: GIB, length: 1024 * GIB };
        let mut disk = device("nvme0n1", DeviceKind::Disk, file(true, 259, 0));
        let partition = DeviceKind::Partition { on };
        let mut partition = device("nvme0n1p2", partition, file(true, 259, 2));
        let mut card = device("tenant0", DeviceKind::Interface, None);
        card.bdf = Some(CARD.to_owned());
        card.iommu_group = Some(10);
        for own in [&mut disk, &mut partition, &mut card] {
            own.reach(&host, Way::Own);
        }
        let mut kvm = device("kvm", DeviceKind::Kvm, file(false, 10, 232));
        let mut image = device("dm-0", DeviceKind::Image, file(true, 253, 0));
        let mut devices = vec![disk, partition, card];
        for number in 0..self.leases {
            let lease = self.lease(number);
            kvm.reach(&lease, Way::Open);
            image.reach(&lease, Way::Mount);
            let stretch = |turn: u64| Stretch {
                device: "nvme0n1p2".to_owned(),
                start: (turn * 32 + u64::from(number)) * GIB,
                length: GIB,
            };
            let mapping = DeviceKind::Mapping {
                name: format!("bulkhead-l{number}"),
                key: Some(format!("logon:bulkhead:l{number}")),
                under: vec![stretch(0), stretch(1)],
            };
            let mut volume =
                device(&format!("dm-{}", number + 1), mapping, file(true, 253, number + 1));
            volume.reach(&lease, Way::Mount);
            let kind =
                DeviceKind::Vf { pf: CARD.to_owned(), number, trust: false, spoof_check: true };
            // A network is a tenant's.
            let vlan = u16::try_from(100 + number % 2).ok();
            let mut vf = DeviceFacts {
                bdf: Some(vf(number)),
                iommu_group: Some(20 + number),
                port: Some(Port { on: CARD.to_owned(), vlan, vni: None }),
                ..device(&vf(number), kind, None)
            };
            vf.reach(&lease, Way::Open);
            devices.extend([volume, vf]);
        }
        devices.extend([kvm, image]);
        for gpu in 0..self.gpus {
            devices.extend(self.gpu(gpu));
        }
        devices
    }

    /// Every other one is whole; of the others two leases have a part each.
    fn gpu(self, gpu: u32) -> Vec<DeviceFacts> {
        let name = gpu_bdf(gpu);
        let mut whole = DeviceFacts {
            bdf: Some(name.clone()),
            iommu_group: Some(100 + gpu),
            ..DeviceFacts::new(&name, DeviceKind::Gpu)
        };
        if gpu.is_multiple_of(2) {
            whole.reach(&self.lease(gpu), Way::Open);
            return vec![whole];
        }
        let part = |gpu_instance: u32| {
            let gpu = name.clone();
            let kind = DeviceKind::GpuSlice { gpu, gpu_instance, compute_instance: Some(0) };
            DeviceFacts::new(&format!("{name}/gi{gpu_instance}/ci0"), kind)
        };
        let (mut one, mut other) = (part(1), part(2));
        one.reach(&self.lease(gpu), Way::Open);
        other.reach(&self.lease(gpu + 1), Way::Open);
        vec![whole, one, other]
    }

    fn cache_groups(self) -> Vec<CacheGroup> {
        let ways = |mask: u64| -> BTreeMap<u32, u64> {
            (0..self.nodes).map(|cache| (cache, mask)).collect()
        };
        let (default, rest) = (String::new(), self.of_node(0));
        let mut groups = vec![CacheGroup { name: default, lease: None, cpus: rest, ways: ways(1) }];
        groups.extend((0..self.leases).map(|number| CacheGroup {
            name: format!("bulkhead-l{number}"),
            lease: Some(id(number)),
            cpus: self.place(number).0,
            ways: ways(2 << number),
        }));
        groups
    }

    /// What a host of that shape is made of.
    #[must_use]
    pub fn inventory(self) -> Inventory {
        let cpu = CpuTopology {
            cores: self.all_cores(),
            caches: self.caches(),
            ..CpuTopology::default()
        };
        Inventory { cpu, memory: self.memory(), pci: self.functions(), ..Inventory::default() }
    }

    /// What is seen on it.
    #[must_use]
    pub fn facts(self) -> Facts {
        let cores = self.all_cores();
        let mut host = HolderFacts::new(Holder::Host);
        host.cpus = Some(cores.iter().flat_map(|core| core.cpus.clone()).collect());
        host.memory_nodes = Some((0..self.nodes).collect());
        let own = IdRange { first: 0, count: 65_536 };
        let seen = process(0, 1, &BTreeSet::from([0]), 0);
        host.processes = vec![ProcessFacts { user_ids: vec![own], group_ids: vec![own], ..seen }];
        let leases = (0..self.leases).map(|number| self.holder(number));
        Facts {
            caches: self.caches(),
            memory: self.memory(),
            granted: (0..self.leases).map(id).collect(),
            holders: [host].into_iter().chain(leases).collect(),
            devices: self.devices(),
            functions: self.functions(),
            cache_groups: self.cache_groups(),
            cores,
            ..Facts::default()
        }
    }

    fn holder(self, number: u32) -> HolderFacts {
        let (cpus, node) = self.place(number);
        let pid = 1000 + number * 100;
        let own = process(number + 1, pid, &cpus, node);
        let runtime = ProcessFacts {
            pids: vec![pid + 50],
            runtime: true,
            cpus: own.cpus.clone(),
            memory_nodes: own.memory_nodes.clone(),
            ..ProcessFacts::default()
        };
        let bytes = Bytes::new(PAGES.saturating_mul(PageSize::TwoMiB.bytes().get()));
        let huge = HugepageFacts { max: Some(bytes), used: bytes };
        HolderFacts {
            cpus: Some(cpus),
            memory_nodes: Some(BTreeSet::from([node])),
            memory_max: Some(Bytes::new(256 * MIB)),
            hugepages: BTreeMap::from([(PageSize::TwoMiB, huge)]),
            processes: vec![own, runtime],
            ..HolderFacts::new(Holder::Lease(id(number)))
        }
    }
}

const BRIDGE: u32 = 0x06_0400;
const NETWORK: u32 = 0x02_0000;
const GPU: u32 = 0x03_0200;

fn function(
    bdf: &str,
    class: u32,
    iommu_group: Option<u32>,
    parent: Option<&str>,
    acs: Option<bool>,
) -> PciFunction {
    PciFunction {
        bdf: bdf.to_owned(),
        vendor: 0x15b3,
        device: 0x101e,
        class,
        driver: None,
        iommu_group,
        node: None,
        parent: parent.map(str::to_owned),
        acs,
    }
}

fn vf(number: u32) -> String {
    format!("0000:10:{:02x}.{}", 1 + number / 8, number % 8)
}

fn gpu_bdf(number: u32) -> String {
    format!("0000:{:02x}:00.0", 0x50 + number)
}

/// Processes with ids, namespaces and a root that no other number has.
#[must_use]
pub fn process(number: u32, first_pid: u32, cpus: &BTreeSet<u32>, node: u32) -> ProcessFacts {
    let range = IdRange { first: 0x1000_0000 + number * 65_536, count: 65_536 };
    let first = 4_026_532_000 + u64::from(number) * 10;
    ProcessFacts {
        pids: vec![first_pid, first_pid + 1],
        runtime: false,
        cpus: Some(cpus.clone()),
        memory_nodes: Some(BTreeSet::from([node])),
        user_ids: vec![range],
        group_ids: vec![range],
        namespaces: Namespace::ALL.into_iter().zip(first..).collect(),
        root: Some(format!("0:25:{}", 900 + number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prove::prove;

    #[test]
    fn a_server_full_of_leases_is_isolated() {
        let facts = SERVER.facts();
        assert_eq!(prove(&facts).violations, []);
        assert_eq!(facts.holders.len(), 17);
        assert_eq!(SERVER.inventory().cpu.cores.len(), 128);
        let gpus = facts.devices.iter().filter(|device| device.kind == DeviceKind::Gpu);
        assert_eq!(gpus.count(), 8);
    }
}
