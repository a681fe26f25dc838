//! The attacker's program as a tenant's image, and its reports.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use bulkhead_api::document::API_VERSION;
use bulkhead_api::id::LeaseId;
use bulkhead_image::oci::{self, Entry};
use bulkhead_qemu_tests::artifacts::Workspace;
use bulkhead_qemu_tests::cmd::Cmd;
use bulkhead_qemu_tests::fixture::until;
use bulkhead_qemu_tests::guest::Guest;
use serde_json::{Value, json};
use std::time::Duration;

/// The program in its image.
const PROGRAM: &str = "/bin/probe";
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds the program and puts it into the site's store as `probe:latest`.
pub(crate) fn publish() -> Result<()> {
    let workspace = Workspace::find()?;
    let target = workspace.target.join("probe-target");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    Cmd::new(cargo)
        .args(["build", "--quiet", "--package", "bulkhead-probe", "--profile", "stage1"])
        .args(["--target", TARGET, "--target-dir"])
        .arg(&target)
        // Static: its image holds nothing else. This variable goes before every other one of flags.
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .run()?;
    let built = target.join(TARGET).join("stage1/bulkhead-probe");
    let program = std::fs::read(&built).with_context(|| format!("read {}", built.display()))?;
    let folders = ["bin/", "data/", "dev/", "etc/", "proc/", "run/", "sys/", "tmp/"];
    let mut entries: Vec<Entry<'_>> =
        folders.into_iter().map(|folder| Entry::Folder(folder, 0o755)).collect();
    entries.push(Entry::File("bin/probe", 0o755, &program));
    let layer = oci::layer(&entries).context("pack the probe's layer")?;
    let folder = workspace.target.join("image/oci/probe");
    oci::write(&folder, &layer, Some(PROGRAM)).context("write the probe's image")
}

/// A lease of one core that runs the probe with these arguments, once.
pub(crate) fn lease(tenant: &str, name: &str, memory: &str, arguments: &[&str]) -> Value {
    json!({
        "apiVersion": API_VERSION,
        "kind": "Lease",
        "metadata": { "name": name, "tenant": tenant },
        "spec": {
            "instance": "container",
            "cpus": 1,
            "memory": memory,
            "workload": {
                "image": "oci://bulkhead.site/probe:latest",
                "args": arguments,
                "restart": "never",
            },
        },
    })
}

/// `TENANT/LEASE`.
pub(crate) fn id(text: &str) -> Result<LeaseId> {
    let (tenant, name) = text.split_once('/').context("an id without a slash")?;
    Ok(LeaseId { tenant: tenant.parse()?, name: name.parse()? })
}

/// The directory of a lease on its host.
pub(crate) fn folder(id: &LeaseId) -> String {
    format!("/var/lib/bulkhead/leases/{}/{}", id.tenant, id.name)
}

/// The probe's program on the host, for those who run it without a lease.
pub(crate) fn program(id: &LeaseId) -> String {
    format!("{}/rootfs{PROGRAM}", folder(id))
}

/// What a probe said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    /// Whether any attempt got through.
    pub(crate) succeeded: bool,
    /// Which, or why none.
    pub(crate) detail: String,
}

/// The reports in a text, by name of the probe.
pub(crate) fn reports(text: &str) -> BTreeMap<String, Said> {
    let read = |line: &str| {
        let mut words = line.strip_prefix("PROBE ")?.splitn(3, ' ');
        let (name, result) = (words.next()?, words.next()?);
        let succeeded = match result {
            "SUCCEEDED" => true,
            "refused" => false,
            _ => return None,
        };
        let detail = words.next().unwrap_or_default().to_owned();
        Some((name.to_owned(), Said { succeeded, detail }))
    };
    text.lines().filter_map(read).collect()
}

/// Waits until a lease's console says `word`, and gives all of it.
pub(crate) fn console(
    guest: &mut Guest,
    id: &LeaseId,
    word: &str,
    limit: Duration,
) -> Result<String> {
    let log = format!("{}/console.log", folder(id));
    let mut last = String::new();
    let found = until(&format!("{word:?} on the console of {id}"), limit, || {
        last = guest.ask(&format!("cat {log}"))?.text;
        Ok(last.contains(word).then(|| last.clone()))
    });
    found.with_context(|| last)
}

/// Runs the probe on the host itself, `before` in front of it, and gives its report.
pub(crate) fn outside(guest: &mut Guest, before: &str, program: &str, name: &str) -> Result<Said> {
    let answer = guest.ask(&format!("{before} {program} {name}"))?;
    let said = reports(&answer.text).into_values().next();
    ensure!(answer.status == 0, "probe {name}: status {}: {}", answer.status, answer.text);
    said.with_context(|| format!("probe {name}: {}", answer.text))
}
