//! Nodes of NVIDIA's driver: which GPU, which slice, or what all have in common.
//!
//! ```text
//!  /proc/devices ─► majors: nvidia, nvidia-uvm, nvidia-caps
//!  /proc/driver/nvidia/gpus/BDF/information ─► minor of each GPU
//!  /proc/driver/nvidia-caps/mig-minors ─► which slice a capability is of
//! ```
//!
//! What is not told there stays unknown, and a lease that reaches it is told as such.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use bulkhead_api::inventory::Gpu;
use bulkhead_api::isolation::DeviceKind;

/// Minor of `/dev/nvidiactl` (kernel-open/nvidia/nv.c of NVIDIA/open-gpu-kernel-modules: `NV_MINOR_DEVICE_NUMBER_CONTROL_DEVICE`).
const CONTROL: u32 = 255;

/// A slice's node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Capability {
    gpu: u32,
    instance: u32,
    compute: Option<u32>,
}

/// The driver's nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Nodes {
    /// `nvidia`, `nvidia-uvm`, `nvidia-caps` by their majors.
    majors: BTreeMap<u32, String>,
    /// PCI addresses by minor.
    gpus: BTreeMap<u32, String>,
    /// GPUs that are cut into slices.
    cut: BTreeSet<String>,
    /// By minor.
    capabilities: BTreeMap<u32, Capability>,
}

impl Nodes {
    /// Of the host below that root, with GPUs as they were read last.
    pub(super) fn read(root: &Path, gpus: &[Gpu]) -> Self {
        let text =
            |path: &Path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let majors = majors(&text(&root.join("proc/devices")).unwrap_or_default());
        if majors.is_empty() {
            return Self::default();
        }
        let folder = root.join("proc/driver/nvidia/gpus");
        let names = fs::read_dir(&folder).into_iter().flatten().flatten();
        let numbered = names.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?.to_ascii_lowercase();
            Some((minor(&text(&entry.path().join("information")).ok()?)?, name))
        });
        let list = text(&root.join("proc/driver/nvidia-caps/mig-minors")).unwrap_or_default();
        let cut = gpus.iter().filter(|gpu| gpu.mig == Some(true)).map(|gpu| gpu.bdf.clone());
        Self {
            majors,
            gpus: numbered.collect(),
            cut: cut.collect(),
            capabilities: list.lines().filter_map(capability).collect(),
        }
    }

    /// What a character device is, where it is one of the driver's that is known.
    pub(super) fn kind(&self, major: u32, minor: u32) -> Option<(String, DeviceKind)> {
        match self.majors.get(&major)?.as_str() {
            "nvidia-uvm" if minor == 0 => Some(("nvidia-uvm".to_owned(), DeviceKind::GpuControl)),
            "nvidia-caps" => {
                let Capability { gpu, instance, compute } = *self.capabilities.get(&minor)?;
                let gpu = self.gpus.get(&gpu)?.clone();
                let name = format!("nvidia-cap{minor}");
                let (gpu_instance, compute_instance) = (instance, compute);
                Some((name, DeviceKind::GpuSlice { gpu, gpu_instance, compute_instance }))
            }
            "nvidia-uvm" => None,
            _ if minor == CONTROL => Some(("nvidiactl".to_owned(), DeviceKind::GpuControl)),
            _ => {
                let gpu = self.gpus.get(&minor)?;
                Some(match self.cut.contains(gpu) {
                    true => (format!("nvidia{minor}"), DeviceKind::GpuControl),
                    false => (gpu.clone(), DeviceKind::Gpu),
                })
            }
        }
    }
}

/// The driver's majors in the text of `/proc/devices`. The first one bears another name in earlier drivers.
fn majors(text: &str) -> BTreeMap<u32, String> {
    let characters = text.lines().skip_while(|line| !line.starts_with("Character"));
    let lines = characters.skip(1).take_while(|line| !line.trim().is_empty());
    let known = lines.filter_map(|line| {
        let (number, name) = line.trim().split_once(' ')?;
        let ours = matches!(name, "nvidia" | "nvidia-frontend" | "nvidia-uvm" | "nvidia-caps");
        ours.then(|| Some((number.parse().ok()?, name.to_owned()))).flatten()
    });
    known.collect()
}

/// `Device Minor: 0` in what the driver says of a GPU.
fn minor(text: &str) -> Option<u32> {
    let line = text.lines().find_map(|line| line.strip_prefix("Device Minor:"))?;
    line.trim().parse().ok()
}

/// `gpu0/gi1/access 12`, `gpu0/gi1/ci0/access 13`.
fn capability(line: &str) -> Option<(u32, Capability)> {
    let (name, minor) = line.split_once(' ')?;
    let mut parts = name.strip_suffix("/access")?.split('/');
    let mut part = |prefix: &str| parts.next()?.strip_prefix(prefix)?.parse::<u32>().ok();
    let (gpu, instance) = (part("gpu")?, part("gi")?);
    let compute = match name.matches('/').count() {
        2 => None,
        3 => Some(part("ci")?),
        _ => return None,
    };
    Some((minor.trim().parse().ok()?, Capability { gpu, instance, compute }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn gpu(bdf: &str, mig: bool) -> Gpu {
        Gpu {
            uuid: String::new(),
            model: String::new(),
            bdf: bdf.to_owned(),
            memory: bulkhead_api::units::Bytes::default(),
            mig: Some(mig),
            geometry: None,
            instances: Vec::new(),
            closed: None,
        }
    }

    #[test]
    fn each_node_is_what_the_driver_says_and_others_are_unknown() {
        let root = tempfile::tempdir().unwrap();
        let gpus = [gpu("0000:41:00.0", true), gpu("0000:c1:00.0", false)];
        assert_eq!(Nodes::read(root.path(), &gpus).kind(195, 0), None);
        let devices =
            "Character devices:\n195 nvidia\n504 nvidia-uvm\n506 nvidia-caps\n\nBlock devices:\n";
        write(root.path(), "proc/devices", devices);
        for (bdf, minor) in [("0000:41:00.0", 0), ("0000:C1:00.0", 1)] {
            let path = format!("proc/driver/nvidia/gpus/{bdf}/information");
            write(root.path(), &path, &format!("Model: \t H100\nDevice Minor: \t {minor}\n"));
        }
        let minors = "config 1\nmonitor 2\ngpu0/gi1/access 12\ngpu0/gi1/ci0/access 13\n";
        write(root.path(), "proc/driver/nvidia-caps/mig-minors", minors);
        let nodes = Nodes::read(root.path(), &gpus);
        let control = |name: &str| Some((name.to_owned(), DeviceKind::GpuControl));
        assert_eq!(nodes.kind(195, 255), control("nvidiactl"));
        assert_eq!(nodes.kind(504, 0), control("nvidia-uvm"));
        assert_eq!(nodes.kind(195, 0), control("nvidia0"), "it is cut into slices");
        assert_eq!(nodes.kind(195, 1), Some(("0000:c1:00.0".to_owned(), DeviceKind::Gpu)));
        for (minor, compute_instance) in [(12, None), (13, Some(0))] {
            let gpu = "0000:41:00.0".to_owned();
            let kind = DeviceKind::GpuSlice { gpu, gpu_instance: 1, compute_instance };
            assert_eq!(nodes.kind(506, minor), Some((format!("nvidia-cap{minor}"), kind)));
        }
        // Configuration and monitoring are nobody's, and neither is what the driver does not name.
        for (major, minor) in [(506, 1), (506, 2), (506, 14), (195, 7), (504, 1), (1, 3)] {
            assert_eq!(nodes.kind(major, minor), None, "{major}:{minor}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(gpu[0-9]{1,11}(/gi[0-9])?(/ci[0-9])?/access [0-9]{0,12}\n|.{0,30}\n){0,6}") {
            let _: Vec<_> = text.lines().filter_map(capability).collect();
            let _ = (majors(&text), minor(&text));
        }
    }
}
