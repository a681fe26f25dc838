//! What a neighbour takes away from a lease, in terms that do not depend on how busy this machine is.
//!
//! * **Throughput**: rounds of the victim's fixed loop per second of processor time *of the emulator's thread of its CPU*: what
//!   other threads, or other programs of this machine, take away is not counted in. What they share with it below that (caches
//!   and execution units of the real processor) is; it is measured in windows without any neighbour and allowed for.
//! * **Share**: of the time in which the victim wanted its CPU, in which part it had it, by the guest kernel's own account
//!   (`/proc/PID/schedstat`, Linux Documentation/scheduler/sched-stats.rst). Exact, and blind to everything but the guard itself.
//!
//! Windows with and without the neighbour alternate; each is compared with the one beside it, and medians of that count.

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
const PAIRS: usize = 9;
const WINDOW: Duration = Duration::from_secs(3);
/// Throughput and share beside a neighbour, of those without.
const AT_LEAST: f64 = 0.95;
/// On the same core both fall below this, else the measurement could not see a hog.
const FELT: f64 = 0.75;

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

/// What was measured: of the victim beside a hog, over the victim alone.
#[derive(Debug)]
pub(crate) struct Rates {
    throughput: f64,
    share: f64,
    /// How far two windows without any hog are apart, as a share of one: half of the pairs are within it.
    noise: f64,
    /// The same with a hog on the victim's own core: the guard is missing.
    same_core_throughput: f64,
    same_core_share: f64,
}

impl Rates {
    /// The neighbour is not felt, and a hog on the same core is.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(self.share >= AT_LEAST, "a neighbour takes processor time away: {self}");
        ensure!(self.throughput >= AT_LEAST - self.noise, "a neighbour is felt: {self}");
        ensure!(
            AT_LEAST - self.noise > FELT,
            "this machine is too busy to measure anything: {self}"
        );
        let seen = self.same_core_throughput < FELT && self.same_core_share < FELT;
        ensure!(seen, "a hog on the same core is not seen: {self}");
        Ok(())
    }
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "beside a hog in a lease of its own the victim has {:.4} of its core and {:.3} of its throughput; beside one on \
             its own core {:.3} and {:.3}; throughput without any hog differs by {:.3} from window to window",
            self.share,
            self.throughput,
            self.same_core_share,
            self.same_core_throughput,
            self.noise
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

/// One window.
#[derive(Debug, Clone, Copy)]
struct Window {
    /// Rounds per second of the CPU's thread.
    rate: f64,
    /// Of the time in which it wanted to run.
    share: f64,
}

struct Meter {
    process: i32,
    thread: u64,
    pid: u32,
}

#[expect(clippy::cast_precision_loss, reason = "ratios of four digits")]
impl Meter {
    /// Rounds so far, the thread's time at that moment (in the middle of the question), time run and time waited for.
    fn sample(&self, guest: &mut Guest) -> Result<[f64; 4]> {
        let before = thread_time(self.process, self.thread)?;
        let rounds = count(guest, self.pid)?;
        let after = thread_time(self.process, self.thread)?;
        let text = guest.run(&format!("cat /proc/{}/schedstat", self.pid))?;
        let mut words = text.split(' ').map(|word| word.trim().parse::<u64>().unwrap_or_default());
        let (run, waited) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        Ok([rounds as f64, (before + after) as f64 / 2e9, run as f64, waited as f64])
    }

    fn window(&self, guest: &mut Guest) -> Result<Window> {
        let from = self.sample(guest)?;
        sleep(WINDOW);
        let to = self.sample(guest)?;
        let [rounds, time, run, waited] = std::array::from_fn(|at| to[at] - from[at]);
        ensure!(time > 0.0 && run > 0.0, "the victim's CPU did not run");
        Ok(Window { rate: rounds / time, share: run / (run + waited) })
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
    let guest = &mut host.guest;
    let freeze =
        |guest: &mut Guest, on: u8| guest.run(&format!("echo {on} > {group}/cgroup.freeze"));
    let (mut throughput, mut share, mut noise) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        freeze(guest, 1)?;
        let (alone, again) = (meter.window(guest)?, meter.window(guest)?);
        freeze(guest, 0)?;
        let beside = meter.window(guest)?;
        println!(
            "{pair}: rounds a second {:.0} and {:.0} alone, {:.0} beside; share {:.4} and {:.4}",
            alone.rate, again.rate, beside.rate, again.share, beside.share
        );
        throughput.push(beside.rate / again.rate);
        share.push(beside.share / again.share);
        noise.push((again.rate / alone.rate - 1.0).abs());
    }
    freeze(guest, 1)?;
    let alone = meter.window(guest)?;
    let started = format!("setsid taskset -c {cpu} {program} hog 64 > /dev/null 2>&1 & echo $!");
    let hog = guest.run(&started)?;
    let same: Vec<Window> = (0..3).map(|_| meter.window(guest)).collect::<Result<_>>()?;
    guest.run(&format!("kill -KILL -- -{}; echo 0 > {group}/cgroup.freeze", hog.trim()))?;
    Ok(Rates {
        throughput: median(throughput),
        share: median(share),
        noise: median(noise),
        same_core_throughput: median(same.iter().map(|window| window.rate / alone.rate).collect()),
        same_core_share: median(same.iter().map(|window| window.share / alone.share).collect()),
    })
}
