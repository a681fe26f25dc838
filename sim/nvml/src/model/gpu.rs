//! One GPU: what it is, what it measures, who uses it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha1::{Digest as _, Sha1};

use crate::code::Code;
use crate::profiles::{Model, Profile, model};

/// A PCI address with its domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bdf {
    /// PCI domain.
    pub domain: u32,
    /// Bus.
    pub bus: u8,
    /// Device.
    pub device: u8,
}

impl Bdf {
    /// As NVML's `busIdLegacy` and as sysfs writes it: four digits of domain.
    #[must_use]
    pub fn short(self) -> String {
        format!("{:04x}:{:02x}:{:02x}.0", self.domain, self.bus, self.device)
    }
}

impl fmt::Display for Bdf {
    /// As NVML's `busId`: eight digits of domain.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}:{:02X}:{:02X}.0", self.domain, self.bus, self.device)
    }
}

/// A text that is no PCI address of function 0.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not the PCI address of a GPU, such as 0000:17:00.0")]
pub struct NotBdf(String);

impl FromStr for Bdf {
    type Err = NotBdf;

    fn from_str(text: &str) -> Result<Self, NotBdf> {
        let refuse = || NotBdf(text.to_owned());
        let hex = |part: &str, digits: usize| {
            let plain = !part.is_empty() && part.len() <= digits && !part.starts_with('+');
            u32::from_str_radix(part, 16).ok().filter(|_| plain).ok_or_else(refuse)
        };
        let small = |part| u8::try_from(hex(part, 2)?).map_err(|_| refuse());
        let (address, function) = text.rsplit_once('.').ok_or_else(refuse)?;
        let parts: Vec<&str> = address.split(':').collect();
        let (domain, bus, device) = match parts.as_slice() {
            [bus, device] => ("0", bus, device),
            [domain, bus, device] => (*domain, bus, device),
            _ => return Err(refuse()),
        };
        let bdf = Self { domain: hex(domain, 8)?, bus: small(bus)?, device: small(device)? };
        if function == "0" && bdf.device < 32 { Ok(bdf) } else { Err(refuse()) }
    }
}

impl TryFrom<String> for Bdf {
    type Error = NotBdf;

    fn try_from(text: String) -> Result<Self, NotBdf> {
        text.parse()
    }
}

impl From<Bdf> for String {
    fn from(bdf: Bdf) -> Self {
        bdf.short()
    }
}

/// How the machine has its GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Platform {
    /// The driver may reset them.
    #[default]
    Baremetal,
    /// In a virtual machine that may not.
    Passthrough,
}

/// What a process does with a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum ProcessKind {
    /// CUDA.
    #[default]
    Compute,
    /// Graphics.
    Graphics,
    /// CUDA by way of the Multi-Process Service.
    Mps,
}

/// A process that holds a GPU or a slice of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// As its own namespace counts.
    pub pid: u32,
    /// Its program.
    #[serde(default)]
    pub name: String,
    /// What it does.
    #[serde(default)]
    pub kind: ProcessKind,
    /// Memory that it has.
    #[serde(default)]
    pub memory_mib: u64,
    /// A lock file (beside the state) that it keeps locked while it lives. Without one, the
    /// process stays until somebody removes it.
    #[serde(default)]
    pub lock: Option<String>,
}

/// A compute instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComputeInstance {
    /// The smallest that was free in its GPU instance.
    pub id: u32,
    /// `NVML_COMPUTE_INSTANCE_PROFILE_*`.
    pub profile: u32,
    /// First compute slice.
    pub start: u32,
    /// Compute slices.
    pub size: u32,
    /// Which of all instances that this GPU had.
    pub generation: u32,
    /// Who uses it.
    #[serde(default)]
    pub processes: Vec<Process>,
}

/// A GPU instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuInstance {
    /// Follows from its place: [`crate::model::mig::instance_id`].
    pub id: u32,
    /// Profile id.
    pub profile: u32,
    /// First grid unit.
    pub start: u32,
    /// Grid units.
    pub size: u32,
    /// Which of all instances that this GPU had.
    pub generation: u32,
    /// In the order of their ids.
    #[serde(default)]
    pub compute: Vec<ComputeInstance>,
}

/// MIG mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct Mig {
    /// Now.
    pub current: bool,
    /// After the next reset.
    pub pending: bool,
}

/// Error counts of one memory, volatile (since reset) or aggregate (of its life).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct ErrorCounts {
    /// Corrected, device memory.
    pub corrected_dram: u64,
    /// Uncorrected, device memory.
    pub uncorrected_dram: u64,
    /// Corrected, SRAM (caches, register files).
    pub corrected_sram: u64,
    /// Uncorrected, SRAM.
    pub uncorrected_sram: u64,
}

impl ErrorCounts {
    /// Corrected or uncorrected, over all memories.
    #[must_use]
    pub fn total(&self, uncorrected: bool) -> u64 {
        if uncorrected {
            self.uncorrected_dram.saturating_add(self.uncorrected_sram)
        } else {
            self.corrected_dram.saturating_add(self.corrected_sram)
        }
    }
}

/// Error correction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ecc {
    /// Now.
    pub enabled: bool,
    /// After the next reset.
    pub pending: bool,
    /// Since the last reset.
    pub volatile: ErrorCounts,
    /// Of the GPU's life.
    pub aggregate: ErrorCounts,
}

impl Default for Ecc {
    fn default() -> Self {
        let none = ErrorCounts::default();
        Self { enabled: true, pending: true, volatile: none, aggregate: none }
    }
}

/// Rows of device memory that were replaced by spare ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct RemappedRows {
    /// For corrected errors.
    pub corrected: u32,
    /// For uncorrected errors.
    pub uncorrected: u32,
    /// Whether one waits for a reset.
    pub pending: bool,
    /// Whether one could not be replaced.
    pub failed: bool,
}

/// What the GPU measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sensors {
    /// Core, degrees Celsius.
    pub temperature_c: u32,
    /// Memory, degrees Celsius.
    pub memory_temperature_c: u32,
    /// Draw.
    pub power_mw: u32,
    /// Since the driver was loaded.
    pub energy_mj: u64,
    /// Per cent of time in which a kernel ran.
    pub gpu_percent: u32,
    /// Per cent of time in which memory was read or written.
    pub memory_percent: u32,
    /// `nvmlClocksEventReason*`, a bit each.
    pub throttle: u64,
}

impl Default for Sensors {
    fn default() -> Self {
        Self {
            temperature_c: 34,
            memory_temperature_c: 41,
            power_mw: 71_000,
            energy_mj: 4_200_000,
            gpu_percent: 0,
            memory_percent: 0,
            throttle: 1,
        }
    }
}

/// What somebody set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Whether the driver keeps the GPU initialised without clients.
    pub persistence: bool,
    /// Least and greatest graphics clock, MHz.
    pub graphics_lock: Option<(u32, u32)>,
    /// Least and greatest memory clock, MHz.
    pub memory_lock: Option<(u32, u32)>,
    /// Memory and graphics clock of applications, MHz.
    pub application_clocks: Option<(u32, u32)>,
    /// Power limit, if not the default.
    pub power_limit_mw: Option<u32>,
    /// `NVML_COMPUTEMODE_*`.
    pub compute_mode: u32,
    /// Whether new clients are refused.
    pub drained: bool,
}

/// The PCIe link and NVLinks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Links {
    /// Generation now.
    pub generation: u32,
    /// Lanes now.
    pub width: u32,
    /// Packets sent again.
    pub replays: u32,
    /// Whether each NVLink is up.
    pub nvlinks: Vec<bool>,
    /// CRC errors of all NVLinks.
    pub nvlink_errors: u64,
}

impl Default for Links {
    fn default() -> Self {
        Self { generation: 5, width: 16, replays: 0, nvlinks: Vec::new(), nvlink_errors: 0 }
    }
}

/// What is wrong with a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Off the bus until the next reboot.
    pub lost: bool,
    /// Nothing can be made before a reset.
    pub reset_required: bool,
    /// The driver cannot reset it by itself when MIG mode changes.
    pub no_implicit_reset: bool,
    /// Profiles tell wrong counts, as an A30's do.
    pub wrong_counts: bool,
    /// Recovery action to tell instead of what follows from the state (field 230).
    pub recovery: Option<u32>,
}

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    /// Key of its [`Model`].
    pub model: String,
    /// `GPU-` and a UUID.
    pub uuid: String,
    /// Its place.
    pub bdf: Bdf,
    /// Number of its device node.
    pub minor: u32,
    /// NUMA node.
    pub numa_node: u32,
    /// CPUs of that node, first and last; absent: not known.
    #[serde(default)]
    pub cpus: Option<(u32, u32)>,
    /// Serial number of the board.
    pub serial: String,
    /// How the machine has it.
    #[serde(default)]
    pub platform: Platform,
    /// MIG mode.
    #[serde(default)]
    pub mig: Mig,
    /// In the order of their ids.
    #[serde(default)]
    pub instances: Vec<GpuInstance>,
    /// Instances made so far.
    #[serde(default)]
    pub generation: u32,
    /// Who uses it as a whole.
    #[serde(default)]
    pub processes: Vec<Process>,
    /// Error correction.
    #[serde(default)]
    pub ecc: Ecc,
    /// Replaced rows.
    #[serde(default)]
    pub rows: RemappedRows,
    /// Measurements.
    #[serde(default)]
    pub sensors: Sensors,
    /// Settings.
    #[serde(default)]
    pub settings: Settings,
    /// Links.
    #[serde(default)]
    pub links: Links,
    /// Faults.
    #[serde(default)]
    pub faults: Faults,
}

impl Gpu {
    /// The `index`th GPU of a machine; identity follows from model and index.
    #[must_use]
    pub fn new(model: &Model, index: u32) -> Self {
        let (bus, numa_node) = place(index);
        let seed = format!("{}/{index}", model.key);
        let nvlinks = if model.arch.contains("GH100") { 18 } else { 0 };
        Self {
            model: model.key.clone(),
            uuid: format!("GPU-{}", uuid(&["gpu", &seed])),
            bdf: Bdf { domain: 0, bus, device: 0 },
            minor: index,
            numa_node,
            cpus: None,
            serial: format!("16500230{index:05}"),
            platform: Platform::default(),
            mig: Mig::default(),
            instances: Vec::new(),
            generation: 0,
            processes: Vec::new(),
            ecc: Ecc::default(),
            rows: RemappedRows::default(),
            sensors: Sensors::default(),
            settings: Settings::default(),
            links: Links { nvlinks: vec![true; nvlinks], ..Links::default() },
            faults: Faults::default(),
        }
    }

    /// Itself, unless it is lost.
    ///
    /// # Errors
    /// [`Code::GPU_IS_LOST`].
    pub fn present(&self) -> Result<&Self, Code> {
        if self.faults.lost { Err(Code::GPU_IS_LOST) } else { Ok(self) }
    }

    /// Its model.
    ///
    /// # Errors
    /// [`Code::UNKNOWN`] for a key of no model, which [`crate::model::check`] keeps out.
    pub fn model(&self) -> Result<&'static Model, Code> {
        model(&self.model).ok_or(Code::UNKNOWN)
    }

    /// The profile with that id.
    ///
    /// # Errors
    /// [`Code::NOT_SUPPORTED`] where the model has none of that id.
    pub fn profile(&self, id: u32) -> Result<&'static Profile, Code> {
        self.model()?.profile(id).ok_or(Code::NOT_SUPPORTED)
    }

    /// UUID of the MIG device at a place. The same place always gets the same, whoever has it.
    #[must_use]
    pub fn mig_uuid(&self, instance: u32, compute: u32) -> String {
        format!("MIG-{}", uuid(&["mig", &self.uuid, &instance.to_string(), &compute.to_string()]))
    }

    /// Everybody on it, whole or slice, with the instances' ids.
    pub fn all_processes(&self) -> impl Iterator<Item = (&Process, Option<(u32, u32)>)> {
        let slices = self.instances.iter().flat_map(|instance| {
            instance.compute.iter().flat_map(move |compute| {
                let place = Some((instance.id, compute.id));
                compute.processes.iter().map(move |process| (process, place))
            })
        });
        self.processes.iter().map(|process| (process, None)).chain(slices)
    }

    /// What the driver recommends: `NVML_GPU_RECOVERY_ACTION_*`.
    #[must_use]
    pub fn recovery_action(&self) -> u32 {
        let from_state = if self.faults.reset_required { 1 } else { 0 };
        self.faults.recovery.unwrap_or(from_state)
    }
}

/// Buses and NUMA nodes as on an eight-GPU server with two sockets.
fn place(index: u32) -> (u8, u32) {
    const BUSES: [u8; 8] = [0x17, 0x65, 0x3d, 0x4e, 0x9a, 0xab, 0xba, 0xdb];
    let known = usize::try_from(index).ok().and_then(|index| BUSES.get(index));
    let free = || 0xe0_u8.saturating_add(u8::try_from(index).unwrap_or(u8::MAX));
    (known.copied().unwrap_or_else(free), index % 2)
}

/// A UUID of version 5's form from the SHA-1 of its parts.
fn uuid(parts: &[&str]) -> String {
    let mut digest = Sha1::new();
    for part in parts {
        digest.update(part.as_bytes());
        digest.update([0]);
    }
    let mut bytes = [0_u8; 16];
    bytes.iter_mut().zip(digest.finalize()).for_each(|(to, from)| *to = from);
    let number = u128::from_be_bytes(bytes);
    let number = number & !(0xf << 76) & !(0xc << 60) | 0x5 << 76 | 0x8 << 60;
    let hex = format!("{number:032x}");
    let part = |from, to| hex.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pci_address_is_read_in_every_form_that_nvml_takes() {
        let bdf = Bdf { domain: 0, bus: 0x17, device: 0 };
        for text in ["00000000:17:00.0", "0000:17:00.0", "17:00.0", "0000:17:0.0"] {
            assert_eq!(text.parse::<Bdf>().unwrap(), bdf, "{text}");
        }
        for text in [
            "",
            "17",
            "17:00.1",
            "1:2:3:4.0",
            "+1:00.0",
            "17:20.0",
            "17:00.0\n",
            "000000000:17:00.0",
        ] {
            assert!(text.parse::<Bdf>().is_err(), "{text:?}");
        }
        assert_eq!(bdf.to_string(), "00000000:17:00.0");
    }

    #[test]
    fn a_uuid_has_the_form_of_version_5() {
        let text = uuid(&["gpu", "x"]);
        assert_eq!(text.len(), 36);
        assert_eq!(text.as_bytes()[14], b'5');
        assert!(b"89ab".contains(&text.as_bytes()[19]), "{text}");
        assert_ne!(text, uuid(&["gpu", "y"]));
        assert_ne!(uuid(&["a", "bc"]), uuid(&["ab", "c"]));
    }
}
