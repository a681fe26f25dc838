//! The CDI spec of one GPU or slice: what its container gets, exactly. It is there while the lease has it, and gone before the slice
//! is: its nodes are those of the next slice at the same place.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bulkhead_api::gpu::HeldGpu;
use bulkhead_api::id::LeaseId;
use serde_json::{Value, json};

use crate::class::ClassError;
use crate::files;

/// Vendor and class of the devices.
pub const KIND: &str = "bulkhead.io/gpu";
/// Where specs of this boot are.
const FOLDER: &str = "run/cdi";
/// What every program that uses a GPU opens.
const COMMON: [&str; 2] = ["/dev/nvidiactl", "/dev/nvidia-uvm"];
/// Folders with the driver's libraries.
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "usr/lib64"];
/// Libraries that a program of a tenant needs; they are of the version of the kernel module, so they come from the host.
const NEEDED: [&str; 4] =
    ["libcuda.so", "libnvidia-ml.so", "libnvidia-ptxjitcompiler.so", "libnvidia-nvvm.so"];

/// The device's name within its kind.
#[must_use]
pub fn device(gpu: &HeldGpu) -> String {
    match &gpu.slice {
        None => gpu.gpu.clone(),
        Some(slice) => {
            format!("{}-{}-{}", gpu.gpu, slice.placement.start, slice.placement.size)
        }
    }
}

/// Where the spec is.
#[must_use]
pub fn path(root: &Path, gpu: &HeldGpu) -> PathBuf {
    root.join(FOLDER).join(format!("bulkhead-gpu-{}.json", device(gpu)))
}

/// The spec. `minor` is that of the GPU's own node; `slice` are the nodes of its capabilities, none of a whole GPU.
fn spec(root: &Path, lease: &LeaseId, gpu: &HeldGpu, minor: u32, slice: &[PathBuf]) -> Value {
    let own = format!("/dev/nvidia{minor}");
    let nodes = COMMON.iter().map(PathBuf::from).chain([PathBuf::from(own)]);
    let nodes: Vec<Value> = nodes
        .chain(slice.iter().cloned())
        .map(|path| json!({ "path": path, "permissions": "rw", "fileMode": 0o666 }))
        .collect();
    let mounts: Vec<Value> = libraries(root)
        .iter()
        .map(|path| json!({ "hostPath": path, "containerPath": path, "options": ["ro", "nosuid", "nodev", "bind"] }))
        .collect();
    json!({
        "cdiVersion": "0.6.0",
        "kind": KIND,
        "annotations": { "bulkhead.io/lease": lease.to_string() },
        "devices": [{
            "name": device(gpu),
            "containerEdits": { "deviceNodes": nodes, "mounts": mounts },
        }],
    })
}

/// Paths of the driver's libraries, as in the host and the container alike.
fn libraries(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in LIBRARIES {
        let Ok(entries) = fs::read_dir(root.join(folder)) else { continue };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let needed = names.filter(|name| NEEDED.iter().any(|needed| name.starts_with(needed)));
        found.extend(needed.map(|name| Path::new("/").join(folder).join(name)));
    }
    found.sort();
    found
}

/// Writes the spec, whole or not at all.
///
/// # Errors
/// The file system's.
pub fn write(
    root: &Path,
    lease: &LeaseId,
    gpu: &HeldGpu,
    minor: u32,
    slice: &[PathBuf],
) -> Result<(), ClassError> {
    let path = path(root, gpu);
    let text = spec(root, lease, gpu, minor, slice).to_string();
    let folder = path.parent().unwrap_or(root);
    let write = || {
        fs::create_dir_all(folder)?;
        files::replace(&path, text.as_bytes(), 0o644)
    };
    write().map_err(|source| ClassError::Files { doing: "write", path: path.clone(), source })
}

/// Whether the spec is there and says what it should.
///
/// # Errors
/// The file system's.
pub fn is_written(
    root: &Path,
    lease: &LeaseId,
    gpu: &HeldGpu,
    minor: u32,
    slice: &[PathBuf],
) -> Result<bool, ClassError> {
    let path = path(root, gpu);
    let text = files::read_if_there(&path).map_err(|source| ClassError::Files {
        doing: "read",
        path: path.clone(),
        source,
    })?;
    let wanted = spec(root, lease, gpu, minor, slice).to_string();
    Ok(text.is_some_and(|text| text == wanted.as_bytes()))
}

/// Removes the spec. None is fine.
///
/// # Errors
/// The file system's.
pub fn remove(root: &Path, gpu: &HeldGpu) -> Result<(), ClassError> {
    let path = path(root, gpu);
    match fs::remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(|source| ClassError::Files {
            doing: "remove",
            path: path.clone(),
            source,
        }),
    }
}
