//! `bench firewall`: what 1000 tenants' rules cost, by the image's `nft` in a network namespace of this machine.
//!
//! | figure | how |
//! |---|---|
//! | replace | one transaction that takes every table of ours away and puts it there again |
//! | add | one transaction with the elements of one tenant more; what it says nothing of keeps its counters and flows |
//! | make, remove, read, compare | shown without a goal; the kernel waits for its readers before it frees what is removed |

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::goal::{self, Goal};
use crate::artifacts::{Workspace, required};
use crate::cmd::Cmd;

/// Measures and prints; `true` where every goal holds.
///
/// # Errors
/// The example or the image's `nft` is missing, or fails (it needs root).
pub fn firewall(workspace: &Workspace) -> Result<bool> {
    Ok(goal::judge("firewall", &goals(workspace)?))
}

/// The figures beside their goals, for a bench that shows them among others.
///
/// # Errors
/// As [`firewall`].
pub(super) fn goals(workspace: &Workspace) -> Result<Vec<Goal>> {
    let program = workspace.target.join("debug/examples/firewall_speed");
    ensure!(
        program.is_file(),
        "{} is missing: run `cargo xtask bench firewall`",
        program.display()
    );
    let text = nft(Cmd::new(program), &workspace.target.join("image/work/root.d"))?.run()?;
    let found: Value = serde_json::from_str(&text).with_context(|| format!("read {text}"))?;
    println!("bench firewall: {}", text.trim());
    let figure = |key: &str| {
        found.get(key).and_then(Value::as_f64).with_context(|| format!("no {key} in {text}"))
    };
    Ok(vec![
        Goal {
            what: "rules of 1000 tenants replaced, ms",
            key: "replace_ms",
            found: figure("replace_ms")?,
            at_most: 500.0,
        },
        Goal {
            what: "one tenant added to 1000, ms",
            key: "add_ms",
            found: figure("add_ms")?,
            at_most: 20.0,
        },
    ])
}

/// The `nft` of the image's tree, by the tree's own loader, as arguments.
fn nft(cmd: Cmd, root: &Path) -> Result<Cmd> {
    Ok(cmd
        .arg(required(root.join("usr/lib64/ld-linux-x86-64.so.2"))?)
        .arg("--library-path")
        .arg(root.join("usr/lib/x86_64-linux-gnu"))
        .arg(required(root.join("usr/sbin/nft"))?))
}
