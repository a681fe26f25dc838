//! What a host's network should be, in the words of its spec.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use bulkhead_api::id::{LeaseId, MacAddr, NetworkName, TenantName};
use bulkhead_api::network::{Egress, IpPrefix, NetworkId, PortKind, Subnet, VlanId, Vni};
use serde::{Deserialize, Serialize};

use super::names::{GROUP_BASE, LinkName, Role};

/// A tenant's number on this host, 1 to 65534 less the reserved last: group, table, mark and conntrack zone come of
/// it.
///
/// The host's ledger gives it when the tenant comes and keeps it until everything of the tenant is gone; no two
/// tenants have the same at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct TenantNumber(u16);

/// Why a number is no tenant's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("tenant number {0}: expected 1 to 65534")]
pub struct TenantNumberError(u16);

impl TenantNumber {
    /// The number itself: conntrack zone and packet mark.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Group of the tenant's links.
    #[must_use]
    pub const fn group(self) -> u32 {
        GROUP_BASE + self.0 as u32
    }

    /// Routing table of the tenant: the same number as its group.
    #[must_use]
    pub const fn table(self) -> u32 {
        self.group()
    }
}

impl TryFrom<u16> for TenantNumber {
    type Error = TenantNumberError;

    fn try_from(number: u16) -> Result<Self, TenantNumberError> {
        if (1..=65_534).contains(&number) {
            Ok(Self(number))
        } else {
            Err(TenantNumberError(number))
        }
    }
}

impl From<TenantNumber> for u16 {
    fn from(number: TenantNumber) -> u16 {
        number.0
    }
}

impl fmt::Display for TenantNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What a host's network should be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Desired {
    /// Number of every tenant that has a network here.
    pub tenants: BTreeMap<TenantName, TenantNumber>,
    /// What the tenants' networks run over.
    pub underlay: Underlay,
    /// Networks with a port here, and those that must be here for another reason.
    #[serde(with = "pairs")]
    pub networks: BTreeMap<NetworkId, Network>,
    /// Ports of leases.
    #[serde(with = "pairs")]
    pub ports: BTreeMap<PortId, Port>,
}

/// JSON has no maps with structured keys: a list of pairs.
mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<K: Serialize, V: Serialize, S: Serializer>(
        map: &BTreeMap<K, V>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(map)
    }

    pub(super) fn deserialize<'de, K, V, D>(from: D) -> Result<BTreeMap<K, V>, D::Error>
    where
        K: Deserialize<'de> + Ord,
        V: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        Vec::<(K, V)>::deserialize(from).map(|pairs| pairs.into_iter().collect())
    }
}

/// What tenants' networks run over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Underlay {
    /// The way out of the host; absent = none, then networks are of this host only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink: Option<Uplink>,
    /// VXLAN; absent = networks with a VNI are of this host only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vxlan: Option<Vxlan>,
    /// VLANs of the host itself: storage, front-haul, management.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vlans: Vec<HostVlan>,
}

/// The way out of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Uplink {
    /// Cards: one, or the members of `bond`. They are the host's: nothing of them is changed but master, MTU (upwards) and
    /// "up".
    pub members: Vec<LinkName>,
    /// How they are joined; absent = there is one member and it is the uplink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bond: Option<Bond>,
    /// Longest packet of the cards in bytes.
    pub mtu: u16,
    /// Addresses of the bond with their prefix length; empty where the uplink is one card, whose addresses are the
    /// host's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<(IpAddr, u8)>,
}

impl Uplink {
    /// The link that networks run over; absent where nothing is joined and there is no member.
    #[must_use]
    pub fn link(&self) -> Option<LinkName> {
        match self.bond {
            Some(_) => Some(LinkName::of_host(Role::Bond, 0)),
            None => self.members.first().cloned(),
        }
    }
}

/// How the uplink's cards are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bond {
    /// How.
    pub mode: BondMode,
    /// Milliseconds between looks at the members' carrier, above 0.
    pub miimon_ms: u32,
}

/// Modes of a bond that a host can run without the switch being set up by hand, and LACP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BondMode {
    /// One member carries, the others wait (mode 1).
    ActiveBackup,
    /// LACP, IEEE 802.1AX (mode 4), short timeout, hashed over addresses and ports.
    Lacp,
}

/// VXLAN over the underlay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Vxlan {
    /// This host's end of the tunnels.
    pub address: IpAddr,
    /// UDP port, 4789 (RFC 7348, 5).
    pub port: u16,
    /// The other ends, where no routing daemon says them; empty under EVPN.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub remotes: BTreeSet<IpAddr>,
}

/// A VLAN of the host itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostVlan {
    /// Its VLAN.
    pub vlan: VlanId,
    /// Longest packet in bytes.
    pub mtu: u16,
    /// This host's addresses in it with their prefix length.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<(IpAddr, u8)>,
}

/// By what frames of a network are told from others outside the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Segment {
    /// A VLAN of the site's switches.
    Vlan(VlanId),
    /// A VXLAN network.
    Vni(Vni),
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vlan(vlan) => write!(f, "VLAN {vlan}"),
            Self::Vni(vni) => write!(f, "VNI {vni}"),
        }
    }
}

/// A network of a tenant on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Network {
    /// By what it is told from others.
    pub segment: Segment,
    /// Its addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subnets: Vec<Subnet>,
    /// Longest packet in bytes.
    pub mtu: u16,
    /// Whether ports of this host in it may talk with each other; else only with its gateway and other hosts.
    #[serde(default)]
    pub ports_talk: bool,
    /// Networks of others that it names as peers; see [`Desired::peerings`].
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub peers: BTreeSet<NetworkId>,
    /// Whither it may go besides its own tenant and its peers.
    #[serde(default)]
    pub egress: Egress,
}

impl Network {
    /// Every gateway with the length of its prefix.
    pub fn gateways(&self) -> impl Iterator<Item = (IpAddr, IpPrefix)> + '_ {
        self.subnets.iter().filter_map(|subnet| Some((subnet.gateway?, subnet.prefix)))
    }
}

/// A port of a lease: there is at most one in each network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortId {
    /// Whose.
    pub lease: LeaseId,
    /// In which network of the lease's tenant.
    pub network: NetworkName,
}

impl PortId {
    /// The network that it is in.
    #[must_use]
    pub fn network_id(&self) -> NetworkId {
        NetworkId { tenant: self.lease.tenant.clone(), name: self.network.clone() }
    }
}

impl fmt::Display for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.lease, self.network)
    }
}

/// What a port should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Port {
    /// By what. A [`PortKind::Vf`] has no link here: crate module `sriov` looks after it.
    pub kind: PortKind,
    /// The tenant's hardware address; frames from others are dropped.
    pub mac: MacAddr,
    /// The tenant's addresses; packets from others are dropped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// Mbit/s for certain; 0 = none.
    #[serde(default)]
    pub min_mbps: u32,
    /// Mbit/s at most; 0 = no bound.
    #[serde(default)]
    pub max_mbps: u32,
    /// 802.1p priority, 0 to 7.
    #[serde(default)]
    pub qos: u8,
    /// Of a VF: may change its hardware address and hear everything.
    #[serde(default)]
    pub trust: bool,
}

/// Two networks that name each other as peers; `first` sorts before `second`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peering<'a> {
    /// One.
    pub first: &'a NetworkId,
    /// The other.
    pub second: &'a NetworkId,
}

impl Desired {
    /// Pairs of networks that are here and that both name the other: one side's word is no peering.
    #[must_use]
    pub fn peerings(&self) -> BTreeSet<Peering<'_>> {
        let mut found = BTreeSet::new();
        for (id, network) in &self.networks {
            for peer in &network.peers {
                let Some((peer, other)) = self.networks.get_key_value(peer) else { continue };
                if id < peer && other.peers.contains(id) {
                    found.insert(Peering { first: id, second: peer });
                }
            }
        }
        found
    }

    /// Ports in a network.
    pub fn ports_in<'a>(
        &'a self,
        network: &'a NetworkId,
    ) -> impl Iterator<Item = (&'a PortId, &'a Port)> + 'a {
        self.ports
            .iter()
            .filter(move |(id, _)| id.network == network.name && id.lease.tenant == network.tenant)
    }
}
