//! The virtual site that `cargo xtask up` starts, `down` ends, `cli` speaks to and `bench` measures.

pub mod bench;
pub mod bench_firewall;
pub mod bench_lease;
pub mod bench_mig;
pub mod bench_net;
mod goal;
pub mod state;
pub mod table;
pub mod up;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use self::state::UpState;
use crate::artifacts::Workspace;
use crate::fleet::Fleet;
use crate::net::LabNet;

/// The one folder of `up`.
#[must_use]
pub fn folder(workspace: &Workspace) -> PathBuf {
    workspace.target.join("up")
}

/// Ends what `up` started and removes everything that it made; nothing there is fine.
///
/// # Errors
/// The namespace or the folder cannot be removed.
pub fn down(workspace: &Workspace) -> Result<()> {
    let dir = folder(workspace);
    let Some(state) = UpState::load(&dir)? else {
        println!("down: nothing was up");
        return remove(&dir);
    };
    state.end()?;
    remove(&dir)?;
    println!("down: ended {} processes, removed {}", state.processes.len(), dir.display());
    Ok(())
}

fn remove(dir: &PathBuf) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", dir.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Runs `bulkhead` against the site that is up, with this program's terminal; gives its exit code.
///
/// # Errors
/// Nothing is up.
pub fn cli(workspace: &Workspace, arguments: &[String]) -> Result<u8> {
    let dir = folder(workspace);
    let Some(state) = UpState::load(&dir)?.filter(UpState::runs) else {
        bail!("nothing is up: run `cargo xtask up` first");
    };
    let fleet = Fleet::at(workspace, &dir, &[])?;
    fleet.cli(&LabNet::existing(&state.namespace)?)?.args(arguments).pass_through()
}
