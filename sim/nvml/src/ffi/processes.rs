//! Who uses a GPU or a slice of it.

use nvml_wrapper_sys::bindings as sys;

use super::boundary::Call;
use super::handle::Handle;
use super::nvml;
use super::pointer::{InOut, List};
use crate::code::Code;
use crate::model::ProcessKind;
use crate::model::events::NO_INSTANCE;

const MIB: u64 = 1 << 20;

type First = sys::nvmlProcessInfo_v1_t;
type Second = sys::nvmlProcessInfo_v2_t;

/// Processes of a kind: on a MIG device those of its instances, on a GPU all of them.
fn list(call: &Call, device: Handle, kind: ProcessKind) -> Result<Vec<Second>, Code> {
    let machine = call.live()?;
    let device = device.device(&machine)?;
    let slice = device.slice.map(|(instance, compute)| (instance.id, compute.id));
    let of_kind = device.gpu.all_processes().filter(|(process, _)| process.kind == kind);
    let here = of_kind.filter(|(_, place)| slice.is_none() || *place == slice);
    let told = here.map(|(process, place)| {
        let (instance, compute) = place.unwrap_or((NO_INSTANCE, NO_INSTANCE));
        Second {
            pid: process.pid,
            usedGpuMemory: process.memory_mib.saturating_mul(MIB),
            gpuInstanceId: instance,
            computeInstanceId: compute,
        }
    });
    Ok(told.collect())
}

fn first(
    call: &Call,
    device: Handle,
    kind: ProcessKind,
    count: InOut<u32>,
    out: List<First>,
) -> Result<(), Code> {
    let processes = list(call, device, kind)?;
    let short = |of: &Second| First { pid: of.pid, usedGpuMemory: of.usedGpuMemory };
    out.fill(count, &processes.iter().map(short).collect::<Vec<_>>())
}

fn second(
    call: &Call,
    device: Handle,
    kind: ProcessKind,
    count: InOut<u32>,
    out: List<Second>,
) -> Result<(), Code> {
    out.fill(count, &list(call, device, kind)?)
}

nvml! {
    fn nvmlDeviceGetComputeRunningProcesses(device: Handle, count: InOut<u32>, out: List<First>)
        |call| first(call, device, ProcessKind::Compute, count, out);
    fn nvmlDeviceGetComputeRunningProcesses_v2(device: Handle, count: InOut<u32>, out: List<Second>)
        |call| second(call, device, ProcessKind::Compute, count, out);
    fn nvmlDeviceGetComputeRunningProcesses_v3(device: Handle, count: InOut<u32>, out: List<Second>)
        |call| second(call, device, ProcessKind::Compute, count, out);
    fn nvmlDeviceGetGraphicsRunningProcesses(device: Handle, count: InOut<u32>, out: List<First>)
        |call| first(call, device, ProcessKind::Graphics, count, out);
    fn nvmlDeviceGetGraphicsRunningProcesses_v2(device: Handle, count: InOut<u32>, out: List<Second>)
        |call| second(call, device, ProcessKind::Graphics, count, out);
    fn nvmlDeviceGetGraphicsRunningProcesses_v3(device: Handle, count: InOut<u32>, out: List<Second>)
        |call| second(call, device, ProcessKind::Graphics, count, out);
    fn nvmlDeviceGetMPSComputeRunningProcesses(device: Handle, count: InOut<u32>, out: List<First>)
        |call| first(call, device, ProcessKind::Mps, count, out);
    fn nvmlDeviceGetMPSComputeRunningProcesses_v2(
        device: Handle,
        count: InOut<u32>,
        out: List<Second>,
    ) |call| second(call, device, ProcessKind::Mps, count, out);
    fn nvmlDeviceGetMPSComputeRunningProcesses_v3(
        device: Handle,
        count: InOut<u32>,
        out: List<Second>,
    ) |call| second(call, device, ProcessKind::Mps, count, out);
    fn nvmlDeviceGetProcessUtilization(
        device: Handle,
        out: List<sys::nvmlProcessUtilizationSample_t>,
        count: InOut<u32>,
        _since: u64,
    ) |call| {
        let processes = list(call, device, ProcessKind::Compute)?;
        if processes.is_empty() {
            count.set(0)?;
            return Err(Code::NOT_FOUND);
        }
        let gpu = device.device(&call.machine)?.whole()?;
        // Each process has an equal part of what the whole GPU does.
        let share = u32::try_from(processes.len()).unwrap_or(u32::MAX);
        let sample = |of: &Second| sys::nvmlProcessUtilizationSample_t {
            pid: of.pid,
            timeStamp: 1,
            smUtil: gpu.sensors.gpu_percent / share,
            memUtil: gpu.sensors.memory_percent / share,
            encUtil: 0,
            decUtil: 0,
        };
        out.fill(count, &processes.iter().map(sample).collect::<Vec<_>>())
    };
}
