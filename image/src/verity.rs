//! A folder becomes one file: an erofs image and, behind it, its dm-verity hash tree.

use std::path::{Path, PathBuf};

use bulkhead_api::boot::VerityImage;

use crate::cache::sha256_hex;
use crate::command::CommandError;
use crate::files::{self, FileError};
use crate::layout::Layout;
use crate::toolbox;

// UUID and salt are fixed so that the same tree gives the same bytes. A salt need not be secret: it keeps one table of
// hashes from serving for all images.
const PACK: &str = r#"tree=$1 img=$2 uuid=$3 salt=$4
mkdir -p "$(dirname "$img")"; rm -f "$img" "$img.new"
mkfs.erofs -zzstd,level=3 -C65536 "-T$SOURCE_DATE_EPOCH" --all-time "-U$uuid" --quiet "$img.new" "$tree"
size=$(stat -c %s "$img.new"); blocks=$(( (size + 4095) / 4096 )); truncate -s $((blocks * 4096)) "$img.new"
veritysetup format --no-superblock "--salt=$salt" "--data-blocks=$blocks" "--hash-offset=$((blocks * 4096))" "$img.new" "$img.new" |
  sed -n 's/^Root hash:[[:space:]]*//p'
mv "$img.new" "$img"; echo "$blocks""#;

/// A folder could not be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// veritysetup's answer was not understood.
    #[error("veritysetup names no root hash for {image}: `{answer}`")]
    NoRootHash {
        /// The image.
        image: String,
        /// What it said.
        answer: String,
    },
    /// A program.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The description beside the image.
    #[error("description of image {image}")]
    Description {
        /// The image.
        image: String,
        /// Why.
        source: serde_json::Error,
    },
}

/// Packs `tree` (relative to the build folder) as `image` and writes its description beside it.
///
/// # Errors
/// The tools', or a file's.
pub fn pack(
    layout: &Layout,
    name: &str,
    tree: &str,
    image: &str,
) -> Result<VerityImage, PackError> {
    let salt = sha256_hex(format!("bulkhead image salt {name}").as_bytes());
    let uuid = uuid_of(name);
    let answer = toolbox::run(layout, PACK, &[tree, image, &uuid, &salt])?;
    let lines: Vec<_> = answer.lines().collect();
    let (Some(root_hash), Some(Ok(data_blocks))) =
        (lines.first(), lines.get(1).map(|blocks| blocks.parse()))
    else {
        return Err(PackError::NoRootHash { image: image.to_owned(), answer });
    };
    let path = layout.out.join(image);
    let content = files::read(&path)?;
    let described = VerityImage {
        name: name.to_owned(),
        root_hash: (*root_hash).to_owned(),
        salt,
        data_blocks,
        size: content.len() as u64,
        crc32: Some(crc32fast::hash(&content)),
    };
    let text = serde_json::to_string_pretty(&described)
        .map_err(|source| PackError::Description { image: image.to_owned(), source })?;
    files::write(&description(&path), text)?;
    Ok(described)
}

/// Reads the description that [`pack`] wrote.
///
/// # Errors
/// It cannot be read.
pub fn described(image: &Path) -> Result<VerityImage, PackError> {
    let text = files::read_text(&description(image))?;
    serde_json::from_str(&text)
        .map_err(|source| PackError::Description { image: image.display().to_string(), source })
}

/// Where the description of an image is.
#[must_use]
pub fn description(image: &Path) -> PathBuf {
    image.with_extension("img.json")
}

/// A file system UUID made from the name (version 8: made up by the vendor, RFC 9562, 5.8).
fn uuid_of(name: &str) -> String {
    let digest = sha256_hex(format!("bulkhead image uuid {name}").as_bytes());
    let part = |from: usize, to: usize| digest.get(from..to).unwrap_or_default();
    let (a, b, c, d, e) = (part(0, 8), part(8, 12), part(13, 16), part(17, 20), part(20, 32));
    format!("{a}-{b}-8{c}-8{d}-{e}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_uuids_of_their_own_and_always_the_same() {
        let uuid = uuid_of("root");
        assert_eq!(uuid.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert_eq!(uuid, uuid_of("root"));
        assert_ne!(uuid, uuid_of("vm"));
    }
}
