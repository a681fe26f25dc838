//! What a neighbour takes away from a lease, in terms that do not depend on how busy this machine is.
//!
//! * **Share**: of the time in which the victim wanted its CPU, in which part it had it, by the guest kernel's own account
//!   (`/proc/PID/schedstat`, Linux Documentation/scheduler/sched-stats.rst). Exact, and blind to everything but the guard itself.
//! * **Throughput**: rounds of the victim's fixed loop over processor and memory, per second of processor time *of the emulator's
//!   thread of its CPU*: what other threads, or other programs of this machine, take away is not counted in. Rounds are read
//!   out of the server's memory from outside: a question to the server would itself be work of varying length.
//!
//! The real processors below may share execution units and caches, which the emulated ones do not have. A busy neighbour core costs
//! the victim something for that reason alone, whoever is on it. So windows beside the hog alternate with windows beside a loop
//! that touches no memory, on the hog's core, and medians of the two are compared: what differs is what the hog does to the server.
//! What this cannot show is a fight over real caches and memory channels: an emulator has none of its own.

use std::fmt;
use std::fs;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bulkhead_api::document::Lease;
use bulkhead_qemu_tests::fixture::Resumed;
use bulkhead_qemu_tests::guest::Guest;
use bulkhead_qemu_tests::vm::Qmp;
use serde_json::json;

/// Windows of each kind.
const WINDOWS: usize = 15;
const WINDOW: Duration = Duration::from_millis(1500);
/// From a change to the window after it.
const PAUSE: Duration = Duration::from_millis(200);
/// Throughput and share beside a hog, of those beside a loop.
const AT_LEAST: f64 = 0.95;
/// On the same core both fall below this, else the measurement could not see a hog.
const FELT: f64 = 0.75;
/// Medians of windows of one kind further apart than this tell nothing about a twentieth.
const STEADY: f64 = 0.03;

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
    /// Beside a hog in a lease of its own, over beside a loop there.
    throughput: f64,
    /// The victim's share of its core beside the hog.
    share: f64,
    /// Throughput beside the loop, over that of the victim alone: what the real processors share.
    loop_throughput: f64,
    /// How far the medians of every other window beside the loop are from those in between, as a share of one.
    noise: f64,
    /// With a hog on the victim's own core: the guard is missing.
    same_core_throughput: f64,
    same_core_share: f64,
}

impl Rates {
    /// The neighbour is not felt, and a hog on the same core is.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(self.share >= AT_LEAST, "a neighbour takes processor time away: {self}");
        ensure!(self.noise <= STEADY, "this machine is too busy to measure anything: {self}");
        ensure!(self.throughput >= AT_LEAST, "a neighbour is felt: {self}");
        let seen = self.same_core_throughput < FELT && self.same_core_share < FELT;
        ensure!(seen, "a hog on the same core is not seen: {self}");
        Ok(())
    }
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "beside a hog in a lease of its own the victim has {:.4} of its core and {:.3} of its throughput beside a loop (which \
             is {:.3} of that alone; windows differ by {:.3}); beside a hog on its own core {:.3} and {:.3}",
            self.share,
            self.throughput,
            self.loop_throughput,
            self.noise,
            self.same_core_share,
            self.same_core_throughput,
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

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
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

fn rate(windows: &[Window]) -> f64 {
    median(windows.iter().map(|window| window.rate))
}

fn share(windows: &[Window]) -> f64 {
    median(windows.iter().map(|window| window.share))
}

struct Meter {
    monitor: Qmp,
    /// The emulator, and its thread of the victim's CPU.
    process: i32,
    thread: u64,
    /// The victim in the guest, and where its rounds are in the server's memory.
    pid: u32,
    address: u64,
}

/// Where the page of `/dev/shm/count` is in the server's memory (Linux Documentation/admin-guide/mm/pagemap.rst).
fn address(guest: &mut Guest, pid: u32) -> Result<u64> {
    let maps = guest.run(&format!("grep /dev/shm/count /proc/{pid}/maps"))?;
    let start = maps.split('-').next().and_then(|text| u64::from_str_radix(text, 16).ok());
    let page = start.with_context(|| format!("the counter's address: {maps}"))? >> 12;
    let read =
        format!("dd if=/proc/{pid}/pagemap bs=8 skip={page} count=1 2>/dev/null | od -An -t u8");
    let text = guest.run(&read)?;
    let frame: u64 = text.trim().parse().with_context(|| format!("{read}: {text}"))?;
    let frame = frame & ((1 << 55) - 1);
    ensure!(frame != 0, "the counter's page is not in memory");
    Ok(frame << 12)
}

#[expect(clippy::cast_precision_loss, reason = "ratios of four digits")]
impl Meter {
    fn rounds(&mut self) -> Result<u64> {
        let line = format!("xp /1gx {:#x}", self.address);
        let said =
            self.monitor.command("human-monitor-command", &json!({ "command-line": line }))?;
        let number = said.as_str().and_then(|text| text.trim().split_once(": 0x"));
        let number = number.and_then(|(_, digits)| u64::from_str_radix(digits, 16).ok());
        number.with_context(|| format!("{line}: {said}"))
    }

    /// Rounds so far and the thread's time at that moment.
    fn sample(&mut self) -> Result<[f64; 2]> {
        let before = thread_time(self.process, self.thread)?;
        let rounds = self.rounds()?;
        let after = thread_time(self.process, self.thread)?;
        Ok([rounds as f64, (before + after) as f64 / 2e9])
    }

    /// Time that the victim ran, and time that it waited for its CPU.
    fn account(&self, guest: &mut Guest) -> Result<[f64; 2]> {
        let text = guest.run(&format!("cat /proc/{}/schedstat", self.pid))?;
        let mut words = text.split(' ').map(|word| word.trim().parse::<u64>());
        match (words.next(), words.next()) {
            (Some(Ok(run)), Some(Ok(waited))) => Ok([run as f64, waited as f64]),
            _ => anyhow::bail!("the victim's schedstat: {text}"),
        }
    }

    fn window(&mut self, guest: &mut Guest) -> Result<Window> {
        sleep(PAUSE);
        let account = self.account(guest)?;
        let from = self.sample()?;
        sleep(WINDOW);
        let to = self.sample()?;
        let [run, waited] = self.account(guest)?;
        let (run, waited) = (run - account[0], waited - account[1]);
        let [rounds, time] = std::array::from_fn(|at| to[at] - from[at]);
        ensure!(time > 0.0 && run > 0.0, "the victim's CPU did not run");
        Ok(Window { rate: rounds / time, share: run / (run + waited) })
    }
}

fn first_cpu(lease: &Lease) -> Result<u32> {
    let holding = lease.status.as_ref().and_then(|status| status.holding.as_ref());
    holding.and_then(|holding| holding.cpus.first().copied()).context("the lease's core")
}

/// Measures the victim alone, beside a loop, beside a lease that hogs, and beside a hog on its own core.
pub(crate) fn measure(
    host: &mut Resumed,
    victim: &Lease,
    hog: &Lease,
    program: &str,
) -> Result<Rates> {
    let status = victim.status.as_ref().context("the victim's status")?;
    let pid = status.pid.context("the victim's process")?;
    let cpu = first_cpu(victim)?;
    let mut monitor = host.vm.monitor()?;
    let cpus = monitor.command("query-cpus-fast", &json!({}))?;
    let cpus = cpus.as_array().context("the emulator's CPUs")?;
    let thread = cpus.iter().find(|found| found["cpu-index"] == cpu);
    let thread =
        thread.and_then(|found| found["thread-id"].as_u64()).context("the CPU's thread")?;
    let process = host.vm.process().pid;
    let address = address(&mut host.guest, pid)?;
    let mut meter = Meter { monitor, process, thread, pid, address };

    let group = slice(&mut host.guest, hog)?;
    let guest = &mut host.guest;
    let [seen, told] = [count(guest, pid)?, meter.rounds()?];
    ensure!(told >= seen && count(guest, pid)? >= told, "{told} is not the counter: {seen}");
    let frozen = format!("{group}/cgroup.freeze");
    guest.run(&format!("echo 1 > {frozen}"))?;
    let alone: Vec<Window> = (0..5).map(|_| meter.window(guest)).collect::<Result<_>>()?;
    let tame = format!("taskset -c {} setsid bash -c 'while :; do :; done'", first_cpu(hog)?);
    let tame = guest.run(&format!("{tame} > /dev/null 2>&1 & echo $!"))?;
    let tame = tame.trim();
    let (mut beside_loop, mut beside_hog) = (Vec::new(), Vec::new());
    for at in 0..WINDOWS {
        let quiet = meter.window(guest)?;
        guest.run(&format!("kill -STOP -- -{tame}; echo 0 > {frozen}"))?;
        let hogged = meter.window(guest)?;
        guest.run(&format!("echo 1 > {frozen}; kill -CONT -- -{tame}"))?;
        println!(
            "{at}: rounds a second {:.0} beside a loop, {:.0} beside the hog; share {:.4} and {:.4}",
            quiet.rate, hogged.rate, quiet.share, hogged.share
        );
        beside_loop.push(quiet);
        beside_hog.push(hogged);
    }
    guest.run(&format!("kill -KILL -- -{tame}"))?;
    let started = format!("setsid taskset -c {cpu} {program} hog 64 > /dev/null 2>&1 & echo $!");
    let intruder = guest.run(&started)?;
    let same: Vec<Window> = (0..3).map(|_| meter.window(guest)).collect::<Result<_>>()?;
    guest.run(&format!("kill -KILL -- -{}; echo 0 > {frozen}", intruder.trim()))?;

    let every_other = |first: usize| -> Vec<Window> {
        beside_loop.iter().skip(first).step_by(2).copied().collect()
    };
    Ok(Rates {
        throughput: rate(&beside_hog) / rate(&beside_loop),
        share: share(&beside_hog),
        loop_throughput: rate(&beside_loop) / rate(&alone),
        noise: (rate(&every_other(0)) / rate(&every_other(1)) - 1.0).abs(),
        same_core_throughput: rate(&same) / rate(&alone),
        same_core_share: share(&same),
    })
}
