//! GPUs as the host reports them. A GPU that does not answer, or answers what cannot be, is closed for leases; the others are not.

use bulkhead_api::inventory::Gpu;
use bulkhead_api::mig::Geometry;
use bulkhead_api::units::Bytes;

use super::driver::Driver as _;
use super::nvml::{GpuError, Nvml};

/// Reads them, by PCI address. No library = a host without the driver, and no problem; a library that does not start (no kernel
/// module, another version) is one: the image was built for GPUs that cannot be used.
pub fn observe(nvml: &Nvml, problems: &mut Vec<String>) -> Vec<Gpu> {
    let listed = match nvml.listed() {
        Ok(listed) => listed,
        Err(GpuError::NoLibrary { .. }) => return Vec::new(),
        Err(error) => {
            problems.push(format!("list GPUs: {error}"));
            return Vec::new();
        }
    };
    let mut gpus = Vec::new();
    for address in listed {
        let read = address.and_then(|bdf| gpu(nvml, &bdf));
        match read {
            Ok(gpu) => {
                problems.extend(gpu.closed.clone());
                gpus.push(gpu);
            }
            Err(error) => problems.push(error.to_string()),
        }
    }
    gpus.sort_by(|a, b| a.bdf.cmp(&b.bdf));
    gpus
}

/// What a GPU asks for so that it is well again; nothing where it is (NVML API reference,
/// `NVML_FI_DEV_GET_GPU_RECOVERY_ACTION`).
fn recovery(action: u64) -> Option<String> {
    Some(match action {
        0 => return None,
        1 => "a reset".to_owned(),
        2 => "a reboot of the host".to_owned(),
        3 => "its peer-to-peer traffic to be drained".to_owned(),
        4 => "to be drained and reset".to_owned(),
        other => format!("recovery action {other}, which this version does not know"),
    })
}

fn gpu(nvml: &Nvml, bdf: &str) -> Result<Gpu, GpuError> {
    let identity = nvml.identity(bdf)?;
    let mut gpu = Gpu {
        uuid: identity.uuid,
        model: identity.model,
        bdf: identity.bdf,
        memory: Bytes::new(identity.memory),
        mig: identity.mig.map(|mode| mode.current),
        geometry: None,
        instances: Vec::new(),
        closed: None,
    };
    let wants = nvml.reading(bdf)?.recovery_action.and_then(recovery);
    gpu.closed = wants.map(|wants| format!("GPU {bdf} asks for {wants}"));
    if gpu.mig.is_some() {
        let read = nvml
            .geometry(bdf)
            .and_then(|geometry| Ok((Geometry::clone(&geometry), nvml.instances(bdf)?)));
        match read {
            Ok((geometry, instances)) => {
                gpu.geometry = Some(geometry);
                gpu.instances = instances.iter().map(|found| found.instance).collect();
            }
            Err(error) => gpu.closed = Some(error.to_string()),
        }
    }
    Ok(gpu)
}
