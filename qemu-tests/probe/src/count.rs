//! The neighbour: a fixed loop over processor and memory, and how often it went round.

use std::fs::OpenOptions;
use std::sync::atomic::Ordering;

use crate::sys::{self, Mapping};

/// Larger than first-level caches, so that memory counts too.
const WORDS: usize = 32 * 1024;

/// Counts in the first 8 bytes of `/dev/shm/count`, which the test reads from outside.
pub(crate) fn run() -> Result<(), String> {
    sys::end_when_told();
    let failed = |error: std::io::Error| format!("/dev/shm/count: {error}");
    let open = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open("/dev/shm/count");
    let file = open.map_err(failed)?;
    file.set_len(4096).map_err(failed)?;
    let shared = Mapping::of_file(&file, 4096).map_err(failed)?;
    println!("PROBE count running");
    let mut words = vec![1_u64; WORDS];
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    loop {
        for word in &mut words {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *word = word.wrapping_add(state);
        }
        state = words.iter().fold(state, |all, word| all ^ word) | 1;
        shared.counter().fetch_add(1, Ordering::Relaxed);
    }
}
