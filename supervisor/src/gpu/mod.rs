//! GPUs: whole ones and slices of them (MIG), given to leases and taken back without touching a neighbour.
//!
//! ```text
//!  NVML ──► inventory: geometry, instances ──► registry, lease::place ──► holding: GPU, place
//!  class::attach ─► record ─► MIG mode ─► GPU instance ─► compute instance ─► read back ─► CDI spec ─► container
//!  class::erase  ─► record ─► CDI spec gone ─► compute, GPU instance gone ─► scrub, read again ─► receipt
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`nvml`] | the library, one thread, a deadline a call |
//! | [`driver`] | what is asked of a driver, so that tests can cut it |
//! | [`class`] | the class of GPUs: given, looked at, taken back |
//! | [`scrub`] | how memory is erased, and by what it is shown |
//! | [`caps`], [`cdi`] | device nodes of a slice, and what a container is given |
//! | [`inventory`] | what the host reports of its GPUs |
//! | [`health`] | what errors mean for a GPU, and its way out of service and back |

pub mod caps;
pub mod cdi;
pub mod class;
pub mod driver;
pub mod health;
pub mod inventory;
pub mod nvml;
pub mod scrub;
