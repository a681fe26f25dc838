//! Values by field number: `nvmlDeviceGetFieldValues`.

use nvml_wrapper_sys::bindings::{self as sys, field_id};

use super::handle::Handle;
use super::nvml;
use super::pointer::List;
use crate::code::Code;
use crate::model::Gpu;

/// What a field holds.
enum Value {
    Small(u32),
    Large(u64),
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Small(value.into())
    }
}

fn value(gpu: &Gpu, field: u32) -> Result<Value, Code> {
    use Value::{Large, Small};
    let limits = gpu.limits();
    Ok(match field {
        field_id::NVML_FI_DEV_ECC_CURRENT => gpu.ecc.enabled.into(),
        field_id::NVML_FI_DEV_ECC_PENDING => gpu.ecc.pending.into(),
        field_id::NVML_FI_DEV_ECC_SBE_VOL_TOTAL => Large(gpu.ecc.volatile.total(false)),
        field_id::NVML_FI_DEV_ECC_DBE_VOL_TOTAL => Large(gpu.ecc.volatile.total(true)),
        field_id::NVML_FI_DEV_ECC_SBE_AGG_TOTAL => Large(gpu.ecc.aggregate.total(false)),
        field_id::NVML_FI_DEV_ECC_DBE_AGG_TOTAL => Large(gpu.ecc.aggregate.total(true)),
        field_id::NVML_FI_DEV_ECC_SBE_VOL_DEV => Large(gpu.ecc.volatile.corrected_dram),
        field_id::NVML_FI_DEV_ECC_DBE_VOL_DEV => Large(gpu.ecc.volatile.uncorrected_dram),
        field_id::NVML_FI_DEV_ECC_SBE_AGG_DEV => Large(gpu.ecc.aggregate.corrected_dram),
        field_id::NVML_FI_DEV_ECC_DBE_AGG_DEV => Large(gpu.ecc.aggregate.uncorrected_dram),
        field_id::NVML_FI_DEV_MEMORY_TEMP => Small(gpu.sensors.memory_temperature_c),
        field_id::NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION | field_id::NVML_FI_DEV_ENERGY => {
            Large(gpu.sensors.energy_mj)
        }
        field_id::NVML_FI_DEV_NVLINK_LINK_COUNT => {
            Small(u32::try_from(gpu.links.nvlinks.len()).unwrap_or(0))
        }
        field_id::NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL => Large(gpu.links.nvlink_errors),
        field_id::NVML_FI_DEV_PCIE_REPLAY_COUNTER => Small(gpu.links.replays),
        field_id::NVML_FI_DEV_REMAPPED_COR => Small(gpu.rows.corrected),
        field_id::NVML_FI_DEV_REMAPPED_UNC => Small(gpu.rows.uncorrected),
        field_id::NVML_FI_DEV_REMAPPED_PENDING => gpu.rows.pending.into(),
        field_id::NVML_FI_DEV_REMAPPED_FAILURE => gpu.rows.failed.into(),
        field_id::NVML_FI_DEV_IS_RESETLESS_MIG_SUPPORTED => {
            let model = gpu.model()?;
            (model.mig_capable && !model.is_ampere()).into()
        }
        field_id::NVML_FI_DEV_IS_MIG_MODE_INDEPENDENT_MIG_QUERY_CAPABLE => true.into(),
        field_id::NVML_FI_DEV_POWER_AVERAGE | field_id::NVML_FI_DEV_POWER_INSTANT => {
            Small(gpu.sensors.power_mw)
        }
        field_id::NVML_FI_DEV_POWER_MIN_LIMIT => Small(limits.power_min_mw),
        field_id::NVML_FI_DEV_POWER_MAX_LIMIT | field_id::NVML_FI_DEV_POWER_DEFAULT_LIMIT => {
            Small(limits.power_default_mw)
        }
        field_id::NVML_FI_DEV_POWER_CURRENT_LIMIT | field_id::NVML_FI_DEV_POWER_REQUESTED_LIMIT => {
            Small(gpu.power_limit_mw())
        }
        field_id::NVML_FI_DEV_RESET_STATUS => gpu.faults.reset_required.into(),
        field_id::NVML_FI_DEV_DRAIN_AND_RESET_STATUS => (gpu.recovery_action() == 4).into(),
        field_id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION => Small(gpu.recovery_action()),
        _ if field == 0 || field >= field_id::NVML_FI_MAX => return Err(Code::INVALID_ARGUMENT),
        _ => return Err(Code::NOT_SUPPORTED),
    })
}

fn answer(gpu: &Gpu, mut field: sys::nvmlFieldValue_t) -> sys::nvmlFieldValue_t {
    field.timestamp = 0;
    field.latencyUsec = 0;
    match value(gpu, field.fieldId) {
        Ok(Value::Small(value)) => {
            field.valueType = sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT;
            // The whole union is written, so that nothing of the caller's stays in its upper half.
            field.value = sys::nvmlValue_t { ullVal: value.into() };
            field.nvmlReturn = 0;
        }
        Ok(Value::Large(value)) => {
            field.valueType = sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
            field.value = sys::nvmlValue_t { ullVal: value };
            field.nvmlReturn = 0;
        }
        Err(code) => field.nvmlReturn = code.0,
    }
    field
}

nvml! {
    // Success even where single fields fail: each tells its own result.
    fn nvmlDeviceGetFieldValues(device: Handle, count: i32, fields: List<sys::nvmlFieldValue_t>)
        |call| {
            let gpu = device.device(&call.machine)?.whole()?;
            fields.each(count, |field| answer(gpu, field))
        };
}
