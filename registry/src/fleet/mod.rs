//! Decisions about the fleet, pure: which host a lease gets, what a host's next spec is, when a lease is
//! gone, who a machine is.

pub mod identify;
pub mod place;
pub mod release;
pub mod spec;
