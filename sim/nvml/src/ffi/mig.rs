//! MIG mode, profiles and GPU instances.

use nvml_wrapper_sys::bindings as sys;

use super::boundary::Call;
use super::handle::Handle;
use super::nvml;
use super::pointer::{In, InOut, List, Out, Versioned, field, version_of};
use crate::access;
use crate::code::Code;
use crate::model::mig::Activation;
use crate::model::{ComputeInstance, Gpu, GpuInstance, Machine};
use crate::profiles::{Model, Profile};

/// `NVML_GPU_INSTANCE_PROFILE_*` of API 13 are below this.
const PROFILES: u32 = 0x12;

/// Refuses callers that are not root.
pub(super) fn need_root() -> Result<(), Code> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err(Code::NO_PERMISSION) }
}

/// MIG devices of a GPU that this process is shown.
pub(super) fn shown_slices<'a>(
    machine: &'a Machine,
    gpu: &'a Gpu,
) -> impl Iterator<Item = (&'a GpuInstance, &'a ComputeInstance)> {
    let folder = machine.device_nodes.as_deref();
    gpu.mig_devices().filter(move |(instance, compute)| {
        access::sees_slice(folder, gpu.minor, instance.id, compute.id)
    })
}

/// A GPU with its model, for calls that a model without MIG does not have.
fn mig_gpu(machine: &Machine, device: Handle) -> Result<(&Gpu, &'static Model), Code> {
    let gpu = device.device(machine)?.whole()?;
    gpu.mig_mode()?;
    Ok((gpu, gpu.model()?))
}

type Info3 = sys::nvmlGpuInstanceProfileInfo_v3_t;

/// The newest description of a profile, from which the others are cut.
fn description(gpu: &Gpu, model: &Model, profile: &Profile) -> Result<Info3, Code> {
    let engines = profile.engines();
    let graphics = if profile.graphics() { sys::NVML_GPU_INSTANCE_PROFILE_CAPS_GFX } else { 0 };
    Ok(Info3 {
        version: version_of::<Info3>(3),
        id: profile.gi_profile_id,
        sliceCount: profile.slices,
        instanceCount: gpu.promised_count(profile)?,
        multiprocessorCount: profile.multiprocessors(),
        copyEngineCount: engines.copy,
        decoderCount: engines.decoders,
        encoderCount: engines.encoders,
        jpegCount: engines.jpeg,
        ofaCount: engines.optical_flow,
        memorySizeMB: model.instance_memory_mib(profile),
        name: field(&format!("MIG {}", profile.name)),
        capabilities: graphics,
    })
}

fn write_description(out: Versioned, info: Info3) -> Result<(), Code> {
    match out.version()? >> 24 {
        2 => out.set(version_of::<sys::nvmlGpuInstanceProfileInfo_v2_t>(2), second(info)),
        3 => out.set(version_of::<Info3>(3), info),
        _ => Err(Code::ARGUMENT_VERSION_MISMATCH),
    }
}

fn second(info: Info3) -> sys::nvmlGpuInstanceProfileInfo_v2_t {
    sys::nvmlGpuInstanceProfileInfo_v2_t {
        version: version_of::<sys::nvmlGpuInstanceProfileInfo_v2_t>(2),
        id: info.id,
        isP2pSupported: 0,
        sliceCount: info.sliceCount,
        instanceCount: info.instanceCount,
        multiprocessorCount: info.multiprocessorCount,
        copyEngineCount: info.copyEngineCount,
        decoderCount: info.decoderCount,
        encoderCount: info.encoderCount,
        jpegCount: info.jpegCount,
        ofaCount: info.ofaCount,
        memorySizeMB: info.memorySizeMB,
        name: info.name,
    }
}

fn first(info: Info3) -> sys::nvmlGpuInstanceProfileInfo_t {
    sys::nvmlGpuInstanceProfileInfo_t {
        id: info.id,
        isP2pSupported: 0,
        sliceCount: info.sliceCount,
        instanceCount: info.instanceCount,
        multiprocessorCount: info.multiprocessorCount,
        copyEngineCount: info.copyEngineCount,
        decoderCount: info.decoderCount,
        encoderCount: info.encoderCount,
        jpegCount: info.jpegCount,
        ofaCount: info.ofaCount,
        memorySizeMB: info.memorySizeMB,
    }
}

fn by_enum(call: &Call, device: Handle, number: u32) -> Result<Info3, Code> {
    if number >= PROFILES {
        return Err(Code::INVALID_ARGUMENT);
    }
    let (gpu, model) = mig_gpu(&call.machine, device)?;
    description(gpu, model, model.profile_by_enum(number).ok_or(Code::NOT_SUPPORTED)?)
}

fn placements(
    call: &Call,
    device: Handle,
    id: u32,
) -> Result<Vec<sys::nvmlGpuInstancePlacement_t>, Code> {
    need_root()?;
    let (gpu, _) = mig_gpu(&call.machine, device)?;
    let profile = gpu.profile(id)?;
    let at = |&start: &u32| sys::nvmlGpuInstancePlacement_t { start, size: profile.placement_size };
    Ok(profile.placement_starts.iter().map(at).collect())
}

fn create(
    call: &Call,
    device: Handle,
    id: u32,
    place: Option<(u32, u32)>,
    out: Out<Handle>,
) -> Result<(), Code> {
    out.need()?;
    need_root()?;
    let index = device.gpu_index()?;
    let handle = call.update(|machine| {
        let gpu = machine.gpu_mut(index)?;
        let made = gpu.create_instance(id, place)?;
        Ok(Handle::instance(index, gpu.instance(made)?))
    })?;
    out.set(handle)
}

fn set_mode(call: &Call, device: Handle, mode: u32, status: Out<u32>) -> Result<(), Code> {
    status.need()?;
    let on = match mode {
        0 => false,
        1 => true,
        _ => return Err(Code::INVALID_ARGUMENT),
    };
    device.device(&call.machine)?.whole()?.mig_mode()?;
    need_root()?;
    let index = device.gpu_index()?;
    match call.update(|machine| machine.gpu_mut(index)?.set_mig_mode(on))? {
        Activation::Done => status.set(0),
        Activation::Pending(code) => status.set(code.0),
    }
}

nvml! {
    fn nvmlDeviceGetMigMode(device: Handle, current: Out<u32>, pending: Out<u32>) |call| {
        let (now, then) = device.device(&call.machine)?.whole()?.mig_mode()?;
        current.set(now.into())?;
        pending.set(then.into())
    };
    fn nvmlDeviceSetMigMode(device: Handle, mode: u32, status: Out<u32>)
        |call| set_mode(call, device, mode, status);
    fn nvmlDeviceGetGpuInstanceProfileInfo(
        device: Handle,
        number: u32,
        out: Out<sys::nvmlGpuInstanceProfileInfo_t>,
    ) |call| out.set(first(by_enum(call, device, number)?));
    fn nvmlDeviceGetGpuInstanceProfileInfoV(device: Handle, number: u32, out: Versioned) |call| {
        out.version()?;
        write_description(out, by_enum(call, device, number)?)
    };
    fn nvmlDeviceGetGpuInstanceProfileInfoByIdV(device: Handle, id: u32, out: Versioned) |call| {
        out.version()?;
        let (gpu, model) = mig_gpu(&call.machine, device)?;
        write_description(out, description(gpu, model, gpu.profile(id)?)?)
    };
    fn nvmlDeviceGetGpuInstancePossiblePlacements_v2(
        device: Handle,
        id: u32,
        out: List<sys::nvmlGpuInstancePlacement_t>,
        count: InOut<u32>,
    ) |call| out.fill_or_count(count, &placements(call, device, id)?);
    fn nvmlDeviceGetGpuInstancePossiblePlacements(
        device: Handle,
        id: u32,
        out: List<sys::nvmlGpuInstancePlacement_t>,
        count: Out<u32>,
    ) |call| out.fill_all(count, &placements(call, device, id)?);
    fn nvmlDeviceGetGpuInstanceRemainingCapacity(device: Handle, id: u32, count: Out<u32>) |call| {
        need_root()?;
        count.set(device.device(&call.machine)?.whole()?.remaining_capacity(id)?)
    };
    fn nvmlDeviceCreateGpuInstance(device: Handle, id: u32, out: Out<Handle>)
        |call| create(call, device, id, None, out);
    fn nvmlDeviceCreateGpuInstanceWithPlacement(
        device: Handle,
        id: u32,
        placement: In<sys::nvmlGpuInstancePlacement_t>,
        out: Out<Handle>,
    ) |call| {
        let placement = placement.get()?;
        create(call, device, id, Some((placement.start, placement.size)), out)
    };
    fn nvmlGpuInstanceDestroy(instance: Handle) |call| {
        need_root()?;
        call.update(|machine| {
            let (gpu, id) = instance.instance_place(machine)?;
            machine.gpu_mut(gpu)?.destroy_instance(id)
        })
    };
    fn nvmlDeviceGetGpuInstances(device: Handle, id: u32, out: List<Handle>, count: Out<u32>) |call| {
        let index = device.gpu_index()?;
        let gpu = call.machine.gpu(index)?;
        gpu.need_mig()?;
        gpu.profile(id)?;
        need_root()?;
        let of_profile = gpu.instances.iter().filter(|instance| instance.profile == id);
        let handles: Vec<Handle> = of_profile.map(|instance| Handle::instance(index, instance)).collect();
        out.fill_all(count, &handles)
    };
    fn nvmlDeviceGetGpuInstanceById(device: Handle, id: u32, out: Out<Handle>) |call| {
        let index = device.gpu_index()?;
        need_root()?;
        out.set(Handle::instance(index, call.machine.gpu(index)?.instance(id)?))
    };
    fn nvmlGpuInstanceGetInfo(instance: Handle, out: Out<sys::nvmlGpuInstanceInfo_t>) |call| {
        let (gpu, id) = instance.instance_place(&call.machine)?;
        let found = call.machine.gpu(gpu)?.instance(id)?;
        out.set(sys::nvmlGpuInstanceInfo_t {
            device: Handle::gpu(gpu).cast(),
            id,
            profileId: found.profile,
            placement: sys::nvmlGpuInstancePlacement_t { start: found.start, size: found.size },
        })
    };
    fn nvmlDeviceIsMigDeviceHandle(device: Handle, out: Out<u32>)
        |call| out.set(device.device(&call.machine)?.slice.is_some().into());
    fn nvmlDeviceGetGpuInstanceId(device: Handle, out: Out<u32>)
        |call| out.set(device.device(&call.machine)?.slice()?.0.id);
    fn nvmlDeviceGetComputeInstanceId(device: Handle, out: Out<u32>)
        |call| out.set(device.device(&call.machine)?.slice()?.1.id);
    fn nvmlDeviceGetMaxMigDeviceCount(device: Handle, out: Out<u32>) |call| {
        let gpu = device.device(&call.machine)?.whole()?;
        out.set(if gpu.mig.current { gpu.model()?.compute_slices } else { 0 })
    };
    fn nvmlDeviceGetMigDeviceHandleByIndex(device: Handle, index: u32, out: Out<Handle>) |call| {
        let parent = device.gpu_index()?;
        let gpu = call.machine.gpu(parent)?;
        gpu.mig_mode()?;
        let at = usize::try_from(index).map_err(|_| Code::INVALID_ARGUMENT)?;
        if gpu.mig.current && index >= gpu.model()?.compute_slices {
            return Err(Code::INVALID_ARGUMENT);
        }
        let (instance, compute) =
            shown_slices(&call.machine, gpu).nth(at).ok_or(Code::NOT_FOUND)?;
        out.set(Handle::mig_device(parent, instance, compute))
    };
    fn nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device: Handle, out: Out<Handle>) |call| {
        let device = device.device(&call.machine)?;
        device.slice()?;
        out.set(Handle::gpu(device.index))
    };
}
