//! Gives a GPU or a slice.

use std::path::PathBuf;

use bulkhead_api::gpu::{HeldGpu, HeldSlice};
use bulkhead_api::lease::InstanceKind;
use bulkhead_api::mig::{Instance, Placement};
use tracing::warn;

use super::record::{Given, Stage};
use super::{Gpus, at, held, over, refused};
use crate::class::{Attached, ClassError, Order};
use crate::gpu::caps::{self, SliceNumbers};
use crate::gpu::cdi;
use crate::gpu::driver::{Change, Changed};
use crate::gpu::nvml::model::{Activation, ComputeInstance, GpuInstance, Identity};
use crate::gpu::nvml::{Code, GpuError};

fn failed(gpu: &HeldGpu) -> impl Fn(GpuError) -> ClassError + '_ {
    move |error| refused(format!("give {gpu}"), &error)
}

fn not_now(gpu: &HeldGpu, why: String) -> ClassError {
    ClassError::Refused { doing: format!("give {gpu}"), why }
}

/// Looks at what a lease is to have.
pub(super) fn observe(gpus: &Gpus, order: &Order) -> Result<Attached, ClassError> {
    let gpu = held(order)?;
    let given = gpus.given()?;
    if given.of(&order.lease, gpu).is_none_or(|given| given.stage != Stage::Made) {
        return Ok(Attached::No);
    }
    let identity = gpus.driver.identity(&gpu.gpu).map_err(failed(gpu))?;
    let mode = identity.mig.is_some_and(|mode| mode.current);
    let nodes = match &gpu.slice {
        None if mode => return Ok(Attached::Drifted("its MIG mode is on".to_owned())),
        None => Vec::new(),
        Some(slice) => {
            let instances = gpus.driver.instances(&gpu.gpu).map_err(failed(gpu))?;
            // After a start of the driver: what was in it is gone.
            let Some(found) = at(&instances, slice.placement) else { return Ok(Attached::No) };
            match &found.compute[..] {
                [compute] => nodes(gpus, &identity, found.instance, compute)?,
                [] => return Ok(Attached::Drifted("it has no compute instance".to_owned())),
                more => {
                    let why = format!("it has {} compute instances", more.len());
                    return Ok(Attached::Drifted(why));
                }
            }
        }
    };
    let written = cdi::is_written(&gpus.root, &order.lease, gpu, identity.minor, &nodes)?;
    Ok(match written {
        true => Attached::Yes,
        false => Attached::Drifted("its CDI spec is not as it should be".to_owned()),
    })
}

fn nodes(
    gpus: &Gpus,
    identity: &Identity,
    instance: Instance,
    compute: &ComputeInstance,
) -> Result<Vec<PathBuf>, ClassError> {
    let numbers = SliceNumbers { gpu: identity.minor, instance: instance.id, compute: compute.id };
    Ok(caps::nodes(&gpus.root, numbers)?.to_vec())
}

/// Gives it.
pub(super) fn attach(gpus: &Gpus, order: &Order) -> Result<(), ClassError> {
    let gpu = held(order)?;
    if order.instance != InstanceKind::Container {
        return Err(ClassError::Unsupported(format!("{gpu} is for a container alone")));
    }
    let _turn = gpus.turn();
    let mut given = gpus.given()?;
    if let Some(other) = given.in_the_way(&order.lease, gpu) {
        let why = format!("{} of lease {} is there", other.gpu, other.lease);
        return Err(not_now(gpu, why));
    }
    if given.of(&order.lease, gpu).is_some_and(|given| given.stage == Stage::Erasing) {
        return Err(not_now(gpu, "an earlier lease's of that name is not erased yet".to_owned()));
    }
    let identity = gpus.driver.identity(&gpu.gpu).map_err(failed(gpu))?;
    let nodes = match &gpu.slice {
        None => whole(gpus, order, gpu, &identity, &mut given)?,
        Some(slice) => {
            let found = make(gpus, order, gpu, slice, &identity, &mut given)?;
            let [compute] = &found.compute[..] else {
                let found = format!("{} compute instances", found.compute.len());
                return Err(read_back(gpu, "one compute instance", found));
            };
            // Switching the mode may have given the GPU another minor.
            let identity = gpus.driver.identity(&gpu.gpu).map_err(failed(gpu))?;
            nodes(gpus, &identity, found.instance, compute)?
        }
    };
    let minor = gpus.driver.identity(&gpu.gpu).map_err(failed(gpu))?.minor;
    cdi::write(&gpus.root, &order.lease, gpu, minor, &nodes)?;
    given.set(&order.lease, gpu, Stage::Made, false);
    gpus.store(&given)
}

fn read_back(gpu: &HeldGpu, expected: &str, found: String) -> ClassError {
    ClassError::ReadBack { what: gpu.to_string(), expected: expected.to_owned(), found }
}

/// A GPU as a whole: MIG off, nobody in it.
fn whole(
    gpus: &Gpus,
    order: &Order,
    gpu: &HeldGpu,
    identity: &Identity,
    given: &mut Given,
) -> Result<Vec<PathBuf>, ClassError> {
    if given.of(&order.lease, gpu).is_none_or(|given| given.stage != Stage::Made) {
        let instances = gpus.driver.instances(&gpu.gpu).map_err(failed(gpu))?;
        if let Some(found) = instances.first() {
            let (id, place) = (found.instance.id, found.instance.placement);
            return Err(not_now(gpu, format!("GPU instance {id}, {place}, is there")));
        }
        clients(gpus, gpu)?;
        given.set(&order.lease, gpu, Stage::Making, false);
        gpus.store(given)?;
    }
    if identity.mig.is_some_and(|mode| mode.current) {
        switch(gpus, gpu, false)?;
    }
    Ok(Vec::new())
}

/// Nobody uses the GPU.
fn clients(gpus: &Gpus, gpu: &HeldGpu) -> Result<(), ClassError> {
    let clients = gpus.driver.clients(&gpu.gpu).map_err(failed(gpu))?;
    match clients.first() {
        None => Ok(()),
        Some(client) => Err(not_now(gpu, format!("process {} uses the GPU", client.pid))),
    }
}

/// Switches MIG on or off: in force, or an error that says what it waits for.
fn switch(gpus: &Gpus, gpu: &HeldGpu, on: bool) -> Result<(), ClassError> {
    let changed = gpus.driver.change(&gpu.gpu, Change::Mode(on)).map_err(failed(gpu))?;
    let Changed::Mode(activation) = changed else {
        return Err(read_back(gpu, "a MIG mode", format!("{changed:?}")));
    };
    match activation {
        Activation::Active => Ok(()),
        Activation::Pending(what) => {
            let clients = gpus.driver.clients(&gpu.gpu).unwrap_or_default();
            let who: Vec<String> = clients.iter().map(|client| client.pid.to_string()).collect();
            let who = if who.is_empty() {
                String::new()
            } else {
                format!("; processes {}", who.join(", "))
            };
            let word = if on { "on" } else { "off" };
            Err(not_now(gpu, format!("switching MIG {word} waits for {what}{who}")))
        }
    }
}

/// The slice, made as far as it is not there, and read back.
fn make(
    gpus: &Gpus,
    order: &Order,
    gpu: &HeldGpu,
    slice: &HeldSlice,
    identity: &Identity,
    given: &mut Given,
) -> Result<GpuInstance, ClassError> {
    let (bdf, place) = (gpu.gpu.as_str(), slice.placement);
    let Some(mode) = identity.mig else {
        return Err(ClassError::Unsupported(format!("GPU {bdf} cannot be cut into slices")));
    };
    let geometry = gpus.driver.geometry(bdf).map_err(failed(gpu))?;
    let profile = geometry.profile(place.profile).filter(|profile| profile.name == slice.profile);
    if profile.is_none() || !geometry.allows(place) {
        return Err(ClassError::Unsupported(format!("GPU {bdf} has no {gpu}")));
    }
    let known = given.of(&order.lease, gpu).is_some();
    let before = gpus.driver.instances(bdf).map_err(failed(gpu))?;
    let ours = at(&before, place).filter(|_| known).cloned();
    if ours.is_none()
        && let Some(other) = over(&before, place)
    {
        let (id, place) = (other.instance.id, other.instance.placement);
        let why = format!("GPU instance {id}, {place}, is there, and no record knows whose it is");
        return Err(not_now(gpu, why));
    }
    if !mode.current {
        if let Some(client) = gpus.driver.clients(bdf).map_err(failed(gpu))?.first() {
            let why = format!("process {} uses the GPU, whose MIG is off", client.pid);
            return Err(not_now(gpu, why));
        }
        switch(gpus, gpu, true)?;
    }
    if ours.is_none() || !known {
        given.set(&order.lease, gpu, Stage::Making, known);
        gpus.store(given)?;
    }
    let (instance, fresh) = match &ours {
        Some(found) => (found.instance, false),
        None => (create(gpus, order, gpu, place, given)?, true),
    };
    let expected = geometry.instance_id(place);
    if fresh && (instance.placement != place || expected.is_some_and(|id| id != instance.id)) {
        roll_back(gpus, gpu, instance);
        let (id, made) = (instance.id, instance.placement);
        let wanted = expected.map_or_else(|| "its number".to_owned(), |id| format!("number {id}"));
        return Err(read_back(gpu, &format!("{place}, {wanted}"), format!("{made}, number {id}")));
    }
    let empty = ours.is_none_or(|found| found.compute.is_empty());
    if empty && let Err(error) = gpus.driver.change(bdf, Change::CreateCompute(instance)) {
        if fresh {
            roll_back(gpus, gpu, instance);
        }
        return Err(failed(gpu)(error));
    }
    let after = gpus.driver.instances(bdf).map_err(failed(gpu))?;
    let found = at(&after, place).filter(|found| found.instance == instance).cloned();
    found.ok_or_else(|| read_back(gpu, "there", "nothing at its place".to_owned()))
}

fn create(
    gpus: &Gpus,
    order: &Order,
    gpu: &HeldGpu,
    place: Placement,
    given: &mut Given,
) -> Result<Instance, ClassError> {
    match gpus.driver.change(&gpu.gpu, Change::CreateInstance(place)) {
        Ok(Changed::Instance(instance)) => Ok(instance),
        Ok(other) => Err(read_back(gpu, "a GPU instance", format!("{other:?}"))),
        Err(error) => {
            let taken = error.code() == Some(Code::InsufficientResources);
            if taken {
                // Somebody else was faster: what is there is not this lease's, and must not be taken for it later.
                given.remove(&order.lease, gpu);
                gpus.store(given)?;
            }
            Err(failed(gpu)(error))
        }
    }
}

/// Takes back what was made a moment ago. Where that fails it is found as partly made, by whoever comes next.
fn roll_back(gpus: &Gpus, gpu: &HeldGpu, instance: Instance) {
    if let Err(error) = gpus.driver.change(&gpu.gpu, Change::DestroyInstance(instance)) {
        warn!(%error, %gpu, "a slice stays partly made");
    }
}
