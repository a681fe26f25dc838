//! What NVML says of a GPU, as values.

use std::fmt;

use bulkhead_api::mig::Instance;

/// MIG mode: as it is, and as it will be after the next reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MigMode {
    /// In force.
    pub current: bool,
    /// After a reset.
    pub pending: bool,
}

/// What came of setting the mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// In force, as it was read back.
    Active,
    /// Noted; it takes a reset, or waits for somebody to let go of the GPU.
    Pending(Pending),
}

/// What a pending mode waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pending {
    /// A reset of the GPU.
    Reset,
    /// Programs that use the GPU.
    Clients,
    /// Nothing that NVML names: where the GPU is passed through, the platform resets it.
    Platform,
}

impl fmt::Display for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reset => "a reset of the GPU",
            Self::Clients => "programs that use the GPU",
            Self::Platform => "the platform, which alone can reset the GPU",
        })
    }
}

/// Who a GPU is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// PCI address in the kernel's form, lower case.
    pub bdf: String,
    /// NVML's name of the device; never used to find it again.
    pub uuid: String,
    /// Product name.
    pub model: String,
    /// Bytes of memory.
    pub memory: u64,
    /// Number of its device node: `/dev/nvidiaN`.
    pub minor: u32,
    /// Absent where the GPU has no MIG.
    pub mig: Option<MigMode>,
}

/// A GPU instance that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuInstance {
    /// Its number on the GPU, its profile and where it is.
    pub instance: Instance,
    /// What is in it, ascending.
    pub compute: Vec<ComputeInstance>,
}

/// A compute instance that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComputeInstance {
    /// Its number in the GPU instance.
    pub id: u32,
    /// Number of its profile.
    pub profile: u32,
    /// NVML's name of the MIG device, which the next holder of the place has as well: to be shown, never to be relied on.
    /// Absent where NVML does not tell.
    pub uuid: Option<String>,
}

/// A program that uses a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Client {
    /// Process id in the namespace of the host.
    pub pid: u32,
    /// GPU instance; absent where it uses the GPU as a whole.
    pub instance: Option<u32>,
}

/// What a GPU says of its health. What it does not have, or does not say, is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reading {
    /// Field 230: 0 none, 1 reset, 2 reboot, 3 drain peer-to-peer, 4 drain and reset, others later.
    pub recovery_action: Option<u64>,
    /// Degrees Celsius.
    pub temperature: Option<u32>,
    /// Milliwatts.
    pub power_mw: Option<u32>,
    /// Errors of memory since the driver was loaded, corrected.
    pub ecc_corrected: Option<u64>,
    /// The same, not corrected.
    pub ecc_uncorrected: Option<u64>,
    /// Rows remapped for errors that were not corrected.
    pub remapped_rows: Option<u32>,
    /// A row will be remapped at the next reset.
    pub remap_pending: Option<bool>,
    /// A row could not be remapped: the GPU is worn out.
    pub remap_failed: Option<bool>,
    /// Bits of `nvmlClocksThrottleReasons`.
    pub throttle: Option<u64>,
}

/// An XID that the driver reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XidEvent {
    /// PCI address.
    pub gpu: String,
    /// Its number.
    pub xid: u64,
    /// GPU instance; absent where it is of the GPU as a whole.
    pub instance: Option<u32>,
}
