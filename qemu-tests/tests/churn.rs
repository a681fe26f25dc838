//! Leases that come and go while the supervisor is killed and the power is cut: no law is broken, nothing is left.
//!
//! ```text
//!  registry ── documents, at random ──► host     bulkheadd killed at 200 random points, or the plug pulled at 10
//!     ledger and statements, sampled ◄──┘        after it: receipts of every resource that was held, one chain,
//!                                                no violation in any statement, and the traces of a fresh host
//! ```
//!
//! Random numbers come from a seed that is printed; `BULKHEAD_SEED` repeats a run as far as time allows.
#![expect(clippy::indexing_slicing, reason = "tests")]

mod history;
mod load;
mod traces;

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bulkhead_api::lease::LeasePhase;
use bulkhead_qemu_tests::fixture::{BOOT, SOON, Scene, dark_scene, scene, server, until};
use bulkhead_qemu_tests::guest::Guest;
use bulkhead_qemu_tests::timeline::JOINED_SIGN;
use bulkhead_qemu_tests::vm::{Lane, VmConfig};

use self::history::History;
use self::load::Load;

/// How often the supervisor is killed.
const KILLS: usize = 200;
/// How often the plug is pulled.
const CUTS: usize = 10;
/// How long a host works between its start and a cut, at most, one cut after the other.
const WORK: [Duration; 2] = [Duration::from_secs(25), Duration::from_secs(6)];
/// Everything taken back and sanitised, under emulation.
const QUIET: Duration = Duration::from_secs(150);

/// Kills the supervisor until it was killed often enough; systemd's growing pauses are cut short, as the points matter and
/// not the waiting. Most pauses are shorter than a start and some work, so that its start is hit as well as its steps; one
/// in five lets a grant or an erase come to its end.
fn killer(seed: u64) -> String {
    let seed = seed % 32_768;
    format!(
        "(RANDOM={seed}; n=0; : > /run/kills; group=/sys/fs/cgroup/system.slice/bulkheadd.service/cgroup.procs; \
         while [ $n -lt {KILLS} ]; do ms=$((RANDOM % 1200 + 10)); [ $((RANDOM % 5)) = 0 ] && ms=$((RANDOM % 3000 + 3000)); \
         sleep $((ms / 1000)).$(printf %03d $((ms % 1000))); pid=; read -r pid < $group; name=; \
         [ -n \"$pid\" ] && read -r name < /proc/$pid/comm; \
         if [ \"$name\" = bulkheadd ] && kill -KILL $pid; then n=$((n + 1)); echo $n >> /run/kills; sleep 0.1; fi; \
         systemctl start --no-block bulkheadd; done) > /dev/null 2>&1 &"
    )
}

/// Deletes every lease of the churn and waits until the registry knows none of them.
fn take_all_back(scene: &Scene<'_>, load: &Load) -> Result<()> {
    load.delete_all(scene)?;
    until("every lease of the churn gone", QUIET, || {
        let left = scene.running.leases()?;
        let left = left.iter().filter(|lease| load::ours(lease)).count();
        Ok((left == 0).then_some(()))
    })
}

/// Receipts as the host keeps them, verified away from it, by the command that anybody would use.
fn receipts(scene: &Scene<'_>, guest: &mut Guest) -> Result<String> {
    let text = guest.run("bulkhead host receipts -o json")?;
    let file = scene.running.fleet.dir.join("receipts.json");
    std::fs::write(&file, &text).context("write the receipts")?;
    let ca = scene.running.fleet.registry().join("trust/ca.pem");
    let (file, ca) = (file.display().to_string(), ca.display().to_string());
    let said = scene.running.bulkhead(["verify", &file, "--ca", &ca])?;
    println!("{}", said.lines().last().unwrap_or_default());
    Ok(text)
}

#[test]
fn a_supervisor_that_is_killed_200_times_breaks_no_law_and_leaves_nothing() -> Result<()> {
    let seed = load::seed();
    println!("seed {seed}");
    scene("churn-kill", |scene, host| {
        let fresh = traces::settled(&mut host.guest, None)?;
        let base = scene.lease("base")?.and_then(|lease| lease.status).context("the base")?;
        let (mut load, mut history) = (Load::new(seed), History::default());
        let begun = Instant::now();
        host.guest.run(&killer(seed))?;
        let mut kills = 0;
        while kills < KILLS {
            load.step(scene)?;
            history.sample(&mut host.guest)?;
            kills = host.guest.run("wc -l < /run/kills")?.trim().parse()?;
            ensure!(begun.elapsed() < Duration::from_secs(600), "only {kills} kills");
        }
        println!("{kills} kills in {} s; {load}; {history}", begun.elapsed().as_secs());
        until("the supervisor's socket", SOON, || {
            let answer = host.guest.ask("systemctl start bulkheadd; bulkhead host ledger")?;
            Ok((answer.status == 0).then_some(()))
        })?;
        take_all_back(scene, &load)?;
        history.sample(&mut host.guest)?;
        let text = receipts(scene, &mut host.guest)?;
        history.check(&text)?;
        history.no_violation(&mut host.guest)?;
        host.guest.run("rm -f /run/kills")?;
        let left = traces::settled(&mut host.guest, Some(&fresh))?;
        traces::compare(&fresh, &left)?;
        // The neighbour that nobody touched.
        let after = scene.await_phase("base", LeasePhase::Running, SOON)?.status.unwrap();
        assert_eq!((after.pid, after.starts), (base.pid, base.starts));
        ensure!(history.grants() >= 10, "churn without leases proves nothing: {history}");
        Ok(())
    })
}

#[test]
fn a_host_whose_power_is_cut_10_times_keeps_its_ledger_and_converges() -> Result<()> {
    let seed = load::seed();
    println!("seed {seed}");
    dark_scene("churn-power", |scene| {
        let config = VmConfig { lane: Lane::Direct, snapshots: false, ..server() };
        let (mut load, mut history) = (Load::new(seed), History::default());
        for cut in 1..=CUTS {
            let mut vm = scene.power_on(&config, 0)?;
            vm.wait_for(JOINED_SIGN, BOOT)?;
            let mut guest = vm.guest(SOON)?;
            history.sample(&mut guest)?;
            if cut > 1 {
                let kept = guest.run("grep -c bulkhead-state /proc/mounts; true")?;
                ensure!(!history.is_empty() || kept != "0", "no state on the disk");
            }
            // Work at random, so that the cut falls into the start of what was held, into grants, erases and idleness alike.
            let end = Instant::now() + load.within(WORK[cut % WORK.len()]);
            while Instant::now() < end {
                load.step(scene)?;
                history.sample(&mut guest)?;
            }
            sleep(load.within(Duration::from_millis(900)));
            println!(
                "cut {cut} {:.1} s after power-on; {history}",
                vm.powered_on().elapsed().as_secs_f64()
            );
            vm.cut_power();
        }
        let mut vm = scene.power_on(&config, 0)?;
        vm.wait_for(JOINED_SIGN, BOOT)?;
        scene.await_ready(config.mac, SOON).with_context(|| vm.last_words())?;
        let mut guest = vm.guest(SOON)?;
        // What the registry wants is what runs, and nothing else.
        until("the host as the registry wants it", QUIET, || {
            history.sample(&mut guest)?;
            let leases = scene.running.leases()?;
            let runs = |lease: &bulkhead_api::document::Lease| {
                lease.status.as_ref().is_some_and(|status| status.phase == LeasePhase::Running)
            };
            let mut wanted: Vec<_> =
                leases.iter().map(|lease| lease.metadata.name.to_string()).collect();
            let mut held = history.held_now();
            wanted.sort();
            held.sort();
            Ok((leases.iter().all(runs) && wanted == held).then_some(()))
        })
        .with_context(|| format!("{history}\n{}", vm.last_words()))?;
        take_all_back(scene, &load)?;
        history.sample(&mut guest)?;
        let text = receipts(scene, &mut guest)?;
        history.check(&text)?;
        history.no_violation(&mut guest)?;
        println!("{load}; {history}");
        ensure!(history.grants() >= 5, "churn without leases proves nothing: {history}");
        Ok(())
    })
}
