//! `bulkhead describe`: a document as a page.

use std::fmt::{Display, Write as _};

use bulkhead_api::condition::Condition;
use bulkhead_api::document::{Document, Host, Kind, Lease, Site, Tenant};
use bulkhead_api::lease::{CpuPartition, InstanceKind, Isolation, LeaseSpec};
use bulkhead_api::resource::Resource;
use bulkhead_api::site::AdmissionMode;
use bulkhead_api::time::Timestamp;

use super::rows;
use super::table::Table;
use super::text::{age, age_of, cpu_list, rounded};

/// Lines `Name:  value` under headings.
#[derive(Debug, Default)]
pub struct Page {
    out: String,
    indent: usize,
}

impl Page {
    /// A line; nothing where the value is empty.
    pub fn field(&mut self, name: &str, value: impl Display) {
        let value = value.to_string();
        if !value.is_empty() {
            let indent = self.indent;
            let text: String =
                value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            let named = format!("{name}:");
            writeln!(self.out, "{:indent$}{named:13} {text}", "").unwrap_or_default();
        }
    }

    /// A heading; the fields after it belong to it.
    pub fn section(&mut self, name: &str) {
        writeln!(self.out, "\n{name}:").unwrap_or_default();
        self.indent = 2;
    }

    /// A table under a heading; `none` where it has no rows.
    pub fn table(&mut self, name: &str, table: &Table) {
        if table.rows.is_empty() {
            writeln!(self.out, "\n{name}: none").unwrap_or_default();
            return;
        }
        writeln!(self.out, "\n{name}:").unwrap_or_default();
        for line in table.render(false).lines() {
            writeln!(self.out, "  {line}").unwrap_or_default();
        }
    }

    /// The text.
    #[must_use]
    pub fn finish(self) -> String {
        self.out
    }
}

/// Conditions as a table.
#[must_use]
pub fn conditions(conditions: &[Condition], now: Timestamp) -> Table {
    let rows = conditions.iter().map(|c| {
        let retry = c.next_retry.map(|at| format!("in {}", age(at, now))).unwrap_or_default();
        vec![
            c.kind.clone(),
            format!("{:?}", c.status),
            c.reason.clone(),
            age(now, c.since),
            c.owner.clone(),
            retry,
            c.message.clone(),
        ]
    });
    let header = vec!["TYPE", "STATUS", "REASON", "FOR", "NEXT TO ACT", "RETRY", "MESSAGE"];
    Table { header, rows: rows.collect() }
}

/// The page of a document; `related` are the hosts of a site, the leases of a host or tenant.
#[must_use]
pub fn page(document: &Document, related: &[Document], now: Timestamp) -> String {
    let mut page = Page::default();
    match document {
        Document::Site(site) => site_page(&mut page, site, related, now),
        Document::Host(host) => host_page(&mut page, host, now),
        Document::Tenant(tenant) => tenant_page(&mut page, tenant, related, now),
        Document::Lease(lease) => lease_page(&mut page, lease, now),
    }
    page.finish()
}

fn site_page(page: &mut Page, site: &Site, hosts: &[Document], now: Timestamp) {
    page.field("Site", &site.metadata.name);
    let admission = &site.spec.admission;
    page.field(
        "Admission",
        match admission.mode {
            AdmissionMode::Auto => "auto: every machine whose identity collides with no other",
            AdmissionMode::List => "list: only the machines named here",
        },
    );
    for machine in &admission.machines {
        let uuid = machine.uuid.map(|uuid| format!(" {uuid}")).unwrap_or_default();
        page.field("Machine", format!("{}{uuid}", machine.mac));
    }
    if !site.spec.weaker_erase.is_empty() {
        let classes: Vec<_> = site.spec.weaker_erase.iter().map(ToString::to_string).collect();
        page.field("Weaker erase", format!("accepted of {}", classes.join(", ")));
    }
    if let Some(status) = &site.status {
        page.field("Connected", if status.connected { "yes" } else { "no" });
        page.field("Last seen", ago(now, status.last_seen));
        page.table("Conditions", &conditions(&status.conditions, now));
    }
    page.table("Hosts", &rows::table(Kind::Host, hosts, now, false));
}

fn host_page(page: &mut Page, host: &Host, now: Timestamp) {
    let state = &host.status;
    page.field("Host", &host.metadata.name);
    page.field("Site", &host.metadata.site);
    page.field("MAC", host.spec.mac);
    page.field("System UUID", host.spec.system_uuid.map(|u| u.to_string()).unwrap_or_default());
    page.field("Phase", format!("{:?}", state.phase));
    page.field("Reason", &state.reason);
    page.field("Last seen", ago(now, state.last_seen));
    page.field(
        "Generation",
        match &state.reported {
            Some(reported) => format!(
                "{} signed, {} accepted, {} settled",
                state.generation, reported.accepted_generation, reported.settled_generation
            ),
            None => format!("{} signed", state.generation),
        },
    );
    if let Some(room) = &state.capacity {
        let memory = format!("{} of {}", rounded(room.memory_free), rounded(room.memory));
        let storage = match room.storage.get() {
            0 => String::new(),
            _ => format!(", storage {} of {}", rounded(room.storage_free), rounded(room.storage)),
        };
        page.field(
            "Free",
            format!("{} of {} cores, {memory}{storage}", room.cores_free, room.cores),
        );
    }
    if !state.conditions.is_empty() {
        page.table("Seen by site and registry", &conditions(&state.conditions, now));
    }
    if let Some(reported) = &state.reported {
        super::host::report(page, reported, now);
    }
}

fn tenant_page(page: &mut Page, tenant: &Tenant, leases: &[Document], now: Timestamp) {
    page.field("Tenant", &tenant.metadata.name);
    page.field("Display name", &tenant.spec.display_name);
    page.table("Leases", &rows::table(Kind::Lease, leases, now, false));
}

fn lease_page(page: &mut Page, lease: &Lease, now: Timestamp) {
    let spec = &lease.spec;
    page.field("Lease", format!("{}/{}", lease.metadata.tenant, lease.metadata.name));
    if let Some(at) = lease.metadata.deletion_timestamp {
        page.field("Deletion", format!("asked for {} ago", age(now, at)));
    }
    page.field("Site", spec.site.as_ref().map_or("any", |site| site.as_str()));
    page.field(
        "CPUs",
        match spec.cpus {
            1 => "1 whole core".to_owned(),
            cores => format!("{cores} whole cores"),
        },
    );
    page.field("Memory", spec.memory);
    shares(page, spec);
    page.field("Image", &spec.workload.image);
    page.field("Arguments", spec.workload.args.join(" "));
    page.field("Restart", format!("{:?}", spec.workload.restart));
    let Some(status) = &lease.status else {
        page.field("Phase", "not placed yet");
        return;
    };
    page.field("Phase", format!("{:?}", status.phase));
    page.field("Host", status.host.as_ref().map(ToString::to_string).unwrap_or_default());
    if let Some(holding) = &status.holding {
        let nodes = cpu_list(&holding.memory_nodes);
        let memory = rounded(holding.memory);
        page.field("Holds", format!("CPUs {}, {memory} of nodes {nodes}", cpu_list(&holding.cpus)));
        for resource in holding.resources().iter().filter(|r| is_besides(r)) {
            page.field("Holds", resource);
        }
    }
    page.field("Digest", status.image_digest.clone().unwrap_or_default());
    page.field("Starts", status.starts);
    page.field("PID", status.pid.map(|pid| pid.to_string()).unwrap_or_default());
    page.field("Observed", ago(now, status.observed));
    page.table("Conditions", &conditions(&status.conditions, now));
}

/// What a lease asks for besides cores and memory; nothing where it is as usual.
fn shares(page: &mut Page, spec: &LeaseSpec) {
    page.field(
        "Instance",
        match spec.instance {
            InstanceKind::Container => "",
            InstanceKind::Vm => "virtual machine",
            InstanceKind::BareMetal => "the whole machine",
        },
    );
    page.field(
        "Isolation",
        match spec.isolation {
            Isolation::Core => "",
            Isolation::L3 => "l3: no other lease on its last-level caches",
            Isolation::Socket => "socket: no other lease on its sockets",
        },
    );
    page.field(
        "CPU set",
        match spec.cpu_partition {
            CpuPartition::Member => "",
            CpuPartition::Isolated => "isolated: no load is balanced over its CPUs",
        },
    );
    if let Some(huge) = &spec.hugepages {
        page.field("Huge pages", format!("{} in pages of {}", huge.amount, huge.page_size));
    }
    if let Some(cache) = &spec.cache {
        let bandwidth = cache
            .bandwidth_percent
            .map(|percent| format!(", at most {percent} % of the memory bandwidth"));
        let bandwidth = bandwidth.unwrap_or_default();
        page.field("Cache", format!("{} ways of each last-level cache{bandwidth}", cache.ways));
    }
    for volume in &spec.volumes {
        let place = match spec.instance {
            InstanceKind::Container => format!("at {}", volume.mount_path()),
            InstanceKind::Vm | InstanceKind::BareMetal => "as a disk".to_owned(),
        };
        page.field("Volume", format!("{}, {} {place}", volume.name, volume.size));
    }
}

/// Whether a resource is shown on its own: what runs, cores and memory have lines of their own.
#[must_use]
pub fn is_besides(resource: &Resource) -> bool {
    !matches!(resource, Resource::Instance | Resource::Cpu { .. } | Resource::Memory { .. })
}

fn ago(now: Timestamp, then: Option<Timestamp>) -> String {
    let age = age_of(now, then);
    if age.is_empty() { age } else { format!("{age} ago") }
}
