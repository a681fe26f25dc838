//! Rules about the tree that the compiler cannot see: who may use whom, and what pure code may import.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::phase::command;

/// Which of our crates each may use; development dependencies are free.
const MAY_USE: [(&str, &[&str]); 14] = [
    ("bulkhead-api", &[]),
    ("bulkhead-lease", &["bulkhead-api"]),
    ("bulkhead-netconfig", &["bulkhead-api", "bulkhead-lease"]),
    ("bulkhead-supervisor", &["bulkhead-api", "bulkhead-lease", "bulkhead-netconfig"]),
    ("bulkhead-pxe", &["bulkhead-api"]),
    ("bulkhead-image", &["bulkhead-api"]),
    ("bulkhead-init", &["bulkhead-api"]),
    ("bulkhead-registry", &["bulkhead-api", "bulkhead-lease"]),
    ("bulkhead-cli", &["bulkhead-api"]),
    ("bulkhead-qemu-tests", &["bulkhead-api", "bulkhead-lease"]),
    ("bulkhead-probe", &[]),
    ("bulkhead-sim-gpu", &["bulkhead-api"]),
    ("bulkhead-sim-nvml", &["bulkhead-api"]),
    ("xtask", &[]),
];

/// Crates, or folders of them, that are pure as a whole.
const PURE_CRATES: [&str; 3] = ["api/src", "lease/src", "sim/nvml/src/model"];

/// Crates whose files of these names are pure.
const MIXED_CRATES: [&str; 6] =
    ["netconfig/src", "pxe/src", "registry/src", "sim/nvml/src", "supervisor/src", "image"];
const PURE_FILES: [&str; 9] =
    ["model", "plan", "merge", "check", "order", "place", "policy", "bindings", "transfer"];

/// What pure code may not name.
const IMPURE: [&str; 12] = [
    "tokio::",
    "std::fs",
    "std::process",
    "std::os::unix::net",
    "UdpSocket",
    "TcpStream",
    "rtnetlink",
    "zbus",
    "nvml_wrapper",
    "::now()",
    "SystemRandom",
    "rand::random",
];

/// Checks every rule and lists all offences.
pub(crate) fn check() -> Result<()> {
    let mut offences = dependencies()?;
    for folder in PURE_CRATES {
        for file in rust_files(Path::new(folder))? {
            offences.extend(impure_lines(&file)?);
        }
    }
    for folder in MIXED_CRATES {
        for file in rust_files(Path::new(folder))? {
            let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            if PURE_FILES.contains(&stem) {
                offences.extend(impure_lines(&file)?);
            }
        }
    }
    if offences.is_empty() { Ok(()) } else { bail!("{}", offences.join("\n")) }
}

fn dependencies() -> Result<Vec<String>> {
    let output = command("cargo")
        .args(["metadata", "--no-deps", "--format-version=1"])
        .output()
        .context("start cargo metadata")?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("read cargo metadata")?;
    let list = |value: &Value, key: &str| {
        value.get(key).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let text = |value: &Value, key: &str| {
        value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let mut offences = Vec::new();
    for package in list(&metadata, "packages") {
        let name = text(&package, "name");
        let Some((_, allowed)) = MAY_USE.iter().find(|(crate_name, _)| *crate_name == name) else {
            offences.push(format!("crate {name} is not in the rules of xtask/src/rules.rs"));
            continue;
        };
        for dependency in list(&package, "dependencies") {
            let used = text(&dependency, "name");
            let ours = MAY_USE.iter().any(|(crate_name, _)| *crate_name == used);
            let development = text(&dependency, "kind") == "dev";
            if ours && !development && !allowed.contains(&used.as_str()) {
                offences.push(format!("crate {name} may not use {used}"));
            }
        }
    }
    Ok(offences)
}

fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}

fn impure_lines(file: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    // Tests beside pure code may do as they like.
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let offences = code.lines().zip(1..).filter_map(|(line, number)| {
        let code = line.split("//").next().unwrap_or_default();
        let word = IMPURE.iter().find(|word| code.contains(*word))?;
        Some(format!("{}:{number}: pure code names {word}", file.display()))
    });
    Ok(offences.collect())
}
