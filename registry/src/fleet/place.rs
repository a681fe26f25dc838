//! Which host a lease gets.
//!
//! ```text
//!  what the host reported ──► holdings ─┐
//!  leases accepted, not yet reported ───┴─► placed in order of creation ──► room ──► choose
//! ```
//!
//! Cores and nodes are placed by [`bulkhead_lease::place`], the code that the supervisor runs, so that
//! what is accepted here is granted there. A lease counts as held until its host was observed without it.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use bulkhead_api::document::{Capacity, HostShortage};
use bulkhead_api::id::{HostId, LeaseId};
use bulkhead_api::inventory::Inventory;
use bulkhead_api::lease::{Holding, LeaseSpec};
use bulkhead_api::status::HostStatus;
use bulkhead_lease::place::{Request, Shortage, free, offered, place};

/// A lease that the registry promised to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promise {
    /// Which lease.
    pub id: LeaseId,
    /// What it wants.
    pub wants: Request,
}

/// What a lease wants of the classes that are placed.
#[must_use]
pub fn wants(spec: &LeaseSpec) -> Request {
    Request { cores: spec.cpus, memory: spec.memory }
}

/// A host that may be chosen.
#[derive(Debug, Clone)]
pub struct Candidate<'a> {
    /// Its id.
    pub id: &'a HostId,
    /// Its last report.
    pub status: &'a HostStatus,
    /// Leases promised to it, in order of creation.
    pub promised: Vec<Promise>,
    /// Why it gets no lease now, however much is free.
    pub barred: Option<String>,
}

/// A promised lease has no room any more: the host shrank, or holds what was not promised.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("lease {id}, accepted before, does not fit any more")]
pub struct Displaced {
    /// The lease.
    pub id: LeaseId,
    /// What is short.
    pub source: Shortage,
}

/// What every lease on a host holds or will hold.
///
/// # Errors
/// The first promised lease without room.
pub fn holdings(
    status: &HostStatus,
    promised: &[Promise],
) -> Result<BTreeMap<LeaseId, Holding>, Displaced> {
    let reported = status.leases.iter();
    let mut held: BTreeMap<LeaseId, Holding> = reported
        .filter_map(|lease| Some((lease.id.clone(), lease.status.holding.clone()?)))
        .collect();
    for Promise { id, wants } in promised {
        if !held.contains_key(id) {
            let holding = place(&status.inventory, &held, *wants)
                .map_err(|source| Displaced { id: id.clone(), source })?;
            held.insert(id.clone(), holding);
        }
    }
    Ok(held)
}

/// Room for leases on a host; nothing is free while a promised lease has no room.
#[must_use]
pub fn capacity(status: &HostStatus, promised: &[Promise]) -> Capacity {
    let inventory: &Inventory = &status.inventory;
    let all = offered(inventory);
    let left = holdings(status, promised).map(|held| free(inventory, &held)).unwrap_or_default();
    Capacity {
        cores: all.cores,
        cores_free: left.cores,
        memory: all.memory,
        memory_free: left.memory,
    }
}

/// Chooses the host with the fewest cores left over, then the least memory, then the first by id: large
/// leases that come later find room.
///
/// # Errors
/// What is short, host by host, in the order given; empty where there is no host.
pub fn choose(candidates: &[Candidate<'_>], wants: Request) -> Result<HostId, Vec<HostShortage>> {
    let mut shortages = Vec::new();
    let mut fitting = Vec::new();
    for host in candidates {
        match left_over(host, wants) {
            Ok((cores, memory)) => fitting.push((Reverse((cores, memory)), Reverse(host.id))),
            Err(short) => shortages.push(HostShortage { host: host.id.clone(), short }),
        }
    }
    fitting.into_iter().max().map(|(_, Reverse(id))| id.clone()).ok_or(shortages)
}

fn left_over(host: &Candidate<'_>, wants: Request) -> Result<(u32, u64), Vec<String>> {
    if let Some(why) = &host.barred {
        return Err(vec![why.clone()]);
    }
    let held = holdings(host.status, &host.promised)
        .map_err(|displaced| vec![format!("{displaced}: {}", displaced.source)])?;
    place(&host.status.inventory, &held, wants).map_err(|shortage| shortage.short())?;
    let left = free(&host.status.inventory, &held);
    let cores = left.cores.saturating_sub(wants.cores);
    Ok((cores, left.memory.saturating_sub(wants.memory).get()))
}

#[cfg(test)]
#[path = "place_tests.rs"]
mod tests;
