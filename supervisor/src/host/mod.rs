//! The machine: hardware, systemd, processes, console. Everything else reaches it through here.

pub mod console;
pub mod cpulist;
mod device;
mod gpu;
pub mod inventory;
pub mod load;
mod processor;
pub mod service;
pub mod systemd;
mod tree;
