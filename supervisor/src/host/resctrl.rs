//! What the processor's cache and bandwidth control offers (`Documentation/filesystems/resctrl.rst`).

use bulkhead_api::inventory::Resctrl;

use super::tree::Tree;

const ROOT: &str = "sys/fs/resctrl";
const INFO: &str = "sys/fs/resctrl/info";

/// Absent where the processor cannot part its last-level caches, or the file system is not mounted, which is a
/// problem: only there it says what it has. `cpuinfo` is the text of `/proc/cpuinfo`.
pub(super) fn resctrl(tree: &mut Tree<'_>, cpuinfo: &str) -> Option<Resctrl> {
    if !tree.exists(INFO) {
        if tree.exists(ROOT) {
            tree.problems.push(format!("{ROOT}: not mounted, no lease gets cache of its own"));
        }
        return None;
    }
    // With code and data apart (`-o cdp`) there is no `L3`: its masks would mean something else.
    if !tree.exists(&format!("{INFO}/L3")) {
        return None;
    }
    let mask: u64 = hex(tree, "L3/cbm_mask")?;
    let groups: u32 = tree.parse(&format!("{INFO}/L3/num_closids"))?;
    let min_ways = tree.parse(&format!("{INFO}/L3/min_cbm_bits"))?;
    let shareable = hex(tree, "L3/shareable_bits")?;
    let mut found = Resctrl {
        groups,
        ways: mask.count_ones(),
        min_ways,
        shareable,
        min_bandwidth_percent: None,
        bandwidth_step_percent: 0,
    };
    if tree.exists(&format!("{INFO}/MB")) {
        // The kernel takes the least of all resources as limit.
        let groups = tree.parse(&format!("{INFO}/MB/num_closids")).unwrap_or(found.groups);
        found.groups = found.groups.min(groups);
        // Elsewhere the number is no percentage.
        if is_intel(cpuinfo) {
            found.min_bandwidth_percent = tree.parse(&format!("{INFO}/MB/min_bandwidth"));
            found.bandwidth_step_percent =
                tree.parse(&format!("{INFO}/MB/bandwidth_gran")).unwrap_or(0);
        }
    }
    Some(found)
}

fn is_intel(cpuinfo: &str) -> bool {
    let vendor = cpuinfo.lines().find_map(|line| line.strip_prefix("vendor_id"));
    vendor.is_some_and(|rest| rest.trim_start_matches([' ', '\t', ':']).trim() == "GenuineIntel")
}

/// `fffff`, without a prefix.
fn hex(tree: &mut Tree<'_>, name: &str) -> Option<u64> {
    let below = format!("{INFO}/{name}");
    let text = tree.text(&below)?;
    let value = u64::from_str_radix(&text, 16).ok();
    if value.is_none() {
        tree.problems.push(format!("read {below}: {text:?} is not a hexadecimal mask"));
    }
    value
}
