//! Builds the workspace's programs and makes commands of them.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::phase::{Phase, command};

/// Every path below is relative to the workspace.
pub(crate) fn enter_workspace() -> Result<()> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = manifest.parent().context("xtask lies in the workspace")?;
    std::env::set_current_dir(root).with_context(|| format!("enter {}", root.display()))
}

/// Builds every program.
pub(crate) fn build() -> Result<()> {
    Phase::new("programs").run(command("cargo").args(["build", "--workspace", "--bins", "--quiet"]))
}

/// Builds every program and these examples, which measure what needs no server.
pub(crate) fn build_with_examples(names: &[&str]) -> Result<()> {
    let mut cargo = command("cargo");
    cargo.args(["build", "--workspace", "--bins", "--quiet"]);
    for name in names {
        cargo.args(["--example", name]);
    }
    Phase::new("programs").run(&mut cargo)
}

/// Builds every program and test in one go: one resolution of features, so nothing is compiled twice.
pub(crate) fn build_with_tests() -> Result<()> {
    let arguments = ["build", "--workspace", "--all-targets", "--quiet"];
    Phase::new("programs and tests").run(command("cargo").args(arguments))
}

/// `bulkhead-image VERB`
pub(crate) fn image(verb: &str) -> Command {
    program("bulkhead-image", verb)
}

/// `bulkhead-lab VERB`
pub(crate) fn lab(verb: &str) -> Command {
    program("bulkhead-lab", verb)
}

/// `bulkhead-lab VERB`, as it was built by `up`.
pub(crate) fn built_lab(verb: &str) -> Result<Command> {
    if !Path::new("target/debug/bulkhead-lab").exists() {
        bail!("nothing was started yet: run `cargo xtask up` first");
    }
    Ok(lab(verb))
}

fn program(name: &str, verb: &str) -> Command {
    let mut command = command(&format!("target/debug/{name}"));
    command.arg(verb);
    command
}

/// Becomes the command, so that its exit status and terminal are ours.
pub(crate) fn replace(command: &mut Command) -> Result<()> {
    Err(command.exec()).with_context(|| format!("start {command:?}"))
}
