//! The firewall of a host: two nftables tables of ours, made from the desired state and compared with what was read back.
//!
//! ```text
//!  Desired + Access ── check, compile ──► Ruleset ── render / change ──► one transaction of `nft -f -`
//!                                            │ equal?
//!                              parse ──► Ruleset ◄── `nft -j list table`
//! ```
//!
//! | table | hook | what |
//! |---|---|---|
//! | bridge | prerouting | a port sends only as itself: MAC, ARP and ND sender, source address; no DHCP server, no RA, no tags |
//! | bridge | forward | a frame goes between a network's ports only; all else that is a tenant's is dropped |
//! | bridge | postrouting | counts what a tenant gets |
//! | inet | prerouting, output (raw) | conntrack zone of the tenant; sources outside its subnets are dropped |
//! | inet | input | policy drop; a tenant reaches the services that the host offers it, each at a rate |
//! | inet | forward | policy drop; own networks, agreed peers, egress, and answers to it |
//!
//! Whose a packet is, is known by the link that it came in by. What depends on a tenant is an element of a map or set, or
//! a chain of its own, so that one tenant comes and goes without a word about the others. A link of a tenant's group that no
//! element names passes nothing.

mod access;
mod bridge;
mod check;
mod compile;
mod inet;
mod input;
pub mod ruleset;

pub use access::{Access, HostService, Traffic, UplinkService};
pub use check::Refusal;
pub use compile::{Compiled, compile};

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
