//! A controller's own erase, by nvme-cli.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use super::{Capabilities, Erase, NoErase, Sanitize, choose};
use crate::class::ClassError;
use crate::storage::tool::{Said, output};

const PROGRAM: &str = "/usr/sbin/nvme";

/// Between two looks at a sanitize, which takes seconds or hours.
const PAUSE: Duration = Duration::from_secs(2);

fn nvme(doing: &str, args: &[&str], node: &Path) -> Result<Vec<u8>, ClassError> {
    let mut all: Vec<&OsStr> = args.iter().take(1).map(OsStr::new).collect();
    all.push(node.as_os_str());
    all.extend(args.iter().skip(1).map(OsStr::new));
    let refused = |why: String| {
        let doing = format!("{doing} {}", node.display());
        ClassError::Refused { doing, why }
    };
    let output = output(PROGRAM, &all).map_err(|error| refused(error.to_string()))?;
    if !output.status.success() {
        return Err(refused(Said::of(&output).text));
    }
    Ok(output.stdout)
}

/// Whether the subsystem of a namespace has other ones on this host, by the subsystem's name in sysfs (Linux,
/// drivers/nvme/host/sysfs.c: `subsysnqn`). One that does not say its name has, to be safe.
///
/// # Errors
/// The system's list of disks cannot be read.
pub fn has_others(root: &Path, name: &str) -> io::Result<bool> {
    let block = root.join("sys/block");
    let subsystem =
        |name: &OsStr| std::fs::read_to_string(block.join(name).join("device/subsysnqn"));
    let Ok(own) = subsystem(OsStr::new(name)) else { return Ok(true) };
    for entry in std::fs::read_dir(&block)? {
        let other = entry?.file_name();
        let is_nvme = other.to_string_lossy().starts_with("nvme") && other != *name;
        if is_nvme && subsystem(&other).map_or(true, |other| other == own) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Has the controller erase the namespace at `node`, in the best way that reaches no other one; blocks until it is
/// done. None where it has no such erase.
///
/// # Errors
/// [`ClassError::Refused`] with what the program said, and where a sanitize failed.
pub fn erase(node: &Path, others: bool) -> Result<Option<Erase>, ClassError> {
    let identify =
        nvme("identify the controller of", &["id-ctrl", "--output-format=binary"], node)?;
    let has = Capabilities::read(&identify).ok_or_else(|| ClassError::Refused {
        doing: format!("identify the controller of {}", node.display()),
        why: format!("{} bytes, expected 4096", identify.len()),
    })?;
    let erase = match choose(has, others) {
        Ok(erase) => erase,
        Err(NoErase::None | NoErase::ReachesOthers) => return Ok(None),
    };
    match erase {
        Erase::FormatCrypto => drop(nvme("format", &["format", "--ses=2", "--force"], node)?),
        Erase::FormatUser => drop(nvme("format", &["format", "--ses=1", "--force"], node)?),
        Erase::SanitizeCrypto => sanitize(node, "--sanact=4")?,
        Erase::SanitizeBlock => sanitize(node, "--sanact=2")?,
    }
    Ok(Some(erase))
}

/// One that goes on already is waited for first: a supervisor may have been cut while it waited.
fn sanitize(node: &Path, action: &str) -> Result<(), ClassError> {
    wait(node)?;
    nvme("sanitize", &["sanitize", action], node)?;
    match wait(node)? {
        Sanitize::Failed => Err(ClassError::Refused {
            doing: format!("sanitize {}", node.display()),
            why: "the controller says that it failed".to_owned(),
        }),
        Sanitize::Done | Sanitize::Running => Ok(()),
    }
}

fn wait(node: &Path) -> Result<Sanitize, ClassError> {
    loop {
        let log =
            nvme("read the sanitize log of", &["sanitize-log", "--output-format=binary"], node)?;
        match Sanitize::read(&log) {
            Some(Sanitize::Running) => sleep(PAUSE),
            Some(ended) => return Ok(ended),
            None => {
                let doing = format!("read the sanitize log of {}", node.display());
                let why = format!("no state of a sanitize in {} bytes", log.len());
                return Err(ClassError::Refused { doing, why });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_alone_only_when_every_other_names_another_subsystem() {
        let dir = tempfile::tempdir().unwrap();
        let add = |name: &str, subsystem: Option<&str>| {
            let device = dir.path().join("sys/block").join(name).join("device");
            std::fs::create_dir_all(&device).unwrap();
            if let Some(subsystem) = subsystem {
                std::fs::write(device.join("subsysnqn"), format!("{subsystem}\n")).unwrap();
            }
        };
        let alone = |name: &str| !has_others(dir.path(), name).unwrap();
        assert!(has_others(dir.path(), "nvme0n1").unwrap(), "it does not say its name");
        add("nvme0n1", Some("nqn.a"));
        add("vda", None);
        add("nvme1n1", Some("nqn.b"));
        assert!(alone("nvme0n1"));
        add("nvme1n2", Some("nqn.b"));
        assert!(alone("nvme0n1") && !alone("nvme1n1"));
        add("nvme2n1", None);
        assert!(!alone("nvme0n1"));
    }

    #[test]
    fn what_is_no_controller_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let node = dir.path().join("nvme0n1");
        std::fs::write(&node, b"").unwrap();
        let error = erase(&node, false).unwrap_err().to_string();
        assert!(error.starts_with("identify the controller of") && error.contains("nvme0n1"));
    }
}
