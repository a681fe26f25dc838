//! From numbers of device files to devices: what sysfs and the device mapper know of each, and what it lies on.
//!
//! ```text
//!  (holder, number, way) … ──► harmless: left out
//!                          ──► /sys/dev/{char,block}/M:m ──► DeviceFacts, each once with all its holders
//!  mappings of the host    ──► all of them, and the disks beneath
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use bulkhead_api::chain::Chain;
use bulkhead_api::inventory::{Gpu, PciFunction};
use bulkhead_api::isolation::{DeviceFacts, DeviceFile, DeviceKind, Holder, Stretch, Way};
use nix::errno::Errno;
use nix::sys::stat::{major, minor};

use super::gpu;
use super::mapping::{self, Mapping, SECTOR};
use super::reach::Reached;
use crate::storage::dm::{DeviceMapper, DmError};

/// Device files that give nothing of anybody's: null, zero, full, random, urandom, the own terminal, and the one that
/// makes terminals in the mount of devpts beside it (kernel `Documentation/admin-guide/devices.txt`).
const HARMLESS: [(u32, u32); 7] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)];
/// Pseudo terminals (the same).
const TERMINALS: std::ops::RangeInclusive<u32> = 136..=143;
const KVM: (u32, u32) = (10, 232);
const VFIO: (u32, u32) = (10, 196);
/// Devices on each other.
const DEPTH: usize = 8;

/// Reads every mapping of the host.
///
/// # Errors
/// What was not seen.
pub fn mappings(root: &Path) -> Result<Vec<Mapping>, String> {
    let names = match fs::read_dir(root.join("sys/block")) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        names => names.map_err(|error| format!("list /sys/block: {error}"))?,
    };
    let is_mapping = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with("dm-");
    // Where there is none the device mapper need not be there either.
    if !names.flatten().any(|entry| is_mapping(&entry)) {
        return Ok(Vec::new());
    }
    let failed = |error: DmError| Chain(&error).to_string();
    let mapper = DeviceMapper::open(root).map_err(failed)?;
    let mut mappings = Vec::new();
    for (name, number) in mapper.list().map_err(failed)? {
        match mapper.table(&name) {
            Ok(targets) => {
                let number = (number.major, number.minor);
                mappings.push(Mapping { name, number, targets });
            }
            // Gone meanwhile.
            Err(DmError::Refused { source: Errno::ENXIO, .. }) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(mappings)
}

/// What sysfs says of a block device.
struct Block {
    name: String,
    dir: PathBuf,
}

/// All devices, by name.
struct Devices<'a> {
    root: &'a Path,
    gpus: gpu::Nodes,
    mappings: &'a [Mapping],
    known: BTreeMap<String, DeviceFacts>,
}

/// Devices that leases reach, all mappings, and what lies beneath; those of the host's own with the host.
#[must_use]
pub fn devices(
    root: &Path,
    gpus: &[Gpu],
    mappings: &[Mapping],
    reached: &[(Holder, Reached)],
) -> Vec<DeviceFacts> {
    let gpus = gpu::Nodes::read(root, gpus);
    let mut devices = Devices { root, gpus, mappings, known: BTreeMap::new() };
    for (holder, reached) in reached {
        for &within in &reached.terminals {
            devices.terminals(within).reach(holder, Way::Mount);
        }
        for (seen, ways) in &reached.files {
            let DeviceFile { block, major, minor } = seen.file;
            if !block && HARMLESS.contains(&(major, minor)) {
                continue;
            }
            let device = match block {
                false if TERMINALS.contains(&major) => devices.terminals(seen.within),
                _ => {
                    let device = devices.device(seen.file);
                    devices.known.entry(device.name.clone()).or_insert(device)
                }
            };
            for &way in ways {
                device.reach(holder, way);
            }
        }
    }
    for mapping in mappings {
        let (major, minor) = mapping.number;
        let device = devices.device(DeviceFile { block: true, major, minor });
        devices.known.entry(device.name.clone()).or_insert(device);
    }
    devices.beneath();
    devices.hosts();
    devices.known.into_values().collect()
}

impl Devices<'_> {
    fn terminals(&mut self, (major, minor): (u32, u32)) -> &mut DeviceFacts {
        let name = format!("devpts {major}:{minor}");
        let device = DeviceFacts::new(&name, DeviceKind::Terminals);
        self.known.entry(name).or_insert(device)
    }

    fn device(&self, file: DeviceFile) -> DeviceFacts {
        let number = (file.major, file.minor);
        let (name, kind, group) = if file.block { self.block(number) } else { self.char(number) };
        let name = name.unwrap_or_else(|| file.to_string());
        DeviceFacts { file: Some(file), iommu_group: group, ..DeviceFacts::new(&name, kind) }
    }

    fn char(&self, (major, minor): (u32, u32)) -> (Option<String>, DeviceKind, Option<u32>) {
        match (major, minor) {
            KVM => return (Some("kvm".to_owned()), DeviceKind::Kvm, None),
            VFIO => return (Some("vfio/vfio".to_owned()), DeviceKind::VfioContainer, None),
            _ => {}
        }
        if let Some((name, kind)) = self.gpus.kind(major, minor) {
            return (Some(name), kind, None);
        }
        let dir = self.root.join(format!("sys/dev/char/{major}:{minor}"));
        let last =
            |path: PathBuf| fs::read_link(path).ok()?.file_name()?.to_str().map(str::to_owned);
        let (name, subsystem) = (last(dir.clone()), last(dir.join("subsystem")));
        match (name, subsystem.as_deref()) {
            (Some(name), Some("vfio")) if name.parse::<u32>().is_ok() => {
                let group = name.parse().ok();
                (Some(format!("vfio/{name}")), DeviceKind::VfioGroup, group)
            }
            (name, _) => {
                let file = DeviceFile { block: false, major, minor };
                (name.map(|name| format!("{name}, {file}")), DeviceKind::Unknown, None)
            }
        }
    }

    fn find(&self, (major, minor): (u32, u32)) -> Option<Block> {
        let dir =
            fs::canonicalize(self.root.join(format!("sys/dev/block/{major}:{minor}"))).ok()?;
        let name = dir.file_name()?.to_str()?.to_owned();
        Some(Block { name, dir })
    }

    fn block(&self, number: (u32, u32)) -> (Option<String>, DeviceKind, Option<u32>) {
        let Some(Block { name, dir }) = self.find(number) else {
            return (None, DeviceKind::Unknown, None);
        };
        let sectors = |file: &str| -> Option<u64> {
            let text = fs::read_to_string(dir.join(file)).ok()?;
            text.trim().parse::<u64>().ok()?.checked_mul(SECTOR)
        };
        let kind = if let Some(mapping) = self.mappings.iter().find(|m| m.number == number) {
            let read_only = fs::read_to_string(dir.join("ro")).is_ok_and(|text| text.trim() == "1");
            let called = |number| self.find(number).map(|block| block.name);
            mapping::kind(mapping, read_only, &called)
        } else if dir.join("partition").exists() {
            let disk = dir.parent().and_then(Path::file_name).and_then(|name| name.to_str());
            match (disk, sectors("start"), sectors("size")) {
                (Some(disk), Some(start), Some(length)) => {
                    let device = disk.to_owned();
                    DeviceKind::Partition { on: Stretch { device, start, length } }
                }
                _ => DeviceKind::Unknown,
            }
        } else if dir.join("dm").exists() {
            // It came after the tables were read.
            let name = fs::read_to_string(dir.join("dm/name")).unwrap_or_default();
            let name = name.trim().to_owned();
            DeviceKind::Mapping { name, key: None, under: Vec::new() }
        } else {
            DeviceKind::Disk
        };
        (Some(name), kind, None)
    }

    /// Adds what the known ones lie on.
    fn beneath(&mut self) {
        for _ in 0..DEPTH {
            let under = |device: &DeviceFacts| -> Vec<String> {
                if let DeviceKind::Partition { on } = &device.kind {
                    return vec![on.device.clone()];
                }
                let DeviceKind::Mapping { under, .. } = &device.kind else { return Vec::new() };
                under.iter().map(|stretch| stretch.device.clone()).collect()
            };
            let names: BTreeSet<String> = self.known.values().flat_map(under).collect();
            let missing: Vec<String> =
                names.into_iter().filter(|name| !self.known.contains_key(name)).collect();
            if missing.is_empty() {
                return;
            }
            for name in missing {
                let number =
                    fs::read_to_string(self.root.join("sys/class/block").join(&name).join("dev"));
                let number = number.ok().and_then(|text| {
                    let (major, minor) = text.trim().split_once(':')?;
                    Some((major.parse().ok()?, minor.parse().ok()?))
                });
                // Without a number it is a name of which nothing is known.
                let device = match number {
                    Some((major, minor)) => self.device(DeviceFile { block: true, major, minor }),
                    None => DeviceFacts::new(&name, DeviceKind::Unknown),
                };
                self.known.insert(name, device);
            }
        }
    }

    /// Disks and partitions are the host's, and so is its own mount of devpts.
    fn hosts(&mut self) {
        for device in self.known.values_mut() {
            if matches!(device.kind, DeviceKind::Disk | DeviceKind::Partition { .. }) {
                device.reach(&Holder::Host, Way::Own);
            }
        }
        if let Ok(own) = fs::metadata(self.root.join("dev/pts")) {
            let name = format!("devpts {}:{}", major(own.dev()), minor(own.dev()));
            if let Some(device) = self.known.get_mut(&name) {
                device.reach(&Holder::Host, Way::Own);
            }
        }
    }
}

/// Functions that have to be known where a lease has one: all but those of the host's on the root bus, which are behind
/// no bridge and in no group of theirs. None where no lease has one.
#[must_use]
pub fn functions(pci: &[PciFunction], devices: &[DeviceFacts]) -> Vec<PciFunction> {
    let groups: BTreeSet<u32> = devices.iter().filter_map(|device| device.iommu_group).collect();
    if groups.is_empty() && devices.iter().all(|device| device.bdf.is_none()) {
        return Vec::new();
    }
    let parents: BTreeSet<&str> = pci.iter().filter_map(|f| f.parent.as_deref()).collect();
    let matters = |function: &&PciFunction| {
        function.parent.is_some()
            || parents.contains(function.bdf.as_str())
            || function.iommu_group.is_some_and(|group| groups.contains(&group))
    };
    pci.iter().filter(matters).cloned().collect()
}
