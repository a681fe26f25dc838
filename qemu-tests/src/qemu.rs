//! QEMU and its helpers, unpacked beside the image and run by their own loader: the host needs none.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::artifacts::{Tools, required};
use crate::cmd::Cmd;
use crate::process::Daemon;

/// What runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// The machine's own virtualisation.
    Kvm,
    /// Software emulation.
    Tcg,
}

impl Accel {
    /// How much longer than under KVM a step may take here.
    #[must_use]
    pub fn patience(self) -> u32 {
        match self {
            Self::Kvm => 1,
            Self::Tcg => 4,
        }
    }
}

/// A Debian tree of programs that are run by its own dynamic loader, without a chroot, so that paths
/// on their command lines mean what they say.
#[derive(Debug, Clone)]
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    /// A tree as `cargo xtask image` unpacked it.
    ///
    /// # Errors
    /// It is missing.
    pub fn at(root: PathBuf) -> Result<Self> {
        required(root.join("usr/lib64/ld-linux-x86-64.so.2"))?;
        Ok(Self { root })
    }

    /// A program of the tree, by its path below `/usr/bin`.
    ///
    /// # Errors
    /// The tree has no such program.
    pub fn command(&self, program: &str) -> Result<Cmd> {
        let lib = self.root.join("usr/lib/x86_64-linux-gnu");
        let mut path = lib.clone().into_os_string();
        for folder in ["pulseaudio", "swtpm"] {
            path.push(":");
            path.push(lib.join(folder));
        }
        Ok(Cmd::new(self.root.join("usr/lib64/ld-linux-x86-64.so.2"))
            .arg("--library-path")
            .arg(path)
            .arg(required(self.root.join("usr/bin").join(program))?))
    }

    /// Whether the tree holds a program.
    #[must_use]
    pub fn has(&self, program: &str) -> bool {
        self.root.join("usr/bin").join(program).is_file()
    }
}

/// QEMU, and how it runs guests on this machine.
#[derive(Debug, Clone)]
pub struct Qemu {
    tree: Tree,
    /// Found by trial.
    pub accel: Accel,
}

impl Qemu {
    /// Finds QEMU among the tools and learns by trial what runs guests here; the answer is kept below
    /// `cache` until the machine boots again.
    ///
    /// # Errors
    /// QEMU or the kernel is missing, or cannot be started.
    pub fn find(tools: &Tools, kernel: &Path, cache: &Path) -> Result<Self> {
        let tree = Tree::at(tools.qemu.clone())?;
        let mut qemu = Self { tree, accel: Accel::Tcg };
        qemu.accel = qemu.remembered_trial(kernel, cache)?;
        Ok(qemu)
    }

    /// The tree that QEMU is in; swtpm is there too.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// QEMU with its data folders, for more arguments.
    ///
    /// # Errors
    /// The tree is incomplete.
    pub fn system(&self) -> Result<Cmd> {
        let root = &self.tree.root;
        let mut cmd = self.tree.command("qemu-system-x86_64")?;
        for folder in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
            cmd = cmd.arg("-L").arg(root.join(folder));
        }
        Ok(cmd.env("QEMU_MODULE_DIR", root.join("usr/lib/x86_64-linux-gnu/qemu")))
    }

    fn remembered_trial(&self, kernel: &Path, cache: &Path) -> Result<Accel> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("read boot id")?;
        let file = cache.join("accel.json");
        if let Ok(text) = fs::read_to_string(&file)
            && let Ok((when, accel)) = serde_json::from_str::<(String, Accel)>(&text)
            && when == boot
        {
            return Ok(accel);
        }
        let accel = if Path::new("/dev/kvm").exists() && self.kvm_boots(kernel, cache)? {
            Accel::Kvm
        } else {
            Accel::Tcg
        };
        let text = serde_json::to_string(&(boot, accel))?;
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
        Ok(accel)
    }

    /// A `/dev/kvm` may open and run code, and yet every kernel dies in its decompressor: so the trial
    /// is a kernel that reaches its first line within 10 s.
    fn kvm_boots(&self, kernel: &Path, cache: &Path) -> Result<bool> {
        fs::create_dir_all(cache).with_context(|| format!("make {}", cache.display()))?;
        let dir = tempfile::tempdir_in(cache).context("make a folder for the KVM trial")?;
        let console = dir.path().join("console.log");
        let serial = format!("file:{}", console.display());
        let cmd = self
            .system()?
            .args(["-machine", "q35", "-accel", "kvm", "-cpu", "host", "-m", "256", "-no-reboot"])
            .args(["-nodefaults", "-display", "none", "-monitor", "none", "-serial", &serial])
            .arg("-kernel")
            .arg(kernel)
            .args(["-append", "console=ttyS0 panic=-1"]);
        let mut trial = Daemon::start("KVM trial", &cmd, &dir.path().join("qemu.log"))?;
        let until = Instant::now() + Duration::from_secs(10);
        let mut boots = false;
        while !boots && trial.alive() && Instant::now() < until {
            sleep(Duration::from_millis(50));
            // No console yet reads as an empty one.
            boots = fs::read(&console)
                .is_ok_and(|text| String::from_utf8_lossy(&text).contains("Linux version"));
        }
        trial.kill();
        Ok(boots)
    }
}
