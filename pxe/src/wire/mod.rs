//! Bytes on the wire, in and out. Pure: every decoder takes exactly the bytes that arrived, checks
//! lengths itself and refuses rather than guesses; none of them panics on any input.

pub mod dhcp4;
pub mod http;
pub mod tftp;
