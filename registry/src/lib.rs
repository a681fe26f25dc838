//! The fleet registry.
//!
//! ```text
//!  people ──REST──► http ──┐                     ┌──► documents ──► people
//!                          ├──► store (SQLite) ──┤
//!  sites ───gRPC──► link ──┘         ▲           └──► signing ──► signer ──► link ──► sites
//!                     └─► ingest ────┘
//! ```
//!
//! [`init`] founds a fleet (keys, trust anchors, admin token). [`signer`] is the process that holds the
//! private keys. [`server`] is everything else on one TLS port. [`fleet`] decides and is pure:
//! where a lease goes, what a host's next spec is, when a lease is gone, who a machine is.

pub mod config;
pub mod documents;
pub mod files;
pub mod fleet;
pub mod http;
pub mod identity;
pub mod ingest;
pub mod init;
pub mod link;
pub mod presence;
pub mod server;
pub mod signer;
pub mod signing;
pub mod state;
pub mod store;
pub mod tls;
pub mod token;
