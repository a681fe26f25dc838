//! The simulated machine: GPUs as values, and what NVML's calls do to them. Pure.
//!
//! - this file: the machine, its driver, faults to inject
//! - [`gpu`]: one GPU and its instances
//! - [`mig`]: MIG mode, GPU instances; [`compute`]: compute instances
//! - [`events`]: what event sets wait for
//! - [`lifecycle`]: reset, driver reload, reboot
//! - [`limits`]: clocks and power
//! - [`check`]: the rules that every state obeys, whatever wrote it

pub mod check;
pub mod compute;
pub mod events;
pub mod gpu;
pub mod lifecycle;
pub mod limits;
pub mod mig;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use events::Event;
pub use gpu::{Bdf, ComputeInstance, Gpu, GpuInstance, Platform, Process, ProcessKind};

use crate::code::Code;
use crate::profiles::Model;

/// The kernel driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Driver {
    /// Whether the module is loaded; if not, every call says so.
    pub loaded: bool,
    /// Grows at each load. A process that initialised NVML before must do so again.
    pub load: u32,
    /// Such as `580.82.07`.
    pub version: String,
    /// CUDA's, major * 1000 + minor * 10.
    pub cuda: i32,
}

impl Default for Driver {
    fn default() -> Self {
        Self { loaded: true, load: 1, version: "580.82.07".into(), cuda: 13_000 }
    }
}

/// A function that fails for some calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// The exported function, with its version suffix.
    pub function: String,
    /// What it returns.
    pub code: u32,
    /// Calls that succeed before.
    #[serde(default)]
    pub after: u32,
    /// Calls that fail then.
    pub calls: u32,
}

/// Everything that is in the state file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// The format: 1.
    pub version: u32,
    /// The kernel driver.
    #[serde(default)]
    pub driver: Driver,
    /// In the order of NVML's index.
    pub gpus: Vec<Gpu>,
    /// Grows with each event.
    #[serde(default)]
    pub sequence: u64,
    /// The newest [`events::KEPT`], oldest first.
    #[serde(default)]
    pub events: Vec<Event>,
    /// Microseconds that a call of the function takes; `*` is every other.
    #[serde(default)]
    pub latency_us: BTreeMap<String, u64>,
    /// Faults to inject.
    #[serde(default)]
    pub failures: Vec<Failure>,
    /// A directory such as `/dev`: only GPUs and instances whose device nodes a process may open
    /// there are shown to it, as the driver does in containers. Absent: everything is shown.
    #[serde(default)]
    pub device_nodes: Option<String>,
}

impl Machine {
    /// A machine with one GPU of each given model.
    #[must_use]
    pub fn with(models: &[&Model]) -> Self {
        let gpus = (0..).zip(models).map(|(index, model)| Gpu::new(model, index)).collect();
        Self {
            version: 1,
            driver: Driver::default(),
            gpus,
            sequence: 0,
            events: Vec::new(),
            latency_us: BTreeMap::new(),
            failures: Vec::new(),
            device_nodes: None,
        }
    }

    /// What there is without a state file: two H100s.
    #[must_use]
    pub fn standard() -> Self {
        crate::profiles::model("h100-80")
            .map_or_else(|| Self::with(&[]), |h100| Self::with(&[h100, h100]))
    }

    /// The GPU of that index.
    ///
    /// # Errors
    /// [`Code::INVALID_ARGUMENT`] where there is none, [`Code::GPU_IS_LOST`] where it is lost.
    pub fn gpu(&self, index: u32) -> Result<&Gpu, Code> {
        let gpu = usize::try_from(index).ok().and_then(|index| self.gpus.get(index));
        gpu.ok_or(Code::INVALID_ARGUMENT)?.present()
    }

    /// The same, to change it.
    ///
    /// # Errors
    /// As [`Machine::gpu`].
    pub fn gpu_mut(&mut self, index: u32) -> Result<&mut Gpu, Code> {
        self.gpu(index)?;
        let gpu = usize::try_from(index).ok().and_then(|index| self.gpus.get_mut(index));
        gpu.ok_or(Code::INVALID_ARGUMENT)
    }

    /// What a call of this function is to return by an injected fault; counts the call.
    #[must_use]
    pub fn failure(&mut self, function: &str) -> Option<Code> {
        let at = self.failures.iter().position(|failure| failure.function == function)?;
        let failure = self.failures.get_mut(at)?;
        if failure.after > 0 {
            failure.after -= 1;
            return None;
        }
        failure.calls = failure.calls.saturating_sub(1);
        let code = Code(failure.code);
        if failure.calls == 0 {
            self.failures.remove(at);
        }
        Some(code)
    }

    /// How long a call of this function takes, in microseconds.
    #[must_use]
    pub fn latency(&self, function: &str) -> u64 {
        let all = || self.latency_us.get("*");
        self.latency_us.get(function).or_else(all).copied().unwrap_or(0)
    }
}
