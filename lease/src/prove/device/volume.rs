//! Volumes: mappings whose parts of a disk, whose keys, or what they lie on are in two hands.
//!
//! Every mapping and partition is followed down to the disk, so that two meet wherever they lie on each other.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_api::isolation::{Class, DeviceFacts, DeviceKind, Facts, Holder, Sharing, Stretch};

use super::{called, sharing, tenants};
use crate::prove::names;

/// Devices on each other; more are a circle.
const DEPTH: usize = 8;

/// Bytes of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Part<'a> {
    disk: &'a str,
    start: u64,
    end: u64,
}

impl Part<'_> {
    fn meets(&self, other: &Self) -> bool {
        self.disk == other.disk && self.start < other.end && other.start < self.end
    }
}

type ByName<'a> = BTreeMap<&'a str, &'a DeviceFacts>;

fn by_name(facts: &Facts) -> ByName<'_> {
    facts.devices.iter().map(|device| (device.name.as_str(), device)).collect()
}

/// Where bytes `start` to `end` of a device are on disks, and what they go through on the way.
fn follow<'a>(
    devices: &ByName<'a>,
    (name, start, end): (&'a str, u64, u64),
    depth: usize,
    parts: &mut Vec<Part<'a>>,
    through: &mut BTreeSet<&'a str>,
) {
    through.insert(name);
    let under: &'a [Stretch] = match devices.get(name).map(|device| &device.kind) {
        Some(DeviceKind::Partition { on }) => std::slice::from_ref(on),
        Some(DeviceKind::Mapping { under, .. }) => under,
        _ => &[],
    };
    let Some(deeper) = depth.checked_sub(1).filter(|_| !under.is_empty()) else {
        parts.push(Part { disk: name, start, end });
        return;
    };
    // Byte of the device at which the stretch begins.
    let mut at = 0_u64;
    for stretch in under {
        let last = at.saturating_add(stretch.length);
        let (from, to) = (start.max(at), end.min(last));
        if from < to {
            let down = |byte: u64| stretch.start.saturating_add(byte.saturating_sub(at));
            let next = (stretch.device.as_str(), down(from), down(to));
            follow(devices, next, deeper, parts, through);
        }
        at = last;
    }
}

/// A device down to the disk.
struct Followed<'a> {
    device: &'a DeviceFacts,
    parts: Vec<Part<'a>>,
    /// What it lies on, itself left out.
    beneath: BTreeSet<&'a str>,
}

fn followed<'a>(devices: &ByName<'a>, device: &'a DeviceFacts) -> Followed<'a> {
    let (mut parts, mut beneath) = (Vec::new(), BTreeSet::new());
    follow(devices, (&device.name, 0, u64::MAX), DEPTH, &mut parts, &mut beneath);
    beneath.remove(device.name.as_str());
    Followed { device, parts, beneath }
}

/// All mappings, and what each lies on.
pub(super) struct Above<'a> {
    devices: ByName<'a>,
    mappings: Vec<Followed<'a>>,
    /// Places in `mappings` by what they lie on.
    on: BTreeMap<&'a str, Vec<usize>>,
}

impl<'a> Above<'a> {
    pub(super) fn new(facts: &'a Facts) -> Self {
        let devices = by_name(facts);
        let is_mapping = |device: &&&DeviceFacts| matches!(device.kind, DeviceKind::Mapping { .. });
        let all = facts.devices.iter();
        let mappings: Vec<Followed<'a>> = all
            .filter(|device| is_mapping(&device))
            .map(|device| followed(&devices, device))
            .collect();
        let mut on: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (at, mapping) in mappings.iter().enumerate() {
            for name in &mapping.beneath {
                on.entry(name).or_default().push(at);
            }
        }
        Self { devices, mappings, on }
    }

    /// Mappings of others than `holder` that lie on a device.
    pub(super) fn of_others(&self, device: &DeviceFacts, holder: &Holder) -> Vec<&'a DeviceFacts> {
        let on = self.on.get(device.name.as_str()).into_iter().flatten();
        let mut lying: BTreeSet<usize> = on.copied().collect();
        if matches!(device.kind, DeviceKind::Disk | DeviceKind::Partition { .. })
            && let Some(device) = self.devices.get(device.name.as_str())
        {
            let own = followed(&self.devices, device);
            let meets = |mapping: &Followed<'_>| {
                mapping.parts.iter().any(|part| own.parts.iter().any(|mine| mine.meets(part)))
            };
            let all = self.mappings.iter().enumerate();
            lying.extend(all.filter(|(_, mapping)| meets(mapping)).map(|(at, _)| at));
        }
        let lying = lying.into_iter().filter_map(|at| self.mappings.get(at));
        let others = lying.map(|mapping| mapping.device);
        others.filter(|above| tenants(above).any(|reach| reach.holder != *holder)).collect()
    }
}

fn owners(device: &DeviceFacts) -> BTreeSet<&Holder> {
    tenants(device).map(|reach| &reach.holder).collect()
}

/// Whose both are together, where that is not one and the same. What nobody reaches is nobody's, and as strange.
fn apart<'a>(a: &'a DeviceFacts, b: &'a DeviceFacts) -> Option<Vec<Holder>> {
    let (of_a, of_b) = (owners(a), owners(b));
    let all: BTreeSet<&Holder> = of_a.union(&of_b).copied().collect();
    let one = of_a == of_b && all.len() == 1;
    (!all.is_empty() && !one).then(|| all.into_iter().cloned().collect())
}

fn whose(device: &DeviceFacts) -> String {
    let owners = owners(device);
    if owners.is_empty() { "nobody".to_owned() } else { names(owners) }
}

pub(in crate::prove) fn extents(facts: &Facts, found: &mut Vec<Sharing>) {
    let above = Above::new(facts);
    let of_mapping = |mapping| -> Vec<(Part<'_>, &Followed<'_>)> {
        let mapping: &Followed<'_> = mapping;
        mapping.parts.iter().map(|&part| (part, mapping)).collect()
    };
    let mut all: Vec<(Part<'_>, &Followed<'_>)> =
        above.mappings.iter().flat_map(of_mapping).collect();
    all.sort_by_key(|(part, mapping)| (*part, mapping.device.name.as_str()));
    let mut open: Vec<(Part<'_>, &Followed<'_>)> = Vec::new();
    let mut told = BTreeSet::new();
    for (part, mapping) in all {
        open.retain(|(earlier, _)| earlier.meets(&part));
        for (_, other) in &open {
            let (a, b) = (other.device, mapping.device);
            // One on the other: whoever reaches the lower one is told as beneath.
            let stacked = other.beneath.contains(b.name.as_str())
                || mapping.beneath.contains(a.name.as_str());
            let itself = a.name == b.name;
            let Some(holders) = apart(a, b).filter(|_| !stacked && !itself) else { continue };
            if told.insert((a.name.as_str(), b.name.as_str())) {
                let resource = format!("byte {} of disk {}", part.start, part.disk);
                let message = format!(
                    "{resource} is in {} of {} and in {} of {}",
                    called(a),
                    whose(a),
                    called(b),
                    whose(b)
                );
                found.push(sharing(Class::VolumeExtent, holders, resource, message));
            }
        }
        open.push((part, mapping));
    }
}

pub(in crate::prove) fn keys(facts: &Facts, found: &mut Vec<Sharing>) {
    let mut by_key: BTreeMap<&str, Vec<&DeviceFacts>> = BTreeMap::new();
    for device in &facts.devices {
        if let DeviceKind::Mapping { key: Some(key), .. } = &device.kind {
            by_key.entry(key).or_default().push(device);
        }
    }
    for (key, devices) in by_key {
        for two in devices.windows(2) {
            let &[a, b] = two else { continue };
            let Some(holders) = apart(a, b) else { continue };
            let resource = format!("key {key}");
            let message = format!(
                "{resource} opens {} of {} and {} of {}",
                called(a),
                whose(a),
                called(b),
                whose(b)
            );
            found.push(sharing(Class::VolumeKey, holders, resource, message));
        }
    }
}

pub(in crate::prove) fn beneath(facts: &Facts, found: &mut Vec<Sharing>) {
    let above = Above::new(facts);
    for device in &facts.devices {
        for reach in tenants(device) {
            for other in above.of_others(device, &reach.holder) {
                let resource = format!("device {}", called(device));
                let message = format!(
                    "{resource} is reached by {}, and {} of {} lies on it",
                    reach.holder,
                    called(other),
                    whose(other)
                );
                let holders = [&reach.holder].into_iter().chain(owners(other));
                let holders: BTreeSet<Holder> = holders.cloned().collect();
                let holders = holders.into_iter().collect();
                found.push(sharing(Class::BeneathVolume, holders, resource, message));
            }
        }
    }
}
