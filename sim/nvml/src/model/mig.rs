//! MIG mode and GPU instances: what may be made where, and what follows.
//!
//! Rules are those of NVIDIA's MIG User Guide and of `kmigmgr_ga100.c` in
//! NVIDIA/open-gpu-kernel-modules: an instance's id follows from its place on the grid.

use super::gpu::{Gpu, GpuInstance};
use crate::code::Code;
use crate::profiles::{Engines, Profile};

/// What a change of mode came to, besides success: `activationStatus` of `nvmlDeviceSetMigMode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// In force.
    Done,
    /// Waits for a reset, because of this.
    Pending(Code),
}

/// The id of an instance at a place: whole 0, halves 1-2, quarters 3-6, eighths 7-14.
#[must_use]
pub fn instance_id(grid: u32, start: u32, size: u32) -> Option<u32> {
    let of_size = grid.checked_div(size)?.checked_sub(1)?;
    of_size.checked_add(start.checked_div(size)?)
}

impl Gpu {
    /// Whether MIG is on.
    ///
    /// # Errors
    /// [`Code::NOT_SUPPORTED`] on a model without MIG.
    pub fn mig_mode(&self) -> Result<(bool, bool), Code> {
        if self.model()?.mig_capable {
            Ok((self.mig.current, self.mig.pending))
        } else {
            Err(Code::NOT_SUPPORTED)
        }
    }

    /// Refuses where MIG is off.
    ///
    /// # Errors
    /// [`Code::NOT_SUPPORTED`].
    pub fn need_mig(&self) -> Result<(), Code> {
        if self.mig_mode()?.0 { Ok(()) } else { Err(Code::NOT_SUPPORTED) }
    }

    /// Turns MIG on or off, or notes that it is to be.
    ///
    /// # Errors
    /// [`Code::NOT_SUPPORTED`] on a model without MIG.
    pub fn set_mig_mode(&mut self, on: bool) -> Result<Activation, Code> {
        let (current, _) = self.mig_mode()?;
        self.mig.pending = on;
        if current == on {
            return Ok(Activation::Done);
        }
        let compute = self.instances.iter().any(|instance| !instance.compute.is_empty());
        if compute || !self.processes.is_empty() {
            return Ok(Activation::Pending(Code::IN_USE));
        }
        if self.model()?.is_ampere() {
            // Only a reset brings it into force. In a virtual machine the driver cannot make one,
            // and the guide's transcript shows "not supported" there.
            if self.platform == super::Platform::Passthrough {
                return Ok(Activation::Pending(Code::NOT_SUPPORTED));
            }
            if self.faults.no_implicit_reset || self.faults.reset_required {
                return Ok(Activation::Pending(Code::RESET_REQUIRED));
            }
            self.after_reset();
        } else {
            self.instances.clear();
            self.mig.current = on;
        }
        Ok(Activation::Done)
    }

    /// How many instances of a profile its description promises.
    ///
    /// # Errors
    /// [`Code::UNKNOWN`] without a model.
    pub fn promised_count(&self, profile: &Profile) -> Result<u32, Code> {
        let other = if self.faults.wrong_counts { crate::profiles::model("a100-40") } else { None };
        let wrong = other.and_then(|model| model.profile_by_enum(profile.nvml_profile_enum));
        Ok(wrong.unwrap_or(profile).max_instances)
    }

    /// Whether one more instance of the profile may start there.
    fn fits(&self, profile: &Profile, start: u32) -> bool {
        let end = start + profile.placement_size;
        let free = self
            .instances
            .iter()
            .all(|other| other.start + other.size <= start || end <= other.start);
        let same = self.instances.iter().filter(|other| other.profile == profile.gi_profile_id);
        free && same.count() < usize::try_from(profile.max_instances).unwrap_or(usize::MAX)
            && !self.engines_exceeded_with(profile)
    }

    fn engines_exceeded_with(&self, more: &Profile) -> bool {
        let Ok(model) = self.model() else { return true };
        let placed = self.instances.iter().filter_map(|instance| model.profile(instance.profile));
        let mut sum = Engines::default();
        for engines in placed.chain([more]).map(Profile::engines) {
            sum.copy += engines.copy;
            sum.decoders += engines.decoders;
            sum.encoders += engines.encoders;
            sum.jpeg += engines.jpeg;
            sum.optical_flow += engines.optical_flow;
        }
        model.engines_exceeded(sum)
    }

    /// Makes an instance at a place, or where the driver would put it; returns its id.
    ///
    /// # Errors
    /// [`Code::NOT_SUPPORTED`] where MIG is off or the profile is another model's,
    /// [`Code::INVALID_ARGUMENT`] for a place that the profile does not list,
    /// [`Code::INSUFFICIENT_RESOURCES`] where there is no room, [`Code::RESET_REQUIRED`].
    pub fn create_instance(&mut self, id: u32, place: Option<(u32, u32)>) -> Result<u32, Code> {
        self.need_mig()?;
        let model = self.model()?;
        let profile = self.profile(id)?;
        if self.faults.reset_required {
            return Err(Code::RESET_REQUIRED);
        }
        let start = match place {
            Some((start, size)) => {
                let listed = profile.placement_starts.contains(&start);
                if size != profile.placement_size || !listed {
                    return Err(Code::INVALID_ARGUMENT);
                }
                Some(start).filter(|&start| self.fits(profile, start))
            }
            None => {
                let order = model.default_order(profile);
                order.into_iter().find(|&start| self.fits(profile, start))
            }
        };
        let start = start.ok_or(Code::INSUFFICIENT_RESOURCES)?;
        let size = profile.placement_size;
        let place_id = instance_id(model.memory_slices, start, size).ok_or(Code::UNKNOWN)?;
        let generation = self.next_generation();
        let instance =
            GpuInstance { id: place_id, profile: id, start, size, generation, compute: Vec::new() };
        self.instances.push(instance);
        self.instances.sort_by_key(|instance| instance.id);
        Ok(place_id)
    }

    /// How many more instances of a profile there is room for.
    ///
    /// # Errors
    /// [`Code::NOT_SUPPORTED`] where MIG is off or the profile is another model's.
    pub fn remaining_capacity(&self, id: u32) -> Result<u32, Code> {
        self.need_mig()?;
        let profile = self.profile(id)?;
        let mut filled = self.clone();
        filled.faults.reset_required = false;
        let mut count = 0;
        // The starts of a profile are multiples of its size, so taking them in turn is best.
        for &start in &profile.placement_starts {
            if filled.create_instance(id, Some((start, profile.placement_size))).is_ok() {
                count += 1;
            }
        }
        Ok(count)
    }

    /// The instance with that id.
    ///
    /// # Errors
    /// [`Code::NOT_SUPPORTED`] where MIG is off, [`Code::NOT_FOUND`].
    pub fn instance(&self, id: u32) -> Result<&GpuInstance, Code> {
        self.need_mig()?;
        self.instances.iter().find(|instance| instance.id == id).ok_or(Code::NOT_FOUND)
    }

    /// The same, to change it.
    ///
    /// # Errors
    /// As [`Gpu::instance`].
    pub fn instance_mut(&mut self, id: u32) -> Result<&mut GpuInstance, Code> {
        self.need_mig()?;
        self.instances.iter_mut().find(|instance| instance.id == id).ok_or(Code::NOT_FOUND)
    }

    /// Takes an instance away.
    ///
    /// # Errors
    /// [`Code::IN_USE`] while it has compute instances, and as [`Gpu::instance`].
    pub fn destroy_instance(&mut self, id: u32) -> Result<(), Code> {
        if !self.instance(id)?.compute.is_empty() {
            return Err(Code::IN_USE);
        }
        self.instances.retain(|instance| instance.id != id);
        Ok(())
    }

    /// A number that no instance of this GPU had.
    pub(super) fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        self.generation
    }
}

#[cfg(test)]
#[path = "mig_tests.rs"]
mod tests;
