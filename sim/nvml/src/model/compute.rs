//! Compute instances and the MIG devices that they are.

use super::gpu::{ComputeInstance, Gpu, GpuInstance, Process};
use crate::code::Code;
use crate::profiles::{compute_profile_slices, compute_sizes};

/// Compute instances of one GPU instance have ids below this.
pub const MAX_COMPUTE: u32 = 8;

/// The profile of a compute instance, in compute slices, if a GPU instance with `slices` has it.
///
/// # Errors
/// [`Code::NOT_SUPPORTED`].
pub fn slices_of(profile: u32, slices: u32) -> Result<u32, Code> {
    let size = compute_profile_slices(profile).ok_or(Code::NOT_SUPPORTED)?;
    if compute_sizes(slices).contains(&size) { Ok(size) } else { Err(Code::NOT_SUPPORTED) }
}

/// Where compute instances of `size` slices may start in a GPU instance with `slices`.
#[must_use]
pub fn compute_starts(slices: u32, size: u32) -> Vec<u32> {
    if size == 0 {
        return Vec::new();
    }
    (0..slices / size).map(|place| place * size).collect()
}

impl GpuInstance {
    fn free(&self, start: u32, size: u32) -> bool {
        self.compute
            .iter()
            .all(|other| other.start + other.size <= start || start + size <= other.start)
    }

    /// The compute instance with that id.
    ///
    /// # Errors
    /// [`Code::NOT_FOUND`].
    pub fn compute(&self, id: u32) -> Result<&ComputeInstance, Code> {
        self.compute.iter().find(|compute| compute.id == id).ok_or(Code::NOT_FOUND)
    }
}

impl Gpu {
    /// Makes a compute instance at a place, or at the first that is free; returns its id.
    ///
    /// # Errors
    /// [`Code::NOT_FOUND`] without the GPU instance, [`Code::NOT_SUPPORTED`] for a profile that it
    /// has not, [`Code::INVALID_ARGUMENT`] for a place that the profile has not,
    /// [`Code::INSUFFICIENT_RESOURCES`].
    pub fn create_compute(
        &mut self,
        instance: u32,
        profile: u32,
        place: Option<(u32, u32)>,
    ) -> Result<u32, Code> {
        let slices = self.profile(self.instance(instance)?.profile)?.slices;
        let size = slices_of(profile, slices)?;
        let starts = compute_starts(slices, size);
        let generation = self.next_generation();
        let instance = self.instance_mut(instance)?;
        let start = match place {
            Some((start, wanted)) if wanted != size || !starts.contains(&start) => {
                return Err(Code::INVALID_ARGUMENT);
            }
            Some((start, _)) => Some(start).filter(|&start| instance.free(start, size)),
            None => starts.into_iter().find(|&start| instance.free(start, size)),
        };
        let start = start.ok_or(Code::INSUFFICIENT_RESOURCES)?;
        let free_id = (0..MAX_COMPUTE).find(|&id| instance.compute(id).is_err());
        let id = free_id.ok_or(Code::INSUFFICIENT_RESOURCES)?;
        let made = ComputeInstance { id, profile, start, size, generation, processes: Vec::new() };
        instance.compute.push(made);
        instance.compute.sort_by_key(|compute| compute.id);
        Ok(id)
    }

    /// How many more compute instances of a profile a GPU instance has room for.
    ///
    /// # Errors
    /// [`Code::NOT_FOUND`], [`Code::NOT_SUPPORTED`].
    pub fn remaining_compute(&self, instance: u32, profile: u32) -> Result<u32, Code> {
        let instance = self.instance(instance)?;
        let slices = self.profile(instance.profile)?.slices;
        let size = slices_of(profile, slices)?;
        let starts = compute_starts(slices, size);
        let free = starts.into_iter().filter(|&start| instance.free(start, size)).count();
        Ok(u32::try_from(free).unwrap_or(u32::MAX))
    }

    /// Takes a compute instance away.
    ///
    /// # Errors
    /// [`Code::NOT_FOUND`], [`Code::IN_USE`] while a process has it.
    pub fn destroy_compute(&mut self, instance: u32, id: u32) -> Result<(), Code> {
        let instance = self.instance_mut(instance)?;
        if !instance.compute(id)?.processes.is_empty() {
            return Err(Code::IN_USE);
        }
        instance.compute.retain(|compute| compute.id != id);
        Ok(())
    }

    /// The MIG devices in the order of NVML's index: by GPU instance, then compute instance.
    pub fn mig_devices(&self) -> impl Iterator<Item = (&GpuInstance, &ComputeInstance)> {
        let by_id = self.instances.iter();
        by_id.flat_map(|instance| instance.compute.iter().map(move |compute| (instance, compute)))
    }

    /// The name of a MIG device, such as `NVIDIA H100 80GB HBM3 MIG 1c.3g.40gb`.
    ///
    /// # Errors
    /// [`Code::NOT_SUPPORTED`] for a profile that the model has not.
    pub fn mig_name(
        &self,
        instance: &GpuInstance,
        compute: &ComputeInstance,
    ) -> Result<String, Code> {
        let profile = self.profile(instance.profile)?;
        let product = self.model()?.product();
        Ok(if compute.size == profile.slices {
            format!("{product} MIG {}", profile.name)
        } else {
            format!("{product} MIG {}c.{}", compute.size, profile.name)
        })
    }

    /// Notes that a process uses the GPU, or one of its compute instances.
    ///
    /// # Errors
    /// [`Code::NOT_FOUND`] without the instance; [`Code::NOT_SUPPORTED`] for the whole of a GPU
    /// whose MIG is on, which CUDA cannot use.
    pub fn add_process(&mut self, place: Option<(u32, u32)>, process: Process) -> Result<(), Code> {
        match place {
            None if self.mig.current => return Err(Code::NOT_SUPPORTED),
            None => self.processes.push(process),
            Some((instance, id)) => {
                let instance = self.instance_mut(instance)?;
                let compute = instance.compute.iter_mut().find(|compute| compute.id == id);
                compute.ok_or(Code::NOT_FOUND)?.processes.push(process);
            }
        }
        Ok(())
    }

    /// Keeps the processes that `keep` says, wherever they are.
    pub fn retain_processes(&mut self, mut keep: impl FnMut(&Process) -> bool) {
        self.processes.retain(&mut keep);
        for compute in self.instances.iter_mut().flat_map(|instance| instance.compute.iter_mut()) {
            compute.processes.retain(&mut keep);
        }
    }

    /// Memory that processes have, in MiB: of the whole GPU, or of one instance.
    #[must_use]
    pub fn used_mib(&self, instance: Option<u32>) -> u64 {
        let counted = self.all_processes().filter(|(_, place)| {
            instance.is_none() || place.map(|(instance, _)| instance) == instance
        });
        counted.fold(0, |sum, (process, _)| sum.saturating_add(process.memory_mib))
    }
}
