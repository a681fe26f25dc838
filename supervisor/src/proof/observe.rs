//! Control groups below `tenant.slice` and the processes in them, as the kernel shows them.
//!
//! ```text
//!  tenant.slice ── tenant-acme.a.slice ── …      a lease: limits here, processes here and below
//!              ├── anything else                 nobody's
//!              └── cgroup.procs                  nobody's
//!  /proc/*      ── with an id of tenants, in no group of leases: strays
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use bulkhead_api::chain::Chain;
use bulkhead_api::id::LeaseId;
use bulkhead_api::inventory::Inventory;
use bulkhead_api::isolation::{
    Facts, Holder, HolderFacts, IdRange, Namespace, ProcessFacts, Stray,
};
use bulkhead_api::lease::Isolation;

use super::mapping::Mapping;
use super::reach::Reached;
use super::{devices, process, share};
use crate::host::cpulist;
use crate::tenant::cgroup;
use crate::tenant::name::{self, Kind, ROOT_SLICE};

/// Ids below are the host's own users, those of systemd's dynamic users among them.
const HOST_IDS: IdRange = IdRange { first: 0, count: 65_536 };
/// Ids from here on are given to tenants only.
const TENANT_IDS: u32 = 0x1000_0000;
/// Groups within groups that are looked at; the supervisor makes three.
const DEPTH: usize = 32;

/// What the records say: the names of the leases that were granted, and what each is to have to itself.
pub type Claims = BTreeMap<LeaseId, Isolation>;

/// What was observed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// All of it.
    pub facts: Facts,
    /// Control groups of leases that have more open files than are looked at.
    pub crowded: Vec<(LeaseId, PathBuf)>,
}

/// Observes the host below `root`. Topology is the inventory's, which was read from sysfs; `mappings` are those of the
/// device mapper.
#[must_use]
pub fn observe(
    root: &Path,
    inventory: &Inventory,
    claims: &Claims,
    mappings: Result<Vec<Mapping>, String>,
) -> Observed {
    let above = |(_, level): &(&LeaseId, &Isolation)| **level != Isolation::Core;
    let mut facts = Facts {
        cores: inventory.cpu.cores.clone(),
        caches: inventory.cpu.caches.clone(),
        memory: inventory.memory.clone(),
        granted: claims.keys().cloned().collect(),
        levels: claims.iter().filter(above).map(|(id, level)| (id.clone(), *level)).collect(),
        ..Facts::default()
    };
    facts.unreadable.extend(share::pools(root, &mut facts.memory).err());
    facts.holders.push(host(root));
    let mut groups = Vec::new();
    match holders(root) {
        Ok(found) => groups = found,
        Err(why) => facts.unreadable.push(why),
    }
    let (mut reached, mut crowded) = (Vec::new(), Vec::new());
    for Group { path, facts: of_it, reached: by_it } in groups {
        if let (Holder::Lease(id), true) = (&of_it.holder, by_it.is_crowded()) {
            crowded.push((id.clone(), path));
        }
        reached.push((of_it.holder.clone(), by_it));
        facts.holders.push(of_it);
    }
    let mappings = mappings.unwrap_or_else(|why| {
        facts.unreadable.push(why);
        Vec::new()
    });
    facts.devices = devices::devices(root, &inventory.gpus, &mappings, &reached);
    facts.functions = devices::functions(&inventory.pci, &facts.devices);
    match share::cache_groups(root) {
        Ok(groups) => facts.cache_groups = groups,
        Err(why) => facts.unreadable.push(why),
    }
    let known = facts.holders.iter().flat_map(|holder| &holder.processes);
    let known: BTreeSet<u32> = known.flat_map(|process| process.pids.iter().copied()).collect();
    match strays(root, &known) {
        Ok(strays) => facts.strays = strays,
        Err(why) => facts.unreadable.push(why),
    }
    Observed { facts, crowded }
}

/// A control group that was looked at.
struct Group {
    path: PathBuf,
    facts: HolderFacts,
    reached: Reached,
}

/// The host, by the process that observes: its namespaces and root are the host's.
fn host(root: &Path) -> HolderFacts {
    let mut host = HolderFacts::new(Holder::Host);
    let group = root.join("sys/fs/cgroup");
    let set = |file: &str| cpulist::parse(&fs::read_to_string(group.join(file)).ok()?);
    (host.cpus, host.memory_nodes) = (set("cpuset.cpus.effective"), set("cpuset.mems.effective"));
    let own = root.join("proc/self");
    if let Some((mut seen, unreadable)) = process::facts(&own, std::process::id()) {
        (seen.user_ids, seen.group_ids) = (vec![HOST_IDS], vec![HOST_IDS]);
        host.processes.push(seen);
        host.unreadable = unreadable;
    }
    host
}

fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

fn holders(root: &Path) -> Result<Vec<Group>, String> {
    let mut found = Vec::new();
    let tenants = cgroup::tenants(root);
    let groups = match entries(&tenants) {
        // Without it no lease was ever granted since the host booted.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
        groups => groups.map_err(|error| format!("list {ROOT_SLICE}: {error}"))?,
    };
    for group in groups {
        let name = group.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let holder_of = match name::lease(&name) {
            Some((id, Kind::Slice)) => Holder::Lease(id),
            _ => Holder::Unknown(format!("/{ROOT_SLICE}/{name}")),
        };
        found.extend(holder(root, &group, holder_of, true));
    }
    let direct = holder(root, &tenants, Holder::Unknown(format!("/{ROOT_SLICE}")), false);
    // The slice above all leases holds nothing of its own unless somebody is in it.
    found.extend(direct.filter(|direct| {
        !direct.facts.processes.is_empty() || !direct.facts.unreadable.is_empty()
    }));
    Ok(found)
}

/// One control group, and what its processes reach; `None` where it is gone.
fn holder(root: &Path, group: &Path, holder: Holder, below: bool) -> Option<Group> {
    let mut facts = HolderFacts::new(holder);
    match cgroup::slice(group) {
        Ok(None) => return None,
        Ok(Some(slice)) => {
            // An empty set is none in effect: the controller is off.
            facts.cpus = Some(slice.limits.cpus).filter(|cpus| !cpus.is_empty());
            facts.memory_nodes = Some(slice.limits.memory_nodes).filter(|nodes| !nodes.is_empty());
            facts.memory_max = slice.limits.memory;
        }
        Err(error) => facts.unreadable.push(Chain(&error).to_string()),
    }
    match share::hugepages(group) {
        Ok(pages) => facts.hugepages = pages,
        Err(why) => facts.unreadable.push(why),
    }
    let mut pids = BTreeSet::new();
    collect(group, below.then_some(DEPTH), &mut pids, &mut facts.unreadable);
    // Views of file systems that were looked at.
    let (mut reached, mut views) = (Reached::default(), BTreeSet::new());
    let mut alike: BTreeMap<Vec<u8>, ProcessFacts> = BTreeMap::new();
    for pid in pids {
        let dir = root.join("proc").join(pid.to_string());
        let Some((seen, unreadable)) = process::facts(&dir, pid) else { continue };
        facts.unreadable.extend(unreadable);
        if !seen.runtime {
            let view = (seen.namespaces.get(&Namespace::Mnt).copied(), seen.root.clone());
            let mut unseen = Vec::new();
            // Beyond the bound nothing more is looked at, and that is said once.
            if !reached.is_crowded() {
                unseen.push(reached.open_files(&dir, pid).err());
            }
            if !views.contains(&view) {
                match reached.file_systems(&dir, pid) {
                    Ok(()) => drop(views.insert(view)),
                    Err(why) => unseen.push(Some(why)),
                }
            }
            // What ended while it was looked at could not be for that reason.
            let unseen = unseen.into_iter().flatten();
            facts.unreadable.extend(unseen.filter(|_| !process::is_gone(&dir)));
        }
        let kind = ProcessFacts { pids: Vec::new(), ..seen };
        // Two that are alike have equal JSON; what cannot be written is alike to nobody.
        let key = serde_json::to_vec(&kind).unwrap_or_else(|_| pid.to_be_bytes().to_vec());
        alike.entry(key).or_insert(kind).pids.push(pid);
    }
    facts.processes = alike.into_values().collect();
    facts.processes.sort_by_key(|process| process.pids.first().copied());
    Some(Group { path: group.to_owned(), facts, reached })
}

/// Process ids in a group and, down to a depth, in those below it.
fn collect(
    group: &Path,
    depth: Option<usize>,
    pids: &mut BTreeSet<u32>,
    unreadable: &mut Vec<String>,
) {
    match cgroup::processes(group) {
        Ok(found) => pids.extend(found),
        Err(error) => unreadable.push(Chain(&error).to_string()),
    }
    let Some(depth) = depth else { return };
    match (entries(group), depth.checked_sub(1)) {
        (Ok(below), Some(depth)) => {
            for group in below {
                collect(&group, Some(depth), pids, unreadable);
            }
        }
        (Ok(below), None) if below.is_empty() => {}
        (Ok(_), None) => unreadable.push(format!("{}: groups nest too deep", group.display())),
        (Err(error), _) if error.kind() == ErrorKind::NotFound => {}
        (Err(error), _) => unreadable.push(format!("list {}: {error}", group.display())),
    }
}

/// Processes with an id of tenants that are in no group of leases.
///
/// Costs one look at the owner of each process's directory: that is its effective user (proc(5)).
fn strays(root: &Path, known: &BTreeSet<u32>) -> Result<Vec<Stray>, String> {
    let proc = root.join("proc");
    let listed = match fs::read_dir(&proc) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.map_err(|error| format!("list /proc: {error}"))?,
    };
    let mut strays = Vec::new();
    for entry in listed {
        let entry = entry.map_err(|error| format!("list /proc: {error}"))?;
        let pid = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        let Some(pid) = pid.filter(|pid| !known.contains(pid)) else { continue };
        // What has ended meanwhile is nobody's.
        let Ok(owner) = entry.metadata() else { continue };
        let user = owner.uid();
        if user < TENANT_IDS {
            continue;
        }
        let text = match fs::read_to_string(entry.path().join("cgroup")) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(_) => String::new(),
        };
        let cgroup = text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
        // It came after its group was looked at.
        let inside = cgroup.strip_prefix('/').and_then(|path| path.split('/').next());
        let dead = fs::read(entry.path().join("status"))
            .is_ok_and(|text| process::status(&String::from_utf8_lossy(&text)).dead);
        if inside != Some(ROOT_SLICE) && !dead {
            strays.push(Stray { pid, user, cgroup: cgroup.to_owned() });
        }
    }
    strays.sort_by_key(|stray| stray.pid);
    Ok(strays)
}
