//! Which devices there are and what they are.

use std::path::Path;

use nvml_wrapper_sys::bindings as sys;

use super::boundary::Call;
use super::handle::{Device, Handle};
use super::nvml;
use super::pointer::{InOut, List, Out, TextIn, TextOut, Versioned, field, version_of};
use crate::access;
use crate::code::Code;
use crate::model::{Bdf, Gpu, Machine};

/// Indices of the GPUs that this process is shown, by NVML's index.
pub(super) fn shown(machine: &Machine) -> Vec<u32> {
    let folder = machine.device_nodes.as_deref();
    let all = (0_u32..).zip(&machine.gpus);
    all.filter(|(_, gpu)| access::sees_gpu(folder, gpu.minor)).map(|(index, _)| index).collect()
}

/// The GPU's place in the state of the `index`th that this process is shown.
fn nth_shown(machine: &Machine, index: u32) -> Result<u32, Code> {
    let at = usize::try_from(index).map_err(|_| Code::INVALID_ARGUMENT)?;
    let place = shown(machine).get(at).copied().ok_or(Code::INVALID_ARGUMENT)?;
    machine.gpu(place)?;
    Ok(place)
}

fn find(machine: &Machine, wanted: impl Fn(&Gpu) -> bool) -> Result<Handle, Code> {
    let shown = shown(machine);
    let mut all = (0_u32..).zip(&machine.gpus).filter(|(index, _)| shown.contains(index));
    let (index, gpu) = all.find(|(_, gpu)| wanted(gpu)).ok_or(Code::NOT_FOUND)?;
    gpu.present()?;
    Ok(Handle::gpu(index))
}

/// By the UUID of a GPU or of a MIG device.
fn by_uuid(machine: &Machine, uuid: &str) -> Result<Handle, Code> {
    if !uuid.starts_with("MIG-") {
        return find(machine, |gpu| gpu.uuid == uuid);
    }
    for index in shown(machine) {
        let Ok(gpu) = machine.gpu(index) else { continue };
        let mut slices = super::mig::shown_slices(machine, gpu);
        let same = slices.find(|(instance, compute)| gpu.mig_uuid(instance.id, compute.id) == uuid);
        if let Some((instance, compute)) = same {
            return Ok(Handle::mig_device(index, instance, compute));
        }
    }
    Err(Code::NOT_FOUND)
}

fn index_of(machine: &Machine, device: Device<'_>) -> Result<u32, Code> {
    let place = match device.slice {
        None => shown(machine).iter().position(|&index| index == device.index),
        Some((instance, compute)) => super::mig::shown_slices(machine, device.gpu)
            .position(|(other, own)| other.id == instance.id && own.id == compute.id),
    };
    place.and_then(|place| u32::try_from(place).ok()).ok_or(Code::NOT_FOUND)
}

fn pci(gpu: &Gpu) -> Result<sys::nvmlPciInfo_t, Code> {
    let model = gpu.model()?;
    Ok(sys::nvmlPciInfo_t {
        busIdLegacy: field(&gpu.bdf.short()),
        domain: gpu.bdf.domain,
        bus: gpu.bdf.bus.into(),
        device: gpu.bdf.device.into(),
        pciDeviceId: model.pci_device_id(),
        pciSubSystemId: model.pci_subsystem_id(),
        busId: field(&gpu.bdf.to_string()),
    })
}

fn pci_info(call: &Call, device: Handle, out: Out<sys::nvmlPciInfo_t>) -> Result<(), Code> {
    out.set(pci(device.device(&call.machine)?.gpu)?)
}

fn count(call: &Call, out: Out<u32>) -> Result<(), Code> {
    out.set(u32::try_from(shown(&call.machine).len()).unwrap_or(0))
}

fn by_index(call: &Call, index: u32, out: Out<Handle>) -> Result<(), Code> {
    out.set(Handle::gpu(nth_shown(&call.machine, index)?))
}

fn by_pci(call: &Call, text: TextIn, out: Out<Handle>) -> Result<(), Code> {
    let bdf: Bdf = text.get()?.parse().map_err(|_| Code::NOT_FOUND)?;
    out.set(find(&call.machine, |gpu| gpu.bdf == bdf)?)
}

nvml! {
    fn nvmlDeviceGetCount(out: Out<u32>) |call| count(call, out);
    fn nvmlDeviceGetCount_v2(out: Out<u32>) |call| count(call, out);
    fn nvmlDeviceGetHandleByIndex(index: u32, out: Out<Handle>) |call| by_index(call, index, out);
    fn nvmlDeviceGetHandleByIndex_v2(index: u32, out: Out<Handle>) |call| by_index(call, index, out);
    fn nvmlDeviceGetHandleByPciBusId(text: TextIn, out: Out<Handle>) |call| by_pci(call, text, out);
    fn nvmlDeviceGetHandleByPciBusId_v2(text: TextIn, out: Out<Handle>) |call| by_pci(call, text, out);
    fn nvmlDeviceGetHandleByUUID(uuid: TextIn, out: Out<Handle>)
        |call| out.set(by_uuid(&call.machine, &uuid.get()?)?);
    fn nvmlDeviceGetHandleBySerial(serial: TextIn, out: Out<Handle>) |call| {
        let serial = serial.get()?;
        out.set(find(&call.machine, |gpu| gpu.serial == serial)?)
    };
    fn nvmlDeviceGetIndex(device: Handle, out: Out<u32>)
        |call| out.set(index_of(&call.machine, device.device(&call.machine)?)?);
    fn nvmlDeviceGetUUID(device: Handle, out: TextOut, length: u32)
        |call| out.set(length, &device.device(&call.machine)?.uuid());
    fn nvmlDeviceGetName(device: Handle, out: TextOut, length: u32) |call| {
        let device = device.device(&call.machine)?;
        match device.slice {
            Some((instance, compute)) => out.set(length, &device.gpu.mig_name(instance, compute)?),
            None => out.set(length, device.gpu.model()?.product()),
        }
    };
    fn nvmlDeviceGetPciInfo(device: Handle, out: Out<sys::nvmlPciInfo_t>)
        |call| pci_info(call, device, out);
    fn nvmlDeviceGetPciInfo_v2(device: Handle, out: Out<sys::nvmlPciInfo_t>)
        |call| pci_info(call, device, out);
    fn nvmlDeviceGetPciInfo_v3(device: Handle, out: Out<sys::nvmlPciInfo_t>)
        |call| pci_info(call, device, out);
    fn nvmlDeviceGetPciInfoExt(device: Handle, out: Versioned) |call| {
        let pci = pci(device.device(&call.machine)?.gpu)?;
        let version = version_of::<sys::nvmlPciInfoExt_v1_t>(1);
        out.set(version, sys::nvmlPciInfoExt_v1_t {
            version,
            domain: pci.domain,
            bus: pci.bus,
            device: pci.device,
            pciDeviceId: pci.pciDeviceId,
            pciSubSystemId: pci.pciSubSystemId,
            // Display controller, 3D.
            baseClass: 3,
            subClass: 2,
            busId: pci.busId,
        })
    };
    fn nvmlDeviceGetMinorNumber(device: Handle, out: Out<u32>)
        |call| out.set(device.device(&call.machine)?.gpu.minor);
    fn nvmlDeviceGetSerial(device: Handle, out: TextOut, length: u32)
        |call| out.set(length, &device.device(&call.machine)?.gpu.serial);
    fn nvmlDeviceGetBoardId(device: Handle, out: Out<u32>) |call| {
        let bdf = device.device(&call.machine)?.gpu.bdf;
        out.set(bdf.domain << 16 | u32::from(bdf.bus) << 8 | u32::from(bdf.device))
    };
    fn nvmlDeviceGetBoardPartNumber(device: Handle, out: TextOut, length: u32)
        |call| { device.device(&call.machine)?; out.set(length, "SIM-00000-0000-000") };
    fn nvmlDeviceGetVbiosVersion(device: Handle, out: TextOut, length: u32)
        |call| { device.device(&call.machine)?; out.set(length, "00.00.00.00.00") };
    fn nvmlDeviceGetModuleId(device: Handle, out: Out<u32>)
        |call| { let device = device.device(&call.machine)?; out.set(device.index) };
    fn nvmlDeviceGetMultiGpuBoard(device: Handle, out: Out<u32>)
        |call| { device.device(&call.machine)?; out.set(0) };
    // Tesla: data-centre boards (NVML_BRAND_TESLA) are called NVIDIA since R460 (14).
    fn nvmlDeviceGetBrand(device: Handle, out: Out<u32>)
        |call| { device.device(&call.machine)?; out.set(sys::nvmlBrandType_enum_NVML_BRAND_NVIDIA) };
    fn nvmlDeviceGetArchitecture(device: Handle, out: Out<u32>)
        |call| out.set(device.device(&call.machine)?.gpu.model()?.architecture());
    fn nvmlDeviceGetCudaComputeCapability(device: Handle, major: Out<i32>, minor: Out<i32>) |call| {
        let (first, second) = device.device(&call.machine)?.gpu.model()?.compute_capability();
        major.set(first.cast_signed())?;
        minor.set(second.cast_signed())
    };
    fn nvmlDeviceGetNumGpuCores(device: Handle, out: Out<u32>) |call| {
        let gpu = device.device(&call.machine)?.whole()?;
        out.set(gpu.model()?.multiprocessors() * 128)
    };
    fn nvmlDeviceGetNumaNodeId(device: Handle, _out: Out<u32>) |call| {
        // Only GPUs whose memory is a NUMA node of the host have one: no board here.
        device.device(&call.machine)?;
        Err(Code::NOT_SUPPORTED)
    };
    fn nvmlDeviceGetMemoryAffinity(device: Handle, size: u32, nodes: List<u64>, _scope: u32)
        |call| {
            let node = device.device(&call.machine)?.gpu.numa_node;
            nodes.fill_exactly(size, &bits(node, node), 0)
        };
    fn nvmlDeviceGetCpuAffinity(device: Handle, size: u32, cpus: List<u64>)
        |call| affinity(call, device, size, cpus);
    fn nvmlDeviceGetCpuAffinityWithinScope(device: Handle, size: u32, cpus: List<u64>, _scope: u32)
        |call| affinity(call, device, size, cpus);
    fn nvmlDeviceOnSameBoard(one: Handle, other: Handle, out: Out<i32>) |call| {
        let same = one.device(&call.machine)?.index == other.device(&call.machine)?.index;
        out.set(same.into())
    };
    fn nvmlDeviceGetTopologyCommonAncestor(one: Handle, other: Handle, out: Out<u32>) |call| {
        let (one, other) = (one.device(&call.machine)?, other.device(&call.machine)?);
        out.set(if one.index == other.index {
            sys::nvmlGpuLevel_enum_NVML_TOPOLOGY_INTERNAL
        } else if one.gpu.numa_node == other.gpu.numa_node {
            sys::nvmlGpuLevel_enum_NVML_TOPOLOGY_NODE
        } else {
            sys::nvmlGpuLevel_enum_NVML_TOPOLOGY_SYSTEM
        })
    };
    fn nvmlDeviceModifyDrainState(pci: InOut<sys::nvmlPciInfo_t>, state: u32) |call| {
        let index = by_info(&call.machine, pci.get()?)?;
        super::mig::need_root()?;
        if state > 1 {
            return Err(Code::INVALID_ARGUMENT);
        }
        call.update(|machine| {
            let gpu = machine.gpu_mut(index)?;
            if gpu.all_processes().next().is_some() {
                return Err(Code::IN_USE);
            }
            gpu.settings.drained = state == 1;
            Ok(())
        })
    };
    fn nvmlDeviceQueryDrainState(pci: InOut<sys::nvmlPciInfo_t>, out: Out<u32>) |call| {
        let index = by_info(&call.machine, pci.get()?)?;
        out.set(call.machine.gpu(index)?.settings.drained.into())
    };
    fn nvmlDeviceDiscoverGpus(pci: InOut<sys::nvmlPciInfo_t>)
        |_| { pci.get()?; super::mig::need_root() };
}

fn by_info(machine: &Machine, pci: sys::nvmlPciInfo_t) -> Result<u32, Code> {
    let same = |gpu: &Gpu| {
        (gpu.bdf.domain, u32::from(gpu.bdf.bus), u32::from(gpu.bdf.device))
            == (pci.domain, pci.bus, pci.device)
    };
    find(machine, same)?.gpu_index()
}

/// Words of a bit set with the bits from `first` to `last`.
fn bits(first: u32, last: u32) -> Vec<u64> {
    let mut words = Vec::new();
    for bit in first..=last.min(first.saturating_add(4095)) {
        let at = usize::try_from(bit / 64).unwrap_or(0);
        if words.len() <= at {
            words.resize(at + 1, 0);
        }
        if let Some(word) = words.get_mut(at) {
            *word |= 1_u64 << (bit % 64);
        }
    }
    words
}

fn affinity(call: &Call, device: Handle, size: u32, out: List<u64>) -> Result<(), Code> {
    let gpu = device.device(&call.machine)?.gpu;
    let (first, last) = match gpu.cpus {
        Some(range) => range,
        None => cpus_of_node(gpu.numa_node).unwrap_or((0, 0)),
    };
    out.fill_exactly(size, &bits(first, last), 0)
}

/// The first range of a node's CPUs, as the kernel tells.
fn cpus_of_node(node: u32) -> Option<(u32, u32)> {
    let path = format!("/sys/devices/system/node/node{node}/cpulist");
    let text = std::fs::read_to_string(Path::new(&path)).ok()?;
    let first = text.trim().split(',').next()?;
    let (from, to) = first.split_once('-').unwrap_or((first, first));
    Some((from.parse().ok()?, to.parse().ok()?))
}
