//! Random hosts, requests and departures.

use std::collections::BTreeSet;

use bulkhead_api::inventory::{
    Cache, Core, CpuTopology, Disk, DiskClaim, Inventory, Nic, NumaNode, PciFunction, Resctrl,
};
use bulkhead_api::lease::{CacheShare, Hugepages, Isolation, Volume};
use bulkhead_api::resource::{EXTENT, PageSize};
use bulkhead_api::units::Bytes;
use proptest::prelude::*;

use crate::place::{Request, WantedDevice};

const MIB: u64 = 1 << 20;

/// What a host is made from.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) sockets: u32,
    pub(super) nodes_a_socket: u32,
    pub(super) caches_a_node: u32,
    pub(super) cores_a_cache: u32,
    pub(super) threads: u32,
    /// By node; 0 = a node without memory.
    pub(super) mib: Vec<u64>,
    /// The firmware shows all memory as one node.
    pub(super) one_node: bool,
    /// Last-level caches that the kernel does not show, by number.
    pub(super) hidden: BTreeSet<u32>,
    pub(super) resctrl: Option<Resctrl>,
    /// Extents, and node, of each disk.
    pub(super) disks: Vec<(u64, Option<u32>)>,
    /// Two disks with one pool's name.
    pub(super) cloned: bool,
    /// Node and IOMMU group of each function.
    pub(super) functions: Vec<(Option<u32>, Option<u32>)>,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            sockets: 2,
            nodes_a_socket: 1,
            caches_a_node: 2,
            cores_a_cache: 2,
            threads: 2,
            mib: vec![4096; 4],
            one_node: false,
            hidden: BTreeSet::new(),
            resctrl: None,
            disks: Vec::new(),
            cloned: false,
            functions: Vec::new(),
        }
    }
}

pub(super) fn pool(number: usize) -> String {
    format!("pool-{number}")
}

pub(super) fn function(number: usize) -> String {
    format!("0000:c1:{number:02x}.0")
}

impl Shape {
    pub(super) fn cores(&self) -> u32 {
        self.sockets * self.nodes_a_socket * self.caches_a_node * self.cores_a_cache
    }

    /// Core `n` has the CPUs `n`, `n + cores`, ...
    pub(super) fn host(&self) -> Inventory {
        let all = self.cores();
        let cache_of = |core: u32| core / self.cores_a_cache;
        let node_of = |core: u32| {
            if self.one_node { 0 } else { cache_of(core) / self.caches_a_node }
        };
        let cpus = |core: u32| (0..self.threads).map(move |t| core + t * all);
        let a_socket = all / self.sockets;
        let cores: Vec<Core> = (0..all)
            .map(|number| Core {
                socket: number / a_socket,
                id: number % a_socket,
                node: node_of(number),
                cpus: cpus(number).collect(),
            })
            .collect();
        let cache = |level: u8, id: u32, cpus: BTreeSet<u32>| Cache {
            level,
            kind: "Unified".to_owned(),
            id: Some(id),
            size: Bytes::new(MIB),
            cpus,
        };
        let private = (0..all).map(|core| cache(2, core, cpus(core).collect()));
        let last = (0..all / self.cores_a_cache).filter(|id| !self.hidden.contains(id)).map(|id| {
            cache(3, id, (0..all).filter(|&c| cache_of(c) == id).flat_map(cpus).collect())
        });
        let nodes = if self.one_node { 1 } else { self.sockets * self.nodes_a_socket };
        let node = |id: u32| NumaNode {
            id,
            total: Bytes::new(self.mib[id as usize % self.mib.len()] * MIB),
            cpus: cores.iter().filter(|c| c.node == id).flat_map(|c| c.cpus.clone()).collect(),
            hugepages: Vec::new(),
        };
        let memory = (0..nodes).map(node).collect();
        Inventory {
            memory,
            disks: self.disks(),
            nics: vec![Nic {
                name: "ens1".to_owned(),
                mac: "02:00:00:00:00:01".parse().unwrap(),
                driver: "mlx5_core".to_owned(),
                bdf: Some("0000:c1:00.0".to_owned()),
                speed_mbps: None,
                up: true,
                total_vfs: 64,
                vfs: (0..self.functions.len()).map(function).collect(),
            }],
            pci: (0..)
                .zip(&self.functions)
                .map(|(n, &(node, group))| pci(n, node, group))
                .collect(),
            cpu: CpuTopology {
                model: String::new(),
                cores,
                caches: private.chain(last).collect(),
                resctrl: self.resctrl.clone(),
            },
            ..Inventory::default()
        }
    }

    fn disks(&self) -> Vec<Disk> {
        let disk = |number: usize, extents: u64, node: Option<u32>| Disk {
            name: format!("nvme{number}n1"),
            transport: "nvme".to_owned(),
            model: String::new(),
            serial: format!("S{number}"),
            size: Bytes::new((extents + 64) * EXTENT),
            rotational: false,
            bdf: None,
            node,
            claim: DiskClaim::Pool { id: pool(number), size: Bytes::new(extents * EXTENT) },
        };
        let mut disks: Vec<Disk> =
            (0..).zip(&self.disks).map(|(n, &(extents, node))| disk(n, extents, node)).collect();
        if self.cloned
            && let [first, second, ..] = &mut disks[..]
        {
            second.claim = first.claim.clone();
        }
        // What is not ours, is not looked at yet, or is empty, gives nothing.
        let mut foreign = disk(90, 1000, None);
        foreign.claim = DiskClaim::Foreign { what: "ext4".to_owned() };
        let (mut blank, mut unknown) = (disk(91, 1000, None), disk(92, 1000, None));
        (blank.claim, unknown.claim) = (DiskClaim::Blank, DiskClaim::Unknown);
        disks.extend([foreign, blank, unknown]);
        disks
    }
}

fn pci(number: usize, node: Option<u32>, iommu_group: Option<u32>) -> PciFunction {
    PciFunction {
        bdf: function(number),
        vendor: 0x15b3,
        device: 0x101e,
        class: 0x02_0000,
        driver: None,
        iommu_group,
        node,
        parent: None,
        acs: None,
    }
}

fn resctrl() -> impl Strategy<Value = Resctrl> {
    (1_u32..5, 3_u32..9, 0_u32..3, prop::sample::select(vec![0_u64, 0b1, 0b1100]), 0_u8..3)
        .prop_map(|(groups, ways, min_ways, shareable, bandwidth)| Resctrl {
            groups,
            ways,
            min_ways,
            shareable,
            min_bandwidth_percent: (bandwidth > 0).then_some(10),
            bandwidth_step_percent: 10 * bandwidth,
        })
}

/// Hosts of at most `most` cores.
pub(super) fn shapes(most: u32) -> impl Strategy<Value = Shape> {
    let cores = (1_u32..4, 1_u32..3, 1_u32..4, 1_u32..4, 1_u32..3);
    let nodes = (
        prop::collection::vec(prop_oneof![1 => Just(0_u64), 6 => 900_u64..5000], 6),
        prop::bool::weighted(0.15),
        prop_oneof![4 => Just(BTreeSet::new()), 1 => prop::collection::btree_set(0_u32..8, 1..3)],
        prop::option::of(resctrl()),
    );
    let near = || prop::option::weighted(0.8, 0_u32..4);
    let devices = (
        prop::collection::vec((0_u64..40, near()), 0..4),
        prop::bool::weighted(0.1),
        prop::collection::vec((near(), prop::option::weighted(0.8, 0_u32..4)), 0..8),
    );
    let shape = (cores, nodes, devices).prop_map(|(cores, nodes, devices)| {
        let (sockets, nodes_a_socket, caches_a_node, cores_a_cache, threads) = cores;
        let (mib, one_node, hidden, resctrl) = nodes;
        let (disks, cloned, functions) = devices;
        Shape {
            sockets,
            nodes_a_socket,
            caches_a_node,
            cores_a_cache,
            threads,
            mib,
            one_node,
            hidden,
            resctrl,
            disks,
            cloned,
            functions,
        }
    });
    shape.prop_filter("too large", move |shape| shape.cores() <= most)
}

fn volumes() -> impl Strategy<Value = Vec<Volume>> {
    let sizes = prop::collection::vec(32 * MIB..120 * MIB, 0..4);
    prop_oneof![
        Just(Vec::new()),
        sizes.prop_map(|sizes| {
            let volume = |(number, size): (usize, u64)| Volume {
                name: format!("v{number}").parse().unwrap(),
                size: Bytes::new(size),
                local: true,
                path: None,
            };
            sizes.into_iter().enumerate().map(volume).collect()
        })
    ]
}

pub(super) fn requests() -> impl Strategy<Value = Request> {
    let level = prop_oneof![
        4 => Just(Isolation::Core),
        2 => Just(Isolation::L3),
        1 => Just(Isolation::Socket),
    ];
    let size = prop_oneof![Just(PageSize::TwoMiB), Just(PageSize::OneGiB)];
    let pages = (size, 1_u64..4).prop_map(|(page_size, count)| Hugepages {
        page_size,
        amount: Bytes::new(page_size.bytes().get() * count),
    });
    let cache = (1_u32..5, prop::option::of(1_u8..101))
        .prop_map(|(ways, bandwidth_percent)| CacheShare { ways, bandwidth_percent });
    let devices = prop::collection::vec(0_u32..4, 0..2).prop_map(|counts| {
        counts.into_iter().map(|count| WantedDevice { kind: "vf".to_owned(), count }).collect()
    });
    let common = (1_u32..6, 16_u64..3000, level, prop::option::weighted(0.3, pages));
    let others = (prop::option::weighted(0.3, cache), volumes(), devices);
    (common, others, prop::bool::weighted(0.04)).prop_map(
        |((cores, mib, isolation, hugepages), (cache, volumes, devices), whole)| Request {
            cores,
            memory: Bytes::new(mib * MIB),
            isolation,
            hugepages,
            cache,
            volumes,
            gpus: Vec::new(),
            devices,
            whole,
        },
    )
}

/// What happens to a host.
#[derive(Debug, Clone)]
pub(super) enum Event {
    /// Somebody wants in.
    Wants(Box<Request>),
    /// One of those there leaves, and everything it had is clean or nothing is.
    Leaves(prop::sample::Index, bool),
    /// All that was in quarantine is clean after all.
    Cleaned,
}

pub(super) fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => requests().prop_map(|request| Event::Wants(Box::new(request))),
        3 => (any::<prop::sample::Index>(), prop::bool::weighted(0.7))
            .prop_map(|(who, clean)| Event::Leaves(who, clean)),
        1 => Just(Event::Cleaned),
    ];
    prop::collection::vec(event, 1..16)
}
