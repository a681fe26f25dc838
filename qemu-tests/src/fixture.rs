//! What the tests start from: a fleet whose one host has joined and runs a lease, saved once, resumed by each.
//!
//! ```text
//!  base()   fleet ─► direct boot ─► joined ─► lease demo/base Running ─► savevm, programs killed, key written
//!  scene()  copy of the fleet's state and the server's disks ─► programs ─► resumed server ─► clock set ─► test
//! ```
//!
//! The base is made by the first test that needs it and kept as long as image and programs stay the same.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use bulkhead_api::document::{API_VERSION, Host, HostPhase, Lease};
use bulkhead_api::id::{HostId, LeaseId, MacAddr};
use bulkhead_api::lease::LeasePhase;
use bulkhead_api::status::HostStatus;
use serde_json::{Value, json};

use crate::artifacts::{Tools, Workspace};
use crate::fleet::{Fleet, Layers, Running};
use crate::guest::Guest;
use crate::net::{self, LabNet};
use crate::qemu::Qemu;
use crate::timeline::JOINED_SIGN;
use crate::vm::{DirectBoot, Lab, Lane, Lifetime, Vm, VmConfig};

/// Test programs' namespaces: with their process id behind it.
const NAMESPACE: &str = "bht-";
/// What a fleet's programs keep.
const FLEET: [&str; 3] = ["registry", "site", "join-ticket"];
/// Extension layers of the tests' servers.
const LAYERS: [&str; 2] = ["test", "vm"];
/// Name of the saved state.
const STATE: &str = "running";
/// A boot by the direct lane takes a quarter of a minute on a quiet machine under emulation.
pub const BOOT: Duration = Duration::from_secs(180);
/// What is a matter of seconds on a quiet machine.
pub const SOON: Duration = Duration::from_secs(60);

/// The server of the base: two sockets of two cores, an SR-IOV NIC and an IOMMU.
#[must_use]
pub fn server() -> VmConfig {
    VmConfig {
        lane: Lane::Direct,
        igb: true,
        iommu: true,
        snapshots: true,
        shell: true,
        ..VmConfig::numbered(0)
    }
}

/// A document of a tenant.
#[must_use]
pub fn tenant(name: &str) -> Value {
    json!({ "apiVersion": API_VERSION, "kind": "Tenant", "metadata": { "name": name } })
}

/// A document of a lease of tenant `demo` that runs the demo image.
#[must_use]
pub fn lease(name: &str, cpus: u32, memory: &str) -> Value {
    json!({
        "apiVersion": API_VERSION,
        "kind": "Lease",
        "metadata": { "name": name, "tenant": "demo" },
        "spec": {
            "instance": "container",
            "cpus": cpus,
            "memory": memory,
            "workload": { "image": "oci://bulkhead.site/demo:latest" },
        },
    })
}

/// Asks until there is an answer.
///
/// # Errors
/// `ask` fails, or there is no answer within `limit`.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut ask: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(answer) = ask().with_context(|| what.to_owned())? {
            return Ok(answer);
        }
        ensure!(Instant::now() < end, "{what}: not within {} s", limit.as_secs());
        sleep(Duration::from_millis(250));
    }
}

/// A fleet's programs, its network and what its servers need; lives as long as a test.
#[derive(Debug)]
pub struct Scene<'a> {
    /// The programs.
    pub running: Running<'a>,
    /// What servers share.
    pub lab: Lab<'a>,
}

impl Scene<'_> {
    /// The folder of a server.
    #[must_use]
    pub fn host_dir(&self, number: u8) -> PathBuf {
        self.running.fleet.dir.join("hosts").join(number.to_string())
    }

    /// Switches a server on.
    ///
    /// # Errors
    /// See [`Vm::power_on`].
    pub fn power_on(&self, config: &VmConfig, number: u8) -> Result<Vm> {
        Vm::power_on(config, self.lab, &self.host_dir(number), Lifetime::Scoped)
    }

    /// The host with a boot NIC of that address, or the machine that never became one.
    ///
    /// # Errors
    /// The registry does not answer.
    pub fn host(&self, mac: MacAddr) -> Result<Option<Host>> {
        Ok(self.running.hosts()?.into_iter().find(|host| host.spec.mac == mac))
    }

    /// Waits until the host is Ready by a report that came after this call began.
    ///
    /// # Errors
    /// It is not within `limit`: then with its last state.
    pub fn await_ready(&self, mac: MacAddr, limit: Duration) -> Result<Host> {
        let begun = SystemTime::now();
        until("host Ready", limit, || {
            let host = self.host(mac)?;
            Ok(host.filter(|host| {
                let fresh =
                    host.status.last_seen.is_some_and(|seen| SystemTime::from(seen) >= begun);
                host.status.phase == HostPhase::Ready && fresh
            }))
        })
    }

    /// The lease of tenant `demo`, if the registry knows it.
    ///
    /// # Errors
    /// The registry does not answer.
    pub fn lease(&self, name: &str) -> Result<Option<Lease>> {
        let leases = self.running.leases()?;
        Ok(leases.into_iter().find(|lease| lease.metadata.name.as_str() == name))
    }

    /// Waits until the lease of tenant `demo` is in a phase.
    ///
    /// # Errors
    /// It is not within `limit`: then with what the command line says of it.
    pub fn await_phase(&self, name: &str, phase: LeasePhase, limit: Duration) -> Result<Lease> {
        let found = until(&format!("lease {name} {phase:?}"), limit, || {
            let lease = self.lease(name)?;
            Ok(lease.filter(|l| l.status.as_ref().is_some_and(|status| status.phase == phase)))
        });
        found.with_context(|| {
            let said = self.running.bulkhead(["describe", "lease", &format!("demo/{name}")]);
            said.unwrap_or_else(|error| format!("{error:#}"))
        })
    }
}

/// A scene's resumed server.
#[derive(Debug)]
pub struct Resumed {
    /// The server.
    pub vm: Vm,
    /// Its command channel.
    pub guest: Guest,
    /// The host that it is.
    pub host: HostId,
}

impl Resumed {
    /// What the supervisor says of its host, asked on its own socket.
    ///
    /// # Errors
    /// The supervisor does not answer.
    pub fn status(&mut self) -> Result<HostStatus> {
        let text = self.guest.run("bulkhead host status -o json")?;
        serde_json::from_str(&text).with_context(|| format!("read host status {text}"))
    }

    /// Whether the supervisor reports the lease in a phase.
    ///
    /// # Errors
    /// The supervisor does not answer.
    pub fn lease_is(&mut self, id: &LeaseId, phase: LeasePhase) -> Result<bool> {
        let status = self.status()?;
        Ok(status.leases.iter().any(|lease| lease.id == *id && lease.status.phase == phase))
    }
}

/// Runs a test on a copy of the base's fleet; its host is off.
///
/// # Errors
/// The fleet does not come up, or the test's own.
pub fn dark_scene(name: &str, test: impl FnOnce(&mut Scene<'_>) -> Result<()>) -> Result<()> {
    let workspace = Workspace::find()?;
    let base = base(&workspace)?;
    scene_in(&workspace, &base, name, &FLEET, test)
}

/// Runs a test on a copy of the base: its host has joined and runs the lease `demo/base`.
///
/// # Errors
/// The base cannot be made or resumed, or the test's own.
pub fn scene(
    name: &str,
    test: impl FnOnce(&mut Scene<'_>, &mut Resumed) -> Result<()>,
) -> Result<()> {
    let workspace = Workspace::find()?;
    let base = base(&workspace)?;
    let [registry, site, ticket] = FLEET;
    scene_in(&workspace, &base, name, &[registry, site, ticket, "hosts"], |scene| {
        let vm = Vm::resume(&server(), scene.lab, &scene.host_dir(0), STATE)?;
        let begun = Instant::now();
        let mut guest = vm.guest(BOOT)?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("clock")?;
        guest.run(&format!("date -s @{} > /dev/null", now.as_secs()))?;
        let host = scene.await_ready(server().mac, SOON)?.metadata.name;
        println!("resumed and Ready in {:.1} s", begun.elapsed().as_secs_f64());
        test(scene, &mut Resumed { vm, guest, host })
    })
}

fn scene_in(
    workspace: &Workspace,
    base: &Path,
    name: &str,
    parts: &[&str],
    test: impl FnOnce(&mut Scene<'_>) -> Result<()>,
) -> Result<()> {
    let dir = folder(workspace).join(name);
    remove(&dir)?;
    fs::create_dir_all(dir.join("logs")).context("make the test's folder")?;
    for part in parts {
        copy(&base.join(part), &dir.join(part))?;
    }
    std::os::unix::fs::symlink(base.join("image"), dir.join("image")).context("link the image")?;
    let fleet = Fleet::at(workspace, &dir, &LAYERS)?;
    let done = in_fleet(&fleet, test);
    match &done {
        Ok(()) => remove(&dir)?,
        Err(_) => eprintln!("logs and consoles are kept in {}", dir.display()),
    }
    done
}

/// Brings a fleet's programs up in a namespace of this process and runs `work` with them.
fn in_fleet<T>(fleet: &Fleet, work: impl FnOnce(&mut Scene<'_>) -> Result<T>) -> Result<T> {
    fleet.configure()?;
    net::sweep(NAMESPACE)?;
    let net = LabNet::create(&format!("{NAMESPACE}{}", std::process::id()), 2)?;
    let tools = fleet.tools();
    let direct = fleet.direct_boot()?;
    let qemu = Qemu::find(&tools, &direct.kernel, &fleet.cache()?)?;
    let running = Running::start(fleet, &net, Lifetime::Scoped)?;
    let mut scene = Scene { running, lab: lab(&qemu, &tools, &net, &direct) };
    work(&mut scene)
}

fn lab<'a>(qemu: &'a Qemu, tools: &'a Tools, net: &'a LabNet, direct: &'a DirectBoot) -> Lab<'a> {
    Lab { qemu, tools, net, direct: Some(direct) }
}

fn folder(workspace: &Workspace) -> PathBuf {
    workspace.target.join("lab-tests")
}

/// The folder of the base, made now if it is missing or of another image or other programs.
fn base(workspace: &Workspace) -> Result<PathBuf> {
    let tests = folder(workspace);
    fs::create_dir_all(&tests).context("make the tests' folder")?;
    let guard = File::create(tests.join("lock")).context("make the tests' lock")?;
    guard.lock().context("wait for the tests' lock")?;
    let base = tests.join("base");
    let key_file = base.join("key");
    let fleet = Fleet::at(workspace, &base, &LAYERS)?;
    // The fleet's keys stay, so that what of the image depends on them is built once.
    fleet.init()?;
    let output = fleet.image_build(Layers::Test)?.run()?;
    let key = key(workspace, &fleet)?;
    if fs::read_to_string(&key_file).is_ok_and(|kept| kept == key) {
        return Ok(base);
    }
    for part in ["key", "site", "join-ticket", "hosts", "logs"] {
        remove(&base.join(part))?;
    }
    for part in ["registry.db", "registry.db-wal", "registry.db-shm"] {
        remove(&fleet.registry().join(part))?;
    }
    fs::create_dir_all(base.join("logs")).context("make the base's folder")?;
    in_fleet(&fleet, make_base).with_context(|| {
        format!("make the base of the tests in {}; the image: {output}", base.display())
    })?;
    fs::write(&key_file, key).context("write the base's key")?;
    Ok(base)
}

fn make_base(scene: &mut Scene<'_>) -> Result<()> {
    let config = server();
    let mut vm = scene.power_on(&config, 0)?;
    vm.wait_for(JOINED_SIGN, BOOT)?;
    scene.await_ready(config.mac, SOON).with_context(|| vm.last_words())?;
    scene.running.apply(&tenant("demo"))?;
    scene.running.apply(&lease("base", 1, "128Mi"))?;
    scene.await_phase("base", LeasePhase::Running, SOON).with_context(|| vm.last_words())?;
    vm.guest(SOON)?.run("true")?;
    vm.save(STATE)?;
    vm.cut_power();
    Ok(())
}

/// Changes with everything that the base is made of.
fn key(workspace: &Workspace, fleet: &Fleet) -> Result<String> {
    let mut key = fs::read_to_string(fleet.served().join("image.json")).context("read manifest")?;
    for program in ["bulkhead-registry", "bulkhead-site", "bulkhead", "bulkhead-lab"] {
        let path = workspace.program(program)?;
        let about = fs::metadata(&path).with_context(|| format!("look at {}", path.display()))?;
        let modified = about.modified()?.duration_since(SystemTime::UNIX_EPOCH)?.as_nanos();
        key += &format!("\n{program} {} {modified}", about.len());
    }
    Ok(key)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let copied = crate::cmd::Cmd::new("cp").args(["-a", "--reflink=auto"]).arg(from).arg(to).run();
    copied.map(drop).with_context(|| format!("copy {}", from.display()))
}

fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
