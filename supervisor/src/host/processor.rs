//! CPU topology and memory nodes (`/sys/devices/system/{cpu,node}`, `Documentation/admin-guide/cputopology.rst`).

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_api::inventory::{Cache, Core, CpuTopology, NumaNode};
use bulkhead_api::units::Bytes;

use super::cpulist;
use super::hugepages;
use super::resctrl;
use super::tree::{Tree, numbers};

const CPU: &str = "sys/devices/system/cpu";
const NODE: &str = "sys/devices/system/node";

pub(super) fn memory(tree: &mut Tree<'_>) -> Vec<NumaNode> {
    let names = tree.names(NODE);
    let mut nodes = Vec::new();
    for id in numbers(&names, "node") {
        let cpus = list(tree, &format!("{NODE}/node{id}/cpulist")).unwrap_or_default();
        let meminfo = tree.text(&format!("{NODE}/node{id}/meminfo")).unwrap_or_default();
        let hugepages = hugepages::pools(tree, &format!("{NODE}/node{id}/hugepages"));
        nodes.push(NumaNode { id, total: mem_total(&meminfo), cpus, hugepages });
    }
    if nodes.is_empty() {
        // A kernel without NUMA support has one node and says so nowhere.
        let cpus = list(tree, &format!("{CPU}/online")).unwrap_or_default();
        let meminfo = tree.text("proc/meminfo").unwrap_or_default();
        let hugepages = hugepages::pools(tree, "sys/kernel/mm/hugepages");
        nodes.push(NumaNode { id: 0, total: mem_total(&meminfo), cpus, hugepages });
    }
    nodes
}

pub(super) fn topology(tree: &mut Tree<'_>, nodes: &[NumaNode]) -> CpuTopology {
    let online = list(tree, &format!("{CPU}/online")).unwrap_or_default();
    let mut cores: BTreeMap<BTreeSet<u32>, Core> = BTreeMap::new();
    let mut caches: BTreeMap<(u8, String, BTreeSet<u32>), Cache> = BTreeMap::new();
    for cpu in online {
        if let Some(core) = core(tree, cpu, nodes) {
            cores.entry(core.cpus.clone()).or_insert(core);
        }
        let names = tree.names(&format!("{CPU}/cpu{cpu}/cache"));
        for index in numbers(&names, "index") {
            if let Some(cache) = cache(tree, &format!("{CPU}/cpu{cpu}/cache/index{index}")) {
                caches.insert((cache.level, cache.kind.clone(), cache.cpus.clone()), cache);
            }
        }
    }
    let cpuinfo = tree.text("proc/cpuinfo").unwrap_or_default();
    CpuTopology {
        model: model(&cpuinfo),
        cores: cores.into_values().collect(),
        caches: caches.into_values().collect(),
        resctrl: resctrl::resctrl(tree, &cpuinfo),
    }
}

fn core(tree: &mut Tree<'_>, cpu: u32, nodes: &[NumaNode]) -> Option<Core> {
    let below = format!("{CPU}/cpu{cpu}/topology");
    let Some(cpus) = list(tree, &format!("{below}/thread_siblings_list")) else {
        tree.problems.push(format!("{below}: no thread_siblings_list, CPU {cpu} is not leased"));
        return None;
    };
    let node = nodes.iter().find(|node| node.cpus.contains(&cpu)).map_or(0, |node| node.id);
    Some(Core {
        socket: tree.parse(&format!("{below}/physical_package_id")).unwrap_or(0),
        id: tree.parse(&format!("{below}/core_id")).unwrap_or(cpu),
        node,
        cpus,
    })
}

fn cache(tree: &mut Tree<'_>, below: &str) -> Option<Cache> {
    Some(Cache {
        level: tree.parse(&format!("{below}/level"))?,
        kind: tree.text(&format!("{below}/type"))?,
        id: tree.parse(&format!("{below}/id")),
        size: size(tree, &format!("{below}/size"))?,
        cpus: list(tree, &format!("{below}/shared_cpu_list"))?,
    })
}

fn list(tree: &mut Tree<'_>, below: &str) -> Option<BTreeSet<u32>> {
    let text = tree.text(below)?;
    let set = cpulist::parse(&text);
    if set.is_none() {
        tree.problems.push(format!("read {below}: {text:?} is not a list of numbers"));
    }
    set
}

/// `512K` of `cache/indexN/size`.
fn size(tree: &mut Tree<'_>, below: &str) -> Option<Bytes> {
    let text = tree.text(below)?;
    let size = format!("{text}i").parse().ok();
    if size.is_none() {
        tree.problems.push(format!("read {below}: {text:?} is not a size"));
    }
    size
}

/// `MemTotal` of `/proc/meminfo` or of a node's `meminfo`, which puts `Node N` before it.
fn mem_total(meminfo: &str) -> Bytes {
    let kib = meminfo.lines().find_map(|line| {
        let (_, rest) = line.split_once("MemTotal:")?;
        rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    Bytes::new(kib.unwrap_or(0).saturating_mul(1024))
}

fn model(cpuinfo: &str) -> String {
    cpuinfo
        .lines()
        .find_map(|line| {
            Some(line.strip_prefix("model name")?.split_once(':')?.1.trim().to_owned())
        })
        .unwrap_or_default()
}
