//! MIG: how one GPU can be cut, as values that the supervisor, the registry and the simulator share.
//!
//! ```text
//!  NVML ──► report::ReportedGeometry ──check──► geometry::Geometry ──► the slice planner (crate lease)
//!  people ──► name::SliceName                   placement::Placement ◄──┘ what stands, what is to be made
//! ```
//!
//! A GPU instance covers neighbouring *memory slices* of the GPU's grid. Where it may begin depends on its
//! profile; a profile has an NVML profile id (what creating takes) and a name (what people write). The three
//! numbers that NVML uses (index of the profile query, profile id, instance id) are kept apart by their fields' names.

pub mod geometry;
pub mod name;
pub mod placement;
pub mod report;
#[cfg(test)]
mod tests;

pub use geometry::{ComputeProfile, Engine, Engines, Geometry, Profile};
pub use name::{NameError, ProfileName, SliceName};
pub use placement::{Instance, Placement};
pub use report::{GeometryError, ReportedGeometry, ReportedInstance, ReportedProfile};
