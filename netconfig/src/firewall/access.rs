//! What the host itself offers and keeps closed.

use std::collections::BTreeSet;
use std::net::IpAddr;

use bulkhead_api::network::IpPrefix;

use super::ruleset::Limit;

/// What the host offers to tenants and to its site, and what it keeps closed to tenants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Offered to every tenant, at the gateways of its networks and at the addresses named.
    pub services: Vec<HostService>,
    /// Offered to others of the site, by the uplink and the host's own VLANs.
    pub uplink_services: Vec<UplinkService>,
    /// Other ends of VXLANs, besides those that the underlay names: needed where a routing daemon finds them.
    pub tunnel_ends: Vec<IpPrefix>,
    /// Prefixes that no tenant's egress reaches: management, storage, front-haul, other sites.
    pub closed: Vec<IpPrefix>,
    /// Whether tenants have VRFs: then the host sees their packets come in by these, too.
    pub vrfs: bool,
}

/// Something that the host offers to tenants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostService {
    /// By what packets it is asked.
    pub traffic: Traffic,
    /// Where besides the gateways: a metadata address, or 255.255.255.255 for DHCP.
    pub addresses: BTreeSet<IpAddr>,
    /// How often one tenant may ask, counted by address family.
    pub limit: Limit,
}

/// Something that the host offers to its site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UplinkService {
    /// By what packets it is asked.
    pub traffic: Traffic,
    /// By whom; nobody where it is empty.
    pub from: Vec<IpPrefix>,
}

/// Packets by which something is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Traffic {
    /// To a UDP port.
    Udp(u16),
    /// To a TCP port.
    Tcp(u16),
    /// ICMP and ICMPv6 echo requests.
    Echo,
}
