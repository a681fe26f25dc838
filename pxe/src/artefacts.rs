//! The files that boot machines, opened once and told apart by what is asked for.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use bulkhead_api::boot::{ImageManifest, VerityImage};
use ring::digest::{Context, SHA256};

use crate::site::Artefact;

/// Why the image directory cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ArtefactError {
    /// A file is missing or unreadable.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// `image.json` is not a manifest.
    #[error("{}: image manifest", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A file is not as long as the manifest says.
    #[error("{}: {found} bytes, image.json says {expected}", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// On disk.
        found: u64,
        /// In the manifest.
        expected: u64,
    },
    /// The site's configuration asks for a layer that the image does not have.
    #[error("extension layer {name:?} is not in {}", path.display())]
    NoSuchExtension {
        /// The layer.
        name: String,
        /// The manifest.
        path: PathBuf,
    },
}

/// A file to serve.
#[derive(Debug)]
pub struct Blob {
    /// Open for reading; read by offset only.
    pub file: File,
    /// Bytes.
    pub size: u64,
    /// Strong entity tag, with its quotes.
    pub etag: String,
}

/// All artefacts of one image.
#[derive(Debug)]
pub struct Artefacts {
    /// The manifest.
    pub manifest: ImageManifest,
    uki: Blob,
    images: Vec<(String, bool, Blob)>,
}

impl Artefacts {
    /// Opens the image in `dir` and checks it against its manifest and `extensions`, the layers that
    /// the site asks for. Layers that it does not ask for may be missing.
    ///
    /// # Errors
    /// See [`ArtefactError`].
    pub fn open(dir: &Path, extensions: &[String]) -> Result<Self, ArtefactError> {
        let path = dir.join("image.json");
        let text = std::fs::read(&path)
            .map_err(|source| ArtefactError::Read { path: path.clone(), source })?;
        let manifest: ImageManifest = serde_json::from_slice(&text)
            .map_err(|source| ArtefactError::Manifest { path: path.clone(), source })?;
        let uki = dir.join("uki.efi");
        // Firmware resumes by entity tag: it must change with the bytes, so the bytes are hashed.
        let etag = format!("\"{}\"", hash(&uki)?);
        let uki = open(uki, etag, manifest.uki_size)?;
        let verity = |image: &VerityImage, is_root, path| {
            // Content-addressed: the root hash is the name and the tag.
            let blob = open(path, format!("\"{}\"", image.root_hash), image.size)?;
            Ok((image.root_hash.clone(), is_root, blob))
        };
        let mut images = vec![verity(&manifest.root, true, dir.join("root.img"))?];
        for name in extensions {
            if !manifest.extensions.iter().any(|layer| layer.name == *name) {
                return Err(ArtefactError::NoSuchExtension { name: name.clone(), path });
            }
        }
        for layer in &manifest.extensions {
            let path = dir.join("sysext").join(format!("{}.img", layer.name));
            if extensions.contains(&layer.name) || path.exists() {
                images.push(verity(layer, false, path)?);
            }
        }
        Ok(Self { manifest, uki, images })
    }

    /// The artefact that a file name under `/b/{ticket}/` stands for.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<Artefact> {
        match name {
            "uki.efi" => Some(Artefact::Uki),
            "boot.json" => Some(Artefact::BootJson),
            _ => {
                let hash = name.strip_suffix(".img")?;
                let (hash, is_root, _) = self.images.iter().find(|(known, ..)| known == hash)?;
                Some(Artefact::Image { root_hash: hash.clone(), is_root: *is_root })
            }
        }
    }

    /// The file of an artefact; `None` for [`Artefact::BootJson`], which is no file.
    #[must_use]
    pub fn blob(&self, artefact: &Artefact) -> Option<&Blob> {
        match artefact {
            Artefact::Uki => Some(&self.uki),
            Artefact::BootJson => None,
            Artefact::Image { root_hash, .. } => {
                self.images.iter().find(|(hash, ..)| hash == root_hash).map(|(.., blob)| blob)
            }
        }
    }
}

fn open(path: PathBuf, etag: String, expected: u64) -> Result<Blob, ArtefactError> {
    let file = File::open(&path);
    let file = file.map_err(|source| ArtefactError::Read { path: path.clone(), source })?;
    let size = match file.metadata() {
        Ok(metadata) => metadata.len(),
        Err(source) => return Err(ArtefactError::Read { path, source }),
    };
    if size != expected {
        return Err(ArtefactError::Size { path, found: size, expected });
    }
    Ok(Blob { file, size, etag })
}

fn hash(path: &Path) -> Result<String, ArtefactError> {
    let read = |source| ArtefactError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(read)?;
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(read)? {
            0 => break,
            count => context.update(buffer.get(..count).unwrap_or_default()),
        }
    }
    Ok(context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}
