//! How a volume stands: its mapping against its record and what was ordered.

use std::path::PathBuf;

use bulkhead_api::id::{LeaseId, VolumeName};
use bulkhead_api::resource::{EXTENT, Extent, Resource};

use super::record::{Stage, VolumeRecord};
use super::{Refused, name};
use crate::class::{ClassError, Order};
use crate::storage::disk::DeviceNumber;
use crate::storage::dm::DeviceMapper;
use crate::storage::dm::crypt::{self, RESERVED, Segment};
use crate::storage::dm::wire::Device;
use crate::storage::pools::Pools;

/// A volume as it was ordered, checked.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) lease: &'a LeaseId,
    pub(super) volume: &'a VolumeName,
    pub(super) pool: &'a str,
    pub(super) extents: &'a [Extent],
    /// Name of its mapping.
    pub(super) mapping: String,
    /// Description of its key.
    pub(super) key: String,
}

impl<'a> Wanted<'a> {
    pub(super) fn of(order: &'a Order) -> Result<Self, ClassError> {
        let Resource::Volume { name: volume, pool, extents } = &order.resource else {
            return Err(ClassError::Unsupported(format!("{} is no volume", order.resource)));
        };
        let whole = |extent: &Extent| {
            let multiple =
                extent.start.is_multiple_of(EXTENT) && extent.length.is_multiple_of(EXTENT);
            multiple && extent.length > 0 && extent.start.checked_add(extent.length).is_some()
        };
        let apart = extents.is_sorted_by(|a, b| a.end() <= b.start);
        if extents.is_empty() || !extents.iter().all(whole) || !apart {
            let doing = format!("read the extents of volume {volume} of lease {}", order.lease);
            return Err(ClassError::Refused {
                doing,
                why: format!("expected ascending multiples of {EXTENT} bytes"),
            });
        }
        let lease = &order.lease;
        let (mapping, key) = (name::mapping(lease, volume), name::key(lease, volume));
        Ok(Self { lease, volume, pool, extents, mapping, key })
    }

    /// Bytes of all extents.
    pub(super) fn bytes(&self) -> u64 {
        self.extents.iter().fold(0, |sum, extent| sum.saturating_add(extent.length))
    }
}

/// The partition that a pool's volumes are on.
#[derive(Debug)]
pub(super) struct PoolDevice {
    pub(super) node: PathBuf,
    pub(super) number: DeviceNumber,
}

/// Whether a disk is read again to see that it is the pool it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// It was read before and has not been taken out since.
    Known,
    /// It is read now: something is to be written there.
    ReadNow,
}

/// Finds a pool by its id, and sees that the extents are in it.
pub(super) fn pool(
    pools: &Pools,
    wanted: &Wanted<'_>,
    trust: Trust,
) -> Result<PoolDevice, ClassError> {
    let doing = || format!("find pool {}", wanted.pool);
    let look = || -> Result<PoolDevice, String> {
        let pool = match trust {
            Trust::Known => pools.find(wanted.pool),
            Trust::ReadNow => pools.find_again(wanted.pool),
        }?;
        let part = pool.volumes().map_err(|error| error.to_string())?;
        let length = pool.layout.pool_length();
        if part.size < length {
            return Err(format!("its partition has {} of {length} bytes", part.size));
        }
        if wanted.extents.iter().any(|extent| extent.end() > length) {
            return Err(format!("extents behind its end at byte {length}"));
        }
        Ok(PoolDevice { node: part.node.clone(), number: part.number })
    };
    look().map_err(|why| ClassError::Refused { doing: doing(), why })
}

/// How a volume stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// There is no mapping.
    Absent,
    /// A mapping whose making or erase was cut: nobody had it, or nobody will.
    Partial,
    /// Finished, and as ordered.
    Whole(Device),
    /// Finished once, and not as ordered now.
    Drifted(String),
}

/// Looks.
pub(super) fn standing(
    dm: &DeviceMapper,
    wanted: &Wanted<'_>,
    pool: DeviceNumber,
    record: Option<&VolumeRecord>,
) -> Result<Standing, ClassError> {
    let refused = Refused::new("look at the mapping of", wanted);
    let Some(device) = dm.status(&wanted.mapping).map_err(|error| refused.because(&error))? else {
        return Ok(Standing::Absent);
    };
    let finished =
        |record: &&VolumeRecord| record.stage == Stage::Made && record.mapping == device.uuid;
    if record.filter(finished).is_none() {
        return Ok(Standing::Partial);
    }
    let table = dm.table(&wanted.mapping).map_err(|error| refused.because(&error))?;
    let segments: Option<Vec<Segment>> = table.iter().map(crypt::segment).collect();
    let expected = crypt::segments(wanted.extents, pool, RESERVED);
    Ok(if device.suspended || !device.live {
        Standing::Drifted(format!("mapping {} is suspended", wanted.mapping))
    } else if segments.as_deref() != Some(&expected) {
        Standing::Drifted(format!("mapping {} lies elsewhere than granted", wanted.mapping))
    } else {
        Standing::Whole(device)
    })
}
