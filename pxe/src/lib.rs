//! A site's boot services and its place in the fleet: library of `bulkhead-site`.
//!
//! ```text
//!   wire (bytes) ─► client (what asks) ─► policy::decide ─► reply (bytes)        pure
//!                        bindings · tickets · machines = site::Site              pure
//!                        transfer (TFTP)                                         pure
//!   ───────────────────────────────────────────────────────────────────────────────────
//!   service: Site + lock + clock + randomness + store       one question at a time
//!   net/{dhcp, tftp, http}: sockets                         link: TLS, hosts, registry, OCI images
//!   run: all of it from one config::SiteConfig
//! ```
//!
//! One pure function, [`policy::decide`], answers for DHCP, TFTP, HTTP and enrolment, so that no
//! protocol serves a machine that another one turned down. The state is on disk before an answer
//! leaves. A site boots and serves known hosts when the registry is away.

pub mod artefacts;
pub mod bindings;
pub mod client;
pub mod config;
pub mod link;
pub mod machines;
pub mod moment;
pub mod net;
pub mod policy;
pub mod reply;
pub mod run;
#[cfg(test)]
mod samples;
pub mod service;
pub mod site;
pub mod store;
pub mod tenancy;
pub mod tenant_uki;
pub mod tickets;
pub mod transfer;
pub mod wire;
