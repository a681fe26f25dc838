//! GPUs for one lease: whole ones, and slices at explicit places beside those that are held, which stay where they are.
//!
//! A whole GPU is one of which nobody holds a part, and slices are cut from GPUs that nobody holds as a whole. GPUs on the
//! lease's nodes come first.
//! Which GPU serves what, and where on it, is planned exactly by [`crate::slice`]; what is held never moves.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use bulkhead_api::gpu::{HeldGpu, HeldSlice, WantedGpus};
use bulkhead_api::inventory::{Gpu, Inventory};
use bulkhead_api::mig::{Geometry, ProfileName};
use bulkhead_api::resource::Resource;

use super::request::Taken;
use super::shortage::Lack;
use crate::slice::host::{self, Mode, Near, Wanted};
use crate::slice::{Hold, Mix, Standing, Table, Values};

/// Geometries whose tables are kept: models of GPUs that one registry or host has to do with.
const KEPT: usize = 64;

/// A geometry's table and what its sets are worth, which take long to work out and are always the same.
type Cut = Arc<(Table, Values)>;

/// The cuts of a geometry; from an earlier call where there was one.
fn cut(geometry: &Geometry) -> Cut {
    static KNOWN: Mutex<Vec<(Geometry, Cut)>> = Mutex::new(Vec::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, cut)) = known.iter().find(|(of, _)| of == geometry) {
        return Arc::clone(cut);
    }
    let table = Table::new(geometry);
    let values = Values::solve(&table, &Mix::reference(geometry), &[], 1.0);
    let values = values.unwrap_or_else(|_| Values::flexibility(&table));
    let cut = Arc::new((table, values));
    if known.len() >= KEPT {
        known.remove(0);
    }
    known.push((geometry.clone(), Arc::clone(&cut)));
    cut
}

/// A GPU with what is held of it.
#[derive(Debug)]
struct Board<'a> {
    gpu: &'a Gpu,
    node: Option<u32>,
    /// Somebody has it as a whole.
    whole: bool,
    standing: Vec<Standing>,
    cut: Option<Cut>,
}

/// What is left of a host's GPUs.
#[derive(Debug)]
pub(super) struct Gpus<'a> {
    boards: Vec<Board<'a>>,
    closed: Vec<&'a Gpu>,
}

impl<'a> Gpus<'a> {
    /// `wanted`: whether GPUs are asked for at all.
    pub(super) fn of(inventory: &'a Inventory, taken: &Taken, wanted: bool) -> Self {
        let quarantined = taken.quarantined.iter().filter_map(|resource| {
            if let Resource::Gpu(gpu) = resource { Some(gpu) } else { None }
        });
        let held: Vec<&HeldGpu> =
            taken.held.values().flat_map(|holding| &holding.gpus).chain(quarantined).collect();
        let board = |gpu: &'a Gpu| {
            let here = held.iter().filter(|held| held.gpu == gpu.bdf);
            let function = inventory.pci.iter().find(|function| function.bdf == gpu.bdf);
            Board {
                gpu,
                node: function.and_then(|function| function.node),
                whole: here.clone().any(|held| held.slice.is_none()),
                standing: here
                    .filter_map(|held| Some(held.slice.as_ref()?.placement))
                    .map(|place| Standing { place, hold: Hold::Fixed })
                    .collect(),
                // Nobody asks for GPUs: nothing is worked out.
                cut: gpu.geometry.as_ref().filter(|_| wanted).map(cut),
            }
        };
        let (open, closed): (Vec<&Gpu>, Vec<&Gpu>) =
            inventory.gpus.iter().partition(|gpu| gpu.closed.is_none());
        Self { boards: open.into_iter().map(board).collect(), closed }
    }

    /// The GPUs and slices; near to the nodes where they can be. Ascending.
    ///
    /// # Errors
    /// What is short.
    pub(super) fn choose(
        &self,
        wanted: &[WantedGpus],
        nodes: &BTreeSet<u32>,
    ) -> Result<Vec<HeldGpu>, Lack> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let mut requests = Vec::new();
        for wanted in wanted {
            match wanted {
                WantedGpus::Slices { profile, count } => {
                    self.known(profile, *count)?;
                    requests.extend((0..*count).map(|_| Wanted::Slice(profile.clone())));
                }
                WantedGpus::Whole { count } => requests.extend((0..*count).map(|_| Wanted::Whole)),
            }
        }
        let gpus: Vec<host::Gpu<'_>> = self.boards.iter().map(Board::plannable).collect();
        let near = Near { nodes: nodes.clone(), required: false };
        let plan = host::plan(&gpus, &requests, &near).map_err(|many| {
            let wanted = u32::try_from(many.requests).unwrap_or(u32::MAX);
            self.short("GPUs and slices".to_owned(), wanted, 0)
        })?;
        if let Some(rejected) = plan.rejected.first() {
            let of_kind = |kind: &&Wanted| **kind == rejected.wanted;
            let wanted = requests.iter().filter(of_kind).count();
            let missing = plan.rejected.iter().filter(|other| other.wanted == rejected.wanted);
            let free = wanted.saturating_sub(missing.count());
            let what = match &rejected.wanted {
                Wanted::Slice(profile) => format!("slices {profile}"),
                Wanted::Whole => "whole GPUs".to_owned(),
            };
            return Err(self.short(what, u32::try_from(wanted).unwrap_or(u32::MAX), free));
        }
        let hold = |served: host::Served| {
            let board = self.boards.get(served.gpu)?;
            let slice = match (served.place, requests.get(served.request)?) {
                (None, _) => None,
                (Some(placement), Wanted::Slice(profile)) => {
                    Some(HeldSlice { profile: profile.clone(), placement })
                }
                (Some(_), Wanted::Whole) => return None,
            };
            Some(HeldGpu { gpu: board.gpu.bdf.clone(), slice })
        };
        let mut held: Vec<HeldGpu> = plan.served.into_iter().filter_map(hold).collect();
        held.sort();
        Ok(held)
    }

    /// Whether the host has GPUs near: how many of the wanted ones could not be on these nodes.
    pub(super) fn far(&self, wanted: &[WantedGpus], nodes: &BTreeSet<u32>) -> u32 {
        if wanted.is_empty() {
            return 0;
        }
        let chosen = self.choose(wanted, nodes).unwrap_or_default();
        let near = |held: &&HeldGpu| {
            let board = self.boards.iter().find(|board| board.gpu.bdf == held.gpu);
            board.and_then(|board| board.node).is_some_and(|node| nodes.contains(&node))
        };
        u32::try_from(chosen.iter().filter(|held| !near(held)).count()).unwrap_or(u32::MAX)
    }

    /// A profile that some GPU of the host has.
    fn known(&self, profile: &ProfileName, wanted: u32) -> Result<(), Lack> {
        let all = || self.boards.iter().map(|board| board.gpu).chain(self.closed.iter().copied());
        if all().any(|gpu| gpu.geometry.as_ref().is_some_and(|g| g.named(profile).is_some())) {
            return Ok(());
        }
        let models: BTreeSet<&str> = all().map(|gpu| gpu.model.as_str()).collect();
        let profiles: BTreeSet<String> = all()
            .filter_map(|gpu| gpu.geometry.as_ref())
            .flat_map(|geometry| geometry.profiles().iter().map(|p| p.name.to_string()))
            .collect();
        Err(Lack::Profile {
            profile: profile.clone(),
            wanted,
            models: models.into_iter().map(str::to_owned).collect(),
            profiles: profiles.into_iter().collect(),
        })
    }

    fn short(&self, what: String, wanted: u32, free: usize) -> Lack {
        let free = u32::try_from(free).unwrap_or(u32::MAX);
        let closed = self.closed.iter().filter_map(|gpu| gpu.closed.clone()).collect();
        Lack::Gpus { what, wanted, free, closed }
    }
}

impl Board<'_> {
    fn plannable(&self) -> host::Gpu<'_> {
        // What is held will be cut, whenever the hardware was read last.
        let cut = self.gpu.mig == Some(true) || !self.standing.is_empty();
        host::Gpu {
            name: &self.gpu.bdf,
            node: self.node,
            mode: if cut { Mode::Mig } else { Mode::Whole },
            switchable: true,
            slices: self.cut.as_deref().map(|(table, values)| (table, values)),
            standing: &self.standing,
            taken: self.whole,
        }
    }
}
