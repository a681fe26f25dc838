//! Where a GPU instance is, or is to be.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Memory slices of a GPU that one GPU instance covers. A value is checked by the geometry it is used with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// NVML profile id (`nvmlGpuInstanceProfileInfo_t.id`): what creating takes.
    pub profile: u32,
    /// First memory slice.
    pub start: u8,
    /// Memory slices.
    pub size: u8,
}

impl Placement {
    /// First memory slice behind it.
    #[must_use]
    pub const fn end(self) -> u8 {
        self.start.saturating_add(self.size)
    }

    /// One bit for each memory slice that it covers, the lowest for slice 0; slices from 64 on have none.
    #[must_use]
    pub const fn mask(self) -> u64 {
        let ones = match 1_u64.checked_shl(self.size as u32) {
            Some(bit) => bit - 1,
            None => u64::MAX,
        };
        match ones.checked_shl(self.start as u32) {
            Some(mask) => mask,
            None => 0,
        }
    }

    /// Whether a memory slice is in both.
    #[must_use]
    pub const fn meets(self, other: Self) -> bool {
        self.start < other.end() && other.start < self.end()
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "profile {} at {}:{}", self.profile, self.start, self.size)
    }
}

/// A GPU instance as observed. The id is positional: the next instance at the same place has it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// GPU instance id.
    pub id: u32,
    /// Where.
    pub placement: Placement,
}
