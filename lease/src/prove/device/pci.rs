//! PCI functions: those of one IOMMU group reach each other's memory, and so do those below a bridge that sends requests
//! from one to the other without asking the IOMMU (access control services, Linux `drivers/pci/pci.c`,
//! `pci_acs_enabled`).
//!
//! ```text
//!  root port ── upstream port ─┬─ downstream port ── a       apart where both downstream ports have ACS
//!                              └─ downstream port ── b
//!  root port ─┬─ a                                           apart where the root port has
//!             └─ b
//! ```

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_api::inventory::PciFunction;
use bulkhead_api::isolation::{Class, DeviceFacts, DeviceKind, Facts, Holder, Sharing};

use super::sharing;
use crate::prove::pairs;

/// Class of a PCI-to-PCI bridge, without its programming interface.
const BRIDGE: u32 = 0x0604;
/// Bridges above each other on one path; a longer one is a circle.
const DEPTH: usize = 64;
/// Drivers by which the host does nothing with a function.
const IDLE: [&str; 4] = ["vfio-pci", "pci-stub", "pcieport", "shpchp"];

fn is_bridge(function: &PciFunction) -> bool {
    function.class >> 8 == BRIDGE
}

/// A function in a hand.
#[derive(Clone, Copy)]
struct Held<'a> {
    bdf: &'a str,
    group: Option<u32>,
    holder: &'a Holder,
    /// The device by which it is held: what is the same there is told there.
    device: &'a str,
}

/// Every function in a hand: a device by itself, all of a group by the group's device, and what a driver of the host's
/// has.
fn held(facts: &Facts) -> Vec<Held<'_>> {
    let mut by_group: BTreeMap<u32, Vec<&PciFunction>> = BTreeMap::new();
    for function in facts.functions.iter().filter(|function| !is_bridge(function)) {
        if let Some(group) = function.iommu_group {
            by_group.entry(group).or_default().push(function);
        }
    }
    let mut held = Vec::new();
    let mut known = BTreeSet::new();
    for device in &facts.devices {
        let functions: Vec<&str> = match (&device.kind, &device.bdf, device.iommu_group) {
            (DeviceKind::VfioGroup, _, Some(group)) => {
                by_group.get(&group).into_iter().flatten().map(|f| f.bdf.as_str()).collect()
            }
            (_, Some(bdf), _) => vec![bdf.as_str()],
            _ => Vec::new(),
        };
        known.extend(device.bdf.as_deref());
        for reach in &device.holders {
            held.extend(functions.iter().map(|bdf| Held {
                bdf,
                group: device.iommu_group,
                holder: &reach.holder,
                device: &device.name,
            }));
        }
    }
    let drives = |function: &&PciFunction| {
        let driver = function.driver.as_deref();
        driver.is_some_and(|driver| !IDLE.contains(&driver)) && !is_bridge(function)
    };
    let hosts = facts.functions.iter().filter(drives);
    held.extend(hosts.filter(|function| !known.contains(function.bdf.as_str())).map(|function| {
        let (bdf, group) = (function.bdf.as_str(), function.iommu_group);
        Held { bdf, group, holder: &Holder::Host, device: bdf }
    }));
    held
}

/// The first of each holder that fit, for each two holders.
fn first_pairs<'a, T: Copy>(
    hands: &[(Held<'a>, T)],
    fit: impl Fn(&(Held<'a>, T), &(Held<'a>, T)) -> bool,
) -> Vec<(Held<'a>, Held<'a>)> {
    let mut by_holder: BTreeMap<&Holder, Vec<&(Held<'a>, T)>> = BTreeMap::new();
    for hand in hands {
        by_holder.entry(hand.0.holder).or_default().push(hand);
    }
    let mut found = Vec::new();
    for (of_a, of_b) in pairs(by_holder.values()) {
        let two = of_a.iter().find_map(|a| {
            let b = of_b.iter().find(|b| a.0.device != b.0.device && fit(a, b))?;
            Some((a.0, b.0))
        });
        found.extend(two);
    }
    found
}

fn tell(class: Class, (a, b): (Held<'_>, Held<'_>), resource: String, how: &str) -> Sharing {
    let message = format!("{} of {} and {} of {} are {how}", a.bdf, a.holder, b.bdf, b.holder);
    sharing(class, vec![a.holder.clone(), b.holder.clone()], resource, message)
}

pub(in crate::prove) fn groups(facts: &Facts, found: &mut Vec<Sharing>) {
    let mut by_group: BTreeMap<u32, Vec<(Held<'_>, ())>> = BTreeMap::new();
    for hand in held(facts) {
        if let Some(group) = hand.group {
            by_group.entry(group).or_default().push((hand, ()));
        }
    }
    for (group, hands) in by_group {
        for pair in first_pairs(&hands, |_, _| true) {
            let resource = format!("IOMMU group {group}");
            found.push(tell(Class::IommuGroup, pair, resource.clone(), &format!("in {resource}")));
        }
    }
}

/// By which port of a bridge a function is below it, and whether that port sends its requests up.
#[derive(Clone, Copy)]
struct Entry<'a> {
    port: Option<&'a str>,
    up: bool,
}

pub(in crate::prove) fn bridges(facts: &Facts, found: &mut Vec<Sharing>) {
    let functions: BTreeMap<&str, &PciFunction> =
        facts.functions.iter().map(|function| (function.bdf.as_str(), function)).collect();
    let mut below: BTreeMap<&str, Vec<(Held<'_>, Entry<'_>)>> = BTreeMap::new();
    for hand in held(facts) {
        let mut at = functions.get(hand.bdf).copied();
        let mut entry = Entry { port: None, up: false };
        for _ in 0..DEPTH {
            let parent = at.and_then(|function| function.parent.as_deref());
            let Some(bridge) = parent.and_then(|bdf| functions.get(bdf).copied()) else { break };
            if bridge.acs != Some(true) {
                below.entry(bridge.bdf.as_str()).or_default().push((hand, entry));
            }
            entry = Entry { port: Some(bridge.bdf.as_str()), up: bridge.acs == Some(true) };
            at = Some(bridge);
        }
    }
    for (bridge, hands) in below {
        let reach = |(a, by_a): &(Held<'_>, Entry<'_>), (b, by_b): &(Held<'_>, Entry<'_>)| {
            // One port, and it is that one's matter; one group, and it is told as such.
            let here = by_a.port.is_none() || by_a.port != by_b.port;
            let one_group = a.group.is_some() && a.group == b.group;
            here && !one_group && !(by_a.up && by_b.up)
        };
        for pair in first_pairs(&hands, reach) {
            let how =
                format!("below bridge {bridge}, which may send requests from one to the other");
            found.push(tell(Class::PeerToPeer, pair, format!("bridge {bridge}"), &how));
        }
    }
}

/// What is not known of where a device hangs.
pub(super) fn missing(facts: &Facts, device: &DeviceFacts) -> Option<String> {
    let of_group = |group| facts.functions.iter().find(move |f| f.iommu_group == Some(group));
    let of_bdf = |bdf: &str| facts.functions.iter().find(|function| function.bdf == bdf);
    let mut at = match (&device.kind, &device.bdf, device.iommu_group) {
        (DeviceKind::VfioGroup, _, Some(group)) => of_group(group),
        (DeviceKind::VfioGroup, _, None) => None,
        (_, Some(bdf), _) => of_bdf(bdf),
        _ => return None,
    };
    if at.is_none() {
        return Some("its PCI functions".to_owned());
    }
    for _ in 0..DEPTH {
        // At a root bus the way is known to its end.
        let parent = at.and_then(|function| function.parent.as_deref())?;
        at = of_bdf(parent);
        if at.is_none() {
            return Some(format!("bridge {parent} above it"));
        }
    }
    Some("the bridges above it, which go in a circle".to_owned())
}
