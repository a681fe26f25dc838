//! The kernel's objects that come of the desired state.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use bulkhead_api::id::MacAddr;
use bulkhead_api::network::{IpPrefix, VlanId, Vni};
use serde::{Deserialize, Serialize};

use super::desired::BondMode;
use super::names::LinkName;

/// Everything that should be ours in the kernel, and nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Links that we make.
    pub links: BTreeMap<LinkName, TargetLink>,
    /// Links of the host that we only use: bond members and the single uplink. At least this MTU, up, and this master.
    pub used: BTreeMap<LinkName, UsedLink>,
    /// Addresses on links of ours.
    pub addresses: BTreeSet<Address>,
    /// Routes in tables of ours.
    pub routes: BTreeSet<Route>,
    /// Rules that lead to tables of ours.
    pub rules: BTreeSet<Rule>,
    /// Static entries on links of ours.
    pub neighbours: BTreeSet<Neighbour>,
}

/// A link that we make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetLink {
    /// What it is.
    pub kind: LinkKind,
    /// Whose it is.
    pub group: u32,
    /// Longest packet in bytes; absent = as the kernel chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Its hardware address; absent = as the kernel chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// What it is a port or member of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<LinkName>,
    /// How its bridge treats it; absent where it is no bridge's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<BridgePort>,
}

/// A link of the host that we only use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsedLink {
    /// At least this; absent = as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_mtu: Option<u32>,
    /// Our bond that it is a member of; absent = its master is the host's affair, unless that is a link of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<LinkName>,
}

/// What a link of ours is. A change of any field makes another link of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "is")]
pub enum LinkKind {
    /// A bridge without VLANs: one network.
    Bridge,
    /// A VXLAN that learns nothing.
    Vxlan {
        /// Its network.
        vni: Vni,
        /// This host's end.
        local: IpAddr,
        /// UDP port.
        port: u16,
    },
    /// A VLAN of another link.
    Vlan {
        /// That link.
        parent: LinkName,
        /// The VLAN.
        vlan: VlanId,
    },
    /// A routing domain.
    Vrf {
        /// Its table.
        table: u32,
    },
    /// One end of a pair. The other goes into the tenant's namespace and is looked at once, when the pair is made.
    Veth {
        /// Name of the other end as it is made.
        peer: LinkName,
        /// Hardware address of the other end; absent where a look at this end does not tell.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        peer_mac: Option<MacAddr>,
    },
    /// A tap for an emulator.
    Tap,
    /// Cards that are one.
    Bond {
        /// How.
        mode: BondMode,
        /// Milliseconds between looks at carriers.
        miimon_ms: u32,
    },
}

impl LinkKind {
    /// Whether a look at a link of the kind `self` fits what was wanted: what a look does not tell is not compared.
    #[must_use]
    pub fn fits(&self, wanted: &Self) -> bool {
        match (self, wanted) {
            (Self::Veth { peer, peer_mac }, Self::Veth { peer: name, peer_mac: mac }) => {
                peer == name && (peer_mac.is_none() || peer_mac == mac)
            }
            _ => self == wanted,
        }
    }

    /// The kernel's name of the kind (`IFLA_INFO_KIND`).
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Vxlan { .. } => "vxlan",
            Self::Vlan { .. } => "vlan",
            Self::Vrf { .. } => "vrf",
            Self::Veth { .. } => "veth",
            Self::Tap => "tun",
            Self::Bond { .. } => "bond",
        }
    }
}

/// How a bridge treats a port (linux/if_link.h, `IFLA_BRPORT_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "the kernel's own switches, one by one")]
pub struct BridgePort {
    /// It exchanges frames with ports that are not isolated only.
    pub isolated: bool,
    /// Frames from addresses that no entry names for it are dropped.
    pub locked: bool,
    /// The bridge learns from its frames.
    pub learning: bool,
    /// Frames to unknown addresses go to it.
    pub flood: bool,
    /// ARP and neighbour requests that the bridge can answer do not go to it.
    pub neigh_suppress: bool,
}

impl BridgePort {
    /// What the kernel gives a new port.
    pub const NEW: Self =
        Self { isolated: false, locked: false, learning: true, flood: true, neigh_suppress: false };
}

/// An address on a link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Address {
    /// The link.
    pub link: LinkName,
    /// The address.
    pub ip: IpAddr,
    /// Length of its prefix.
    pub length: u8,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "address {}/{} on {}", self.ip, self.length, self.link)
    }
}

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Of an address.
    #[must_use]
    pub const fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// Table that it is in.
    pub table: u32,
    /// Whither.
    pub prefix: IpPrefix,
    /// The lowest wins among routes of one prefix; above 0.
    pub metric: u32,
    /// What becomes of such packets.
    pub kind: RouteKind,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "route to {} in table {} metric {}: ", self.prefix, self.table, self.metric)?;
        match &self.kind {
            RouteKind::Link { link, via: None } => write!(f, "on {link}"),
            RouteKind::Link { link, via: Some(via) } => write!(f, "by {via} on {link}"),
            RouteKind::Unreachable => f.write_str("unreachable"),
            RouteKind::Throw => f.write_str("next table"),
        }
    }
}

/// What becomes of packets that a route fits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum RouteKind {
    /// They leave by a link.
    Link {
        /// The link.
        link: LinkName,
        /// The next router; absent = the destination itself is on the link.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        via: Option<IpAddr>,
    },
    /// They are refused.
    Unreachable,
    /// The next rule decides.
    Throw,
}

/// A rule: which table decides for a packet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// The lowest is asked first.
    pub priority: u32,
    /// Of which packets.
    pub family: Family,
    /// Of which of them.
    pub selector: Selector,
    /// The table that is asked.
    pub table: u32,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { priority, family, selector, table } = self;
        write!(f, "{family} rule {priority}: {selector} to table {table}")
    }
}

/// Which packets a rule is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Selector {
    /// Those that came in by a link.
    Iif(LinkName),
    /// Those with a mark.
    Mark(u32),
    /// All, or something that we never make.
    Other,
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Iif(link) => write!(f, "from link {link}"),
            Self::Mark(mark) => write!(f, "with mark {mark}"),
            Self::Other => f.write_str("other packets"),
        }
    }
}

/// A static entry of a link's neighbour table or forwarding database.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "is")]
pub enum Neighbour {
    /// A station behind a port of a bridge.
    Station {
        /// The port.
        link: LinkName,
        /// The station.
        mac: MacAddr,
    },
    /// Another end of a VXLAN that frames for many, and for unknown stations, go to.
    Remote {
        /// The VXLAN.
        link: LinkName,
        /// The other end.
        remote: IpAddr,
    },
    /// Hardware address of a station on a link.
    Address {
        /// The link.
        link: LinkName,
        /// Its address.
        ip: IpAddr,
        /// Its hardware address.
        mac: MacAddr,
    },
}

impl Neighbour {
    /// The link that it is an entry of.
    #[must_use]
    pub const fn link(&self) -> &LinkName {
        match self {
            Self::Station { link, .. } | Self::Remote { link, .. } | Self::Address { link, .. } => {
                link
            }
        }
    }
}

impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Station { link, mac } => write!(f, "station {mac} behind {link}"),
            Self::Remote { link, remote } => write!(f, "remote end {remote} of {link}"),
            Self::Address { link, ip, mac } => write!(f, "neighbour {ip} at {mac} on {link}"),
        }
    }
}
