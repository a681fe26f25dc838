//! `bench mig`: what planning MIG slices costs, and what it serves.
//!
//! | figure | how |
//! |---|---|
//! | one GPU | the worst of every set of slices that can stand beside every content that can be wanted (`lease/examples/slice_speed.rs`) |
//! | 8 GPUs | the worst of some hundred hosts, 8 requests at once; 16 are shown without a goal |
//! | arrival orders | share of all orders of all contents that is served whole, beside first fit, best fit and the driver's order |

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::goal::{self, Goal};
use super::table;
use crate::artifacts::Workspace;
use crate::cmd::Cmd;

/// Who serves which share of the arrival orders: key and name.
const SERVED: [(&str, &str); 5] = [
    ("first_fit_percent", "first fit"),
    ("driver_percent", "the driver's order"),
    ("best_fit_percent", "best fit"),
    ("one_by_one_percent", "ours, one request at a time"),
    ("batch_percent", "ours, a lease's requests at once"),
];

/// Measures and prints; `true` where every goal holds.
///
/// # Errors
/// The example is missing or prints no figures.
pub fn mig(workspace: &Workspace) -> Result<bool> {
    Ok(goal::judge("mig", &planner(workspace)?))
}

/// Runs the loops over the planner.
fn planner(workspace: &Workspace) -> Result<Vec<Goal>> {
    let program = workspace.target.join("debug/examples/slice_speed");
    ensure!(program.is_file(), "{} is missing: run `cargo xtask bench mig`", program.display());
    let text = Cmd::new(program).run()?;
    let found: Value = serde_json::from_str(&text).with_context(|| format!("read {text}"))?;
    println!("bench mig: {}", text.trim());
    let figure = |key: &str| {
        found.get(key).and_then(Value::as_f64).with_context(|| format!("no {key} in {text}"))
    };
    let row = |(key, name): (&str, &str)| -> Result<Vec<String>> {
        Ok(vec![name.to_owned(), format!("{:.1}", figure(key)?)])
    };
    let rows = SERVED.into_iter().map(row).collect::<Result<Vec<_>>>()?;
    println!("\n{}\n", table::render(&["arrival orders served whole", "%"], &rows));
    ensure!(figure("batch_percent")? >= 100.0, "an order that could be served is not");
    Ok(vec![
        Goal {
            what: "plan, one GPU, worst case, us",
            key: "plan_worst_us",
            found: figure("plan_worst_us")?,
            at_most: 10.0,
        },
        Goal {
            what: "plan, 8 GPUs and 8 requests, worst case, us",
            key: "host_8_us",
            found: figure("host_8_us")?,
            at_most: 200.0,
        },
    ])
}
