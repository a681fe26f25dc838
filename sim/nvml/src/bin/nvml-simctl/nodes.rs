//! Device nodes: what containers are given, and what the library then shows them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Subcommand;
use nvidia_ml::access::{capability_minor, capability_node, gpu_node, mig_minors};
use nvidia_ml::{Machine, Store};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use crate::change;
use crate::slices::make_folder_of;

/// Major of GPUs' nodes; registered to NVIDIA's driver.
const GPU_MAJOR: u32 = 195;

#[derive(Subcommand)]
pub(crate) enum Nodes {
    /// Make the nodes of all GPUs and of all instances that there are, taking those away that
    /// belong to none.
    Make {
        /// Where, such as `/dev`.
        folder: PathBuf,
        /// Also write the table of minors, which the driver has in /proc/driver/nvidia-caps.
        #[arg(long)]
        minors: Option<PathBuf>,
        /// Major of the capabilities' nodes.
        #[arg(long, default_value_t = 234)]
        capability_major: u32,
        /// Plain files instead of device nodes, for machines where those cannot be made.
        #[arg(long)]
        plain: bool,
    },
    /// Show a process only what it may open in this folder.
    Guard {
        /// As each process sees it, such as `/dev`.
        folder: String,
    },
    /// Show everything to everybody.
    Unguard,
}

pub(crate) fn run(store: &Store, command: Nodes) -> Result<()> {
    match command {
        Nodes::Make { folder, minors, capability_major, plain } => {
            let machine = store.read()?;
            if let Some(minors) = minors {
                let gpus: Vec<u32> = machine.gpus.iter().map(|gpu| gpu.minor).collect();
                make_folder_of(&minors)?;
                fs::write(&minors, mig_minors(&gpus))
                    .with_context(|| format!("write {}", minors.display()))?;
            }
            make(&machine, &folder, if plain { None } else { Some(capability_major) })
        }
        Nodes::Guard { folder } => change(store, |machine| {
            machine.device_nodes = Some(folder);
            Ok(())
        }),
        Nodes::Unguard => change(store, |machine| {
            machine.device_nodes = None;
            Ok(())
        }),
    }
}

fn make(machine: &Machine, folder: &Path, capability_major: Option<u32>) -> Result<()> {
    let gpu_major = capability_major.map(|_| GPU_MAJOR);
    let capabilities = folder.join("nvidia-caps");
    fs::create_dir_all(&capabilities)
        .with_context(|| format!("make {}", capabilities.display()))?;
    let mut wanted = Vec::new();
    for gpu in &machine.gpus {
        node(&gpu_node(folder, gpu.minor), gpu_major, gpu.minor)?;
        for instance in &gpu.instances {
            let own = capability_minor(gpu.minor, instance.id, None);
            let compute = instance.compute.iter();
            let minors =
                compute.map(|compute| capability_minor(gpu.minor, instance.id, Some(compute.id)));
            wanted.extend(minors.chain([own]));
        }
    }
    for entry in
        fs::read_dir(&capabilities).with_context(|| format!("list {}", capabilities.display()))?
    {
        let path = entry?.path();
        if !wanted.iter().any(|&minor| capability_node(folder, minor) == path) {
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    wanted
        .into_iter()
        .try_for_each(|minor| node(&capability_node(folder, minor), capability_major, minor))
}

/// One node, unless it is there.
fn node(path: &Path, major: Option<u32>, minor: u32) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let Some(major) = major else {
        return fs::write(path, "").with_context(|| format!("write {}", path.display()));
    };
    let mode = Mode::from_raw_mode(0o666);
    mknodat(CWD, path, FileType::CharacterDevice, mode, makedev(major, minor))
        .with_context(|| format!("make the device node {}", path.display()))
}
