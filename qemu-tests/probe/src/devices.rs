//! Devices: those that have a name, those that are made by number, and the disks of others.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use crate::attempt::Report;
use crate::sys::make_node;

/// Devices that every program has, and which reach nothing.
const HARMLESS: [&str; 8] = ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "console"];

/// Character devices that would be a way out: name, major, minor (Linux, Documentation/admin-guide/devices.txt).
const DANGEROUS: [(&str, u32, u32); 6] = [
    ("mem", 1, 1),
    ("port", 1, 4),
    ("kmsg", 1, 11),
    ("kvm", 10, 232),
    ("loop-control", 10, 237),
    ("device-mapper", 10, 236),
];

pub(crate) fn nodes(report: &mut Report) {
    for path in found(Path::new("/dev")) {
        let open = || OpenOptions::new().read(true).write(true).open(&path).map(drop);
        report.attempt(&path.display().to_string(), open);
    }
    for (name, major, minor) in DANGEROUS {
        let path = PathBuf::from("/dev").join(name);
        report.attempt(&format!("open-{name}"), || File::open(path).map(drop));
        report.attempt(&format!("mknod-{name}"), || {
            with_node(libc::S_IFCHR, major, minor, |path| File::open(path).map(drop))
        });
    }
}

/// Raw disks by number: those that the kernel lists, and the first of each mapper and NVMe drive.
pub(crate) fn volumes(report: &mut Report) {
    let list = fs::read_to_string("/proc/partitions").unwrap_or_default();
    let listed = list.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let major = words.next()?.parse().ok()?;
        Some((major, words.next()?.parse().ok()?))
    });
    let guessed = [253, 254, 259].into_iter().flat_map(|major| (0..4).map(move |n| (major, n)));
    let mut disks: Vec<(u32, u32)> = listed.chain(guessed).collect();
    disks.sort_unstable();
    disks.dedup();
    for (major, minor) in disks {
        report.attempt(&format!("disk-{major}:{minor}"), || {
            with_node(libc::S_IFBLK, major, minor, |path| {
                let mut sector = [0; 512];
                File::open(path)?.read_exact(&mut sector)
            })
        });
    }
}

/// Makes a node wherever that is possible and uses it.
fn with_node(
    kind: u32,
    major: u32,
    minor: u32,
    using: impl Fn(&str) -> io::Result<()>,
) -> io::Result<()> {
    // Of several refusals the first is told: it is of a folder that can be written to.
    let mut first = None;
    for folder in ["/tmp", "/dev/shm", "/run", "/dev"] {
        let path = format!("{folder}/probe-node");
        match make_node(&path, kind, major, minor) {
            Ok(()) => {
                let used = using(&path);
                fs::remove_file(&path)?;
                match used {
                    Ok(()) => return Ok(()),
                    Err(error) => first = first.or(Some(error)),
                }
            }
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.unwrap_or_else(|| io::Error::from_raw_os_error(libc::ENOENT)))
}

/// Device nodes below a folder that are not harmless.
fn found(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && name != "pts" && name != "shm" && name != "mqueue" {
            all.extend(found(&path));
        } else if (kind.is_char_device() || kind.is_block_device())
            && !HARMLESS.iter().any(|harmless| name == *harmless)
        {
            all.push(path);
        }
    }
    all
}
