//! `bench boot`: how long a server takes from power-on to joined, beside the floor of the same boot.
//!
//! The floor is the time to stage 1: firmware, UKI and kernel, nothing of ours. Goals are ratios to it,
//! CPU seconds and sizes, so that a noisy machine does not decide.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bulkhead_api::document::{Host, HostPhase};

use super::goal::{self, Goal};
use super::table;
use crate::artifacts::Workspace;
use crate::fleet::{Fleet, Layers, Running};
use crate::net::LabNet;
use crate::qemu::Qemu;
use crate::timeline::{self, FLOOR, JOINED, Mark, READY, SYSTEMD};
use crate::vm::{Lab, Lane, Lifetime, Topology, Vm, VmConfig};

const NAMESPACE: &str = "bulkhead-bench";
const BOOT: Duration = Duration::from_secs(240);
/// Between joined and this, the supervisor comes to rest.
const REST: Duration = Duration::from_secs(15);

/// Boots one server a lane and prints the phases; `true` where every goal holds.
///
/// # Errors
/// The site or a server does not come up.
pub fn boot(workspace: &Workspace, quick: bool) -> Result<bool> {
    let dir = workspace.target.join("bench-boot");
    if dir.exists() {
        fs::remove_dir_all(&dir).context("remove the last bench's folder")?;
    }
    let fleet = Fleet::at(workspace, &dir, &[])?;
    fleet.init()?;
    let code = fleet.image_build(Layers::Product)?.pass_through()?;
    ensure!(code == 0, "the image was not built");
    fleet.configure()?;
    let net = LabNet::create(NAMESPACE, 2)?;
    let running = Running::start(&fleet, &net, Lifetime::Scoped)?;
    let tools = fleet.tools();
    let direct = fleet.direct_boot()?;
    let qemu = Qemu::find(&tools, &direct.kernel, &fleet.cache()?)?;
    let lab = Lab { qemu: &qemu, tools: &tools, net: &net, direct: Some(&direct) };
    let lanes: &[(Lane, &str)] = match quick {
        true => &[(Lane::UefiHttp, "http")],
        false => &[(Lane::UefiHttp, "http"), (Lane::UefiPxe, "pxe")],
    };
    let mut columns = Vec::new();
    for ((lane, name), number) in lanes.iter().zip(0_u8..) {
        // Two CPUs, as the goals were set for: an emulator with more of them than the machine has spins.
        let topology = Topology { sockets: 2, cores: 1, threads: 1 };
        let config = VmConfig { lane: *lane, topology, ..VmConfig::numbered(number) };
        println!("bench boot: lane {name}, {:?}", qemu.accel);
        let (marks, host) = one(&config, lab, &dir.join(name), &running)?;
        columns.push((*name, marks, host));
    }
    println!("\n{}\n", phases(&columns));
    let goals = goals(&columns, &fleet.served())?;
    Ok(goal::judge("boot", &goals))
}

/// Boots one server to its rest and gives its marks and what the registry knows of it.
fn one(
    config: &VmConfig,
    lab: Lab<'_>,
    dir: &Path,
    running: &Running<'_>,
) -> Result<(Vec<Mark>, Host)> {
    let mut vm = Vm::power_on(config, lab, dir, Lifetime::Scoped)?;
    vm.wait_for(timeline::JOINED_SIGN, BOOT)?;
    let marks = timeline::marks(vm.console().lines());
    let until = Instant::now() + BOOT;
    let rested = Instant::now() + REST;
    loop {
        let hosts = running.hosts()?;
        let ready = hosts
            .into_iter()
            .find(|host| host.spec.mac == config.mac && host.status.phase == HostPhase::Ready);
        if let Some(host) = ready
            && Instant::now() > rested
        {
            return Ok((marks, host));
        }
        ensure!(Instant::now() < until, "the host is not Ready");
        sleep(Duration::from_millis(500));
    }
}

fn phases(columns: &[(&str, Vec<Mark>, Host)]) -> String {
    let mut header = vec!["phase".to_owned()];
    for (name, ..) in columns {
        header.extend([format!("{name}, s"), format!("{name}, CPU s"), format!("{name}, x floor")]);
    }
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let first = columns.first().map(|(_, marks, _)| marks.as_slice()).unwrap_or_default();
    let rows: Vec<Vec<String>> = first
        .iter()
        .map(|mark| {
            let mut row = vec![mark.phase.to_owned()];
            for (_, marks, _) in columns {
                let floor = timeline::find(marks, FLOOR);
                match (timeline::find(marks, mark.phase), floor) {
                    (Some(at), Some(floor)) => row.extend([
                        format!("{:.1}", at.at.as_secs_f64()),
                        format!("{:.1}", at.cpu_seconds),
                        format!("{:.2}", at.at.as_secs_f64() / floor.at.as_secs_f64()),
                    ]),
                    _ => row.extend(["-"; 3].map(str::to_owned)),
                }
            }
            row
        })
        .collect();
    table::render(&header, &rows)
}

fn ratio(marks: &[Mark]) -> Option<f64> {
    let (joined, floor) = (timeline::find(marks, JOINED)?, timeline::find(marks, FLOOR)?);
    Some(joined.at.as_secs_f64() / floor.at.as_secs_f64())
}

fn goals(columns: &[(&str, Vec<Mark>, Host)], served: &Path) -> Result<Vec<Goal>> {
    let size = |name: &str| -> Result<f64> {
        let path = served.join(name);
        let bytes = fs::metadata(&path).with_context(|| format!("look at {}", path.display()))?;
        Ok(f64::from(u32::try_from(bytes.len() / 1000).unwrap_or(u32::MAX)) / 1e3)
    };
    let mut goals = Vec::new();
    for (name, marks, _) in columns {
        let (what, key) = match *name {
            "http" => ("joined / floor, UEFI HTTP", "http_joined_x_floor"),
            _ => ("joined / floor, PXE", "pxe_joined_x_floor"),
        };
        let found = ratio(marks).with_context(|| format!("{name}: a phase is missing"))?;
        goals.push(Goal { what, key, found, at_most: 1.9 });
    }
    let first = columns.first().map(|(_, marks, _)| marks.as_slice()).unwrap_or_default();
    let reported = columns.first().and_then(|(_, _, host)| host.status.reported.as_deref());
    let reported = reported.context("the host reported nothing")?;
    let thousands = |n: u64| f64::from(u32::try_from(n / 1000).unwrap_or(u32::MAX)) / 1e3;
    let cpu = |phase| timeline::find(first, phase).map(|mark| mark.cpu_seconds);
    let userspace = cpu(READY).zip(cpu(SYSTEMD)).map(|(ready, systemd)| ready - systemd);
    goals.push(Goal {
        what: "CPU of the emulator from systemd to the supervisor's readiness, s",
        key: "userspace_cpu_s",
        found: userspace.context("a phase of userspace is missing")?,
        at_most: 10.0,
    });
    goals.push(Goal {
        what: "bulkheadd resident, MB",
        key: "bulkheadd_rss_mb",
        found: thousands(reported.supervisor_rss),
        at_most: 25.0,
    });
    goals.push(Goal {
        what: "base image on the wire, MB",
        key: "image_mb",
        found: size("root.img")?,
        at_most: 75.0,
    });
    goals.push(Goal { what: "UKI, MB", key: "uki_mb", found: size("uki.efi")?, at_most: 15.0 });
    Ok(goals)
}
