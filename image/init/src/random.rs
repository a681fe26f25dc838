//! Randomness of the kernel.

use std::fs::File;
use std::io::Read as _;

/// 32 random bits; 0 where the kernel has no random device, which only costs jitter.
#[must_use]
pub fn bits() -> u32 {
    let mut bytes = [0; 4];
    match File::open("/dev/urandom").and_then(|mut device| device.read_exact(&mut bytes)) {
        Ok(()) => u32::from_ne_bytes(bytes),
        Err(_) => 0,
    }
}
