//! A neighbour's throughput in turns of the emulated processor that do not depend on how busy this machine is.
//!
//! The emulator runs each CPU of the server in a thread of its own. Rounds of the victim's fixed loop are counted per second of
//! processor time *of the thread of its CPU*: what other threads of the emulator, or other programs of this machine, take away
//! is not counted in. Windows with and without the neighbour alternate, and medians are compared.

use std::fmt;
use std::fs;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bulkhead_api::document::Lease;
use bulkhead_qemu_tests::fixture::Resumed;
use bulkhead_qemu_tests::guest::Guest;
use serde_json::json;

/// Pairs of windows.
const PAIRS: usize = 7;
const WINDOW: Duration = Duration::from_secs(4);
/// Throughput beside a neighbour, as a share of that without.
pub(crate) const AT_LEAST: f64 = 0.95;
/// On the same core it falls below this, else the measurement could not see a hog.
pub(crate) const FELT: f64 = 0.80;

/// Rounds of the loop of `probe count` so far.
pub(crate) fn count(guest: &mut Guest, pid: u32) -> Result<u64> {
    let file = format!("/proc/{pid}/root/dev/shm/count");
    let text = guest.run(&format!("od -An -N8 -t u8 {file}"))?;
    text.trim().parse().with_context(|| format!("read {file}: {text}"))
}

/// The control group of a lease's slice.
pub(crate) fn slice(guest: &mut Guest, lease: &Lease) -> Result<String> {
    let name = format!("{}.{}.slice", lease.metadata.tenant, lease.metadata.name);
    let name = name.replace('-', "\\\\x2d");
    guest.run(&format!("find /sys/fs/cgroup/tenant.slice -type d -name '*{name}' | head -n1"))
}

/// What was measured.
#[derive(Debug)]
pub(crate) struct Rates {
    /// Beside the neighbour, over without it.
    pub(crate) neighbour: f64,
    /// The same for two windows without any: what the measurement itself is off by.
    pub(crate) noise: f64,
    /// With a hog on the victim's own core, over without it: the guard is missing.
    pub(crate) same_core: f64,
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "throughput of the victim: {:.3} beside a hog in a lease of its own, {:.3} beside a hog on its own core; \
             without any, from window to window {:.3}",
            self.neighbour, self.same_core, self.noise
        )
    }
}

/// Processor time of a thread in nanoseconds.
fn thread_time(process: i32, thread: u64) -> Result<u64> {
    let path = format!("/proc/{process}/task/{thread}/schedstat");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    text.split(' ')
        .next()
        .and_then(|word| word.parse().ok())
        .with_context(|| format!("{path}: {text}"))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Rounds per second of the CPU's thread, over one window.
struct Meter {
    process: i32,
    thread: u64,
    pid: u32,
}

impl Meter {
    /// Rounds so far and the thread's time at that moment: in the middle of the question.
    #[expect(clippy::cast_precision_loss, reason = "a ratio of three digits")]
    fn sample(&self, guest: &mut Guest) -> Result<(f64, f64)> {
        let before = thread_time(self.process, self.thread)?;
        let rounds = count(guest, self.pid)?;
        let after = thread_time(self.process, self.thread)?;
        Ok((rounds as f64, (before + after) as f64 / 2e9))
    }

    fn window(&self, guest: &mut Guest) -> Result<f64> {
        let (rounds, time) = self.sample(guest)?;
        sleep(WINDOW);
        let (more, later) = self.sample(guest)?;
        ensure!(later > time, "the victim's CPU did not run");
        Ok((more - rounds) / (later - time))
    }
}

/// Measures the victim beside a lease that hogs, alone, and beside a hog on its own core.
pub(crate) fn measure(
    host: &mut Resumed,
    victim: &Lease,
    hog: &Lease,
    program: &str,
) -> Result<Rates> {
    let status = victim.status.as_ref().context("the victim's status")?;
    let pid = status.pid.context("the victim's process")?;
    let holding = status.holding.as_ref().context("what the victim holds")?;
    let cpu = *holding.cpus.first().context("the victim's core")?;
    let cpus = host.vm.monitor()?.command("query-cpus-fast", &json!({}))?;
    let cpus = cpus.as_array().context("the emulator's CPUs")?;
    let thread = cpus.iter().find(|found| found["cpu-index"] == cpu);
    let thread =
        thread.and_then(|found| found["thread-id"].as_u64()).context("the CPU's thread")?;
    let meter = Meter { process: host.vm.process().pid, thread, pid };

    let group = slice(&mut host.guest, hog)?;
    let freeze =
        |guest: &mut Guest, on: u8| guest.run(&format!("echo {on} > {group}/cgroup.freeze"));
    let guest = &mut host.guest;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        freeze(guest, 1)?;
        alone.push(meter.window(guest)?);
        freeze(guest, 0)?;
        beside.push(meter.window(guest)?);
        println!("pair {pair}: {:.1} alone, {:.1} beside", alone[pair], beside[pair]);
    }
    freeze(guest, 1)?;
    let again: Vec<f64> = (0..PAIRS).map(|_| meter.window(guest)).collect::<Result<_>>()?;
    let started = format!("setsid taskset -c {cpu} {program} hog 64 > /dev/null 2>&1 & echo $!");
    let hog = guest.run(&started)?;
    let same: Vec<f64> = (0..3).map(|_| meter.window(guest)).collect::<Result<_>>()?;
    guest.run(&format!("kill -KILL -- -{}", hog.trim()))?;
    let alone = median(alone);
    Ok(Rates {
        neighbour: median(beside) / alone,
        noise: median(again) / alone,
        same_core: median(same) / alone,
    })
}
