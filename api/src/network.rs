//! A tenant's network, and a lease's port in it.
//!
//! What a value alone can say wrong is refused where it is read ([`VlanId`], [`Vni`], [`IpPrefix`]); what
//! two values say together is refused by [`NetworkSpec::check`] and [`NetworkPort::check`]; what two
//! networks of a host say together is refused by crate `netconfig`.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::document::ApiVersion;
use crate::id::{MacAddr, NetworkName, TenantName};

/// Why a value is not one of a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkValueError {
    /// 0 marks a frame without a VLAN and 4095 is reserved.
    #[error("VLAN {0}: expected 1 to 4094")]
    Vlan(u16),
    /// 24 bits, and 0 is no network.
    #[error("VNI {0}: expected 1 to 16777215")]
    Vni(u32),
    /// Not an address with a length.
    #[error("prefix {0:?}: expected an address and a length, such as 10.7.0.0/24 or fd00:7::/64")]
    Prefix(String),
    /// An address within the prefix and not the prefix.
    #[error("prefix {0:?}: has bits behind its length, expected {1}")]
    HostBits(String, IpPrefix),
}

/// A VLAN a frame can belong to: 1 to 4094.
///
/// "No VLAN" is `Option<VlanId>` and never a zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "schema", schema(value_type = u16))]
#[serde(try_from = "u16", into = "u16")]
pub struct VlanId(u16);

impl VlanId {
    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for VlanId {
    type Error = NetworkValueError;

    fn try_from(number: u16) -> Result<Self, NetworkValueError> {
        if (1..=4094).contains(&number) {
            Ok(Self(number))
        } else {
            Err(NetworkValueError::Vlan(number))
        }
    }
}

impl From<VlanId> for u16 {
    fn from(vlan: VlanId) -> u16 {
        vlan.0
    }
}

impl fmt::Display for VlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A VXLAN network identifier: 1 to 16777215 (24 bits, RFC 7348, 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "schema", schema(value_type = u32))]
#[serde(try_from = "u32", into = "u32")]
pub struct Vni(u32);

impl Vni {
    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Vni {
    type Error = NetworkValueError;

    fn try_from(number: u32) -> Result<Self, NetworkValueError> {
        if (1..1 << 24).contains(&number) {
            Ok(Self(number))
        } else {
            Err(NetworkValueError::Vni(number))
        }
    }
}

impl From<Vni> for u32 {
    fn from(vni: Vni) -> u32 {
        vni.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A set of addresses that begin alike: `10.7.0.0/24`, `fd00:7::/64`. No bit behind the length is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "schema", schema(value_type = String))]
#[serde(try_from = "String", into = "String")]
pub struct IpPrefix(Prefix);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Prefix {
    address: IpAddr,
    length: u8,
}

impl IpPrefix {
    /// Every IPv4 address.
    pub const ALL_V4: Self = Self::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
    /// Every IPv6 address.
    pub const ALL_V6: Self = Self::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

    const fn new(address: IpAddr, length: u8) -> Self {
        Self(Prefix { address, length })
    }

    /// The prefix of this length that an address is in; a length above the family's counts as all its bits.
    #[must_use]
    pub fn around(address: IpAddr, length: u8) -> Self {
        match address {
            IpAddr::V4(v4) => {
                let length = length.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                Self::new(IpAddr::V4(Ipv4Addr::from(u32::from(v4) & mask)), length)
            }
            IpAddr::V6(v6) => {
                let length = length.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                Self::new(IpAddr::V6(Ipv6Addr::from(u128::from(v6) & mask)), length)
            }
        }
    }

    /// Its first address.
    #[must_use]
    pub const fn address(self) -> IpAddr {
        self.0.address
    }

    /// How many bits its addresses have in common.
    #[must_use]
    pub const fn length(self) -> u8 {
        self.0.length
    }

    /// Bits of an address of its family: 32 or 128.
    #[must_use]
    pub const fn bits(self) -> u8 {
        if self.0.address.is_ipv4() { 32 } else { 128 }
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.0.address.is_ipv4()
            && Self::around(address, self.0.length) == self
    }

    /// Whether an address is in both.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.0.address) || other.contains(self.0.address)
    }

    /// Its last address: of IPv4 the broadcast address.
    #[must_use]
    pub fn last(self) -> IpAddr {
        match self.0.address {
            IpAddr::V4(v4) => {
                let host = u32::MAX.checked_shr(u32::from(self.0.length)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from(u32::from(v4) | host))
            }
            IpAddr::V6(v6) => {
                let host = u128::MAX.checked_shr(u32::from(self.0.length)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from(u128::from(v6) | host))
            }
        }
    }
}

impl FromStr for IpPrefix {
    type Err = NetworkValueError;

    fn from_str(text: &str) -> Result<Self, NetworkValueError> {
        let bad = || NetworkValueError::Prefix(text.to_owned());
        let (address, length) = text.split_once('/').ok_or_else(bad)?;
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        if !length.bytes().all(|c| c.is_ascii_digit()) {
            return Err(bad());
        }
        let length: u8 = length.parse().map_err(|_| bad())?;
        if length > if address.is_ipv4() { 32 } else { 128 } {
            return Err(bad());
        }
        let prefix = Self::around(address, length);
        if prefix.0.address == address {
            Ok(prefix)
        } else {
            Err(NetworkValueError::HostBits(text.to_owned(), prefix))
        }
    }
}

impl TryFrom<String> for IpPrefix {
    type Error = NetworkValueError;

    fn try_from(text: String) -> Result<Self, NetworkValueError> {
        text.parse()
    }
}

impl From<IpPrefix> for String {
    fn from(prefix: IpPrefix) -> String {
        prefix.to_string()
    }
}

impl fmt::Display for IpPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.0.address, self.0.length))
    }
}

/// A tenant's network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Network {
    /// `bulkhead.io/v1`.
    pub api_version: ApiVersion,
    /// Name and tenant.
    pub metadata: NetworkMetadata,
    /// What it is.
    pub spec: NetworkSpec,
}

/// Name of a network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkMetadata {
    /// Unique within the tenant.
    pub name: NetworkName,
    /// Whose it is.
    pub tenant: TenantName,
}

/// A network of some tenant: `tenant/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkId {
    /// Whose it is.
    pub tenant: TenantName,
    /// Which of the tenant's networks.
    pub name: NetworkName,
}

impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.name)
    }
}

/// What a network is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkSpec {
    /// VLAN of the site's switches that its frames have; absent = it is a VXLAN network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<VlanId>,
    /// VXLAN network identifier; absent = it is a VLAN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vni: Option<Vni>,
    /// Its addresses, at most 8 prefixes of both families; empty = none that hosts know of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subnets: Vec<Subnet>,
    /// Longest packet in bytes: 1280 to 9216.
    #[serde(default = "default_mtu")]
    pub mtu: u16,
    /// Networks of other tenants that it may reach and that may reach it, where those say the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<NetworkId>,
    /// Whither it may go besides its own tenant and its peers.
    #[serde(default)]
    pub egress: Egress,
}

/// What fits an Ethernet of 1500 with the 50 bytes of VXLAN over IPv4 taken off (RFC 7348, 4.3).
const fn default_mtu() -> u16 {
    1450
}

/// Addresses of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Subnet {
    /// All of them.
    pub prefix: IpPrefix,
    /// The one that every host answers for and that routes; absent = nothing is routed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub gateway: Option<IpAddr>,
}

/// Whither a network may go besides its own tenant and its peers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum Egress {
    /// Nowhere.
    #[default]
    Deny,
    /// Everywhere but the host, the site's own networks and other tenants.
    All,
    /// To these prefixes.
    To(Vec<IpPrefix>),
}

impl NetworkSpec {
    /// Most subnets of one network.
    pub const MOST_SUBNETS: usize = 8;
    /// Most prefixes of its egress, and most peers.
    pub const MOST_PEERS: usize = 256;
    /// What IPv6 needs of every link (RFC 8200, 5).
    pub const MIN_MTU: u16 = 1280;
    /// The longest that the site's switches forward.
    pub const MAX_MTU: u16 = 9216;

    /// The first field that contradicts another or is out of range.
    ///
    /// # Errors
    /// The field's path and a sentence.
    pub fn check(&self) -> Result<(), (String, String)> {
        match (self.vlan, self.vni) {
            (Some(_), Some(_)) => {
                let message =
                    "a network is a VLAN or has a VNI, not both: drop spec.vlan or spec.vni";
                return Err(("spec.vni".to_owned(), message.to_owned()));
            }
            (None, None) => {
                let message = "neither spec.vlan nor spec.vni: expected one of them";
                return Err(("spec.vni".to_owned(), message.to_owned()));
            }
            (Some(_), None) | (None, Some(_)) => {}
        }
        if !(Self::MIN_MTU..=Self::MAX_MTU).contains(&self.mtu) {
            let message = format!("{}: expected {} to {}", self.mtu, Self::MIN_MTU, Self::MAX_MTU);
            return Err(("spec.mtu".to_owned(), message));
        }
        self.check_subnets()?;
        at_most("spec.peers", "peers", self.peers.len(), Self::MOST_PEERS)?;
        let mut peers = BTreeSet::new();
        for (at, peer) in self.peers.iter().enumerate() {
            if !peers.insert(peer) {
                return Err((format!("spec.peers[{at}]"), format!("{peer} is there twice")));
            }
        }
        if let Egress::To(prefixes) = &self.egress {
            at_most("spec.egress.to", "prefixes", prefixes.len(), Self::MOST_PEERS)?;
            if prefixes.is_empty() {
                let message = "no prefix: expected one or more, or the word deny".to_owned();
                return Err(("spec.egress.to".to_owned(), message));
            }
        }
        Ok(())
    }

    fn check_subnets(&self) -> Result<(), (String, String)> {
        at_most("spec.subnets", "subnets", self.subnets.len(), Self::MOST_SUBNETS)?;
        for (at, subnet) in self.subnets.iter().enumerate() {
            let field = |name: &str| format!("spec.subnets[{at}].{name}");
            let prefix = subnet.prefix;
            let first = prefix.address();
            let special = first.is_loopback() || first.is_multicast();
            let link_local = match first {
                IpAddr::V4(v4) => v4.is_link_local(),
                IpAddr::V6(v6) => v6.is_unicast_link_local(),
            };
            if prefix.length() < 8 || special || link_local {
                let message = format!(
                    "{prefix}: expected unicast addresses, none link-local, of a length of 8 or more"
                );
                return Err((field("prefix"), message));
            }
            let earlier = self.subnets.iter().take(at).find(|other| other.prefix.overlaps(prefix));
            if let Some(other) = earlier {
                return Err((field("prefix"), format!("{prefix} overlaps {}", other.prefix)));
            }
            let Some(gateway) = subnet.gateway else { continue };
            if !prefix.contains(gateway) {
                return Err((field("gateway"), format!("{gateway} is not in {prefix}")));
            }
            // A /31, /32, /127 or /128 has no address that means the subnet itself (RFC 3021, RFC 6164).
            let roomy = prefix.bits() - prefix.length() > 1;
            if roomy && gateway == first {
                return Err((
                    field("gateway"),
                    format!("{gateway} is the address of {prefix} itself"),
                ));
            }
            if roomy && prefix.bits() == 32 && gateway == prefix.last() {
                return Err((
                    field("gateway"),
                    format!("{gateway} is the broadcast address of {prefix}"),
                ));
            }
        }
        Ok(())
    }
}

fn at_most(field: &str, what: &str, count: usize, most: usize) -> Result<(), (String, String)> {
    if count > most {
        return Err((field.to_owned(), format!("{count} {what}: expected at most {most}")));
    }
    Ok(())
}

/// A lease's port in a network of its tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkPort {
    /// Which network of the tenant.
    pub network: NetworkName,
    /// By what; absent = `veth` of a container, `tap` of a virtual machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<PortKind>,
    /// Its hardware address; absent = one made from the names of lease and network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// Its addresses, at most 16; none other leaves it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub addresses: Vec<IpAddr>,
    /// Mbit/s that it has for certain; absent = none. Of a `vf` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_mbps: Option<u32>,
    /// Mbit/s that it has at most; absent = no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_mbps: Option<u32>,
    /// Priority of its frames on the site's switches, 0 to 7.
    #[serde(default)]
    pub qos: u8,
    /// It may set its own hardware address and hear what is not for it; of a `vf` only.
    #[serde(default)]
    pub trust: bool,
}

/// By what a lease is in a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum PortKind {
    /// A pair of virtual Ethernets, one end in the container.
    Veth,
    /// A tap that a virtual machine's emulator opens.
    Tap,
    /// A virtual function of a network card.
    Vf,
}

impl NetworkPort {
    /// Most addresses of one port.
    pub const MOST_ADDRESSES: usize = 16;
    /// 10 Tbit/s: more than a card has, less than what overflows bytes a second.
    pub const MAX_MBPS: u32 = 10_000_000;

    /// The first field that contradicts another or is out of range.
    ///
    /// # Errors
    /// The field's name within the port and a sentence.
    pub fn check(&self) -> Result<(), (String, String)> {
        let fail = |field: &str, message: String| Err((field.to_owned(), message));
        let vf = self.kind == Some(PortKind::Vf);
        at_most("addresses", "addresses", self.addresses.len(), Self::MOST_ADDRESSES)?;
        let mut addresses = BTreeSet::new();
        for (at, address) in self.addresses.iter().enumerate() {
            if !addresses.insert(address) {
                return fail(&format!("addresses[{at}]"), format!("{address} is there twice"));
            }
        }
        if let Some(mac) = self.mac {
            let first = mac.octets()[0];
            if first & 1 != 0 || mac.octets() == [0; 6] {
                return fail("mac", format!("{mac}: expected the address of one station"));
            }
        }
        for (field, rate) in [("minMbps", self.min_mbps), ("maxMbps", self.max_mbps)] {
            if let Some(rate) = rate
                && !(1..=Self::MAX_MBPS).contains(&rate)
            {
                return fail(field, format!("{rate}: expected 1 to {}", Self::MAX_MBPS));
            }
        }
        if let (Some(least), Some(most)) = (self.min_mbps, self.max_mbps)
            && least > most
        {
            return fail("minMbps", format!("{least}: above maxMbps, {most}"));
        }
        if self.min_mbps.is_some() && !vf {
            return fail("minMbps", "a rate is kept for a vf only".to_owned());
        }
        if self.trust && !vf {
            return fail("trust", "only a vf can be trusted".to_owned());
        }
        if self.qos > 7 {
            return fail("qos", format!("{}: expected 0 to 7", self.qos));
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;
