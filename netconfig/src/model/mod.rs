//! What a host's network should be and what it is, side by side.
//!
//! ```text
//!  Desired   networks, ports, underlay: what the host's spec and its ledger say
//!  Target    the links, addresses, routes, rules and neighbours that come of it
//!  Observed  the same objects as the kernel has them, and what is foreign beside them
//! ```

mod desired;
mod names;
mod observed;
mod target;

pub use desired::{
    Bond, BondMode, Desired, HostVlan, Network, Peering, Port, PortId, Segment, TenantNumber,
    TenantNumberError, Underlay, Uplink, Vxlan,
};
pub use names::{
    GROUP_BASE, GROUP_LAST, LinkName, LinkNameError, PROTOCOL, Role, TRASH_GROUP, UNDERLAY_GROUP,
    gateway_mac, is_ours, port_mac,
};
pub use observed::{
    Master, Observed, ObservedKind, ObservedLink, ObservedVf, Unreadable, VfLinkState, VfVlan,
};
pub use target::{
    Address, BridgePort, Family, LinkKind, Neighbour, Route, RouteKind, Rule, Selector, Target,
    TargetLink, UsedLink,
};

#[cfg(test)]
mod tests;
