//! What the class gave, and how far it is: written before the GPU is touched, removed when the memory was shown to be clean.

use std::path::Path;

use bulkhead_api::gpu::HeldGpu;
use bulkhead_api::id::LeaseId;
use serde::{Deserialize, Serialize};

use crate::class::ClassError;
use crate::ledger::{Record, load_record, store_record};

/// How far a GPU or slice is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    /// Being made: part of it may be there.
    Making,
    /// Made and read back.
    Made,
    /// Being taken back: part of it may be gone.
    Erasing,
}

/// One GPU or slice of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GivenGpu {
    /// Whose.
    pub lease: LeaseId,
    /// What.
    pub gpu: HeldGpu,
    /// Counts makings on this host: what is made anew at the same place has the same id and the same UUID at NVML, and another
    /// generation.
    pub generation: u64,
    /// How far.
    pub stage: Stage,
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Given {
    /// The last generation that was given.
    pub generation: u64,
    /// What is given, each once.
    pub gpus: Vec<GivenGpu>,
}

impl Record for Given {
    const FORMAT: &'static str = "bulkhead-gpus";
    const VERSION: u32 = 1;
}

impl Given {
    /// The entry of a lease for a GPU or slice.
    #[must_use]
    pub fn of(&self, lease: &LeaseId, gpu: &HeldGpu) -> Option<&GivenGpu> {
        self.gpus.iter().find(|given| given.lease == *lease && given.gpu == *gpu)
    }

    /// An entry of somebody else that is in the way.
    #[must_use]
    pub fn in_the_way(&self, lease: &LeaseId, gpu: &HeldGpu) -> Option<&GivenGpu> {
        let other = |given: &&GivenGpu| {
            given.gpu.meets(gpu) && (given.lease != *lease || given.gpu != *gpu)
        };
        self.gpus.iter().find(other)
    }

    /// Puts an entry in, or changes how far it is. A new one, and one that is made anew, gets the next generation.
    pub fn set(&mut self, lease: &LeaseId, gpu: &HeldGpu, stage: Stage, anew: bool) {
        let known = self.gpus.iter().position(|given| given.lease == *lease && given.gpu == *gpu);
        if known.is_none() || anew {
            self.generation = self.generation.saturating_add(1);
        }
        let new = self.generation;
        match known.and_then(|at| self.gpus.get_mut(at)) {
            Some(given) => {
                given.stage = stage;
                if anew {
                    given.generation = new;
                }
            }
            None => {
                let (lease, gpu) = (lease.clone(), gpu.clone());
                self.gpus.push(GivenGpu { lease, gpu, generation: new, stage });
            }
        }
    }

    /// Takes an entry out. None is fine.
    pub fn remove(&mut self, lease: &LeaseId, gpu: &HeldGpu) {
        self.gpus.retain(|given| given.lease != *lease || given.gpu != *gpu);
    }
}

fn refused(doing: &str, error: &dyn std::error::Error) -> ClassError {
    let why = bulkhead_api::chain::Chain(error).to_string();
    ClassError::Refused { doing: format!("{doing} the record of GPUs"), why }
}

/// Reads the record; none is an empty one.
///
/// # Errors
/// [`ClassError::Refused`].
pub fn load(path: &Path) -> Result<Given, ClassError> {
    Ok(load_record(path).map_err(|error| refused("read", &error))?.unwrap_or_default())
}

/// Writes the record.
///
/// # Errors
/// [`ClassError::Refused`].
pub fn store(path: &Path, given: &Given) -> Result<(), ClassError> {
    if let Some(folder) = path.parent() {
        crate::files::directory(folder, 0o755)
            .map_err(|error| refused("make a folder for", &error))?;
    }
    store_record(path, given).map_err(|error| refused("write", &error))
}
