//! Takes a volume back: the key first, then its place, then what is seen of both.
//!
//! ```text
//!  mapping down, key wiped ─► canary as remembered? ─► place cleared ─► read again, raw ─► check ─► forgotten
//! ```
//!
//! Without its key what was written is noise, so the erase is done once the key is gone and that was seen. The
//! place is cleared besides: the next holder's key would make noise of it anyway.

use bulkhead_api::receipt::Evidence;
use bulkhead_api::resource::Extent;
use ring::rand::{SecureRandom as _, SystemRandom};

use super::check::{
    Canary, Clearing, Contradiction, RANDOM_PLACES, SAMPLE, Sample, Seen, canary_place, places,
    verdict,
};
use super::record::{self, Stage, VolumeRecord};
use super::standing::{PoolDevice, Trust, Wanted, pool};
use super::teardown::take_down;
use super::{Refused, sha256};
use crate::class::{ClassError, Erased, Order, Progress};
use crate::paths::Paths;
use crate::storage::block::{Cleared, Direct};
use crate::storage::dm::DeviceMapper;
use crate::storage::dm::crypt::RESERVED;
use crate::storage::pools::Pools;
use crate::storage::{key, unhex};

/// Takes it back.
pub(super) fn erase(paths: &Paths, pools: &Pools, order: &Order) -> Result<Erased, ClassError> {
    let wanted = Wanted::of(order)?;
    let refused = Refused::new("erase", &wanted);
    let record = record::load(paths, wanted.lease, wanted.volume)
        .map_err(|error| refused.because(&error))?;
    if let Some(record) = &record {
        see_same_place(&wanted, record)?;
    }
    let dm = DeviceMapper::open(&paths.root).map_err(|error| refused.because(&error))?;
    let was_mapped = take_down(&paths.root, &dm, &wanted)?;
    let pool = match pool(pools, &wanted, Trust::ReadNow) {
        Ok(pool) => pool,
        Err(error) if order.weaker_erase => return without_disk(paths, &wanted, &error),
        Err(error) => return Err(error),
    };
    let disk = Direct::read_write(&pool.node).map_err(files("open", &pool))?;
    let mut methods = Vec::new();
    if was_mapped || record.is_some() {
        methods.push("cryptoErase".to_owned());
    }
    let mut weaker = None;
    let record = match record {
        Some(record) => match see_canary(&disk, &pool, &wanted, &record) {
            Ok(()) => Some(record),
            // Nothing that was remembered can be relied on: all of the place is written over instead.
            Err(error) if order.weaker_erase => {
                weaker = Some(format!("the canary was not as remembered: {error}"));
                None
            }
            Err(error) => return Err(error),
        },
        None => None,
    };
    if let Some(record) = &record {
        let record = VolumeRecord { stage: Stage::Erasing, ..record.clone() };
        record::store(paths, &record).map_err(|error| refused.because(&error))?;
    }
    let (clearing, method) = clear(&disk, &pool, &wanted, record.is_some(), &order.progress)?;
    methods.push(method.to_owned());
    let seen = look(&dm, &disk, &pool, &wanted, (clearing, record.as_ref()))?;
    let evidence = verdict(&seen).map_err(|found| {
        let Contradiction { what, expected, found } = found;
        ClassError::ReadBack { what, expected, found }
    })?;
    record::remove(paths, wanted.lease, wanted.volume).map_err(|error| refused.because(&error))?;
    Ok(Erased { methods, evidence, weaker })
}

/// A record of the same name for another place is a volume that was not taken back.
fn see_same_place(wanted: &Wanted<'_>, record: &VolumeRecord) -> Result<(), ClassError> {
    if record.pool == wanted.pool && record.extents == wanted.extents {
        return Ok(());
    }
    Err(ClassError::Refused {
        doing: format!("erase volume {} of lease {}", wanted.volume, wanted.lease),
        why: format!("its record says that it lies elsewhere, in pool {}", record.pool),
    })
}

/// That the disk is the one that the volume was made on.
fn see_canary(
    disk: &Direct,
    pool: &PoolDevice,
    wanted: &Wanted<'_>,
    record: &VolumeRecord,
) -> Result<(), ClassError> {
    let at = canary_place(wanted.extents);
    let now = sha256(&disk.read(at, SAMPLE).map_err(files("read", pool))?);
    if record.stage == Stage::Erasing || now == record.canary {
        return Ok(());
    }
    Err(ClassError::ReadBack {
        what: format!("canary block at byte {at} of pool {} before the erase", wanted.pool),
        expected: format!("SHA-256 {}", record.canary),
        found: format!("SHA-256 {now}"),
    })
}

/// Clears the volume's place by the surest quick way that the disk has. Where nothing is remembered that could
/// show the key gone, a disk without a sure way is written over.
fn clear(
    disk: &Direct,
    pool: &PoolDevice,
    wanted: &Wanted<'_>,
    remembered: bool,
    progress: &Progress,
) -> Result<(Clearing, &'static str), ClassError> {
    let mut quick = Vec::new();
    progress.expect(wanted.bytes());
    for Extent { start, length } in wanted.extents {
        quick.push(disk.clear(*start, *length, progress).map_err(files("clear", pool))?);
    }
    if quick.iter().all(|how| *how == Cleared::Zeroed) {
        return Ok((Clearing::Zeroed, "zero"));
    }
    if !remembered {
        progress.expect(wanted.bytes());
        for Extent { start, length } in wanted.extents {
            disk.overwrite(*start, *length, progress).map_err(files("overwrite", pool))?;
        }
        return Ok((Clearing::Zeroed, "overwrite"));
    }
    progress.expect(RESERVED);
    let canary = canary_place(wanted.extents);
    disk.overwrite(canary, RESERVED, progress).map_err(files("overwrite", pool))?;
    let discarded = quick.iter().all(|how| *how == Cleared::Discarded);
    Ok((Clearing::ReservedEnd, if discarded { "discard" } else { "overwriteCanary" }))
}

fn look(
    dm: &DeviceMapper,
    disk: &Direct,
    pool: &PoolDevice,
    wanted: &Wanted<'_>,
    (clearing, record): (Clearing, Option<&VolumeRecord>),
) -> Result<Seen, ClassError> {
    let refused = Refused::new("look at", wanted);
    let mut random = [0; RANDOM_PLACES * 8];
    SystemRandom::new().fill(&mut random).map_err(|_| ClassError::Refused {
        doing: "choose places to look at".to_owned(),
        why: "no random bytes".to_owned(),
    })?;
    let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |all, byte| all << 8 | u64::from(*byte));
    let random: Vec<u64> = random.chunks(8).map(number).collect();
    let read = |at| disk.read(at, SAMPLE).map_err(files("read", pool));
    let mut samples = Vec::new();
    for at in places(wanted.extents, &random) {
        samples.push(Sample { at, bytes: read(at)? });
    }
    let canary_at = canary_place(wanted.extents);
    let canary_now = read(canary_at)?;
    Ok(Seen {
        mapping: wanted.mapping.clone(),
        mapped: dm.status(&wanted.mapping).map_err(|error| refused.because(&error))?.is_some(),
        key: wanted.key.clone(),
        key_found: key::is_there(&wanted.key).map_err(|error| refused.because(&error))?,
        clearing,
        pool: wanted.pool.to_owned(),
        canary_at,
        canary_now_digest: sha256(&canary_now),
        canary_now,
        canary: record.map(|record| Canary {
            marker: unhex(&record.marker).unwrap_or_default(),
            digest: record.canary.clone(),
        }),
        samples,
    })
}

/// The disk is gone or cannot be read, and the site lets that pass: only the key is seen to be gone.
fn without_disk(
    paths: &Paths,
    wanted: &Wanted<'_>,
    error: &ClassError,
) -> Result<Erased, ClassError> {
    let refused = Refused::new("erase", wanted);
    if key::is_there(&wanted.key).map_err(|error| refused.because(&error))? {
        return Err(ClassError::ReadBack {
            what: format!("key {}", wanted.key),
            expected: "none".to_owned(),
            found: "there".to_owned(),
        });
    }
    record::remove(paths, wanted.lease, wanted.volume).map_err(|error| refused.because(&error))?;
    let none = |what| Evidence { what, found: "none".to_owned() };
    Ok(Erased {
        methods: vec!["cryptoErase".to_owned()],
        evidence: vec![
            none(format!("mapping {}", wanted.mapping)),
            none(format!("key {}", wanted.key)),
        ],
        weaker: Some(format!("the key is gone, its ciphertext was not looked at: {error}")),
    })
}

fn files<'a>(
    doing: &'static str,
    pool: &'a PoolDevice,
) -> impl Fn(std::io::Error) -> ClassError + 'a {
    move |source| ClassError::Files { doing, path: pool.node.clone(), source }
}
