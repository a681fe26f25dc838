//! `up`: from nothing to the running leases of two tenants, a container and a virtual machine.
//!
//! ```text
//!  fleet (keys) ─► image with its trust ─► namespace ─► signer, registry, site ─► servers powered on
//!     ─► joined ─► Ready ─► tenants and leases applied ─► Running ─► tables, what to try next
//! ```

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bulkhead_api::document::{API_VERSION, HostPhase};
use bulkhead_api::lease::LeasePhase;
use serde_json::{Value, json};

use super::state::{NamedProcess, UpState};
use super::table;
use crate::artifacts::Workspace;
use crate::fleet::{Fleet, Layers, Running};
use crate::net::LabNet;
use crate::qemu::Qemu;
use crate::timeline::{self, JOINED, Mark};
use crate::vm::{Lab, Lane, Lifetime, Vm, VmConfig};

/// The namespace of `up`: one site a machine.
const NAMESPACE: &str = "bulkhead-up";
/// A boot takes half a minute on a quiet machine under emulation.
const BOOT: Duration = Duration::from_secs(240);
/// From joined to a running container: seconds.
const GRANT: Duration = Duration::from_secs(90);

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// Servers, 1..=16.
    pub hosts: u8,
    /// How they boot.
    pub lane: Lane,
    /// Secure Boot with keys of this checkout.
    pub secure_boot: bool,
}

/// Prints how long a step took.
fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let begun = Instant::now();
    println!("up: {name}");
    let done = work().with_context(|| name.to_owned())?;
    println!("up: {name}: {:.1} s", begun.elapsed().as_secs_f64());
    Ok(done)
}

/// Starts the site and leaves it running.
///
/// # Errors
/// The first step that fails; then nothing runs any more, and the folder keeps the logs.
pub fn up(workspace: &Workspace, wish: Wish) -> Result<()> {
    ensure!((1..=16).contains(&wish.hosts), "--hosts {}: expected 1 to 16", wish.hosts);
    let begun = Instant::now();
    let dir = super::folder(workspace);
    if UpState::load(&dir)?.is_some() {
        println!("up: ends the site that an earlier `up` started");
    }
    super::down(workspace)?;
    let fleet = Fleet::at(workspace, &dir, &["vm"])?;
    step("keys of the fleet", || fleet.init())?;
    step("image", || {
        let code = fleet.image_build(Layers::Product)?.pass_through()?;
        ensure!(code == 0, "the image was not built");
        fleet.configure()
    })?;
    let mut state = UpState {
        namespace: NAMESPACE.to_owned(),
        extensions: fleet.extensions.clone(),
        processes: Vec::new(),
    };
    state.save(&dir)?;
    let net = LabNet::create(NAMESPACE, usize::from(wish.hosts))?;
    let running = step("registry and site", || Running::start(&fleet, &net, Lifetime::Lasting))?;
    let hosts = servers(&fleet, &net, wish, &dir)?;
    let joined = serve(running, hosts, &mut state, &dir)?;
    let mut net = net;
    net.keep();
    println!("\n{}\n", phases(&joined));
    println!("up in {:.0} s. Now try:", begun.elapsed().as_secs_f64());
    for (command, what) in NEXT {
        println!("  {command:<64} {what}");
    }
    Ok(())
}

const NEXT: [(&str, &str); 9] = [
    ("cargo xtask cli -- get hosts", "every machine that the site has seen"),
    ("cargo xtask cli -- describe lease demo/demo", "what the lease holds, and why it is so"),
    ("cargo xtask cli -- logs demo/demo", "what the tenant's program printed"),
    ("cargo xtask cli -- logs acme/guest", "the console of a tenant's virtual machine"),
    ("cargo xtask cli -- apply -f examples/lease.yaml", "one more lease"),
    ("cargo xtask cli -- delete lease demo/demo --wait", "taken back, observed gone"),
    (
        "cargo xtask cli -- host prove --host lab-01-000900",
        "that leases share nothing, signed by the host",
    ),
    (
        "cargo xtask cli -- host receipts --host lab-01-000900",
        "what was erased of leases that are gone, and how",
    ),
    ("cargo xtask down", "ends everything, leaves nothing behind"),
];

/// A server and the marks of its boot.
struct Booted {
    name: String,
    vm: Vm,
    marks: Vec<Mark>,
}

/// Powers the servers on, all at once.
fn servers(fleet: &Fleet, net: &LabNet, wish: Wish, dir: &Path) -> Result<Vec<Booted>> {
    let tools = fleet.tools();
    let direct = fleet.direct_boot()?;
    let cache = fleet.cache()?;
    let qemu = step("trial of KVM", || Qemu::find(&tools, &direct.kernel, &cache))?;
    println!("up: servers run by {:?}", qemu.accel);
    let lab = Lab { qemu: &qemu, tools: &tools, net, direct: Some(&direct) };
    (0..wish.hosts)
        .map(|number| {
            let config = VmConfig {
                lane: wish.lane,
                secure_boot: wish.secure_boot,
                igb: true,
                iommu: true,
                ..VmConfig::numbered(number)
            };
            let name = format!("host {number}");
            let folder = dir.join("hosts").join(number.to_string());
            let vm = Vm::power_on(&config, lab, &folder, Lifetime::Lasting)
                .with_context(|| format!("power on {name}"))?;
            println!("up: {name} powered on, console {}", folder.join("console.log").display());
            Ok(Booted { name, vm, marks: Vec::new() })
        })
        .collect()
}

/// Sees the servers through to a running lease, then lets everything run on.
fn serve(
    mut running: Running<'_>,
    mut hosts: Vec<Booted>,
    state: &mut UpState,
    dir: &Path,
) -> Result<Vec<(String, Vec<Mark>)>> {
    // Known to `down` from the first moment on, so that an `up` that is cut off leaves nothing behind.
    let programs = running.processes();
    let named = |name: &str, id| NamedProcess { name: name.to_owned(), id };
    state.processes = programs.into_iter().map(|(name, id)| named(name, id)).collect();
    state.processes.extend(hosts.iter().map(|host| named(&host.name, host.vm.process())));
    state.save(dir)?;

    await_joined(&mut running, &mut hosts)?;
    until("every host Ready", GRANT, || {
        let known = running.hosts()?;
        Ok(known.iter().filter(|host| host.status.phase == HostPhase::Ready).count() >= hosts.len())
    })?;
    for (tenant, name, lease) in leases() {
        running.apply(&document("Tenant", &json!({ "name": tenant }), None))?;
        running.apply(&document(
            "Lease",
            &json!({ "name": name, "tenant": tenant }),
            Some(lease),
        ))?;
    }
    for (tenant, name, _) in leases() {
        let id = format!("{tenant}/{name}");
        until(&format!("lease {id} Running"), GRANT, || runs(&running, tenant, name))
            .with_context(|| {
                running.bulkhead(["describe", "lease", &id]).unwrap_or_else(|e| e.to_string())
            })?;
    }
    println!("\n{}", running.bulkhead(["get", "hosts"])?.trim_end());
    println!("\n{}", running.bulkhead(["get", "leases"])?.trim_end());
    running.let_run();
    let done = hosts.into_iter().map(|host| {
        host.vm.let_run();
        (host.name, host.marks)
    });
    Ok(done.collect())
}

fn await_joined(running: &mut Running<'_>, hosts: &mut [Booted]) -> Result<()> {
    let until = Instant::now() + BOOT;
    loop {
        let mut waiting = None;
        for host in &mut *hosts {
            host.vm.watch()?;
            let marks = timeline::marks(host.vm.console().lines());
            for mark in marks.iter().skip(host.marks.len()) {
                println!("up: {}: {} at {:.1} s", host.name, mark.phase, mark.at.as_secs_f64());
            }
            host.marks = marks;
            if timeline::find(&host.marks, JOINED).is_none() {
                ensure!(host.vm.runs(), "{} went off\n{}", host.name, host.vm.last_words());
                waiting = Some(host);
            }
        }
        if let Some(fallen) = running.fallen() {
            bail!("{fallen}");
        }
        match waiting {
            None => return Ok(()),
            Some(host) if Instant::now() > until => {
                let seconds = BOOT.as_secs();
                bail!("{} has not joined within {seconds} s\n{}", host.name, host.vm.last_words());
            }
            Some(_) => sleep(Duration::from_millis(20)),
        }
    }
}

/// The leases of a fresh site: tenant, name, what is asked for.
fn leases() -> [(&'static str, &'static str, Value); 2] {
    let lease = |instance: &str, memory: &str, image: &str| {
        let image = format!("oci://bulkhead.site/{image}:latest");
        json!({ "instance": instance, "cpus": 1, "memory": memory, "workload": { "image": image } })
    };
    [
        ("demo", "demo", lease("container", "256Mi", "demo")),
        ("acme", "guest", lease("vm", "128Mi", "demo-vm")),
    ]
}

fn document(kind: &str, metadata: &Value, spec: Option<Value>) -> Value {
    let mut document = json!({ "apiVersion": API_VERSION, "kind": kind, "metadata": metadata });
    if let (Some(spec), Some(document)) = (spec, document.as_object_mut()) {
        document.insert("spec".to_owned(), spec);
    }
    document
}

fn runs(running: &Running<'_>, tenant: &str, name: &str) -> Result<bool> {
    let leases = running.leases()?;
    Ok(leases.iter().any(|lease| {
        let at = &lease.metadata;
        let running = lease.status.as_ref().is_some_and(|s| s.phase == LeasePhase::Running);
        at.tenant.as_str() == tenant && at.name.as_str() == name && running
    }))
}

/// Asks every half second until the answer is yes.
fn until(what: &str, limit: Duration, ask: impl Fn() -> Result<bool>) -> Result<()> {
    step(what, || {
        let end = Instant::now() + limit;
        while !ask()? {
            ensure!(Instant::now() < end, "not within {} s", limit.as_secs());
            sleep(Duration::from_millis(500));
        }
        Ok(())
    })
}

/// The time of each phase since power-on, a column a host.
fn phases(hosts: &[(String, Vec<Mark>)]) -> String {
    let names = hosts.iter().map(|(name, _)| format!("{name}, s"));
    let header: Vec<String> = std::iter::once("phase".to_owned()).chain(names).collect();
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let first = hosts.first().map(|(_, marks)| marks.as_slice()).unwrap_or_default();
    let rows: Vec<Vec<String>> = first
        .iter()
        .map(|mark| {
            let times = hosts.iter().map(|(_, marks)| match timeline::find(marks, mark.phase) {
                Some(mark) => format!("{:.1}", mark.at.as_secs_f64()),
                None => "-".to_owned(),
            });
            std::iter::once(mark.phase.to_owned()).chain(times).collect()
        })
        .collect();
    table::render(&header, &rows)
}
