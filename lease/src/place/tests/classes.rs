//! The classes one by one: what is preferred, and what a shortage says.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_api::inventory::{Inventory, Resctrl};
use bulkhead_api::lease::{CacheShare, HeldDevice, Holding, Hugepages, Isolation, Volume};
use bulkhead_api::resource::{CacheWays, EXTENT, Extent, NodePages, PageSize, Resource};
use bulkhead_api::units::Bytes;

use super::hosts::{Shape, function, pool};
use super::id;
use crate::place::{Amount, Request, Taken, WantedDevice, free, offered, place};

const MIB: u64 = 1 << 20;

/// 2 sockets, a node each, with 2 caches of 2 cores: core `n` has the CPUs `n` and `n + 8`.
fn host() -> Inventory {
    Shape::default().host()
}

fn want(cores: u32) -> Request {
    Request { cores, memory: Bytes::new(64 * MIB), ..Request::default() }
}

fn alone(cores: u32, isolation: Isolation) -> Request {
    Request { isolation, ..want(cores) }
}

fn with_volumes(sizes: &[u64]) -> Request {
    let volume = |(number, extents): (usize, &u64)| Volume {
        name: format!("v{number}").parse().unwrap(),
        size: Bytes::new(extents * EXTENT),
        local: true,
        path: None,
    };
    Request { volumes: sizes.iter().enumerate().map(volume).collect(), ..want(1) }
}

fn with_functions(cores: u32, count: u32) -> Request {
    let devices = vec![WantedDevice { kind: "vf".to_owned(), count }];
    Request { devices, ..want(cores) }
}

/// Places one after the other.
fn placed(host: &Inventory, requests: &[Request]) -> Taken {
    let mut taken = Taken::default();
    for (number, request) in requests.iter().enumerate() {
        let holding = place(host, &taken, request).unwrap();
        taken.held.insert(id(number), holding);
    }
    taken
}

fn quarantined(resource: Resource) -> Taken {
    Taken { held: BTreeMap::new(), quarantined: vec![resource] }
}

fn cores(holding: &Holding) -> Vec<u32> {
    holding.cpus.iter().copied().filter(|&cpu| cpu < 8).collect()
}

fn refusal(host: &Inventory, taken: &Taken, request: &Request) -> String {
    place(host, taken, request).unwrap_err().to_string()
}

#[test]
fn an_l3_lease_has_its_cache_alone_whoever_comes_first() {
    let host = host();
    let taken = placed(&host, &[alone(1, Isolation::L3), want(4)]);
    assert_eq!(cores(&taken.held[&id(0)]), [2], "the other cache of the first node");
    assert_eq!(cores(&taken.held[&id(1)]), [4, 5, 6, 7], "core 3 is behind the cache of another");
    assert_eq!(free(&host, &taken).cores, 1, "core 1");
    let taken = placed(&host, &[want(2), alone(2, Isolation::L3)]);
    assert_eq!(cores(&taken.held[&id(0)]), [1, 2]);
    assert_eq!(cores(&taken.held[&id(1)]), [4, 5]);
}

#[test]
fn an_l3_lease_is_behind_as_few_caches_as_do() {
    let shape = Shape { sockets: 1, caches_a_node: 4, cores_a_cache: 2, ..Shape::default() };
    let holding = place(&shape.host(), &Taken::default(), &alone(3, Isolation::L3)).unwrap();
    assert_eq!(cores(&holding), [2, 3, 4]);
    let taken = placed(&shape.host(), &[alone(1, Isolation::L3), alone(2, Isolation::L3)]);
    assert_eq!(cores(&taken.held[&id(1)]), [4, 5], "core 3 stays idle");
}

#[test]
fn the_cache_of_the_hosts_own_core_is_nobodys_alone() {
    let host = host();
    let refused = refusal(&host, &Taken::default(), &alone(7, Isolation::L3));
    assert_eq!(
        refused,
        "isolation l3: 7 cores wanted, 6 free behind last-level caches that nobody else is behind; 1 \
         more are not given at this level, beside the host's own"
    );
    let shape = Shape { sockets: 1, caches_a_node: 1, ..Shape::default() };
    let refused = refusal(&shape.host(), &Taken::default(), &alone(1, Isolation::L3));
    assert!(refused.contains("0 free behind") && refused.contains("1 more are not given"));
}

#[test]
fn where_nobody_knows_the_caches_the_level_is_refused() {
    let shape = Shape { hidden: (0..4).collect(), ..Shape::default() };
    let refused = refusal(&shape.host(), &Taken::default(), &alone(1, Isolation::L3));
    assert!(refused.ends_with("; of 7 more the last-level cache is not known"), "{refused}");
    // One cache that is not shown may be any of its socket.
    let shape = Shape { hidden: BTreeSet::from([3]), ..Shape::default() };
    let host = shape.host();
    let taken = placed(&host, &[alone(2, Isolation::L3), alone(2, Isolation::L3)]);
    assert_eq!(cores(&taken.held[&id(0)]), [2, 3]);
    assert_eq!(cores(&taken.held[&id(1)]), [4, 5]);
    assert_eq!(free(&host, &taken).cores, 1, "cores 6 and 7 may be behind the cache of 4 and 5");
}

#[test]
fn a_cache_that_is_not_around_all_of_a_core_is_not_known() {
    let cache = |host: &mut Inventory, id: u32, change: &dyn Fn(&mut BTreeSet<u32>)| {
        let mut caches = host.cpu.caches.iter_mut();
        change(&mut caches.find(|cache| (cache.level, cache.id) == (3, Some(id))).unwrap().cpus);
    };
    let want = alone(6, Isolation::L3);
    let (mut half, mut torn, mut twice) = (host(), host(), host());
    let without = |cpu: u32| {
        move |cpus: &mut BTreeSet<u32>| {
            cpus.remove(&cpu);
        }
    };
    let with = |cpu: u32| {
        move |cpus: &mut BTreeSet<u32>| {
            cpus.insert(cpu);
        }
    };
    cache(&mut half, 2, &without(13));
    // CPU 6 is behind another cache than its sibling, or behind both.
    cache(&mut torn, 3, &without(6));
    cache(&mut torn, 2, &with(6));
    cache(&mut twice, 2, &with(6));
    assert!(place(&host(), &Taken::default(), &want).is_ok());
    for host in [half, torn, twice] {
        let refused = refusal(&host, &Taken::default(), &want);
        assert!(refused.ends_with("; of 1 more the last-level cache is not known"), "{refused}");
    }
}

#[test]
fn a_socket_lease_has_socket_and_memory_alone() {
    let host = host();
    let taken = placed(&host, &[alone(1, Isolation::Socket)]);
    assert_eq!(cores(&taken.held[&id(0)]), [4]);
    let left = free(&host, &taken);
    assert_eq!((left.cores, left.memory), (3, Bytes::new((4096 - 768) * MIB)));
    let refused = refusal(&host, &taken, &alone(1, Isolation::Socket));
    assert_eq!(
        refused,
        "isolation socket: 1 cores wanted, 0 free on sockets where nobody else has a core or memory; 3 \
         more are not given at this level, beside the host's own"
    );
    let there = placed(&host, &[want(4)]);
    assert_eq!(cores(&there.held[&id(0)]), [4, 5, 6, 7]);
    assert!(place(&host, &there, &alone(1, Isolation::Socket)).is_err());
}

#[test]
fn huge_pages_are_memory_of_the_nodes_of_the_cores() {
    let host = host();
    let hugepages =
        |gib: u64| Some(Hugepages { page_size: PageSize::OneGiB, amount: Bytes::new(gib << 30) });
    let request = |cores, gib| Request { hugepages: hugepages(gib), ..want(cores) };
    let holding = place(&host, &Taken::default(), &request(1, 3)).unwrap();
    let pages = holding.hugepages.unwrap().pages;
    assert_eq!(pages, [NodePages { node: 0, pages: 3 }], "3328 MiB hold three and the 64 MiB");
    let holding = place(&host, &Taken::default(), &request(2, 6)).unwrap();
    let pages = holding.hugepages.clone().unwrap().pages;
    assert_eq!(pages, [NodePages { node: 0, pages: 3 }, NodePages { node: 1, pages: 3 }]);
    let mut taken = Taken::default();
    taken.held.insert(id(0), holding);
    // Each node has less than a page left, and bears the 64 MiB in full.
    let left = (4096 - 768 - 3072 - 64) + (4096 - 3072 - 64);
    assert_eq!(free(&host, &taken).memory, Bytes::new(left * MIB));
    assert_eq!(
        refusal(&host, &taken, &request(1, 1)),
        "hugepages: 1 of 1Gi wanted, 0 fit into free memory"
    );
    assert_eq!(
        refusal(&host, &taken, &request(1, 2)),
        "memory: 2112 MiB wanted, 1152 MiB free of 7424 MiB; hugepages: 2 of 1Gi wanted, 0 fit into \
         free memory"
    );
}

fn cached() -> Inventory {
    let resctrl = Resctrl {
        groups: 3,
        ways: 8,
        min_ways: 2,
        shareable: 0b1,
        min_bandwidth_percent: Some(10),
        bandwidth_step_percent: 20,
    };
    Shape { resctrl: Some(resctrl), ..Shape::default() }.host()
}

fn share(cores: u32, ways: u32) -> Request {
    Request { cache: Some(CacheShare { ways, bandwidth_percent: Some(35) }), ..want(cores) }
}

#[test]
fn ways_are_of_each_cache_behind_the_cores_and_nobody_elses() {
    let host = cached();
    let ways = |cache, mask| CacheWays { cache, mask, bandwidth_percent: Some(50) };
    let taken = placed(&host, &[share(3, 3), share(1, 1)]);
    assert_eq!(taken.held[&id(0)].cache, [ways(0, 0b1110), ways(1, 0b1110)]);
    assert_eq!(taken.held[&id(1)].cache, [ways(2, 0b110)], "a group has two ways at least");
    let kept = Resource::Cache { ways: vec![ways(0, 0b1110), ways(1, 0b111_1110)] };
    let holding = place(&host, &quarantined(kept), &share(1, 2)).unwrap();
    assert_eq!((cores(&holding), &holding.cache[..]), (vec![1], &[ways(0, 0b11_0000)][..]));
    assert_eq!(
        refusal(&host, &taken, &share(1, 3)),
        "cache: no group of the processor's cache control is free of 2"
    );
}

#[test]
fn all_of_the_bandwidth_is_no_bound() {
    let bound = |percent| {
        let share = CacheShare { ways: 2, bandwidth_percent: Some(percent) };
        let holding =
            place(&cached(), &Taken::default(), &Request { cache: Some(share), ..want(1) });
        holding.unwrap().cache[0].bandwidth_percent
    };
    assert_eq!([bound(100), bound(95), bound(89)], [None, None, Some(90)]);
}

#[test]
fn ways_that_would_leave_nobody_else_any_are_not_given() {
    let host = cached();
    let holding = place(&host, &Taken::default(), &share(1, 5)).unwrap();
    assert_eq!(holding.cache[0].mask, 0b11_1110);
    let holding = place(&host, &Taken::default(), &share(1, 6)).unwrap();
    assert_eq!(holding.cache[0].mask, 0b1111_1100, "the rest may be what devices fill");
    assert_eq!(
        refusal(&host, &Taken::default(), &share(1, 7)),
        "cache: 1 cores wanted, 0 free behind last-level caches that have 7 neighbouring ways left"
    );
    let kept = CacheWays { cache: 0, mask: 0b11_1110, bandwidth_percent: None };
    let holding = place(&host, &quarantined(Resource::Cache { ways: vec![kept] }), &share(1, 2));
    assert_eq!(holding.unwrap().cache[0].cache, 1, "those of the first cache are in quarantine");
}

#[test]
fn without_cache_control_a_lease_is_placed_without_ways() {
    let holding = place(&host(), &Taken::default(), &share(1, 4)).unwrap();
    assert_eq!(holding.cache, []);
}

#[test]
fn a_volume_is_near_to_its_lease_and_where_the_least_room_suffices() {
    let disks = vec![(40, Some(1)), (30, Some(0)), (20, Some(0)), (9, Some(0)), (8, None)];
    let host = Shape { disks, ..Shape::default() }.host();
    let holding = place(&host, &Taken::default(), &with_volumes(&[8, 16, 35])).unwrap();
    let pools: Vec<_> = holding.volumes.iter().map(|volume| volume.pool.as_str()).collect();
    assert_eq!(pools, [pool(3), pool(2), pool(0)]);
    assert_eq!(offered(&host).storage, Bytes::new(107 * EXTENT));
}

#[test]
fn a_volume_is_one_stretch_where_it_can_be() {
    let host = Shape { disks: vec![(40, None)], ..Shape::default() }.host();
    let mut taken = placed(&host, &[with_volumes(&[10]), with_volumes(&[10]), with_volumes(&[8])]);
    taken.held.remove(&id(1));
    // Free are 10 from extent 10 on, and 12 from 28 on.
    let extents = |extents: u64| -> Vec<(u64, u64)> {
        let holding = place(&host, &taken, &with_volumes(&[extents])).unwrap();
        let in_extents = |e: &Extent| (e.start / EXTENT, e.length / EXTENT);
        holding.volumes[0].extents.iter().map(in_extents).collect()
    };
    assert_eq!(extents(9), [(10, 9)], "the smallest stretch that does");
    assert_eq!(extents(11), [(28, 11)]);
    assert_eq!(extents(15), [(10, 3), (28, 12)]);
}

#[test]
fn volumes_that_fit_nowhere_are_refused_with_numbers() {
    let host = Shape { disks: vec![(20, None), (20, None)], ..Shape::default() }.host();
    assert_eq!(
        refusal(&host, &Taken::default(), &with_volumes(&[8, 40])),
        "volumes: 192 MiB wanted, 160 MiB free of 160 MiB"
    );
    assert_eq!(
        refusal(&host, &Taken::default(), &with_volumes(&[21])),
        "volumes: no pools have room for 1 of up to 84 MiB, each in one pool; the most in one is 80 MiB"
    );
    let cloned = Shape { disks: vec![(20, None), (20, None)], cloned: true, ..Shape::default() };
    assert_eq!(offered(&cloned.host()).storage, Bytes::default(), "which of the two is it?");
}

#[test]
fn volumes_find_their_pools_though_the_first_choice_is_wrong() {
    // The least room first puts 12 into 20 and then has no place for 10 and 10.
    let host = Shape { disks: vec![(24, None), (20, None)], ..Shape::default() }.host();
    assert!(place(&host, &Taken::default(), &with_volumes(&[12, 12, 10, 10])).is_ok());
}

#[test]
fn what_is_in_quarantine_is_nobodys() {
    let host = Shape { disks: vec![(10, None)], ..Shape::default() }.host();
    let name = "v".parse().unwrap();
    let extents = vec![Extent { start: 0, length: 9 * EXTENT }];
    let pages = vec![NodePages { node: 1, pages: 2 }];
    let table = [
        (Resource::Cpu { cpus: BTreeSet::from([9]) }, (6, 7424, 10)),
        (Resource::Memory { nodes: BTreeSet::from([0]), bytes: Bytes::new(MIB) }, (7, 7423, 10)),
        (Resource::Memory { nodes: BTreeSet::new(), bytes: Bytes::new(MIB) }, (7, 7422, 10)),
        (Resource::Hugepages { page_size: PageSize::OneGiB, pages }, (7, 5376, 10)),
        (Resource::Volume { name, pool: pool(0), extents }, (7, 7424, 1)),
        (Resource::Disk { id: "S0".to_owned() }, (7, 7424, 0)),
    ];
    for (resource, (cores, mib, extents)) in table {
        let (memory, storage) = (Bytes::new(mib * MIB), Bytes::new(extents * EXTENT));
        let left = free(&host, &quarantined(resource.clone()));
        assert_eq!(left, Amount { cores, memory, storage }, "{resource}");
    }
}

fn ids(holding: &Holding) -> Vec<&str> {
    holding.devices.iter().map(|device| device.id.as_str()).collect()
}

#[test]
fn a_lease_is_placed_near_to_its_devices() {
    let functions = vec![(Some(0), None), (Some(1), None), (Some(1), None)];
    let host = Shape { functions, ..Shape::default() }.host();
    let holding = place(&host, &Taken::default(), &with_functions(1, 2)).unwrap();
    assert_eq!((cores(&holding), ids(&holding)), (vec![4], vec![&*function(1), &*function(2)]));
    // Of three one is far from any one node: both nodes are nearer.
    let holding = place(&host, &Taken::default(), &with_functions(2, 3)).unwrap();
    assert_eq!(cores(&holding), [1, 4]);
    let holding = place(&host, &Taken::default(), &with_functions(1, 3)).unwrap();
    assert_eq!(cores(&holding), [4], "one core is on one node");
}

#[test]
fn a_group_goes_to_one_lease() {
    let functions = vec![(Some(0), Some(7)), (Some(0), Some(7)), (Some(0), Some(8)), (None, None)];
    let host = Shape { functions, ..Shape::default() }.host();
    let taken = placed(&host, &[with_functions(1, 1), with_functions(1, 2)]);
    assert_eq!(ids(&taken.held[&id(0)]), [function(2)], "a group of its own is spoiled first");
    assert_eq!(ids(&taken.held[&id(1)]), [function(0), function(1)]);
    let device = Resource::Device { kind: "vf".to_owned(), id: function(0) };
    assert_eq!(
        refusal(&host, &quarantined(device), &with_functions(1, 3)),
        "devices: 3 vf wanted, 2 free of 4"
    );
    let gpu = vec![WantedDevice { kind: "gpu".to_owned(), count: 1 }];
    assert_eq!(
        refusal(&host, &Taken::default(), &Request { devices: gpu, ..want(1) }),
        "devices: 1 gpu wanted, 0 free of 0"
    );
}

#[test]
fn a_device_that_is_held_under_another_kind_is_not_given() {
    let host = Shape { functions: vec![(None, None)], ..Shape::default() }.host();
    let devices = vec![HeldDevice { kind: "nic".to_owned(), id: function(0) }];
    let mut taken = Taken::default();
    taken.held.insert(id(0), Holding { devices, ..Holding::default() });
    assert!(place(&host, &taken, &with_functions(1, 1)).is_err());
}

#[test]
fn a_whole_host_has_all_of_it_and_nobody_beside_it() {
    let host = Shape { disks: vec![(10, None)], ..Shape::default() }.host();
    let whole = Request { whole: true, ..want(8) };
    let taken = placed(&host, std::slice::from_ref(&whole));
    let holding = &taken.held[&id(0)];
    assert_eq!(holding.cpus, (0..16).collect());
    assert_eq!(holding.memory_nodes, BTreeSet::from([0, 1]));
    assert_eq!(holding.memory, Bytes::new(8192 * MIB));
    assert_eq!(free(&host, &taken), Amount::default());
    assert!(place(&host, &taken, &want(1)).is_err());
    assert_eq!(
        refusal(&host, &taken, &whole),
        "the host is wanted as a whole and has leases: t/l0"
    );
    // A core that came later is not free either.
    let later = Shape { cores_a_cache: 3, disks: vec![(10, None)], ..Shape::default() }.host();
    assert_eq!(free(&later, &taken), Amount::default());
    assert_eq!(
        refusal(&host, &quarantined(Resource::Cpu { cpus: BTreeSet::from([3]) }), &whole),
        "the host is wanted as a whole and 1 of its resources are in quarantine"
    );
    let large = Request { memory: Bytes::new(9000 * MIB), whole: true, ..want(9) };
    assert_eq!(
        refusal(&host, &Taken::default(), &large),
        "cpus: 9 cores wanted, 8 free of 8; memory: 9000 MiB wanted, 8192 MiB free of 8192 MiB"
    );
    assert!(
        place(&Inventory::default(), &Taken::default(), &Request { whole: true, ..want(0) })
            .is_err()
    );
}

#[test]
fn every_class_that_is_short_is_named() {
    let host = Shape { disks: vec![(10, None)], ..Shape::default() }.host();
    let request = Request {
        cores: 9,
        memory: Bytes::new(9000 * MIB),
        devices: with_functions(1, 1).devices,
        ..with_volumes(&[11])
    };
    assert_eq!(
        place(&host, &Taken::default(), &request).unwrap_err().short(),
        [
            "cpus: 9 cores wanted, 7 free of 7",
            "memory: 9000 MiB wanted, 7424 MiB free of 7424 MiB",
            "volumes: 44 MiB wanted, 40 MiB free of 40 MiB",
            "devices: 1 vf wanted, 0 free of 0",
        ]
    );
}

#[test]
fn a_node_without_memory_gives_cores_beside_one_that_has_some() {
    let host = Shape { mib: vec![4096, 0], ..Shape::default() }.host();
    let holding = place(&host, &Taken::default(), &want(5)).unwrap();
    assert_eq!(cores(&holding), [1, 2, 3, 4, 5]);
    assert_eq!(holding.memory_nodes, BTreeSet::from([0]));
    let taken = placed(&host, &[want(3)]);
    assert!(place(&host, &taken, &want(1)).is_err(), "no memory is near to the cores left");
    // The host's own memory is where there is some.
    let host = Shape { mib: vec![0, 4096], ..Shape::default() }.host();
    assert_eq!(offered(&host).memory, Bytes::new((4096 - 768) * MIB));
}

#[test]
fn beyond_eight_nodes_neighbours_are_taken_together() {
    let shape = Shape { sockets: 5, nodes_a_socket: 2, caches_a_node: 1, ..Shape::default() };
    let holding = place(&shape.host(), &Taken::default(), &want(5)).unwrap();
    assert_eq!(holding.memory_nodes, BTreeSet::from([0, 1, 2]));
}
