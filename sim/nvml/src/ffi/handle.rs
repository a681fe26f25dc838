//! Handles: opaque pointers whose bits name something of the state.
//!
//! ```text
//!  63..56  55..52  51..44  43..36  35..32       31..0
//!  0xB1    kind    GPU     GI      CI           generation
//! ```
//!
//! Generations differ between two instances at one place, so that a handle of an instance that is
//! gone never means its successor.

use crate::code::Code;
use crate::model::{ComputeInstance, Gpu, GpuInstance, Machine};

const MARK: u64 = 0xB1;

/// What a handle names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Gpu = 1,
    MigDevice = 2,
    Instance = 3,
    Compute = 4,
}

/// `nvmlDevice_t`, `nvmlGpuInstance_t` or `nvmlComputeInstance_t`: never followed as a pointer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub(super) struct Handle(*mut std::ffi::c_void);

impl Handle {
    fn new(kind: Kind, gpu: u32, instance: u32, compute: u32, generation: u32) -> Self {
        let bits = MARK << 56
            | u64::from(kind as u8) << 52
            | u64::from(gpu & 0xff) << 44
            | u64::from(instance & 0xff) << 36
            | u64::from(compute & 0xf) << 32
            | u64::from(generation);
        Self(std::ptr::without_provenance_mut(usize::try_from(bits).unwrap_or(0)))
    }

    pub(super) fn gpu(index: u32) -> Self {
        Self::new(Kind::Gpu, index, 0, 0, 0)
    }

    pub(super) fn instance(gpu: u32, instance: &GpuInstance) -> Self {
        Self::new(Kind::Instance, gpu, instance.id, 0, instance.generation)
    }

    pub(super) fn compute(gpu: u32, instance: &GpuInstance, compute: &ComputeInstance) -> Self {
        Self::new(Kind::Compute, gpu, instance.id, compute.id, compute.generation)
    }

    pub(super) fn mig_device(gpu: u32, instance: &GpuInstance, compute: &ComputeInstance) -> Self {
        Self::new(Kind::MigDevice, gpu, instance.id, compute.id, compute.generation)
    }

    /// The same pointer in the types of nvml-wrapper-sys.
    pub(super) fn cast<T>(self) -> *mut T {
        self.0.cast()
    }

    fn parts(self) -> Option<Parts> {
        let bits = self.0.addr() as u64;
        let field = |at: u32, width: u32| u32::try_from(bits >> at & ((1 << width) - 1)).ok();
        let kind = match field(52, 4)? {
            1 => Kind::Gpu,
            2 => Kind::MigDevice,
            3 => Kind::Instance,
            4 => Kind::Compute,
            _ => return None,
        };
        (bits >> 56 == MARK).then_some(Parts {
            kind,
            gpu: field(44, 8)?,
            instance: field(36, 8)?,
            compute: field(32, 4)?,
            generation: field(0, 32)?,
        })
    }

    /// The index of the GPU, for handles of that kind.
    pub(super) fn gpu_index(self) -> Result<u32, Code> {
        let parts = self.parts().filter(|parts| parts.kind == Kind::Gpu);
        parts.map(|parts| parts.gpu).ok_or(Code::INVALID_ARGUMENT)
    }

    /// GPU and instance of a GPU instance's handle, if that very instance is there.
    pub(super) fn instance_place(self, machine: &Machine) -> Result<(u32, u32), Code> {
        let parts = self.parts().filter(|parts| parts.kind == Kind::Instance);
        let parts = parts.ok_or(Code::INVALID_ARGUMENT)?;
        let found =
            machine.gpu(parts.gpu)?.instances.iter().find(|other| other.id == parts.instance);
        match found {
            Some(instance) if instance.generation == parts.generation => {
                Ok((parts.gpu, parts.instance))
            }
            _ => Err(Code::INVALID_ARGUMENT),
        }
    }

    /// GPU, instance and compute instance, for handles of compute instances and MIG devices.
    pub(super) fn compute_place(
        self,
        machine: &Machine,
        kind: Kind,
    ) -> Result<(u32, u32, u32), Code> {
        let parts =
            self.parts().filter(|parts| parts.kind == kind).ok_or(Code::INVALID_ARGUMENT)?;
        let gpu = machine.gpu(parts.gpu)?;
        let instance = gpu.instances.iter().find(|other| other.id == parts.instance);
        let compute = instance.and_then(|instance| instance.compute(parts.compute).ok());
        match compute {
            Some(compute) if compute.generation == parts.generation => {
                Ok((parts.gpu, parts.instance, parts.compute))
            }
            _ => Err(Code::INVALID_ARGUMENT),
        }
    }

    /// What a device handle means now.
    pub(super) fn device(self, machine: &Machine) -> Result<Device<'_>, Code> {
        let parts = self.parts().ok_or(Code::INVALID_ARGUMENT)?;
        let gpu = machine.gpu(parts.gpu)?;
        let slice = match parts.kind {
            Kind::Gpu => None,
            Kind::MigDevice => {
                let (_, instance, compute) = self.compute_place(machine, Kind::MigDevice)?;
                let instance = gpu.instance(instance)?;
                Some((instance, instance.compute(compute)?))
            }
            Kind::Instance | Kind::Compute => return Err(Code::INVALID_ARGUMENT),
        };
        Ok(Device { index: parts.gpu, gpu, slice })
    }
}

struct Parts {
    kind: Kind,
    gpu: u32,
    instance: u32,
    compute: u32,
    generation: u32,
}

/// A whole GPU, or the MIG device that is a compute instance of it.
#[derive(Clone, Copy)]
pub(super) struct Device<'a> {
    pub(super) index: u32,
    pub(super) gpu: &'a Gpu,
    pub(super) slice: Option<(&'a GpuInstance, &'a ComputeInstance)>,
}

impl<'a> Device<'a> {
    /// The GPU, for what a MIG device does not have.
    pub(super) fn whole(self) -> Result<&'a Gpu, Code> {
        if self.slice.is_some() { Err(Code::NOT_SUPPORTED) } else { Ok(self.gpu) }
    }

    /// The slice, for what a whole GPU does not have.
    pub(super) fn slice(self) -> Result<(&'a GpuInstance, &'a ComputeInstance), Code> {
        self.slice.ok_or(Code::INVALID_ARGUMENT)
    }

    pub(super) fn uuid(self) -> String {
        match self.slice {
            Some((instance, compute)) => self.gpu.mig_uuid(instance.id, compute.id),
            None => self.gpu.uuid.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_of_an_instance_that_is_gone_is_not_its_successors() {
        let mut machine = Machine::standard();
        let gpu = machine.gpu_mut(1).unwrap();
        gpu.set_mig_mode(true).unwrap();
        let id = gpu.create_instance(9, Some((0, 4))).unwrap();
        gpu.create_compute(id, 2, None).unwrap();
        let instance = machine.gpus[1].instances[0].clone();
        let handle = Handle::instance(1, &instance);
        let mig = Handle::mig_device(1, &instance, &instance.compute[0]);
        assert_eq!(handle.instance_place(&machine), Ok((1, id)));
        assert!(mig.device(&machine).is_ok());
        assert!(handle.device(&machine).is_err() && mig.instance_place(&machine).is_err());

        let gpu = machine.gpu_mut(1).unwrap();
        gpu.destroy_compute(id, 0).unwrap();
        gpu.create_compute(id, 2, None).unwrap();
        assert_eq!(mig.device(&machine).err(), Some(Code::INVALID_ARGUMENT));
        assert_eq!(handle.instance_place(&machine), Ok((1, id)));
        let gpu = machine.gpu_mut(1).unwrap();
        gpu.destroy_compute(id, 0).unwrap();
        gpu.destroy_instance(id).unwrap();
        gpu.create_instance(9, Some((0, 4))).unwrap();
        assert_eq!(handle.instance_place(&machine), Err(Code::INVALID_ARGUMENT));
    }

    #[test]
    fn any_other_pointer_is_no_handle() {
        let machine = Machine::standard();
        let local = 0_u8;
        for pointer in [
            std::ptr::null_mut(),
            (&raw const local).cast_mut().cast(),
            std::ptr::without_provenance_mut(usize::MAX),
        ] {
            assert_eq!(Handle(pointer).device(&machine).err(), Some(Code::INVALID_ARGUMENT));
        }
        assert!(Handle::gpu(2).device(&machine).is_err());
    }
}
