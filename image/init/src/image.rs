//! Fetches an image into sealed memory and refuses it when it is damaged.
//!
//! | check | finds | cost |
//! |---|---|---|
//! | CRC-32 of all, here | every accident, before anything of the image runs | little |
//! | hash tree by the root hash, here | a forged or damaged tree | 1/128 of the data is hashed |
//! | data blocks by the tree, in dm-verity | forged data, before a byte of it is used | as blocks are read |
//!
//! Hashing all data here as well would cost 6 s under software emulation for 60 MB.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use bulkhead_api::boot::VerityImage;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::console::Console;
use crate::fetch::{self, Body, Bound, FetchError};
use crate::http::Base;
use crate::tree::{self, BLOCK, Corrupt, Digest, Hasher};

/// Bytes moved at a time.
const PIECE: usize = 256 * 1024;
/// How often progress is shown.
const PROGRESS: Duration = Duration::from_secs(2);

/// An image could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The initrd describes it wrongly: the image build is at fault.
    #[error("initrd: image {image} has {wrong}")]
    Description {
        /// The image.
        image: String,
        /// What is wrong.
        wrong: &'static str,
    },
    /// The transfer.
    #[error("image {0}")]
    Fetch(String, #[source] FetchError),
    /// It is not the image.
    #[error("image {0} refused")]
    Corrupt(String, #[source] Corrupt),
    /// Memory.
    #[error("keep image {0} in memory")]
    Memory(String, #[source] Errno),
    /// Memory ran out.
    #[error("store image {0} in memory")]
    Store(String, #[source] std::io::Error),
}

/// What the initrd knows of an image, as bytes.
#[derive(Debug)]
struct Wanted {
    root: Digest,
    hasher: Hasher,
    data_bytes: u64,
    tree_bytes: usize,
}

impl Wanted {
    fn of(image: &VerityImage) -> Result<Self, ImageError> {
        let bad = |wrong| ImageError::Description { image: image.name.clone(), wrong };
        let root = hex(&image.root_hash).and_then(|bytes| bytes.try_into().ok());
        let root = root.ok_or_else(|| bad("a malformed root hash"))?;
        let salt = hex(&image.salt).ok_or_else(|| bad("a malformed salt"))?;
        if image.data_blocks == 0 || tree::image_size(image.data_blocks) != Some(image.size) {
            return Err(bad("a size that does not fit its number of blocks"));
        }
        let data_bytes = image.data_blocks * BLOCK as u64;
        let tree_bytes = usize::try_from(image.size - data_bytes)
            .map_err(|_| bad("a hash tree that does not fit into memory"))?;
        Ok(Self { root, hasher: Hasher::new(&salt), data_bytes, tree_bytes })
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
    bytes.collect::<Option<Vec<u8>>>().filter(|_| rest.is_empty())
}

/// Fetches `image` from `base`, checks it, and seals its memory: not even root can change it then.
///
/// # Errors
/// [`ImageError`].
pub fn fetch(base: &Base, image: &VerityImage, console: &Console) -> Result<OwnedFd, ImageError> {
    let failed = |source| ImageError::Fetch(image.name.clone(), source);
    let memory = |source| ImageError::Memory(image.name.clone(), source);
    let wanted = Wanted::of(image)?;
    let name = format!("{}.img", image.root_hash);
    let mut body = fetch::open(base, &name, Bound::Exactly(image.size)).map_err(failed)?;
    let flags = MFdFlags::MFD_ALLOW_SEALING | MFdFlags::MFD_CLOEXEC;
    let mut file = File::from(memfd_create(image.name.as_str(), flags).map_err(memory)?);
    let start = Instant::now();
    let crc = receive(&mut body, image, &mut file, console)?;
    check(image, &wanted, &file, crc)?;
    let seals = SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).map_err(memory)?;
    let seconds = start.elapsed().as_secs_f64();
    console.say(&format!(
        "image {}: {} MB in {seconds:.1} s, intact",
        image.name,
        megabytes(image.size)
    ));
    Ok(file.into())
}

/// Moves the body to `file`; returns its CRC-32.
fn receive(
    body: &mut Body,
    image: &VerityImage,
    file: &mut File,
    console: &Console,
) -> Result<u32, ImageError> {
    let (mut piece, mut crc) = (vec![0; PIECE], crc32fast::Hasher::new());
    let (mut moved, mut shown) = (0_u64, Instant::now());
    loop {
        let count = body.fill(&mut piece).map_err(|e| ImageError::Fetch(image.name.clone(), e))?;
        let part = piece.get(..count).filter(|part| !part.is_empty());
        let Some(part) = part else { return Ok(crc.finalize()) };
        crc.update(part);
        file.write_all(part).map_err(|e| ImageError::Store(image.name.clone(), e))?;
        moved += count as u64;
        if shown.elapsed() >= PROGRESS {
            shown = Instant::now();
            let (done, all) = (megabytes(moved), megabytes(image.size));
            console.say(&format!("image {}: {done} of {all} MB", image.name));
        }
    }
}

/// Checks the tree, and the data by its CRC; only if that differs are all blocks hashed, to name the damaged one.
fn check(image: &VerityImage, wanted: &Wanted, file: &File, crc: u32) -> Result<(), ImageError> {
    let corrupt = |corrupt| ImageError::Corrupt(image.name.clone(), corrupt);
    let store = |source| ImageError::Store(image.name.clone(), source);
    let mut tree = vec![0; wanted.tree_bytes];
    file.read_exact_at(&mut tree, wanted.data_bytes).map_err(store)?;
    let expected =
        wanted.hasher.check_tree(wanted.root, image.data_blocks, &tree).map_err(corrupt)?;
    if image.crc32.is_none_or(|expected| expected == crc) {
        return Ok(());
    }
    let mut piece = vec![0; BLOCK];
    for (block, digest) in (0..image.data_blocks).zip(&expected) {
        file.read_exact_at(&mut piece, block * BLOCK as u64).map_err(store)?;
        if wanted.hasher.digest(&piece) != *digest {
            return Err(corrupt(Corrupt::Data { block }));
        }
    }
    Err(ImageError::Description { image: image.name.clone(), wrong: "a checksum of another image" })
}

fn megabytes(bytes: u64) -> u64 {
    bytes.div_ceil(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> VerityImage {
        VerityImage {
            name: "root".into(),
            root_hash: "0aB1".repeat(16),
            salt: "00".into(),
            data_blocks: 2,
            size: 3 * 4096,
            crc32: None,
        }
    }

    #[test]
    fn a_description_is_taken_only_if_its_numbers_agree() {
        assert_eq!(Wanted::of(&image()).unwrap().root[..2], [0x0a, 0xb1]);
        let bad = [
            VerityImage { root_hash: "ab".into(), ..image() },
            VerityImage { root_hash: "zz".repeat(32), ..image() },
            VerityImage { salt: "0".into(), ..image() },
            VerityImage { size: 4 * 4096, ..image() },
            VerityImage { data_blocks: 0, size: 0, ..image() },
            VerityImage { data_blocks: u64::MAX, ..image() },
        ];
        for image in bad {
            assert!(matches!(Wanted::of(&image), Err(ImageError::Description { .. })), "{image:?}");
        }
    }

    #[test]
    fn hexadecimal_text_is_read_or_refused() {
        assert_eq!(hex("00fFa1"), Some(vec![0, 255, 0xa1]));
        assert_eq!(hex(""), Some(vec![]));
        assert_eq!((hex("0"), hex("0g"), hex("+1")), (None, None, None));
    }
}
