//! An XID comes twice, by NVML's event and by the kernel log, in either order, and NVML drops those that follow each
//! other closely. Each counts once.

use super::line::Slot;

/// How far apart the two may be, in seconds.
pub const APART: u64 = 10;

/// Who said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// NVML's event set.
    Event,
    /// The kernel log.
    Log,
}

/// An XID as one of the two says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// Who.
    pub source: Source,
    /// Which GPU.
    pub slot: Slot,
    /// Number of the XID.
    pub xid: u32,
    /// When, in seconds of a clock that only grows.
    pub at: u64,
}

/// What was said by one and not yet by the other.
#[derive(Debug, Clone, Default)]
pub struct Once {
    open: Vec<Said>,
}

impl Once {
    /// Whether it is news: `false` where the other source said the same a moment before.
    pub fn is_news(&mut self, said: Said) -> bool {
        self.open.retain(|other| said.at.saturating_sub(other.at) <= APART);
        let twin = self.open.iter().position(|other| {
            other.source != said.source && other.slot == said.slot && other.xid == said.xid
        });
        match twin {
            Some(at) => {
                self.open.remove(at);
                false
            }
            None => {
                self.open.push(said);
                true
            }
        }
    }
}
