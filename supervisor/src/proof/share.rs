//! Bounds of huge pages and ways of caches, as the kernel shows them.
//!
//! ```text
//!  hugetlb.2MB.max, .current                 of a control group (Documentation/admin-guide/cgroup-v2.rst)
//!  node/nodeN/hugepages/hugepages-2048kB     the pools, which grow and shrink with leases
//!  /sys/fs/resctrl/GROUP/schemata, cpus_list (Documentation/filesystems/resctrl.rst)
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use bulkhead_api::id::LeaseId;
use bulkhead_api::inventory::{HugepagePool, NumaNode};
use bulkhead_api::isolation::{CacheGroup, HugepageFacts};
use bulkhead_api::resource::PageSize;
use bulkhead_api::units::Bytes;

use crate::host::cpulist;
use crate::tenant::name::{self, Kind};

/// Groups of leases are called so, the lease's name behind it.
const PREFIX: &str = "bulkhead-";

/// A number in a file; `None` where there is no such file, or it says `max`.
fn number(path: &Path) -> Result<Option<u64>, String> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|error| format!("read {}: {error}", path.display()))?,
    };
    match text.trim() {
        "max" => Ok(None),
        text => text.parse().map(Some).map_err(|_| format!("{} is {text:?}", path.display())),
    }
}

/// Huge pages of a control group. A size without files has no bound.
///
/// # Errors
/// What was not seen.
pub fn hugepages(group: &Path) -> Result<BTreeMap<PageSize, HugepageFacts>, String> {
    let mut pages = BTreeMap::new();
    for size in PageSize::ALL {
        let name = match size {
            PageSize::TwoMiB => "2MB",
            PageSize::OneGiB => "1GB",
        };
        let file = |what: &str| number(&group.join(format!("hugetlb.{name}.{what}")));
        if let Some(used) = file("current")? {
            let max = file("max")?.map(Bytes::new);
            pages.insert(size, HugepageFacts { max, used: Bytes::new(used) });
        }
    }
    Ok(pages)
}

/// Sets the pools of nodes to what they are now: the inventory is of an earlier look.
///
/// # Errors
/// What was not seen.
pub fn pools(root: &Path, nodes: &mut [NumaNode]) -> Result<(), String> {
    for node in nodes {
        node.hugepages.clear();
        for page_size in PageSize::ALL {
            let below = format!(
                "sys/devices/system/node/node{}/hugepages/hugepages-{}kB",
                node.id,
                page_size.bytes().get() >> 10
            );
            let file = |what: &str| number(&root.join(&below).join(what));
            if let (Some(total), Some(free)) = (file("nr_hugepages")?, file("free_hugepages")?) {
                node.hugepages.push(HugepagePool { page_size, total, free });
            }
        }
    }
    Ok(())
}

/// Ways by cache, from `schemata`; `None` where the text is of another form. Code and data of a cache may have ways of
/// their own: then all of both.
#[must_use]
pub fn ways(text: &str) -> Option<BTreeMap<u32, u64>> {
    let mut ways = BTreeMap::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let (resource, domains) = line.split_once(':')?;
        if !matches!(resource.trim(), "L3" | "L3CODE" | "L3DATA") {
            continue;
        }
        for domain in domains.split(';') {
            let (cache, mask) = domain.split_once('=')?;
            let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
            *ways.entry(cache.trim().parse().ok()?).or_default() |= mask;
        }
    }
    Some(ways)
}

/// Groups of resctrl; none where nothing is mounted there, or there is the default group alone.
///
/// # Errors
/// What was not seen.
pub fn cache_groups(root: &Path) -> Result<Vec<CacheGroup>, String> {
    let top = root.join("sys/fs/resctrl");
    let mut names = match fs::read_dir(&top) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed
            .and_then(|listed| listed.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, _>>())
            .map_err(|error| format!("list {}: {error}", top.display()))?,
    };
    // Each group has this file, and what else is there has not.
    names.retain(|path| path.join("schemata").exists());
    if names.is_empty() {
        return Ok(Vec::new());
    }
    names.sort();
    let mut groups = vec![group(&top, String::new(), None)?];
    for path in names {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        groups.push(group(&path, name.clone(), lease(&name))?);
    }
    Ok(groups)
}

fn lease(name: &str) -> Option<LeaseId> {
    let unit = format!("tenant-{}.slice", name.strip_prefix(PREFIX)?);
    name::lease(&unit).filter(|(_, kind)| *kind == Kind::Slice).map(|(lease, _)| lease)
}

fn group(path: &Path, name: String, lease: Option<LeaseId>) -> Result<CacheGroup, String> {
    let text = |file: &str| {
        let path = path.join(file);
        fs::read_to_string(&path).map_err(|error| format!("read {}: {error}", path.display()))
    };
    let odd = |file: &str| format!("{} is of another form", path.join(file).display());
    let ways = ways(&text("schemata")?).ok_or_else(|| odd("schemata"))?;
    let cpus = cpulist::parse(&text("cpus_list")?).ok_or_else(|| odd("cpus_list"))?;
    Ok(CacheGroup { name, lease, cpus, ways })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    fn write(dir: &TempDir, file: &str, text: &str) {
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn groups_are_of_leases_by_their_names() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(cache_groups(dir.path()).unwrap(), []);
        write(&dir, "sys/fs/resctrl/schemata", "    L3:0=ff0;1=fff\n    MB:0=100;1=100\n");
        write(&dir, "sys/fs/resctrl/cpus_list", "0-1,4-7\n");
        write(&dir, "sys/fs/resctrl/info/L3/cbm_mask", "fff\n");
        assert_eq!(cache_groups(dir.path()).unwrap(), [], "nothing is parted");
        for name in ["bulkhead-acme.llm_a", "odd"] {
            write(&dir, &format!("sys/fs/resctrl/{name}/schemata"), "L3:0=00f;1=fff\n");
            write(&dir, &format!("sys/fs/resctrl/{name}/cpus_list"), "2-3\n");
        }
        let groups = cache_groups(dir.path()).unwrap();
        let leases: Vec<Option<String>> =
            groups.iter().map(|g| g.lease.as_ref().map(ToString::to_string)).collect();
        assert_eq!(leases, [None, Some("acme/llm-a".to_owned()), None]);
        assert_eq!(groups[1].ways, BTreeMap::from([(0, 0xf), (1, 0xfff)]));
        assert_eq!(groups[1].cpus, BTreeSet::from([2, 3]));
        write(&dir, "sys/fs/resctrl/odd/cpus_list", "two");
        assert!(cache_groups(dir.path()).unwrap_err().ends_with("cpus_list is of another form"));
    }

    #[test]
    fn huge_pages_are_those_of_now() {
        let dir = tempfile::tempdir().unwrap();
        write(&dir, "g/hugetlb.2MB.current", "4194304\n");
        write(&dir, "g/hugetlb.2MB.max", "max\n");
        let pages = hugepages(&dir.path().join("g")).unwrap();
        let expected = HugepageFacts { max: None, used: Bytes::new(4 << 20) };
        assert_eq!(pages, BTreeMap::from([(PageSize::TwoMiB, expected)]));
        write(&dir, "g/hugetlb.2MB.max", "much\n");
        assert!(hugepages(&dir.path().join("g")).is_err());
        let pool = "sys/devices/system/node/node0/hugepages/hugepages-2048kB";
        write(&dir, &format!("{pool}/nr_hugepages"), "12\n");
        write(&dir, &format!("{pool}/free_hugepages"), "2\n");
        let (total, cpus) = (Bytes::new(1), BTreeSet::new());
        let old = HugepagePool { page_size: PageSize::OneGiB, total: 9, free: 9 };
        let mut nodes = [NumaNode { id: 0, total, cpus, hugepages: vec![old] }];
        pools(dir.path(), &mut nodes).unwrap();
        let now = HugepagePool { page_size: PageSize::TwoMiB, total: 12, free: 2 };
        assert_eq!(nodes[0].hugepages, [now]);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(L3|MB|L3CODE)?:?[0-9a-f=; \\n:]{0,40}|.{0,40}") {
            let _ = ways(&text);
        }
    }
}
