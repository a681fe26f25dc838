//! The pure heart: which exact resources of a host a lease gets ([`place`]), where MIG slices go ([`slice`]), and whether what was observed on a host
//! keeps its leases apart ([`prove`]). No I/O, no clock, no randomness.
//!
//! The supervisor places with it; the registry asks the same code whether a lease would fit, so that both
//! always agree.

pub mod place;
pub mod prove;
#[doc(hidden)]
pub mod sample;
pub mod slice;

#[cfg(test)]
mod tests;
