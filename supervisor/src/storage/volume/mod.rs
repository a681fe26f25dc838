//! Volumes of leases: encrypted pieces of a pool whose keys are only in the kernel's memory.
//!
//! ```text
//!  Holding: pool, extents ─► [attach] mapping bh-TENANT.LEASE.VOLUME ─► container: mounted, bound by the bundle
//!                                                                   └► vm: /dev/mapper/NAME
//!                         ─► [erase]  key wiped, place cleared, read again ─► evidence
//! ```
//!
//! | file | what |
//! |---|---|
//! | `attach` | key, mapping, canary, file system, hand-over |
//! | `erase` | key, place, second look |
//! | [`check`] | whether the second look shows an erase |
//! | `standing`, `teardown` | how a mapping stands; how it goes |
//! | [`record`], [`name`] | what is remembered; names to and fro |
//!
//! A key ends with the boot, and with it the content: after a reboot the same lease has an empty volume.

mod attach;
pub mod check;
mod erase;
pub mod name;
pub mod record;
mod standing;
mod teardown;

use std::collections::BTreeMap;

use bulkhead_api::chain::Chain;
use bulkhead_api::id::{LeaseId, VolumeName};
use bulkhead_api::resource::{Extent, Resource};
use ring::digest::{SHA256, digest};
use tracing::warn;

use self::standing::Wanted;
use crate::class::{Attached, Class, ClassError, Erased, Order};
use crate::paths::Paths;
use crate::storage::dm::DeviceMapper;
use crate::storage::dm::crypt::{self, Segment};
use crate::storage::hex;
use crate::storage::pools::Pools;

/// The class of [`Resource::Volume`].
#[derive(Debug)]
pub struct Volumes {
    paths: Paths,
    pools: Pools,
}

impl Volumes {
    /// Of a host whose state is mounted: records are kept in [`Paths::state`].
    #[must_use]
    pub fn new(paths: Paths) -> Self {
        let pools = Pools::new(paths.root.clone());
        Self { paths, pools }
    }

    /// Mappings by what their tables say, which need no record.
    fn mapped(&self) -> Result<Vec<(LeaseId, Resource)>, String> {
        let text = |error: &dyn std::error::Error| Chain(error).to_string();
        let dm = DeviceMapper::open(&self.paths.root).map_err(|e| text(&e))?;
        let mut found = Vec::new();
        for (mapping, _) in dm.list().map_err(|e| text(&e))? {
            let Some((lease, name)) = name::parse(&mapping) else { continue };
            let table = dm.table(&mapping).map_err(|e| text(&e))?;
            let segments: Option<Vec<Segment>> = table.iter().map(crypt::segment).collect();
            let first = segments.as_ref().and_then(|segments| segments.first());
            let pool = match first {
                Some(segment) => self.pools.of(segment.device)?,
                None => None,
            };
            if let (Some(segments), Some(pool)) = (&segments, pool) {
                let extents: Vec<Extent> = crypt::extents(segments);
                found.push((lease, Resource::Volume { name, pool: pool.id(), extents }));
            } else {
                // Its making was cut before it had a table, or its disk is gone or does not answer: a record may know
                // more.
                warn!(mapping, "a mapping of ours lies on no pool");
            }
        }
        Ok(found)
    }
}

impl Class for Volumes {
    fn found(&self) -> Result<Vec<(LeaseId, Resource)>, ClassError> {
        let failed = |why| ClassError::Refused { doing: "look for volumes".to_owned(), why };
        // A host without a device mapper has no mappings.
        let mapped = if self.paths.root.join("dev/mapper/control").exists() {
            self.mapped().map_err(failed)?
        } else {
            Vec::new()
        };
        let mut all: BTreeMap<(LeaseId, VolumeName), Resource> = BTreeMap::new();
        for (lease, resource) in mapped {
            if let Resource::Volume { name, .. } = &resource {
                all.insert((lease, name.clone()), resource);
            }
        }
        let records = record::all(&self.paths);
        for record in records.map_err(|error| failed(Chain(&error).to_string()))? {
            // The extents as they were granted: a table shows neighbours as one.
            let (name, pool, extents) = (record.volume, record.pool, record.extents);
            let resource = Resource::Volume { name: name.clone(), pool, extents };
            all.insert((record.lease, name), resource);
        }
        Ok(all.into_iter().map(|((lease, _), resource)| (lease, resource)).collect())
    }

    fn observe(&self, order: &Order) -> Result<Attached, ClassError> {
        attach::observe(&self.paths, &self.pools, order)
    }

    fn attach(&self, order: &Order) -> Result<(), ClassError> {
        attach::attach(&self.paths, &self.pools, order)
    }

    fn erase(&self, order: &Order) -> Result<Erased, ClassError> {
        erase::erase(&self.paths, &self.pools, order)
    }
}

/// Makes errors of other seams ones of the class: what was done with which volume, and the cause.
struct Refused(String);

impl Refused {
    fn new(doing: &str, wanted: &Wanted<'_>) -> Self {
        Self(format!("{doing} volume {} of lease {}", wanted.volume, wanted.lease))
    }

    fn because(&self, error: &dyn std::error::Error) -> ClassError {
        ClassError::Refused { doing: self.0.clone(), why: Chain(error).to_string() }
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

#[cfg(test)]
mod tests;
