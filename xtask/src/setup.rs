//! Installs what the machine lacks. Everything that builds the image itself is in the image's own toolbox.

use std::path::Path;

use anyhow::{Result, bail};

use crate::phase::{Phase, command};

/// A Debian package and a program by which to see that it is there.
const PACKAGES: [(&str, &str); 2] = [("mmdebstrap", "mmdebstrap"), ("iproute2", "ip")];

/// Debian packages that image and virtual site need.
pub(crate) fn machine() -> Result<()> {
    let missing: Vec<&str> =
        PACKAGES.iter().filter(|(_, program)| !on_path(program)).map(|(name, _)| *name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !on_path("apt-get") {
        bail!("missing: {}; install them by hand, this machine has no apt-get", missing.join(", "));
    }
    println!("setup: installs {}", missing.join(", "));
    Phase::new("package lists").run(apt().args(["update", "-q"]))?;
    let install = ["install", "-q", "-y", "--no-install-recommends"];
    Phase::new("packages").run(apt().args(install).args(missing))
}

fn apt() -> std::process::Command {
    let mut apt = command("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive");
    apt
}

/// The test runner.
pub(crate) fn nextest() -> Result<()> {
    cargo_tool("cargo-nextest")
}

/// The judge of dependencies.
pub(crate) fn deny() -> Result<()> {
    cargo_tool("cargo-deny")
}

fn cargo_tool(name: &str) -> Result<()> {
    if on_path(name) {
        return Ok(());
    }
    println!("setup: installs {name}");
    Phase::new(name).run(command("cargo").args(["install", "--locked", "--quiet", name]))
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Root's shell may lack the sbin folders that hold `ip`.
    let system = ["/usr/sbin", "/sbin"].map(Path::new);
    std::env::split_paths(&path).any(|folder| folder.join(program).exists())
        || system.iter().any(|folder| folder.join(program).exists())
}
