//! Programs killed, power cut, tickets and identities misused: what runs goes on, what is wrong is refused and seen.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bulkhead_api::condition::{self, Truth};
use bulkhead_api::document::HostPhase;
use bulkhead_api::lease::{LeasePhase, LeaseStatus};
use bulkhead_qemu_tests::fixture::{
    BOOT, Resumed, SOON, Scene, dark_scene, lease, scene, server, until,
};
use bulkhead_qemu_tests::fleet::Program;
use bulkhead_qemu_tests::timeline::{JOINED_SIGN, READY_SIGN};
use bulkhead_qemu_tests::vm::{Lane, VmConfig};
use serde_json::{Value, json};

fn base(scene: &Scene<'_>) -> Result<LeaseStatus> {
    Ok(scene.lease("base")?.unwrap().status.unwrap())
}

/// The tenant's process as the kernel knows it: id and start time.
fn process(host: &mut Resumed, pid: u32) -> Result<String> {
    host.guest.run(&format!("cut -d' ' -f1,22 /proc/{pid}/stat"))
}

#[test]
fn a_registry_that_is_killed_and_restarted_changes_nothing_on_the_host() -> Result<()> {
    scene("fault-registry", |scene, host| {
        let before = base(scene)?;
        let process_before = process(host, before.pid.unwrap())?;
        scene.running.kill_program(Program::Registry);
        sleep(Duration::from_secs(3));
        let alone = host.status()?;
        assert_eq!(alone.leases.len(), 1, "{alone:?}");
        scene.running.start_program(Program::Registry)?;
        scene.await_ready(server().mac, SOON)?;
        let after = base(scene)?;
        assert_eq!((after.pid, after.starts), (before.pid, before.starts));
        assert_eq!(process(host, before.pid.unwrap())?, process_before);
        // And it takes orders again.
        scene.running.apply(&lease("next", 1, "64Mi"))?;
        scene.await_phase("next", LeasePhase::Running, SOON)?;
        Ok(())
    })
}

#[test]
fn a_supervisor_that_is_killed_finds_its_leases_again_and_starts_none_twice() -> Result<()> {
    scene("fault-supervisor", |scene, host| {
        let before = base(scene)?;
        let process_before = process(host, before.pid.unwrap())?;
        let old = host.guest.run("systemctl show -P MainPID bulkheadd")?;
        host.guest.run("systemctl kill -s KILL --kill-whom=main bulkheadd")?;
        until("a new supervisor", SOON, || {
            let new = host.guest.run("systemctl show -P MainPID bulkheadd")?;
            Ok((new != "0" && new != old).then_some(()))
        })?;
        scene.await_ready(server().mac, SOON)?;
        let after = scene.await_phase("base", LeasePhase::Running, SOON)?.status.unwrap();
        assert_eq!((after.pid, after.starts), (before.pid, before.starts));
        assert_eq!(process(host, before.pid.unwrap())?, process_before);
        let runs = host.guest.run("pgrep -c -f 'demo-tenant|/bin/demo' || true")?;
        assert_eq!(runs.lines().last(), Some("1"), "programs of the tenant");
        Ok(())
    })
}

#[test]
fn a_power_cut_during_a_grant_leaves_a_host_that_converges_after_its_next_boot() -> Result<()> {
    dark_scene("fault-power", |scene| {
        let config = VmConfig { lane: Lane::Direct, ..server() };
        let mut vm = scene.power_on(&config, 0)?;
        vm.wait_for(JOINED_SIGN, BOOT)?;
        scene.await_phase("base", LeasePhase::Running, SOON)?;
        scene.running.apply(&lease("cut", 2, "128Mi"))?;
        until("the grant under way", SOON, || {
            let begun = scene.lease("cut")?.and_then(|lease| lease.status);
            Ok(begun.filter(|status| status.phase != LeasePhase::Pending))
        })?;
        vm.cut_power();

        let mut vm = scene.power_on(&config, 0)?;
        vm.wait_for(JOINED_SIGN, BOOT)?;
        scene.await_ready(config.mac, SOON)?;
        for name in ["base", "cut"] {
            scene.await_phase(name, LeasePhase::Running, SOON)?;
        }
        let held = |name| -> Result<_> {
            Ok(scene.lease(name)?.unwrap().status.unwrap().holding.unwrap().cpus)
        };
        assert!(held("base")?.is_disjoint(&held("cut")?));
        let host = scene.host(config.mac)?.unwrap();
        let reported = host.status.reported.unwrap();
        assert_eq!(reported.settled_generation, host.status.generation);
        Ok(())
    })
}

#[test]
fn a_host_boots_while_the_registry_is_away_and_joins_when_it_is_back() -> Result<()> {
    dark_scene("fault-wan", |scene| {
        scene.running.kill_program(Program::Registry);
        let config = VmConfig { lane: Lane::Direct, ..server() };
        let mut vm = scene.power_on(&config, 0)?;
        vm.wait_for(READY_SIGN, BOOT)?;
        sleep(Duration::from_secs(3));
        vm.watch()?;
        assert!(vm.console().lines().iter().all(|line| !line.text.contains(JOINED_SIGN)));
        scene.running.start_program(Program::Registry)?;
        vm.wait_for(JOINED_SIGN, SOON)?;
        scene.await_phase("base", LeasePhase::Running, SOON)?;
        Ok(())
    })
}

#[test]
fn a_second_machine_with_the_same_uuid_gets_no_boot_file_and_is_seen() -> Result<()> {
    dark_scene("fault-uuid", |scene| {
        let twin = VmConfig { lane: Lane::Direct, uuid: server().uuid, ..VmConfig::numbered(1) };
        let _vm = scene.power_on(&twin, 1)?;
        let host = until("the twin in the list of hosts", BOOT, || scene.host(twin.mac))?;
        assert_eq!(host.status.phase, HostPhase::Quarantined, "{host:?}");
        assert!(host.status.reason.contains(&server().mac.to_string()), "{}", host.status.reason);
        let table = scene.running.bulkhead(["get", "hosts"])?;
        assert!(table.contains("Quarantined"), "{table}");
        Ok(())
    })
}

/// Makes the host forget its identity and show `ticket`, then gives the refusal that it reports.
fn enrol_again(host: &mut Resumed, ticket: &str) -> Result<String> {
    host.guest.run("systemctl stop bulkheadd; rm -rf /run/bulkhead/identity")?;
    let swap = format!(
        r#"sed -i 's/"ticket":"[^"]*"/"ticket":"{ticket}"/' /run/bulkhead/boot.json; systemctl start bulkheadd"#
    );
    host.guest.run(&swap)?;
    until("a refused enrolment", SOON, || {
        let status = host.status()?;
        let connected = condition::find(&status.conditions, "Connected");
        let refused =
            connected.filter(|c| c.status != Truth::True && c.reason == "EnrolmentRefused");
        Ok(refused.map(|c| c.message.clone()))
    })
}

/// The site's state: a line with the digest of the line below it.
fn read_state(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path)?;
    let (_, body) = text.split_once('\n').context("state of one line")?;
    Ok(serde_json::from_str(body)?)
}

fn write_state(path: &Path, state: &Value) -> Result<()> {
    let body = state.to_string();
    let digest = ring::digest::digest(&ring::digest::SHA256, body.as_bytes());
    let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let header = json!({ "format": "bulkhead-site-state", "version": 1, "sha256": digest });
    Ok(fs::write(path, format!("{header}\n{body}"))?)
}

#[test]
fn used_and_expired_tickets_are_refused_and_seen_and_the_lease_runs_on() -> Result<()> {
    scene("fault-ticket", |scene, host| {
        let before = base(scene)?;
        let path = scene.running.fleet.dir.join("site/state.json");
        let secret = read_state(&path)?["tickets"][0]["secret"].clone();
        let secret = secret.as_str().context("a ticket")?;
        let said = enrol_again(host, secret)?;
        assert!(said.contains("used"), "{said}");
        let seen = until("the refusal in the list of hosts", SOON, || {
            let host = scene.host(server().mac)?;
            Ok(host.filter(|host| format!("{:?}", host.status).contains("ticket was used")))
        })?;
        println!(
            "seen as {:?}: {} {:?}",
            seen.status.phase, seen.status.reason, seen.status.conditions
        );

        // The same ticket, never used, and its time over.
        scene.running.kill_program(Program::Site);
        let mut state = read_state(&path)?;
        state["tickets"][0]["enrolment"] = json!("open");
        state["tickets"][0]["expires"] = json!("2026-01-01T00:00:00Z");
        write_state(&path, &state)?;
        scene.running.start_program(Program::Site)?;
        let said = enrol_again(host, secret)?;
        assert!(said.contains("expired"), "{said}");
        assert!(host.lease_is(&base_id(), LeasePhase::Running)?);
        assert_eq!(before.pid, host.status()?.leases[0].status.pid);
        Ok(())
    })
}

fn base_id() -> bulkhead_api::id::LeaseId {
    bulkhead_api::id::LeaseId { tenant: "demo".parse().unwrap(), name: "base".parse().unwrap() }
}
