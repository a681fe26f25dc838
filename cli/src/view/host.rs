//! A host's own report as a page: hardware, leases, conditions.

use bulkhead_api::inventory::Inventory;
use bulkhead_api::lease::ReportedLease;
use bulkhead_api::status::HostStatus;
use bulkhead_api::time::Timestamp;
use bulkhead_api::units::Bytes;

use super::describe::{Page, conditions};
use super::table::Table;
use super::text::{age, cpu_list, rounded};

/// The page of a report.
#[must_use]
pub fn page(status: &HostStatus, now: Timestamp) -> String {
    let mut page = Page::default();
    page.field("Host", &status.host);
    page.field("Boot", status.boot);
    page.field("Observed", format!("{} ago", age(now, status.observed)));
    let (accepted, settled) = (status.accepted_generation, status.settled_generation);
    page.field("Generation", format!("{accepted} accepted, {settled} settled"));
    if status.supervisor_rss > 0 {
        page.field(
            "Supervisor",
            format!("{} resident", rounded(Bytes::new(status.supervisor_rss))),
        );
    }
    report(&mut page, status, now);
    page.finish()
}

/// Conditions, leases and hardware of a report, under what the page has already.
pub fn report(page: &mut Page, status: &HostStatus, now: Timestamp) {
    page.table("Conditions", &conditions(&status.conditions, now));
    page.table("Leases", &leases(&status.leases));
    inventory(page, &status.inventory);
}

fn leases(leases: &[ReportedLease]) -> Table {
    let rows = leases.iter().map(|lease| {
        let holding = lease.status.holding.clone().unwrap_or_default();
        vec![
            lease.id.to_string(),
            format!("{:?}", lease.status.phase),
            cpu_list(&holding.cpus),
            rounded(holding.memory),
            lease.status.starts.to_string(),
            lease.status.pid.map(|pid| pid.to_string()).unwrap_or_default(),
        ]
    });
    let header = vec!["LEASE", "PHASE", "CPU SET", "MEMORY", "STARTS", "PID"];
    Table { header, rows: rows.collect() }
}

fn inventory(page: &mut Page, inventory: &Inventory) {
    let Inventory { firmware, cpu, .. } = inventory;
    page.section("Hardware");
    page.field("Machine", [firmware.vendor.as_str(), &firmware.product].join(" ").trim());
    let boot = match (firmware.uefi, firmware.secure_boot) {
        (true, true) => "UEFI, Secure Boot on",
        (true, false) => "UEFI, Secure Boot off",
        (false, _) => "not UEFI",
    };
    page.field("Firmware", format!("{} ({boot})", firmware.bios_version));
    page.field("Image", &inventory.image);
    page.field("Kernel", &inventory.kernel);
    let threads: usize = cpu.cores.iter().map(|core| core.cpus.len()).sum();
    page.field("Processor", &cpu.model);
    page.field("Cores", format!("{} with {threads} threads", cpu.cores.len()));
    for node in &inventory.memory {
        let cpus = cpu_list(&node.cpus);
        page.field("Memory", format!("node {}: {}, CPUs {cpus}", node.id, rounded(node.total)));
    }
    for nic in &inventory.nics {
        let state = if nic.up { "up" } else { "down" };
        let vfs = match nic.total_vfs {
            0 => String::new(),
            total => format!(", {} of {total} VFs", nic.vfs.len()),
        };
        page.field("NIC", format!("{} {} {} {state}{vfs}", nic.name, nic.mac, nic.driver));
    }
    for disk in &inventory.disks {
        let size = rounded(disk.size);
        page.field("Disk", format!("{} {} {size} {}", disk.name, disk.transport, disk.model));
    }
    for gpu in &inventory.gpus {
        page.field("GPU", format!("{} {} {}", gpu.bdf, gpu.model, rounded(gpu.memory)));
    }
    for clock in &inventory.ptp_clocks {
        page.field("PTP clock", format!("{} {}", clock.name, clock.clock_name));
    }
    if let Some(tpm) = &inventory.tpm {
        page.field("TPM", format!("{} version {}", tpm.name, tpm.version_major));
    }
    page.field("PCI", format!("{} functions", inventory.pci.len()));
    for problem in &inventory.problems {
        page.field("Problem", problem);
    }
}
