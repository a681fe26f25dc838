//! Network functions: those that may pose as others, and networks that two tenants are in.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_api::id::TenantName;
use bulkhead_api::isolation::{Class, DeviceFacts, DeviceKind, Facts, Holder, Port, Sharing};

use super::{called, meetings, sharing, tenants};
use crate::prove::names;

/// A virtual function without the card's guard, beside those of other leases.
pub(in crate::prove) fn trusted(facts: &Facts, found: &mut Vec<Sharing>) {
    let mut cards: BTreeMap<&str, Vec<&DeviceFacts>> = BTreeMap::new();
    for device in &facts.devices {
        if let DeviceKind::Vf { pf, .. } = &device.kind {
            cards.entry(pf).or_default().push(device);
        }
    }
    for (pf, functions) in cards {
        for device in &functions {
            let DeviceKind::Vf { trust, spoof_check, .. } = &device.kind else { continue };
            let why = match (trust, spoof_check) {
                (true, _) => "is trusted",
                (false, false) => "has no spoof check",
                (false, true) => continue,
            };
            for reach in tenants(device) {
                let others = functions.iter().filter(|other| other.name != device.name);
                let others: BTreeSet<&Holder> = others
                    .flat_map(|other| tenants(other))
                    .map(|other| &other.holder)
                    .filter(|other| **other != reach.holder)
                    .collect();
                if others.is_empty() {
                    continue;
                }
                let resource = format!("card {pf}");
                let message = format!(
                    "{} of {} {why} and can pose as functions of {} on {resource}",
                    called(device),
                    reach.holder,
                    names(others.iter().copied())
                );
                let holders = [&reach.holder].into_iter().chain(others).cloned().collect();
                found.push(sharing(Class::TrustedFunction, holders, resource, message));
            }
        }
    }
}

fn tenant(holder: &Holder) -> Option<&TenantName> {
    match holder {
        Holder::Lease(id) => Some(&id.tenant),
        Holder::Host | Holder::Unknown(_) => None,
    }
}

fn network(port: &Port) -> String {
    let Port { on, vlan, vni } = port;
    match (vni, vlan) {
        (Some(vni), _) => format!("VXLAN {vni} of {on}"),
        (None, Some(vlan)) => format!("VLAN {vlan} of {on}"),
        (None, None) => format!("untagged network of {on}"),
    }
}

/// A network is a tenant's: its leases may be in it together.
pub(in crate::prove) fn joined(facts: &Facts, found: &mut Vec<Sharing>) {
    let ports = facts.devices.iter().filter_map(|device| Some((device.port.as_ref()?, device)));
    for meeting in meetings(ports) {
        let [a, b] = meeting.holders;
        if tenant(a).is_some() && tenant(a) == tenant(b) {
            continue;
        }
        let resource = network(meeting.key);
        let [x, y] = meeting.devices;
        let message =
            format!("{} of {a} and {} of {b} are both in the {resource}", called(x), called(y));
        found.push(meeting.told(Class::Network, resource, message));
    }
}
