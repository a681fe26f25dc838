//! What is left in the server's memory of a tenant that is gone: looked for in all of it, from outside.

use std::fs::{self, File};
use std::io::Read as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bulkhead_api::lease::LeasePhase;
use bulkhead_api::local::Ledger;
use bulkhead_api::resource::Resource;
use bulkhead_qemu_tests::artifacts::Workspace;
use bulkhead_qemu_tests::cmd::Cmd;
use bulkhead_qemu_tests::fixture::{BOOT, SOON, Scene, dark_scene, scene, server, tenant, until};
use bulkhead_qemu_tests::guest::Guest;
use bulkhead_qemu_tests::timeline::JOINED_SIGN;
use bulkhead_qemu_tests::vm::{DirectBoot, Lab, Lane, Lifetime, Vm, VmConfig};
use serde_json::json;

use super::probe;

/// Memory that the tenant writes to, MiB.
const WRITTEN: &str = "48";
const GONE: Duration = Duration::from_secs(90);

/// 32 random bytes. In documents and on consoles they are digits, so that only the tenant's memory holds them as bytes.
fn marker() -> Result<([u8; 32], String)> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let digits = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((bytes, digits))
}

/// How often the marker is in the server's memory: all of it lies below 4 GiB in one piece.
fn markers(vm: &Vm, marker: &[u8; 32]) -> Result<usize> {
    let file = vm.dir().join("memory");
    let size = u64::from(vm.config().memory_mib) << 20;
    let arguments = json!({ "val": 0, "size": size, "filename": file });
    vm.monitor()?.command("pmemsave", &arguments)?;
    let mut memory = File::open(&file).context("open the server's memory")?;
    let (mut block, mut found) = (vec![0; 4 << 20], 0);
    loop {
        let count = memory.read(&mut block).context("read the server's memory")?;
        if count == 0 {
            break;
        }
        found += block[..count].chunks_exact(32).filter(|chunk| chunk == marker).count();
    }
    fs::remove_file(&file).context("remove the server's memory")?;
    Ok(found)
}

/// Runs a lease that writes the marker, ends it, and gives how often the marker is there before and after.
fn written_and_left(scene: &Scene<'_>, vm: &Vm, guest: &mut Guest) -> Result<([usize; 2], String)> {
    let (bytes, digits) = marker()?;
    let writer = probe::id("rival/writer")?;
    scene.running.apply(&tenant("rival"))?;
    scene.running.apply(&probe::lease("rival", "writer", "128Mi", &["mark", &digits, WRITTEN]))?;
    let lease = scene.await_phase("writer", LeasePhase::Running, SOON)?;
    let pid = lease.status.and_then(|status| status.pid).context("the writer's process")?;
    probe::console(guest, &writer, "PROBE mark done", SOON)?;
    let before = markers(vm, &bytes)?;
    scene.running.bulkhead(["delete", "lease", "rival/writer"])?;
    until("the writer's end", GONE, || {
        let left = format!(
            "test -e /proc/{pid} && echo process; ls -d /sys/fs/cgroup/tenant.slice/*writer* {} 2>/dev/null; true",
            probe::folder(&writer)
        );
        Ok(guest.run(&left)?.is_empty().then_some(()))
    })?;
    let after = markers(vm, &bytes)?;
    println!("markers in the server's memory: {before} while the lease ran, {after} after it");
    Ok(([before, after], digits))
}

/// With the guard nothing is left, and without it all of it may be.
pub(crate) fn test() -> Result<()> {
    scene("remains", |scene, host| {
        let ([before, after], digits) = written_and_left(scene, &host.vm, &mut host.guest)?;
        ensure!(before > (48 << 20) / 32, "the search does not find what is there: {before}");
        ensure!(after == 0, "{after} markers are left in memory");
        until("the writer forgotten", GONE, || Ok(scene.lease("writer")?.is_none().then_some(())))?;
        // And as the next tenant sees it.
        let next = probe::id("demo/next")?;
        scene.running.apply(&probe::lease("demo", "next", "128Mi", &["scan", &digits, "110"]))?;
        let text = probe::console(&mut host.guest, &next, "PROBE scan", SOON)?;
        println!("{text}");
        let said = probe::reports(&text).remove("scan").context("the scan's report")?;
        ensure!(!said.succeeded, "{}", said.detail);
        ensure!(!said.detail.ends_with(" 0"), "the scanner finds nothing at all: {}", said.detail);
        Ok(())
    })?;
    dark_scene("remains-unguarded", |scene| {
        let direct = unguarded(scene)?;
        let lab = Lab { direct: Some(&direct), ..scene.lab };
        let config = VmConfig { lane: Lane::Direct, snapshots: false, ..server() };
        let mut vm = Vm::power_on(&config, lab, &scene.host_dir(0), Lifetime::Scoped)?;
        vm.wait_for(JOINED_SIGN, BOOT)?;
        scene.await_ready(config.mac, SOON)?;
        let mut guest = vm.guest(SOON)?;
        let ([_, after], _) = written_and_left(scene, &vm, &mut guest)?;
        ensure!(after > 1000, "only {after} markers are left without the guard: it proves nothing");
        // Law 3: what was not sanitised is not given out again, and that is said.
        let said = until("a reason why the memory is kept", GONE, || {
            let status = guest.run("bulkhead host status -o json")?;
            let at = status.find("init_on_free off");
            Ok(at.map(|at| status.get(at..at + 120).unwrap_or_default().to_owned()))
        })?;
        println!("kept, as the kernel's command line has {said}");
        let ledger: Ledger = serde_json::from_str(&guest.run("bulkhead host ledger -o json")?)?;
        let mut held = ledger.entries.iter().flat_map(|entry| &entry.resources);
        let memory = |resource: &Resource| matches!(resource, Resource::Memory { .. });
        let kept = held.any(|held| memory(&held.resource) && !held.clean)
            || ledger.quarantine.iter().any(|kept| memory(&kept.resource));
        ensure!(kept, "memory that is not zeroed is given out again: {ledger:?}");
        Ok(())
    })
}

/// The same image with a stage 1 that takes any command line, and a kernel that zeroes no page that is given back.
fn unguarded(scene: &Scene<'_>) -> Result<DirectBoot> {
    let (workspace, fleet) = (Workspace::find()?, scene.running.fleet);
    let boot = fleet.dir.join("unguarded");
    Cmd::new(workspace.program("bulkhead-image")?)
        .args(["build", "--test-layer", "--any-cmdline", "--repo"])
        .arg(&workspace.root)
        .arg("--out")
        .arg(fleet.image())
        .arg("--trust")
        .arg(fleet.registry().join("trust"))
        .arg("--boot")
        .arg(&boot)
        .run()?;
    let direct = fleet.direct_boot()?;
    let cmdline = direct.cmdline.replace("init_on_free=1", "init_on_free=0 init_on_alloc=0");
    ensure!(cmdline != direct.cmdline, "the command line has no init_on_free=1: {cmdline}");
    Ok(DirectBoot { initrd: boot.join("stage1.initrd"), cmdline, ..direct })
}
