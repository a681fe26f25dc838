//! NVML: the library by which the driver is asked and told (`libnvidia-ml.so.1`, opened at run time).
//!
//! | file | what |
//! |---|---|
//! | [`owner`] | the thread that has it open, deadlines, suspect GPUs |
//! | [`session`] | one call after the other, by PCI address |
//! | `raw` | what the safe wrapper does not have |
//! | [`model`], [`error`] | answers and refusals as values |

pub mod error;
pub mod model;
pub mod owner;
mod raw;
pub mod session;

pub use self::error::{Code, GpuError};
pub use self::owner::Nvml;
