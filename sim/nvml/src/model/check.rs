//! The rules that every machine obeys, whether calls made it or a file was read.

use super::compute::{MAX_COMPUTE, compute_starts, slices_of};
use super::mig::instance_id;
use super::{Gpu, GpuInstance, Machine};

/// A state that no sequence of calls leads to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Impossible {
    /// Written by a later simulator, or by something else.
    #[error("state has format {0}, this simulator knows 1")]
    Format(u32),
    /// More GPUs than handles can tell apart.
    #[error("{0} GPUs, at most 255 are possible")]
    TooMany(usize),
    /// A GPU of no known model.
    #[error("GPU {uuid} is a {model}, which the table does not have")]
    Model {
        /// Its UUID.
        uuid: String,
        /// The key.
        model: String,
    },
    /// Two GPUs with the same identity.
    #[error("GPU {0} has the UUID or PCI address of another")]
    Twin(String),
    /// Instances on a GPU whose MIG is off or that has none.
    #[error("GPU {0} has instances without MIG")]
    NoMig(String),
    /// An instance of a profile or at a place that the model has not, or with a wrong id.
    #[error("GPU {uuid}: instance {instance} is not one of its model")]
    Instance {
        /// UUID of the GPU.
        uuid: String,
        /// Id of the instance.
        instance: u32,
    },
    /// Two instances on one place, or more than the engines allow.
    #[error("GPU {uuid}: no room for instance {instance} beside the others")]
    NoRoom {
        /// UUID of the GPU.
        uuid: String,
        /// Id of the instance.
        instance: u32,
    },
    /// Compute instances that do not fit.
    #[error("GPU {uuid}: compute instances of instance {instance} do not fit")]
    Compute {
        /// UUID of the GPU.
        uuid: String,
        /// Id of the instance.
        instance: u32,
    },
}

impl Machine {
    /// Whether the state is possible.
    ///
    /// # Errors
    /// [`Impossible`] with the first rule that is broken.
    pub fn check(&self) -> Result<(), Impossible> {
        if self.version != 1 {
            return Err(Impossible::Format(self.version));
        }
        if self.gpus.len() > 255 {
            return Err(Impossible::TooMany(self.gpus.len()));
        }
        for (at, gpu) in self.gpus.iter().enumerate() {
            let earlier = self.gpus.iter().take(at);
            if earlier.clone().any(|other| other.uuid == gpu.uuid || other.bdf == gpu.bdf) {
                return Err(Impossible::Twin(gpu.uuid.clone()));
            }
            gpu.check()?;
        }
        Ok(())
    }
}

impl Gpu {
    /// Whether the GPU's state is possible.
    ///
    /// # Errors
    /// As [`Machine::check`].
    pub fn check(&self) -> Result<(), Impossible> {
        let uuid = || self.uuid.clone();
        let Ok(model) = self.model() else {
            return Err(Impossible::Model { uuid: uuid(), model: self.model.clone() });
        };
        let off = !model.mig_capable || !self.mig.current;
        if off && !self.instances.is_empty() || !model.mig_capable && self.mig.pending {
            return Err(Impossible::NoMig(uuid()));
        }
        // Placing them one after the other on an empty GPU meets the rules of creation.
        let mut empty = self.clone();
        empty.instances.clear();
        empty.faults.reset_required = false;
        for instance in &self.instances {
            let id = instance.id;
            let expected = instance
                .start
                .checked_add(instance.size)
                .and_then(|_| instance_id(model.memory_slices, instance.start, instance.size));
            let place = Some((instance.start, instance.size));
            match empty.create_instance(instance.profile, place) {
                Ok(made) if made == id && expected == Some(id) => {}
                Err(crate::code::Code::INSUFFICIENT_RESOURCES) => {
                    return Err(Impossible::NoRoom { uuid: uuid(), instance: id });
                }
                Ok(_) | Err(_) => return Err(Impossible::Instance { uuid: uuid(), instance: id }),
            }
            if !self.compute_fits(instance) {
                return Err(Impossible::Compute { uuid: uuid(), instance: id });
            }
        }
        if self.instances.is_sorted_by_key(|instance| instance.id) {
            return Ok(());
        }
        let instance = self.instances.first().map_or(0, |instance| instance.id);
        Err(Impossible::Instance { uuid: uuid(), instance })
    }

    fn compute_fits(&self, instance: &GpuInstance) -> bool {
        let Ok(profile) = self.profile(instance.profile) else { return false };
        let mut used = 0_u64;
        let mut next_id = 0;
        instance.compute.iter().all(|compute| {
            let listed = slices_of(compute.profile, profile.slices) == Ok(compute.size)
                && compute_starts(profile.slices, compute.size).contains(&compute.start);
            if !listed || compute.id < next_id || compute.id >= MAX_COMPUTE {
                return false;
            }
            next_id = compute.id + 1;
            let mask = ((1_u64 << compute.size) - 1) << compute.start;
            let free = used & mask == 0;
            used |= mask;
            free
        })
    }
}
