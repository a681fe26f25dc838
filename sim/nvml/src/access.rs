//! Which device nodes a process may open, and so which GPUs and MIG devices it is shown.
//!
//! The driver guards each MIG instance by a capability, whose device node is
//! `/dev/nvidia-caps/nvidia-cap<minor>`; `/proc/driver/nvidia-caps/mig-minors` lists the minors. A
//! container that has the nodes of one slice sees that slice. The simulator tries to open the same
//! nodes in the directory that the state names.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Minors that one GPU has: 15 GPU instances with an own one and one for each of 8 compute instances.
const PER_GPU: u32 = 15 * PER_INSTANCE;
const PER_INSTANCE: u32 = 9;
/// Minors 1 and 2 are those of `config` and `monitor`.
const FIRST: u32 = 3;

/// Minor of the capability of a GPU instance, or of one of its compute instances. `gpu` is the
/// minor of the GPU's own node.
#[must_use]
pub fn capability_minor(gpu: u32, instance: u32, compute: Option<u32>) -> u32 {
    let own = FIRST + gpu * PER_GPU + instance * PER_INSTANCE;
    compute.map_or(own, |compute| own + 1 + compute)
}

/// The lines of `mig-minors` for GPUs with these minors.
#[must_use]
pub fn mig_minors(gpus: &[u32]) -> String {
    let mut text = String::from("config 1\nmonitor 2\n");
    for &gpu in gpus {
        for instance in 0..PER_GPU / PER_INSTANCE {
            let minor = capability_minor(gpu, instance, None);
            text.push_str(&format!("gpu{gpu}/gi{instance}/access {minor}\n"));
            for compute in 0..PER_INSTANCE - 1 {
                let minor = capability_minor(gpu, instance, Some(compute));
                text.push_str(&format!("gpu{gpu}/gi{instance}/ci{compute}/access {minor}\n"));
            }
        }
    }
    text
}

/// The node of a GPU.
#[must_use]
pub fn gpu_node(folder: &Path, gpu: u32) -> PathBuf {
    folder.join(format!("nvidia{gpu}"))
}

/// The node of a capability.
#[must_use]
pub fn capability_node(folder: &Path, minor: u32) -> PathBuf {
    folder.join(format!("nvidia-caps/nvidia-cap{minor}"))
}

/// Whether this process may open a node. That no driver answers behind it (ENXIO, ENODEV) is no
/// refusal: the kernel has checked permissions and the device cgroup by then.
#[must_use]
pub fn may_open(node: &Path) -> bool {
    match File::open(node) {
        Ok(_) => true,
        Err(error) => {
            let code = error.raw_os_error().map(rustix::io::Errno::from_raw_os_error);
            matches!(code, Some(rustix::io::Errno::NXIO | rustix::io::Errno::NODEV))
                && error.kind() != io::ErrorKind::NotFound
        }
    }
}

/// Whether this process is shown a GPU. Without a directory in the state it is shown everything.
#[must_use]
pub fn sees_gpu(folder: Option<&str>, gpu: u32) -> bool {
    folder.is_none_or(|folder| may_open(&gpu_node(Path::new(folder), gpu)))
}

/// Whether this process is shown the MIG device of a compute instance.
#[must_use]
pub fn sees_slice(folder: Option<&str>, gpu: u32, instance: u32, compute: u32) -> bool {
    folder.is_none_or(|folder| {
        [None, Some(compute)].into_iter().all(|compute| {
            let minor = capability_minor(gpu, instance, compute);
            may_open(&capability_node(Path::new(folder), minor))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capability_has_its_own_minor() {
        let text = mig_minors(&[0, 1]);
        let minors: Vec<u32> =
            text.lines().map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap()).collect();
        let expected: Vec<u32> = (1..=2 + 2 * PER_GPU).collect();
        assert_eq!(minors, expected);
        assert!(text.contains("gpu0/gi0/ci0/access 4\n"));
        assert!(text.contains("gpu1/gi0/access 138\n"));
    }

    #[test]
    fn a_slice_is_shown_where_both_its_nodes_open() {
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().to_str();
        std::fs::create_dir(folder.path().join("nvidia-caps")).unwrap();
        assert!(!sees_slice(text, 0, 2, 0) && !sees_gpu(text, 0));
        for compute in [None, Some(0)] {
            assert!(!sees_slice(text, 0, 2, 0));
            File::create(capability_node(folder.path(), capability_minor(0, 2, compute))).unwrap();
        }
        assert!(sees_slice(text, 0, 2, 0));
        assert!(!sees_slice(text, 0, 1, 0));
        assert!(sees_slice(None, 0, 1, 0));
    }
}
