//! Whole disks and their partitions from sysfs, below a root given by value.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::claim::check::Surroundings;
use super::mounts::Mounts;

/// Number of a block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceNumber {
    /// Driver.
    pub major: u32,
    /// Device.
    pub minor: u32,
}

impl DeviceNumber {
    /// `259:3`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.trim().split_once(':')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

impl std::fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// A whole disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockDisk {
    /// Kernel name, `nvme0n1`.
    pub name: String,
    /// Its device node.
    pub node: PathBuf,
    /// Its number.
    pub number: DeviceNumber,
    /// Bytes.
    pub size: u64,
    /// Bytes of a logical sector.
    pub sector: u32,
    /// Its partitions, by start.
    pub partitions: Vec<Partition>,
    /// Why it is no disk for us whatever it holds.
    pub unfit: Option<String>,
    /// Who holds it or a partition of it: names of other block devices.
    pub holders: Vec<String>,
}

/// A partition as the kernel sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its device node.
    pub node: PathBuf,
    /// Its number.
    pub number: DeviceNumber,
    /// First byte on the disk.
    pub start: u64,
    /// Bytes.
    pub size: u64,
}

impl BlockDisk {
    /// The partition that starts at a byte.
    #[must_use]
    pub fn partition(&self, start: u64) -> Option<&Partition> {
        self.partitions.iter().find(|partition| partition.start == start)
    }

    /// What the kernel knows of it.
    #[must_use]
    pub fn surroundings(&self, mounts: &Mounts, swaps: &str) -> Surroundings {
        let numbers = || {
            let parts = self.partitions.iter().map(|partition| partition.number);
            std::iter::once(self.number).chain(parts)
        };
        let nodes = || {
            let parts = self.partitions.iter().map(|partition| &partition.node);
            std::iter::once(&self.node).chain(parts)
        };
        let mounted = mounts.0.iter().find(|mount| numbers().any(|n| n == mount.device));
        let swap = || {
            let first = |line: &str| line.split(' ').next().map(PathBuf::from);
            let mut used = swaps.lines().skip(1).filter_map(first);
            used.find(|path| nodes().any(|node| node == path))
        };
        let used = if let Some(mount) = mounted {
            Some(format!("mounted at {}", mount.point.display()))
        } else if let Some(holder) = self.holders.first() {
            Some(format!("held by {holder}"))
        } else {
            swap().map(|path| format!("{} is swap", path.display()))
        };
        Surroundings { partitions: self.partitions.len(), used, unfit: self.unfit.clone() }
    }
}

/// Every whole disk that has hardware behind it, by name. One that vanishes meanwhile is left out.
///
/// # Errors
/// `/sys/block` cannot be listed.
pub fn all(root: &Path) -> io::Result<Vec<BlockDisk>> {
    let mut disks: Vec<BlockDisk> =
        names(&root.join("sys/block"))?.iter().filter_map(|name| one(root, name)).collect();
    disks.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(disks)
}

/// One of them. `None` for what is no disk: loop devices, mappings, optical drives, paths of a multipath disk.
#[must_use]
pub fn one(root: &Path, name: &str) -> Option<BlockDisk> {
    let below = root.join("sys/block").join(name);
    let flag = |file: &str| text(&below.join(file)).as_deref() == Some("1");
    if !below.join("device").exists() || name.starts_with("sr") || flag("hidden") {
        return None;
    }
    let unfit = if flag("removable") {
        Some("removable".to_owned())
    } else {
        flag("ro").then(|| "read-only".to_owned())
    };
    let mut holders = names(&below.join("holders")).unwrap_or_default();
    let mut partitions = Vec::new();
    for entry in names(&below).unwrap_or_default() {
        let part = below.join(&entry);
        if !part.join("partition").exists() {
            continue;
        }
        holders.extend(names(&part.join("holders")).unwrap_or_default());
        partitions.push(Partition {
            node: root.join("dev").join(&entry),
            number: DeviceNumber::parse(&text(&part.join("dev"))?)?,
            start: sectors(&part.join("start"))?,
            size: sectors(&part.join("size"))?,
        });
    }
    partitions.sort_by_key(|partition| partition.start);
    Some(BlockDisk {
        node: root.join("dev").join(name),
        number: DeviceNumber::parse(&text(&below.join("dev"))?)?,
        size: sectors(&below.join("size"))?,
        sector: text(&below.join("queue/logical_block_size"))?.parse().ok()?,
        name: name.to_owned(),
        partitions,
        unfit,
        holders,
    })
}

/// sysfs counts in 512 bytes whatever the device's sectors are.
fn sectors(path: &Path) -> Option<u64> {
    text(path)?.parse::<u64>().ok()?.checked_mul(512)
}

fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn names(dir: &Path) -> io::Result<Vec<String>> {
    match fs::read_dir(dir) {
        Ok(entries) => {
            Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = root.join("sys/block").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    fn machine() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        put(
            root.path(),
            &[
                ("vda/device/model", "x"),
                ("vda/dev", "254:0\n"),
                ("vda/size", "4194304\n"),
                ("vda/queue/logical_block_size", "512\n"),
                ("vda/vda1/partition", "1\n"),
                ("vda/vda1/dev", "254:1\n"),
                ("vda/vda1/start", "8192\n"),
                ("vda/vda1/size", "131072\n"),
                ("dm-0/dev", "253:0\n"),
                ("sr0/device/model", "dvd"),
            ],
        );
        root
    }

    #[test]
    fn disks_are_read_with_their_partitions_and_mappings_are_none() {
        let root = machine();
        let disks = all(root.path()).unwrap();
        assert_eq!(disks.len(), 1);
        assert_eq!((disks[0].size, disks[0].sector), (2 << 30, 512));
        let part = disks[0].partition(4 << 20).unwrap();
        assert_eq!((part.size, part.number.to_string().as_str()), (64 << 20, "254:1"));
        assert!(part.node.ends_with("dev/vda1"));
        assert_eq!(disks[0].unfit, None);
    }

    #[test]
    fn a_disk_is_in_use_by_mount_holder_or_swap_of_any_part() {
        let root = machine();
        let disk = || one(root.path(), "vda").unwrap();
        let none = Mounts::default();
        assert_eq!(disk().surroundings(&none, "").used, None);
        let mounts = Mounts::parse(b"30 1 254:1 / /mnt rw - ext4 /dev/vda1 rw\n");
        let used = disk().surroundings(&mounts, "").used;
        assert_eq!(used.as_deref(), Some("mounted at /mnt"));
        let node = disk().partitions[0].node.clone();
        let swaps = format!("Filename Type\n{} partition 1 0 -2\n", node.display());
        assert!(disk().surroundings(&none, &swaps).used.unwrap().ends_with("vda1 is swap"));
        fs::create_dir_all(root.path().join("sys/block/vda/vda1/holders/md0")).unwrap();
        let used = disk().surroundings(&none, "").used;
        assert_eq!(used.as_deref(), Some("held by md0"));
    }

    #[test]
    fn removable_and_read_only_disks_are_not_for_us() {
        let root = machine();
        put(root.path(), &[("vda/ro", "1\n")]);
        assert_eq!(one(root.path(), "vda").unwrap().unfit.as_deref(), Some("read-only"));
        put(root.path(), &[("vda/removable", "1\n")]);
        assert_eq!(one(root.path(), "vda").unwrap().unfit.as_deref(), Some("removable"));
    }

    #[test]
    fn a_machine_without_disks_has_none() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(all(root.path()).unwrap(), []);
    }
}
