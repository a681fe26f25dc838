//! Builds the unsigned parts twice, in folders of their own, from the same packages, and compares their bytes.

use std::path::{Path, PathBuf};

use crate::build::{self, BuildError, Wish};
use crate::cache::sha256_hex;
use crate::files::{self, FileError};
use crate::layout::Layout;
use crate::root::Own;

/// The two builds cannot be compared, or differ.
#[derive(Debug, thiserror::Error)]
pub enum ReproError {
    /// A part is not the same.
    #[error("{part} differs between two builds, first at byte {offset} ({} and {} are kept)", .first.display(), .second.display())]
    Differs {
        /// The part.
        part: String,
        /// Where.
        offset: usize,
        /// The first build's.
        first: PathBuf,
        /// The second build's.
        second: PathBuf,
    },
    /// A part exists in one build only.
    #[error("{0} is in one of two builds only")]
    OnlyOnce(String),
    /// A build.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Builds in `repro/a` and `repro/b`, prints each part with its SHA-256, and removes both when they are the same.
///
/// # Errors
/// The first difference, or a build's error.
pub fn check(layout: &Layout, wish: &Wish) -> Result<(), ReproError> {
    // tools, packages and keys are shared: both builds start from what is there
    build::build(layout, wish)?;
    let folder = layout.out.join("repro");
    files::remove(&folder)?;
    let (first, second) = (folder.join("a"), folder.join("b"));
    let own = frozen(&wish.own, &folder.join("own"))?;
    for out in [&first, &second] {
        let wish = Wish { boot: out.clone(), own: own.clone(), ..wish.clone() };
        build::build(&layout.elsewhere(out), &wish)?;
    }
    let parts = parts(&first)?;
    if let Some(other) = self::parts(&second)?.iter().find(|part| !parts.contains(part)) {
        return Err(ReproError::OnlyOnce(other.clone()));
    }
    for part in &parts {
        println!("image: same {} {part}", compare(part, &first, &second)?);
    }
    Ok(files::remove(&folder)?)
}

/// Copies our programs and units, so that a compiler that runs meanwhile does not come between the two builds.
fn frozen(own: &Own, folder: &Path) -> Result<Own, FileError> {
    let copy = |from: &Path| {
        let to = folder.join(from.file_name().unwrap_or_default());
        files::copy(from, &to).map(|()| to)
    };
    let bulkheadd = own.bulkheadd.as_deref().map(copy).transpose()?;
    let units = folder.join("units");
    let names = if own.units.exists() { files::walk(&own.units)? } else { Vec::new() };
    for name in names.iter().filter(|name| own.units.join(name).is_file()) {
        files::copy(&own.units.join(name), &units.join(name))?;
    }
    Ok(Own { bulkheadd, units })
}

/// The unsigned parts below a build folder.
fn parts(out: &Path) -> Result<Vec<String>, FileError> {
    let mut parts: Vec<_> =
        ["root.img", "stage1.initrd", "uki-unsigned.efi"].map(str::to_owned).into();
    for folder in ["sysext", "oci"] {
        for name in files::walk(&out.join(folder))? {
            if out.join(folder).join(&name).is_file() {
                parts.push(format!("{folder}/{}", name.display()));
            }
        }
    }
    Ok(parts)
}

fn compare(part: &str, first: &Path, second: &Path) -> Result<String, ReproError> {
    let (first, second) = (first.join(part), second.join(part));
    if !second.exists() {
        return Err(ReproError::OnlyOnce(part.to_owned()));
    }
    let (one, two) = (files::read(&first)?, files::read(&second)?);
    if one == two {
        return Ok(sha256_hex(&one));
    }
    let same = one.iter().zip(&two).take_while(|(a, b)| a == b).count();
    Err(ReproError::Differs { part: part.to_owned(), offset: same, first, second })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_differing_byte_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        files::write(&a.join("root.img"), "same1").unwrap();
        files::write(&b.join("root.img"), "same2").unwrap();
        let error = compare("root.img", &a, &b).unwrap_err();
        assert!(
            error.to_string().starts_with("root.img differs between two builds, first at byte 4")
        );
        files::write(&b.join("root.img"), "same1").unwrap();
        assert_eq!(compare("root.img", &a, &b).unwrap(), sha256_hex(b"same1"));
    }

    #[test]
    fn a_part_of_one_build_only_is_no_silence() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        files::write(&a.join("x"), "").unwrap();
        assert!(matches!(compare("x", &a, &b), Err(ReproError::OnlyOnce(_))));
    }
}
