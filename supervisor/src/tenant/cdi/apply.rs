//! Edits laid over a container's configuration, and what its unit may use of devices.

use std::io;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, Mount, Spec};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{CdiError, Edits, Node};
use crate::tenant::bundle::BundleError;

/// Kind and numbers of a device node of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// `c` or `b`.
    pub kind: char,
    /// Its driver.
    pub major: u64,
    /// Which of the driver's.
    pub minor: u64,
}

/// How a node of the host is looked at.
type Look<'a> = &'a dyn Fn(&Path) -> io::Result<Numbers>;

impl Node {
    /// Whatever a spec says: the host's node is the one that counts, and they agree.
    fn numbers(&self, look: Look<'_>) -> Result<Numbers, CdiError> {
        let error = |why: String| CdiError::Node { path: self.host.clone(), why };
        let found = look(&self.host).map_err(|source| error(source.to_string()))?;
        let (kind, major, minor) = self.said;
        // Absent and 0 are the same in a spec; of a minor, only beside a major.
        let major = major.filter(|&major| major != 0);
        let minor = minor.filter(|_| major.is_some());
        let said = Numbers {
            kind: kind.unwrap_or(found.kind),
            major: major.unwrap_or(found.major),
            minor: minor.unwrap_or(found.minor),
        };
        if said != found {
            let text = |n: Numbers| format!("{} {}:{}", n.kind, n.major, n.minor);
            return Err(error(format!("it is {}, its CDI spec says {}", text(found), text(said))));
        }
        Ok(found)
    }
}

/// Lays edits over a configuration. Nodes and mounts that are there twice are there once, as the last edit says.
///
/// # Errors
/// [`BundleError::Cdi`]: a node that the host does not have so.
pub fn apply(config: &mut Spec, edits: &Edits, look: Look<'_>) -> Result<(), BundleError> {
    if let Some(process) = config.process_mut() {
        let env = process.env_mut().get_or_insert_default();
        for variable in &edits.env {
            let name = |text: &str| text.split('=').next().map(ToOwned::to_owned);
            env.retain(|old| name(old) != name(variable));
            env.push(variable.clone());
        }
        let groups = process.user_mut().additional_gids_mut();
        if !edits.groups.is_empty() {
            groups.get_or_insert_default().extend(&edits.groups);
        }
    }
    let mut mounts: Vec<(PathBuf, Value)> = Vec::new();
    let mut devices: Vec<(PathBuf, Value)> = Vec::new();
    for node in &edits.nodes {
        let Numbers { kind, major, minor } = node.numbers(look).map_err(BundleError::Cdi)?;
        if node.path == node.host {
            let device = json!({
                "path": node.path, "type": kind.to_string(), "major": major, "minor": minor,
                "fileMode": node.mode, "uid": node.uid, "gid": node.gid,
            });
            put(&mut devices, &node.path, device);
        } else {
            // In a user namespace crun binds a node from the same path of the host: another path is bound here.
            let options = ["bind", "rw", "nosuid", "noexec"];
            let mount = json!({ "destination": node.path, "type": "bind", "source": node.host, "options": options });
            put(&mut mounts, &node.path, mount);
        }
    }
    for bind in &edits.mounts {
        let mut options = vec!["bind", "nosuid", "nodev", if bind.writable { "rw" } else { "ro" }];
        options.extend(bind.noexec.then_some("noexec"));
        let mount = json!({ "destination": bind.destination, "type": "bind", "source": bind.source, "options": options });
        put(&mut mounts, &bind.destination, mount);
    }
    // What lies below another mount comes after it.
    mounts.sort_by_key(|(path, _)| path.components().count());
    if !mounts.is_empty() {
        config.mounts_mut().get_or_insert_default().extend(typed::<Mount>(mounts)?);
    }
    if let Some(linux) = config.linux_mut()
        && !devices.is_empty()
    {
        linux.devices_mut().get_or_insert_default().extend(typed::<LinuxDevice>(devices)?);
    }
    Ok(())
}

fn put(list: &mut Vec<(PathBuf, Value)>, path: &Path, value: Value) {
    list.retain(|(old, _)| old != path);
    list.push((path.to_owned(), value));
}

fn typed<T: DeserializeOwned>(list: Vec<(PathBuf, Value)>) -> Result<Vec<T>, BundleError> {
    let values = list.into_iter().map(|(_, value)| serde_json::from_value(value));
    values.collect::<Result<_, _>>().map_err(BundleError::Form)
}

/// What a container's unit may use: device by number, whatever is at a path later, and how.
///
/// # Errors
/// [`CdiError::Node`].
pub fn allow(edits: &Edits, look: Look<'_>) -> Result<Vec<(String, String)>, CdiError> {
    let used = edits.nodes.iter().filter(|node| !node.access.is_empty());
    used.map(|node| {
        let Numbers { kind, major, minor } = node.numbers(look)?;
        let folder = if kind == 'b' { "block" } else { "char" };
        Ok((format!("/dev/{folder}/{major}:{minor}"), node.access.clone()))
    })
    .collect()
}
