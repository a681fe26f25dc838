//! GPUs of the host.

pub mod health;
