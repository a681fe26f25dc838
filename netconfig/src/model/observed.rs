//! The kernel's objects as they were read.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_api::id::MacAddr;
use serde::{Deserialize, Serialize};

use super::names::{LinkName, is_ours};
use super::target::{Address, BridgePort, LinkKind, Neighbour, Route, Rule};

/// What one network namespace has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Observed {
    /// Every link by its index, foreign ones too.
    pub links: BTreeMap<u32, ObservedLink>,
    /// Every address, foreign ones too; of IPv6 not those that the kernel made for the link alone.
    pub addresses: BTreeSet<Address>,
    /// Routes that are ours.
    pub routes: BTreeSet<Route>,
    /// Routes of others in tables of ours, and in the main table.
    pub foreign_routes: BTreeSet<Route>,
    /// Rules that are ours.
    pub rules: BTreeSet<Rule>,
    /// Rules of others.
    pub foreign_rules: BTreeSet<Rule>,
    /// Static entries on links that are ours, but for those a routing daemon made.
    pub neighbours: BTreeSet<Neighbour>,
    /// What could not be understood; nothing is known of these objects.
    pub unreadable: Vec<Unreadable>,
}

/// An object that could not be understood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unreadable {
    /// What it is: `link 7`, `route`.
    pub object: String,
    /// Why it could not be understood.
    pub reason: String,
}

/// A link as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObservedLink {
    /// Its number in this namespace.
    pub index: u32,
    /// Its name.
    pub name: LinkName,
    /// What it is.
    pub kind: ObservedKind,
    /// Whose it is.
    pub group: u32,
    /// Longest packet in bytes.
    pub mtu: u32,
    /// Its hardware address; absent where it has none of six octets.
    pub mac: Option<MacAddr>,
    /// What it is a port or member of.
    pub master: Option<Master>,
    /// The link that it is made on, of a VLAN or the like, and that takes it along when it is deleted.
    pub parent: Option<u32>,
    /// How its bridge treats it; absent where it is no bridge's port.
    pub port: Option<BridgePort>,
    /// Set up by somebody (`IFF_UP`).
    pub up: bool,
    /// It has a carrier (`IFF_LOWER_UP`).
    pub carrier: bool,
    /// The kernel makes IPv6 addresses for it when it is set up.
    pub makes_addresses: bool,
    /// Virtual functions of the card; empty where it has none.
    pub vfs: Vec<ObservedVf>,
}

/// What a link is a port or member of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Master {
    /// Its number.
    pub index: u32,
    /// Its name; absent where the link of that number could not be read.
    pub name: Option<LinkName>,
}

/// What a link is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ObservedKind {
    /// What we can make too. Of a veth whose other end is elsewhere, name and address of that are those it was made
    /// with as far as its own name and entries tell.
    Known(LinkKind),
    /// Something else, by the kernel's name, or of a kind that we make with properties that we never give.
    Other(String),
    /// A card, or anything else that nobody made (no link operations): it cannot be deleted.
    Device,
}

/// A virtual function as its card has it (`IFLA_VFINFO_LIST`); what the driver does not say is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObservedVf {
    /// Which of the card.
    pub number: u32,
    /// Its hardware address.
    pub mac: Option<MacAddr>,
    /// Its VLAN; absent = its frames are as it sends them.
    pub vlan: Option<VfVlan>,
    /// Mbit/s for certain; 0 = none.
    pub min_mbps: Option<u32>,
    /// Mbit/s at most; 0 = no bound.
    pub max_mbps: Option<u32>,
    /// Frames from other addresses are dropped.
    pub spoof_check: Option<bool>,
    /// May change its address and hear everything.
    pub trust: Option<bool>,
    /// Its link.
    pub link_state: Option<VfLinkState>,
    /// May ask for the card's hash key and table.
    pub rss_query: Option<bool>,
}

/// VLAN of a virtual function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VfVlan {
    /// Its number; not 0.
    pub vlan: u16,
    /// Priority.
    pub qos: u8,
    /// Ethernet type of the tag: 0x8100 (802.1Q) or 0x88a8 (802.1ad).
    pub protocol: u16,
}

/// Link of a virtual function (linux/if_link.h, `IFLA_VF_LINK_STATE_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum VfLinkState {
    /// As the card's own.
    Auto,
    /// Up whatever the card's own is.
    Enable,
    /// Down.
    Disable,
}

impl ObservedLink {
    /// Whether we made it.
    #[must_use]
    pub const fn is_ours(&self) -> bool {
        is_ours(self.group) && !matches!(self.kind, ObservedKind::Device)
    }

    /// What it is, where we can make such links.
    #[must_use]
    pub const fn known(&self) -> Option<&LinkKind> {
        match &self.kind {
            ObservedKind::Known(kind) => Some(kind),
            ObservedKind::Other(_) | ObservedKind::Device => None,
        }
    }
}

impl Observed {
    /// The link of a name.
    #[must_use]
    pub fn link(&self, name: &LinkName) -> Option<&ObservedLink> {
        self.links.values().find(|link| link.name == *name)
    }

    /// Links that we made.
    pub fn ours(&self) -> impl Iterator<Item = &ObservedLink> {
        self.links.values().filter(|link| link.is_ours())
    }
}
