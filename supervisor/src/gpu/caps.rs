//! Device nodes of slices: `/proc/driver/nvidia-caps/mig-minors` says which capability a slice's two nodes are.
//!
//! Lines are `gpu0/gi1/access 12` and `gpu0/gi1/ci0/access 13`, where the GPU is named by the minor of its own node. Whoever
//! opens both may use the slice; `config` and `monitor` are never given to anybody.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::class::ClassError;

/// Where the kernel module says it.
const MINORS: &str = "proc/driver/nvidia-caps/mig-minors";
const DEVICES: &str = "proc/devices";
/// Where the nodes are.
const NODES: &str = "dev/nvidia-caps";

/// A slice by the kernel module's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SliceNumbers {
    /// Minor of the GPU's own node.
    pub gpu: u32,
    /// GPU instance.
    pub instance: u32,
    /// Compute instance.
    pub compute: u32,
}

/// Minors of the two nodes of a slice: of its GPU instance, and of its compute instance.
#[must_use]
pub fn minors(text: &str, slice: SliceNumbers) -> Option<[u32; 2]> {
    let SliceNumbers { gpu, instance, compute } = slice;
    let of = |name: &str| {
        let mut found = text.lines().filter_map(|line| line.split_once(' '));
        found.find(|(line, _)| *line == name)?.1.trim().parse().ok()
    };
    let instance_minor = of(&format!("gpu{gpu}/gi{instance}/access"))?;
    Some([instance_minor, of(&format!("gpu{gpu}/gi{instance}/ci{compute}/access"))?])
}

/// Major of the capabilities in the text of `/proc/devices`: lines `NNN name` below `Character devices:`.
#[must_use]
pub fn major(text: &str) -> Option<u32> {
    let characters = text.lines().skip_while(|line| !line.starts_with("Character"));
    let mut lines = characters.skip(1).take_while(|line| !line.trim().is_empty());
    lines.find_map(|line| {
        let (number, name) = line.trim().split_once(' ')?;
        (name.trim() == "nvidia-caps").then(|| number.parse().ok()).flatten()
    })
}

fn read(path: &Path) -> Result<String, ClassError> {
    let bytes = fs::read(path).map_err(|source| ClassError::Files {
        doing: "read",
        path: path.to_owned(),
        source,
    })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The two nodes of a slice, as paths of the host. One that is missing is made.
///
/// # Errors
/// What the kernel module does not say, and what cannot be made.
pub fn nodes(root: &Path, slice: SliceNumbers) -> Result<[PathBuf; 2], ClassError> {
    let path = root.join(MINORS);
    let text = read(&path)?;
    let minors = minors(&text, slice).ok_or_else(|| ClassError::Refused {
        doing: format!("read {}", path.display()),
        why: format!(
            "it has no capabilities of gpu{}/gi{}/ci{}",
            slice.gpu, slice.instance, slice.compute
        ),
    })?;
    for minor in minors {
        ensure(root, minor)?;
    }
    Ok(minors.map(|minor| Path::new("/").join(NODES).join(format!("nvidia-cap{minor}"))))
}

fn ensure(root: &Path, minor: u32) -> Result<(), ClassError> {
    let folder = root.join(NODES);
    let path = folder.join(format!("nvidia-cap{minor}"));
    let files = |doing| {
        let path = path.clone();
        move |source| ClassError::Files { doing, path, source }
    };
    let list = root.join(DEVICES);
    let major = major(&read(&list)?).ok_or_else(|| ClassError::Refused {
        doing: format!("read {}", list.display()),
        why: "it has no nvidia-caps".to_owned(),
    })?;
    let wanted = makedev(u64::from(major), u64::from(minor));
    match fs::symlink_metadata(&path) {
        Ok(about) if about.file_type().is_char_device() && about.rdev() == wanted => return Ok(()),
        // Of an earlier load of the driver, with another major.
        Ok(_) => fs::remove_file(&path).map_err(files("remove"))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(files("look at")(source)),
    }
    fs::create_dir_all(&folder).map_err(files("make the folder of"))?;
    mknod(&path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), wanted)
        .map_err(|errno| files("make")(errno.into()))?;
    // The mask of the process may have taken bits off.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).map_err(files("open up"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SLICE: SliceNumbers = SliceNumbers { gpu: 1, instance: 2, compute: 0 };

    #[test]
    fn a_slice_has_the_two_capabilities_that_bear_its_name() {
        let text = "config 1\nmonitor 2\ngpu0/gi2/access 21\ngpu1/gi2/access 156\ngpu1/gi2/ci0/access 157\n\
                    gpu1/gi20/access 9\n";
        assert_eq!(minors(text, SLICE), Some([156, 157]));
        assert_eq!(minors(text, SliceNumbers { compute: 1, ..SLICE }), None);
        assert_eq!(minors("gpu1/gi2/access x\ngpu1/gi2/ci0/access 157", SLICE), None);
    }

    #[test]
    fn the_major_is_that_of_character_devices() {
        let text = "Character devices:\n  1 mem\n195 nvidia-frontend\n506 nvidia-caps\n\nBlock devices:\n  7 nvidia-caps\n";
        assert_eq!(major(text), Some(506));
        assert_eq!(major("Block devices:\n  7 nvidia-caps\n"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(gpu[0-9]/gi[0-9](/ci[0-9])?/access [0-9]{0,12}\n|.{0,20}\n){0,8}") {
            let _ = minors(&text, SLICE);
            let _ = major(&format!("Character devices:\n{text}"));
        }
    }
}
