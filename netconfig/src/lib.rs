//! A host's network: tenants' links, virtual functions, firewall, and the proof of who reaches whom.
//!
//! ```text
//!  model::Desired ─► check ─► merge ─► model::Target ─┐
//!                                                     ├─► plan ─► order ─► kernel (netlink, sysfs, nft)
//!  kernel ─► model::Observed ─────────────────────────┘                     │
//!      ▲                     transaction: checkpoint, apply, read back, commit or roll back
//!      └────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! `check`, `merge`, `plan` and `order` are pure. What is ours is known by what the kernel keeps of it: a link by its
//! group, a route by its table and protocol, a rule by its protocol, a neighbour by its link. Everything else on the
//! host is foreign and is never touched.

pub mod check;
pub mod firewall;
pub mod kernel;
pub mod merge;
pub mod model;
pub mod order;
pub mod plan;
pub mod reach;
pub mod sriov;
pub mod transaction;

#[cfg(test)]
mod testing;
