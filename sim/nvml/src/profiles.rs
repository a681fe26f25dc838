//! GPU models and their MIG geometry, read from `data/mig-profiles.json`.
//!
//! Sources of every number are named in that file, profile by profile. Where a public number is
//! missing, the functions here fall back to a share of the whole GPU and say so.

use std::sync::LazyLock;

use serde::Deserialize;

const TABLE: &str = include_str!("../data/mig-profiles.json");

/// Engines of a GPU or instance, in the order of NVML's structures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Engines {
    /// Copy engines.
    pub copy: u32,
    /// Video decoders.
    pub decoders: u32,
    /// Video encoders.
    pub encoders: u32,
    /// JPEG decoders.
    pub jpeg: u32,
    /// Optical-flow accelerators.
    pub optical_flow: u32,
}

/// How a GPU instance of one profile looks on one model.
#[derive(Debug, Clone, Deserialize)]
pub struct Profile {
    /// Such as `1g.10gb+me`.
    pub name: String,
    /// `NVML_GPU_INSTANCE_PROFILE_*`: the number that asks for a profile's description.
    pub nvml_profile_enum: u32,
    /// The number that creates instances.
    pub gi_profile_id: u32,
    /// Compute slices.
    pub slices: u32,
    /// How many instances of it a GPU may have.
    pub max_instances: u32,
    /// Where on the grid it may start.
    pub placement_starts: Vec<u32>,
    /// Grid units that it takes.
    pub placement_size: u32,
    memory_mib: Option<u64>,
    sm: Option<u32>,
    copy_engines: Option<u32>,
    dec: Option<u32>,
    enc: Option<u32>,
    jpeg: Option<u32>,
    ofa: Option<u32>,
}

impl Profile {
    /// Multiprocessors; without a public number, 16 a slice.
    #[must_use]
    pub fn multiprocessors(&self) -> u32 {
        self.sm.unwrap_or(self.slices * 16)
    }

    /// Engines; without a public number, one of a kind.
    #[must_use]
    pub fn engines(&self) -> Engines {
        Engines {
            copy: self.copy_engines.unwrap_or(self.slices),
            decoders: self.dec.unwrap_or(1),
            encoders: self.enc.unwrap_or(0),
            jpeg: self.jpeg.unwrap_or(1),
            optical_flow: self.ofa.unwrap_or(0),
        }
    }

    /// Whether the instance may run graphics.
    #[must_use]
    pub fn graphics(&self) -> bool {
        self.name.ends_with("+gfx")
    }
}

/// A GPU model.
#[derive(Debug, Clone, Deserialize)]
pub struct Model {
    /// Such as `h100-80`; the name in state files.
    pub key: String,
    name: String,
    /// Such as `Hopper GH100`.
    pub arch: String,
    compute_capability: String,
    pci_device_ids: Vec<String>,
    #[serde(default)]
    pci_subsystem_samples: Vec<String>,
    memory_total_mib: Option<u64>,
    /// Whether it can be partitioned.
    pub mig_capable: bool,
    /// Grid units; 0 without MIG.
    pub memory_slices: u32,
    /// Compute slices; 0 without MIG.
    pub compute_slices: u32,
    engines_additive: Vec<String>,
    default_placement_order: Option<std::collections::BTreeMap<String, Vec<u32>>>,
    /// Empty without MIG.
    #[serde(default)]
    pub profiles: Vec<Profile>,
}

impl Model {
    /// The product name; of several that share a row, the first.
    #[must_use]
    pub fn product(&self) -> &str {
        self.name.split(" / ").next().unwrap_or(&self.name)
    }

    /// Whether mode changes need a reset and outlive a reload of the driver (true before Hopper).
    #[must_use]
    pub fn is_ampere(&self) -> bool {
        self.arch.starts_with("Ampere")
    }

    /// `NVML_DEVICE_ARCH_*`.
    #[must_use]
    pub fn architecture(&self) -> u32 {
        match self.arch.split(' ').next() {
            Some("Ampere") => 7,
            Some("Ada") => 8,
            Some("Hopper") => 9,
            Some("Blackwell") => 10,
            _ => u32::MAX,
        }
    }

    /// CUDA compute capability, major and minor.
    #[must_use]
    pub fn compute_capability(&self) -> (u32, u32) {
        let mut parts = self.compute_capability.split('.').map(|part| part.parse().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    }

    /// PCI device id in the upper, vendor id in the lower half, as NVML writes it.
    #[must_use]
    pub fn pci_device_id(&self) -> u32 {
        combined_id(self.pci_device_ids.first())
    }

    /// The same of the board; 0 where none is known.
    #[must_use]
    pub fn pci_subsystem_id(&self) -> u32 {
        combined_id(self.pci_subsystem_samples.first())
    }

    /// Whole memory; without a public number, what the largest profile or the product promises.
    #[must_use]
    pub fn memory_mib(&self) -> u64 {
        let promised = || {
            let full = self.profiles.iter().max_by_key(|profile| profile.placement_size)?;
            let gb: u64 = full.name.split_once('.')?.1.split_once("gb")?.0.parse().ok()?;
            Some(gb * 1024)
        };
        let small = if matches!(self.key.as_str(), "l4" | "l2") { 24 } else { 48 };
        self.memory_total_mib.or_else(promised).unwrap_or(small * 1024)
    }

    /// Memory of an instance; without a public number, its share of the whole.
    #[must_use]
    pub fn instance_memory_mib(&self, profile: &Profile) -> u64 {
        let share = self.memory_mib() * u64::from(profile.placement_size)
            / u64::from(self.memory_slices.max(1));
        profile.memory_mib.unwrap_or(share)
    }

    /// The profile that creates instances by this number.
    #[must_use]
    pub fn profile(&self, id: u32) -> Option<&Profile> {
        self.profiles.iter().find(|profile| profile.gi_profile_id == id)
    }

    /// The profile that is described by this `NVML_GPU_INSTANCE_PROFILE_*`.
    #[must_use]
    pub fn profile_by_enum(&self, number: u32) -> Option<&Profile> {
        self.profiles.iter().find(|profile| profile.nvml_profile_enum == number)
    }

    /// The starts of a profile in the order in which the driver tries them.
    #[must_use]
    pub fn default_order(&self, profile: &Profile) -> Vec<u32> {
        let by_size = self.default_placement_order.as_ref();
        let order = by_size.and_then(|order| order.get(&profile.placement_size.to_string()));
        let mut starts: Vec<u32> = order.cloned().unwrap_or_default();
        starts.retain(|start| profile.placement_starts.contains(start));
        let left = profile.placement_starts.iter().filter(|start| !starts.contains(start));
        let left: Vec<u32> = left.copied().collect();
        starts.extend(left);
        starts
    }

    /// Whether instances with these engines together exceed the whole GPU in a kind that adds up.
    #[must_use]
    pub fn engines_exceeded(&self, sum: Engines) -> bool {
        let Some(full) = self.profiles.iter().max_by_key(|profile| profile.placement_size) else {
            return true;
        };
        let full = full.engines();
        self.engines_additive.iter().any(|kind| match kind.as_str() {
            "dec" => sum.decoders > full.decoders,
            "enc" => sum.encoders > full.encoders,
            "jpeg" => sum.jpeg > full.jpeg,
            "ofa" => sum.optical_flow > full.optical_flow,
            _ => false,
        })
    }

    /// Multiprocessors of the whole GPU.
    #[must_use]
    pub fn multiprocessors(&self) -> u32 {
        self.profiles.iter().map(Profile::multiprocessors).max().unwrap_or(142)
    }
}

fn combined_id(text: Option<&String>) -> u32 {
    let halves = text.and_then(|text| text.split_once(':'));
    let number = |part: &str| u32::from_str_radix(part, 16).unwrap_or(0);
    halves.map_or(0, |(vendor, device)| number(device) << 16 | number(vendor))
}

/// Compute slices that a compute instance may have in a GPU instance of `slices` compute slices.
#[must_use]
pub fn compute_sizes(slices: u32) -> &'static [u32] {
    match slices {
        1 => &[1],
        2 => &[1, 2],
        3 => &[1, 2, 3],
        4 => &[1, 2, 4],
        7 => &[1, 2, 3, 4, 7],
        _ => &[],
    }
}

/// The compute-instance profile (its enum and its id are the same number) with that many slices.
#[must_use]
pub fn compute_profile(slices: u32) -> Option<u32> {
    Some(match slices {
        1 => 0,
        2 => 1,
        3 => 2,
        4 => 3,
        7 => 4,
        _ => return None,
    })
}

/// The slices of a compute-instance profile.
#[must_use]
pub fn compute_profile_slices(profile: u32) -> Option<u32> {
    [1, 2, 3, 4, 7].into_iter().find(|&slices| compute_profile(slices) == Some(profile))
}

#[derive(Deserialize)]
struct Table {
    gpus: Vec<Model>,
}

static MODELS: LazyLock<Vec<Model>> = LazyLock::new(|| {
    serde_json::from_str::<Table>(TABLE).map(|table| table.gpus).unwrap_or_default()
});

/// All models that the simulator knows.
#[must_use]
pub fn models() -> &'static [Model] {
    &MODELS
}

/// The model of that key.
#[must_use]
pub fn model(key: &str) -> Option<&'static Model> {
    models().iter().find(|model| model.key == key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_whole() {
        assert_eq!(models().len(), 18);
        assert_eq!(models().iter().map(|model| model.profiles.len()).sum::<usize>(), 93);
        let h100 = model("h100-80").unwrap();
        assert_eq!(h100.pci_device_id(), 0x2330_10de);
        assert_eq!(h100.compute_capability(), (9, 0));
        assert_eq!(h100.product(), "NVIDIA H100 80GB HBM3");
    }

    #[test]
    fn what_is_unknown_falls_back_to_a_share() {
        let a100 = model("a100-80").unwrap();
        assert_eq!(a100.instance_memory_mib(a100.profile(9).unwrap()), 40960);
        assert_eq!(model("b300").unwrap().memory_mib(), 269 * 1024);
        for model in models() {
            assert!(model.memory_mib() > 0, "{}", model.key);
        }
    }

    #[test]
    fn the_default_order_names_every_start_once() {
        for model in models() {
            for profile in &model.profiles {
                let mut order = model.default_order(profile);
                order.sort_unstable();
                assert_eq!(order, profile.placement_starts, "{} {}", model.key, profile.name);
            }
        }
    }
}
