//! `bench lease`: what deciding, granting and holding leases costs.
//!
//! | figure | how |
//! |---|---|
//! | plan, prove | in a process of this machine, without any emulator: `examples/lease_speed.rs`, medians; `plan_new_us`, 16 leases placed at once on an empty host, is shown without a goal |
//! | grant | processor time of the supervisor's control group in the guest, per lease from its document to its process: its own threads and the tools that it starts, systemd and crun not among them |
//! | idle | the same over a minute with 16 leases that run; its memory at the end of it |
//!
//! An emulated processor does less in a second than this machine's own, and the guest cannot know. So the same program
//! (`bulkhead --help`: starts, page faults, text) is run in both, and figures of the guest are divided by the ratio of its
//! processor times. The ratio and the figures before it are printed too.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bulkhead_api::lease::LeasePhase;
use serde_json::Value;

use super::goal::{self, Goal};
use crate::artifacts::Workspace;
use crate::cmd::Cmd;
use crate::fixture::{self, Scene};
use crate::fleet::{Fleet, Layers, Running};
use crate::guest::Guest;
use crate::net::LabNet;
use crate::qemu::Qemu;
use crate::timeline::JOINED_SIGN;
use crate::vm::{Lab, Lane, Lifetime, Topology, VmConfig};

const NAMESPACE: &str = "bulkhead-bench";
/// A server of many emulated processors takes its time.
const BOOT: Duration = Duration::from_secs(300);
/// Most grants take less, under emulation.
const GRANTED: Duration = Duration::from_secs(6);
const GRANT: Duration = Duration::from_secs(120);
/// After the last grant the supervisor comes to rest.
const REST: Duration = Duration::from_secs(20);
const IDLE: Duration = Duration::from_secs(60);
const LEASES: u32 = 16;

/// Measures and prints; `true` where every goal holds. `quick`: plan and prove alone.
///
/// # Errors
/// The site or the server does not come up, or a lease is not granted.
pub fn lease(workspace: &Workspace, quick: bool) -> Result<bool> {
    let mut goals = decisions(workspace)?;
    if !quick {
        goals.extend(on_a_host(workspace)?);
    }
    Ok(goal::judge("lease", &goals))
}

/// Runs the loops over `plan` and `prove`.
fn decisions(workspace: &Workspace) -> Result<Vec<Goal>> {
    let program = workspace.target.join("debug/examples/lease_speed");
    ensure!(
        program.is_file(),
        "{} is missing: run `cargo xtask bench lease`, or `cargo build -p bulkhead-qemu-tests --example lease_speed`",
        program.display()
    );
    let text = Cmd::new(program).run()?;
    let found: Value = serde_json::from_str(&text).with_context(|| format!("read {text}"))?;
    println!("bench lease: {}", text.trim());
    let figure = |key: &str| {
        found.get(key).and_then(Value::as_f64).with_context(|| format!("no {key} in {text}"))
    };
    Ok(vec![
        Goal {
            what: "plan, 16 leases and 8 GPUs, one comes and one goes, us",
            key: "plan_us",
            found: figure("plan_us")?,
            at_most: 200.0,
        },
        Goal {
            what: "prove, 16 leases and 8 GPUs, us",
            key: "prove_us",
            found: figure("prove_us")?,
            at_most: 1000.0,
        },
    ])
}

/// Boots a server with a core for each lease and two for itself, and grants them one after the other.
fn on_a_host(workspace: &Workspace) -> Result<Vec<Goal>> {
    let dir = workspace.target.join("bench-lease");
    if dir.exists() {
        fs::remove_dir_all(&dir).context("remove the last bench's folder")?;
    }
    let fleet = Fleet::at(workspace, &dir, &["test"])?;
    fleet.init()?;
    let code = fleet.image_build(Layers::Test)?.pass_through()?;
    ensure!(code == 0, "the image was not built");
    fleet.configure()?;
    let net = LabNet::create(NAMESPACE, 2)?;
    let running = Running::start(&fleet, &net, Lifetime::Scoped)?;
    let (tools, direct) = (fleet.tools(), fleet.direct_boot()?);
    let qemu = Qemu::find(&tools, &direct.kernel, &fleet.cache()?)?;
    println!("bench lease: {LEASES} leases, {:?}", qemu.accel);
    let scene = Scene {
        running,
        lab: Lab { qemu: &qemu, tools: &tools, net: &net, direct: Some(&direct) },
    };
    let config = VmConfig {
        lane: Lane::Direct,
        topology: Topology { sockets: 2, cores: LEASES / 2 + 1, threads: 1 },
        memory_mib: 4096,
        shell: true,
        ..VmConfig::numbered(0)
    };
    let mut vm = scene.power_on(&config, 0)?;
    vm.wait_for(JOINED_SIGN, BOOT)?;
    scene.await_ready(config.mac, BOOT).with_context(|| vm.last_words())?;
    let mut guest = vm.guest(BOOT)?;
    scene.running.apply(&fixture::tenant("demo"))?;
    sleep(REST);
    let slower = slower(workspace, &mut guest)?;
    let mut costs = Vec::new();
    for number in 0..LEASES {
        let name = format!("bench-{number}");
        let before = used(&mut guest)?;
        scene.running.apply(&fixture::lease(&name, 1, "64Mi"))?;
        // Asking keeps the machine busy on which the server is emulated: at first only wait.
        sleep(GRANTED);
        scene.await_phase(&name, LeasePhase::Running, GRANT).with_context(|| vm.last_words())?;
        costs.push((used(&mut guest)? - before) / 1000.0);
    }
    let shown: Vec<String> = costs.iter().map(|cost| format!("{cost:.0}")).collect();
    println!("bench lease: grants, ms of processor time: {}", shown.join(" "));
    sleep(REST);
    let before = used(&mut guest)?;
    sleep(IDLE);
    let busy = used(&mut guest)? - before;
    let resident = guest.run("grep VmRSS /proc/$(systemctl show -P MainPID bulkheadd)/status")?;
    let resident: f64 = resident
        .split_ascii_whitespace()
        .nth(1)
        .and_then(|word| word.parse().ok())
        .with_context(|| format!("read {resident:?}"))?;
    costs.sort_by(f64::total_cmp);
    let grant = costs.get(costs.len() / 2).copied().unwrap_or_default();
    let idle = busy / 1e4 / IDLE.as_secs_f64();
    println!(
        "bench lease: the guest's processor takes {slower:.1} times as long; before that: {grant:.0} ms a grant, idle {idle:.2} %"
    );
    Ok(vec![
        Goal {
            what: "processor time of the supervisor per grant, median, ms",
            key: "grant_cpu_ms",
            found: grant / slower,
            at_most: 300.0,
        },
        Goal {
            what: "supervisor idle with 16 leases, % of a core",
            key: "idle_percent",
            found: idle / slower,
            at_most: 0.1,
        },
        Goal {
            what: "supervisor resident with 16 leases, MB",
            key: "idle_rss_mb",
            found: resident * 1.024e-3,
            at_most: 25.0,
        },
    ])
}

/// How many times as long the guest's processor takes for the same program; never below 1.
fn slower(workspace: &Workspace, guest: &mut Guest) -> Result<f64> {
    const RUNS: u32 = 40;
    let line = |program: &str| {
        format!(
            "TIMEFORMAT='%U %S'; time for i in $(seq {RUNS}); do {program} --help > /dev/null; done"
        )
    };
    let seconds = |text: &str| -> Result<f64> {
        let words = text.split_ascii_whitespace().map(|word| word.parse::<f64>());
        words.sum::<Result<f64, _>>().with_context(|| format!("read {text:?}"))
    };
    let there = seconds(&guest.run(&line("bulkhead"))?)?;
    let program = workspace.program("bulkhead")?.display().to_string();
    let output = Cmd::new("bash").args(["-c", &line(&program)]).output()?;
    let here = seconds(&String::from_utf8_lossy(&output.stderr))?;
    ensure!(here > 0.0, "{program} took no time");
    Ok((there / here).max(1.0))
}

/// Processor time of the supervisor's control group, in microseconds.
fn used(guest: &mut Guest) -> Result<f64> {
    let file = "/sys/fs/cgroup/system.slice/bulkheadd.service/cpu.stat";
    let text = guest.run(&format!("grep usage_usec {file}"))?;
    let number = text.split_ascii_whitespace().nth(1).and_then(|word| word.parse().ok());
    number.with_context(|| format!("read {file}: {text}"))
}
