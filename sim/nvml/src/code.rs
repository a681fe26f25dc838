//! NVML's return codes.

use std::fmt;

/// An NVML return code other than success (`nvmlReturn_t` of nvml.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(pub u32);

impl Code {
    /// `nvmlInit` was not called, or not as often as `nvmlShutdown`.
    pub const UNINITIALIZED: Self = Self(1);
    /// An argument is NULL, out of range or a handle of something that is gone.
    pub const INVALID_ARGUMENT: Self = Self(2);
    /// The device cannot do this, or not in its present mode.
    pub const NOT_SUPPORTED: Self = Self(3);
    /// The caller is not root.
    pub const NO_PERMISSION: Self = Self(4);
    /// No such device or instance.
    pub const NOT_FOUND: Self = Self(6);
    /// The caller's buffer is too small.
    pub const INSUFFICIENT_SIZE: Self = Self(7);
    /// The kernel driver is not there, or not the one that this process opened.
    pub const DRIVER_NOT_LOADED: Self = Self(9);
    /// Nothing happened in the time given.
    pub const TIMEOUT: Self = Self(10);
    /// The GPU fell off the bus.
    pub const GPU_IS_LOST: Self = Self(15);
    /// A reset is needed first.
    pub const RESET_REQUIRED: Self = Self(16);
    /// The operating system refused something.
    pub const OPERATING_SYSTEM: Self = Self(17);
    /// Somebody uses it.
    pub const IN_USE: Self = Self(19);
    /// No room for an instance.
    pub const INSUFFICIENT_RESOURCES: Self = Self(23);
    /// The version field of a structure is none that is known.
    pub const ARGUMENT_VERSION_MISMATCH: Self = Self(25);
    /// Anything else; here: the simulator's state cannot be read.
    pub const UNKNOWN: Self = Self(999);

    /// What `nvmlErrorString` says.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self.0 {
            0 => "Success",
            1 => "Uninitialized",
            2 => "Invalid Argument",
            3 => "Not Supported",
            4 => "Insufficient Permissions",
            5 => "Already Initialized",
            6 => "Not Found",
            7 => "Insufficient Size",
            8 => "Insufficient External Power",
            9 => "Driver Not Loaded",
            10 => "Timeout",
            11 => "Interrupt Request Issue",
            12 => "NVML Shared Library Not Found",
            13 => "Function Not Found",
            14 => "Corrupted infoROM",
            15 => "GPU is lost",
            16 => "GPU requires reset",
            17 => "The operating system has blocked the request",
            18 => "Driver/library version mismatch",
            19 => "In use by another client",
            20 => "Insufficient Memory",
            21 => "No data",
            22 => "vGPU ECC Not Supported",
            23 => "Insufficient Resources",
            24 => "Frequency Not Supported",
            25 => "Argument version mismatch",
            26 => "Deprecated",
            27 => "Not Ready",
            28 => "GPU Not Found",
            29 => "Invalid State",
            30 => "Reset Type Not Supported",
            _ => "Unknown Error",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text(), self.0)
    }
}

impl std::error::Error for Code {}
