//! Pools and bounds as directories in the kernel's format, and real huge pages of this kernel.

use std::fs;

use super::*;
use crate::class::testing::order;

const GROUP: &str = "sys/fs/cgroup/tenant.slice/tenant-acme.a.slice";

struct Host {
    dir: tempfile::TempDir,
    class: Hugepages,
}

impl Host {
    /// Node 0 has two pages of its own, node 1 none.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let class = Hugepages {
            examine: |node, size, pages, _| {
                let what = format!("{pages} of {size} of node {node}");
                let line = Evidence { what, found: "all zero".to_owned() };
                Ok((pages > 0).then_some(line).into_iter().collect())
            },
            ..Hugepages::new(&Paths::below(dir.path()))
        };
        let host = Self { dir, class };
        host.pool(0, 2);
        host.pool(1, 0);
        for dir in ["sys/fs/cgroup", "sys/fs/cgroup/tenant.slice"] {
            host.write(&format!("{dir}/cgroup.controllers"), "cpuset memory hugetlb pids\n");
            host.write(&format!("{dir}/cgroup.subtree_control"), "hugetlb\n");
        }
        for size in ["2MB", "1GB"] {
            for file in ["max", "rsvd.max"] {
                host.write(&format!("{GROUP}/hugetlb.{size}.{file}"), "max\n");
            }
        }
        fs::create_dir_all(host.dir.path().join("run/bulkhead")).unwrap();
        host
    }

    fn pool(&self, node: u32, pages: u64) {
        for (kib, pages) in [(2048, pages), (1_048_576, 0)] {
            let pool = format!("sys/devices/system/node/node{node}/hugepages/hugepages-{kib}kB");
            self.write(&format!("{pool}/nr_hugepages"), &pages.to_string());
            self.write(&format!("{pool}/free_hugepages"), &pages.to_string());
        }
    }

    fn write(&self, below: &str, text: &str) {
        let path = self.dir.path().join(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, below: &str) -> String {
        fs::read_to_string(self.dir.path().join(below)).unwrap().trim().to_owned()
    }

    fn total(&self, node: u32) -> u64 {
        pool::total(self.dir.path(), node, PageSize::TwoMiB).unwrap()
    }
}

fn wanted(name: &str, pages: &[(u32, u64)]) -> Order {
    let pages = pages.iter().map(|&(node, pages)| NodePages { node, pages }).collect();
    let resource = Resource::Hugepages { page_size: PageSize::TwoMiB, pages };
    let lease = LeaseId { tenant: "acme".parse().unwrap(), name: name.parse().unwrap() };
    Order { lease, ..order(resource) }
}

#[test]
fn pools_grow_by_what_a_lease_holds_and_shrink_to_the_hosts_own() {
    let host = Host::new();
    let order = wanted("a", &[(0, 8), (1, 4)]);
    assert_eq!(host.class.observe(&order).unwrap(), Attached::No);
    for _ in 0..2 {
        host.class.attach(&order).unwrap();
        assert_eq!((host.total(0), host.total(1)), (10, 4));
        assert_eq!(host.class.observe(&order).unwrap(), Attached::Yes);
    }
    let twelve = (12 * (2 << 20)).to_string();
    for (file, bytes) in
        [("2MB.max", &twelve), ("2MB.rsvd.max", &twelve), ("1GB.max", &"0".to_owned())]
    {
        assert_eq!(host.read(&format!("{GROUP}/hugetlb.{file}")), *bytes, "{file}");
    }
    assert_eq!(host.class.found().unwrap(), [(order.lease.clone(), order.resource.clone())]);
    host.pool(0, 10);
    host.pool(1, 4);
    let erased = host.class.erase(&order).unwrap();
    assert_eq!((host.total(0), host.total(1)), (2, 0));
    assert_eq!(erased.methods, ["zeroOnFault", "returnToKernel"]);
    let told: Vec<String> =
        erased.evidence.iter().map(|e| format!("{}: {}", e.what, e.found)).collect();
    assert_eq!(
        told,
        [
            "8 of 2Mi of node 0: all zero",
            "4 of 2Mi of node 1: all zero",
            "huge pages of 2Mi on node 0 with those of the lease gone: 2",
            "huge pages of 2Mi on node 1 with those of the lease gone: 0",
        ]
    );
    assert_eq!(host.class.found().unwrap(), []);
    // Cut before the ledger knew of it: done again, it takes nobody else's pages.
    let again = host.class.erase(&order).unwrap();
    assert_eq!(host.total(0), 2);
    assert_eq!(again.methods, ["returnToKernel"], "none was there to be zeroed");
    let told: Vec<&str> = again.evidence.iter().map(|e| e.found.as_str()).collect();
    assert_eq!(told, ["none", "none", "2", "0"]);
}

#[test]
fn a_lease_that_goes_leaves_its_neighbours_pages() {
    let host = Host::new();
    let (a, b) = (wanted("a", &[(0, 8)]), wanted("b", &[(0, 3)]));
    host.write(&format!("{}/hugetlb.2MB.max", GROUP.replace("acme.a", "acme.b")), "max");
    host.class.attach(&a).unwrap();
    host.class.attach(&b).unwrap();
    assert_eq!(host.total(0), 13);
    host.pool(0, 13);
    host.class.erase(&a).unwrap();
    assert_eq!(host.total(0), 5);
    assert_eq!(host.class.observe(&b).unwrap(), Attached::Yes);
}

#[test]
fn what_drifted_is_seen_and_set_right() {
    let host = Host::new();
    let order = wanted("a", &[(0, 8)]);
    host.class.attach(&order).unwrap();
    host.write(&format!("{GROUP}/hugetlb.2MB.max"), "max\n");
    let told = format!("hugetlb.2MB.max is max, not {}", 8 * (2 << 20));
    assert_eq!(host.class.observe(&order).unwrap(), Attached::Drifted(told));
    host.class.attach(&order).unwrap();
    host.pool(0, 3);
    let told = "node 0 has 3 huge pages of 2Mi, not 10".to_owned();
    assert_eq!(host.class.observe(&order).unwrap(), Attached::Drifted(told));
    host.class.attach(&order).unwrap();
    assert_eq!(host.class.observe(&order).unwrap(), Attached::Yes);
}

#[test]
fn pages_that_somebody_still_has_are_waited_for() {
    let host = Host::new();
    let order = wanted("a", &[(0, 8)]);
    host.class.attach(&order).unwrap();
    let error = host.class.erase(&order).unwrap_err();
    assert_eq!(
        error.to_string(),
        "take back 8 huge pages of 2Mi on node 0: 2 are free: somebody still has the others"
    );
    assert_eq!(
        host.class.observe(&order).unwrap(),
        Attached::Yes,
        "nothing was taken back by halves"
    );
}

#[test]
fn pages_that_are_not_zero_are_never_given_back() {
    let mut host = Host::new();
    host.class.examine = |_, _, _, _| {
        Err(ClassError::ReadBack {
            what: "page".to_owned(),
            expected: "all zero".to_owned(),
            found: "a marker".to_owned(),
        })
    };
    let order = wanted("a", &[(0, 8)]);
    host.class.attach(&order).unwrap();
    host.pool(0, 10);
    let error = host.class.erase(&order).unwrap_err();
    assert!(matches!(error, ClassError::ReadBack { .. }), "{error}");
    assert_eq!(host.total(0), 10);
}

#[test]
fn leases_without_huge_pages_may_take_none() {
    let host = Host::new();
    let id = wanted("a", &[]).lease;
    assert!(limit::drift(host.dir.path(), &id, None).unwrap().is_some());
    limit::set(host.dir.path(), &id, None).unwrap();
    for file in ["2MB.max", "2MB.rsvd.max", "1GB.max", "1GB.rsvd.max"] {
        assert_eq!(host.read(&format!("{GROUP}/hugetlb.{file}")), "0", "{file}");
    }
    assert_eq!(limit::drift(host.dir.path(), &id, None).unwrap(), None);
}

#[test]
fn the_controller_is_switched_on_and_a_kernel_without_it_is_told() {
    let host = Host::new();
    host.write("sys/fs/cgroup/cgroup.subtree_control", "cpuset memory\n");
    host.class.attach(&wanted("a", &[(0, 1)])).unwrap();
    assert_eq!(host.read("sys/fs/cgroup/cgroup.subtree_control"), "+hugetlb");
    host.write("sys/fs/cgroup/cgroup.controllers", "cpuset memory\n");
    let error = host.class.attach(&wanted("a", &[(0, 1)])).unwrap_err();
    assert!(matches!(error, ClassError::Unsupported(_)), "{error}");
    limit::set(host.dir.path(), &wanted("a", &[]).lease, None).unwrap();
}

/// Returns the pool of this machine to what it was.
struct Restored(u64);

impl Drop for Restored {
    fn drop(&mut self) {
        let _ = pool::set(std::path::Path::new("/"), 0, PageSize::TwoMiB, self.0);
    }
}

#[test]
fn real_huge_pages_are_zeroed_between_two_that_take_them() {
    let root = std::path::Path::new("/");
    let _restored = Restored(pool::total(root, 0, PageSize::TwoMiB).unwrap());
    let pages = 4;
    let total = pool::total(root, 0, PageSize::TwoMiB).unwrap() + pages;
    assert!(pool::set(root, 0, PageSize::TwoMiB, total).unwrap() >= total, "this test needs 8 MiB");
    let length = usize::try_from(pages).unwrap() << 21;
    let mut tenant = super::super::sys::Region::on_node(length, 0, Some(PageSize::TwoMiB)).unwrap();
    tenant.bytes().fill(0xa5);
    drop(tenant);
    let progress = Progress::default();
    let evidence = examine::examine(0, PageSize::TwoMiB, pages, &progress).unwrap();
    assert_eq!(progress.read(), (16 << 20, 16 << 20));
    assert_eq!(evidence.len(), 2);
    assert!(evidence.iter().all(|e| e.found == "all zero"));
    let error = examine::examine(0, PageSize::TwoMiB, 1 << 20, &progress).unwrap_err();
    assert!(matches!(error, ClassError::Refused { .. }), "{error}");
}
