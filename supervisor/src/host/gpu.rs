//! GPUs by NVML (`libnvidia-ml.so.1`, opened at run time).
//!
//! No library = a host without the driver, and no problem. A library that does not initialise (no kernel
//! module, wrong version) is a problem: the image was built for GPUs that cannot be used.

use bulkhead_api::inventory::Gpu;
use bulkhead_api::units::Bytes;
use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

const LIBRARY: &str = "libnvidia-ml.so.1";

pub(super) fn gpus(problems: &mut Vec<String>) -> Vec<Gpu> {
    let nvml = match Nvml::builder().lib_path(LIBRARY.as_ref()).init() {
        Ok(nvml) => nvml,
        Err(NvmlError::LibloadingError(_)) => return Vec::new(),
        Err(e) => {
            problems.push(format!("initialise {LIBRARY}: {e}"));
            return Vec::new();
        }
    };
    let count = match nvml.device_count() {
        Ok(count) => count,
        Err(e) => {
            problems.push(format!("count GPUs: {e}"));
            return Vec::new();
        }
    };
    let mut gpus = Vec::new();
    for index in 0..count {
        match gpu(&nvml, index) {
            Ok(gpu) => gpus.push(gpu),
            Err(e) => problems.push(format!("read GPU {index}: {e}")),
        }
    }
    gpus.sort_by(|a, b| a.bdf.cmp(&b.bdf));
    gpus
}

fn gpu(nvml: &Nvml, index: u32) -> Result<Gpu, NvmlError> {
    let device = nvml.device_by_index(index)?;
    // Every way of saying "no MIG here" is an error code; mode 1 is NVML_DEVICE_MIG_ENABLE.
    let mig = device.mig_mode().ok().map(|mode| mode.current == 1);
    Ok(Gpu {
        uuid: device.uuid()?,
        model: device.name()?,
        bdf: kernel_bdf(&device.pci_info()?.bus_id),
        memory: Bytes::new(device.memory_info()?.total),
        mig,
    })
}

/// NVML pads the domain to eight digits and writes capitals: `00000000:C1:00.0`.
fn kernel_bdf(bus_id: &str) -> String {
    let lower = bus_id.to_ascii_lowercase();
    match lower.split_once(':') {
        Some((domain, rest)) if domain.len() == 8 => {
            format!("{}:{rest}", domain.strip_prefix("0000").unwrap_or(domain))
        }
        _ => lower,
    }
}

#[cfg(test)]
mod tests {
    use super::kernel_bdf;

    #[test]
    fn bus_ids_of_nvml_become_those_of_the_kernel() {
        assert_eq!(kernel_bdf("00000000:C1:00.0"), "0000:c1:00.0");
        assert_eq!(kernel_bdf("0000:3b:00.0"), "0000:3b:00.0");
        assert_eq!(kernel_bdf("00010000:01:00.0"), "00010000:01:00.0");
    }
}
