//! The library as other programs see it: the dynamic linker ([`symbols`]), the crate nvml-wrapper
//! ([`wrapper`]), several processes at once ([`processes`]), Python ([`clients`]).
#![expect(clippy::unwrap_used, reason = "tests")]

mod clients;
mod common;
mod processes;
mod symbols;
mod wrapper;
