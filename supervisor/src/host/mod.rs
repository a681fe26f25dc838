//! The machine: hardware, systemd, processes, console. Everything else reaches it through here.

pub mod console;
pub mod cpulist;
mod device;
mod hugepages;
pub mod inventory;
pub mod load;
mod pci;
mod processor;
mod resctrl;
pub mod service;
pub mod systemd;
mod tree;
pub mod uevent;
