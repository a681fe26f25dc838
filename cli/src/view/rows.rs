//! The columns of the tables.

use bulkhead_api::document::{Capacity, Document, Host, Kind, Lease, Site, Tenant};
use bulkhead_api::lease::LeasePhase;
use bulkhead_api::site::AdmissionMode;
use bulkhead_api::time::Timestamp;

use super::table::Table;
use super::text::{age_of, cpu_list, rounded, trouble};

/// How a name stands in front of others: `lease demo/hello`.
#[must_use]
pub fn title(document: &Document) -> String {
    format!("{} {}", kind(document).name().to_lowercase(), name(document))
}

/// The kind of a document.
#[must_use]
pub fn kind(document: &Document) -> Kind {
    match document {
        Document::Site(_) => Kind::Site,
        Document::Host(_) => Kind::Host,
        Document::Tenant(_) => Kind::Tenant,
        Document::Lease(_) => Kind::Lease,
    }
}

/// The name of a document as it is given on the command line.
#[must_use]
pub fn name(document: &Document) -> String {
    match document {
        Document::Site(site) => site.metadata.name.to_string(),
        Document::Host(host) => host.metadata.name.to_string(),
        Document::Tenant(tenant) => tenant.metadata.name.to_string(),
        Document::Lease(lease) => format!("{}/{}", lease.metadata.tenant, lease.metadata.name),
    }
}

/// A table of documents of one kind. `now` is for the ages.
#[must_use]
pub fn table(kind: Kind, documents: &[Document], now: Timestamp, wide: bool) -> Table {
    let rows = documents.iter().map(|document| row(document, now, wide)).collect();
    Table { header: header(kind, wide), rows }
}

/// The columns of a kind.
#[must_use]
pub fn header(kind: Kind, wide: bool) -> Vec<&'static str> {
    let (narrow, more, last): (&[&str], &[&str], &[&str]) = match kind {
        Kind::Site => {
            (&["NAME", "ADMISSION", "MACHINES", "CONNECTED", "LAST SEEN"], &[], &["REASON"])
        }
        Kind::Host => (
            &["NAME", "SITE", "PHASE", "CORES", "MEMORY", "GPUS", "GENERATION", "LAST SEEN"],
            &["MAC", "SYSTEM UUID", "KERNEL", "IMAGE"],
            &["REASON"],
        ),
        Kind::Tenant => (&["NAME", "DISPLAY NAME"], &[], &[]),
        Kind::Lease => (
            &["TENANT", "NAME", "HOST", "PHASE", "CPUS", "MEMORY", "IMAGE", "STARTS"],
            &["CPU SET", "PID", "DIGEST", "OBSERVED"],
            &["REASON"],
        ),
    };
    let more = if wide { more } else { &[] };
    [narrow, more, last].concat()
}

/// The columns that change by the passing of time alone; a watch does not print a row for them.
#[must_use]
pub fn is_clock(column: &str) -> bool {
    matches!(column, "LAST SEEN" | "OBSERVED")
}

/// The cells of a document, in the order of [`header`].
#[must_use]
pub fn row(document: &Document, now: Timestamp, wide: bool) -> Vec<String> {
    match document {
        Document::Site(site) => site_row(site, now),
        Document::Host(host) => host_row(host, now, wide),
        Document::Tenant(tenant) => tenant_row(tenant),
        Document::Lease(lease) => lease_row(lease, now, wide),
    }
}

fn site_row(site: &Site, now: Timestamp) -> Vec<String> {
    let admission = &site.spec.admission;
    let (mode, machines) = match admission.mode {
        AdmissionMode::Auto => ("auto", "any".to_owned()),
        AdmissionMode::List => ("list", admission.machines.len().to_string()),
    };
    let status = site.status.as_ref();
    let connected = status.map(|s| if s.connected { "yes" } else { "no" }).unwrap_or_default();
    vec![
        site.metadata.name.to_string(),
        mode.to_owned(),
        machines,
        connected.to_owned(),
        age_of(now, status.and_then(|s| s.last_seen)),
        status.map(|s| trouble(&s.conditions)).unwrap_or_default(),
    ]
}

fn host_row(host: &Host, now: Timestamp, wide: bool) -> Vec<String> {
    let state = &host.status;
    let reported = state.reported.as_deref();
    let inventory = reported.map(|r| &r.inventory);
    let room =
        |text: fn(&Capacity) -> String| state.capacity.as_ref().map(text).unwrap_or_default();
    let mut row = vec![
        host.metadata.name.to_string(),
        host.metadata.site.to_string(),
        format!("{:?}", state.phase),
        room(|c| format!("{}/{}", c.cores_free, c.cores)),
        room(|c| format!("{}/{}", rounded(c.memory_free), rounded(c.memory))),
        inventory.map(|i| i.gpus.len().to_string()).unwrap_or_default(),
        generation(host),
        age_of(now, state.last_seen),
    ];
    if wide {
        row.push(host.spec.mac.to_string());
        row.push(host.spec.system_uuid.map(|uuid| uuid.to_string()).unwrap_or_default());
        row.push(inventory.map(|i| i.kernel.clone()).unwrap_or_default());
        row.push(inventory.map(|i| i.image.clone()).unwrap_or_default());
    }
    row.push(state.reason.clone());
    row
}

/// The generation that was signed last, and how far the host is where it is not there yet.
fn generation(host: &Host) -> String {
    let signed = host.status.generation;
    match host.status.reported.as_ref().map(|r| r.settled_generation) {
        Some(settled) if settled != signed => format!("{signed} (at {settled})"),
        _ => signed.to_string(),
    }
}

fn tenant_row(tenant: &Tenant) -> Vec<String> {
    vec![tenant.metadata.name.to_string(), tenant.spec.display_name.clone()]
}

fn lease_row(lease: &Lease, now: Timestamp, wide: bool) -> Vec<String> {
    let status = lease.status.clone().unwrap_or_default();
    let reason = match status.phase {
        // While it runs as wanted there is nothing to explain.
        LeasePhase::Running => String::new(),
        LeasePhase::Pending
        | LeasePhase::Granting
        | LeasePhase::Ended
        | LeasePhase::Failed
        | LeasePhase::Releasing
        | LeasePhase::Unknown => trouble(&status.conditions),
    };
    let mut row = vec![
        lease.metadata.tenant.to_string(),
        lease.metadata.name.to_string(),
        status.host.map(|host| host.to_string()).unwrap_or_default(),
        format!("{:?}", status.phase),
        lease.spec.cpus.to_string(),
        rounded(lease.spec.memory),
        lease.spec.workload.image.clone(),
        status.starts.to_string(),
    ];
    if wide {
        row.push(status.holding.map(|h| cpu_list(&h.cpus)).unwrap_or_default());
        row.push(status.pid.map(|pid| pid.to_string()).unwrap_or_default());
        row.push(status.image_digest.unwrap_or_default());
        row.push(age_of(now, status.observed));
    }
    row.push(reason);
    row
}
