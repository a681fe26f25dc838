//! How a GPU's memory is erased after a lease, and by what that is shown.
//!
//! The driver clears memory when its holder frees it, unless it was told not to; crash paths may skip that, and nothing of it can be
//! read back from here. So by itself it is a weaker erase: the slice goes into quarantine unless the site accepts it. Whoever can
//! write and read the memory (a program on the GPU, a simulator) is another [`Scrubber`].

use std::fmt;
use std::path::PathBuf;

use bulkhead_api::gpu::HeldGpu;
use bulkhead_api::receipt::Evidence;

use crate::class::ClassError;
use crate::class::Progress;

/// What was done to the memory, and what was seen of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scrubbed {
    /// The method's name in the receipt.
    pub method: String,
    /// What was looked at.
    pub evidence: Vec<Evidence>,
    /// Why that proves nothing, a sentence; absent where memory was read again and was clean.
    pub unproven: Option<String>,
}

/// Erases memory that nobody has.
pub trait Scrubber: fmt::Debug + Send + Sync {
    /// Erases and reads again. The GPU instance is gone, or the GPU has no programs.
    ///
    /// # Errors
    /// [`ClassError::ReadBack`] where something was found afterwards; all others are tried again.
    fn scrub(&self, gpu: &HeldGpu, progress: &Progress) -> Result<Scrubbed, ClassError>;
}

/// What the driver does by itself when memory is freed.
#[derive(Debug, Clone)]
pub struct ByDriver {
    root: PathBuf,
}

/// Registry keys of the kernel module, as they are in force.
const PARAMETERS: &str = "proc/driver/nvidia/params";
/// The key that switches clearing off.
const SWITCH: &str = "RMDisableScrubOnFree";

impl ByDriver {
    /// Of the host below that root.
    #[must_use]
    pub const fn new(root: PathBuf) -> Self {
        Self { root }
    }
}

impl Scrubber for ByDriver {
    fn scrub(&self, gpu: &HeldGpu, _: &Progress) -> Result<Scrubbed, ClassError> {
        let path = self.root.join(PARAMETERS);
        let text = crate::files::read_if_there(&path).map_err(|source| ClassError::Files {
            doing: "read",
            path: path.clone(),
            source,
        })?;
        let text = text.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let found = match &text {
            None => "no such file",
            Some(text) if text.contains(SWITCH) => "it names the key",
            Some(_) => "it does not name the key",
        };
        let what = format!("key {SWITCH} in {}", path.display());
        if text.is_some_and(|text| text.contains(SWITCH)) {
            let (expected, found) = ("not set".to_owned(), "set".to_owned());
            return Err(ClassError::ReadBack { what, expected, found });
        }
        Ok(Scrubbed {
            method: "driverScrubOnFree".to_owned(),
            evidence: vec![Evidence { what, found: found.to_owned() }],
            unproven: Some(format!(
                "the driver clears memory when it is freed; that of {gpu} was not read again"
            )),
        })
    }
}
