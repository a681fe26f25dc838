//! Which host a lease gets.
//!
//! ```text
//!  what the host reported ──► holdings ─┐
//!  leases accepted, not yet reported ───┴─► placed in order of creation ──► room ──► choose
//! ```
//!
//! Every class is placed by [`bulkhead_lease::place`], the code that the supervisor runs, so that
//! what is accepted here is granted there. A lease counts as held until its host was observed without it.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use bulkhead_api::document::{Capacity, HostShortage};
use bulkhead_api::id::{HostId, LeaseId};
use bulkhead_api::inventory::Inventory;
use bulkhead_api::lease::{Holding, LeaseSpec};
use bulkhead_api::status::HostStatus;
use bulkhead_api::units::Bytes;
use bulkhead_lease::place::{Request, Shortage, Taken, free, offered, place};

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
    Request::of(spec)
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

/// What of a host is taken: what every lease on it holds or will hold, and what nobody gets.
///
/// # Errors
/// The first promised lease without room.
pub fn holdings(status: &HostStatus, promised: &[Promise]) -> Result<Taken, Displaced> {
    let reported = status.leases.iter();
    let held: BTreeMap<LeaseId, Holding> = reported
        .filter_map(|lease| Some((lease.id.clone(), lease.status.holding.clone()?)))
        .collect();
    let quarantined = status.quarantine.iter().map(|kept| kept.resource.clone()).collect();
    let mut taken = Taken { held, quarantined };
    for Promise { id, wants } in promised {
        if !taken.held.contains_key(id) {
            let holding = place(&status.inventory, &taken, wants)
                .map_err(|source| Displaced { id: id.clone(), source })?;
            taken.held.insert(id.clone(), holding);
        }
    }
    Ok(taken)
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
        storage: all.storage,
        storage_free: left.storage,
    }
}

/// Chooses the host with the fewest cores left over, then the least memory, then the least storage, then the
/// first by id: large leases that come later find room.
///
/// # Errors
/// What is short, host by host, in the order given; empty where there is no host.
pub fn choose(candidates: &[Candidate<'_>], wants: &Request) -> Result<HostId, Vec<HostShortage>> {
    let mut shortages = Vec::new();
    let mut fitting = Vec::new();
    for host in candidates {
        match left_over(host, wants) {
            Ok(left) => fitting.push((Reverse(left), Reverse(host.id))),
            Err(short) => shortages.push(HostShortage { host: host.id.clone(), short }),
        }
    }
    fitting.into_iter().max().map(|(_, Reverse(id))| id.clone()).ok_or(shortages)
}

fn left_over(host: &Candidate<'_>, wants: &Request) -> Result<(u32, Bytes, Bytes), Vec<String>> {
    if let Some(why) = &host.barred {
        return Err(vec![why.clone()]);
    }
    let taken = holdings(host.status, &host.promised)
        .map_err(|displaced| vec![format!("{displaced}: {}", displaced.source)])?;
    let holding = place(&host.status.inventory, &taken, wants).map_err(|short| short.short())?;
    let left = free(&host.status.inventory, &taken);
    let pages = holding.hugepages.iter().flat_map(|huge| {
        huge.pages.iter().map(|n| n.pages.saturating_mul(huge.page_size.bytes().get()))
    });
    let memory = pages.fold(holding.memory, |sum, b| sum.saturating_add(Bytes::new(b)));
    let volumes = wants.volumes.iter().map(|volume| Bytes::new(volume.extent_bytes()));
    let storage = volumes.fold(Bytes::default(), Bytes::saturating_add);
    let cores = left.cores.saturating_sub(wants.cores);
    Ok((cores, left.memory.saturating_sub(memory), left.storage.saturating_sub(storage)))
}

#[cfg(test)]
#[path = "place_tests.rs"]
mod tests;
