//! The lab's network: a namespace of its own with a bridge and one tap a virtual server.
//!
//! ```text
//!  namespace NAME      lo (registry, 127.0.0.1)
//!                      br0 10.9.0.1/24 (site) ── tap0 ── server 0
//!                                             └─ tap1 ── server 1 ...
//! ```
//! Nothing outside the namespace is touched; deleting it takes every device along.

use std::fs::File;
use std::net::TcpListener;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;

use crate::cmd::Cmd;
use crate::process::ProcessId;

/// Address of the bridge: where the site listens.
pub const SITE_ADDRESS: &str = "10.9.0.1";

/// Its hardware address, locally administered.
const BRIDGE_MAC: &str = "52:54:00:ff:09:01";

/// A network namespace with its bridge and taps.
#[derive(Debug)]
pub struct LabNet {
    name: String,
    delete: bool,
}

fn taken(name: &str) -> Result<bool> {
    let list = Cmd::new("ip").args(["netns", "list"]).run()?;
    Ok(list.lines().any(|line| line.split_ascii_whitespace().next() == Some(name)))
}

impl LabNet {
    /// Makes the namespace with `taps` taps. It is deleted when this value goes, unless [`LabNet::keep`].
    ///
    /// # Errors
    /// The name is taken, or `ip` fails (it needs root).
    pub fn create(name: &str, taps: usize) -> Result<Self> {
        if taken(name)? {
            bail!("network namespace {name} exists already");
        }
        Cmd::new("ip")
            .args(["netns", "add", name])
            .run()
            .context("make a network namespace (root?)")?;
        let net = Self { name: name.to_owned(), delete: true };
        net.ip("link set lo up")?;
        // A spanning tree or a forward delay would swallow the firmware's first DISCOVERs.
        // The address is fixed: a server resumed from a saved state remembers its neighbour's.
        let bridge = "bridge stp_state 0 forward_delay 0 mcast_snooping 0";
        net.ip(&format!("link add br0 address {BRIDGE_MAC} type {bridge}"))?;
        net.ip(&format!("addr add {SITE_ADDRESS}/24 dev br0"))?;
        net.ip("link set br0 up")?;
        for number in 0..taps {
            net.add_tap(number)?;
        }
        Ok(net)
    }

    /// The namespace of an earlier run, left as it is when this value goes.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn existing(name: &str) -> Result<Self> {
        if !taken(name)? {
            bail!("no network namespace {name}");
        }
        Ok(Self { name: name.to_owned(), delete: false })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds the tap `tap{number}` to the bridge.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn add_tap(&self, number: usize) -> Result<()> {
        self.ip(&format!("tuntap add tap{number} mode tap"))?;
        self.ip(&format!("link set tap{number} master br0"))?;
        self.ip(&format!("link set tap{number} up"))
    }

    /// Takes the link of a tap down or up: what pulling the cable looks like.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn set_tap(&self, number: usize, up: bool) -> Result<()> {
        self.ip(&format!("link set tap{number} {}", if up { "up" } else { "down" }))
    }

    /// `cmd`, to be run in the namespace.
    #[must_use]
    pub fn inside(&self, cmd: Cmd) -> Cmd {
        cmd.under(["ip", "netns", "exec", &self.name])
    }

    /// Listens inside the namespace for this program, which stays outside.
    ///
    /// # Errors
    /// The namespace cannot be entered (it needs root), or the address is taken.
    pub fn listen(&self, address: &str, port: u16) -> Result<TcpListener> {
        let path = format!("/run/netns/{}", self.name);
        let namespace = File::open(&path).with_context(|| format!("open {path}"))?;
        // A thread's namespace is its own; a socket stays in the one that it was made in.
        let bind = || -> Result<TcpListener> {
            setns(&namespace, CloneFlags::CLONE_NEWNET).context("enter the namespace")?;
            TcpListener::bind((address, port)).with_context(|| format!("listen on {port}"))
        };
        std::thread::scope(|scope| scope.spawn(bind).join())
            .unwrap_or_else(|_| bail!("the listening thread ended"))
    }

    /// The processes in the namespace.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn processes(&self) -> Result<Vec<ProcessId>> {
        let list = Cmd::new("ip").args(["netns", "pids", &self.name]).run()?;
        let pids = list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok());
        Ok(pids.filter_map(|pid| ProcessId::of(pid).ok()).collect())
    }

    /// Ends every process in the namespace and deletes it with all its devices.
    ///
    /// # Errors
    /// `ip` fails, or a process outlives SIGKILL.
    pub fn delete(mut self) -> Result<()> {
        self.delete = false;
        self.remove()
    }

    /// Leaves the namespace in place when this value goes.
    pub fn keep(&mut self) {
        self.delete = false;
    }

    fn remove(&self) -> Result<()> {
        for process in self.processes()? {
            process.signal(Signal::SIGTERM);
        }
        let begun = Instant::now();
        loop {
            let left = self.processes()?;
            if left.is_empty() {
                break;
            }
            if begun.elapsed() > Duration::from_secs(10) {
                bail!("namespace {}: {} processes outlive SIGKILL", self.name, left.len());
            }
            if begun.elapsed() > Duration::from_secs(3) {
                left.iter().for_each(|process| process.signal(Signal::SIGKILL));
            }
            sleep(Duration::from_millis(50));
        }
        Cmd::new("ip").args(["netns", "del", &self.name]).run()?;
        Ok(())
    }

    fn ip(&self, words: &str) -> Result<()> {
        Cmd::new("ip").args(["-n", &self.name]).args(words.split(' ')).run().map(drop)
    }
}

impl Drop for LabNet {
    fn drop(&mut self) {
        if self.delete
            && let Err(error) = self.remove()
        {
            eprintln!("network namespace {} stays behind: {error:#}", self.name);
        }
    }
}

/// Deletes the namespaces that test processes left behind when they were killed: `{prefix}{pid}`
/// where no process of that id runs.
///
/// # Errors
/// `ip` fails.
pub fn sweep(prefix: &str) -> Result<()> {
    let list = Cmd::new("ip").args(["netns", "list"]).run()?;
    for name in list.lines().filter_map(|line| line.split_ascii_whitespace().next()) {
        let Some(pid) = name.strip_prefix(prefix).and_then(|pid| pid.parse::<i32>().ok()) else {
            continue;
        };
        if ProcessId::of(pid).is_err() {
            LabNet::existing(name)?.delete()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Daemon;

    #[test]
    fn a_deleted_namespace_takes_its_processes_along() {
        let name = format!("bhn-{}", std::process::id());
        let dir = tempfile::tempdir().unwrap();
        let net = LabNet::create(&name, 2).unwrap();
        assert!(LabNet::create(&name, 1).unwrap_err().to_string().contains("exists already"));
        let sleeper = net.inside(Cmd::new("sleep").arg("60"));
        let id = Daemon::start("sleeper", &sleeper, &dir.path().join("log")).unwrap().let_run();
        while net.processes().unwrap() != [id] {
            sleep(Duration::from_millis(10));
        }
        net.delete().unwrap();
        assert!(!id.alive());
        assert!(LabNet::existing(&name).is_err());
    }
}
