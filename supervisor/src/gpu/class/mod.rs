//! The class of GPUs.
//!
//! ```text
//!  attach  whole: MIG off, no program ─► recorded ─► CDI spec
//!          slice: MIG on ─► recorded ─► GPU instance at its place ─► compute instance ─► read back ─► CDI spec
//!  erase   recorded ─► CDI spec gone ─► compute and GPU instance gone ─► memory scrubbed and read ─► forgotten
//! ```
//!
//! A slice is its GPU's PCI address, its place and its profile. The record alone says whose it is; NVML's ids and UUIDs are those of
//! the place. What is there without a record is nobody's, is found as such and taken back like any lease's. No call names an
//! instance of somebody else: each is compared with what it should be right before it is destroyed.

mod attach;
mod erase;
pub mod record;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bulkhead_api::chain::Chain;
use bulkhead_api::gpu::{HeldGpu, HeldSlice};
use bulkhead_api::id::LeaseId;
use bulkhead_api::mig::Placement;
use bulkhead_api::resource::Resource;
use tracing::warn;

use self::record::Given;
use super::driver::Driver;
use super::nvml::GpuError;
use super::nvml::model::GpuInstance;
use super::scrub::Scrubber;
use crate::class::{Attached, Class, ClassError, Erased, Order};
use crate::paths::Paths;

/// The class of [`Resource::Gpu`].
#[derive(Debug)]
pub struct Gpus {
    root: PathBuf,
    record: PathBuf,
    driver: Arc<dyn Driver>,
    scrubber: Arc<dyn Scrubber>,
    /// Record and GPUs are changed by one at a time. Nobody has it while memory is scrubbed.
    turn: Mutex<()>,
}

impl Gpus {
    /// Of a host whose state is mounted.
    #[must_use]
    pub fn new(paths: &Paths, driver: Arc<dyn Driver>, scrubber: Arc<dyn Scrubber>) -> Self {
        let record = paths.state.join("gpus.json");
        Self { root: paths.root.clone(), record, driver, scrubber, turn: Mutex::default() }
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record as it is now.
    ///
    /// # Errors
    /// What could not be read.
    pub fn given(&self) -> Result<Given, ClassError> {
        record::load(&self.record)
    }

    fn store(&self, given: &Given) -> Result<(), ClassError> {
        record::store(&self.record, given)
    }

    /// GPU instances that no record knows.
    fn strays(&self) -> Result<Vec<(LeaseId, Resource)>, ClassError> {
        let gpus = match self.driver.gpus() {
            Ok(gpus) => gpus,
            // Without a driver there is nothing that could be there.
            Err(GpuError::NoLibrary { .. } | GpuError::DriverNotLoaded) => return Ok(Vec::new()),
            Err(error) => {
                warn!(error = %Chain(&error), "GPUs cannot be listed");
                return Ok(Vec::new());
            }
        };
        let mut strays = Vec::new();
        for gpu in gpus {
            match self.strays_of(&gpu) {
                Ok(found) => strays.extend(found),
                // What cannot be read is closed for new leases where hardware is listed; the others go on.
                Err(error) => {
                    warn!(error = %Chain(&error), gpu, "slices of a GPU cannot be listed")
                }
            }
        }
        let Some(nobody) = nobody() else { return Ok(Vec::new()) };
        Ok(strays.into_iter().map(|gpu| (nobody.clone(), Resource::Gpu(gpu))).collect())
    }

    fn strays_of(&self, gpu: &str) -> Result<Vec<HeldGpu>, ClassError> {
        let failed = |error: GpuError| refused(format!("list slices of GPU {gpu}"), &error);
        if self.driver.instances(gpu).map_err(failed)?.is_empty() {
            return Ok(Vec::new());
        }
        // Now that there are some: nothing of them is being made or taken back meanwhile.
        let _turn = self.turn();
        let given = self.given()?;
        let geometry = self.driver.geometry(gpu).map_err(failed)?;
        let instances = self.driver.instances(gpu).map_err(failed)?;
        let held = instances.iter().filter_map(|found| {
            let placement = found.instance.placement;
            let profile = geometry.profile(placement.profile)?.name.clone();
            Some(HeldGpu { gpu: gpu.to_owned(), slice: Some(HeldSlice { profile, placement }) })
        });
        Ok(held.filter(|held| !given.gpus.iter().any(|given| given.gpu == *held)).collect())
    }
}

impl Class for Gpus {
    fn found(&self) -> Result<Vec<(LeaseId, Resource)>, ClassError> {
        let strays = self.strays()?;
        let given = self.given()?.gpus.into_iter();
        let mut found: Vec<_> =
            given.map(|given| (given.lease, Resource::Gpu(given.gpu))).collect();
        found.extend(strays);
        Ok(found)
    }

    fn observe(&self, order: &Order) -> Result<Attached, ClassError> {
        attach::observe(self, order)
    }

    fn attach(&self, order: &Order) -> Result<(), ClassError> {
        attach::attach(self, order)
    }

    fn erase(&self, order: &Order) -> Result<Erased, ClassError> {
        erase::erase(self, order)
    }
}

/// The names of whoever has what no record knows, which no lease of the registry has.
fn nobody() -> Option<LeaseId> {
    Some(LeaseId { tenant: "bulkhead".parse().ok()?, name: "lost".parse().ok()? })
}

fn held(order: &Order) -> Result<&HeldGpu, ClassError> {
    if let Resource::Gpu(gpu) = &order.resource {
        return Ok(gpu);
    }
    Err(ClassError::Unsupported(format!("{} is of another class", order.resource)))
}

fn refused(doing: String, error: &dyn std::error::Error) -> ClassError {
    ClassError::Refused { doing, why: Chain(error).to_string() }
}

/// The instance that is exactly there.
fn at(instances: &[GpuInstance], place: Placement) -> Option<&GpuInstance> {
    instances.iter().find(|found| found.instance.placement == place)
}

/// An instance that is in the way of one there.
fn over(instances: &[GpuInstance], place: Placement) -> Option<&GpuInstance> {
    instances.iter().find(|found| found.instance.placement.meets(place))
}
