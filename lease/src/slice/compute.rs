//! Compute instances within one GPU instance. They share its memory, so all of them are of one tenant.

use bulkhead_api::id::TenantName;
use bulkhead_api::mig::{ComputeProfile, Profile, ProfileName};

/// A compute instance that stands or is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Whose.
    pub tenant: TenantName,
    /// Compute slices, above 0.
    pub slices: u8,
}

/// Why the parts cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PartLack {
    /// Parts of a GPU instance share its memory.
    #[error("{profile}: compute instances of {first} and {second} would share memory")]
    Tenants {
        /// The GPU instance.
        profile: ProfileName,
        /// One tenant.
        first: TenantName,
        /// Another.
        second: TenantName,
    },
    /// No compute instance has so many slices.
    #[error("{profile}: no compute instance of {slices} slices")]
    NoPart {
        /// The GPU instance.
        profile: ProfileName,
        /// Wanted.
        slices: u8,
    },
    /// More slices than there are.
    #[error("{profile}: compute instances of {wanted} slices, it has {has}")]
    Full {
        /// The GPU instance.
        profile: ProfileName,
        /// With what stands.
        wanted: u32,
        /// Its own.
        has: u8,
    },
}

/// Compute instance profiles to make in a GPU instance beside those that stand, the largest first: where the driver chooses
/// places, smaller parts would leave holes for larger ones.
///
/// # Errors
/// See [`PartLack`].
pub fn plan(
    profile: &Profile,
    standing: &[Part],
    wanted: &[Part],
) -> Result<Vec<ComputeProfile>, PartLack> {
    let name = || profile.name.clone();
    let mut parts = standing.iter().chain(wanted);
    if let Some(Part { tenant: first, .. }) = parts.next()
        && let Some(Part { tenant: second, .. }) = parts.find(|part| part.tenant != *first)
    {
        let (first, second) = (first.clone(), second.clone());
        return Err(PartLack::Tenants { profile: name(), first, second });
    }
    let known = profile.compute_profiles();
    let mut make = Vec::new();
    for &Part { slices, .. } in wanted {
        let part = known.iter().find(|part| part.slices == slices);
        make.push(*part.ok_or_else(|| PartLack::NoPart { profile: name(), slices })?);
    }
    let all = standing.iter().chain(wanted).map(|part| u32::from(part.slices));
    let (total, has) = (all.fold(0, u32::saturating_add), profile.compute_slices);
    if total > u32::from(has) {
        return Err(PartLack::Full { profile: name(), wanted: total, has });
    }
    make.sort_by_key(|part| std::cmp::Reverse(part.slices));
    Ok(make)
}
