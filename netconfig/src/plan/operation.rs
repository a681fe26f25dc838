//! One change of the kernel's state.

use std::fmt;

use bulkhead_api::id::MacAddr;

use crate::model::{Address, BridgePort, LinkKind, LinkName, Neighbour, Route, Rule};

/// A link, by the number that the kernel wants and the name that people read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkRef {
    /// Its number; of a link that does not exist yet, the number it is made with.
    pub index: u32,
    /// Its name.
    pub name: LinkName,
}

impl fmt::Display for LinkRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.index)
    }
}

/// A link to be made. It comes into being with its group, so that from the first moment it is known to be ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLink {
    /// Number and name.
    pub link: LinkRef,
    /// What it is.
    pub kind: LinkKind,
    /// Whose it is.
    pub group: u32,
    /// Longest packet; absent = as the kernel chooses.
    pub mtu: Option<u32>,
    /// Hardware address; absent = as the kernel chooses.
    pub mac: Option<MacAddr>,
    /// What it is a port or member of.
    pub master: Option<LinkRef>,
    /// The link that it is made on, of a VLAN.
    pub parent: Option<LinkRef>,
    /// Number of a veth's other end.
    pub peer_index: Option<u32>,
}

/// What changes of a link; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkChange {
    /// Longest packet.
    pub mtu: Option<u32>,
    /// Hardware address.
    pub mac: Option<MacAddr>,
    /// How its bridge treats it.
    pub port: Option<BridgePort>,
    /// The kernel no longer makes IPv6 addresses for it.
    pub quiet: bool,
}

/// One change of the kernel's state. Of no kind can a part be done: the kernel does a message whole or not at all, but
/// for [`Self::Change`], which repeated makes up for what is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Takes a rule away.
    DeleteRule(Rule),
    /// Takes a route away.
    DeleteRoute(Route, Option<LinkRef>),
    /// Takes an entry away.
    DeleteNeighbour(Neighbour, LinkRef),
    /// Takes an address away.
    DeleteAddress(Address, LinkRef),
    /// Puts a link among those that are about to be deleted.
    Discard(LinkRef),
    /// Deletes every link of a group.
    DeleteGroup {
        /// The group.
        group: u32,
        /// How many it has.
        links: usize,
    },
    /// Deletes a link.
    DeleteLink(LinkRef),
    /// Takes a link out of its bridge, bond or VRF.
    Release(LinkRef),
    /// Sets a link down, as a bond wants of those that are to be members.
    SetDown(LinkRef),
    /// Makes a link.
    Create(NewLink),
    /// Makes a link a port or member of another.
    Enslave(LinkRef, LinkRef),
    /// Changes a link.
    Change(LinkRef, LinkChange),
    /// Sets a link up.
    SetUp(LinkRef),
    /// Gives a link an address.
    AddAddress {
        /// The address.
        address: Address,
        /// The link.
        link: LinkRef,
        /// The kernel makes the route to the address's prefix; else a route of ours does.
        with_route: bool,
    },
    /// Adds a route.
    AddRoute(Route, Option<LinkRef>),
    /// Adds an entry.
    AddNeighbour(Neighbour, LinkRef),
    /// Adds a rule.
    AddRule(Rule),
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeleteRule(rule) => write!(f, "delete {rule}"),
            Self::DeleteRoute(route, _) => write!(f, "delete {route}"),
            Self::DeleteNeighbour(neighbour, _) => write!(f, "delete {neighbour}"),
            Self::DeleteAddress(address, _) => write!(f, "delete {address}"),
            Self::Discard(link) => write!(f, "discard link {link}"),
            Self::DeleteGroup { group, links } => {
                write!(f, "delete group {group} of {links} links")
            }
            Self::DeleteLink(link) => write!(f, "delete link {link}"),
            Self::Release(link) => write!(f, "release link {link}"),
            Self::SetDown(link) => write!(f, "set link {link} down"),
            Self::Create(new) => write!(f, "create {} {}", new.kind.name(), new.link),
            Self::Enslave(link, master) => write!(f, "put link {link} into {master}"),
            Self::Change(link, change) => write!(f, "change link {link}:{change}"),
            Self::SetUp(link) => write!(f, "set link {link} up"),
            Self::AddAddress { address, .. } => write!(f, "add {address}"),
            Self::AddRoute(route, _) => write!(f, "add {route}"),
            Self::AddNeighbour(neighbour, _) => write!(f, "add {neighbour}"),
            Self::AddRule(rule) => write!(f, "add {rule}"),
        }
    }
}

impl fmt::Display for LinkChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(mtu) = self.mtu {
            write!(f, " mtu {mtu}")?;
        }
        if let Some(mac) = self.mac {
            write!(f, " mac {mac}")?;
        }
        if self.port.is_some() {
            f.write_str(" port flags")?;
        }
        if self.quiet {
            f.write_str(" no addresses of its own making")?;
        }
        Ok(())
    }
}
