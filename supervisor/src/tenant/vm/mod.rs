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

/// Makes a machine's files in its lease's directory and gives its configuration.
///
/// # Errors
/// [`BundleError::Vm`], and those of the configuration.
pub fn make(root: &Path, lease: &Path, entry: &Entry) -> Result<Spec, BundleError> {
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
