//! Why no GPU serves a request, GPU by GPU.

use std::fmt;

use super::super::{Lack, plan as plan_gpu};
use super::option::profile;
use super::{Gpu, Mode, Near, Wanted};

/// A request that no GPU serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Which of the requests.
    pub request: usize,
    /// What it asks for.
    pub wanted: Wanted,
    /// Why, by GPU; empty where the host has none.
    pub short: Vec<Short>,
}

/// Why one GPU does not serve a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Short {
    /// The GPU's name.
    pub gpu: String,
    /// Why.
    pub why: Why,
}

/// Why a GPU does not serve a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// A lease has it whole, or it is in quarantine.
    #[error("is a lease's as a whole, or in quarantine")]
    Taken,
    /// On a node that was not asked for.
    #[error("is not on a node of the lease's cores and NIC")]
    Far,
    /// No MIG, or its geometry is unreadable.
    #[error("cannot be cut")]
    NoMig,
    /// The mode is wrong and may not be changed.
    #[error("MIG mode is off, and may not be switched on")]
    ModeOff,
    /// The mode is wrong and may not be changed.
    #[error("MIG mode is on, and may not be switched off")]
    ModeOn,
    /// A profile of another model.
    #[error("has no such profile; it has {}", has.join(", "))]
    NoProfile {
        /// Names of its profiles.
        has: Vec<String>,
    },
    /// Slices stand on it.
    #[error("{count} slices stand on it")]
    Cut {
        /// How many.
        count: usize,
    },
    /// Not beside what stands.
    #[error(transparent)]
    Lack(#[from] Lack),
    /// It would serve this one, but not with the others that it serves.
    #[error("has no room for it beside the other requests")]
    Others,
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slice(name) => fmt::Display::fmt(name, f),
            Self::Whole => f.pad("whole GPU"),
        }
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.short.is_empty() {
            return write!(f, "{}: the host has no GPU", self.wanted);
        }
        let list: Vec<String> =
            self.short.iter().map(|short| format!("{} {}", short.gpu, short.why)).collect();
        write!(f, "{}: {}", self.wanted, list.join("; "))
    }
}

pub(super) fn explain(gpus: &[Gpu<'_>], request: usize, kind: &Wanted, near: &Near) -> Rejected {
    let short =
        gpus.iter().map(|gpu| Short { gpu: gpu.name.to_owned(), why: why(gpu, kind, near) });
    Rejected { request, wanted: kind.clone(), short: short.collect() }
}

fn why(gpu: &Gpu<'_>, kind: &Wanted, near: &Near) -> Why {
    if gpu.taken {
        return Why::Taken;
    }
    if near.required && near.far(gpu) {
        return Why::Far;
    }
    if *kind == Wanted::Whole {
        return match gpu.mode {
            _ if !gpu.standing.is_empty() => Why::Cut { count: gpu.standing.len() },
            Mode::Mig if !gpu.switchable => Why::ModeOn,
            Mode::Mig | Mode::Whole => Why::Others,
        };
    }
    let Some((table, values)) = gpu.slices else { return Why::NoMig };
    if gpu.mode == Mode::Whole && !(gpu.switchable && gpu.standing.is_empty()) {
        return Why::ModeOff;
    }
    let Some(id) = profile(gpu, kind) else {
        let names = table.geometry().profiles().iter().map(|profile| profile.name.to_string());
        return Why::NoProfile { has: names.collect() };
    };
    match plan_gpu(table, values, gpu.standing, &[id]) {
        Ok(_) => Why::Others,
        Err(lack) => Why::Lack(lack),
    }
}
