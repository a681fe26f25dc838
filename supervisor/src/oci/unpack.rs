//! Layers to a root file system: tars with whiteouts, applied from the lowest up.
//!
//! Rules: OCI image spec v1.1, `layer.md`. Paths with `..` are refused; all others are resolved inside the
//! root ([`Root`]). Device nodes, sockets and pipes of an image are left out: a container gets the standard
//! devices and no others. Set-user-id bits are left out. Every layer's plain bytes must have the digest that
//! the configuration names.
//!
//! A layer of a few KiB can say that it holds terabytes. What is written is therefore charged to [`Room`] by
//! the memory that it takes, and what is only read (headers, long names, what follows the end) is bounded by
//! [`HEADERS`].

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{self, Read, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use flate2::read::MultiGzDecoder;
use nix::errno::Errno;
use ring::digest::{Context, SHA256};
use tar::{Archive, Entry};

use crate::oci::manifest::Limits;
use crate::oci::reference::Digest;
use crate::oci::root::{IDS, Owner, Root};

/// Headers of one entry, long names and extensions among them, and what follows the last one. The crate
/// `tar` keeps them in memory.
const HEADERS: u64 = 1 << 20;

/// Memory that a name and its inode take at least.
const INODE: u64 = 1024;

/// Memory of files is given out in pages.
const PAGE: u64 = 4096;

/// A layer that cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// Not a tar, or not compressed as said.
    #[error("read layer")]
    Read(#[source] io::Error),
    /// A path that leads upwards.
    #[error("layer has the path {0:?}, which leads out of the image")]
    Path(PathBuf),
    /// An owner that a container cannot have.
    #[error("{path:?} of the layer belongs to id {id}: expected below {IDS}")]
    Owner {
        /// Whose owner.
        path: PathBuf,
        /// The id.
        id: u64,
    },
    /// The file system refuses.
    #[error("unpack {path:?}")]
    Make {
        /// What was to be made.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Too much.
    #[error("image has more than {limit} {unit} when unpacked")]
    TooLarge {
        /// `bytes`, `entries`, `bytes of headers for an entry`.
        unit: &'static str,
        /// The limit.
        limit: u64,
    },
    /// Other bytes than the configuration says.
    #[error("layer has digest {found} when unpacked, the configuration says {wanted}")]
    Digest {
        /// Of its bytes.
        found: Digest,
        /// In the configuration.
        wanted: Digest,
    },
    /// The lease is no longer wanted.
    #[error("cancelled")]
    Cancelled,
}

/// What is left of the limits while layers are unpacked.
#[derive(Debug)]
pub struct Room {
    limits: Limits,
    bytes: u64,
    entries: u64,
}

impl Room {
    /// All of it.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, bytes: limits.unpacked_bytes, entries: limits.entries }
    }

    /// For one name, whose headers had so many bytes.
    fn take_entry(&mut self, headers: u64) -> Result<(), UnpackError> {
        let limit = self.limits.entries;
        let none = || UnpackError::TooLarge { unit: "entries", limit };
        self.entries = self.entries.checked_sub(1).ok_or_else(none)?;
        self.take_bytes(headers.max(INODE))
    }

    fn take_bytes(&mut self, bytes: u64) -> Result<(), UnpackError> {
        let limit = self.limits.unpacked_bytes;
        let none = || UnpackError::TooLarge { unit: "bytes", limit };
        self.bytes = self.bytes.checked_sub(bytes).ok_or_else(none)?;
        Ok(())
    }
}

/// Hashes what passes and stops when the lease is no longer wanted, or where nothing more may be read.
struct Watched<'a, R> {
    inner: R,
    hash: Context,
    /// What may be read until somebody sets it anew.
    left: &'a Cell<u64>,
    cancelled: &'a dyn Fn() -> bool,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if (self.cancelled)() {
            return Err(io::Error::other(UnpackError::Cancelled));
        }
        let most = usize::try_from(self.left.get()).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 && !buffer.is_empty() {
            let (unit, limit) = ("bytes of headers for an entry", HEADERS);
            return Err(io::Error::other(UnpackError::TooLarge { unit, limit }));
        }
        let count = self.inner.read(buffer.get_mut(..most).unwrap_or_default())?;
        self.left.set(self.left.get().saturating_sub(length(count)));
        self.hash.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

fn length(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Applies one layer.
///
/// # Errors
/// Every variant of [`UnpackError`]; the root is then to be thrown away.
pub fn layer(
    packed: impl Read,
    gzip: bool,
    wanted: &Digest,
    root: &Root,
    room: &mut Room,
    cancelled: &dyn Fn() -> bool,
) -> Result<(), UnpackError> {
    let left = Cell::new(HEADERS);
    let plain: Box<dyn Read + '_> =
        if gzip { Box::new(MultiGzDecoder::new(packed)) } else { Box::new(packed) };
    let mut watched = Watched { inner: plain, hash: Context::new(&SHA256), left: &left, cancelled };
    let mut made = BTreeSet::new();
    let mut archive = Archive::new(&mut watched);
    for entry in archive.entries().map_err(read)? {
        let mut entry = entry.map_err(read)?;
        // From here to the end of the entry's data, room is what bounds.
        let headers = HEADERS.saturating_sub(left.replace(u64::MAX));
        room.take_entry(headers)?;
        apply(&mut entry, root, room, &mut made)?;
        for _ in 0..root.take_unlisted() {
            room.take_entry(0)?;
        }
        take(&mut entry, room, |_| Ok(()))?;
        left.set(HEADERS);
    }
    // The digest is of all bytes, those after the end marker too.
    io::copy(&mut watched, &mut io::sink()).map_err(read)?;
    let found = Digest::from_sha256(watched.hash.finish().as_ref());
    if found == *wanted {
        Ok(())
    } else {
        Err(UnpackError::Digest { found, wanted: wanted.clone() })
    }
}

fn read(error: io::Error) -> UnpackError {
    error.downcast().unwrap_or_else(UnpackError::Read)
}

/// Reads the rest of an entry's data, charges and passes it on; says how much it was.
fn take(
    entry: &mut impl Read,
    room: &mut Room,
    mut on: impl FnMut(&[u8]) -> Result<(), UnpackError>,
) -> Result<u64, UnpackError> {
    let (mut buffer, mut sum) = (vec![0; 64 << 10], 0_u64);
    loop {
        let count = entry.read(&mut buffer).map_err(read)?;
        if count == 0 {
            return Ok(sum);
        }
        room.take_bytes(length(count))?;
        sum = sum.saturating_add(length(count));
        on(buffer.get(..count).unwrap_or_default())?;
    }
}

/// A path inside the root; empty for the root itself.
fn inside(path: &Path) -> Result<PathBuf, UnpackError> {
    let mut inside = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => inside.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(UnpackError::Path(path.to_owned()));
            }
        }
    }
    Ok(inside)
}

fn apply(
    entry: &mut Entry<'_, impl Read>,
    root: &Root,
    room: &mut Room,
    made: &mut BTreeSet<PathBuf>,
) -> Result<(), UnpackError> {
    let path = inside(&entry.path().map_err(read)?)?;
    let here = |source: io::Error| UnpackError::Make { path: path.clone(), source };
    let errno = |errno: Errno| here(errno.into());
    if let Some(hidden) = path.file_name().and_then(|name| name.as_bytes().strip_prefix(b".wh.")) {
        let parent = path.parent().unwrap_or(Path::new(""));
        return whiteout(root, parent, hidden, made).map_err(here);
    }
    let link = entry.link_name().map_err(read)?.map(|target| target.into_owned());
    let link = || link.clone().ok_or_else(|| here(Errno::EINVAL.into()));
    let kind = entry.header().entry_type();
    if kind.is_dir() {
        root.make_directory(&path, owner(entry, &path)?).map_err(errno)?;
    } else if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
        let mut file = root.make_file(&path, owner(entry, &path)?).map_err(errno)?;
        let size = take(entry, room, |bytes| file.write_all(bytes).map_err(here))?;
        room.take_bytes(size.next_multiple_of(PAGE).saturating_sub(size))?;
    } else if kind.is_symlink() {
        root.make_link(&path, &link()?, owner(entry, &path)?).map_err(errno)?;
    } else if kind.is_hard_link() {
        root.make_hard_link(&path, &inside(&link()?)?).map_err(errno)?;
    } else {
        // Devices, pipes and what no layer may hold.
        return Ok(());
    }
    made.insert(path);
    Ok(())
}

/// `.wh.NAME` hides NAME of lower layers, `.wh..wh..opq` all of them in this directory.
fn whiteout(root: &Root, parent: &Path, hidden: &[u8], made: &BTreeSet<PathBuf>) -> io::Result<()> {
    if hidden != b".wh..opq" {
        return match hidden {
            b"" | b"." | b".." => Err(Errno::EINVAL.into()),
            name => Ok(root.remove(&parent.join(OsStr::from_bytes(name)))?),
        };
    }
    for name in root.names(parent)? {
        let of_this_layer = made.range(name.clone()..).next().is_some_and(|m| m.starts_with(&name));
        if !of_this_layer {
            root.remove(&name)?;
        }
    }
    Ok(())
}

fn owner(entry: &Entry<'_, impl Read>, path: &Path) -> Result<Owner, UnpackError> {
    let header = entry.header();
    let id = |field: &[u8], id: io::Result<u64>| {
        // Writers that know no owner leave the field blank.
        let blank = field.iter().all(|byte| matches!(byte, 0 | b' '));
        let id = if blank { 0 } else { id.map_err(read)? };
        let small = u32::try_from(id).ok().filter(|id| *id < IDS);
        small.ok_or_else(|| UnpackError::Owner { path: path.to_owned(), id })
    };
    let fields = header.as_old();
    Ok(Owner {
        user: id(&fields.uid, header.uid())?,
        group: id(&fields.gid, header.gid())?,
        mode: header.mode().map_err(read)? & 0o1777,
    })
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
