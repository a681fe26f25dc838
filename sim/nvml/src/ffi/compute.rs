//! Compute instances and attributes of MIG devices.

use nvml_wrapper_sys::bindings as sys;

use super::boundary::Call;
use super::handle::{Handle, Kind};
use super::mig::need_root;
use super::nvml;
use super::pointer::{In, InOut, List, Out, Versioned, field, version_of};
use crate::code::Code;
use crate::model::compute::{compute_starts, slices_of};
use crate::profiles::Profile;

/// `NVML_COMPUTE_INSTANCE_PROFILE_*` are below this; one kind of engine sharing.
const PROFILES: u32 = sys::NVML_COMPUTE_INSTANCE_PROFILE_COUNT;

type Info3 = sys::nvmlComputeInstanceProfileInfo_v3_t;

fn instance_profile(call: &Call, instance: Handle) -> Result<&'static Profile, Code> {
    let (gpu, id) = instance.instance_place(&call.machine)?;
    let gpu = call.machine.gpu(gpu)?;
    gpu.profile(gpu.instance(id)?.profile)
}

fn description(call: &Call, instance: Handle, profile: u32, engine: u32) -> Result<Info3, Code> {
    if profile >= PROFILES || engine >= sys::NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_COUNT {
        return Err(Code::INVALID_ARGUMENT);
    }
    let of = instance_profile(call, instance)?;
    let size = slices_of(profile, of.slices)?;
    let engines = of.engines();
    let name = if size == of.slices { of.name.clone() } else { format!("{size}c.{}", of.name) };
    Ok(Info3 {
        version: version_of::<Info3>(3),
        id: profile,
        sliceCount: size,
        instanceCount: of.slices / size,
        multiprocessorCount: of.multiprocessors() * size / of.slices,
        sharedCopyEngineCount: engines.copy,
        sharedDecoderCount: engines.decoders,
        sharedEncoderCount: engines.encoders,
        sharedJpegCount: engines.jpeg,
        sharedOfaCount: engines.optical_flow,
        name: field(&format!("MIG {name}")),
        capabilities: if of.graphics() { sys::NVML_COMPUTE_INSTANCE_PROFILE_CAPS_GFX } else { 0 },
    })
}

fn second(info: Info3) -> sys::nvmlComputeInstanceProfileInfo_v2_t {
    sys::nvmlComputeInstanceProfileInfo_v2_t {
        version: version_of::<sys::nvmlComputeInstanceProfileInfo_v2_t>(2),
        id: info.id,
        sliceCount: info.sliceCount,
        instanceCount: info.instanceCount,
        multiprocessorCount: info.multiprocessorCount,
        sharedCopyEngineCount: info.sharedCopyEngineCount,
        sharedDecoderCount: info.sharedDecoderCount,
        sharedEncoderCount: info.sharedEncoderCount,
        sharedJpegCount: info.sharedJpegCount,
        sharedOfaCount: info.sharedOfaCount,
        name: info.name,
    }
}

fn create(
    call: &Call,
    instance: Handle,
    profile: u32,
    place: Option<(u32, u32)>,
    out: Out<Handle>,
) -> Result<(), Code> {
    out.need()?;
    need_root()?;
    let handle = call.update(|machine| {
        let (index, id) = instance.instance_place(machine)?;
        let gpu = machine.gpu_mut(index)?;
        let made = gpu.create_compute(id, profile, place)?;
        let found = gpu.instance(id)?;
        Ok(Handle::compute(index, found, found.compute(made)?))
    })?;
    out.set(handle)
}

/// The description of a compute instance; `device` is the MIG device, as clients found, whatever
/// nvml.h says of a parent.
fn info(call: &Call, compute: Handle) -> Result<sys::nvmlComputeInstanceInfo_t, Code> {
    let (index, instance, id) = compute.compute_place(&call.machine, Kind::Compute)?;
    let instance = call.machine.gpu(index)?.instance(instance)?;
    let found = instance.compute(id)?;
    Ok(sys::nvmlComputeInstanceInfo_t {
        device: Handle::mig_device(index, instance, found).cast(),
        gpuInstance: Handle::instance(index, instance).cast(),
        id,
        profileId: found.profile,
        placement: sys::nvmlComputeInstancePlacement_t { start: found.start, size: found.size },
    })
}

fn attributes(call: &Call, device: Handle) -> Result<sys::nvmlDeviceAttributes_t, Code> {
    let device = device.device(&call.machine)?;
    let (instance, compute) = device.slice.ok_or(Code::NOT_SUPPORTED)?;
    let profile = device.gpu.profile(instance.profile)?;
    let engines = profile.engines();
    Ok(sys::nvmlDeviceAttributes_t {
        multiprocessorCount: profile.multiprocessors() * compute.size / profile.slices.max(1),
        sharedCopyEngineCount: engines.copy,
        sharedDecoderCount: engines.decoders,
        sharedEncoderCount: engines.encoders,
        sharedJpegCount: engines.jpeg,
        sharedOfaCount: engines.optical_flow,
        gpuInstanceSliceCount: profile.slices,
        computeInstanceSliceCount: compute.size,
        memorySizeMB: device.gpu.model()?.instance_memory_mib(profile),
    })
}

nvml! {
    fn nvmlGpuInstanceGetComputeInstanceProfileInfo(
        instance: Handle,
        profile: u32,
        engine: u32,
        out: Out<sys::nvmlComputeInstanceProfileInfo_t>,
    ) |call| {
        let info = description(call, instance, profile, engine)?;
        out.set(sys::nvmlComputeInstanceProfileInfo_t {
            id: info.id,
            sliceCount: info.sliceCount,
            instanceCount: info.instanceCount,
            multiprocessorCount: info.multiprocessorCount,
            sharedCopyEngineCount: info.sharedCopyEngineCount,
            sharedDecoderCount: info.sharedDecoderCount,
            sharedEncoderCount: info.sharedEncoderCount,
            sharedJpegCount: info.sharedJpegCount,
            sharedOfaCount: info.sharedOfaCount,
        })
    };
    fn nvmlGpuInstanceGetComputeInstanceProfileInfoV(
        instance: Handle,
        profile: u32,
        engine: u32,
        out: Versioned,
    ) |call| {
        let version = out.version()?;
        let info = description(call, instance, profile, engine)?;
        match version >> 24 {
            2 => out.set(version_of::<sys::nvmlComputeInstanceProfileInfo_v2_t>(2), second(info)),
            3 => out.set(version_of::<Info3>(3), info),
            _ => Err(Code::ARGUMENT_VERSION_MISMATCH),
        }
    };
    fn nvmlGpuInstanceGetComputeInstanceRemainingCapacity(
        instance: Handle,
        profile: u32,
        count: Out<u32>,
    ) |call| {
        need_root()?;
        let (gpu, id) = instance.instance_place(&call.machine)?;
        count.set(call.machine.gpu(gpu)?.remaining_compute(id, profile)?)
    };
    fn nvmlGpuInstanceGetComputeInstancePossiblePlacements(
        instance: Handle,
        profile: u32,
        out: List<sys::nvmlComputeInstancePlacement_t>,
        count: InOut<u32>,
    ) |call| {
        need_root()?;
        let slices = instance_profile(call, instance)?.slices;
        let size = slices_of(profile, slices)?;
        let starts = compute_starts(slices, size).into_iter();
        let at = |start| sys::nvmlComputeInstancePlacement_t { start, size };
        out.fill_or_count(count, &starts.map(at).collect::<Vec<_>>())
    };
    fn nvmlGpuInstanceCreateComputeInstance(instance: Handle, profile: u32, out: Out<Handle>)
        |call| create(call, instance, profile, None, out);
    fn nvmlGpuInstanceCreateComputeInstanceWithPlacement(
        instance: Handle,
        profile: u32,
        placement: In<sys::nvmlComputeInstancePlacement_t>,
        out: Out<Handle>,
    ) |call| {
        let placement = placement.get()?;
        create(call, instance, profile, Some((placement.start, placement.size)), out)
    };
    fn nvmlComputeInstanceDestroy(compute: Handle) |call| {
        need_root()?;
        call.update(|machine| {
            let (gpu, instance, id) = compute.compute_place(machine, Kind::Compute)?;
            machine.gpu_mut(gpu)?.destroy_compute(instance, id)
        })
    };
    fn nvmlGpuInstanceGetComputeInstances(
        instance: Handle,
        profile: u32,
        out: List<Handle>,
        count: Out<u32>,
    ) |call| {
        let (index, id) = instance.instance_place(&call.machine)?;
        slices_of(profile, instance_profile(call, instance)?.slices)?;
        let found = call.machine.gpu(index)?.instance(id)?;
        let of_profile = found.compute.iter().filter(|compute| compute.profile == profile);
        let handles: Vec<Handle> =
            of_profile.map(|compute| Handle::compute(index, found, compute)).collect();
        out.fill_all(count, &handles)
    };
    fn nvmlGpuInstanceGetComputeInstanceById(instance: Handle, id: u32, out: Out<Handle>) |call| {
        let (index, place) = instance.instance_place(&call.machine)?;
        let found = call.machine.gpu(index)?.instance(place)?;
        out.set(Handle::compute(index, found, found.compute(id)?))
    };
    fn nvmlComputeInstanceGetInfo(compute: Handle, out: Out<sys::nvmlComputeInstanceInfo_t>)
        |call| out.set(info(call, compute)?);
    fn nvmlComputeInstanceGetInfo_v2(compute: Handle, out: Out<sys::nvmlComputeInstanceInfo_t>)
        |call| out.set(info(call, compute)?);
    fn nvmlDeviceGetAttributes(device: Handle, out: Out<sys::nvmlDeviceAttributes_t>)
        |call| out.set(attributes(call, device)?);
    fn nvmlDeviceGetAttributes_v2(device: Handle, out: Out<sys::nvmlDeviceAttributes_t>)
        |call| out.set(attributes(call, device)?);
}
