//! Memory sizes.

use nvml_wrapper_sys::bindings as sys;

use super::boundary::Call;
use super::handle::Handle;
use super::nvml;
use super::pointer::{Out, Versioned, version_of};
use crate::code::Code;

const MIB: u64 = 1 << 20;
/// What the driver keeps for itself on a whole GPU, and on each instance.
const RESERVED_MIB: (u64, u64) = (640, 16);

/// Total, reserved and used, in bytes.
fn sizes(call: &Call, device: Handle) -> Result<(u64, u64, u64), Code> {
    let machine = call.live()?;
    let device = device.device(&machine)?;
    let model = device.gpu.model()?;
    let (total, reserved, used) = match device.slice {
        Some((instance, _)) => {
            let profile = device.gpu.profile(instance.profile)?;
            let used = device.gpu.used_mib(Some(instance.id));
            (model.instance_memory_mib(profile), RESERVED_MIB.1, used)
        }
        None => (model.memory_mib(), RESERVED_MIB.0, device.gpu.used_mib(None)),
    };
    Ok((total * MIB, reserved * MIB, used.min(total - reserved) * MIB))
}

nvml! {
    fn nvmlDeviceGetMemoryInfo(device: Handle, out: Out<sys::nvmlMemory_t>) |call| {
        let (total, reserved, used) = sizes(call, device)?;
        // The first version counts what is reserved as used.
        let used = used + reserved;
        out.set(sys::nvmlMemory_t { total, free: total - used, used })
    };
    fn nvmlDeviceGetMemoryInfo_v2(device: Handle, out: Versioned) |call| {
        out.version()?;
        let (total, reserved, used) = sizes(call, device)?;
        let version = version_of::<sys::nvmlMemory_v2_t>(2);
        let free = total - reserved - used;
        out.set(version, sys::nvmlMemory_v2_t { version, total, reserved, free, used })
    };
    fn nvmlDeviceGetBAR1MemoryInfo(device: Handle, out: Out<sys::nvmlBAR1Memory_t>) |call| {
        let device = device.device(&call.machine)?;
        // BAR1 is as large as the memory, rounded up to a power of two.
        let total = (device.gpu.model()?.memory_mib() * MIB).next_power_of_two();
        let used = 2 * MIB;
        out.set(sys::nvmlBAR1Memory_t { bar1Total: total, bar1Free: total - used, bar1Used: used })
    };
}
