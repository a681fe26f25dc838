//! Functions that are there and answer "not supported".

/// A function whose arguments do not matter.
macro_rules! stub {
    ($name:ident) => {
        // SAFETY: as for implemented functions.
        #[unsafe(no_mangle)]
        extern "C" fn $name() -> u32 {
            $crate::ffi::boundary::call(stringify!($name), |_| Err($crate::Code::NOT_SUPPORTED))
        }
    };
}

include!(concat!(env!("OUT_DIR"), "/stubs.rs"));
