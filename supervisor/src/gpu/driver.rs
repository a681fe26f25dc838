//! What the class of GPUs asks of a driver. NVML answers on a host; a test lays a cut over it.

use std::fmt;
use std::sync::Arc;

use bulkhead_api::mig::{Geometry, Instance, Placement};

use super::nvml::model::{
    Activation, Client, ComputeInstance, GpuInstance, Identity, Reading, XidEvent,
};
use super::nvml::owner::LIBRARY;
use super::nvml::session::Session;
use super::nvml::{GpuError, Nvml};

/// A GPU driver. Everything is asked by the PCI address of the GPU, and nothing is destroyed that is not what was expected.
pub trait Driver: fmt::Debug + Send + Sync {
    /// PCI addresses of all GPUs that answer, ascending.
    ///
    /// # Errors
    /// [`GpuError`].
    fn gpus(&self) -> Result<Vec<String>, GpuError>;

    /// Who a GPU is, and how its MIG mode stands.
    ///
    /// # Errors
    /// [`GpuError`].
    fn identity(&self, gpu: &str) -> Result<Identity, GpuError>;

    /// How it can be cut.
    ///
    /// # Errors
    /// [`GpuError`].
    fn geometry(&self, gpu: &str) -> Result<Arc<Geometry>, GpuError>;

    /// How it is cut.
    ///
    /// # Errors
    /// [`GpuError`].
    fn instances(&self, gpu: &str) -> Result<Vec<GpuInstance>, GpuError>;

    /// Programs that use it.
    ///
    /// # Errors
    /// [`GpuError`].
    fn clients(&self, gpu: &str) -> Result<Vec<Client>, GpuError>;

    /// Changes it.
    ///
    /// # Errors
    /// [`GpuError`].
    fn change(&self, gpu: &str, change: Change) -> Result<Changed, GpuError>;
}

/// One change of a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// MIG on or off.
    Mode(bool),
    /// A GPU instance at a place.
    CreateInstance(Placement),
    /// The compute instance that has all of a GPU instance.
    CreateCompute(Instance),
    /// A compute instance away.
    DestroyCompute(Instance, ComputeInstance),
    /// A GPU instance away.
    DestroyInstance(Instance),
}

/// What came of a change, as it was read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// The mode.
    Mode(Activation),
    /// The GPU instance that the driver made.
    Instance(Instance),
    /// The compute instance that the driver made.
    Compute(ComputeInstance),
    /// It is gone.
    Gone,
}

impl Nvml {
    /// How a GPU is.
    ///
    /// # Errors
    /// [`GpuError`].
    pub fn reading(&self, gpu: &str) -> Result<Reading, GpuError> {
        let of = gpu.to_owned();
        self.ask(gpu, "readings", move |session| session.reading(&of))
    }

    /// XIDs since the last look.
    ///
    /// # Errors
    /// [`GpuError`].
    pub fn xids(&self) -> Result<Vec<XidEvent>, GpuError> {
        self.ask(LIBRARY, "nvmlEventSetWait_v2", Session::xids)
    }
}

impl Driver for Nvml {
    fn gpus(&self) -> Result<Vec<String>, GpuError> {
        let all = self.listed()?;
        // What does not answer is told where hardware is listed.
        let mut gpus: Vec<String> = all.into_iter().filter_map(Result::ok).collect();
        gpus.sort_unstable();
        Ok(gpus)
    }

    fn identity(&self, gpu: &str) -> Result<Identity, GpuError> {
        let of = gpu.to_owned();
        self.ask(gpu, "identity", move |session| session.identity(&of))
    }

    fn geometry(&self, gpu: &str) -> Result<Arc<Geometry>, GpuError> {
        let of = gpu.to_owned();
        self.ask(gpu, "profiles", move |session| session.geometry(&of))
    }

    fn instances(&self, gpu: &str) -> Result<Vec<GpuInstance>, GpuError> {
        let of = gpu.to_owned();
        self.ask(gpu, "instances", move |session| session.instances(&of))
    }

    fn clients(&self, gpu: &str) -> Result<Vec<Client>, GpuError> {
        let of = gpu.to_owned();
        self.ask(gpu, "processes", move |session| session.clients(&of))
    }

    fn change(&self, gpu: &str, change: Change) -> Result<Changed, GpuError> {
        let of = gpu.to_owned();
        let call = match &change {
            Change::Mode(_) => "nvmlDeviceSetMigMode",
            Change::CreateInstance(_) => "nvmlDeviceCreateGpuInstanceWithPlacement",
            Change::CreateCompute(_) => "nvmlGpuInstanceCreateComputeInstance",
            Change::DestroyCompute(..) => "nvmlComputeInstanceDestroy",
            Change::DestroyInstance(_) => "nvmlGpuInstanceDestroy",
        };
        self.ask(gpu, call, move |session| match change {
            Change::Mode(on) => session.set_mig_mode(&of, on).map(Changed::Mode),
            Change::CreateInstance(place) => {
                session.create_instance(&of, place).map(Changed::Instance)
            }
            Change::CreateCompute(instance) => {
                session.create_compute(&of, instance).map(Changed::Compute)
            }
            Change::DestroyCompute(instance, compute) => {
                session.destroy_compute(&of, instance, &compute).map(|()| Changed::Gone)
            }
            Change::DestroyInstance(instance) => {
                session.destroy_instance(&of, instance).map(|()| Changed::Gone)
            }
        })
    }
}
