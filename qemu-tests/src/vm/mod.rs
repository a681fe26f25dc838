//! The virtual MGX server.
//!
//! ```text
//!  VmConfig ──args──► QEMU ──console.log──► Console   lines with the time since power-on
//!                      │ └───qmp.sock────► Qmp        snapshots, reset
//!                      └─────shell.sock──► Guest      commands; test images only
//! ```

mod args;
mod console;
mod qmp;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bulkhead_api::id::{MacAddr, SystemUuid};
use serde_json::json;

pub use self::console::{Console, Line};
pub use self::qmp::Qmp;
use crate::artifacts::Tools;
use crate::cmd::Cmd;
use crate::guest::Guest;
use crate::net::LabNet;
use crate::process::{Daemon, ProcessId};
use crate::qcow2;
use crate::qemu::Qemu;

/// How a server comes to its kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Lane {
    /// QEMU loads kernel and initrd: no firmware, the quickest.
    Direct,
    /// OVMF, UEFI HTTP boot.
    #[value(name = "http")]
    UefiHttp,
    /// OVMF, PXE over TFTP.
    #[value(name = "pxe")]
    UefiPxe,
}

/// Processor sockets, cores in each, threads in each core. Each socket is a NUMA node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topology {
    /// Sockets, from 1.
    pub sockets: u32,
    /// Cores a socket, from 1.
    pub cores: u32,
    /// Threads a core, 1 or 2.
    pub threads: u32,
}

/// A server's description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmConfig {
    /// How it boots.
    pub lane: Lane,
    /// Secure Boot with our keys; the UEFI lanes only.
    pub secure_boot: bool,
    /// A TPM 2.0 by swtpm.
    pub tpm: bool,
    /// An SR-IOV NIC on a root port, for tenants.
    pub igb: bool,
    /// An Intel IOMMU with interrupt remapping.
    pub iommu: bool,
    /// An NVMe drive with two virtual functions. It keeps the server from being snapshotted.
    pub nvme: bool,
    /// Processors.
    pub topology: Topology,
    /// Memory in MiB, spread over the sockets.
    pub memory_mib: u32,
    /// System UUID as SMBIOS shows it.
    pub uuid: SystemUuid,
    /// Address of the boot NIC.
    pub mac: MacAddr,
    /// Number of the tap that the boot NIC hangs on.
    pub tap: usize,
    /// Size of a blank virtio disk in GiB; none if absent.
    pub disk_gib: Option<u32>,
    /// Whether states can be saved.
    pub snapshots: bool,
    /// Whether there is a command channel; a test image answers on it.
    pub shell: bool,
    /// A credential for systemd as QEMU's fw_cfg hands it over: what a host must not take from anybody.
    pub credential: Option<&'static str>,
}

impl VmConfig {
    /// The lab's server number `number`, each with its own MAC, UUID and tap.
    #[must_use]
    pub fn numbered(number: u8) -> Self {
        let mut uuid = *b"\x8a\x1f\x3c\x50\x0b\x1e\x4d\x00\x9e\x00bulkh\0";
        if let Some(last) = uuid.last_mut() {
            *last = number;
        }
        Self {
            lane: Lane::UefiHttp,
            secure_boot: false,
            tpm: false,
            igb: false,
            iommu: false,
            nvme: false,
            topology: Topology { sockets: 2, cores: 2, threads: 1 },
            memory_mib: 2048,
            uuid: SystemUuid::new(uuid),
            mac: MacAddr::new([0x52, 0x54, 0x00, 0x00, 0x09, number]),
            tap: usize::from(number),
            disk_gib: Some(8),
            snapshots: false,
            shell: false,
            credential: None,
        }
    }
}

/// What every server of a lab shares.
#[derive(Debug, Clone, Copy)]
pub struct Lab<'a> {
    /// QEMU.
    pub qemu: &'a Qemu,
    /// Firmware.
    pub tools: &'a Tools,
    /// The network its taps are in.
    pub net: &'a LabNet,
    /// Kernel, initrd and command line for the direct lane.
    pub direct: Option<&'a DirectBoot>,
}

/// What the direct lane boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectBoot {
    /// The kernel.
    pub kernel: PathBuf,
    /// Stage 1.
    pub initrd: PathBuf,
    /// The kernel's command line.
    pub cmdline: String,
}

/// Whether a server ends with its [`Vm`] or goes on when the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// It is switched off when the `Vm` goes.
    Scoped,
    /// It has a session of its own, so that it outlives terminal and program.
    Lasting,
}

/// A server that is switched on.
#[derive(Debug)]
pub struct Vm {
    config: VmConfig,
    dir: PathBuf,
    qemu: Daemon,
    tpm: Option<Daemon>,
    console: Console,
    powered_on: Instant,
}

impl Vm {
    /// Switches a server on. Its console, disks and sockets are in `dir`, which is made. A disk that is there already is
    /// the server's own, with what was written to it before.
    ///
    /// # Errors
    /// A part is missing, or QEMU does not start: then with what it said.
    pub fn power_on(
        config: &VmConfig,
        lab: Lab<'_>,
        dir: &Path,
        lifetime: Lifetime,
    ) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        if let Some(gib) = config.disk_gib
            && !dir.join("disk.qcow2").exists()
        {
            qcow2::create_blank(&dir.join("disk.qcow2"), u64::from(gib) << 30)?;
        }
        if config.snapshots {
            qcow2::create_blank(&dir.join("states.qcow2"), 1 << 20)?;
        }
        if config.nvme {
            let raw = fs::File::create(dir.join("nvme.raw")).context("make nvme.raw")?;
            raw.set_len(64 << 20).context("size nvme.raw")?;
        }
        if config.lane != Lane::Direct {
            let firmware = lab.tools.firmware(config.secure_boot)?;
            qcow2::create_over(&dir.join("vars.qcow2"), &firmware.vars)?;
        }
        Self::start(config, lab, dir, lifetime, None)
    }

    /// Starts a server from a state that was saved with [`Vm::save`], in a copy of its folder.
    ///
    /// # Errors
    /// A part is missing, or QEMU does not start: then with what it said.
    pub fn resume(config: &VmConfig, lab: Lab<'_>, dir: &Path, state: &str) -> Result<Self> {
        Self::start(config, lab, dir, Lifetime::Scoped, Some(state))
    }

    fn start(
        config: &VmConfig,
        lab: Lab<'_>,
        dir: &Path,
        lifetime: Lifetime,
        load: Option<&str>,
    ) -> Result<Self> {
        let firmware = match config.lane {
            Lane::Direct => None,
            Lane::UefiHttp | Lane::UefiPxe => Some(lab.tools.firmware(config.secure_boot)?),
        };
        let direct = match config.lane {
            Lane::Direct => {
                Some(lab.direct.context("the direct lane needs a kernel and an initrd")?)
            }
            Lane::UefiHttp | Lane::UefiPxe => None,
        };
        let files = args::Files {
            dir,
            firmware: firmware.as_ref(),
            direct: direct.map(|d| (d.kernel.as_path(), d.initrd.as_path(), d.cmdline.as_str())),
            load,
        };
        let place = |cmd: Cmd| match lifetime {
            Lifetime::Scoped => lab.net.inside(cmd),
            Lifetime::Lasting => lab.net.inside(cmd).under(["setsid"]),
        };
        // Those of an earlier run in this folder, or in the one that it was copied from, would be taken for ours.
        for stale in ["qmp.sock", "shell.sock", "tpm/sock", "console.log"] {
            match fs::remove_file(dir.join(stale)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("remove {stale}"));
                }
                Ok(()) | Err(_) => {}
            }
        }
        let tpm = config.tpm.then(|| start_tpm(lab.qemu, dir, place)).transpose()?;
        let cmd = lab.qemu.system()?.args(args::arguments(config, lab.qemu.accel, files));
        let powered_on = Instant::now();
        let qemu = Daemon::start("qemu", &place(cmd), &dir.join("qemu.log"))?;
        let console = Console::new(&dir.join("console.log"));
        let dir = dir.to_owned();
        let mut vm = Self { config: config.clone(), dir, qemu, tpm, console, powered_on };
        vm.await_monitor()?;
        Ok(vm)
    }

    fn await_monitor(&mut self) -> Result<()> {
        let socket = self.dir.join("qmp.sock");
        while !socket.exists() {
            if !self.qemu.alive() {
                bail!("QEMU did not start: {}", self.qemu.log_tail(10));
            }
            if self.powered_on.elapsed() > Duration::from_secs(30) {
                bail!("QEMU made no monitor socket within 30 s");
            }
            sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Its description.
    #[must_use]
    pub fn config(&self) -> &VmConfig {
        &self.config
    }

    /// Its folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// QEMU's process.
    #[must_use]
    pub fn process(&self) -> ProcessId {
        self.qemu.id
    }

    /// When it was switched on (or resumed).
    #[must_use]
    pub fn powered_on(&self) -> Instant {
        self.powered_on
    }

    /// Whether it is switched on.
    pub fn runs(&mut self) -> bool {
        self.qemu.alive()
    }

    /// Its console as read so far; [`Vm::watch`] reads on.
    #[must_use]
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// Reads what came on the console since the last look.
    ///
    /// # Errors
    /// The console's file cannot be read.
    pub fn watch(&mut self) -> Result<()> {
        let cpu = self.qemu.id.cpu_seconds().unwrap_or_default();
        self.console.poll(self.powered_on.elapsed(), cpu)
    }

    /// Waits until the console shows `text`, on a line that no earlier call has passed.
    ///
    /// # Errors
    /// It does not within `limit`, or the server ends: then with the last console lines.
    pub fn wait_for(&mut self, text: &str, limit: Duration) -> Result<Line> {
        self.wait_for_any(&[text], limit)
    }

    /// As [`Vm::wait_for`], for the first line that holds one of `texts`.
    ///
    /// # Errors
    /// As [`Vm::wait_for`].
    pub fn wait_for_any(&mut self, texts: &[&str], limit: Duration) -> Result<Line> {
        let until = Instant::now() + limit;
        loop {
            // Asked first, so that the last words of a server that ended are still read.
            let alive = self.qemu.alive();
            self.watch()?;
            if let Some(line) = self.console.find(texts) {
                return Ok(line);
            }
            if !alive {
                bail!(
                    "the server ended before its console showed {texts:?}\n{}",
                    self.last_words()
                );
            }
            if Instant::now() > until {
                let limit = limit.as_secs();
                bail!("no {texts:?} on the console within {limit} s\n{}", self.last_words());
            }
            sleep(Duration::from_millis(15));
        }
    }

    /// The last console lines and what QEMU said, for messages.
    #[must_use]
    pub fn last_words(&self) -> String {
        let qemu = self.qemu.log_tail(5);
        let log = self.dir.join("console.log");
        format!("{}\nqemu: {qemu}\nwhole console: {}", self.console.tail(20), log.display())
    }

    /// A connection to the monitor.
    ///
    /// # Errors
    /// QEMU does not answer.
    pub fn monitor(&self) -> Result<Qmp> {
        Qmp::connect(&self.dir.join("qmp.sock"))
    }

    /// Saves the running state under `name`, in the server's own folder. It goes on running.
    ///
    /// # Errors
    /// QEMU refuses: a device cannot be saved.
    pub fn save(&self, name: &str) -> Result<()> {
        self.monitor()?.human(&format!("savevm {name}"))
    }

    /// Presses the reset button.
    ///
    /// # Errors
    /// QEMU does not answer.
    pub fn reset(&self) -> Result<()> {
        self.monitor()?.command("system_reset", &json!({})).map(drop)
    }

    /// Pulls the plug: nothing gets a last word.
    pub fn cut_power(mut self) {
        self.qemu.kill();
    }

    /// The command channel of a test image.
    ///
    /// # Errors
    /// The server has none, or nothing answers within `limit`.
    pub fn guest(&self, limit: Duration) -> Result<Guest> {
        Guest::connect(&self.dir.join("shell.sock"), limit)
    }

    /// Processor seconds that QEMU has used.
    #[must_use]
    pub fn cpu_seconds(&self) -> f64 {
        self.qemu.id.cpu_seconds().unwrap_or_default()
    }

    /// Leaves the server on when this value goes, and gives its processes.
    pub fn let_run(self) -> Vec<ProcessId> {
        let tpm = self.tpm.map(Daemon::let_run);
        tpm.into_iter().chain([self.qemu.let_run()]).collect()
    }
}

/// swtpm ends by itself when its QEMU does.
fn start_tpm(qemu: &Qemu, dir: &Path, place: impl Fn(Cmd) -> Cmd) -> Result<Daemon> {
    let state = dir.join("tpm");
    fs::create_dir_all(&state).with_context(|| format!("make {}", state.display()))?;
    let socket = state.join("sock");
    let cmd = qemu.tree().command("swtpm").context("a TPM needs swtpm in the QEMU tree")?;
    let cmd = cmd
        .args(["socket", "--tpm2", "--terminate", "--tpmstate"])
        .arg(format!("dir={}", state.display()))
        .arg("--ctrl")
        .arg(format!("type=unixio,path={}", socket.display()));
    let mut daemon = Daemon::start("swtpm", &place(cmd), &dir.join("swtpm.log"))?;
    let until = Instant::now() + Duration::from_secs(10);
    while !socket.exists() {
        if !daemon.alive() || Instant::now() > until {
            bail!("swtpm did not start: {}", daemon.log_tail(10));
        }
        sleep(Duration::from_millis(10));
    }
    Ok(daemon)
}
