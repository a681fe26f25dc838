//! Error correction, replaced rows, retired pages.

use nvml_wrapper_sys::bindings as sys;

use super::boundary::Call;
use super::handle::Handle;
use super::mig::need_root;
use super::nvml;
use super::pointer::{InOut, List, Out, Versioned, version_of};
use crate::code::Code;
use crate::model::Gpu;
use crate::model::gpu::ErrorCounts;

const DEVICE_MEMORY: u32 = sys::nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_DEVICE_MEMORY;
const SRAM: u32 = sys::nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_SRAM;

/// Spare rows: one bank group's are counted as used when a row was replaced.
const BANKS: u32 = 640;

/// The counts of a kind (0 corrected, 1 uncorrected) since reset (0) or of the GPU's life (1).
fn counts(gpu: &Gpu, kind: u32, counter: u32) -> Result<(ErrorCounts, bool), Code> {
    if kind > 1 || counter > 1 {
        return Err(Code::INVALID_ARGUMENT);
    }
    if !gpu.ecc.enabled {
        return Err(Code::NOT_SUPPORTED);
    }
    Ok((if counter == 0 { gpu.ecc.volatile } else { gpu.ecc.aggregate }, kind == 1))
}

fn of_device(call: &Call, device: Handle) -> Result<&Gpu, Code> {
    // Also for MIG devices: the counts are those of their GPU.
    Ok(device.device(&call.machine)?.gpu)
}

nvml! {
    fn nvmlDeviceGetEccMode(device: Handle, current: Out<u32>, pending: Out<u32>) |call| {
        let ecc = of_device(call, device)?.ecc;
        current.set(ecc.enabled.into())?;
        pending.set(ecc.pending.into())
    };
    fn nvmlDeviceGetDefaultEccMode(device: Handle, out: Out<u32>)
        |call| { of_device(call, device)?; out.set(1) };
    fn nvmlDeviceSetEccMode(device: Handle, mode: u32) |call| {
        device.device(&call.machine)?.whole()?;
        need_root()?;
        if mode > 1 {
            return Err(Code::INVALID_ARGUMENT);
        }
        let index = device.gpu_index()?;
        call.update(|machine| {
            machine.gpu_mut(index)?.ecc.pending = mode == 1;
            Ok(())
        })
    };
    fn nvmlDeviceGetTotalEccErrors(device: Handle, kind: u32, counter: u32, out: Out<u64>) |call| {
        let (counts, uncorrected) = counts(of_device(call, device)?, kind, counter)?;
        out.set(counts.total(uncorrected))
    };
    fn nvmlDeviceGetDetailedEccErrors(
        device: Handle,
        kind: u32,
        counter: u32,
        out: Out<sys::nvmlEccErrorCounts_t>,
    ) |call| {
        let (counts, uncorrected) = counts(of_device(call, device)?, kind, counter)?;
        let (sram, dram) = by_place(counts, uncorrected);
        out.set(sys::nvmlEccErrorCounts_t {
            l1Cache: 0,
            l2Cache: sram,
            deviceMemory: dram,
            registerFile: 0,
        })
    };
    fn nvmlDeviceGetMemoryErrorCounter(
        device: Handle,
        kind: u32,
        counter: u32,
        place: u32,
        out: Out<u64>,
    ) |call| {
        let (counts, uncorrected) = counts(of_device(call, device)?, kind, counter)?;
        let (sram, dram) = by_place(counts, uncorrected);
        match place {
            DEVICE_MEMORY => out.set(dram),
            SRAM => out.set(sram),
            _ if place < sys::nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_COUNT => {
                Err(Code::NOT_SUPPORTED)
            }
            _ => Err(Code::INVALID_ARGUMENT),
        }
    };
    fn nvmlDeviceClearEccErrorCounts(device: Handle, counter: u32) |call| {
        device.device(&call.machine)?.whole()?;
        need_root()?;
        let index = device.gpu_index()?;
        call.update(|machine| {
            let ecc = &mut machine.gpu_mut(index)?.ecc;
            match counter {
                0 => ecc.volatile = ErrorCounts::default(),
                1 => ecc.aggregate = ErrorCounts::default(),
                _ => return Err(Code::INVALID_ARGUMENT),
            }
            Ok(())
        })
    };
    fn nvmlDeviceGetSramEccErrorStatus(device: Handle, out: Versioned) |call| {
        let ecc = of_device(call, device)?.ecc;
        let version = version_of::<sys::nvmlEccSramErrorStatus_v1_t>(1);
        out.set(version, sys::nvmlEccSramErrorStatus_v1_t {
            version,
            aggregateUncParity: 0,
            aggregateUncSecDed: ecc.aggregate.uncorrected_sram,
            aggregateCor: ecc.aggregate.corrected_sram,
            volatileUncParity: 0,
            volatileUncSecDed: ecc.volatile.uncorrected_sram,
            volatileCor: ecc.volatile.corrected_sram,
            aggregateUncBucketL2: ecc.aggregate.uncorrected_sram,
            aggregateUncBucketSm: 0,
            aggregateUncBucketPcie: 0,
            aggregateUncBucketMcu: 0,
            aggregateUncBucketOther: 0,
            bThresholdExceeded: 0,
        })
    };
    fn nvmlDeviceGetRemappedRows(
        device: Handle,
        corrected: Out<u32>,
        uncorrected: Out<u32>,
        pending: Out<u32>,
        failed: Out<u32>,
    ) |call| {
        let rows = device.device(&call.machine)?.whole()?.rows;
        corrected.set(rows.corrected)?;
        uncorrected.set(rows.uncorrected)?;
        pending.set(rows.pending.into())?;
        failed.set(rows.failed.into())
    };
    fn nvmlDeviceGetRowRemapperHistogram(
        device: Handle,
        out: Out<sys::nvmlRowRemapperHistogramValues_t>,
    ) |call| {
        let rows = device.device(&call.machine)?.whole()?.rows;
        let used = rows.corrected.saturating_add(rows.uncorrected).min(BANKS);
        out.set(sys::nvmlRowRemapperHistogramValues_t {
            max: BANKS - used,
            high: used,
            partial: 0,
            low: 0,
            none: 0,
        })
    };
    fn nvmlDeviceGetRepairStatus(device: Handle, out: Versioned) |call| {
        device.device(&call.machine)?.whole()?;
        let version = version_of::<sys::nvmlRepairStatus_v1_t>(1);
        out.set(version, sys::nvmlRepairStatus_v1_t {
            version,
            bChannelRepairPending: 0,
            bTpcRepairPending: 0,
        })
    };
    // Since Ampere rows are replaced and no pages retired.
    fn nvmlDeviceGetRetiredPages(device: Handle, _cause: u32, _count: InOut<u32>, _out: List<u64>)
        |call| { of_device(call, device)?; Err(Code::NOT_SUPPORTED) };
}

/// In SRAM and in device memory.
fn by_place(counts: ErrorCounts, uncorrected: bool) -> (u64, u64) {
    if uncorrected {
        (counts.uncorrected_sram, counts.uncorrected_dram)
    } else {
        (counts.corrected_sram, counts.corrected_dram)
    }
}
