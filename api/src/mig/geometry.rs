//! How a GPU can be cut: its grid of memory slices and its profiles.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::name::ProfileName;
use super::placement::Placement;
use super::report::{GeometryError, check};
use crate::units::Bytes;

/// A kind of engine that a GPU has some of, beside its compute slices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum Engine {
    /// Video decoder (NVDEC).
    Decoder,
    /// Video encoder (NVENC).
    Encoder,
    /// JPEG decoder (NVJPG).
    Jpeg,
    /// Optical flow (OFA).
    OpticalFlow,
}

impl Engine {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Decoder, Self::Encoder, Self::Jpeg, Self::OpticalFlow];
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Decoder => "decoders",
            Self::Encoder => "encoders",
            Self::Jpeg => "JPEG decoders",
            Self::OpticalFlow => "optical flow engines",
        })
    }
}

/// How many of each kind; a kind that is not in it: none.
pub type Engines = BTreeMap<Engine, u32>;

/// One way of cutting a GPU instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// NVML profile id, which creating takes; unique within the geometry.
    pub id: u32,
    /// What people write; unique within the geometry.
    pub name: ProfileName,
    /// Compute slices, above 0.
    pub compute_slices: u8,
    /// Memory slices, 1 to [`Geometry::MAX_GRID`].
    pub size: u8,
    /// Memory slices where it may begin; not empty, each with `size` slices of the grid from there.
    pub starts: BTreeSet<u8>,
    /// Most instances of it at the same time, 1 to the number that fits side by side.
    pub max_instances: u8,
    /// Memory of one instance.
    pub memory: Bytes,
    /// Engines of one instance.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub engines: Engines,
}

impl Profile {
    /// The places it may take, ascending.
    pub fn placements(&self) -> impl Iterator<Item = Placement> {
        let (profile, size) = (self.id, self.size);
        self.starts.iter().map(move |&start| Placement { profile, start, size })
    }

    /// Compute instances that a GPU instance of this profile can have (NVIDIA MIG User Guide: the profile id is the
    /// place in 1c, 2c, 3c, 4c, 7c; a part leaves no slice that no other part could use).
    #[must_use]
    pub fn compute_profiles(&self) -> Vec<ComputeProfile> {
        let slices = self.compute_slices;
        let known = [1_u8, 2, 3, 4, 7].into_iter().zip(0..);
        known
            .filter(|&(part, _)| part <= slices && !(part == 3 && slices == 4))
            .map(|(part, id)| ComputeProfile { id, slices: part })
            .collect()
    }
}

/// One way of cutting a compute instance out of a GPU instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ComputeProfile {
    /// NVML compute instance profile id.
    pub id: u32,
    /// Compute slices.
    pub slices: u8,
}

/// How a GPU can be cut. Every value was checked, by [`super::report::ReportedGeometry::check`] or when it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", try_from = "Unchecked")]
pub struct Geometry {
    grid: u8,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    engine_limits: Engines,
    profiles: Vec<Profile>,
}

/// A geometry as it is read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Unchecked {
    grid: u8,
    #[serde(default)]
    engine_limits: Engines,
    profiles: Vec<Profile>,
}

impl TryFrom<Unchecked> for Geometry {
    type Error = GeometryError;

    fn try_from(read: Unchecked) -> Result<Self, GeometryError> {
        Self::new(read.grid, read.engine_limits, read.profiles)
    }
}

impl Geometry {
    /// Most memory slices of a grid: one bit each.
    pub const MAX_GRID: u8 = 64;
    /// Most profiles of a GPU.
    pub const MAX_PROFILES: usize = 64;

    /// From its parts: memory slices, engines whose sum over all instances is bounded, profiles in any order.
    ///
    /// # Errors
    /// What [`GeometryError`] names: no profile, one twice, a place outside the grid, a size or bound of 0.
    pub fn new(
        grid: u8,
        engine_limits: Engines,
        mut profiles: Vec<Profile>,
    ) -> Result<Self, GeometryError> {
        check::profiles(grid, &profiles)?;
        profiles.sort_by_key(|profile| profile.id);
        for profile in &mut profiles {
            profile.max_instances = profile.max_instances.min(check::side_by_side(profile));
        }
        Ok(Self { grid, engine_limits, profiles })
    }

    /// Memory slices of the whole GPU.
    #[must_use]
    pub fn grid(&self) -> u8 {
        self.grid
    }

    /// Bounds of the engines of all instances together; a kind that is not in it has none, as instances are only
    /// shown so many, or the slices decide already.
    #[must_use]
    pub fn engine_limits(&self) -> &Engines {
        &self.engine_limits
    }

    /// Profiles by ascending id; not empty.
    #[must_use]
    pub fn profiles(&self) -> &[Profile] {
        &self.profiles
    }

    /// The profile with an NVML profile id.
    #[must_use]
    pub fn profile(&self, id: u32) -> Option<&Profile> {
        self.profiles.iter().find(|profile| profile.id == id)
    }

    /// The profile with a name.
    #[must_use]
    pub fn named(&self, name: &ProfileName) -> Option<&Profile> {
        self.profiles.iter().find(|profile| profile.name == *name)
    }

    /// Whether a profile of this geometry may be at that place of an empty GPU.
    #[must_use]
    pub fn allows(&self, place: Placement) -> bool {
        self.profile(place.profile)
            .is_some_and(|p| p.size == place.size && p.starts.contains(&place.start))
    }

    /// The id that NVML gives to an instance at a place: `grid / size - 1 + start / size`
    /// (NVIDIA/open-gpu-kernel-modules, `kmigmgr_ga100.c`); absent where sizes do not divide.
    #[must_use]
    pub fn instance_id(&self, place: Placement) -> Option<u32> {
        let whole = |a: u8, b: u8| a.checked_rem(b).filter(|rest| *rest == 0).map(|_| a / b);
        let parts = whole(self.grid, place.size)?;
        let before = whole(place.start, place.size)?;
        Some(u32::from(parts).checked_sub(1)?.saturating_add(u32::from(before)))
    }
}
