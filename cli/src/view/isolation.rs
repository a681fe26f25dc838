//! An isolation statement as a page: who holds what, what is shared.

use std::collections::BTreeSet;

use bulkhead_api::isolation::{
    DeviceFacts, DeviceKind, Holder, HolderFacts, IdRange, Reach, Sharing,
};
use bulkhead_api::statement::Statement;
use bulkhead_api::time::Timestamp;

use super::describe::Page;
use super::table::Table;
use super::text::{age, cpu_list, rounded};

/// The page of a statement whose signature was not checked.
#[must_use]
pub fn page(statement: &Statement, now: Timestamp) -> String {
    let mut page = Page::default();
    page.field("Host", &statement.host);
    page.field("Statement", format!("{} of boot {}", statement.sequence, statement.boot));
    page.field("Observed", format!("{} ago", age(now, statement.time)));
    page.field("Generation", statement.generation);
    page.field("Facts", format!("sha256 {}", statement.facts_digest));
    page.field("Signed by", format!("{}, to be checked with bulkhead verify", statement.host));
    page.table("Holders", &holders(&statement.facts.holders));
    let devices = devices(&statement.facts.devices);
    if !devices.rows.is_empty() {
        page.table("Devices", &devices);
    }
    page.table("Violations", &sharings(&statement.finding.violations));
    page.table("Notes", &sharings(&statement.finding.notes));
    page.finish()
}

fn holders(holders: &[HolderFacts]) -> Table {
    let rows = holders.iter().map(|holder| {
        let ids: BTreeSet<IdRange> =
            holder.processes.iter().flat_map(|process| process.user_ids.clone()).collect();
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        let processes: usize = holder.processes.iter().map(|process| process.pids.len()).sum();
        vec![
            holder.holder.to_string(),
            cpu_list(holder.cpus.iter().flatten()),
            cpu_list(holder.memory_nodes.iter().flatten()),
            holder.memory_max.map(rounded).unwrap_or_default(),
            ids.join(" "),
            processes.to_string(),
        ]
    });
    let header = vec!["HOLDER", "CPU SET", "NODES", "MEMORY", "USER IDS", "PROCESSES"];
    Table { header, rows: rows.collect() }
}

/// What leases reach: not what is the host's alone, nor their own terminals.
fn devices(devices: &[DeviceFacts]) -> Table {
    let shown = devices.iter().filter(|device| device.kind != DeviceKind::Terminals);
    let rows = shown.filter_map(|device| {
        let reaches = |reach: &&Reach| reach.holder != Holder::Host;
        let holders: Vec<String> =
            device.holders.iter().filter(reaches).map(|reach| reach.holder.to_string()).collect();
        let name = match &device.kind {
            DeviceKind::Mapping { name, .. } => format!("{} ({name})", device.name),
            DeviceKind::Terminals
            | DeviceKind::Kvm
            | DeviceKind::VfioContainer
            | DeviceKind::VfioGroup
            | DeviceKind::Image
            | DeviceKind::Disk
            | DeviceKind::Partition { .. }
            | DeviceKind::Vf { .. }
            | DeviceKind::Interface
            | DeviceKind::GpuControl
            | DeviceKind::Gpu
            | DeviceKind::GpuSlice { .. }
            | DeviceKind::Unknown => device.name.clone(),
        };
        (!holders.is_empty()).then(|| vec![name, holders.join(" ")])
    });
    Table { header: vec!["DEVICE", "HOLDERS"], rows: rows.collect() }
}

fn sharings(sharings: &[Sharing]) -> Table {
    let row = |sharing: &Sharing| vec![format!("{:?}", sharing.class), sharing.message.clone()];
    Table { header: vec!["CLASS", "WHAT"], rows: sharings.iter().map(row).collect() }
}
