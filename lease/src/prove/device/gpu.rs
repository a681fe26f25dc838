//! GPUs: a GPU instance has memory and caches of its own (MIG); its compute instances share them.

use std::collections::BTreeMap;

use bulkhead_api::isolation::{Class, DeviceFacts, DeviceKind, Facts, Sharing};

use super::{called, meetings, sharing, tenants};

fn slices_of(facts: &Facts) -> impl Iterator<Item = ((&str, u32), &DeviceFacts)> {
    facts.devices.iter().filter_map(|device| {
        let DeviceKind::GpuSlice { gpu, gpu_instance, .. } = &device.kind else { return None };
        Some(((gpu.as_str(), *gpu_instance), device))
    })
}

pub(in crate::prove) fn instances(facts: &Facts, found: &mut Vec<Sharing>) {
    for meeting in meetings(slices_of(facts)) {
        let (gpu, instance) = meeting.key;
        let ([x, y], [a, b]) = (meeting.devices, meeting.holders);
        let resource = format!("GPU instance {instance} of {gpu}");
        let message =
            format!("{} of {a} and {} of {b} are parts of {resource}", called(x), called(y));
        found.push(meeting.told(Class::GpuInstance, resource, message));
    }
}

pub(in crate::prove) fn slices(facts: &Facts, found: &mut Vec<Sharing>) {
    let whole = facts.devices.iter().filter(|device| device.kind == DeviceKind::Gpu);
    let whole: BTreeMap<&str, &DeviceFacts> =
        whole.map(|device| (device.name.as_str(), device)).collect();
    for ((gpu, _), slice) in slices_of(facts) {
        let Some(gpu) = whole.get(gpu) else { continue };
        for owner in tenants(gpu) {
            for other in tenants(slice).filter(|other| other.holder != owner.holder) {
                let resource = format!("GPU {}", gpu.name);
                let message = format!(
                    "{resource} is {}'s as a whole and {} of it is reached by {}",
                    owner.holder,
                    called(slice),
                    other.holder
                );
                let holders = vec![owner.holder.clone(), other.holder.clone()];
                found.push(sharing(Class::GpuSlice, holders, resource, message));
            }
        }
    }
}
