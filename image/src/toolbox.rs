//! The toolbox: a Debian chroot with every build tool, and the emulator tree beside it.
//!
//! A step enters the toolbox in a mount namespace of its own, so nothing stays mounted. Inside, `/out` is the folder being
//! built, `/debs` the kept packages, `/keys` the keys and `/src` this crate's folder.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use crate::cache::{Inputs, Part};
use crate::command::{CommandError, Program};
use crate::files::{self, FileError, Naming as _};
use crate::layout::{EPOCH, Layout, SUITE};
use crate::machine::{self, MachineError};

const RECIPE: &str = include_str!("toolbox.rs");

/// Documentation that no tree of ours carries.
pub const UNWANTED: [&str; 7] =
    ["man", "doc", "locale", "info", "lintian", "bash-completion", "zsh"];

const ENTER: &str = r#"box=$1 out=$2 debs=$3 keys=$4 src=$5; shift 5
mount -t proc proc "$box/proc"; mount --rbind /dev "$box/dev"; mount --rbind /sys "$box/sys"; mount -t tmpfs tmpfs "$box/tmp"
mount --bind "$out" "$box/out"; mount --bind "$debs" "$box/debs"; mount --bind "$keys" "$box/keys"; mount --bind "$src" "$box/src"
if [ -e /etc/resolv.conf ]; then touch "$box/etc/resolv.conf"; mount --bind /etc/resolv.conf "$box/etc/resolv.conf"; fi
exec chroot "$box" bash -euo pipefail -c "$@""#;

/// The toolbox or the emulator tree could not be built.
#[derive(Debug, thiserror::Error)]
pub enum ToolboxError {
    /// The machine lacks something.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// A program.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Runs the bash text `script` in the toolbox, in `/out`, with `args` as `$1`...
///
/// # Errors
/// The script's, with its last output.
pub fn run<S: AsRef<OsStr>>(
    layout: &Layout,
    script: &str,
    args: &[S],
) -> Result<String, CommandError> {
    Program::new("unshare")
        .args(["-m", "--propagation", "private", "bash", "-euc", ENTER, "toolbox"])
        .args([&layout.toolbox(), &layout.out, &layout.debs(), &layout.keys(), &layout.source()])
        .args(["cd /out\n".to_owned() + script, "step".to_owned()])
        .args(args)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("SOURCE_DATE_EPOCH", EPOCH.to_string())
        .without_env("LD_LIBRARY_PATH")
        .run()
}

/// Builds the toolbox unless it is there.
///
/// # Errors
/// The machine's, mmdebstrap's, or a file's.
pub fn build(layout: &Layout) -> Result<(), ToolboxError> {
    let list = files::read_text(&layout.data("toolbox.list"))?;
    let toolbox = layout.toolbox();
    for folder in [layout.debs(), layout.keys(), layout.work()] {
        files::create_folder(&folder)?;
    }
    // only its owner reads the keys
    let keys = layout.keys();
    std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o700))
        .named("set mode of", &keys)?;
    let (stamps, outputs) = (layout.tool_stamps(), [toolbox.clone()]);
    let part = Part { name: "toolbox", stamps: &stamps, outputs: &outputs };
    part.make(&Inputs::of_recipe(RECIPE).text("packages", &list), || {
        let packages: Vec<_> = files::entries(&list).collect();
        let new = bootstrap(layout, "toolbox", &packages, false)?;
        for folder in ["out", "debs", "keys", "src"] {
            files::create_folder(&new.join(folder))?;
        }
        files::write(&new.join("etc/apt/apt.conf.d/99proxy"), machine::apt_proxies()?)?;
        files::remove(&toolbox)?;
        Ok::<_, ToolboxError>(files::rename(&new, &toolbox)?)
    })?;
    Ok(())
}

/// Unpacks the emulator tree unless it is there, with a starter for each program in it.
///
/// # Errors
/// As [`build`].
pub fn build_qemu(layout: &Layout) -> Result<(), ToolboxError> {
    let list = files::read_text(&layout.data("qemu.list"))?;
    let qemu = layout.qemu();
    let (stamps, outputs) = (layout.tool_stamps(), [qemu.clone()]);
    let part = Part { name: "qemu", stamps: &stamps, outputs: &outputs };
    part.make(&Inputs::of_recipe(RECIPE).text("packages", &list), || {
        let packages: Vec<_> = files::entries(&list).collect();
        let new = bootstrap(layout, "qemu", &packages, true)?;
        let firmware = "-L \"$d/usr/share/qemu\" -L \"$d/usr/share/seabios\" -L \"$d/usr/lib/ipxe/qemu\"";
        for (program, arguments) in
            [("qemu-system-x86_64", firmware), ("qemu-img", ""), ("swtpm", "")]
        {
            let starter = format!(
                "#!/bin/sh\n# Runs {program} of this tree by the tree's own loader: no chroot, so paths mean what they say.\n\
                 d=$(dirname \"$(readlink -f \"$0\")\"); l=$d/usr/lib/x86_64-linux-gnu; export QEMU_MODULE_DIR=\"$l/qemu\"\n\
                 exec \"$d/usr/lib64/ld-linux-x86-64.so.2\" --library-path \"$l:$l/pulseaudio:$l/swtpm\" \"$d/usr/bin/{program}\" {arguments} \"$@\"\n"
            );
            files::write_mode(&new.join(program), starter, 0o755)?;
        }
        files::remove(&qemu)?;
        Ok::<_, ToolboxError>(files::rename(&new, &qemu)?)
    })?;
    Ok(())
}

/// Makes a Debian tree beside the others with the machine's own mmdebstrap; returns its folder. `backports` first and only
/// unpacked, or a tree that a chroot can live in.
fn bootstrap(
    layout: &Layout,
    name: &str,
    packages: &[&str],
    backports: bool,
) -> Result<PathBuf, ToolboxError> {
    let new = layout.tools.join(format!("{name}.new"));
    let list = layout.work().join(format!("{name}.list"));
    files::remove(&new)?;
    files::write(&list, machine::sources(backports)?)?;
    let mut kind = vec![format!("--variant={}", if backports { "extract" } else { "apt" })];
    if backports {
        kind.push(format!("--aptopt=APT::Default-Release \"{SUITE}-backports\""));
    }
    Program::new("mmdebstrap")
        .args(kind)
        .args(["--mode=root", "--aptopt=Apt::Install-Recommends \"false\""])
        .args(UNWANTED.map(|d| format!("--dpkgopt=path-exclude=/usr/share/{d}/*")))
        .arg(format!("--include={}", packages.join(",")))
        .arg(SUITE)
        .args([&new, &list])
        .run()?;
    Ok(new)
}
