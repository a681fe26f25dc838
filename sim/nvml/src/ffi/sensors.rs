//! Temperature, power, utilisation, throttling.

use nvml_wrapper_sys::bindings as sys;

use super::boundary::Call;
use super::handle::Handle;
use super::mig::need_root;
use super::nvml;
use super::pointer::{InOut, List, Out, Versioned, version_of};
use crate::code::Code;
use crate::model::Gpu;

/// Core temperatures at which boards slow down, or shut down.
const SLOWDOWN_C: u32 = 87;
const SHUTDOWN_C: u32 = 92;

fn whole(call: &Call, device: Handle) -> Result<&Gpu, Code> {
    device.device(&call.machine)?.whole()
}

fn celsius(gpu: &Gpu, sensor: u32) -> Result<u32, Code> {
    if sensor == sys::nvmlTemperatureSensors_enum_NVML_TEMPERATURE_GPU {
        Ok(gpu.sensors.temperature_c)
    } else {
        Err(Code::INVALID_ARGUMENT)
    }
}

fn set_power(call: &Call, device: Handle, milliwatts: u32) -> Result<(), Code> {
    whole(call, device)?;
    need_root()?;
    let index = device.gpu_index()?;
    call.update(|machine| machine.gpu_mut(index)?.set_power_limit(milliwatts))
}

/// An engine's utilisation and how long it was measured, in microseconds.
fn idle_engine(call: &Call, device: Handle, out: Out<u32>, period: Out<u32>) -> Result<(), Code> {
    whole(call, device)?;
    out.set(0)?;
    period.set(167_000)
}

nvml! {
    fn nvmlDeviceGetTemperature(device: Handle, sensor: u32, out: Out<u32>)
        |call| out.set(celsius(whole(call, device)?, sensor)?);
    fn nvmlDeviceGetTemperatureV(device: Handle, out: Versioned) |call| {
        let version = version_of::<sys::nvmlTemperature_v1_t>(1);
        let mut wanted: sys::nvmlTemperature_v1_t = out.get(version)?;
        wanted.temperature = celsius(whole(call, device)?, wanted.sensorType)?.cast_signed();
        out.set(version, wanted)
    };
    fn nvmlDeviceGetTemperatureThreshold(device: Handle, kind: u32, out: Out<u32>) |call| {
        whole(call, device)?;
        match kind {
            0 => out.set(SHUTDOWN_C),
            1 => out.set(SLOWDOWN_C),
            2 => out.set(95),
            3 => out.set(SLOWDOWN_C - 2),
            4..=6 => Err(Code::NOT_SUPPORTED),
            _ => Err(Code::INVALID_ARGUMENT),
        }
    };
    fn nvmlDeviceGetMarginTemperature(device: Handle, out: Versioned) |call| {
        let now = whole(call, device)?.sensors.temperature_c;
        let version = version_of::<sys::nvmlMarginTemperature_v1_t>(1);
        let margin = SLOWDOWN_C.cast_signed().saturating_sub(now.cast_signed());
        out.set(version, sys::nvmlMarginTemperature_v1_t { version, marginTemperature: margin })
    };
    fn nvmlDeviceGetPowerUsage(device: Handle, out: Out<u32>)
        |call| out.set(whole(call, device)?.sensors.power_mw);
    fn nvmlDeviceGetTotalEnergyConsumption(device: Handle, out: Out<u64>)
        |call| out.set(whole(call, device)?.sensors.energy_mj);
    fn nvmlDeviceGetPowerManagementMode(device: Handle, out: Out<u32>)
        |call| { whole(call, device)?; out.set(1) };
    fn nvmlDeviceGetPowerManagementLimit(device: Handle, out: Out<u32>)
        |call| out.set(whole(call, device)?.power_limit_mw());
    fn nvmlDeviceGetEnforcedPowerLimit(device: Handle, out: Out<u32>)
        |call| out.set(whole(call, device)?.power_limit_mw());
    fn nvmlDeviceGetPowerManagementDefaultLimit(device: Handle, out: Out<u32>)
        |call| out.set(whole(call, device)?.limits().power_default_mw);
    fn nvmlDeviceGetPowerManagementLimitConstraints(device: Handle, least: Out<u32>, most: Out<u32>)
        |call| {
            let limits = whole(call, device)?.limits();
            least.set(limits.power_min_mw)?;
            most.set(limits.power_default_mw)
        };
    fn nvmlDeviceSetPowerManagementLimit(device: Handle, milliwatts: u32)
        |call| set_power(call, device, milliwatts);
    fn nvmlDeviceSetPowerManagementLimit_v2(device: Handle, value: Versioned) |call| {
        let version = version_of::<sys::nvmlPowerValue_v2_t>(2);
        let value: sys::nvmlPowerValue_v2_t = value.get(version)?;
        // Scope 0 is the GPU; module and memory have no limits of their own here.
        if value.powerScope == 0 {
            set_power(call, device, value.powerValueMw)
        } else {
            Err(Code::NOT_SUPPORTED)
        }
    };
    fn nvmlDeviceGetPowerSource(device: Handle, out: Out<u32>)
        |call| { whole(call, device)?; out.set(sys::NVML_POWER_SOURCE_AC) };
    fn nvmlDeviceGetPowerState(device: Handle, out: Out<u32>)
        |call| { whole(call, device)?; out.set(0) };
    fn nvmlDeviceGetPerformanceState(device: Handle, out: Out<u32>)
        |call| { whole(call, device)?; out.set(0) };
    fn nvmlDeviceGetUtilizationRates(device: Handle, out: Out<sys::nvmlUtilization_t>) |call| {
        let gpu = whole(call, device)?;
        // The driver counts per instance when MIG is on, and answers for none.
        if gpu.mig.current {
            return Err(Code::NOT_SUPPORTED);
        }
        let (gpu, memory) = (gpu.sensors.gpu_percent, gpu.sensors.memory_percent);
        out.set(sys::nvmlUtilization_t { gpu, memory })
    };
    fn nvmlDeviceGetEncoderUtilization(device: Handle, out: Out<u32>, period: Out<u32>)
        |call| idle_engine(call, device, out, period);
    fn nvmlDeviceGetDecoderUtilization(device: Handle, out: Out<u32>, period: Out<u32>)
        |call| idle_engine(call, device, out, period);
    fn nvmlDeviceGetJpgUtilization(device: Handle, out: Out<u32>, period: Out<u32>)
        |call| idle_engine(call, device, out, period);
    fn nvmlDeviceGetOfaUtilization(device: Handle, out: Out<u32>, period: Out<u32>)
        |call| idle_engine(call, device, out, period);
    fn nvmlDeviceGetCurrentClocksEventReasons(device: Handle, out: Out<u64>)
        |call| out.set(whole(call, device)?.sensors.throttle);
    fn nvmlDeviceGetCurrentClocksThrottleReasons(device: Handle, out: Out<u64>)
        |call| out.set(whole(call, device)?.sensors.throttle);
    fn nvmlDeviceGetSupportedClocksEventReasons(device: Handle, out: Out<u64>)
        |call| { whole(call, device)?; out.set(0x1ff) };
    fn nvmlDeviceGetSupportedClocksThrottleReasons(device: Handle, out: Out<u64>)
        |call| { whole(call, device)?; out.set(0x1ff) };
    fn nvmlDeviceGetViolationStatus(device: Handle, policy: u32, out: Out<sys::nvmlViolationTime_t>)
        |call| {
            whole(call, device)?;
            if policy >= sys::nvmlPerfPolicyType_enum_NVML_PERF_POLICY_COUNT {
                return Err(Code::INVALID_ARGUMENT);
            }
            out.set(sys::nvmlViolationTime_t { referenceTime: 0, violationTime: 0 })
        };
    fn nvmlDeviceGetDisplayMode(device: Handle, out: Out<u32>)
        |call| { whole(call, device)?; out.set(0) };
    fn nvmlDeviceGetDisplayActive(device: Handle, out: Out<u32>)
        |call| { whole(call, device)?; out.set(0) };
    fn nvmlDeviceGetNumFans(device: Handle, out: Out<u32>)
        |call| { whole(call, device)?; out.set(0) };
    fn nvmlDeviceGetPersistenceMode(device: Handle, out: Out<u32>)
        |call| out.set(device.device(&call.machine)?.gpu.settings.persistence.into());
    fn nvmlDeviceSetPersistenceMode(device: Handle, mode: u32) |call| {
        whole(call, device)?;
        need_root()?;
        if mode > 1 {
            return Err(Code::INVALID_ARGUMENT);
        }
        let index = device.gpu_index()?;
        call.update(|machine| {
            machine.gpu_mut(index)?.settings.persistence = mode == 1;
            Ok(())
        })
    };
    fn nvmlDeviceGetComputeMode(device: Handle, out: Out<u32>)
        |call| out.set(device.device(&call.machine)?.gpu.settings.compute_mode);
    fn nvmlDeviceSetComputeMode(device: Handle, mode: u32) |call| {
        whole(call, device)?;
        need_root()?;
        // 1 (exclusive thread) is no longer known to any driver.
        if !matches!(mode, 0 | 2 | 3) {
            return Err(Code::INVALID_ARGUMENT);
        }
        let index = device.gpu_index()?;
        call.update(|machine| {
            machine.gpu_mut(index)?.settings.compute_mode = mode;
            Ok(())
        })
    };
    fn nvmlDeviceGetSamples(
        device: Handle,
        kind: u32,
        _since: u64,
        value_type: Out<u32>,
        count: InOut<u32>,
        _samples: List<sys::nvmlSample_t>,
    ) |call| {
        whole(call, device)?;
        if kind >= sys::nvmlSamplingType_enum_NVML_SAMPLINGTYPE_COUNT {
            return Err(Code::INVALID_ARGUMENT);
        }
        // No history is kept, which is what a driver says right after it was loaded.
        value_type.set(sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT)?;
        count.set(0)?;
        Err(Code::NOT_FOUND)
    };
    fn nvmlDeviceGetVirtualizationMode(device: Handle, out: Out<u32>) |call| {
        let gpu = whole(call, device)?;
        out.set(match gpu.platform {
            crate::model::Platform::Baremetal => 0,
            crate::model::Platform::Passthrough => 1,
        })
    };
}
