//! The isolation statement on a real host: it holds, it finds what is planted, and nobody can alter it.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use bulkhead_api::condition;
use bulkhead_api::lease::LeasePhase;
use bulkhead_qemu_tests::fixture::{Resumed, SOON, lease, scene, until};

/// Statements come at changes and every half minute.
const STATED: Duration = Duration::from_secs(120);

/// Waits for a statement with that exit status which says all of `words`, and gives its text.
fn proved(host: &mut Resumed, status: i32, words: &[&str]) -> Result<String> {
    let mut last = String::new();
    let found = until(&format!("a statement that says {words:?}"), STATED, || {
        let answer = host.guest.ask("bulkhead host prove")?;
        last = answer.text;
        let says = answer.status == status && words.iter().all(|word| last.contains(word));
        Ok(says.then(|| last.clone()))
    });
    found.map_err(|error| error.context(last))
}

#[test]
fn two_leases_are_proved_apart_an_intruder_is_found_and_holds_up_new_leases_only() -> Result<()> {
    scene("isolation", |scene, host| {
        scene.running.apply(&lease("pair", 1, "64Mi"))?;
        scene.await_phase("pair", LeasePhase::Running, SOON)?;
        let page = proved(host, 0, &["demo/base", "demo/pair", "Violations: none"])?;
        println!("{page}");

        // Signed: asked by way of registry and site, checked with the fleet's CA alone; one altered word is refused.
        let name = host.status()?.host.to_string();
        let asked = |what: &str| {
            let words = ["host", what, "--host", name.as_str(), "-o", "json"];
            scene.running.bulkhead(words)
        };
        let statement = asked("prove")?;
        let file = scene.running.fleet.dir.join("statement.json");
        let ca = scene.running.fleet.registry().join("trust/ca.pem").display().to_string();
        let verify = |text: &str| -> Result<String> {
            fs::write(&file, text)?;
            scene.running.bulkhead(["verify", &file.display().to_string(), "--ca", &ca])
        };
        let said = verify(&statement)?;
        assert!(said.contains("no resource reachable by two leases"), "{said}");
        let at = statement.len() / 3;
        let other = if statement.as_bytes()[at] == b'A' { "B" } else { "A" };
        let altered = [&statement[..at], other, &statement[at + 1..]].concat();
        assert!(verify(&altered).is_err(), "an altered statement was believed");

        // A program among the tenants that belongs to no lease.
        let before = scene.lease("base")?.and_then(|lease| lease.status);
        host.guest.run("systemd-run --quiet --slice=tenant.slice --unit=intruder sleep 3600")?;
        let page = proved(host, 1, &["intruder", "Stranger"])?;
        println!("{page}");
        let isolated = |host: &mut Resumed| -> Result<String> {
            let status = host.status()?;
            Ok(condition::find(&status.conditions, "Isolated")
                .map(|c| format!("{:?} {}", c.status, c.reason))
                .unwrap_or_default())
        };
        let said = isolated(host)?;
        assert!(said.starts_with("False"), "{said}");
        scene.running.apply(&lease("late", 1, "64Mi"))?;
        until("the new lease held up", SOON, || {
            let late = scene.lease("late")?.and_then(|lease| lease.status);
            let held = late.filter(|status| {
                status.conditions.iter().any(|condition| condition.reason == "HostNotIsolated")
            });
            Ok(held.map(drop))
        })?;
        let now = scene.lease("base")?.and_then(|lease| lease.status);
        let run =
            |status: Option<bulkhead_api::lease::LeaseStatus>| status.map(|s| (s.pid, s.starts));
        assert_eq!(run(now), run(before), "what runs is left alone");

        host.guest.run("systemctl stop intruder")?;
        // One with users of its own that holds a device open: what it has in its hands is named.
        host.guest.run(
            "systemd-run --quiet --slice=tenant.slice --unit=planted --property=PrivateUsers=yes \
             --property=StandardInput=file:/dev/loop-control sleep 3600",
        )?;
        let page = proved(host, 1, &["planted", "c 10:237"])?;
        let device = page.lines().find(|line| line.contains("device loop-control, c 10:237"));
        let device = device.unwrap_or_default();
        assert!(device.contains("UnknownDevice") && device.contains("(open"), "{device:?} {page}");
        host.guest.run("systemctl stop planted")?;
        proved(host, 0, &["Violations: none"])?;
        scene.await_phase("late", LeasePhase::Running, STATED)?;
        Ok(())
    })
}
