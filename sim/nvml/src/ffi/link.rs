//! PCIe and NVLink.

use nvml_wrapper_sys::bindings as sys;

use super::boundary::Call;
use super::handle::Handle;
use super::nvml;
use super::pointer::{Out, Versioned, version_of};
use crate::code::Code;
use crate::model::Gpu;

/// The best link of an architecture: generation and lanes.
fn best(gpu: &Gpu) -> Result<(u32, u32), Code> {
    Ok((if gpu.model()?.architecture() <= 8 { 4 } else { 5 }, 16))
}

/// The link's generation now: a GPU is never better than its best.
fn generation(gpu: &Gpu) -> Result<u32, Code> {
    Ok(gpu.links.generation.min(best(gpu)?.0))
}

/// MB/s a lane of that generation.
fn lane_speed(generation: u32) -> u32 {
    match generation {
        1 => 2500,
        2 => 5000,
        3 => 8000,
        4 => 16_000,
        _ => 32_000,
    }
}

fn whole(call: &Call, device: Handle) -> Result<&Gpu, Code> {
    device.device(&call.machine)?.whole()
}

/// Whether an NVLink is up.
fn nvlink(call: &Call, device: Handle, link: u32) -> Result<bool, Code> {
    let gpu = whole(call, device)?;
    if gpu.links.nvlinks.is_empty() {
        return Err(Code::NOT_SUPPORTED);
    }
    let at = usize::try_from(link).unwrap_or(usize::MAX);
    gpu.links.nvlinks.get(at).copied().ok_or(Code::INVALID_ARGUMENT)
}

nvml! {
    fn nvmlDeviceGetMaxPcieLinkGeneration(device: Handle, out: Out<u32>)
        |call| out.set(best(whole(call, device)?)?.0);
    fn nvmlDeviceGetGpuMaxPcieLinkGeneration(device: Handle, out: Out<u32>)
        |call| out.set(best(whole(call, device)?)?.0);
    fn nvmlDeviceGetMaxPcieLinkWidth(device: Handle, out: Out<u32>)
        |call| out.set(best(whole(call, device)?)?.1);
    fn nvmlDeviceGetCurrPcieLinkGeneration(device: Handle, out: Out<u32>)
        |call| out.set(generation(whole(call, device)?)?);
    fn nvmlDeviceGetCurrPcieLinkWidth(device: Handle, out: Out<u32>)
        |call| out.set(whole(call, device)?.links.width);
    fn nvmlDeviceGetPcieSpeed(device: Handle, out: Out<u32>)
        |call| out.set(lane_speed(generation(whole(call, device)?)?));
    // NVML_PCIE_LINK_MAX_SPEED_*: 1 for 2500 MB/s and so on.
    fn nvmlDeviceGetPcieLinkMaxSpeed(device: Handle, out: Out<u32>)
        |call| out.set(best(whole(call, device)?)?.0);
    fn nvmlDeviceGetPcieReplayCounter(device: Handle, out: Out<u32>)
        |call| out.set(whole(call, device)?.links.replays);
    fn nvmlDeviceGetPcieThroughput(device: Handle, counter: u32, out: Out<u32>) |call| {
        whole(call, device)?;
        if counter >= sys::nvmlPcieUtilCounter_enum_NVML_PCIE_UTIL_COUNT {
            return Err(Code::INVALID_ARGUMENT);
        }
        out.set(0)
    };
    fn nvmlDeviceGetBusType(device: Handle, out: Out<u32>)
        |call| { whole(call, device)?; out.set(sys::NVML_BUS_TYPE_PCIE) };
    fn nvmlDeviceGetNvLinkState(device: Handle, link: u32, out: Out<u32>)
        |call| out.set(nvlink(call, device, link)?.into());
    fn nvmlDeviceGetNvLinkVersion(device: Handle, link: u32, out: Out<u32>) |call| {
        nvlink(call, device, link)?;
        out.set(sys::nvmlNvlinkVersion_enum_NVML_NVLINK_VERSION_4_0)
    };
    fn nvmlDeviceGetNvLinkCapability(device: Handle, link: u32, capability: u32, out: Out<u32>)
        |call| {
            let up = nvlink(call, device, link)?;
            match capability {
                sys::nvmlNvLinkCapability_enum_NVML_NVLINK_CAP_SLI_BRIDGE => out.set(0),
                _ if capability < sys::nvmlNvLinkCapability_enum_NVML_NVLINK_CAP_COUNT => {
                    out.set(up.into())
                }
                _ => Err(Code::INVALID_ARGUMENT),
            }
        };
    fn nvmlDeviceGetNvLinkErrorCounter(device: Handle, link: u32, counter: u32, out: Out<u64>)
        |call| {
            nvlink(call, device, link)?;
            let crc = sys::nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_CRC_FLIT;
            if counter >= sys::nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_COUNT {
                return Err(Code::INVALID_ARGUMENT);
            }
            // All of a GPU's errors are told on its first link.
            let here = link == 0 && counter == crc;
            out.set(if here { whole(call, device)?.links.nvlink_errors } else { 0 })
        };
    fn nvmlDeviceGetNvLinkRemoteDeviceType(device: Handle, link: u32, out: Out<u32>) |call| {
        nvlink(call, device, link)?;
        out.set(sys::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_SWITCH)
    };
    fn nvmlDeviceGetGpuFabricInfo(device: Handle, out: Out<sys::nvmlGpuFabricInfo_t>) |call| {
        whole(call, device)?;
        out.set(sys::nvmlGpuFabricInfo_t {
            clusterUuid: [0; 16],
            status: 0,
            cliqueId: 0,
            state: state(call, device)?,
        })
    };
    fn nvmlDeviceGetGpuFabricInfoV(device: Handle, out: Versioned) |call| {
        let state = state(call, device)?;
        let two = version_of::<sys::nvmlGpuFabricInfo_v2_t>(2);
        let three = version_of::<sys::nvmlGpuFabricInfo_v3_t>(3);
        if out.version()? == two {
            return out.set(two, sys::nvmlGpuFabricInfo_v2_t {
                version: two,
                clusterUuid: [0; 16],
                status: 0,
                cliqueId: 0,
                state,
                healthMask: 0,
            });
        }
        out.set(three, sys::nvmlGpuFabricInfo_v3_t {
            version: three,
            clusterUuid: [0; 16],
            status: 0,
            cliqueId: 0,
            state,
            healthMask: 0,
            healthSummary: 0,
        })
    };
}

/// Registered with a fabric manager where there are NVLinks.
fn state(call: &Call, device: Handle) -> Result<u8, Code> {
    let linked = !whole(call, device)?.links.nvlinks.is_empty();
    let state = if linked {
        sys::NVML_GPU_FABRIC_STATE_COMPLETED
    } else {
        sys::NVML_GPU_FABRIC_STATE_NOT_SUPPORTED
    };
    Ok(u8::try_from(state).unwrap_or(0))
}
