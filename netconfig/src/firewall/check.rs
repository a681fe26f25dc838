//! What a desired state and the host's access say wrong together, for the firewall.
//!
//! What is wrong is left out, so that nobody gets more by it and everybody else gets theirs.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bulkhead_api::network::{Egress, IpPrefix, NetworkId};

use super::access::Access;
use crate::model::{Desired, LinkName, PortId};

/// Something that the firewall leaves out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A tenant that nobody numbered has no zone and no group: the network passes nothing.
    #[error("network {0}: its tenant has no number on this host")]
    NoNumber(NetworkId),
    /// A port in no network passes nothing.
    #[error("port {0}: its network is not on this host")]
    NoNetwork(PortId),
    /// Answers from outside could not be told apart, as the address alone says whose they are: the second has no egress.
    #[error(
        "egress of {second} ({second_prefix}): answers would have the same addresses as those to {first} \
         ({first_prefix})"
    )]
    SameReturn {
        /// The network that keeps its egress: its tenant has the lower number.
        first: Box<NetworkId>,
        /// Its subnet.
        first_prefix: IpPrefix,
        /// The network that has none.
        second: Box<NetworkId>,
        /// Its subnet.
        second_prefix: IpPrefix,
    },
    /// nft's text would mean something else: nothing passes by the link.
    #[error(
        "link {0:?}: a firewall rule cannot name it, because of a quote, backslash, '*' or '@'"
    )]
    LinkName(LinkName),
    /// A rate of 0 lets nobody ask: the service is not offered.
    #[error("host service {0}: a rate of 0 packets a second")]
    NoRate(usize),
}

/// A state without what is refused, and what that is.
pub(super) struct Checked<'a> {
    pub(super) desired: Cow<'a, Desired>,
    pub(super) access: Cow<'a, Access>,
    pub(super) refused: Vec<Refusal>,
}

/// Takes out of a state what no firewall can be made of.
pub(super) fn check<'a>(desired: &'a Desired, access: &'a Access) -> Checked<'a> {
    let mut refused = Vec::new();
    let (mut desired, mut access) = (Cow::Borrowed(desired), Cow::Borrowed(access));
    let nameless = desired.networks.keys().filter(|id| !desired.tenants.contains_key(&id.tenant));
    refused.extend(nameless.cloned().map(Refusal::NoNumber));
    let lost = desired.ports.keys().filter(|id| !desired.networks.contains_key(&id.network_id()));
    refused.extend(lost.cloned().map(Refusal::NoNetwork));
    let odd = super::inet::uplinks(&desired).into_iter().filter(|name| is_odd(name.as_str()));
    refused.extend(odd.map(Refusal::LinkName));
    let rates = access.services.iter().enumerate();
    let rates = rates.filter(|(_, service)| service.limit.packets_a_second == 0);
    refused.extend(rates.map(|(at, _)| Refusal::NoRate(at)));
    refused.extend(returns(&desired));
    for refusal in &refused {
        match refusal {
            Refusal::NoNumber(id) => drop(desired.to_mut().networks.remove(id)),
            Refusal::NoNetwork(id) => drop(desired.to_mut().ports.remove(id)),
            Refusal::SameReturn { second, .. } => {
                if let Some(network) = desired.to_mut().networks.get_mut(&**second) {
                    network.egress = Egress::Deny;
                }
            }
            Refusal::LinkName(_) => desired.to_mut().underlay.uplink = None,
            Refusal::NoRate(_) => {
                access.to_mut().services.retain(|service| service.limit.packets_a_second > 0);
            }
        }
    }
    Checked { desired, access, refused }
}

fn is_odd(name: &str) -> bool {
    name.contains(['"', '\\', '*']) || name.starts_with('@')
}

/// Networks whose answers could be another tenant's.
fn returns(desired: &Desired) -> Vec<Refusal> {
    let mut open: Vec<(IpPrefix, u16, &NetworkId)> = Vec::new();
    for (id, network) in desired.networks.iter().filter(|(_, net)| net.egress != Egress::Deny) {
        let number = desired.tenants.get(&id.tenant).map_or(u16::MAX, |number| number.get());
        open.extend(network.subnets.iter().map(|subnet| (subnet.prefix, number, id)));
    }
    open.sort();
    // Prefixes nest or are apart: in the order of their starts, those around one came since the last that ended.
    let mut around: Vec<(IpPrefix, u16, &NetworkId)> = Vec::new();
    let mut refused: BTreeMap<&NetworkId, Refusal> = BTreeMap::new();
    for own in open {
        while around.last().is_some_and(|outer| !outer.0.overlaps(own.0)) {
            around.pop();
        }
        for outer in around.iter().filter(|outer| outer.2.tenant != own.2.tenant) {
            let (first, second) = if outer.1 <= own.1 { (outer, &own) } else { (&own, outer) };
            refused.entry(second.2).or_insert_with(|| Refusal::SameReturn {
                first: Box::new(first.2.clone()),
                first_prefix: first.0,
                second: Box::new(second.2.clone()),
                second_prefix: second.0,
            });
        }
        around.push(own);
    }
    refused.into_values().collect()
}
