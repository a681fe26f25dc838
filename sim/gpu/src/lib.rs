//! A PCI GPU that is a program: QEMU (10.1 or later) attaches it to a guest over vfio-user.
//!
//! ```text
//!  guest driver ── BAR0 registers ──┐                        ┌── file: VRAM
//!               ── BAR1 VRAM ───────┤  vfio-user  Device ────┤
//!  guest memory ◄── DMA engine ─────┘  (socket)              └── registers, configuration space
//! ```
//!
//! It stands in for a pass-through GPU in the questions that isolation asks: does a function-level reset (FLR) happen,
//! what is left in VRAM afterwards, and does the IOMMU refuse a DMA outside of the guest's memory. It computes nothing.
//! **VRAM outlives resets and ends of QEMU on purpose**: only a scrub clears it, as nothing promises more of real GPUs.
//!
//! | module | what |
//! |---|---|
//! | [`config`] | configuration space: ids, BARs, the PCI Express capability with FLR |
//! | [`register`] | the registers of BAR0, which a guest's program needs too |
//! | [`dma`] | guest memory as QEMU maps it |
//! | [`device`] | the device: regions, engine, reset |
//! | [`server`] | vfio-user |

pub mod config;
pub mod device;
pub mod dma;
pub mod register;
pub mod server;
