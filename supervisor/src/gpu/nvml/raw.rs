//! The calls of NVML that the safe wrapper does not have, each as a function on values.
//!
//! The bindings' own methods panic where the library lacks a symbol: here each symbol is looked at first. Buffers are larger
//! than any answer, and every count is compared with them. Handles never leave the thread that owns the library, and only
//! those of whole GPUs are kept: NVML may give the number of a GPU instance that is gone to the next one.
#![expect(
    unsafe_code,
    reason = "NVML is a C library; each call is given buffers of this module that outlive it"
)]

use std::ffi::{CStr, OsStr, c_char};

use bulkhead_api::mig::Placement;
use bulkhead_api::mig::report::{ReportedInstance, ReportedPlace, ReportedProfile};
use nvml_wrapper::{Device, Nvml};
use nvml_wrapper_sys::bindings as sys;
use tracing::debug;

use super::error::{Code, GpuError};

/// Most GPU instances, compute instances and places that are read. Grids have up to 12 units.
const MOST: usize = 64;
/// `nvmlGpuInstanceProfileInfo_v2_t` with its size, and which version it is (NVML API reference, `NVML_STRUCT_VERSION`).
const PROFILE_VERSION: u32 = 0x0200_0098;
/// "All of the GPU" in events.
const WHOLE: u32 = u32::MAX;

/// A GPU as a whole.
#[derive(Debug, Clone, Copy)]
pub(super) struct Handle(sys::nvmlDevice_t);

/// A GPU instance, for one call.
#[derive(Debug, Clone, Copy)]
pub(super) struct InstanceHandle(sys::nvmlGpuInstance_t);

/// A compute instance, for one call.
#[derive(Debug, Clone, Copy)]
pub(super) struct ComputeHandle(sys::nvmlComputeInstance_t);

/// A set of events; freed by [`Raw::end_events`].
#[derive(Debug)]
pub(super) struct Events(sys::nvmlEventSet_t);

/// An event: a GPU, its XID, the GPU instance that it names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Event {
    pub(super) handle: Handle,
    pub(super) xid: u64,
    pub(super) instance: Option<u32>,
}

impl Event {
    /// Whether it is of that GPU.
    pub(super) fn is_of(&self, gpu: Handle) -> bool {
        std::ptr::eq(self.handle.0, gpu.0)
    }
}

/// Rows of memory that were remapped.
#[derive(Debug, Clone, Copy)]
pub(super) struct Remapped {
    pub(super) uncorrectable: u32,
    pub(super) pending: bool,
    pub(super) failed: bool,
}

/// The library's functions.
pub(super) struct Raw(sys::NvmlLib);

impl std::fmt::Debug for Raw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Raw").finish_non_exhaustive()
    }
}

/// A function, or that the library lacks it.
macro_rules! symbol {
    ($raw:expr, $name:ident) => {
        $raw.0.$name.as_ref().map_err(|_| GpuError::NoSymbol(stringify!($name)))
    };
}

/// A code as a result.
fn check(call: &'static str, gpu: &str, code: u32) -> Result<(), GpuError> {
    if code == 0 { Ok(()) } else { Err(GpuError::refused(call, gpu, Code::from(code))) }
}

/// As much of a buffer as the library says it filled.
fn filled<'b, T>(
    call: &'static str,
    gpu: &str,
    buffer: &'b [T],
    count: u32,
) -> Result<&'b [T], GpuError> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    buffer.get(..count).ok_or_else(|| GpuError::garbage(call, gpu, format!("{count} entries")))
}

impl Raw {
    /// The library that the safe wrapper has open as well: handles are good for both.
    pub(super) fn open(path: &OsStr) -> Result<Self, GpuError> {
        // SAFETY: the safe wrapper has loaded the same library before, so that no initialiser runs here.
        let library = unsafe { sys::NvmlLib::new(path) };
        let why = |error: &dyn std::error::Error| error.to_string();
        library
            .map(Self)
            .map_err(|error| GpuError::NoLibrary { path: path.into(), why: why(&error) })
    }

    /// The device of the safe wrapper for a handle.
    pub(super) fn device(nvml: &Nvml, handle: Handle) -> Device<'_> {
        // SAFETY: the handle is of the same library, and of a GPU as a whole, which keeps its handle while the library is open.
        unsafe { Device::new(handle.0, nvml) }
    }

    pub(super) fn handle(device: &Device<'_>) -> Handle {
        // SAFETY: the handle is used by the thread that has the library open, and dropped before the library is closed.
        Handle(unsafe { device.handle() })
    }

    /// Profile by its number for asking, without its places; `None` where the GPU has none of that number.
    pub(super) fn profile(
        &self,
        gpu: &str,
        handle: Handle,
        number: u32,
    ) -> Result<Option<ReportedProfile>, GpuError> {
        let call = "nvmlDeviceGetGpuInstanceProfileInfoV";
        let function = symbol!(self, nvmlDeviceGetGpuInstanceProfileInfoV)?;
        // SAFETY: all zeros are valid for this structure of numbers.
        let mut info: sys::nvmlGpuInstanceProfileInfo_v2_t = unsafe { std::mem::zeroed() };
        info.version = PROFILE_VERSION;
        // SAFETY: the structure is of the version that it says, and lives through the call.
        let code = unsafe { function(handle.0, number, &raw mut info) };
        match check(call, gpu, code) {
            Err(error)
                if matches!(
                    error.code(),
                    Some(Code::NotSupported | Code::InvalidArgument | Code::NotFound)
                ) =>
            {
                return Ok(None);
            }
            done => done?,
        }
        let name: Vec<u8> =
            info.name.iter().map(|&c| c.cast_unsigned()).take_while(|&c| c != 0).collect();
        Ok(Some(ReportedProfile {
            id: info.id,
            // What is no text is no name either.
            name: String::from_utf8_lossy(&name).into_owned(),
            compute_slices: info.sliceCount,
            instance_count: info.instanceCount,
            memory_mib: info.memorySizeMB,
            decoders: info.decoderCount,
            encoders: info.encoderCount,
            jpeg: info.jpegCount,
            optical_flow: info.ofaCount,
            ..ReportedProfile::default()
        }))
    }

    /// Where instances of a profile can be, whether or not somebody is there: how many places were announced, and those that
    /// came.
    pub(super) fn places(
        &self,
        gpu: &str,
        handle: Handle,
        profile: u32,
    ) -> Result<(u32, Vec<ReportedPlace>), GpuError> {
        let call = "nvmlDeviceGetGpuInstancePossiblePlacements_v2";
        let function = symbol!(self, nvmlDeviceGetGpuInstancePossiblePlacements_v2)?;
        let mut announced = 0;
        // SAFETY: without a buffer only the count is written.
        let code = unsafe { function(handle.0, profile, std::ptr::null_mut(), &raw mut announced) };
        check(call, gpu, code)?;
        let empty = sys::nvmlGpuInstancePlacement_t { start: 0, size: 0 };
        let mut buffer = [empty; MOST];
        let mut count = u32::try_from(MOST).unwrap_or(0);
        // SAFETY: the buffer has as many places as the count says, and both live through the call.
        let code = unsafe { function(handle.0, profile, buffer.as_mut_ptr(), &raw mut count) };
        check(call, gpu, code)?;
        let places = filled(call, gpu, &buffer, count)?.iter();
        let place = |found: &sys::nvmlGpuInstancePlacement_t| ReportedPlace {
            start: found.start,
            size: found.size,
        };
        Ok((announced, places.map(place).collect()))
    }

    /// Instances of a profile.
    pub(super) fn instances(
        &self,
        gpu: &str,
        handle: Handle,
        profile: u32,
    ) -> Result<Vec<InstanceHandle>, GpuError> {
        let call = "nvmlDeviceGetGpuInstances";
        let function = symbol!(self, nvmlDeviceGetGpuInstances)?;
        let mut buffer: [sys::nvmlGpuInstance_t; MOST] = [std::ptr::null_mut(); MOST];
        let mut count = u32::try_from(MOST).unwrap_or(0);
        // SAFETY: NVML asks for room for as many as the GPU can have, which no GPU has so many of; both live through the call.
        let code = unsafe { function(handle.0, profile, buffer.as_mut_ptr(), &raw mut count) };
        check(call, gpu, code)?;
        Ok(filled(call, gpu, &buffer, count)?
            .iter()
            .map(|&handle| InstanceHandle(handle))
            .collect())
    }

    pub(super) fn instance(
        &self,
        gpu: &str,
        instance: InstanceHandle,
    ) -> Result<ReportedInstance, GpuError> {
        let call = "nvmlGpuInstanceGetInfo";
        let function = symbol!(self, nvmlGpuInstanceGetInfo)?;
        // SAFETY: all zeros are valid for this structure of numbers and pointers.
        let mut info: sys::nvmlGpuInstanceInfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: the handle was given by the library a moment ago; the structure lives through the call.
        let code = unsafe { function(instance.0, &raw mut info) };
        check(call, gpu, code)?;
        let place = ReportedPlace { start: info.placement.start, size: info.placement.size };
        Ok(ReportedInstance { id: info.id, profile: info.profileId, place })
    }

    pub(super) fn create_instance(
        &self,
        gpu: &str,
        handle: Handle,
        place: Placement,
    ) -> Result<InstanceHandle, GpuError> {
        let call = "nvmlDeviceCreateGpuInstanceWithPlacement";
        let function = symbol!(self, nvmlDeviceCreateGpuInstanceWithPlacement)?;
        let placement = sys::nvmlGpuInstancePlacement_t {
            start: u32::from(place.start),
            size: u32::from(place.size),
        };
        let mut created: sys::nvmlGpuInstance_t = std::ptr::null_mut();
        // SAFETY: the placement is read and the handle written within the call.
        let code =
            unsafe { function(handle.0, place.profile, &raw const placement, &raw mut created) };
        check(call, gpu, code)?;
        Ok(InstanceHandle(created))
    }

    pub(super) fn destroy_instance(
        &self,
        gpu: &str,
        instance: InstanceHandle,
    ) -> Result<(), GpuError> {
        let function = symbol!(self, nvmlGpuInstanceDestroy)?;
        // SAFETY: the handle was given by the library a moment ago.
        check("nvmlGpuInstanceDestroy", gpu, unsafe { function(instance.0) })
    }

    /// Profile of compute instances by its number for asking: its number for creating, and its slices.
    pub(super) fn compute_profile(
        &self,
        gpu: &str,
        instance: InstanceHandle,
        number: u32,
    ) -> Result<Option<(u32, u32)>, GpuError> {
        let call = "nvmlGpuInstanceGetComputeInstanceProfileInfo";
        let function = symbol!(self, nvmlGpuInstanceGetComputeInstanceProfileInfo)?;
        // SAFETY: all zeros are valid for this structure of numbers.
        let mut info: sys::nvmlComputeInstanceProfileInfo_t = unsafe { std::mem::zeroed() };
        let shared = sys::NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED;
        // SAFETY: the handle was given by the library a moment ago; the structure lives through the call.
        let code = unsafe { function(instance.0, number, shared, &raw mut info) };
        match check(call, gpu, code) {
            Ok(()) => Ok(Some((info.id, info.sliceCount))),
            Err(error)
                if matches!(error.code(), Some(Code::NotSupported | Code::InvalidArgument)) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn compute_instances(
        &self,
        gpu: &str,
        instance: InstanceHandle,
        profile: u32,
    ) -> Result<Vec<ComputeHandle>, GpuError> {
        let call = "nvmlGpuInstanceGetComputeInstances";
        let function = symbol!(self, nvmlGpuInstanceGetComputeInstances)?;
        let mut buffer: [sys::nvmlComputeInstance_t; MOST] = [std::ptr::null_mut(); MOST];
        let mut count = u32::try_from(MOST).unwrap_or(0);
        // SAFETY: as with GPU instances.
        let code = unsafe { function(instance.0, profile, buffer.as_mut_ptr(), &raw mut count) };
        check(call, gpu, code)?;
        Ok(filled(call, gpu, &buffer, count)?.iter().map(|&handle| ComputeHandle(handle)).collect())
    }

    /// Number, number of the profile, and NVML's name of the MIG device.
    pub(super) fn compute_instance(
        &self,
        gpu: &str,
        compute: ComputeHandle,
    ) -> Result<(u32, u32, Option<String>), GpuError> {
        let call = "nvmlComputeInstanceGetInfo_v2";
        let function = symbol!(self, nvmlComputeInstanceGetInfo_v2)?;
        // SAFETY: all zeros are valid for this structure of numbers and pointers.
        let mut info: sys::nvmlComputeInstanceInfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: the handle was given by the library a moment ago; the structure lives through the call.
        let code = unsafe { function(compute.0, &raw mut info) };
        check(call, gpu, code)?;
        // The header says that this is the GPU; it is the MIG device (NVIDIA/k8s-dra-driver-gpu, nvlib.go).
        let uuid = self.uuid(gpu, info.device).ok();
        Ok((info.id, info.profileId, uuid))
    }

    fn uuid(&self, gpu: &str, device: sys::nvmlDevice_t) -> Result<String, GpuError> {
        let call = "nvmlDeviceGetUUID";
        let function = symbol!(self, nvmlDeviceGetUUID)?;
        let mut text = [0 as c_char; 96];
        let length = u32::try_from(text.len()).unwrap_or(0);
        // SAFETY: the device was given by the library a moment ago; the buffer is as long as is said.
        check(call, gpu, unsafe { function(device, text.as_mut_ptr(), length) })?;
        if let Some(last) = text.last_mut() {
            *last = 0;
        }
        // SAFETY: the last byte is 0.
        let text = unsafe { CStr::from_ptr(text.as_ptr()) };
        Ok(text.to_string_lossy().into_owned())
    }

    pub(super) fn create_compute(
        &self,
        gpu: &str,
        instance: InstanceHandle,
        profile: u32,
    ) -> Result<ComputeHandle, GpuError> {
        let function = symbol!(self, nvmlGpuInstanceCreateComputeInstance)?;
        let mut created: sys::nvmlComputeInstance_t = std::ptr::null_mut();
        // SAFETY: the handle was given by the library a moment ago; the new one is written within the call.
        let code = unsafe { function(instance.0, profile, &raw mut created) };
        check("nvmlGpuInstanceCreateComputeInstance", gpu, code)?;
        Ok(ComputeHandle(created))
    }

    pub(super) fn destroy_compute(
        &self,
        gpu: &str,
        compute: ComputeHandle,
    ) -> Result<(), GpuError> {
        let function = symbol!(self, nvmlComputeInstanceDestroy)?;
        // SAFETY: the handle was given by the library a moment ago.
        check("nvmlComputeInstanceDestroy", gpu, unsafe { function(compute.0) })
    }

    pub(super) fn remapped(&self, gpu: &str, handle: Handle) -> Result<Remapped, GpuError> {
        let function = symbol!(self, nvmlDeviceGetRemappedRows)?;
        let (mut corrected, mut uncorrectable, mut pending, mut failed) = (0, 0, 0, 0);
        // SAFETY: four numbers, written within the call.
        let code = unsafe {
            function(
                handle.0,
                &raw mut corrected,
                &raw mut uncorrectable,
                &raw mut pending,
                &raw mut failed,
            )
        };
        check("nvmlDeviceGetRemappedRows", gpu, code)?;
        Ok(Remapped { uncorrectable, pending: pending != 0, failed: failed != 0 })
    }

    /// A set of events that hears XIDs of those GPUs, as far as they have events.
    pub(super) fn events(&self, gpus: &[(&str, Handle)]) -> Result<Events, GpuError> {
        let create = symbol!(self, nvmlEventSetCreate)?;
        let register = symbol!(self, nvmlDeviceRegisterEvents)?;
        let mut set: sys::nvmlEventSet_t = std::ptr::null_mut();
        // SAFETY: the set is written within the call.
        check("nvmlEventSetCreate", "all", unsafe { create(&raw mut set) })?;
        let events = Events(set);
        let xid = u64::from(sys::nvmlEventTypeXidCriticalError);
        for (gpu, handle) in gpus {
            // SAFETY: handle and set are of this library and not freed.
            let code = unsafe { register(handle.0, xid, events.0) };
            if let Err(error) = check("nvmlDeviceRegisterEvents", gpu, code) {
                // It has no events, or is lost, which its readings tell: the others are heard.
                debug!(%error, "XIDs of a GPU are not heard from NVML");
            }
        }
        Ok(events)
    }

    /// The next event; `None` where none came meanwhile. Does not wait.
    pub(super) fn event(&self, events: &Events) -> Result<Option<Event>, GpuError> {
        let call = "nvmlEventSetWait_v2";
        let function = symbol!(self, nvmlEventSetWait_v2)?;
        // SAFETY: all zeros are valid for this structure of numbers and pointers.
        let mut found: sys::nvmlEventData_t = unsafe { std::mem::zeroed() };
        // SAFETY: the set is not freed; the structure lives through the call.
        let code = unsafe { function(events.0, &raw mut found, 0) };
        match check(call, "all", code) {
            Err(error) if error.code() == Some(Code::Timeout) => Ok(None),
            Err(error) => Err(error),
            Ok(()) => Ok(Some(Event {
                handle: Handle(found.device),
                xid: found.eventData,
                instance: Some(found.gpuInstanceId).filter(|&id| id != WHOLE),
            })),
        }
    }

    /// Frees a set. An error leaves it to the end of the process.
    pub(super) fn end_events(&self, events: &Events) {
        if let Ok(function) = symbol!(self, nvmlEventSetFree) {
            // SAFETY: the set is of this library; nobody uses it after this.
            let _ = unsafe { function(events.0) };
        }
    }
}
