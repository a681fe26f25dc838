//! Groups as directories in the kernel's format.

use super::*;
use crate::class::testing::order;

struct Host {
    dir: tempfile::TempDir,
    cache: Cache,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = Self {
            cache: Cache {
                root: dir.path().to_owned(),
                remove: |path| fs::remove_dir_all(path),
                turn: Mutex::new(()),
            },
            dir,
        };
        host.write("sys/fs/resctrl/info/last_cmd_status", "ok\n");
        host.write("sys/fs/resctrl/schemata", "    L3:0=fff;1=fff\n");
        for stem in ["acme.a", "acme.b"] {
            let group = format!("sys/fs/cgroup/tenant.slice/tenant-{stem}.slice");
            host.write(&format!("{group}/cpuset.cpus.effective"), "2-3\n");
        }
        host
    }

    fn write(&self, below: &str, text: &str) {
        let path = self.dir.path().join(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, below: &str) -> String {
        fs::read_to_string(self.dir.path().join("sys/fs/resctrl").join(below)).unwrap()
    }
}

fn wanted(mask: u64) -> Order {
    let ways = vec![CacheWays { cache: 1, mask, bandwidth_percent: Some(40) }];
    order(Resource::Cache { ways })
}

#[test]
fn a_lease_gets_its_ways_and_the_host_has_them_back() {
    let host = Host::new();
    let order = wanted(0xc00);
    assert_eq!(host.cache.observe(&order).unwrap(), Attached::No);
    for _ in 0..2 {
        host.cache.attach(&order).unwrap();
        assert_eq!(host.read("schemata"), "L3:0=fff;1=3ff\n");
        assert_eq!(host.read("bulkhead-acme.a/schemata"), "L3:1=c00\nMB:1=40\n");
        assert_eq!(host.read("bulkhead-acme.a/cpus_list"), "2-3");
        assert_eq!(host.cache.observe(&order).unwrap(), Attached::Yes);
    }
    assert_eq!(host.cache.found().unwrap(), [(order.lease.clone(), order.resource.clone())]);
    for _ in 0..2 {
        let erased = host.cache.erase(&order).unwrap();
        assert_eq!(erased.methods, ["removeCacheGroup"]);
        let told: Vec<_> =
            erased.evidence.iter().map(|e| (e.what.as_str(), e.found.as_str())).collect();
        assert_eq!(
            told,
            [("group bulkhead-acme.a", "gone"), ("ways of the default group", "L3:0=fff;1=fff")]
        );
        assert_eq!(host.cache.found().unwrap(), []);
    }
}

#[test]
fn what_drifted_is_seen_and_set_right() {
    let host = Host::new();
    let order = wanted(0xc00);
    host.cache.attach(&order).unwrap();
    for (file, text, told) in [
        ("bulkhead-acme.a/schemata", "L3:1=fff\nMB:1=40\n", "its cache group has other ways"),
        ("bulkhead-acme.a/schemata", "L3:1=c00\nMB:1=100\n", "its cache group has other ways"),
        ("bulkhead-acme.a/cpus_list", "2-4\n", "its cache group is for CPUs 2-4"),
        ("schemata", "L3:0=fff;1=fff\n", "the host fills its ways of the cache too"),
    ] {
        host.write(&format!("sys/fs/resctrl/{file}"), text);
        assert_eq!(host.cache.observe(&order).unwrap(), Attached::Drifted(told.to_owned()));
        host.cache.attach(&order).unwrap();
        assert_eq!(host.cache.observe(&order).unwrap(), Attached::Yes, "{file}");
    }
}

#[test]
fn an_attach_that_was_cut_is_taken_back_whole() {
    let host = Host::new();
    let order = wanted(0xc00);
    // The default group lost its ways, the lease's group was never made.
    host.write("sys/fs/resctrl/schemata", "L3:0=fff;1=3ff\n");
    host.cache.erase(&order).unwrap();
    assert_eq!(host.read("schemata"), "L3:0=fff;1=fff\n");
}

#[test]
fn a_host_without_such_a_cache_or_without_ways_left_says_so() {
    let host = Host::new();
    let ways = vec![CacheWays { cache: 7, mask: 1, bandwidth_percent: None }];
    let error = host.cache.attach(&order(Resource::Cache { ways })).unwrap_err();
    assert_eq!(error.to_string(), "this host has no last-level cache 7 to part");
    let error = host.cache.attach(&wanted(0xfff)).unwrap_err();
    assert_eq!(error.to_string(), "leave the host ways of cache 1: leases would have all of them");
    host.write("sys/fs/resctrl/schemata", "L3CODE:0=f\nL3DATA:0=f\n");
    let error = host.cache.attach(&wanted(1)).unwrap_err().to_string();
    assert!(error.ends_with("mount resctrl without cdp"), "{error}");
    let nowhere = Cache::new(host.dir.path().join("none"));
    let error = nowhere.attach(&wanted(1)).unwrap_err();
    assert!(matches!(error, ClassError::Unsupported(_)), "{error}");
    assert_eq!(nowhere.found().unwrap(), []);
    assert_eq!(nowhere.observe(&wanted(1)).unwrap(), Attached::No);
}

#[test]
fn a_refusal_of_the_kernel_is_told_in_its_own_words() {
    let host = Host::new();
    host.write("sys/fs/resctrl/info/last_cmd_status", "mask f0f has non-consecutive 1-bits\n");
    let missing = host.dir.path().join("sys/fs/resctrl/none/schemata");
    let error = host.cache.write(&missing, "L3:0=f0f\n").unwrap_err().to_string();
    assert!(error.starts_with("write \"L3:0=f0f\" to "), "{error}");
    assert!(error.contains(": mask f0f has non-consecutive 1-bits: "), "{error}");
}
