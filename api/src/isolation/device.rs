//! Devices that leases reach, each once, with everybody who reaches it.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Holder;

/// Number of a device file: `c 10:232` of `/dev/kvm`, `b 253:0` of a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceFile {
    /// A block device; else a character device. The two count apart.
    pub block: bool,
    /// Driver.
    pub major: u32,
    /// Device of the driver.
    pub minor: u32,
}

impl fmt::Display for DeviceFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.block { 'b' } else { 'c' };
        write!(f, "{kind} {}:{}", self.major, self.minor)
    }
}

impl From<DeviceFile> for String {
    fn from(file: DeviceFile) -> Self {
        file.to_string()
    }
}

impl TryFrom<String> for DeviceFile {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parts = text.split_once(' ').and_then(|(kind, number)| {
            let (major, minor) = number.split_once(':')?;
            let block = match kind {
                "b" => true,
                "c" => false,
                _ => return None,
            };
            Some(Self { block, major: major.parse().ok()?, minor: minor.parse().ok()? })
        });
        // What reads must write back as it was: `c 01:3` is no number of the kernel's.
        let known = parts.filter(|file| file.to_string() == text);
        known.ok_or_else(|| format!("{text:?}: expected c MAJOR:MINOR or b MAJOR:MINOR"))
    }
}

/// Part of a device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Stretch {
    /// Which: its [`DeviceFacts::name`].
    pub device: String,
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub length: u64,
}

/// What a device is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum DeviceKind {
    /// `/dev/kvm`: whoever opens it makes virtual machines of their own. Shared by design.
    Kvm,
    /// `/dev/vfio/vfio`: opens nothing before it is given a group.
    VfioContainer,
    /// `/dev/vfio/N`: all functions of IOMMU group N.
    VfioGroup,
    /// Pseudo terminals of one mount of devpts.
    Terminals,
    /// The host's verified, read-only root file system or one of its layers. Shared by design.
    Image,
    /// A whole disk.
    Disk,
    /// A partition.
    Partition {
        /// Where.
        on: Stretch,
    },
    /// A mapping of the device mapper.
    Mapping {
        /// Its name there.
        name: String,
        /// Description or digest of the key that encrypts it; absent where nothing does.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        /// What it consists of, in order; empty where that is not known.
        under: Vec<Stretch>,
    },
    /// A virtual function of a network card.
    Vf {
        /// PCI address of the card's own function.
        pf: String,
        /// Which of it.
        number: u32,
        /// It may take any address and hear everything.
        trust: bool,
        /// The card drops frames with addresses of others.
        spoof_check: bool,
    },
    /// Any other network interface.
    Interface,
    /// What every program on a GPU opens, and the node of a GPU that is cut into slices: nothing of a GPU's is reached by it
    /// without the nodes of a slice. Shared by design.
    GpuControl,
    /// A whole GPU.
    Gpu,
    /// A part of a GPU (MIG).
    GpuSlice {
        /// Which: its [`DeviceFacts::name`].
        gpu: String,
        /// GPU instance: memory and caches of its own.
        gpu_instance: u32,
        /// Compute instance within it; absent for the GPU instance's own node.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        compute_instance: Option<u32>,
    },
    /// Nothing is known of it.
    Unknown,
}

/// Where a network device is joined with others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Port {
    /// The card or the bridge.
    pub on: String,
    /// VLAN of its frames; absent = untagged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// VXLAN network; absent = none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vni: Option<u32>,
}

/// By which way somebody reaches a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Way {
    /// Open in a process.
    Open,
    /// A device file in its file system.
    Node,
    /// A file system on it is mounted.
    Mount,
    /// It is the host's, by what it is.
    Own,
}

/// Somebody who reaches a device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Reach {
    /// Who.
    pub holder: Holder,
    /// How.
    pub ways: BTreeSet<Way>,
}

/// A device with everybody who reaches it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceFacts {
    /// The kernel's name, unique among the facts: `dm-3`, `vfio/12`, `0000:c1:00.2`.
    pub name: String,
    /// What it is.
    pub kind: DeviceKind,
    /// Number of its file; absent where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<DeviceFile>,
    /// PCI function that it is; absent for what is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bdf: Option<String>,
    /// IOMMU group of that function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iommu_group: Option<u32>,
    /// Where a network device is joined with others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Port>,
    /// Who reaches it, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<Reach>,
}

impl DeviceFacts {
    /// A device that nobody reaches.
    #[must_use]
    pub fn new(name: &str, kind: DeviceKind) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            file: None,
            bdf: None,
            iommu_group: None,
            port: None,
            holders: Vec::new(),
        }
    }

    /// Adds somebody, or one more way of theirs.
    pub fn reach(&mut self, holder: &Holder, way: Way) {
        match self.holders.iter_mut().find(|reach| reach.holder == *holder) {
            Some(reach) => drop(reach.ways.insert(way)),
            None => {
                self.holders.push(Reach { holder: holder.clone(), ways: BTreeSet::from([way]) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_file_reads_as_it_writes_and_nothing_else_reads() {
        let file = DeviceFile { block: true, major: 253, minor: 7 };
        let text = serde_json::to_string(&file).unwrap();
        assert_eq!(text, "\"b 253:7\"");
        assert_eq!(serde_json::from_str::<DeviceFile>(&text).unwrap(), file);
        for odd in ["", "b", "b 1", "x 1:2", "c 01:2", "c 1:2:3", "c -1:2", "c 1: 2"] {
            assert!(DeviceFile::try_from(odd.to_owned()).is_err(), "{odd}");
        }
    }

    #[test]
    fn who_reaches_a_device_by_two_ways_is_listed_once() {
        let mut device = DeviceFacts::new("dm-1", DeviceKind::Unknown);
        device.reach(&Holder::Host, Way::Open);
        device.reach(&Holder::Host, Way::Mount);
        assert_eq!(device.holders.len(), 1);
        assert_eq!(device.holders[0].ways, BTreeSet::from([Way::Open, Way::Mount]));
    }
}
