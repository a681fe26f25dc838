//! Takes a GPU or a slice back.

use bulkhead_api::gpu::{HeldGpu, HeldSlice};
use bulkhead_api::receipt::Evidence;

use super::record::Stage;
use super::{Gpus, at, held, over, refused};
use crate::class::{ClassError, Erased, Order};
use crate::gpu::cdi;
use crate::gpu::driver::Change;
use crate::gpu::nvml::{Code, GpuError};
use crate::gpu::scrub::Scrubbed;

fn failed(gpu: &HeldGpu) -> impl Fn(GpuError) -> ClassError + '_ {
    move |error| refused(format!("take back {gpu}"), &error)
}

/// Takes it back.
pub(super) fn erase(gpus: &Gpus, order: &Order) -> Result<Erased, ClassError> {
    let gpu = held(order)?;
    let turn = gpus.turn();
    let mut given = gpus.given()?;
    if let Some(other) = given.in_the_way(&order.lease, gpu) {
        // Nothing of this lease's is there any more; what is there is not to be touched.
        let why = format!("{} of lease {} is there", other.gpu, other.lease);
        return Err(ClassError::Refused { doing: format!("take back {gpu}"), why });
    }
    given.set(&order.lease, gpu, Stage::Erasing, false);
    gpus.store(&given)?;
    cdi::remove(&gpus.root, gpu)?;
    let mut erased = Erased::default();
    match &gpu.slice {
        None => leave(gpus, gpu, &mut erased)?,
        Some(slice) => destroy(gpus, gpu, slice, &mut erased)?,
    }
    // The record keeps everybody else away while memory is erased, which takes long.
    drop(turn);
    let Scrubbed { method, evidence, unproven } = gpus.scrubber.scrub(gpu, &order.progress)?;
    erased.methods.push(method);
    erased.evidence.extend(evidence);
    match unproven {
        Some(why) if !order.weaker_erase => {
            let expected = "memory read again and found clean".to_owned();
            return Err(ClassError::ReadBack { what: gpu.to_string(), expected, found: why });
        }
        weaker => erased.weaker = weaker,
    }
    let _turn = gpus.turn();
    let mut given = gpus.given()?;
    given.remove(&order.lease, gpu);
    gpus.store(&given)?;
    Ok(erased)
}

/// Nobody uses a GPU that was a lease's as a whole.
fn leave(gpus: &Gpus, gpu: &HeldGpu, erased: &mut Erased) -> Result<(), ClassError> {
    let clients = gpus.driver.clients(&gpu.gpu).map_err(failed(gpu))?;
    if let Some(client) = clients.first() {
        let why = format!("process {} uses it", client.pid);
        return Err(ClassError::Refused { doing: format!("take back {gpu}"), why });
    }
    let what = format!("processes that use {gpu}");
    erased.evidence.push(Evidence { what, found: "none".to_owned() });
    Ok(())
}

/// The slice's compute and GPU instance, and that nothing is at its place.
fn destroy(
    gpus: &Gpus,
    gpu: &HeldGpu,
    slice: &HeldSlice,
    erased: &mut Erased,
) -> Result<(), ClassError> {
    let bdf = gpu.gpu.as_str();
    let before = gpus.driver.instances(bdf).map_err(failed(gpu))?;
    if let Some(found) = at(&before, slice.placement) {
        for compute in &found.compute {
            let change = Change::DestroyCompute(found.instance, compute.clone());
            gpus.driver
                .change(bdf, change)
                .map_err(|error| who(gpus, gpu, found.instance.id, error))?;
        }
        gpus.driver
            .change(bdf, Change::DestroyInstance(found.instance))
            .map_err(|error| who(gpus, gpu, found.instance.id, error))?;
        erased.methods.push("destroyInstance".to_owned());
    }
    let after = gpus.driver.instances(bdf).map_err(failed(gpu))?;
    if let Some(found) = over(&after, slice.placement) {
        let (id, place) = (found.instance.id, found.instance.placement);
        let why = format!("GPU instance {id}, {place}, is there");
        return Err(ClassError::Refused { doing: format!("see that {gpu} is gone"), why });
    }
    let (start, size) = (slice.placement.start, slice.placement.size);
    let what = format!("GPU instances at {start}:{size} of GPU {bdf}");
    erased.evidence.push(Evidence { what, found: "none".to_owned() });
    Ok(())
}

/// With whoever is in it, where that is why.
fn who(gpus: &Gpus, gpu: &HeldGpu, instance: u32, error: GpuError) -> ClassError {
    let clients = match error.code() {
        Some(Code::InUse) => gpus.driver.clients(&gpu.gpu).unwrap_or_default(),
        _ => Vec::new(),
    };
    let inside = clients.iter().find(|client| client.instance == Some(instance));
    match inside {
        None => failed(gpu)(error),
        Some(client) => ClassError::Refused {
            doing: format!("take back {gpu}"),
            why: format!("process {} uses it", client.pid),
        },
    }
}
