//! What `up` leaves for `down`, `cli` and `status`: enough to end exactly what it started.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::net::LabNet;
use crate::process::ProcessId;

/// File name in the folder of `up`.
const FILE: &str = "state.json";

/// A site that `up` started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpState {
    /// The network namespace, ours alone.
    pub namespace: String,
    /// Layers that the hosts mount.
    pub extensions: Vec<String>,
    /// Everything that runs, with start times so that a recycled process id is never ended.
    pub processes: Vec<NamedProcess>,
}

/// A process of the site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamedProcess {
    /// `registry`, `host 0`.
    pub name: String,
    /// Which process.
    pub id: ProcessId,
}

impl UpState {
    /// Reads what an earlier `up` left; `None` if there is nothing.
    ///
    /// # Errors
    /// The file is there and not readable.
    pub fn load(dir: &Path) -> Result<Option<Self>> {
        let file = dir.join(FILE);
        if !file.exists() {
            return Ok(None);
        }
        let text = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        serde_json::from_slice(&text).map(Some).with_context(|| format!("read {}", file.display()))
    }

    /// Writes it for later commands.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let file = dir.join(FILE);
        let text = serde_json::to_vec_pretty(self)?;
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))
    }

    /// Whether anything of it still runs.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.processes.iter().any(|process| process.id.alive())
    }

    /// Ends the processes, then the namespace with whatever is left in it.
    ///
    /// # Errors
    /// The namespace cannot be deleted.
    pub fn end(&self) -> Result<()> {
        // Servers first: nothing they say on the way down matters.
        for process in self.processes.iter().rev() {
            process.id.stop(Duration::from_secs(3));
        }
        match LabNet::existing(&self.namespace) {
            Ok(net) => net.delete(),
            // An `up` that was cut off before it made the namespace, or a machine that booted since.
            Err(_absent) => Ok(()),
        }
    }
}
