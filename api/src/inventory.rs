//! What a host is made of, as its supervisor observed it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::id::{MacAddr, SystemUuid};
use crate::mig::{Geometry, Instance};
use crate::resource::PageSize;
use crate::units::Bytes;

/// A host's hardware. Lists are ordered by their key so that equal hosts give equal documents.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Inventory {
    /// `/sys/class/dmi/id/product_uuid`; absent where the firmware has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_uuid: Option<SystemUuid>,
    /// Board and firmware.
    pub firmware: Firmware,
    /// Version of the running kernel.
    pub kernel: String,
    /// Version of the running image.
    pub image: String,
    /// Processors.
    pub cpu: CpuTopology,
    /// Memory by node.
    pub memory: Vec<NumaNode>,
    /// Network interfaces backed by a device.
    pub nics: Vec<Nic>,
    /// Whole disks.
    pub disks: Vec<Disk>,
    /// PCI functions.
    pub pci: Vec<PciFunction>,
    /// PTP hardware clocks.
    pub ptp_clocks: Vec<PtpClock>,
    /// Trusted platform module; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tpm: Option<Tpm>,
    /// GPUs that NVML reports; empty where there is no driver (see `problems`).
    pub gpus: Vec<Gpu>,
    /// What could not be read, one sentence an object (law 4: an unreadable device fails alone).
    pub problems: Vec<String>,
}

/// DMI strings of the machine; empty where the firmware has none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Firmware {
    /// `sys_vendor`.
    pub vendor: String,
    /// `product_name`.
    pub product: String,
    /// `product_serial`.
    pub serial: String,
    /// `bios_version`.
    pub bios_version: String,
    /// Booted by UEFI (`/sys/firmware/efi` is there).
    pub uefi: bool,
    /// The UEFI variable `SecureBoot` is 1.
    pub secure_boot: bool,
}

/// Processors of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct CpuTopology {
    /// `model name` of `/proc/cpuinfo`.
    pub model: String,
    /// Physical cores, ordered by their lowest CPU number.
    pub cores: Vec<Core>,
    /// Caches that are shared or private, one entry an instance.
    pub caches: Vec<Cache>,
    /// How the processor parts last-level caches and memory bandwidth; absent where it cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resctrl: Option<Resctrl>,
}

/// What `/sys/fs/resctrl/info` offers (Linux, Documentation/arch/x86/resctrl.rst).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Resctrl {
    /// Groups that can exist, the default one among them: the least `num_closids`.
    pub groups: u32,
    /// Ways of a last-level cache (`L3/cbm_mask`, number of bits).
    pub ways: u32,
    /// Fewest ways of a group (`L3/min_cbm_bits`).
    pub min_ways: u32,
    /// Ways that devices fill as well (`L3/shareable_bits`), as a mask.
    pub shareable: u64,
    /// Least bandwidth in percent (`MB/min_bandwidth`); absent where bandwidth cannot be bounded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_bandwidth_percent: Option<u8>,
    /// Step of bandwidth in percent (`MB/bandwidth_gran`).
    pub bandwidth_step_percent: u8,
}

/// A physical core: the unit that is leased. Its SMT siblings always go together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Core {
    /// `topology/physical_package_id`.
    pub socket: u32,
    /// `topology/core_id`, unique within the socket.
    pub id: u32,
    /// NUMA node of its CPUs.
    pub node: u32,
    /// Logical CPUs of the core (`topology/thread_siblings_list`).
    pub cpus: BTreeSet<u32>,
}

/// One cache instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Cache {
    /// 1, 2, 3.
    pub level: u8,
    /// `Data`, `Instruction` or `Unified` (`cache/indexN/type`).
    pub kind: String,
    /// Its number among those of its level (`cache/indexN/id`); absent where the kernel has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    /// Its size.
    pub size: Bytes,
    /// Logical CPUs that share it.
    pub cpus: BTreeSet<u32>,
}

/// Memory of one NUMA node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct NumaNode {
    /// Node number.
    pub id: u32,
    /// `MemTotal` of the node.
    pub total: Bytes,
    /// Logical CPUs of the node.
    pub cpus: BTreeSet<u32>,
    /// Huge pages of the node, by size ascending; sizes that the kernel does not offer are absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hugepages: Vec<HugepagePool>,
}

/// Huge pages of one size on one node (`/sys/devices/system/node/nodeN/hugepages/hugepages-*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct HugepagePool {
    /// Size of each.
    pub page_size: PageSize,
    /// `nr_hugepages`.
    pub total: u64,
    /// `free_hugepages`.
    pub free: u64,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Nic {
    /// Name of the interface.
    pub name: String,
    /// Its hardware address.
    pub mac: MacAddr,
    /// Driver of its device.
    pub driver: String,
    /// PCI address of its function, `0000:c1:00.0`; absent for other buses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bdf: Option<String>,
    /// Link speed in Mbit/s; absent where unknown or down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed_mbps: Option<u32>,
    /// Carrier is on.
    pub up: bool,
    /// Most virtual functions that the device offers (`sriov_totalvfs`); 0 without SR-IOV.
    #[serde(default)]
    pub total_vfs: u32,
    /// PCI addresses of the virtual functions that exist.
    #[serde(default)]
    pub vfs: Vec<String>,
}

/// A whole disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Disk {
    /// Kernel name, `nvme0n1`.
    pub name: String,
    /// `nvme`, `virtio`, `scsi` or the subsystem's name.
    pub transport: String,
    /// Model; empty where the device has none.
    pub model: String,
    /// Serial number; empty where the device has none.
    pub serial: String,
    /// Size.
    pub size: Bytes,
    /// Spins (`queue/rotational`).
    pub rotational: bool,
    /// PCI address of its controller; absent for other buses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bdf: Option<String>,
    /// NUMA node of its controller; absent where the platform does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<u32>,
    /// What is on it, as far as Bulkhead goes.
    #[serde(default)]
    pub claim: DiskClaim,
}

/// Whether a disk may hold volumes of leases.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(tag = "state", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum DiskClaim {
    /// Not looked at yet.
    #[default]
    Unknown,
    /// Nothing on it: it is claimed at the next opportunity.
    Blank,
    /// Bulkhead's: a part for the host's state, the rest a pool for volumes.
    Pool {
        /// GUID of its partition table, lower case.
        id: String,
        /// Bytes of the pool, a multiple of the extent.
        size: Bytes,
    },
    /// Something else is on it: never touched.
    Foreign {
        /// What was found, a sentence.
        what: String,
    },
}

/// A PCI function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct PciFunction {
    /// `0000:c1:00.0`.
    pub bdf: String,
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Class code, 24 bits.
    pub class: u32,
    /// Bound driver; absent where none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// IOMMU group; absent where the IOMMU is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iommu_group: Option<u32>,
    /// NUMA node; absent where the platform does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<u32>,
    /// Bridge above it; absent at a root bus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Of a bridge port: access control services keep what is below apart (PCIe 4.0, 6.12). Absent where it
    /// could not be read or is no bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acs: Option<bool>,
}

/// A PTP hardware clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct PtpClock {
    /// `ptp0`.
    pub name: String,
    /// `clock_name`.
    pub clock_name: String,
    /// Largest frequency adjustment in parts per billion.
    pub max_adjustment_ppb: u32,
}

/// The trusted platform module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Tpm {
    /// `tpm0`.
    pub name: String,
    /// `tpm_version_major`.
    pub version_major: u8,
}

/// A GPU as NVML names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Gpu {
    /// `nvmlDeviceGetUUID`.
    pub uuid: String,
    /// `nvmlDeviceGetName`.
    pub model: String,
    /// PCI address in the kernel's form.
    pub bdf: String,
    /// `nvmlDeviceGetMemoryInfo`, total.
    pub memory: Bytes,
    /// MIG mode is on; absent where the GPU has no MIG.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mig: Option<bool>,
    /// How it can be cut into slices (MIG); absent where it cannot, or its driver does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub geometry: Option<Geometry>,
    /// GPU instances that are there, by place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<Instance>,
    /// Why no lease is placed on it, a sentence; absent where it is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<String>,
}
