//! Gives the library NVIDIA's soname and writes a stub for every exported symbol that `src/ffi` does
//! not implement, so that a client which looks all of them up at start finds them.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;
use std::{env, fs};

const SYMBOLS: &str = "data/exported-symbols.txt";
const SOURCES: &str = "src/ffi";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={SYMBOLS}");
    println!("cargo::rerun-if-changed={SOURCES}");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libnvidia-ml.so.1");

    let implemented = implemented()?;
    let mut stubs = String::new();
    for name in fs::read_to_string(SYMBOLS)?.lines().filter(|line| !line.is_empty()) {
        if !implemented.contains(name) {
            stubs.push_str(&format!("stub!({name});\n"));
        }
    }
    fs::write(Path::new(&env::var("OUT_DIR")?).join("stubs.rs"), stubs)?;
    Ok(())
}

/// The names that follow `fn` in the sources and look like NVML functions.
fn implemented() -> Result<BTreeSet<String>, Box<dyn Error>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(SOURCES)? {
        let text = fs::read_to_string(entry?.path())?;
        for (at, _) in text.match_indices("fn nvml") {
            let name = text[at + 3..].split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            names.extend(name.take(1).map(str::to_owned));
        }
    }
    Ok(names)
}
