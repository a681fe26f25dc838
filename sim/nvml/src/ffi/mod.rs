//! The exported functions: a thin layer over [`crate::model`].
//!
//! Each group is a file of `nvml!` blocks. The macro makes an `extern "C"` function that asks
//! [`boundary::call`] for the machine (initialised? driver there? injected fault? latency?) and never
//! lets a panic out. Pointers of the caller come as the types of [`pointer`], which alone read and
//! write through them; handles are numbers that carry the generation of what they name ([`handle`]).
//! What no file implements is a stub that answers "not supported" (`build.rs`).

#![expect(unsafe_code, reason = "a C library: exported names and the caller's pointers")]

mod boundary;
mod clocks;
mod compute;
mod device;
mod errors;
mod events;
mod fields;
mod handle;
mod library;
mod link;
mod memory;
mod mig;
mod pointer;
mod processes;
mod sensors;
mod stubs;

/// Exports functions: name, parameters by the types of [`pointer`] and [`handle`], and a closure
/// from [`boundary::Call`] to a result.
macro_rules! nvml {
    ($(fn $name:ident($($argument:ident: $kind:ty),* $(,)?) $body:expr;)*) => {$(
        // SAFETY: no other symbol of the process has this name and another meaning: being found
        // under NVIDIA's names is what the library is for.
        #[unsafe(no_mangle)]
        extern "C" fn $name($($argument: $kind),*) -> u32 {
            $crate::ffi::boundary::call(stringify!($name), $body)
        }
    )*};
}
use nvml;
