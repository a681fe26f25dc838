//! Reads indexes, manifests and configurations of images, and chooses. Pure.
//!
//! Formats: OCI image spec v1.1 (`image-index.md`, `manifest.md`, `config.md`, `descriptor.md`), and Docker's
//! types of the same shape.

use oci_spec::image::{
    Arch, Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType, Os,
};
use serde::{Deserialize, Serialize};

use crate::oci::reference::{Digest, DigestError};

/// Bounds on what is pulled for one image. A root file system lies in the host's memory.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest index, manifest or configuration.
    pub document_bytes: u64,
    /// Most layers.
    pub layers: usize,
    /// All layers together as they travel: they lie beside the files until they are unpacked.
    pub layer_bytes: u64,
    /// All files of the image together.
    pub unpacked_bytes: u64,
    /// Most entries of all layers.
    pub entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            document_bytes: 1 << 20,
            layers: 64,
            layer_bytes: 256 << 20,
            unpacked_bytes: 256 << 20,
            entries: 100_000,
        }
    }
}

/// What the site sent is no image that can run here.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON of the document's form.
    #[error("{document} of the image is malformed: {why}")]
    Form {
        /// `index`, `manifest` or `configuration`.
        document: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// No linux/amd64 in the index.
    #[error("the image's index has no manifest for linux/amd64")]
    NoPlatform,
    /// A configuration for another machine.
    #[error("the image is for {os}/{architecture}, this host is linux/amd64")]
    OtherPlatform {
        /// Its operating system.
        os: String,
        /// Its processor architecture.
        architecture: String,
    },
    /// A digest of another algorithm or form.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// A layer that cannot be unpacked here.
    #[error("layer {number} has media type {media_type}: expected a tar, plain or gzip")]
    LayerType {
        /// Counted from 1.
        number: usize,
        /// Its type.
        media_type: String,
    },
    /// Beyond a limit.
    #[error("{what} is {size}, the limit is {limit}")]
    TooLarge {
        /// What is too large, with its unit.
        what: &'static str,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// Layers and their digests in the configuration are not one to one.
    #[error("the manifest has {layers} layers, the configuration has {diff_ids}")]
    LayerCount {
        /// In the manifest.
        layers: usize,
        /// In the configuration.
        diff_ids: usize,
    },
    /// Nothing to run.
    #[error("the image names no program (no Entrypoint, no Cmd) and the lease has no args")]
    NoProgram,
}

/// A blob to pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Its digest.
    pub digest: Digest,
    /// Its exact size in bytes.
    pub size: u64,
}

/// A layer to pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// As it travels.
    pub blob: Blob,
    /// Compressed by gzip.
    pub gzip: bool,
}

/// A manifest that can be pulled within the limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The configuration.
    pub config: Blob,
    /// From the lowest up.
    pub layers: Vec<Layer>,
}

/// What an answer to "manifest, please" can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// An index: pull this one of its manifests.
    Index(Blob),
    /// The manifest itself.
    Manifest(Manifest),
}

/// How the image wants to be run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Program {
    /// `Entrypoint`.
    pub entrypoint: Vec<String>,
    /// `Cmd`: arguments to the entrypoint unless the lease has its own.
    pub cmd: Vec<String>,
    /// `Env`, `NAME=value`.
    pub env: Vec<String>,
    /// `WorkingDir`; empty = `/`.
    pub cwd: String,
    /// `User`: `user`, `uid`, `user:group`, `uid:gid`; empty = root of the container.
    pub user: String,
}

fn form(document: &'static str) -> impl Fn(serde_json::Error) -> ManifestError {
    move |error| ManifestError::Form { document, why: error.to_string() }
}

fn blob(descriptor: &Descriptor) -> Result<Blob, ManifestError> {
    Ok(Blob { digest: descriptor.digest().to_string().parse()?, size: descriptor.size() })
}

fn bounded(what: &'static str, size: u64, limit: u64) -> Result<(), ManifestError> {
    if size > limit { Err(ManifestError::TooLarge { what, size, limit }) } else { Ok(()) }
}

/// Reads what was answered for a manifest.
///
/// # Errors
/// Every variant of [`ManifestError`] but the configuration's.
pub fn document(bytes: &[u8], limits: &Limits) -> Result<Document, ManifestError> {
    /// Only an index has `manifests`, only a manifest has `layers`; `mediaType` may be absent in both.
    #[derive(Deserialize)]
    struct Shape {
        manifests: Option<serde_json::Value>,
    }
    let shape: Shape = serde_json::from_slice(bytes).map_err(form("manifest"))?;
    if shape.manifests.is_some() {
        let index: ImageIndex = serde_json::from_slice(bytes).map_err(form("index"))?;
        let ours = index.manifests().iter().find(|descriptor| {
            descriptor.platform().as_ref().is_some_and(|platform| {
                *platform.os() == Os::Linux && *platform.architecture() == Arch::Amd64
            })
        });
        let blob = blob(ours.ok_or(ManifestError::NoPlatform)?)?;
        bounded("the manifest in bytes", blob.size, limits.document_bytes)?;
        return Ok(Document::Index(blob));
    }
    manifest(bytes, limits).map(Document::Manifest)
}

/// Reads a manifest.
///
/// # Errors
/// [`ManifestError::Form`], [`ManifestError::Digest`], [`ManifestError::LayerType`], [`ManifestError::TooLarge`].
pub fn manifest(bytes: &[u8], limits: &Limits) -> Result<Manifest, ManifestError> {
    let manifest: ImageManifest = serde_json::from_slice(bytes).map_err(form("manifest"))?;
    let config = blob(manifest.config())?;
    bounded("the configuration in bytes", config.size, limits.document_bytes)?;
    let count = u64::try_from(manifest.layers().len()).unwrap_or(u64::MAX);
    bounded("the number of layers", count, u64::try_from(limits.layers).unwrap_or(u64::MAX))?;
    let (mut layers, mut bytes) = (Vec::new(), 0_u64);
    for (number, descriptor) in (1..).zip(manifest.layers()) {
        let gzip = gzip(descriptor.media_type()).ok_or_else(|| ManifestError::LayerType {
            number,
            media_type: descriptor.media_type().to_string(),
        })?;
        let blob = blob(descriptor)?;
        bytes = bytes.saturating_add(blob.size);
        bounded("the size of the layers in bytes", bytes, limits.layer_bytes)?;
        layers.push(Layer { blob, gzip });
    }
    Ok(Manifest { config, layers })
}

fn gzip(media_type: &MediaType) -> Option<bool> {
    match media_type.to_string().as_str() {
        "application/vnd.oci.image.layer.v1.tar" => Some(false),
        "application/vnd.oci.image.layer.v1.tar+gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Some(true),
        _ => None,
    }
}

/// Reads a configuration: how to run the image, and the digest of each layer's plain tar.
///
/// # Errors
/// [`ManifestError::Form`], [`ManifestError::OtherPlatform`], [`ManifestError::Digest`], [`ManifestError::LayerCount`].
pub fn configuration(bytes: &[u8], layers: usize) -> Result<(Program, Vec<Digest>), ManifestError> {
    let config: ImageConfiguration =
        serde_json::from_slice(bytes).map_err(form("configuration"))?;
    if *config.os() != Os::Linux || *config.architecture() != Arch::Amd64 {
        let (os, architecture) = (config.os().to_string(), config.architecture().to_string());
        return Err(ManifestError::OtherPlatform { os, architecture });
    }
    let diff_ids = config.rootfs().diff_ids();
    if diff_ids.len() != layers {
        return Err(ManifestError::LayerCount { layers, diff_ids: diff_ids.len() });
    }
    let digests = diff_ids.iter().map(|id| id.parse()).collect::<Result<_, _>>()?;
    let program = config.config().as_ref().map_or_else(Program::default, |config| Program {
        entrypoint: config.entrypoint().clone().unwrap_or_default(),
        cmd: config.cmd().clone().unwrap_or_default(),
        env: config.env().clone().unwrap_or_default(),
        cwd: config.working_dir().clone().unwrap_or_default(),
        user: config.user().clone().unwrap_or_default(),
    });
    Ok((program, digests))
}

impl Program {
    /// The command line with the lease's arguments, if any, in place of `Cmd`.
    ///
    /// # Errors
    /// [`ManifestError::NoProgram`].
    pub fn command(&self, args: &[String]) -> Result<Vec<String>, ManifestError> {
        let args = if args.is_empty() { &self.cmd } else { args };
        let line: Vec<String> = self.entrypoint.iter().chain(args).cloned().collect();
        if line.is_empty() { Err(ManifestError::NoProgram) } else { Ok(line) }
    }
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
