//! The registry as a whole: over real TLS, with a real signer behind its socket.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail where they stand"
)]

mod enrolment;
mod fit;
mod fleet;
mod joined;
mod link;
mod metal;
mod people;
mod rest;
mod restart;
mod room;
mod site;
mod strangers;
