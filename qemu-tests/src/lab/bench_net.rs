//! `bench net`: what the network of 200 tenants costs, in a network namespace of this machine.
//!
//! | figure | how |
//! |---|---|
//! | apply | a whole transaction (look, plan, change, read back) beside `ip -batch` and `bridge -batch` making the same |
//! | teardown | a whole transaction, seen to be empty, beside `ip -batch` deleting link by link |
//! | nothing to do | CPU of a look and a plan when all is as it should be |
//! | firewall | see [`super::bench_firewall`] |

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::bench_firewall;
use super::goal::{self, Goal};
use crate::artifacts::Workspace;
use crate::cmd::Cmd;

/// Measures and prints; `true` where every goal holds.
///
/// # Errors
/// An example is missing, or fails (it needs root, `ip` and `bridge`, and the image's `nft`).
pub fn net(workspace: &Workspace, quick: bool) -> Result<bool> {
    let mut goals = links(workspace, quick)?;
    goals.extend(bench_firewall::goals(workspace)?);
    Ok(goal::judge("net", &goals))
}

fn links(workspace: &Workspace, quick: bool) -> Result<Vec<Goal>> {
    let program = workspace.target.join("debug/examples/links_speed");
    ensure!(program.is_file(), "{} is missing: run `cargo xtask bench net`", program.display());
    let text = Cmd::new(program).arg(if quick { "1" } else { "3" }).run()?;
    let found: Value = serde_json::from_str(&text).with_context(|| format!("read {text}"))?;
    println!("bench net, links: {}", text.trim());
    let figure = |key: &str| {
        found.get(key).and_then(Value::as_f64).with_context(|| format!("no {key} in {text}"))
    };
    Ok(vec![
        Goal {
            what: "200 networks made, of ip -batch",
            key: "apply_ratio",
            found: figure("apply_ms")? / figure("ip_apply_ms")?,
            at_most: 1.0,
        },
        Goal {
            what: "200 networks deleted, of ip -batch link by link",
            key: "teardown_ratio",
            found: figure("teardown_ms")? / figure("ip_teardown_ms")?,
            at_most: 0.35,
        },
        Goal {
            what: "200 networks, nothing to do, ms of CPU",
            key: "noop_cpu_ms",
            found: figure("noop_cpu_ms")?,
            at_most: 30.0,
        },
    ])
}
