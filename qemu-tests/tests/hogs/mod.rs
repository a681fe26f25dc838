//! What a neighbour takes away from a lease, in terms that do not depend on how busy this machine is.
//!
//! * **Share**: of the time in which the victim wanted its CPU, in which part it had it, by the guest kernel's own account
//!   (`/proc/PID/schedstat`, Linux Documentation/scheduler/sched-stats.rst).
//! * **User time**: of all ticks of that CPU, in which part it ran programs (`/proc/stat`): what is missing went to interrupts
//!   and to the kernel, on a neighbour's behalf or not. The victim is the only program there.
//!
//! Both are of the emulated server alone: how fast this machine emulates is not in them. The twentieth is asked of them. An
//! instruction that is emulated costs the same whoever else runs, so they are the victim's throughput in instructions, too.
//!
//! * **Throughput**: rounds of the victim's fixed loop over processor and memory, per second of processor time of the emulator's
//!   thread of its CPU, read out of the server's memory from outside. The real processors lose time to other programs and to a
//!   hypervisor below, and share caches and execution units which the emulated ones do not have. So windows beside the hog
//!   alternate with windows beside a loop on the hog's core that touches no memory, medians are compared, and the spread of
//!   the windows beside the loop is allowed for.
//!
//! What none of this can show is a fight over real caches and memory channels: an emulator has none of its own.

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
const WINDOWS: usize = 12;
const WINDOW: Duration = Duration::from_secs(3);
/// From a change to the window after it.
const PAUSE: Duration = Duration::from_millis(200);
/// What the victim keeps beside a hog.
const AT_LEAST: f64 = 0.95;
/// On the same core it keeps less than this, else the measurement could not see a hog.
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

/// What was measured: of the victim beside a hog in a lease of its own, and with a hog on the victim's core.
#[derive(Debug)]
pub(crate) struct Rates {
    beside: Window,
    same_core: Window,
    /// Beside a loop where the hog's lease is.
    beside_loop: Window,
    /// How far a window beside the loop is from their median, as a share of one: half of them are nearer.
    spread: f64,
}

impl Rates {
    fn throughput(&self, of: Window) -> f64 {
        of.rate / self.beside_loop.rate
    }

    /// The neighbour is not felt, and a hog on the same core is.
    pub(crate) fn check(&self) -> Result<()> {
        let Window { share, user, .. } = self.beside;
        ensure!(share >= AT_LEAST, "a neighbour takes processor time away: {self}");
        let kept = user / self.beside_loop.user;
        ensure!(kept >= AT_LEAST, "a neighbour has the kernel work on the victim's CPU: {self}");
        let least = AT_LEAST - self.spread;
        ensure!(least > FELT, "this machine is too busy to measure anything: {self}");
        ensure!(self.throughput(self.beside) >= least, "a neighbour is felt: {self}");
        let seen = self.same_core.share < FELT && self.throughput(self.same_core) < FELT;
        ensure!(seen, "a hog on the same core is not seen: {self}");
        Ok(())
    }
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut of = |name: &str, of: Window| {
            let throughput = self.throughput(of);
            write!(
                f,
                "{name} share {:.4}, user time {:.4}, throughput {throughput:.3}; ",
                of.share, of.user
            )
        };
        of("beside a loop", self.beside_loop)?;
        of("beside a hog in its lease", self.beside)?;
        of("with a hog on the same core", self.same_core)?;
        write!(f, "spread {:.3}", self.spread)
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

/// One window, or medians of several.
#[derive(Debug, Clone, Copy)]
struct Window {
    /// Rounds per second of the CPU's thread.
    rate: f64,
    /// Of the time in which the victim wanted to run.
    share: f64,
    /// Of all ticks of its CPU.
    user: f64,
}

fn medians(windows: &[Window]) -> Window {
    Window {
        rate: median(windows.iter().map(|window| window.rate)),
        share: median(windows.iter().map(|window| window.share)),
        user: median(windows.iter().map(|window| window.user)),
    }
}

struct Meter {
    monitor: Qmp,
    /// The emulator, and its thread of the victim's CPU.
    process: i32,
    thread: u64,
    /// The victim in the guest, and where its rounds are in the server's memory.
    pid: u32,
    cpu: u32,
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

    /// The guest's account: time that the victim ran and that it waited for its CPU; ticks of programs on that CPU, and all.
    fn account(&self, guest: &mut Guest) -> Result<[f64; 4]> {
        let ask = format!("cat /proc/{}/schedstat; grep '^cpu{} ' /proc/stat", self.pid, self.cpu);
        let text = guest.run(&ask)?;
        let (run, ticks) = text.split_once('\n').with_context(|| format!("{ask}: {text}"))?;
        let numbers = |line: &str| -> Vec<f64> {
            line.split_whitespace().filter_map(|word| word.parse().ok()).collect()
        };
        // User, nice, system, idle, iowait, irq, softirq, steal; what follows is in user already (proc_stat(5)).
        let (run, ticks) = (numbers(run), numbers(ticks));
        match (run.as_slice(), ticks.as_slice()) {
            ([run, waited, ..], [user, nice, ..]) => {
                Ok([*run, *waited, user + nice, ticks.iter().take(8).sum()])
            }
            _ => anyhow::bail!("{ask}: {text}"),
        }
    }

    fn window(&mut self, guest: &mut Guest) -> Result<Window> {
        sleep(PAUSE);
        let account = self.account(guest)?;
        let from = self.sample()?;
        sleep(WINDOW);
        let to = self.sample()?;
        let now = self.account(guest)?;
        let [run, waited, user, ticks] = std::array::from_fn(|at| now[at] - account[at]);
        let [rounds, time] = std::array::from_fn(|at| to[at] - from[at]);
        ensure!(time > 0.0 && run > 0.0 && ticks > 0.0, "the victim's CPU did not run");
        Ok(Window { rate: rounds / time, share: run / (run + waited), user: user / ticks })
    }
}

fn first_cpu(lease: &Lease) -> Result<u32> {
    let holding = lease.status.as_ref().and_then(|status| status.holding.as_ref());
    holding.and_then(|holding| holding.cpus.first().copied()).context("the lease's core")
}

/// Measures the victim beside a loop, beside a lease that hogs, and beside a hog on its own core.
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
    let mut meter = Meter { monitor, process, thread, pid, cpu, address };

    let group = slice(&mut host.guest, hog)?;
    let guest = &mut host.guest;
    let [seen, told] = [count(guest, pid)?, meter.rounds()?];
    ensure!(told >= seen && count(guest, pid)? >= told, "{told} is not the counter: {seen}");
    let frozen = format!("{group}/cgroup.freeze");
    guest.run(&format!("echo 1 > {frozen}"))?;
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
            "{at}: rounds a second {:.0} beside a loop, {:.0} beside the hog; user time {:.4} and {:.4}",
            quiet.rate, hogged.rate, quiet.user, hogged.user
        );
        beside_loop.push(quiet);
        beside_hog.push(hogged);
    }
    guest.run(&format!("kill -KILL -- -{tame}"))?;
    let started = format!("setsid taskset -c {cpu} {program} hog 64 > /dev/null 2>&1 & echo $!");
    let intruder = guest.run(&started)?;
    let same: Vec<Window> = (0..4).map(|_| meter.window(guest)).collect::<Result<_>>()?;
    guest.run(&format!("kill -KILL -- -{}; echo 0 > {frozen}", intruder.trim()))?;

    let quiet = medians(&beside_loop);
    let far = beside_loop.iter().map(|window| (window.rate / quiet.rate - 1.0).abs());
    Ok(Rates {
        spread: median(far),
        beside_loop: quiet,
        beside: medians(&beside_hog),
        same_core: medians(&same),
    })
}
