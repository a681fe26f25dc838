//! Devices of a vendor in a container, as its CDI specs describe them. Pure; who reads the files is [`super::bundle`].
//!
//! ```text
//!  holding.devices: ids that are `vendor/class=name` ─┐
//!  *.json of /etc/cdi, then /run/cdi ─────────────────┴► edits ─► env, mounts, nodes, groups of the container
//! ```
//!
//! GPUs have specs of our own making ([`crate::gpu::cdi`]), read like anybody's.
//!
//! Format: SPEC.md of the Container Device Interface, versions 0.5.0 to 1.0.0. A held device is one of these if, and
//! only if, its id is a qualified name; a PCI address never is. Of two specs with one device the later directory's
//! counts, and two in one directory are a conflict.
//!
//! A spec comes from a vendor, not from this project. So it is taken for what a container may be shown, and nothing
//! more: no hook (a program that would run as root on the host), no network interface of the host, no cache of another
//! lease; device nodes below `/dev` and as the host has them; mounts that bind, read-only unless `rw` is asked for,
//! never over `/proc`, `/sys`, `/dev` or the root.

mod apply;
mod spec;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use bulkhead_api::lease::Holding;

use crate::gpu;
use crate::oci::root::IDS;
pub use crate::tenant::cdi::apply::{Numbers, allow, apply};
use crate::tenant::cdi::spec::{ContainerEdits, Device, OTHERS_ID, Spec, parse};

/// Where specs are: what the image brings, and what was made since the host booted. The later counts.
pub const FOLDERS: [&str; 2] = ["etc/cdi", "run/cdi"];

/// Why a container does not get a device.
#[derive(Debug, thiserror::Error)]
pub enum CdiError {
    /// No spec has it.
    #[error("device {name} is in no CDI spec (*.json) of /etc/cdi and /run/cdi{}", unread(.broken))]
    Absent {
        /// The device.
        name: Name,
        /// Specs that could not be read: it may be in one of them.
        broken: Vec<String>,
    },
    /// Two specs of one directory have it.
    #[error("device {name} is in {} and in {}: which one counts is not told", .first.display(), .second.display())]
    Conflict {
        /// The device.
        name: Name,
        /// One spec.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// An edit that no container gets.
    #[error("CDI spec {}: {what}: {why}", .path.display())]
    Edit {
        /// The spec.
        path: PathBuf,
        /// The edit.
        what: String,
        /// Why not.
        why: &'static str,
    },
    /// A node that the host does not have as the spec says.
    #[error("device node {}: {why}", .path.display())]
    Node {
        /// On the host.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

fn unread(broken: &[String]) -> String {
    if broken.is_empty() { String::new() } else { format!("; not read: {}", broken.join("; ")) }
}

/// A qualified name, `vendor/class=name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    kind: String,
    device: String,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.kind, self.device)
    }
}

/// Not a qualified name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected vendor/class=name")]
pub struct NameError;

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (kind, device) = text.split_once('=').ok_or(NameError)?;
        let (vendor, class) = kind.split_once('/').ok_or(NameError)?;
        let label = |text: &str, others: &str, longest: usize| {
            let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
            let fine = |c: char| c.is_ascii_alphanumeric() || others.contains(c);
            ends(text.chars().next())
                && ends(text.chars().last())
                && text.len() <= longest
                && text.chars().all(fine)
        };
        let fits =
            label(vendor, "-_.", 253) && label(class, "-_.", 63) && label(device, "-_.:", 253);
        let name = Self { kind: kind.to_owned(), device: device.to_owned() };
        fits.then_some(name).ok_or(NameError)
    }
}

/// The devices of a lease that CDI specs describe.
#[must_use]
pub fn names(holding: &Holding) -> BTreeSet<Name> {
    let devices = holding.devices.iter().filter_map(|device| device.id.parse().ok());
    let gpus = holding
        .gpus
        .iter()
        .map(|gpu| Name { kind: gpu::cdi::KIND.to_owned(), device: gpu::cdi::device(gpu) });
    devices.chain(gpus).collect()
}

/// A file with a spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Which of [`FOLDERS`].
    pub folder: usize,
    /// Where.
    pub path: PathBuf,
    /// What it says, or why it cannot be read.
    pub text: Result<Vec<u8>, String>,
}

/// What a container is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edits {
    /// `NAME=VALUE`.
    pub env: Vec<String>,
    /// Device nodes.
    pub nodes: Vec<Node>,
    /// Directories and files of the host.
    pub mounts: Vec<Bind>,
    /// Groups of the container's program besides its own.
    pub groups: BTreeSet<u32>,
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// In the container, below `/dev`.
    pub path: PathBuf,
    /// On the host, below `/dev`.
    pub host: PathBuf,
    /// Kind and numbers, as far as the spec has them: `c` or `b`, major, minor.
    pub said: (Option<char>, Option<u64>, Option<u64>),
    /// Mode, owner and group in the container.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// `r`, `w`, both or neither. Nobody makes nodes.
    pub access: String,
}

/// A bind mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// On the host.
    pub source: PathBuf,
    /// In the container.
    pub destination: PathBuf,
    /// The spec asks for it.
    pub writable: bool,
    /// The spec forbids programs in it.
    pub noexec: bool,
}

/// What a container with these devices is given.
///
/// # Errors
/// [`CdiError`]: all of them, or none.
pub fn edits(files: &[File], names: &BTreeSet<Name>) -> Result<Edits, CdiError> {
    let (mut specs, mut broken) = (Vec::new(), Vec::new());
    for file in files {
        match file.text.as_ref().map_err(Clone::clone).and_then(|text| parse(text)) {
            Ok(spec) => specs.push((file, spec)),
            Err(why) => broken.push(format!("{}: {why}", file.path.display())),
        }
    }
    let mut edits = Edits::default();
    let mut whole = BTreeSet::new();
    for name in names {
        let mut found: Vec<(&File, &Spec, &Device)> = Vec::new();
        for (file, spec) in specs.iter().filter(|(_, spec)| spec.kind == name.kind) {
            let devices = spec.devices.iter().filter(|device| device.name == name.device);
            found.extend(devices.map(|device| (*file, spec, device)));
        }
        let last = found.iter().map(|(file, ..)| file.folder).max();
        found.retain(|(file, ..)| Some(file.folder) == last);
        let (file, spec, device) = match found[..] {
            [one] => one,
            [(first, ..), (second, ..), ..] => {
                let (first, second) = (first.path.clone(), second.path.clone());
                return Err(CdiError::Conflict { name: name.clone(), first, second });
            }
            [] => return Err(CdiError::Absent { name: name.clone(), broken }),
        };
        if whole.insert(&file.path) {
            edits.add(&file.path, &spec.container_edits)?;
        }
        edits.add(&file.path, &device.container_edits)?;
    }
    Ok(edits)
}

impl Edits {
    fn add(&mut self, path: &Path, more: &ContainerEdits) -> Result<(), CdiError> {
        let refuse = |what: String, why| CdiError::Edit { path: path.to_owned(), what, why };
        let hooks = !more.hooks.is_empty();
        for (there, what, why) in [
            (hooks, "hooks", "a vendor's program does not run on the host"),
            (!more.net_devices.is_empty(), "netDevices", "networks are given by the lease"),
            (more.intel_rdt.is_some(), "intelRdt", "caches are given by the lease"),
        ] {
            if there {
                return Err(refuse(what.to_owned(), why));
            }
        }
        for variable in &more.env {
            let name = variable.split_once('=').map(|(name, _)| name);
            if name.is_none_or(str::is_empty) || variable.contains('\0') {
                return Err(refuse(format!("env {variable:?}"), "expected NAME=VALUE"));
            }
            self.env.push(variable.clone());
        }
        for node in &more.device_nodes {
            let what = |why| refuse(format!("device node {:?}", node.path), why);
            self.nodes.push(node.check().map_err(what)?);
        }
        for mount in &more.mounts {
            let what = |why| refuse(format!("mount at {:?}", mount.container_path), why);
            self.mounts.push(mount.check().map_err(what)?);
        }
        for &group in more.additional_gids.iter().filter(|&&group| group != 0) {
            if group >= IDS {
                return Err(refuse(format!("additional group {group}"), OTHERS_ID));
            }
            self.groups.insert(group);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
