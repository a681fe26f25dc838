//! The process that holds the fleet's private keys, and the client of it in the registry.
//!
//! ```text
//!  registry ──SignerRequest──► unix socket 0600 ──► server ──► csr, authority, ledger ──SignerReply──►
//! ```
//!
//! A stolen registry can ask, and is held to the rules here: a host's generations only grow
//! ([`ledger`]), and a certificate's names come from the identity that the request names, never from
//! the certificate request ([`authority`]).

pub mod authority;
pub mod client;
pub mod csr;
pub mod frame;
pub mod ledger;
pub mod protocol;
pub mod server;
