//! What a desired state and the host's access say wrong together, for the firewall.

use std::collections::BTreeMap;

use bulkhead_api::id::TenantName;
use bulkhead_api::network::{Egress, IpPrefix, NetworkId};

use super::access::Access;
use crate::model::{Desired, LinkName, PortId};

/// No firewall can be made of this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FirewallError {
    /// A tenant that nobody numbered has no zone and no group.
    #[error("network {0}: its tenant has no number on this host")]
    NoNumber(NetworkId),
    /// A port in no network.
    #[error("port {0}: its network is not on this host")]
    NoNetwork(PortId),
    /// Answers from outside could not be told apart: the address alone says whose they are.
    #[error(
        "egress of {first} ({first_prefix}) and of {second} ({second_prefix}): answers to both would have the same \
         addresses; give one tenant other subnets or no egress"
    )]
    SameReturn {
        /// One network.
        first: Box<NetworkId>,
        /// Its subnet.
        first_prefix: IpPrefix,
        /// A network of another tenant.
        second: Box<NetworkId>,
        /// Its subnet.
        second_prefix: IpPrefix,
    },
    /// nft's text would mean something else.
    #[error("link {0:?}: a firewall rule cannot name it, because of a quote, backslash, '*' at its end or '@' at its start")]
    LinkName(LinkName),
    /// Without a bound a service is no service with a rate.
    #[error("host service {0}: a rate of 0 packets a second lets nobody ask; take the service away instead")]
    NoRate(usize),
}

/// Whether a firewall can be made.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(desired: &Desired, access: &Access) -> Result<(), FirewallError> {
    for id in desired.networks.keys() {
        if !desired.tenants.contains_key(&id.tenant) {
            return Err(FirewallError::NoNumber(id.clone()));
        }
    }
    if let Some(id) = desired.ports.keys().find(|id| !desired.networks.contains_key(&id.network_id())) {
        return Err(FirewallError::NoNetwork(id.clone()));
    }
    for name in super::inet::uplinks(desired) {
        let text = name.as_str();
        if text.contains(['"', '\\']) || text.ends_with('*') || text.starts_with('@') {
            return Err(FirewallError::LinkName(name));
        }
    }
    let unlimited = |at: usize| access.services.get(at).is_some_and(|s| s.limit.packets_a_second == 0);
    if let Some(at) = (0..access.services.len()).find(|&at| unlimited(at)) {
        return Err(FirewallError::NoRate(at));
    }
    returns(desired)
}

/// Subnets with egress are of one tenant each.
fn returns(desired: &Desired) -> Result<(), FirewallError> {
    let mut by_start: BTreeMap<(IpPrefix, &TenantName), &NetworkId> = BTreeMap::new();
    for (id, network) in &desired.networks {
        if network.egress == Egress::Deny {
            continue;
        }
        for subnet in &network.subnets {
            by_start.insert((subnet.prefix, &id.tenant), id);
        }
    }
    // Prefixes nest or are apart: in the order of their starts, whoever overlaps one came since the last that holds it.
    let mut around: Vec<(IpPrefix, &NetworkId)> = Vec::new();
    for ((prefix, tenant), id) in by_start {
        while around.last().is_some_and(|(outer, _)| !outer.overlaps(prefix)) {
            around.pop();
        }
        if let Some((outer, other)) = around.iter().find(|(_, other)| other.tenant != *tenant) {
            return Err(FirewallError::SameReturn {
                first: Box::new((*other).clone()),
                first_prefix: *outer,
                second: Box::new(id.clone()),
                second_prefix: prefix,
            });
        }
        around.push((prefix, id));
    }
    Ok(())
}
