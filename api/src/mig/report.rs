//! What a driver says of a GPU's geometry, and whether it can be so. A driver that answers garbage costs
//! its own GPU, never the host: each error stands for one GPU, and the caller names which.

use std::collections::{BTreeMap, BTreeSet};

use super::geometry::{Engine, Engines, Geometry, Profile};
use super::name::{NameError, ProfileName};
use super::placement::{Instance, Placement};
use crate::units::Bytes;

/// Why a geometry, or an instance that is said to stand in it, cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GeometryError {
    /// A GPU whose driver lists no profile.
    #[error("MIG geometry without a profile")]
    NoProfile,
    /// More profiles than any GPU has.
    #[error("MIG geometry with {count} profiles: at most {}", Geometry::MAX_PROFILES)]
    TooManyProfiles {
        /// How many.
        count: usize,
    },
    /// A name that cannot be read.
    #[error("MIG profile {profile}: unreadable name")]
    Name {
        /// NVML profile id.
        profile: u32,
        /// What is wrong with it.
        #[source]
        source: NameError,
    },
    /// Two profiles with one id, or one name.
    #[error("MIG profile {profile}: {what} occurs twice")]
    Twice {
        /// NVML profile id.
        profile: u32,
        /// Id or name.
        what: &'static str,
    },
    /// A number that cannot be.
    #[error("MIG profile {profile}: {what} of {value}, expected {least} to {most}")]
    Number {
        /// NVML profile id.
        profile: u32,
        /// Which number.
        what: &'static str,
        /// As reported; numbers above 2^31 were negative where the driver counts in `int`.
        value: u64,
        /// Smallest that can be.
        least: u64,
        /// Largest that can be.
        most: u64,
    },
    /// Fewer or more entries than announced a moment before.
    #[error("MIG profile {profile}: {announced} places announced, {given} given")]
    CountChanged {
        /// NVML profile id.
        profile: u32,
        /// What the first call said.
        announced: u32,
        /// What the second call gave.
        given: usize,
    },
    /// A place outside the grid.
    #[error("MIG profile {profile}: place {start}:{size} is outside the grid of {grid} slices")]
    Outside {
        /// NVML profile id.
        profile: u32,
        /// First memory slice.
        start: u32,
        /// Memory slices.
        size: u32,
        /// Memory slices of the GPU.
        grid: u8,
    },
    /// Places of different sizes, or one twice.
    #[error("MIG profile {profile}: place {start}:{size} does not go with its others")]
    Uneven {
        /// NVML profile id.
        profile: u32,
        /// First memory slice.
        start: u32,
        /// Memory slices.
        size: u32,
    },
    /// An instance at a place that its profile cannot have.
    #[error("GPU instance {id}: profile {profile} cannot be at {start}:{size}")]
    Misplaced {
        /// GPU instance id.
        id: u32,
        /// NVML profile id.
        profile: u32,
        /// First memory slice.
        start: u32,
        /// Memory slices.
        size: u32,
    },
    /// Two instances that cannot both be.
    #[error("GPU instances {first} and {second} have the same id or memory slice")]
    Overlap {
        /// GPU instance id.
        first: u32,
        /// GPU instance id.
        second: u32,
    },
}

/// A place as NVML gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportedPlace {
    /// First memory slice.
    pub start: u32,
    /// Memory slices.
    pub size: u32,
}

/// A profile as NVML gives it (`nvmlGpuInstanceProfileInfo_v2_t` and its possible placements).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReportedProfile {
    /// NVML profile id.
    pub id: u32,
    /// Name, with or without NVML's `MIG ` before it.
    pub name: String,
    /// Compute slices.
    pub compute_slices: u32,
    /// Most instances.
    pub instance_count: u32,
    /// Memory of one instance in MiB.
    pub memory_mib: u64,
    /// Video decoders of one instance.
    pub decoders: u32,
    /// Video encoders of one instance.
    pub encoders: u32,
    /// JPEG decoders of one instance.
    pub jpeg: u32,
    /// Optical flow engines of one instance.
    pub optical_flow: u32,
    /// How many places the first call announced.
    pub announced_places: u32,
    /// The places that the second call gave.
    pub places: Vec<ReportedPlace>,
}

/// A GPU's geometry as NVML gives it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReportedGeometry {
    /// Profiles in any order.
    pub profiles: Vec<ReportedProfile>,
}

/// A GPU instance as NVML gives it (`nvmlGpuInstanceInfo_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportedInstance {
    /// GPU instance id.
    pub id: u32,
    /// NVML profile id.
    pub profile: u32,
    /// Where.
    pub place: ReportedPlace,
}

impl ReportedGeometry {
    /// The geometry, once nothing in it contradicts itself. The grid is as large as the largest place.
    ///
    /// # Errors
    /// Whatever cannot be: see [`GeometryError`].
    pub fn check(&self) -> Result<Geometry, GeometryError> {
        let profiles: Vec<Profile> =
            self.profiles.iter().map(ReportedProfile::check).collect::<Result<_, _>>()?;
        let grid = profiles.iter().map(|profile| profile.size).max().unwrap_or_default();
        let limits = engine_limits(&profiles);
        Geometry::new(grid, limits, profiles)
    }
}

/// Kinds of engines that instances have to themselves: those of which no profile's instances have more than the
/// largest profile has. Of the others an instance sees one that others see as well (B200: each of seven instances sees
/// the GPU's one decoder), and a sum says nothing.
fn engine_limits(profiles: &[Profile]) -> Engines {
    let Some(full) = profiles.iter().max_by_key(|p| (p.size, p.compute_slices)) else {
        return Engines::new();
    };
    let own = |kind: Engine| {
        let most = full.engines.get(&kind).copied()?;
        let fits = profiles.iter().all(|profile| {
            let each = profile.engines.get(&kind).copied().unwrap_or_default();
            u64::from(each) * u64::from(check::side_by_side(profile).min(profile.max_instances))
                <= u64::from(most)
        });
        fits.then_some((kind, most))
    };
    Engine::ALL.into_iter().filter_map(own).collect()
}

impl ReportedProfile {
    fn check(&self) -> Result<Profile, GeometryError> {
        let profile = self.id;
        let name: ProfileName =
            self.name.parse().map_err(|source| GeometryError::Name { profile, source })?;
        let given = self.places.len();
        if usize::try_from(self.announced_places) != Ok(given) {
            let announced = self.announced_places;
            return Err(GeometryError::CountChanged { profile, announced, given });
        }
        let size = self.places.first().map_or(0, |place| place.size);
        let size = check::slices(profile, "memory slices", u64::from(size))?;
        let mut starts = BTreeSet::new();
        for &ReportedPlace { start, size: its } in &self.places {
            let uneven = GeometryError::Uneven { profile, start, size: its };
            if its != u32::from(size) {
                return Err(uneven);
            }
            let grid = Geometry::MAX_GRID;
            let outside = GeometryError::Outside { profile, start, size: its, grid };
            let fitting = u8::try_from(start).ok().filter(|&start| start < grid);
            if !starts.insert(fitting.ok_or(outside)?) {
                return Err(uneven);
            }
        }
        let counts = [
            (Engine::Decoder, self.decoders),
            (Engine::Encoder, self.encoders),
            (Engine::Jpeg, self.jpeg),
            (Engine::OpticalFlow, self.optical_flow),
        ];
        let mut engines = BTreeMap::new();
        for (kind, count) in counts.into_iter().filter(|&(_, count)| count > 0) {
            check::number(profile, "engines", u64::from(count), 0, 1024)?;
            engines.insert(kind, count);
        }
        let mib = check::number(profile, "MiB of memory", self.memory_mib, 1, 1 << 24)?;
        let instances = u64::from(self.instance_count);
        Ok(Profile {
            id: profile,
            name,
            compute_slices: check::slices(
                profile,
                "compute slices",
                u64::from(self.compute_slices),
            )?,
            size,
            starts,
            max_instances: check::slices(profile, "instances", instances)?,
            memory: Bytes::new(mib << 20),
            engines,
        })
    }
}

impl Geometry {
    /// Instances that a driver says stand on this GPU, by ascending start.
    ///
    /// # Errors
    /// [`GeometryError::Misplaced`] or [`GeometryError::Overlap`]: nothing can be planned around such an answer.
    pub fn check_instances(
        &self,
        reported: &[ReportedInstance],
    ) -> Result<Vec<Instance>, GeometryError> {
        let mut found: Vec<Instance> = Vec::new();
        for &ReportedInstance { id, profile, place } in reported {
            let ReportedPlace { start, size } = place;
            let fitting = u8::try_from(start).ok().zip(u8::try_from(size).ok());
            let placement = fitting.map(|(start, size)| Placement { profile, start, size });
            let placement = placement.filter(|&placement| self.allows(placement));
            let misplaced = GeometryError::Misplaced { id, profile, start, size };
            let instance = Instance { id, placement: placement.ok_or(misplaced)? };
            let clash =
                |other: &&Instance| other.id == id || other.placement.meets(instance.placement);
            if let Some(other) = found.iter().find(clash) {
                return Err(GeometryError::Overlap { first: other.id, second: id });
            }
            found.push(instance);
        }
        found.sort_by_key(|instance| instance.placement.start);
        Ok(found)
    }
}

/// The checks that a report and a geometry that was read have in common.
pub(super) mod check {
    use std::collections::BTreeSet;

    use super::{Geometry, GeometryError, Profile};

    pub(crate) fn number(
        profile: u32,
        what: &'static str,
        value: u64,
        least: u64,
        most: u64,
    ) -> Result<u64, GeometryError> {
        if (least..=most).contains(&value) {
            Ok(value)
        } else {
            Err(GeometryError::Number { profile, what, value, least, most })
        }
    }

    /// A number of slices or instances.
    pub(crate) fn slices(
        profile: u32,
        what: &'static str,
        value: u64,
    ) -> Result<u8, GeometryError> {
        let most = Geometry::MAX_GRID;
        number(profile, what, value, 1, u64::from(most))?;
        Ok(u8::try_from(value).unwrap_or(most))
    }

    /// How many places of a profile are free of each other: taking the first that fits is best for equal lengths.
    pub(crate) fn side_by_side(profile: &Profile) -> u8 {
        let (mut count, mut free) = (0_u8, 0);
        for &start in &profile.starts {
            if start >= free {
                count = count.saturating_add(1);
                free = start.saturating_add(profile.size);
            }
        }
        count
    }

    pub(crate) fn profiles(grid: u8, profiles: &[Profile]) -> Result<(), GeometryError> {
        if profiles.is_empty() {
            return Err(GeometryError::NoProfile);
        }
        if profiles.len() > Geometry::MAX_PROFILES {
            return Err(GeometryError::TooManyProfiles { count: profiles.len() });
        }
        let (mut ids, mut names) = (BTreeSet::new(), BTreeSet::new());
        for Profile { id: profile, name, compute_slices, size, starts, max_instances, .. } in
            profiles
        {
            let profile = *profile;
            let twice = |what| GeometryError::Twice { profile, what };
            if !ids.insert(profile) {
                return Err(twice("its id"));
            }
            if !names.insert(name) {
                return Err(twice("its name"));
            }
            slices(profile, "memory slices of the grid", u64::from(grid))?;
            slices(profile, "memory slices", u64::from(*size))?;
            slices(profile, "compute slices", u64::from(*compute_slices))?;
            slices(profile, "instances", u64::from(*max_instances))?;
            let count = u64::try_from(starts.len()).unwrap_or(u64::MAX);
            number(profile, "places", count, 1, u64::from(Geometry::MAX_GRID))?;
            let outside = starts.iter().find(|start| start.saturating_add(*size) > grid);
            if let Some(&start) = outside {
                let (start, size) = (u32::from(start), u32::from(*size));
                return Err(GeometryError::Outside { profile, start, size, grid });
            }
        }
        Ok(())
    }
}
