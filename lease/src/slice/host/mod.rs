//! Which GPU of a host serves which request, over all GPUs and requests at once.
//!
//! ```text
//!  requests ──► kinds, each so many times ──► options: what one GPU could serve, at what cost   (one list a GPU)
//!  GPU by GPU: cheapest way to have served what is served ──► cheapest at the end ──► exact places
//! ```
//!
//! Minimised, in this order: requests rejected, slices re-created, MIG modes changed, GPUs touched, requests served far
//! from the node that was asked for, value that later requests lose. Exact: every division of the requests
//! over the GPUs is covered, as GPUs do not depend on each other.

mod best;
mod option;
mod shortage;

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_api::mig::{Placement, ProfileName};

use super::{Move, Standing, Table, Values};

pub use self::shortage::{Rejected, Short, Why};

/// How a GPU is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// MIG mode is on: slices can be made.
    Mig,
    /// MIG mode is off: it serves whole, or slices once the mode is on.
    Whole,
}

/// A GPU of the host.
#[derive(Debug, Clone)]
pub struct Gpu<'a> {
    /// How people know it: PCI address or UUID.
    pub name: &'a str,
    /// NUMA node; absent = not known, which is near nothing.
    pub node: Option<u32>,
    /// Its mode now.
    pub mode: Mode,
    /// Whether the mode may be changed while nobody has any of it.
    pub switchable: bool,
    /// How it can be cut, and what its sets are worth; absent where it has no MIG or its geometry is unreadable.
    pub slices: Option<(&'a Table, &'a Values)>,
    /// Slices that stand.
    pub standing: &'a [Standing],
    /// It is a lease's as a whole, or in quarantine: nothing of it is given.
    pub taken: bool,
}

/// One thing that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wanted {
    /// A GPU instance of a profile.
    Slice(ProfileName),
    /// A GPU as a whole.
    Whole,
}

/// Where the requests' cores and NIC are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Near {
    /// NUMA nodes; empty = anywhere.
    pub nodes: BTreeSet<u32>,
    /// Whether a GPU of another node is refused rather than avoided.
    pub required: bool,
}

impl Near {
    fn far(&self, gpu: &Gpu<'_>) -> bool {
        !self.nodes.is_empty() && gpu.node.is_none_or(|node| !self.nodes.contains(&node))
    }
}

/// A request that is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// Which of the requests.
    pub request: usize,
    /// Which of the GPUs.
    pub gpu: usize,
    /// Where on it; absent = all of it.
    pub place: Option<Placement>,
}

/// What is to be done on a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostPlan {
    /// By ascending request.
    pub served: Vec<Served>,
    /// By GPU: slices to make anew elsewhere on it.
    pub moves: Vec<(usize, Move)>,
    /// GPUs whose mode is to be changed first, and to what.
    pub modes: Vec<(usize, Mode)>,
    /// What no GPU serves, the fewest possible; a lease is granted whole, so any means that it is not.
    pub rejected: Vec<Rejected>,
}

/// Requests that are too many to be divided exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{requests} GPU requests of {kinds} kinds at once: more than are divided exactly")]
pub struct TooMany {
    /// Requests.
    pub requests: usize,
    /// Kinds of them.
    pub kinds: usize,
}

/// Divides requests over a host's GPUs.
///
/// # Errors
/// [`TooMany`]: for what no host has room for by far.
pub fn plan(gpus: &[Gpu<'_>], wanted: &[Wanted], near: &Near) -> Result<HostPlan, TooMany> {
    let kinds = Kinds::of(wanted)?;
    let lists: Vec<Vec<option::Choice>> =
        gpus.iter().map(|gpu| option::choices(gpu, &kinds, near)).collect();
    let (chosen, left) = best::divide(&kinds, &lists);
    let mut plan = HostPlan::default();
    let mut open = kinds.requests.clone();
    for (at, (gpu, choice)) in gpus.iter().zip(&chosen).enumerate() {
        if let Some(choice) = choice {
            realise(&mut plan, (at, gpu), choice, &kinds, &mut open);
        }
    }
    plan.served.sort_by_key(|served| served.request);
    for (kind, count) in kinds.names.iter().zip(&left) {
        let requests = open.get(kind).into_iter().flatten().copied().take(usize::from(*count));
        for request in requests {
            plan.rejected.push(shortage::explain(gpus, request, kind, near));
        }
    }
    plan.rejected.sort_by_key(|rejected| rejected.request);
    Ok(plan)
}

/// Turns a choice for one GPU into exact places.
fn realise<'a>(
    plan: &mut HostPlan,
    (at, gpu): (usize, &Gpu<'_>),
    choice: &option::Choice,
    kinds: &Kinds<'a>,
    open: &mut BTreeMap<&'a Wanted, Vec<usize>>,
) {
    let mut requests = Vec::new();
    let mut ids = Vec::new();
    for (kind, &count) in kinds.names.iter().zip(&choice.counts) {
        for _ in 0..count {
            requests.extend(open.get_mut(kind).and_then(Vec::pop));
            ids.extend(option::profile(gpu, kind));
        }
    }
    if choice.switches {
        let to = if ids.is_empty() { Mode::Whole } else { Mode::Mig };
        plan.modes.push((at, to));
    }
    if ids.is_empty() {
        let whole = requests.into_iter().map(|request| Served { request, gpu: at, place: None });
        plan.served.extend(whole);
        return;
    }
    let Some((table, values)) = gpu.slices else { return };
    // The choice was found by the same search, so there is a plan.
    if let Ok(found) = super::plan(table, values, gpu.standing, &ids) {
        let places = requests.into_iter().zip(found.create);
        plan.served.extend(places.map(|(request, place)| Served {
            request,
            gpu: at,
            place: Some(place),
        }));
        plan.moves.extend(found.moves.into_iter().map(|step| (at, step)));
    }
}

/// Requests by kind.
#[derive(Debug)]
struct Kinds<'a> {
    /// Ascending.
    names: Vec<&'a Wanted>,
    /// How many of each.
    counts: Vec<u8>,
    /// Numbers of the requests of each kind, the first one last.
    requests: BTreeMap<&'a Wanted, Vec<usize>>,
}

impl<'a> Kinds<'a> {
    /// Most ways to have served a part of the requests.
    const MOST: usize = 1 << 16;

    fn of(wanted: &'a [Wanted]) -> Result<Self, TooMany> {
        let mut requests: BTreeMap<&Wanted, Vec<usize>> = BTreeMap::new();
        for (at, one) in wanted.iter().enumerate().rev() {
            requests.entry(one).or_default().push(at);
        }
        let too_many = TooMany { requests: wanted.len(), kinds: requests.len() };
        let counts = requests.values().map(|of| u8::try_from(of.len()));
        let counts: Vec<u8> = counts.collect::<Result<_, _>>().map_err(|_| too_many)?;
        let ways = counts.iter().try_fold(1_usize, |ways, &count| {
            ways.checked_mul(usize::from(count) + 1).filter(|&ways| ways <= Self::MOST)
        });
        if ways.is_none() {
            return Err(too_many);
        }
        Ok(Self { names: requests.keys().copied().collect(), counts, requests })
    }
}
