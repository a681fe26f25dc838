//! What a desired state says wrong: values out of range, and what two of its parts say together.
//!
//! A state with a fault is not applied, and what stands stays. Each fault names its field and whose it is, so that the
//! caller can leave a network or a port out and keep the others.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use bulkhead_api::network::{NetworkId, NetworkPort, NetworkSpec, PortKind, Subnet};

use crate::model::{
    Desired, LinkName, Network, Port, PortId, Role, Segment, TenantNumber, Uplink, gateway_mac,
    is_ours,
};

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{subject}: {path}: {message}")]
pub struct Fault {
    /// Whose field.
    pub subject: Subject,
    /// `networks[acme/data].subnets[0].prefix`.
    pub path: String,
    /// What was found and what was expected.
    pub message: String,
}

/// Whose field is at fault.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// The host's own: nothing can be applied.
    Underlay,
    /// A network: with its ports it can be left out.
    Network(NetworkId),
    /// A port: it can be left out.
    Port(PortId),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Underlay => f.write_str("underlay"),
            Self::Network(network) => write!(f, "network {network}"),
            Self::Port(port) => write!(f, "port {port}"),
        }
    }
}

/// Bytes that VXLAN puts in front of a packet: Ethernet 14, VXLAN 8, UDP 8, and the outer IP header.
const fn vxlan_overhead(outer: IpAddr) -> u16 {
    if outer.is_ipv4() { 50 } else { 70 }
}

/// Every fault, in the order of the state; empty = it can be applied.
#[must_use]
pub fn check(desired: &Desired) -> Vec<Fault> {
    let mut faults = Faults::default();
    underlay(desired, &mut faults);
    for (id, network) in &desired.networks {
        networks(desired, id, network, &mut faults);
    }
    pairs_of_networks(desired, &mut faults);
    let mut macs = BTreeMap::new();
    for (id, port) in &desired.ports {
        ports(desired, id, port, &mut faults);
        if let Some(other) = macs.insert(port.mac, id) {
            let message = format!("{} is the address of port {other} too", port.mac);
            faults.port(id, "mac", message);
        }
    }
    names(desired, &mut faults);
    faults.0
}

#[derive(Default)]
struct Faults(Vec<Fault>);

impl Faults {
    fn underlay(&mut self, field: &str, message: String) {
        self.0.push(Fault { subject: Subject::Underlay, path: field.to_owned(), message });
    }

    fn network(&mut self, id: &NetworkId, field: &str, message: String) {
        let path = format!("networks[{id}].{field}");
        self.0.push(Fault { subject: Subject::Network(id.clone()), path, message });
    }

    fn port(&mut self, id: &PortId, field: &str, message: String) {
        let path = format!("ports[{id}].{field}");
        self.0.push(Fault { subject: Subject::Port(id.clone()), path, message });
    }
}

fn underlay(desired: &Desired, faults: &mut Faults) {
    let mut numbers: BTreeMap<TenantNumber, _> = BTreeMap::new();
    for (tenant, number) in &desired.tenants {
        if let Some(other) = numbers.insert(*number, tenant) {
            faults.underlay(&format!("tenants[{tenant}]"), format!("{number} is {other}'s too"));
        }
    }
    let underlay = &desired.underlay;
    if let Some(uplink) = &underlay.uplink {
        check_uplink(uplink, faults);
    }
    let mtu = underlay.uplink.as_ref().map(|uplink| uplink.mtu);
    let mut vlans = BTreeSet::new();
    for (at, host) in underlay.vlans.iter().enumerate() {
        let field = |name: &str| format!("underlay.vlans[{at}].{name}");
        if !vlans.insert(host.vlan) {
            faults.underlay(&field("vlan"), format!("VLAN {} is there twice", host.vlan));
        }
        match mtu {
            None => {
                faults.underlay(&field("vlan"), "there is no uplink that carries it".to_owned())
            }
            Some(mtu) if host.mtu > mtu => {
                faults.underlay(&field("mtu"), format!("{}: above the uplink's {mtu}", host.mtu));
            }
            Some(_) => {}
        }
        check_lengths(&host.addresses, &field("addresses"), faults);
    }
    if let Some(vxlan) = &underlay.vxlan {
        if vxlan.address.is_unspecified() || vxlan.address.is_multicast() {
            let message = format!("{}: expected an address of this host", vxlan.address);
            faults.underlay("underlay.vxlan.address", message);
        }
        if vxlan.port == 0 {
            faults.underlay("underlay.vxlan.port", "0: expected 1 to 65535".to_owned());
        }
        for remote in &vxlan.remotes {
            let field = "underlay.vxlan.remotes";
            if *remote == vxlan.address {
                faults.underlay(field, format!("{remote} is this host itself"));
            } else if remote.is_ipv4() != vxlan.address.is_ipv4() {
                let message = format!("{remote}: not of the family of {}", vxlan.address);
                faults.underlay(field, message);
            }
        }
    }
}

fn check_uplink(uplink: &Uplink, faults: &mut Faults) {
    let field = |name: &str| format!("underlay.uplink.{name}");
    let members: BTreeSet<_> = uplink.members.iter().collect();
    if members.len() != uplink.members.len() {
        faults.underlay(&field("members"), "a card is there twice".to_owned());
    }
    match uplink.bond {
        None if uplink.members.len() != 1 => {
            let message = format!("{} cards without a bond: expected 1", uplink.members.len());
            faults.underlay(&field("members"), message);
        }
        None if !uplink.addresses.is_empty() => {
            let message = "the addresses of a single card are the host's own".to_owned();
            faults.underlay(&field("addresses"), message);
        }
        None => {}
        Some(bond) => {
            if uplink.members.is_empty() || uplink.members.len() > 8 {
                let message = format!("{} cards of a bond: expected 1 to 8", uplink.members.len());
                faults.underlay(&field("members"), message);
            }
            if !(1..=10_000).contains(&bond.miimon_ms) {
                let message = format!("{}: expected 1 to 10000", bond.miimon_ms);
                faults.underlay(&field("bond.miimonMs"), message);
            }
        }
    }
    if !(NetworkSpec::MIN_MTU..=NetworkSpec::MAX_MTU).contains(&uplink.mtu) {
        let (least, most) = (NetworkSpec::MIN_MTU, NetworkSpec::MAX_MTU);
        faults.underlay(&field("mtu"), format!("{}: expected {least} to {most}", uplink.mtu));
    }
    check_lengths(&uplink.addresses, &field("addresses"), faults);
}

fn check_lengths(addresses: &[(IpAddr, u8)], field: &str, faults: &mut Faults) {
    for (at, (ip, length)) in addresses.iter().enumerate() {
        let bits = if ip.is_ipv4() { 32 } else { 128 };
        if !(1..=bits).contains(length) || ip.is_unspecified() || ip.is_multicast() {
            let message = format!("{ip}/{length}: expected an address and a length of 1 to {bits}");
            faults.underlay(&format!("{field}[{at}]"), message);
        }
        if addresses.iter().take(at).any(|(other, _)| other == ip) {
            faults.underlay(&format!("{field}[{at}]"), format!("{ip} is there twice"));
        }
    }
}

fn networks(desired: &Desired, id: &NetworkId, network: &Network, faults: &mut Faults) {
    if !desired.tenants.contains_key(&id.tenant) {
        faults.network(id, "tenant", format!("tenant {} has no number on this host", id.tenant));
    }
    let spec = NetworkSpec {
        vlan: None,
        vni: None,
        subnets: network.subnets.clone(),
        mtu: network.mtu,
        peers: network.peers.iter().cloned().collect(),
        egress: network.egress.clone(),
    };
    let (vlan, vni) = match network.segment {
        Segment::Vlan(vlan) => (Some(vlan), None),
        Segment::Vni(vni) => (None, Some(vni)),
    };
    if let Err((path, message)) = (NetworkSpec { vlan, vni, ..spec }).check() {
        faults.network(id, path.strip_prefix("spec.").unwrap_or(&path), message);
    }
    let underlay = &desired.underlay;
    let uplink = underlay.uplink.as_ref().map(|uplink| uplink.mtu);
    match network.segment {
        Segment::Vlan(vlan) => {
            match uplink {
                None => {
                    let message = format!("VLAN {vlan}: there is no uplink that carries it");
                    faults.network(id, "segment.vlan", message);
                }
                Some(most) if network.mtu > most => {
                    let message = format!("{}: above the uplink's {most}", network.mtu);
                    faults.network(id, "mtu", message);
                }
                Some(_) => {}
            }
            if underlay.vlans.iter().any(|host| host.vlan == vlan) {
                let message = format!("VLAN {vlan} is one of the host's own");
                faults.network(id, "segment.vlan", message);
            }
        }
        Segment::Vni(_) => {
            if let (Some(vxlan), Some(most)) = (&underlay.vxlan, uplink) {
                let most = most.saturating_sub(vxlan_overhead(vxlan.address));
                if network.mtu > most {
                    let message = format!(
                        "{}: above {most}, what the uplink leaves inside VXLAN over {}",
                        network.mtu,
                        if vxlan.address.is_ipv4() { "IPv4" } else { "IPv6" }
                    );
                    faults.network(id, "mtu", message);
                }
            }
        }
    }
}

/// Segments are a host's, addresses a tenant's: its networks are in one table.
fn pairs_of_networks(desired: &Desired, faults: &mut Faults) {
    let mut segments: BTreeMap<Segment, &NetworkId> = BTreeMap::new();
    let mut subnets: BTreeMap<_, Vec<(&NetworkId, &Subnet)>> = BTreeMap::new();
    for (id, network) in &desired.networks {
        if let Some(other) = segments.insert(network.segment, id) {
            faults.network(id, "segment", format!("{} is network {other}'s too", network.segment));
        }
        let earlier = subnets.entry(&id.tenant).or_default();
        for (at, subnet) in network.subnets.iter().enumerate() {
            let meets = |(other, theirs): &&(&NetworkId, &Subnet)| {
                *other != id && theirs.prefix.overlaps(subnet.prefix)
            };
            if let Some((other, theirs)) = earlier.iter().find(meets) {
                let message =
                    format!("{} overlaps {} of network {other}", subnet.prefix, theirs.prefix);
                faults.network(id, &format!("subnets[{at}].prefix"), message);
            }
        }
        earlier.extend(network.subnets.iter().map(|subnet| (id, subnet)));
    }
    for peering in desired.peerings() {
        peers(desired, peering.first, peering.second, faults);
    }
}

/// A peer's addresses must not be those of any network of the tenant, nor of another of its peers.
fn peers(desired: &Desired, first: &NetworkId, second: &NetworkId, faults: &mut Faults) {
    if first.tenant == second.tenant {
        let message = format!("{first} and {second} are of one tenant and need not be peers");
        faults.network(second, "peers", message);
        return;
    }
    for (ours, theirs) in [(first, second), (second, first)] {
        let Some(peer) = desired.networks.get(theirs) else { continue };
        for (id, network) in &desired.networks {
            let of_ours = id.tenant == ours.tenant;
            let other_peer = id < theirs
                && id.tenant != ours.tenant
                && desired.peerings().iter().any(|peering| {
                    let (a, b) = (peering.first, peering.second);
                    a == id && b.tenant == ours.tenant || b == id && a.tenant == ours.tenant
                });
            if !of_ours && !other_peer {
                continue;
            }
            for subnet in &network.subnets {
                let meets = |other: &&Subnet| other.prefix.overlaps(subnet.prefix);
                if let Some(other) = peer.subnets.iter().find(meets) {
                    let message = format!(
                        "{} of peer {theirs} overlaps {} of network {id}",
                        other.prefix, subnet.prefix
                    );
                    faults.network(ours, "peers", message);
                }
            }
        }
    }
}

fn ports(desired: &Desired, id: &PortId, port: &Port, faults: &mut Faults) {
    let spec = NetworkPort {
        network: id.network.clone(),
        kind: Some(port.kind),
        mac: Some(port.mac),
        addresses: port.addresses.clone(),
        min_mbps: (port.min_mbps != 0).then_some(port.min_mbps),
        max_mbps: (port.max_mbps != 0).then_some(port.max_mbps),
        qos: port.qos,
        trust: port.trust,
    };
    if let Err((path, message)) = spec.check() {
        faults.port(id, &path, message);
    }
    let network_id = id.network_id();
    let Some(network) = desired.networks.get(&network_id) else {
        faults.port(id, "network", format!("there is no network {network_id} on this host"));
        return;
    };
    if port.kind == PortKind::Vf && matches!(network.segment, Segment::Vni(_)) {
        let message = format!("a vf is in a VLAN of the switch; network {network_id} has a VNI");
        faults.port(id, "kind", message);
    }
    if port.mac == gateway_mac(&network_id) {
        faults.port(id, "mac", format!("{} is the address of the gateway", port.mac));
    }
    for (at, ip) in port.addresses.iter().enumerate() {
        let field = format!("addresses[{at}]");
        let Some(subnet) = network.subnets.iter().find(|subnet| subnet.prefix.contains(*ip)) else {
            faults.port(id, &field, format!("{ip} is in no subnet of network {network_id}"));
            continue;
        };
        let prefix = subnet.prefix;
        let roomy = prefix.bits() - prefix.length() > 1;
        let reserved = *ip == prefix.address() || prefix.bits() == 32 && *ip == prefix.last();
        if subnet.gateway == Some(*ip) {
            faults.port(id, &field, format!("{ip} is the gateway of {prefix}"));
        } else if roomy && reserved {
            faults.port(id, &field, format!("{ip} is no host's address in {prefix}"));
        }
        let holder = |(other, port): &(&PortId, &Port)| *other < id && port.addresses.contains(ip);
        if let Some((other, _)) = desired.ports_in(&network_id).find(holder) {
            faults.port(id, &field, format!("{ip} is the address of port {other} too"));
        }
    }
}

/// Names are made by hash, and two may meet; cards are named by people.
fn names(desired: &Desired, faults: &mut Faults) {
    let mut taken: BTreeMap<LinkName, String> = BTreeMap::new();
    for member in desired.underlay.uplink.iter().flat_map(|uplink| &uplink.members) {
        taken.insert(member.clone(), "a card of the uplink".to_owned());
    }
    for id in desired.networks.keys() {
        for role in [Role::Bridge, Role::Vxlan, Role::Vlan] {
            let name = LinkName::of_network(role, id);
            if let Some(other) = taken.insert(name.clone(), format!("network {id}")) {
                faults.network(id, "name", format!("link name {name} is that of {other} too"));
            }
        }
    }
    for tenant in desired.tenants.keys() {
        let name = LinkName::of_vrf(tenant);
        if let Some(other) = taken.insert(name.clone(), format!("tenant {tenant}")) {
            let message = format!("link name {name} is that of {other} too");
            faults.underlay(&format!("tenants[{tenant}]"), message);
        }
    }
    for id in desired.ports.keys() {
        for role in [Role::Port, Role::Peer] {
            let name = LinkName::of_port(role, id);
            if let Some(other) = taken.insert(name.clone(), format!("port {id}")) {
                faults.port(id, "name", format!("link name {name} is that of {other} too"));
            }
        }
    }
    debug_assert!(desired.tenants.values().all(|number| is_ours(number.group())));
}

#[cfg(test)]
mod tests;
