//! Who can reach whom, worked out from what was read back of the hosts of a site.
//!
//! ```text
//!  Site: of each host   what was agreed (Desired, Access)       which link is whose, who may talk with whom
//!                       what is there (Observed, Ruleset)       links, entries, routes and rules, read back
//!    │
//!    ├─ prove ──► violations: every layer by itself, so that one fault shows although another layer still holds
//!    └─ explain ─► why one port reaches another, or what stops it
//! ```
//!
//! Own code, on purpose: it calls neither `merge` nor `plan` nor the firewall's `compile`, and learns whose a link is from
//! its group and name, so that a mistake there shows here. Rules are not compared with what they should be but asked with
//! sets of packets (`walk`): whatever the rules are, what they let through is what counts.
//!
//! | module | question |
//! |---|---|
//! | `port` | can a port send as somebody else; is its bridge told to keep it apart |
//! | `segment` | do bridges, VXLANs and VLANs join two tenants; do frames pass between links of two |
//! | `packet` | is a packet's tenant known; what reaches the host, and how often |
//! | `forward` | what is passed on: to other tenants, outside, from outside |
//! | `route` | do a tenant's routes lead to another |

mod explain;
mod flow;
mod forward;
mod named;
mod packet;
mod port;
mod route;
mod segment;
mod site;
mod space;
mod violation;
mod walk;

pub use explain::{Explanation, explain};
pub use site::{Host, Site};
pub use violation::{Class, Violation};

/// Everything that joins tenants, or would if one layer more failed. None means: no tenant reaches another, or the host,
/// beyond what was agreed.
#[must_use]
pub fn prove(site: &Site<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let views: Vec<site::View<'_>> = site.views().collect();
    segment::check(&views, &mut found);
    for view in &views {
        port::check(view, &mut found);
        segment::check_filter(view, &mut found);
        packet::check(view, &mut found);
        forward::check(view, &mut found);
        route::check(view, &mut found);
    }
    found
}

#[cfg(test)]
mod mutation_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;
