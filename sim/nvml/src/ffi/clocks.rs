//! Clocks and their locks.

use nvml_wrapper_sys::bindings as sys;

use super::boundary::Call;
use super::handle::Handle;
use super::mig::need_root;
use super::nvml;
use super::pointer::{InOut, List, Out};
use crate::code::Code;
use crate::model::Gpu;

const GRAPHICS: u32 = sys::nvmlClockType_enum_NVML_CLOCK_GRAPHICS;
const SM: u32 = sys::nvmlClockType_enum_NVML_CLOCK_SM;
const MEMORY: u32 = sys::nvmlClockType_enum_NVML_CLOCK_MEM;
const VIDEO: u32 = sys::nvmlClockType_enum_NVML_CLOCK_VIDEO;

fn whole(call: &Call, device: Handle) -> Result<&Gpu, Code> {
    device.device(&call.machine)?.whole()
}

fn now(gpu: &Gpu, kind: u32) -> Result<u32, Code> {
    match kind {
        GRAPHICS | SM => Ok(gpu.graphics_mhz()),
        MEMORY => Ok(gpu.memory_mhz()),
        VIDEO => Ok(gpu.graphics_mhz() * 9 / 10),
        _ => Err(Code::INVALID_ARGUMENT),
    }
}

fn greatest(gpu: &Gpu, kind: u32) -> Result<u32, Code> {
    let limits = gpu.limits();
    match kind {
        GRAPHICS | SM => Ok(limits.graphics_max_mhz),
        MEMORY => Ok(limits.memory_mhz),
        VIDEO => Ok(limits.graphics_max_mhz * 9 / 10),
        _ => Err(Code::INVALID_ARGUMENT),
    }
}

fn application(gpu: &Gpu, kind: u32) -> Result<u32, Code> {
    let set = gpu.settings.application_clocks;
    match kind {
        GRAPHICS | SM => set.map_or_else(|| greatest(gpu, kind), |(_, graphics)| Ok(graphics)),
        MEMORY => set.map_or_else(|| greatest(gpu, kind), |(memory, _)| Ok(memory)),
        _ => Err(Code::INVALID_ARGUMENT),
    }
}

fn change(
    call: &Call,
    device: Handle,
    change: impl FnOnce(&mut Gpu) -> Result<(), Code>,
) -> Result<(), Code> {
    whole(call, device)?;
    need_root()?;
    let index = device.gpu_index()?;
    call.update(|machine| change(machine.gpu_mut(index)?))
}

nvml! {
    fn nvmlDeviceGetClockInfo(device: Handle, kind: u32, out: Out<u32>)
        |call| out.set(now(whole(call, device)?, kind)?);
    fn nvmlDeviceGetMaxClockInfo(device: Handle, kind: u32, out: Out<u32>)
        |call| out.set(greatest(whole(call, device)?, kind)?);
    fn nvmlDeviceGetMaxCustomerBoostClock(device: Handle, kind: u32, out: Out<u32>)
        |call| out.set(greatest(whole(call, device)?, kind)?);
    fn nvmlDeviceGetClock(device: Handle, kind: u32, id: u32, out: Out<u32>) |call| {
        let gpu = whole(call, device)?;
        // Now, of applications, of applications by default, greatest boost.
        match id {
            0 => out.set(now(gpu, kind)?),
            1 => out.set(application(gpu, kind)?),
            2 | 3 => out.set(greatest(gpu, kind)?),
            _ => Err(Code::INVALID_ARGUMENT),
        }
    };
    fn nvmlDeviceGetApplicationsClock(device: Handle, kind: u32, out: Out<u32>)
        |call| out.set(application(whole(call, device)?, kind)?);
    fn nvmlDeviceGetDefaultApplicationsClock(device: Handle, kind: u32, out: Out<u32>)
        |call| out.set(greatest(whole(call, device)?, kind)?);
    fn nvmlDeviceSetApplicationsClocks(device: Handle, memory: u32, graphics: u32)
        |call| change(call, device, |gpu| {
            if memory != gpu.limits().memory_mhz || !gpu.graphics_steps().contains(&graphics) {
                return Err(Code::INVALID_ARGUMENT);
            }
            gpu.settings.application_clocks = Some((memory, graphics));
            Ok(())
        });
    fn nvmlDeviceResetApplicationsClocks(device: Handle)
        |call| change(call, device, |gpu| { gpu.settings.application_clocks = None; Ok(()) });
    fn nvmlDeviceSetGpuLockedClocks(device: Handle, least: u32, most: u32)
        |call| change(call, device, |gpu| gpu.lock_graphics(least, most));
    fn nvmlDeviceResetGpuLockedClocks(device: Handle)
        |call| change(call, device, |gpu| { gpu.settings.graphics_lock = None; Ok(()) });
    fn nvmlDeviceSetMemoryLockedClocks(device: Handle, least: u32, most: u32)
        |call| change(call, device, |gpu| gpu.lock_memory(least, most));
    fn nvmlDeviceResetMemoryLockedClocks(device: Handle)
        |call| change(call, device, |gpu| { gpu.settings.memory_lock = None; Ok(()) });
    fn nvmlDeviceGetSupportedMemoryClocks(device: Handle, count: InOut<u32>, out: List<u32>)
        |call| out.fill(count, &[whole(call, device)?.limits().memory_mhz]);
    fn nvmlDeviceGetSupportedGraphicsClocks(
        device: Handle,
        memory: u32,
        count: InOut<u32>,
        out: List<u32>,
    ) |call| {
        let gpu = whole(call, device)?;
        if memory != gpu.limits().memory_mhz {
            return Err(Code::NOT_FOUND);
        }
        out.fill(count, &gpu.graphics_steps())
    };
    fn nvmlDeviceGetMemoryBusWidth(device: Handle, out: Out<u32>)
        |call| { whole(call, device)?; out.set(5120) };
}
