//! What NVML answers instead of a result, typed by its number.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use nvml_wrapper::error::NvmlError;

/// A return code of NVML (`nvmlReturn_t`, NVML API reference).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// 1: the library was not initialised, or the driver under it was reloaded.
    Uninitialized,
    /// 2: an argument is not valid, such as a handle of what is gone.
    InvalidArgument,
    /// 3: this GPU, or this mode of it, does not have that.
    NotSupported,
    /// 4: not as this user.
    NoPermission,
    /// 6: no such object.
    NotFound,
    /// 7: the buffer is too small.
    InsufficientSize,
    /// 9: the kernel module is not loaded.
    DriverNotLoaded,
    /// 10: nothing came in time.
    Timeout,
    /// 15: the GPU fell off the bus.
    GpuIsLost,
    /// 16: only a reset makes it so.
    ResetRequired,
    /// 18: library and kernel module are of different versions.
    VersionMismatch,
    /// 19: somebody uses it.
    InUse,
    /// 23: no room for an instance there.
    InsufficientResources,
    /// 25: the library is older than the structure.
    ArgumentVersion,
    /// 27: not yet.
    NotReady,
    /// 29: not in this state.
    InvalidState,
    /// 999: the driver does not say.
    Unknown,
    /// Every other one.
    Other(u32),
}

impl From<u32> for Code {
    fn from(number: u32) -> Self {
        match number {
            1 => Self::Uninitialized,
            2 => Self::InvalidArgument,
            3 => Self::NotSupported,
            4 => Self::NoPermission,
            6 => Self::NotFound,
            7 => Self::InsufficientSize,
            9 => Self::DriverNotLoaded,
            10 => Self::Timeout,
            15 => Self::GpuIsLost,
            16 => Self::ResetRequired,
            18 => Self::VersionMismatch,
            19 => Self::InUse,
            23 => Self::InsufficientResources,
            25 => Self::ArgumentVersion,
            27 => Self::NotReady,
            29 => Self::InvalidState,
            999 => Self::Unknown,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uninitialized => "NVML is not initialised",
            Self::InvalidArgument => "an argument is not valid",
            Self::NotSupported => "not supported",
            Self::NoPermission => "no permission",
            Self::NotFound => "not found",
            Self::InsufficientSize => "the buffer is too small",
            Self::DriverNotLoaded => "the driver is not loaded",
            Self::Timeout => "nothing came in time",
            Self::GpuIsLost => "the GPU is lost",
            Self::ResetRequired => "the GPU has to be reset",
            Self::VersionMismatch => "library and kernel module are of different versions",
            Self::InUse => "it is in use",
            Self::InsufficientResources => "no room there",
            Self::ArgumentVersion => "the library is of another version",
            Self::NotReady => "not ready",
            Self::InvalidState => "not in this state",
            Self::Unknown => "an internal error of the driver",
            Self::Other(number) => return write!(f, "return code {number}"),
        })
    }
}

/// Why a GPU does not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    /// There is no library: a host without the driver's user space.
    #[error("open {}: {why}", path.display())]
    NoLibrary {
        /// Where it was looked for.
        path: PathBuf,
        /// What the loader says.
        why: String,
    },
    /// There is a library and no kernel module.
    #[error("the NVIDIA kernel module is not loaded")]
    DriverNotLoaded,
    /// The library does not start.
    #[error("initialise NVML: {0}")]
    Init(Code),
    /// The library is older than this version of Bulkhead needs.
    #[error("the NVIDIA library has no {0}: it is too old for this")]
    NoSymbol(&'static str),
    /// NVML names no such GPU.
    #[error("NVML knows no GPU {gpu}")]
    Absent {
        /// PCI address.
        gpu: String,
    },
    /// The GPU does not answer any more.
    #[error("GPU {gpu} is lost: it fell off its bus")]
    Lost {
        /// PCI address, or its number where the address was never read.
        gpu: String,
    },
    /// NVML refuses a call.
    #[error("{call} of GPU {gpu}: {code}")]
    Refused {
        /// NVML's name of the call.
        call: &'static str,
        /// PCI address.
        gpu: String,
        /// Why.
        code: Code,
    },
    /// A call did not come back. It cannot be cancelled: the GPU is suspect until it does.
    #[error("{call} of GPU {gpu} did not answer within {} ms", after.as_millis())]
    Silent {
        /// What was asked.
        call: &'static str,
        /// PCI address.
        gpu: String,
        /// How long was waited.
        after: Duration,
    },
    /// An earlier call to the GPU has not come back.
    #[error("GPU {gpu} is suspect: {call} has not answered yet")]
    Suspect {
        /// PCI address.
        gpu: String,
        /// The earlier call.
        call: &'static str,
    },
    /// An answer that cannot be true. Only this GPU is left alone for it.
    #[error("{call} of GPU {gpu} answers {what}")]
    Garbage {
        /// What was asked.
        call: &'static str,
        /// PCI address.
        gpu: String,
        /// What is wrong with it.
        what: String,
    },
    /// The kernel gives no thread, or the thread ended.
    #[error("the thread that talks to NVML: {0}")]
    Thread(String),
}

impl GpuError {
    /// A code of a call to a GPU.
    #[must_use]
    pub fn refused(call: &'static str, gpu: &str, code: Code) -> Self {
        let gpu = gpu.to_owned();
        if code == Code::GpuIsLost {
            Self::Lost { gpu }
        } else if code == Code::DriverNotLoaded {
            Self::DriverNotLoaded
        } else {
            Self::Refused { call, gpu, code }
        }
    }

    /// An error of the safe wrapper, which types codes that it does not know by their number alone.
    #[must_use]
    pub fn wrapped(call: &'static str, gpu: &str, error: NvmlError) -> Self {
        if matches!(error, NvmlError::FailedToLoadSymbol(_)) {
            return Self::NoSymbol(call);
        }
        if matches!(error, NvmlError::Utf8Error(_) | NvmlError::IncorrectBits(_)) {
            return Self::garbage(call, gpu, error.to_string());
        }
        Self::refused(call, gpu, Code::from(u32::from(error)))
    }

    /// An answer that cannot be true.
    #[must_use]
    pub fn garbage(call: &'static str, gpu: &str, what: String) -> Self {
        Self::Garbage { call, gpu: gpu.to_owned(), what }
    }

    /// The code, where NVML gave one.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        if let Self::Refused { code, .. } = self { Some(*code) } else { None }
    }

    /// Whether what the library knew of the host may be of another time: it is opened anew.
    #[must_use]
    pub fn ends_session(&self) -> bool {
        match self {
            Self::Lost { .. } | Self::DriverNotLoaded => true,
            Self::Refused { code, .. } => {
                matches!(code, Code::Uninitialized | Code::VersionMismatch | Code::Unknown)
            }
            Self::NoLibrary { .. }
            | Self::Init(_)
            | Self::NoSymbol(_)
            | Self::Absent { .. }
            | Self::Silent { .. }
            | Self::Suspect { .. }
            | Self::Garbage { .. }
            | Self::Thread(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_the_safe_wrapper_does_not_know_keep_their_number() {
        for (number, code) in [
            (23, Code::InsufficientResources),
            (25, Code::ArgumentVersion),
            (27, Code::NotReady),
            (29, Code::InvalidState),
        ] {
            let error = GpuError::wrapped("call", "0000:01:00.0", NvmlError::from(number));
            assert_eq!(error.code(), Some(code), "{number}");
        }
        let lost = GpuError::wrapped("call", "0000:01:00.0", NvmlError::GpuLost);
        assert_eq!(lost, GpuError::Lost { gpu: "0000:01:00.0".to_owned() });
    }
}
