//! Virtual machines: QEMU in the jail of a container.
//!
//! ```text
//!  image (disk or kernel) ┐
//!  lease, holding         ├► guest ─► QEMU's command line ┐
//!  sysfs: who is sibling ─┘                               ├► jail ─► config.json ─► crun, in the lease's slice
//!  volumes: block devices; files: jail, QMP's folder ──────┘
//!  running: pin (vCPU n on its CPU) · power (ACPI button by QMP, before systemd's signals)
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`image`] | the two forms of images. Pure but for the look |
//! | [`topology`] | which vCPU is which CPU |
//! | [`guest`] | the machine and QEMU's command line. Pure |
//! | [`jail`] | the container's configuration. Pure |
//! | [`files`] | the lease's directory |
//! | [`pin`] | affinities: seen, and set |
//! | [`qmp`], [`power`] | QEMU's monitor, and the subcommand that switches a machine off |

pub mod files;
pub mod guest;
pub mod image;
pub mod jail;
pub mod pin;
pub mod power;
pub mod qmp;
pub mod topology;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use bulkhead_api::lease::{Holding, InstanceKind, Volume};
use oci_spec::runtime::Spec;

pub use pin::{PinError, Pins, pin, pins};

use crate::ledger::Entry;
use crate::oci::root::Root;
use crate::storage::volume::name::mapping;
use crate::tenant::bundle::{self, BundleError};
use files::{FilesError, VmDir};
use guest::{Device, Guest, Memory};
use image::ImageError;
use jail::Disk;
use topology::TopologyError;

/// A virtual machine cannot be made of a lease.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// The image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The image's files.
    #[error("look at the image in {path}")]
    Look {
        /// Where it is.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The lease's CPUs.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// The machine's own files.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// Nothing to run it with, or not yet: drivers are loaded when the host has begun to serve.
    #[error(
        "this host has no KVM for tenants ({path}): its driver is still coming, or virtualisation is switched off in its firmware"
    )]
    NoKvm {
        /// The device.
        path: PathBuf,
    },
}

/// The machine that a lease asks for, of an image that boots so on these CPUs. Pure.
#[must_use]
pub fn guest(entry: &Entry, boot: image::Boot, cpus: topology::Topology) -> Guest {
    let Holding { hugepages, memory_nodes, .. } = &entry.holding;
    let memory = match hugepages {
        Some(held) => Memory::Huge { page_size: held.page_size, pages: held.pages.clone() },
        None => Memory::Pages { bytes: entry.spec.memory, nodes: memory_nodes.clone() },
    };
    let devices = entry.spec.volumes.iter().map(|volume| Device::Volume(volume.name.clone()));
    Guest { id: entry.id.clone(), boot, memory, cpus, devices: devices.collect() }
}

/// Volumes of a lease as block devices, below `root`.
fn disks(root: &Path, entry: &Entry) -> Vec<Disk> {
    let disk = |volume: &Volume| Disk {
        name: volume.name.clone(),
        path: root.join("dev/mapper").join(mapping(&entry.id, &volume.name)),
    };
    entry.spec.volumes.iter().map(disk).collect()
}

/// Sees that the KVM device is there and lets a lease's user in (udev gives it its mode a moment after the driver made it).
fn await_kvm(root: &Path) -> Result<(), VmError> {
    let path = root.join("dev/kvm");
    let open = std::fs::metadata(&path).is_ok_and(|about| about.mode() & 0o006 == 0o006);
    if open { Ok(()) } else { Err(VmError::NoKvm { path }) }
}

/// Makes a machine's files in its lease's directory and gives its configuration.
///
/// # Errors
/// [`BundleError::Vm`], and those of the configuration.
pub fn make(root: &Path, lease: &Path, entry: &Entry) -> Result<Spec, BundleError> {
    await_kvm(root)?;
    let dir = VmDir::new(lease);
    let first_id = bundle::first_id(&entry.holding)?;
    let path = dir.image();
    let files = Root::open(&path, 0)
        .and_then(|files| image::look(&files))
        .map_err(|source| VmError::Look { path, source })?;
    let boot = image::boot(&files, &entry.spec.workload.args).map_err(VmError::Image)?;
    let cpus = topology::read(root, &entry.holding.cpus).map_err(VmError::Topology)?;
    let disks = disks(root, entry);
    dir.make(first_id, &disks).map_err(VmError::Files)?;
    jail::config(&dir, &guest(entry, boot, cpus), &disks, first_id)
}

/// Numbers of the block devices that a lease's machine may use, as of stat(2); `None` of a lease without a machine.
///
/// # Errors
/// [`BundleError::Vm`]: a volume is not there.
pub fn devices(root: &Path, entry: &Entry) -> Result<Option<Vec<u64>>, BundleError> {
    if entry.spec.instance != InstanceKind::Vm {
        return Ok(None);
    }
    let disks = disks(root, entry);
    let numbers = disks.iter().map(|disk| files::block_device(&disk.path));
    Ok(Some(numbers.collect::<Result<_, _>>().map_err(VmError::Files)?))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::PermissionsExt as _;

    use bulkhead_api::units::Bytes;

    use super::*;
    use crate::tenant::plan::tests::{id, spec};
    use crate::tenant::vm::topology::tests::sysfs;

    fn entry() -> Entry {
        let holding = Holding {
            cpus: BTreeSet::from([2, 3]),
            memory_nodes: BTreeSet::from([0]),
            memory: Bytes::new(288 << 20),
            ..Holding::default()
        };
        let mut spec = spec(2, 128);
        spec.instance = InstanceKind::Vm;
        Entry::granted(id("vm-a"), spec, holding)
    }

    #[test]
    fn a_machine_is_made_of_a_lease_once_there_is_kvm_for_it() {
        let root = tempfile::tempdir().unwrap();
        let lease = root.path().join("lease");
        let kvm = root.path().join("dev/kvm");
        std::fs::create_dir_all(lease.join("rootfs/boot")).unwrap();
        std::fs::create_dir_all(root.path().join("dev")).unwrap();
        for file in ["vmlinuz", "initrd"] {
            std::fs::write(lease.join("rootfs/boot").join(file), b"x").unwrap();
        }
        sysfs(root.path(), &[(2, "2", 0), (3, "3", 0)]);
        let make = || make(root.path(), &lease, &entry());
        let why = make().unwrap_err().to_string();
        assert!(why.starts_with("this host has no KVM for tenants"), "{why}");
        std::fs::write(&kvm, b"").unwrap();
        std::fs::set_permissions(&kvm, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(make().is_err(), "udev has not been there");
        std::fs::set_permissions(&kvm, std::fs::Permissions::from_mode(0o666)).unwrap();
        let config = serde_json::to_value(make().unwrap()).unwrap();
        let args = config["process"]["args"].as_array().unwrap();
        assert!(args.contains(&serde_json::json!("cpus=2,sockets=1,cores=2,threads=1")));
        assert!(
            args.contains(&serde_json::json!("134217728B")),
            "the guest's memory, not the bound"
        );
        assert!(lease.join("jail/proc").is_dir());
    }

    #[test]
    fn a_volume_that_is_not_there_is_named_and_a_container_has_no_devices() {
        let root = tempfile::tempdir().unwrap();
        let mut entry = entry();
        assert_eq!(devices(root.path(), &entry).unwrap(), Some(Vec::new()));
        entry.spec.volumes.push(Volume {
            name: "data".parse().unwrap(),
            size: Bytes::new(64 << 20),
            local: true,
            path: None,
        });
        let why = devices(root.path(), &entry).unwrap_err().to_string();
        assert!(why.contains("data"), "{why}");
        entry.spec.instance = InstanceKind::Container;
        assert_eq!(devices(root.path(), &entry).unwrap(), None);
    }
}
