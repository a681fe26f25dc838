//! UKIs of tenants on the site's disk: taken out of the layers of an OCI image, named by digest, served to one machine.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use bulkhead_api::boot::TENANT_UKI;
use bulkhead_api::chain::Chain;
use flate2::read::MultiGzDecoder;
use ring::digest::{Context, SHA256};
use tracing::{info, warn};

use crate::artefacts::Blob;
use crate::store::{StoreError, private_dir};

/// The largest UKI: firmware keeps all of it in memory.
pub const LARGEST: u64 = 512 << 20;
/// Unpacked bytes of a layer that are looked through.
const LAYER: u64 = 16 << 30;

/// Why there is no UKI in an image.
#[derive(Debug, thiserror::Error)]
pub enum UkiError {
    /// A layer cannot be read.
    #[error("read layer {digest}")]
    Read {
        /// The layer.
        digest: String,
        /// Why.
        source: io::Error,
    },
    /// The file is damaged.
    #[error("layer {wanted} has SHA-256 {found}")]
    Digest {
        /// Its name.
        wanted: String,
        /// Of its bytes.
        found: String,
    },
    /// A form of layer that is not read here.
    #[error("layer of media type {0:?}: expected a tar, plain or by gzip")]
    MediaType(String),
    /// The image has none.
    #[error("no layer has {}", TENANT_UKI.join(" or "))]
    Absent,
    /// It is too large.
    #[error("{name} has {size} bytes, at most {LARGEST} are booted")]
    TooLarge {
        /// The file.
        name: String,
        /// Its size.
        size: u64,
    },
    /// It is something else.
    #[error("{name} is no PE program")]
    NotPe {
        /// The file.
        name: String,
    },
    /// The site's own disk.
    #[error("keep the UKI in {}", path.display())]
    Keep {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A layer of an image.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The file.
    pub path: PathBuf,
    /// `sha256:…`.
    pub digest: String,
    /// Of its descriptor.
    pub media_type: String,
}

/// What a layer says of a name.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    /// It is in here.
    File(Vec<u8>),
    /// It is not there any more.
    Gone,
}

/// The folder of tenants' UKIs.
#[derive(Debug)]
pub struct TenantUkis {
    dir: PathBuf,
}

impl TenantUkis {
    /// In `dir`, which is made when missing.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        private_dir(dir)?;
        Ok(Self { dir: dir.to_owned() })
    }

    fn path(&self, sha256: &str) -> PathBuf {
        self.dir.join(format!("{sha256}.efi"))
    }

    /// The UKI of that digest, one that [`TenantUkis::take`] gave.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn blob(&self, sha256: &str) -> io::Result<Blob> {
        let file = File::open(self.path(sha256))?;
        let size = file.metadata()?.len();
        Ok(Blob { file, size, etag: format!("\"{sha256}\"") })
    }

    /// Takes the UKI out of an image's layers, lowest first, and keeps it durably. Gives its digest. Blocks.
    ///
    /// # Errors
    /// See [`UkiError`].
    pub fn take(&self, layers: &[Layer]) -> Result<String, UkiError> {
        // What the layers together have of each name: the topmost one that says anything decides.
        let mut decided: [Option<Said>; TENANT_UKI.len()] = [const { None }; TENANT_UKI.len()];
        for layer in layers.iter().rev() {
            let mut here = decided.each_ref().map(|_| None);
            for_each_file(layer, |number, said| {
                // A whiteout hides what is below this layer, not what is in it.
                if let Some(slot) = here.get_mut(number)
                    && (slot.is_none() || said != Said::Gone)
                {
                    *slot = Some(said);
                }
            })?;
            for (decided, said) in decided.iter_mut().zip(here) {
                *decided = decided.take().or(said);
            }
            if matches!(decided.first(), Some(Some(Said::File(_)))) {
                break;
            }
        }
        let found = decided.into_iter().zip(TENANT_UKI).find_map(|(said, name)| match said {
            Some(Said::File(bytes)) => Some((bytes, name)),
            Some(Said::Gone) | None => None,
        });
        match found {
            None => Err(UkiError::Absent),
            Some((bytes, _)) if is_pe(&bytes) => self.keep(&bytes),
            Some((_, name)) => Err(UkiError::NotPe { name: name.to_owned() }),
        }
    }

    fn keep(&self, bytes: &[u8]) -> Result<String, UkiError> {
        let sha256 = crate::store::sha256_hex(bytes);
        let path = self.path(&sha256);
        let write = || {
            let beside = path.with_extension("new");
            let mut file = File::create(&beside)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&beside, &path)?;
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(|source| UkiError::Keep { path: path.clone(), source })?;
        info!(sha256, bytes = bytes.len(), "tenant's UKI kept");
        Ok(sha256)
    }

    /// Removes every file but those of the digests. Not while one is being taken.
    pub fn forget_others(&self, kept: impl Iterator<Item = String>) {
        let kept: BTreeSet<PathBuf> = kept.map(|sha256| self.path(&sha256)).collect();
        let forget = || {
            for entry in fs::read_dir(&self.dir)? {
                let path = entry?.path();
                if !kept.contains(&path) {
                    fs::remove_file(path)?;
                }
            }
            Ok::<_, io::Error>(())
        };
        if let Err(error) = forget() {
            warn!(error = %Chain(&error), "tenants' UKIs that nobody boots are left on disk");
        }
    }
}

/// Calls `take` with each file of a layer that is, or hides, one of [`TENANT_UKI`], by its number there.
fn for_each_file(layer: &Layer, mut take: impl FnMut(usize, Said)) -> Result<(), UkiError> {
    let read = |source| UkiError::Read { digest: layer.digest.clone(), source };
    let gzip = match layer.media_type.as_str() {
        text if text.ends_with("tar+gzip") || text.ends_with("tar.gzip") => true,
        text if text.ends_with(".tar") => false,
        other => return Err(UkiError::MediaType(other.to_owned())),
    };
    let inner = File::open(&layer.path).map_err(read)?;
    let mut packed = Hashed { inner, hash: Context::new(&SHA256) };
    {
        let unpacked: Box<dyn Read> =
            if gzip { Box::new(MultiGzDecoder::new(&mut packed)) } else { Box::new(&mut packed) };
        let mut archive = tar::Archive::new(unpacked.take(LAYER));
        for entry in archive.entries().map_err(read)? {
            let mut entry = entry.map_err(read)?;
            let name = entry.path().map_err(read)?.to_string_lossy().into_owned();
            let name = name.trim_start_matches("./").trim_start_matches('/').to_owned();
            for (number, wanted) in TENANT_UKI.iter().enumerate() {
                if hides(&name, wanted) {
                    take(number, Said::Gone);
                }
                if name != *wanted || !entry.header().entry_type().is_file() {
                    continue;
                }
                let size = entry.size();
                if size > LARGEST {
                    return Err(UkiError::TooLarge { name, size });
                }
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).map_err(read)?;
                take(number, Said::File(bytes));
                break;
            }
        }
    }
    io::copy(&mut packed, &mut io::sink()).map_err(read)?;
    let found = packed.hash.finish();
    let found: String = found.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    if layer.digest.strip_prefix("sha256:") != Some(found.as_str()) {
        return Err(UkiError::Digest { wanted: layer.digest.clone(), found });
    }
    Ok(())
}

/// Whether an entry of a layer hides `wanted` of the layers below (image-spec, layer, "Whiteouts").
fn hides(name: &str, wanted: &str) -> bool {
    let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
    let Some(hidden) = file.strip_prefix(".wh.") else { return false };
    let below = |folder: &str| folder.is_empty() || wanted.starts_with(&format!("{folder}/"));
    if hidden == ".wh..opq" {
        return below(folder);
    }
    let path = if folder.is_empty() { hidden.to_owned() } else { format!("{folder}/{hidden}") };
    path == wanted || wanted.starts_with(&format!("{path}/"))
}

/// `MZ`, and `PE\0\0` where the DOS header says (PE format, "MS-DOS stub", "signature").
fn is_pe(bytes: &[u8]) -> bool {
    let at = bytes.get(0x3c..0x40).and_then(|field| field.try_into().ok());
    let at = at.map(u32::from_le_bytes).and_then(|at| usize::try_from(at).ok());
    let signature = at.and_then(|at| bytes.get(at..at.checked_add(4)?));
    bytes.starts_with(b"MZ") && signature == Some(b"PE\0\0")
}

struct Hashed<R> {
    inner: R,
    hash: Context,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
