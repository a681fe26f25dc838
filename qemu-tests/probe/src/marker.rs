//! Memory that a tenant wrote, looked for by the next one.

use std::fs::File;
use std::io::{self, Write as _};

use crate::sys::{Mapping, wait_for_ever};

const MIB: usize = 1 << 20;
/// Bytes of a marker.
const LENGTH: usize = 32;

fn parse(text: Option<&String>) -> Result<[u8; LENGTH], String> {
    let text = text.ok_or("a marker is missing")?;
    let mut marker = [0; LENGTH];
    for (at, byte) in marker.iter_mut().enumerate() {
        let digits = text.get(at * 2..at * 2 + 2).unwrap_or_default();
        *byte = u8::from_str_radix(digits, 16)
            .map_err(|_| format!("{text}: expected {} hexadecimal digits", LENGTH * 2))?;
    }
    Ok(marker)
}

fn fill(bytes: &mut [u8], marker: [u8; LENGTH]) {
    bytes.chunks_exact_mut(LENGTH).for_each(|chunk| chunk.copy_from_slice(&marker));
}

/// Writes the marker all over its memory and wherever it can write files, and keeps it there.
pub(crate) fn mark(marker: Option<&String>, mib: usize) -> Result<(), String> {
    let marker = parse(marker)?;
    let mut memory = Mapping::new(mib * MIB).map_err(|error| format!("get memory: {error}"))?;
    fill(memory.bytes(), marker);
    let mut block = vec![0; MIB];
    fill(&mut block, marker);
    let mut files = 0;
    for folder in ["/dev/shm", "/tmp", "/run", "/data"] {
        files += usize::from(write(&format!("{folder}/mark"), &block).is_ok());
    }
    println!("PROBE mark done {mib} MiB and {files} files");
    wait_for_ever();
}

fn write(path: &str, block: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    for _ in 0..4 {
        file.write_all(block)?;
    }
    file.sync_all()
}

/// Looks at memory as the kernel gives it, and then shows that it would have found the marker.
pub(crate) fn scan(marker: Option<&String>, mib: usize) -> Result<(), String> {
    let marker = parse(marker)?;
    let mut memory = Mapping::new(mib * MIB).map_err(|error| format!("get memory: {error}"))?;
    let count = |bytes: &[u8]| bytes.chunks_exact(LENGTH).filter(|chunk| **chunk == marker).count();
    let bytes = memory.bytes();
    let dirty = bytes.iter().filter(|byte| **byte != 0).count();
    let found = count(bytes);
    fill(bytes, marker);
    let control = count(bytes);
    let word = if found == 0 && dirty == 0 { "refused" } else { "SUCCEEDED" };
    println!(
        "PROBE scan {word} {found} markers, {dirty} bytes not zero, of {mib} MiB; written there by itself and found: {control}"
    );
    Ok(())
}
