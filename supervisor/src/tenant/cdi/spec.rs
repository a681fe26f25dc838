//! The format of a CDI spec, and what of it a container may be shown.

use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::{Bind, Node};
use crate::oci::root::IDS;

/// Versions that are read. A version adds fields, and an unknown field is refused.
const VERSIONS: [&str; 5] = ["0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0"];

/// What a mount is never laid over, and never taken from.
const RESERVED: [&str; 3] = ["/proc", "/sys", "/dev"];

/// What a container has of its own in `/dev`.
const OWN: [&str; 12] = [
    "console", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "tty", "urandom",
    "zero",
];

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Spec {
    pub(super) cdi_version: String,
    pub(super) kind: String,
    #[serde(default, rename = "annotations")]
    _annotations: Value,
    pub(super) devices: Vec<Device>,
    #[serde(default)]
    pub(super) container_edits: ContainerEdits,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Device {
    pub(super) name: String,
    #[serde(default, rename = "annotations")]
    _annotations: Value,
    #[serde(default)]
    pub(super) container_edits: ContainerEdits,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct ContainerEdits {
    pub(super) env: Vec<String>,
    pub(super) device_nodes: Vec<DeviceNode>,
    pub(super) mounts: Vec<SpecMount>,
    pub(super) additional_gids: Vec<u32>,
    pub(super) hooks: Vec<Value>,
    pub(super) net_devices: Vec<Value>,
    pub(super) intel_rdt: Option<Value>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DeviceNode {
    pub(super) path: String,
    pub(super) host_path: Option<String>,
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) file_mode: Option<u32>,
    pub(super) permissions: Option<String>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SpecMount {
    pub(super) host_path: String,
    pub(super) container_path: String,
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    #[serde(default)]
    pub(super) options: Vec<String>,
}

pub(super) fn parse(text: &[u8]) -> Result<Spec, String> {
    let spec: Spec = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if !VERSIONS.contains(&spec.cdi_version.as_str()) {
        return Err(format!("its cdiVersion {:?} is not known", spec.cdi_version));
    }
    Ok(spec)
}

pub(super) const OTHERS_ID: &str = "no such id in a container";

impl DeviceNode {
    pub(super) fn check(&self) -> Result<Node, &'static str> {
        let host = self.host_path.as_ref().filter(|path| !path.is_empty()).unwrap_or(&self.path);
        let (path, host) = (device(&self.path)?, device(host)?);
        let own = path.iter().nth(2).and_then(|name| name.to_str());
        if own.is_some_and(|name| OWN.contains(&name)) {
            return Err("a container has its own");
        }
        let kind = match self.kind.as_deref() {
            None | Some("") => None,
            Some("c" | "u") => Some('c'),
            Some("b") => Some('b'),
            Some(_) => return Err("its type is neither c nor b"),
        };
        if [self.uid, self.gid].into_iter().flatten().any(|id| id >= IDS) {
            return Err(OTHERS_ID);
        }
        let access = match self.permissions.as_deref() {
            None | Some("") => "rw".to_owned(),
            Some("none") => String::new(),
            Some(text) if text.chars().all(|c| "rwm".contains(c)) => {
                "rw".chars().filter(|&c| text.contains(c)).collect()
            }
            Some(_) => return Err("its permissions are not of r, w and m"),
        };
        let (mode, said) =
            (self.file_mode.map(|mode| mode & 0o777), (kind, self.major, self.minor));
        Ok(Node { path, host, said, mode, uid: self.uid, gid: self.gid, access })
    }
}

impl SpecMount {
    pub(super) fn check(&self) -> Result<Bind, &'static str> {
        if !matches!(self.kind.as_deref(), None | Some("" | "none" | "bind")) {
            return Err("only binds of the host's files are given");
        }
        let mut bind = Bind {
            source: plain(&self.host_path).ok_or("hostPath is not absolute and plain")?,
            destination: plain(&self.container_path)
                .ok_or("containerPath is not absolute and plain")?,
            writable: false,
            noexec: false,
        };
        let reserved = |path: &Path| RESERVED.iter().any(|held| path.starts_with(held));
        if reserved(&bind.source) || reserved(&bind.destination) {
            return Err("nothing is taken from or laid over /proc, /sys and /dev");
        }
        let mut read_only = false;
        for option in &self.options {
            match option.as_str() {
                "bind" | "rbind" | "nosuid" | "nodev" | "private" | "rprivate" => {}
                "ro" => read_only = true,
                "rw" => bind.writable = true,
                "noexec" => bind.noexec = true,
                _ => return Err("it has an option that is not known here"),
            }
        }
        bind.writable &= !read_only;
        Ok(bind)
    }
}

/// An absolute path without `.`, `..` and the root alone.
fn plain(text: &str) -> Option<PathBuf> {
    let path = Path::new(text);
    let mut parts = path.components();
    let absolute = parts.next() == Some(Component::RootDir) && !text.contains('\0');
    let rest: PathBuf = parts.clone().collect();
    let plain = absolute && parts.all(|part| matches!(part, Component::Normal(_)));
    // `components` leaves a dot out; such a path is not plain either.
    let dots = text.split('/').any(|part| part == ".");
    (plain && !dots && !rest.as_os_str().is_empty()).then(|| Path::new("/").join(rest))
}

fn device(text: &str) -> Result<PathBuf, &'static str> {
    let path = plain(text).ok_or("its path is not absolute and plain")?;
    let below = path.starts_with("/dev") && path.components().count() > 2;
    below.then_some(path).ok_or("it is not below /dev")
}
