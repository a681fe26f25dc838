//! GPUs for one lease: whole ones, and slices at explicit places beside those that are held, which stay where they are.
//!
//! A whole GPU is one of which nobody holds a part, and slices are cut from GPUs that nobody holds as a whole. GPUs on the
//! lease's nodes come first, then those that are used already, so that whole ones stay for who needs them.
//! Within a GPU every set of places is tried: slices that fit beside what is held are found.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_api::gpu::{HeldGpu, HeldSlice, WantedGpus};
use bulkhead_api::inventory::{Gpu, Inventory};
use bulkhead_api::mig::{Engines, Geometry, Placement, ProfileName};
use bulkhead_api::resource::Resource;

use super::request::Taken;
use super::shortage::Lack;

/// Places that are tried on one GPU before it is passed over: above what any known grid takes.
const TRIES: u32 = 200_000;

/// A GPU with what is held of it.
#[derive(Debug, Clone)]
struct Board<'a> {
    gpu: &'a Gpu,
    node: Option<u32>,
    /// Somebody has it as a whole.
    whole: bool,
    held: Vec<Placement>,
}

impl Board<'_> {
    fn is_free(&self) -> bool {
        !self.whole && self.held.is_empty()
    }

    fn geometry(&self) -> Option<&Geometry> {
        self.gpu.geometry.as_ref().filter(|_| !self.whole)
    }
}

/// What is left of a host's GPUs.
#[derive(Debug)]
pub(super) struct Gpus<'a> {
    boards: Vec<Board<'a>>,
    closed: Vec<&'a Gpu>,
}

impl<'a> Gpus<'a> {
    pub(super) fn of(inventory: &'a Inventory, taken: &Taken) -> Self {
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
                held: here.filter_map(|held| Some(held.slice.as_ref()?.placement)).collect(),
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
        let mut slices: BTreeMap<&ProfileName, u32> = BTreeMap::new();
        let mut whole = 0_u32;
        for wanted in wanted {
            match wanted {
                WantedGpus::Slices { profile, count } => {
                    let sum = slices.entry(profile).or_default();
                    *sum = sum.saturating_add(*count);
                }
                WantedGpus::Whole { count } => whole = whole.saturating_add(*count),
            }
        }
        let mut boards = self.boards.clone();
        let far = |board: &Board<'_>| board.node.is_none_or(|node| !nodes.contains(&node));
        let mut held = Vec::new();
        // Those that cannot be cut first, then those whose mode need not be changed.
        boards.sort_by_key(|board| {
            let cut = (board.gpu.geometry.is_some(), board.gpu.mig == Some(true));
            (far(board), cut, board.gpu.bdf.clone())
        });
        let count = usize::try_from(whole).unwrap_or(usize::MAX);
        let free = boards.iter().filter(|board| board.is_free()).count();
        if count > free {
            return Err(self.short("whole GPUs".to_owned(), whole, free));
        }
        for board in boards.iter_mut().filter(|board| board.is_free()).take(count) {
            board.whole = true;
            held.push(HeldGpu { gpu: board.gpu.bdf.clone(), slice: None });
        }
        // The fullest first.
        boards.sort_by_key(|board| {
            let used: u32 = board.held.iter().map(|place| u32::from(place.size)).sum();
            (far(board), std::cmp::Reverse(used), board.gpu.bdf.clone())
        });
        for (profile, count) in &slices {
            self.known(profile, *count)?;
        }
        let mut left = slices.clone();
        for board in &boards {
            held.extend(most(board, &mut left));
        }
        match left.iter().find(|(_, count)| **count > 0) {
            None => {
                held.sort();
                Ok(held)
            }
            Some((profile, missing)) => {
                let wanted = slices.get(profile).copied().unwrap_or(*missing);
                let free = usize::try_from(wanted.saturating_sub(*missing)).unwrap_or(0);
                Err(self.short(format!("slices {profile}"), wanted, free))
            }
        }
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

/// As many of the slices as one GPU takes, the largest first; they are taken off what is left.
fn most(board: &Board<'_>, left: &mut BTreeMap<&ProfileName, u32>) -> Vec<HeldGpu> {
    let Some(geometry) = board.geometry() else { return Vec::new() };
    let mut wanted: Vec<(&ProfileName, u32, u8)> = Vec::new();
    for (&profile, &count) in left.iter() {
        let Some(known) = geometry.named(profile) else { continue };
        let each = count.min(u32::from(geometry.grid()));
        wanted.extend((0..each).map(|_| (profile, known.id, known.size)));
    }
    wanted.sort_by_key(|(profile, id, size)| (std::cmp::Reverse(*size), *id, (*profile).clone()));
    let mut search = Search { geometry, best: Vec::new(), tries: TRIES };
    search.go(&wanted, &mut Vec::new(), &mut board.held.clone());
    let mut held = Vec::new();
    for (profile, placement) in search.best {
        if let Some(count) = left.get_mut(&profile) {
            *count = count.saturating_sub(1);
        }
        let slice = Some(HeldSlice { profile: profile.clone(), placement });
        held.push(HeldGpu { gpu: board.gpu.bdf.clone(), slice });
    }
    held
}

/// The largest set of slices that fits.
struct Search<'g, 'p> {
    geometry: &'g Geometry,
    best: Vec<(&'p ProfileName, Placement)>,
    tries: u32,
}

impl<'p> Search<'_, 'p> {
    fn go(
        &mut self,
        wanted: &[(&'p ProfileName, u32, u8)],
        chosen: &mut Vec<(&'p ProfileName, Placement)>,
        held: &mut Vec<Placement>,
    ) {
        if chosen.len() > self.best.len() {
            self.best.clone_from(chosen);
        }
        let hopeless = chosen.len() + wanted.len() <= self.best.len();
        let Some(((name, id, _), rest)) = wanted.split_first() else { return };
        if hopeless || self.tries == 0 {
            return;
        }
        self.tries -= 1;
        let profile = self.geometry.profile(*id);
        let places: Vec<Placement> = profile.into_iter().flat_map(|p| p.placements()).collect();
        // The end first: what is left free is then the part where larger ones begin.
        for place in places.into_iter().rev() {
            if fits(self.geometry, held, place) {
                chosen.push((*name, place));
                held.push(place);
                self.go(rest, chosen, held);
                held.pop();
                chosen.pop();
            }
        }
        self.go(rest, chosen, held);
    }
}

/// Whether an instance can be there beside others: places, number of its kind, engines.
fn fits(geometry: &Geometry, held: &[Placement], place: Placement) -> bool {
    if held.iter().any(|other| other.meets(place)) {
        return false;
    }
    let all = || held.iter().copied().chain([place]);
    let most = geometry.profile(place.profile).map_or(0, |profile| profile.max_instances);
    if all().filter(|other| other.profile == place.profile).count() > usize::from(most) {
        return false;
    }
    let mut used = Engines::new();
    for engines in all().filter_map(|other| Some(&geometry.profile(other.profile)?.engines)) {
        for (kind, count) in engines {
            let sum = used.entry(*kind).or_default();
            *sum = sum.saturating_add(*count);
        }
    }
    geometry.engine_limits().iter().all(|(kind, limit)| used.get(kind).is_none_or(|n| n <= limit))
}
