//! What is wrong between tenants.

use std::fmt;

use bulkhead_api::id::TenantName;

/// What kind of thing is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// A link has another group than its tenant's: rules by group do not see it.
    Group,
    /// Bridges, VXLANs or VLANs join two tenants.
    Segment,
    /// A bridge of a tenant has a member that is not the tenant's.
    Member,
    /// A bridge passes frames between links of two tenants.
    Frames,
    /// A port sends frames with tags, or of types that nobody looks into.
    EtherType,
    /// A port sends from another hardware address.
    Station,
    /// A port says in ARP that it is somebody else.
    Arp,
    /// A port answers as DHCP server.
    DhcpServer,
    /// A port says that it is a router.
    Router,
    /// A port says in neighbour discovery that it is somebody else.
    Neighbour,
    /// A port hides neighbour discovery in fragments.
    Fragment,
    /// A port sends from another address.
    Source,
    /// A link of a tenant's group that nobody agreed on is let through.
    Stranger,
    /// A bridge does not keep a port apart.
    PortSwitch,
    /// An entry sends a tenant's frames or packets to the wrong place.
    Entry,
    /// A tenant's packets come into the host with sources outside its subnets.
    RoutedSource,
    /// A tenant's flows are not in a conntrack zone of its own.
    Zone,
    /// A tenant reaches something of the host that is not offered.
    Host,
    /// A tenant reaches a service of the host at any rate.
    Rate,
    /// A tenant reaches the end of a VXLAN.
    Tunnel,
    /// The site reaches more of the host than is offered.
    Underlay,
    /// Packets are passed on between tenants.
    Forward,
    /// Packets of a tenant go out of the host beyond its egress.
    Egress,
    /// Packets from outside come to a tenant that did not ask.
    Inbound,
    /// Two tenants share a table, or a tenant's packets are judged by the host's.
    Table,
    /// A tenant's routes lead to another tenant.
    Route,
    /// One tenant reaches another, by every layer.
    Reach,
    /// Something could not be read, so nothing is known of it.
    Unreadable,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// What kind.
    pub class: Class,
    /// On which host.
    pub host: String,
    /// Whom it concerns; the one that reaches first.
    pub tenants: Vec<TenantName>,
    /// What is wrong, in a sentence.
    pub message: String,
    /// The way, hop by hop: ports, bridges, VNIs, rules.
    pub path: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.host, self.message)?;
        for (at, hop) in self.path.iter().enumerate() {
            write!(f, "{}{hop}", if at == 0 { ": " } else { " -> " })?;
        }
        Ok(())
    }
}
