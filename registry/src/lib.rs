//! The fleet registry.
//!
//! [`init`] founds a fleet (keys, trust anchors, admin token). [`signer`] is the process that holds the
//! private keys. [`server`] is everything else on one TLS port.

pub mod files;
pub mod identity;
pub mod signer;
