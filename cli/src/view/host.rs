//! A host's own report as a page: hardware, leases, conditions.

use bulkhead_api::inventory::{DiskClaim, Gpu, HugepagePool, Inventory, Resctrl};
use bulkhead_api::lease::{Holding, ReportedLease};
use bulkhead_api::mig::Instance;
use bulkhead_api::resource::Resource;
use bulkhead_api::status::HostStatus;
use bulkhead_api::time::Timestamp;
use bulkhead_api::units::Bytes;

use super::describe::{Page, conditions, is_besides};
use super::ledger::quarantine;
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
    let besides = besides(&status.leases);
    if !besides.rows.is_empty() {
        page.table("Held besides cores and memory", &besides);
    }
    if !status.quarantine.is_empty() {
        page.table("Quarantine", &quarantine(&status.quarantine, now));
    }
    inventory(page, status);
}

/// What leases hold besides cores and memory, a row each.
fn besides(leases: &[ReportedLease]) -> Table {
    let rows = leases.iter().flat_map(|lease| {
        let resources = lease.status.holding.iter().flat_map(Holding::resources);
        let shown = resources.filter(is_besides);
        shown.map(|resource| vec![lease.id.to_string(), resource.to_string()])
    });
    Table { header: vec!["LEASE", "RESOURCE"], rows: rows.collect() }
}

/// Bytes of a pool that are in nobody's volume and not in quarantine.
fn pool_free(status: &HostStatus, pool: &str, size: Bytes) -> Bytes {
    let holdings = status.leases.iter().filter_map(|lease| lease.status.holding.as_ref());
    let held = holdings.flat_map(Holding::resources);
    let all = held.chain(status.quarantine.iter().map(|kept| kept.resource.clone()));
    let of_pool = |resource: Resource| {
        if let Resource::Volume { pool: of, extents, .. } = resource
            && of == pool
        {
            return extents;
        }
        Vec::new()
    };
    let taken: u64 = all.flat_map(of_pool).fold(0, |sum, extent| sum.saturating_add(extent.length));
    Bytes::new(size.get().saturating_sub(taken))
}

/// What is on a disk, behind its name.
fn claim(status: &HostStatus, claim: &DiskClaim) -> String {
    match claim {
        DiskClaim::Unknown => String::new(),
        DiskClaim::Blank => ", blank".to_owned(),
        DiskClaim::Pool { id, size } => {
            let free = rounded(pool_free(status, id, *size));
            format!(", pool {id}: {free} of {} free", rounded(*size))
        }
        DiskClaim::Foreign { what } => format!(", not ours: {what}"),
    }
}

/// How a GPU is cut.
fn cut(gpu: &Gpu) -> String {
    let closed = gpu.closed.as_ref().map(|why| format!(", closed: {why}")).unwrap_or_default();
    match gpu.mig {
        None => closed,
        Some(false) => format!(", MIG off{closed}"),
        Some(true) => {
            let name = |found: &Instance| {
                let place = found.placement;
                let profile = gpu.geometry.as_ref().and_then(|g| g.profile(place.profile));
                let name = profile.map_or_else(
                    || format!("profile {}", place.profile),
                    |profile| profile.name.to_string(),
                );
                format!("{name} at {}", place.start)
            };
            let slices: Vec<String> = gpu.instances.iter().map(name).collect();
            let slices = if slices.is_empty() { "no slices".to_owned() } else { slices.join(", ") };
            format!(", MIG on: {slices}{closed}")
        }
    }
}

fn cache_parts(resctrl: &Resctrl) -> String {
    let Resctrl { groups, ways, min_ways, .. } = resctrl;
    let bandwidth = match resctrl.min_bandwidth_percent {
        Some(least) => {
            format!(", bandwidth from {least} % in steps of {} %", resctrl.bandwidth_step_percent)
        }
        None => String::new(),
    };
    format!("{ways} ways, {min_ways} or more each, in {groups} groups{bandwidth}")
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

fn inventory(page: &mut Page, status: &HostStatus) {
    let inventory = &status.inventory;
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
    if let Some(resctrl) = &cpu.resctrl {
        page.field("Cache parts", cache_parts(resctrl));
    }
    for node in &inventory.memory {
        let (id, total, cpus) = (node.id, rounded(node.total), cpu_list(&node.cpus));
        page.field("Memory", format!("node {id}: {total}, CPUs {cpus}"));
        for pool in node.hugepages.iter().filter(|pool| pool.total > 0) {
            let HugepagePool { page_size, total, free } = pool;
            page.field("Huge pages", format!("node {id}: {free} of {total} of {page_size} free"));
        }
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
        let what = [disk.name.as_str(), &disk.transport, &size, &disk.model].join(" ");
        page.field("Disk", format!("{}{}", what.trim_end(), claim(status, &disk.claim)));
    }
    for gpu in &inventory.gpus {
        page.field("GPU", format!("{} {} {}{}", gpu.bdf, gpu.model, rounded(gpu.memory), cut(gpu)));
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
