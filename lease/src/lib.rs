//! The pure heart: which exact resources of a host a lease gets. No I/O, no clock, no randomness.
//!
//! The supervisor places with it; the registry asks the same code whether a lease would fit, so that both
//! always agree.

pub mod place;

#[cfg(test)]
mod tests;
