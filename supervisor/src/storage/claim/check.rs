//! Whose a disk is, from its bytes and surroundings: pure.
//!
//! ```text
//!  first and last MiB zero, nobody uses it ──────────────────► Blank     may be claimed
//!  our header, the rest of the table ours or still zero ─────► Begun     a claim was cut: it is done again
//!  our header and our entries, the block of this host ───────► Pool
//!  all else ─────────────────────────────────────────────────► Foreign   never written to
//! ```
//!
//! The first sector of the entries is written last of all ([`super::write`]), so that a disk with entries has
//! everything else; a disk without them holds nothing of anybody.

use crate::storage::claim::sniff;
use crate::storage::gpt::{LEAST_DISK, Layout};
use crate::storage::mark::{self, Block, Kind};

/// How much of each end is looked at.
pub const END: usize = 1 << 20;

/// How much of the start a pool is known by: table and entries, whatever the sectors.
pub const START: usize = 32 << 10;

/// What was read of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Its bytes.
    pub size: u64,
    /// Bytes of a logical sector.
    pub sector: u32,
    /// The first [`END`] bytes.
    pub head: Vec<u8>,
    /// The last [`END`] bytes.
    pub tail: Vec<u8>,
    /// The block at [`mark::OWNER_AT`].
    pub owner: Vec<u8>,
    /// The block at [`mark::STATE_AT`].
    pub state: Vec<u8>,
}

/// What the kernel knows of a disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Partitions that the kernel sees.
    pub partitions: usize,
    /// Who uses it or a partition of it: a sentence part; absent where nobody does.
    pub used: Option<String>,
    /// Why it is no disk for us whatever it holds: `removable`, `read-only`.
    pub unfit: Option<String>,
}

/// Whose a disk is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody's.
    Blank,
    /// A claim of ours that was cut; nothing was ever kept on it.
    Begun(Layout),
    /// Ours, of this host.
    Pool {
        /// Its table.
        layout: Layout,
        /// Whether its state partition was ever formatted by us.
        state: StateMark,
    },
    /// Somebody's: what was found.
    Foreign(String),
}

/// Whether a state partition holds a file system of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateMark {
    /// It never did: it may be formatted.
    Never,
    /// It does.
    Formatted,
    /// The block that says so is damaged.
    Damaged,
}

/// Decides; `host` is the host's system UUID, empty where it has none.
#[must_use]
pub fn verdict(probe: &Probe, around: &Surroundings, host: &str) -> Verdict {
    if let Some(why) = &around.unfit {
        return Verdict::Foreign(why.clone());
    }
    if probe.size < LEAST_DISK || probe.head.len() != END || probe.tail.len() != END {
        return Verdict::Foreign(format!("{} bytes, smaller than {LEAST_DISK}", probe.size));
    }
    if let Some(pool) = pool(probe, host) {
        return pool;
    }
    if let Some(layout) = own_header(probe) {
        let whole = layout.size == probe.size && around.used.is_none();
        return if whole && begun(probe, &layout) {
            Verdict::Begun(layout)
        } else {
            Verdict::Foreign("a Bulkhead pool with a damaged partition table".to_owned())
        };
    }
    let zero = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0);
    if !zero(&probe.head) || !zero(&probe.tail) {
        let Probe { head, tail, size, sector, .. } = probe;
        return Verdict::Foreign(sniff::name(head, tail, *size, *sector));
    }
    if let Some(user) = &around.used {
        return Verdict::Foreign(user.clone());
    }
    match around.partitions {
        0 => Verdict::Blank,
        count => Verdict::Foreign(format!("{count} partitions that the kernel still knows")),
    }
}

fn own_header(probe: &Probe) -> Option<Layout> {
    let sector = usize::try_from(probe.sector).ok()?;
    let header = probe.head.get(sector..sector.checked_mul(2)?)?;
    Layout::of_header(header, probe.sector)
}

/// A whole pool of ours, of this host or another; `None` where it is anything else. Of the probe's ends only the
/// first [`START`] bytes are looked at.
#[must_use]
pub fn pool(probe: &Probe, host: &str) -> Option<Verdict> {
    let layout = own_header(probe)?;
    let entries = layout.entries();
    let place = usize::try_from(layout.primary_entries_at()).ok()?;
    let found = probe.head.get(place..place.checked_add(entries.len())?)?;
    (found == entries).then(|| owned(probe, layout, host))
}

fn owned(probe: &Probe, layout: Layout, host: &str) -> Verdict {
    if layout.size > probe.size {
        let (was, is) = (layout.size, probe.size);
        return Verdict::Foreign(format!(
            "a Bulkhead pool of a disk of {was} bytes, this has {is}"
        ));
    }
    let id = layout.disk;
    match mark::decode(Kind::Owner, id, &probe.owner) {
        Block::Whole(owner) if owner == host => {
            let state = match mark::decode(Kind::State, id, &probe.state) {
                Block::Absent => StateMark::Never,
                Block::Whole(_) => StateMark::Formatted,
                Block::Damaged => StateMark::Damaged,
            };
            Verdict::Pool { layout, state }
        }
        Block::Whole(owner) => {
            Verdict::Foreign(format!("Bulkhead pool {id} of the host with UUID {owner:?}"))
        }
        Block::Absent | Block::Damaged => {
            Verdict::Foreign(format!("Bulkhead pool {id} without a readable owner"))
        }
    }
}

/// Whether both ends hold nothing but pieces of our table, and no entries yet.
fn begun(probe: &Probe, layout: &Layout) -> bool {
    let (mut head, mut tail) = (vec![0; END], vec![0; END]);
    let tail_from = probe.size.saturating_sub(END as u64);
    for (at, bytes) in [
        (0, layout.protective_mbr()),
        (layout.primary_header_at(), layout.primary_header()),
        (layout.backup_entries_at(), layout.entries()),
        (layout.backup_header_at(), layout.backup_header()),
    ] {
        let (end, at) = if at < END as u64 { (&mut head, at) } else { (&mut tail, at - tail_from) };
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let Some(place) = end.get_mut(at..at.saturating_add(bytes.len())) else { return false };
        place.copy_from_slice(&bytes);
    }
    let sector = usize::try_from(probe.sector).unwrap_or(END);
    let pieces = |found: &[u8], ours: &[u8]| {
        let mut both = found.chunks(sector).zip(ours.chunks(sector));
        both.all(|(found, ours)| found == ours || found.iter().all(|&byte| byte == 0))
    };
    pieces(&probe.head, &head) && pieces(&probe.tail, &tail)
}
