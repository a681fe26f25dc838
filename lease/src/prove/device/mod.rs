//! Devices: what is in two hands, by itself or by what it hangs on.
//!
//! ```text
//!  device ─┬─ itself                                shared, the host's own, unknown
//!          ├─ IOMMU group, bridges above            pci
//!          ├─ card, VLAN, VXLAN                     network
//!          ├─ GPU, GPU instance                     gpu
//!          └─ key, disk, what lies on what          volume
//! ```

pub(super) mod gpu;
pub(super) mod network;
pub(super) mod pci;
pub(super) mod volume;

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_api::isolation::{Class, DeviceFacts, DeviceKind, Facts, Holder, Reach, Sharing};

use super::{names, pairs};

/// Reached by many, by design.
fn is_common(device: &DeviceFacts) -> bool {
    matches!(
        device.kind,
        DeviceKind::Kvm | DeviceKind::VfioContainer | DeviceKind::Image | DeviceKind::GpuControl
    )
}

fn tenants(device: &DeviceFacts) -> impl Iterator<Item = &Reach> {
    device.holders.iter().filter(|reach| reach.holder != Holder::Host)
}

fn has(device: &DeviceFacts, holder: &Holder) -> bool {
    device.holders.iter().any(|reach| reach.holder == *holder)
}

/// Its name for people, with its number where the name says little.
fn called(device: &DeviceFacts) -> String {
    match (&device.kind, device.file) {
        (DeviceKind::Mapping { name, .. }, _) => format!("{} ({name})", device.name),
        (DeviceKind::Unknown, Some(file)) => format!("{} ({file})", device.name),
        _ => device.name.clone(),
    }
}

fn sharing(class: Class, holders: Vec<Holder>, resource: String, message: String) -> Sharing {
    Sharing { class, holders, resource, message }
}

/// Two devices that have something in common, in two hands.
struct Meeting<'a, K> {
    key: K,
    devices: [&'a DeviceFacts; 2],
    holders: [&'a Holder; 2],
}

impl<K> Meeting<'_, K> {
    fn told(&self, class: Class, resource: String, message: String) -> Sharing {
        sharing(class, self.holders.map(Clone::clone).to_vec(), resource, message)
    }
}

/// Devices with one key in different hands: for each two holders the first two devices. One device in both hands is
/// told as such and not here.
fn meetings<'a, K: Ord + Clone>(
    entries: impl Iterator<Item = (K, &'a DeviceFacts)>,
) -> Vec<Meeting<'a, K>> {
    let mut by_key: BTreeMap<K, BTreeMap<&Holder, Vec<&DeviceFacts>>> = BTreeMap::new();
    for (key, device) in entries {
        let holders = by_key.entry(key).or_default();
        for reach in &device.holders {
            holders.entry(&reach.holder).or_default().push(device);
        }
    }
    let mut found = Vec::new();
    for (key, holders) in by_key {
        for ((a, of_a), (b, of_b)) in pairs(&holders) {
            let two = of_a.iter().find_map(|x| {
                let other = of_b.iter().find(|y| y.name != x.name)?;
                Some([*x, *other])
            });
            found.extend(two.map(|devices| Meeting { key: key.clone(), devices, holders: [a, b] }));
        }
    }
    found
}

pub(super) fn shared(facts: &Facts, found: &mut Vec<Sharing>) {
    for device in facts.devices.iter().filter(|device| !is_common(device)) {
        let holders: Vec<Holder> = tenants(device).map(|reach| reach.holder.clone()).collect();
        if holders.len() > 1 {
            let resource = format!("device {}", called(device));
            let message = format!("{resource} is reached by {}", names(&holders));
            found.push(sharing(Class::Device, holders, resource, message));
        }
    }
}

fn ways(reach: &Reach) -> String {
    let ways: Vec<String> =
        reach.ways.iter().map(|way| format!("{way:?}").to_lowercase()).collect();
    ways.join(", ")
}

pub(super) fn hosts(facts: &Facts, found: &mut Vec<Sharing>) {
    let above = volume::Above::new(facts);
    let own = facts.devices.iter().filter(|device| !is_common(device));
    for device in own.filter(|device| has(device, &Holder::Host)) {
        for reach in tenants(device) {
            // Then what is on it is the graver matter.
            if above.of_others(device, &reach.holder).is_empty() {
                let resource = format!("device {}", called(device));
                let message = format!(
                    "{resource} of the host is reached by {} ({})",
                    reach.holder,
                    ways(reach)
                );
                let holders = vec![Holder::Host, reach.holder.clone()];
                found.push(sharing(Class::HostDevice, holders, resource, message));
            }
        }
    }
}

pub(super) fn unknown(facts: &Facts, found: &mut Vec<Sharing>) {
    for device in facts.devices.iter().filter(|device| device.kind == DeviceKind::Unknown) {
        for reach in tenants(device) {
            let resource = format!("device {}", called(device));
            let message = format!(
                "{resource} is reached by {} ({}), and nothing is known of it",
                reach.holder,
                ways(reach)
            );
            found.push(sharing(
                Class::UnknownDevice,
                vec![reach.holder.clone()],
                resource,
                message,
            ));
        }
    }
}

/// What has to be known of a device in a lease's hands before it can be compared with others.
pub(super) fn unobservable(facts: &Facts, found: &mut Vec<Sharing>) {
    let mut missing: Vec<(&DeviceFacts, String)> = Vec::new();
    for device in facts.devices.iter().filter(|device| tenants(device).next().is_some()) {
        if matches!(&device.kind, DeviceKind::Mapping { under, .. } if under.is_empty()) {
            missing.push((device, "what it lies on".to_owned()));
        }
        missing.extend(pci::missing(facts, device).into_iter().map(|what| (device, what)));
    }
    let mut seen = BTreeSet::new();
    for device in facts.devices.iter().filter(|device| !seen.insert(device.name.as_str())) {
        missing.push((device, "which of two devices of that name it is".to_owned()));
    }
    for (device, what) in missing {
        let holders: Vec<Holder> = tenants(device).map(|reach| reach.holder.clone()).collect();
        let resource = format!("device {}", called(device));
        let message = format!("not observable of {resource} of {}: {what}", names(&holders));
        found.push(sharing(Class::NotObservable, holders, resource, message));
    }
}
