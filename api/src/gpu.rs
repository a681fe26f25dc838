//! GPUs of a lease: what it asks for, and what it holds.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::lease::InstanceKind;
use crate::mig::{Placement, ProfileName};

/// GPUs of one sort that a lease asks for: `{profile: 3g.40gb, count: 1}` or `{whole: 1}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GpuRequest {
    /// Slices of this profile (MIG), as the driver names it: `3g.40gb`. Not beside `whole`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<ProfileName>,
    /// How many slices, 1 or more; absent = 1. Only beside `profile`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// So many whole GPUs, 1 or more. Not beside `profile`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<u32>,
}

/// GPUs of one sort, once it is clear which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WantedGpus {
    /// Slices.
    Slices {
        /// Of this profile.
        profile: ProfileName,
        /// How many.
        count: u32,
    },
    /// Whole GPUs.
    Whole {
        /// How many.
        count: u32,
    },
}

impl GpuRequest {
    /// Most slices and GPUs of one entry: more than any host has.
    pub const MOST: u32 = 1024;

    /// Most entries of a lease.
    pub const MOST_ENTRIES: usize = 16;

    /// Slices of a profile.
    #[must_use]
    pub fn slices(profile: ProfileName, count: u32) -> Self {
        Self { profile: Some(profile), count: Some(count), whole: None }
    }

    /// Whole GPUs.
    #[must_use]
    pub fn whole(count: u32) -> Self {
        Self { whole: Some(count), ..Self::default() }
    }

    /// What it says.
    ///
    /// # Errors
    /// The field below this entry, and a sentence.
    pub fn wanted(&self) -> Result<WantedGpus, (&'static str, String)> {
        let number = |field, count: u32| match count {
            1..=Self::MOST => Ok(count),
            _ => Err((field, format!("{count}: expected 1 to {}", Self::MOST))),
        };
        match (&self.profile, self.count, self.whole) {
            (Some(profile), _, Some(_)) => {
                let why = format!("whole GPUs have no profile: expected {profile} or whole alone");
                Err(("whole", why))
            }
            (None, Some(_), Some(_)) => {
                let why = "count goes with a profile: whole says how many itself".to_owned();
                Err(("count", why))
            }
            (None, _, None) => {
                Err(("profile", "expected a profile such as 3g.40gb, or whole: 1".to_owned()))
            }
            (Some(profile), count, None) => {
                let count = number("count", count.unwrap_or(1))?;
                Ok(WantedGpus::Slices { profile: profile.clone(), count })
            }
            (None, None, Some(whole)) => Ok(WantedGpus::Whole { count: number("whole", whole)? }),
        }
    }
}

/// The first entry that is out of range or not for such an instance.
///
/// # Errors
/// The field's path in a lease and a sentence.
pub fn check(gpus: &[GpuRequest], instance: InstanceKind) -> Result<(), (String, String)> {
    if instance == InstanceKind::BareMetal && !gpus.is_empty() {
        let message = "gpus: a bareMetal lease has the GPUs of the host".to_owned();
        return Err(("spec.gpus".to_owned(), message));
    }
    if gpus.len() > GpuRequest::MOST_ENTRIES {
        let (count, most) = (gpus.len(), GpuRequest::MOST_ENTRIES);
        let message = format!("{count} entries: expected at most {most}");
        return Err(("spec.gpus".to_owned(), message));
    }
    for (at, request) in gpus.iter().enumerate() {
        let field = |name: &str| format!("spec.gpus[{at}].{name}");
        let wanted = request.wanted().map_err(|(name, message)| (field(name), message))?;
        if instance == InstanceKind::Vm {
            return Err(match wanted {
                WantedGpus::Slices { profile, .. } => (
                    field("profile"),
                    format!("{profile}: a slice of a GPU is for a container, not for a vm"),
                ),
                WantedGpus::Whole { .. } => (
                    field("whole"),
                    "whole GPUs cannot be leased to a vm by this version of Bulkhead".to_owned(),
                ),
            });
        }
    }
    Ok(())
}

/// A GPU, or a slice of one, that a lease holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeldGpu {
    /// PCI address, which names the GPU. NVML's UUIDs never do: the next slice at the same place has the same.
    pub gpu: String,
    /// Which part of it; absent = all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<HeldSlice>,
}

/// A slice of a GPU: a GPU instance with one compute instance that has all of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeldSlice {
    /// What was asked for.
    pub profile: ProfileName,
    /// Where.
    pub placement: Placement,
}

impl HeldGpu {
    /// Whether something is in both.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        self.gpu == other.gpu
            && match (&self.slice, &other.slice) {
                (Some(a), Some(b)) => a.placement.meets(b.placement),
                _ => true,
            }
    }
}

impl fmt::Display for HeldGpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.slice {
            None => write!(f, "GPU {}", self.gpu),
            Some(HeldSlice { profile, placement }) => {
                let (start, size) = (placement.start, placement.size);
                write!(f, "slice {profile} at {start}:{size} of GPU {}", self.gpu)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(json: &str) -> GpuRequest {
        serde_json::from_str(json).unwrap()
    }

    fn refused(json: &str, instance: InstanceKind) -> (String, String) {
        check(&[request(json)], instance).unwrap_err()
    }

    #[test]
    fn an_entry_is_slices_of_a_profile_or_whole_gpus() {
        let slices = |count| Ok(WantedGpus::Slices { profile: "3g.40gb".parse().unwrap(), count });
        assert_eq!(request(r#"{"profile": "3g.40gb", "count": 2}"#).wanted(), slices(2));
        assert_eq!(request(r#"{"profile": "3g.40gb"}"#).wanted(), slices(1));
        assert_eq!(request(r#"{"whole": 1}"#).wanted(), Ok(WantedGpus::Whole { count: 1 }));
    }

    #[test]
    fn what_cannot_be_is_refused_by_its_field() {
        let container = InstanceKind::Container;
        for (json, field, says) in [
            (r#"{"profile": "3g.40gb", "count": 0}"#, "count", "0: expected 1 to 1024"),
            (r#"{"whole": 0}"#, "whole", "0: expected 1 to 1024"),
            (r#"{"profile": "3g.40gb", "whole": 1}"#, "whole", "whole GPUs have no profile"),
            (r#"{"whole": 1, "count": 1}"#, "count", "count goes with a profile"),
            ("{}", "profile", "expected a profile such as 3g.40gb"),
            (r#"{"count": 1}"#, "profile", "expected a profile such as 3g.40gb"),
        ] {
            let (at, message) = refused(json, container);
            assert_eq!(at, format!("spec.gpus[0].{field}"), "{json}");
            assert!(message.starts_with(says), "{message}");
        }
        let (at, _) = refused(r#"{"profile": "1g.10gb"}"#, InstanceKind::Vm);
        assert_eq!(at, "spec.gpus[0].profile");
        let (at, message) = refused(r#"{"whole": 1}"#, InstanceKind::Vm);
        assert_eq!(at, "spec.gpus[0].whole");
        assert!(message.contains("cannot be leased to a vm"), "{message}");
        assert_eq!(refused(r#"{"whole": 1}"#, InstanceKind::BareMetal).0, "spec.gpus");
        let many = vec![GpuRequest::whole(1); 17];
        assert_eq!(check(&many, container).unwrap_err().0, "spec.gpus");
        assert!(serde_json::from_str::<GpuRequest>(r#"{"profile": "seven"}"#).is_err());
    }

    #[test]
    fn a_whole_gpu_meets_each_of_its_slices_and_slices_meet_where_they_overlap() {
        let slice = |gpu: &str, start, size| HeldGpu {
            gpu: gpu.to_owned(),
            slice: Some(HeldSlice {
                profile: "1g.10gb".parse().unwrap(),
                placement: Placement { profile: 19, start, size },
            }),
        };
        let whole = HeldGpu { gpu: "0000:41:00.0".to_owned(), slice: None };
        let one = slice("0000:41:00.0", 0, 4);
        assert!(whole.meets(&one) && one.meets(&whole));
        assert!(one.meets(&slice("0000:41:00.0", 3, 1)));
        assert!(!one.meets(&slice("0000:41:00.0", 4, 4)));
        assert!(!one.meets(&slice("0000:c1:00.0", 0, 4)));
        assert_eq!(one.to_string(), "slice 1g.10gb at 0:4 of GPU 0000:41:00.0");
    }
}
