//! Virtual functions (VFs) of a network card: handed out from a forced, read-back baseline, and taken back to it.
//!
//! ```text
//!  ledger: (VF, lease, generation) ──┐
//!  desired: grants, number of VFs ───┼─► plan ─► steps ─► converge: is the step's generation still the ledger's?
//!  observed: sysfs and netlink ──────┘                        │ yes             apply, and read back
//!                                                             └ a difference keeps that VF alone back
//! ```
//!
//! Nothing is restored from what was noted earlier: acquire *and* release force every setting (link off, no driver, a new
//! address, the parking VLAN, no rate, spoof check on, trust off) and look at each.

pub mod converge;
pub mod model;
pub mod plan;

#[cfg(test)]
mod tests;
