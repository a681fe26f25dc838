//! A simulated NVIDIA Management Library.
//!
//! Programs load `libnvidia_ml.so` (soname `libnvidia-ml.so.1`) in place of NVIDIA's and find GPUs,
//! MIG, events and faults as on a real host; `nvml-simctl` does what hardware, kernel, tenants and
//! misfortune would do. All processes that name the same state file see the same machine:
//!
//! ```text
//!  nvidia-ml-py, nvitop, bulkheadd ──dlopen──► ffi ──► model (pure) ◄── nvml-simctl
//!                                               └────► state: $NVML_SIM_STATE, lock, rename
//!                                                      memory: <state>.memory/<GPU UUID>
//! ```
//!
//! - [`profiles`]: GPU models and their MIG geometry
//! - [`model`]: the machine and its rules
//! - [`state`]: the file that the processes share
//! - [`memory`]: contents of GPU memory, by place
//! - `ffi`: the exported functions; the only unsafe code
//!
//! Not simulated: CUDA, vGPU, confidential computing, accounting, the undocumented function table
//! that `nvidia-smi` asks for. Their functions exist and answer "not supported".

pub mod access;
pub mod code;
pub mod memory;
pub mod model;
pub mod profiles;
pub mod state;

mod ffi;

pub use code::Code;
pub use model::Machine;
pub use state::Store;
