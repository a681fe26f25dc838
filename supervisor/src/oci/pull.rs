//! One image from the site to a lease's directory.
//!
//! ```text
//!  tag ─► index ─► manifest ─► configuration, layers ──digest, size──► rootfs.new ─► rootfs, then image.json
//! ```
//!
//! Nothing is unpacked before its digest was verified. `image.json` is written last: an image without it is
//! not complete and is fetched anew.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{Semaphore, watch};

use crate::files;
use crate::oci::client::{Client, ClientError, chunk};
use crate::oci::manifest::{self, Blob, Document, Limits, Manifest, ManifestError, Program};
use crate::oci::reference::{Digest, Reference, Version};
use crate::oci::root::Root;
use crate::oci::unpack::{self, Room, UnpackError};
use crate::tenant::SiteAccess;

/// Images that are unpacked at the same time. Each takes a thread, of which other jobs need some too.
static UNPACKING: Semaphore = Semaphore::const_new(2);

/// Name of the root file system in a lease's directory.
pub const ROOTFS: &str = "rootfs";
/// Name of the image's description in a lease's directory.
pub const IMAGE: &str = "image.json";

/// An image that is not there.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The site does not give it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It cannot run here.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// It cannot be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// Other bytes than its digest or size say.
    #[error("the site sent other bytes for {wanted}: {found}")]
    Corrupt {
        /// What was asked for.
        wanted: Digest,
        /// What came.
        found: String,
    },
    /// The host's own files.
    #[error("write {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The unpacking thread ended without an answer.
    #[error("unpack {0}")]
    Thread(String),
}

impl PullError {
    /// One word for conditions.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Client(ClientError::Absent { .. }) => "ImageAbsent",
            Self::Client(_) => "SiteUnreachable",
            Self::Manifest(_) => "ImageUnusable",
            Self::Unpack(_) => "ImageNotUnpacked",
            Self::Corrupt { .. } => "ImageCorrupt",
            Self::Write { .. } | Self::Thread(_) => "HostFiles",
        }
    }
}

/// What `image.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Image {
    /// Digest of its manifest, `sha256:…`.
    pub digest: String,
    /// How it wants to be run.
    pub program: Program,
}

/// What to pull, and to where.
#[derive(Debug, Clone)]
pub struct Order {
    /// Which image.
    pub reference: Reference,
    /// From whom.
    pub access: SiteAccess,
    /// The lease's directory.
    pub dir: PathBuf,
    /// First host id of the container's users and groups.
    pub base: u32,
    /// Bounds.
    pub limits: Limits,
}

/// Pulls and unpacks. Ends early when `cancel` becomes true or its sender is gone.
///
/// # Errors
/// Every variant of [`PullError`]; the directory then has no `image.json`.
pub async fn pull(order: Order, mut cancel: watch::Receiver<bool>) -> Result<Image, PullError> {
    let flag = cancel.clone();
    let cancelled = async { drop(cancel.wait_for(|cancelled| *cancelled).await) };
    let fetched = async { Ok::<_, PullError>((fetch(&order).await?, UNPACKING.acquire().await)) };
    let ((manifest, image, diff_ids), _turn) = tokio::select! {
        () = cancelled => return Err(UnpackError::Cancelled.into()),
        fetched = fetched => fetched?,
    };
    let dir = order.dir.clone();
    let unpack = move || unpack(&order, &manifest, &diff_ids, &flag);
    tokio::task::spawn_blocking(unpack).await.map_err(|e| PullError::Thread(e.to_string()))??;
    let path = dir.join(IMAGE);
    let bytes = serde_json::to_vec(&image).map_err(io::Error::from);
    bytes
        .and_then(|bytes| files::replace(&path, &bytes, 0o600))
        .map_err(|source| PullError::Write { path, source })?;
    Ok(image)
}

async fn fetch(order: &Order) -> Result<(Manifest, Image, Vec<Digest>), PullError> {
    let Order { reference, dir, limits, .. } = order;
    let write = |path: &Path| {
        let path = path.to_owned();
        move |source| PullError::Write { path, source }
    };
    remove(&dir.join(IMAGE))?;
    files::directory(dir, 0o711).map_err(write(dir))?;
    let mut client = Client::connect(&order.access).await?;
    let name = &reference.name;
    let manifests = |version: &str| format!("/v2/{name}/manifests/{version}");
    let mut bytes =
        client.document(&manifests(&reference.version_text()), limits.document_bytes).await?;
    let mut digest = Digest::of(&bytes);
    if let Version::Digest(wanted) = &reference.version {
        same(wanted, &digest)?;
    }
    let manifest = match manifest::document(&bytes, limits)? {
        Document::Manifest(manifest) => manifest,
        Document::Index(blob) => {
            bytes = client.document(&manifests(&blob.digest.to_string()), blob.size).await?;
            digest = Digest::of(&bytes);
            same(&blob.digest, &digest)?;
            manifest::manifest(&bytes, limits)?
        }
    };
    let blobs = |blob: &Blob| format!("/v2/{name}/blobs/{}", blob.digest);
    let config = client.document(&blobs(&manifest.config), manifest.config.size).await?;
    same(&manifest.config.digest, &Digest::of(&config))?;
    let (program, diff_ids) = manifest::configuration(&config, manifest.layers.len())?;
    for (number, layer) in manifest.layers.iter().enumerate() {
        let path = layer_file(dir, number);
        store(&mut client, &blobs(&layer.blob), &layer.blob, &path).await?;
    }
    Ok((manifest, Image { digest: digest.to_string(), program }, diff_ids))
}

fn layer_file(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("layer.{number}"))
}

fn same(wanted: &Digest, found: &Digest) -> Result<(), PullError> {
    if wanted == found {
        return Ok(());
    }
    Err(PullError::Corrupt { wanted: wanted.clone(), found: format!("their digest is {found}") })
}

/// Streams a blob to a file, and says whether it is the right one.
async fn store(client: &mut Client, from: &str, blob: &Blob, path: &Path) -> Result<(), PullError> {
    let write = |source| PullError::Write { path: path.to_owned(), source };
    let mut file = tokio::fs::File::create(path).await.map_err(write)?;
    let (mut hash, mut left) = (Context::new(&SHA256), blob.size);
    let corrupt = |found: &str| PullError::Corrupt {
        wanted: blob.digest.clone(),
        found: format!("{found} than the {} bytes of its manifest", blob.size),
    };
    let mut body = client.blob(from).await?;
    while let Some(bytes) = chunk(&mut body, from).await? {
        let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        left = left.checked_sub(count).ok_or_else(|| corrupt("more"))?;
        hash.update(&bytes);
        file.write_all(&bytes).await.map_err(write)?;
    }
    file.flush().await.map_err(write)?;
    if left > 0 {
        return Err(corrupt("fewer"));
    }
    same(&blob.digest, &Digest::from_sha256(hash.finish().as_ref()))
}

fn remove(path: &Path) -> Result<(), PullError> {
    let gone = match fs::symlink_metadata(path) {
        Ok(there) if there.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    gone.map_err(|source| PullError::Write { path: path.to_owned(), source })
}

fn unpack(
    order: &Order,
    manifest: &Manifest,
    diff_ids: &[Digest],
    cancel: &watch::Receiver<bool>,
) -> Result<(), PullError> {
    let (new, rootfs) = (order.dir.join("rootfs.new"), order.dir.join(ROOTFS));
    let write = |path: &Path| {
        let path = path.to_owned();
        move |source| PullError::Write { path, source }
    };
    remove(&new)?;
    fs::create_dir(&new).map_err(write(&new))?;
    let root = Root::open(&new, order.base).map_err(write(&new))?;
    let owner = crate::oci::root::Owner { user: 0, group: 0, mode: 0o755 };
    root.make_directory(Path::new(""), owner).map_err(|errno| write(&new)(errno.into()))?;
    let mut room = Room::new(order.limits);
    let cancelled = || *cancel.borrow();
    for (number, (layer, diff_id)) in manifest.layers.iter().zip(diff_ids).enumerate() {
        let path = layer_file(&order.dir, number);
        let file = io::BufReader::new(File::open(&path).map_err(write(&path))?);
        unpack::layer(file, layer.gzip, diff_id, &root, &mut room, &cancelled)?;
        remove(&path)?;
    }
    remove(&rootfs)?;
    fs::rename(&new, &rootfs).map_err(write(&rootfs))
}

#[cfg(test)]
#[path = "pull_tests.rs"]
pub(crate) mod tests;
