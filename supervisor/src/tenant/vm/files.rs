//! What a virtual machine has in its lease's directory besides the image:
//!
//! ```text
//!  jail/    root of its jail: empty but for links and mount points
//!  qmp/     the lease's own; QEMU makes its socket here
//! ```

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, chown};

use crate::oci::pull::ROOTFS;
use crate::tenant::vm::guest::{DISKS, SOCKET};
use crate::tenant::vm::jail::{Disk, FOLDERS, LINKS};

/// Files of a virtual machine could not be made.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {path}")]
pub struct FilesError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// The directory of a lease with a virtual machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmDir(PathBuf);

impl VmDir {
    /// Of a lease's directory.
    #[must_use]
    pub fn new(lease: &Path) -> Self {
        Self(lease.to_owned())
    }

    /// Root of the jail.
    #[must_use]
    pub fn jail(&self) -> PathBuf {
        self.0.join("jail")
    }

    /// The image's files.
    #[must_use]
    pub fn image(&self) -> PathBuf {
        self.0.join(ROOTFS)
    }

    /// Where the QMP socket is.
    #[must_use]
    pub fn qmp(&self) -> PathBuf {
        self.0.join("qmp")
    }

    /// The QMP socket. Whatever is there was put there by the tenant's emulator: see [`super::qmp::Monitor::connect`].
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.qmp().join(SOCKET)
    }

    /// Makes all of it anew for a machine that does not run.
    ///
    /// # Errors
    /// [`FilesError`].
    pub fn make(&self, first_id: u32, disks: &[Disk]) -> Result<(), FilesError> {
        self.make_jail(disks)?;
        let qmp = self.qmp();
        remove(&qmp)?;
        directory(&qmp, 0o700)?;
        own(&qmp, first_id)
    }

    /// Not the lease's own, so that crun, which has the lease's rights there, finds every mount point made.
    fn make_jail(&self, disks: &[Disk]) -> Result<(), FilesError> {
        let jail = self.jail();
        remove(&jail)?;
        directory(&jail, 0o755)?;
        for folder in FOLDERS {
            directory(&jail.join(folder), 0o755)?;
        }
        for (name, target) in LINKS {
            let link = jail.join(name);
            std::os::unix::fs::symlink(target, &link).map_err(error("make link", &link))?;
        }
        for Disk { name, .. } in disks {
            let point = jail.join(DISKS.trim_start_matches('/')).join(name.as_str());
            fs::File::create_new(&point).map_err(error("make", &point))?;
        }
        Ok(())
    }
}

/// Number of the block device at a path, links followed, as of stat(2).
///
/// # Errors
/// [`FilesError`]; what is no block device is refused.
pub fn block_device(path: &Path) -> Result<u64, FilesError> {
    let about = fs::metadata(path).map_err(error("look at", path))?;
    if !about.file_type().is_block_device() {
        let source = io::Error::new(ErrorKind::InvalidInput, "not a block device");
        return Err(error("use", path)(source));
    }
    Ok(about.rdev())
}

fn error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FilesError {
    let path = path.to_owned();
    move |source| FilesError { doing, path, source }
}

fn own(path: &Path, id: u32) -> Result<(), FilesError> {
    chown(path, Some(Uid::from_raw(id)), Some(Gid::from_raw(id)))
        .map_err(|errno| error("change owner of", path)(errno.into()))
}

fn directory(path: &Path, mode: u32) -> Result<(), FilesError> {
    fs::DirBuilder::new().mode(mode).create(path).map_err(error("make", path))
}

fn remove(path: &Path) -> Result<(), FilesError> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != ErrorKind::NotFound => Err(error("remove", path)(source)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};

    use super::*;

    #[test]
    fn a_machines_files_are_made_anew() {
        let root = tempfile::tempdir().unwrap();
        let dir = VmDir::new(root.path());
        let path = PathBuf::from("/dev/mapper/x");
        let disks = [Disk { name: "data".parse().unwrap(), path }];
        for _ in 0..2 {
            dir.make(5000, &disks).unwrap();
            assert!(dir.jail().join("disks/data").is_file());
            let about = fs::metadata(dir.qmp()).unwrap();
            assert_eq!((about.uid(), about.gid(), about.mode() & 0o777), (5000, 5000, 0o700));
            assert_eq!(fs::read_link(dir.jail().join("lib64")).unwrap(), Path::new("usr/lib64"));
            assert!(fs::symlink_metadata(dir.socket()).is_err());
            // What an earlier machine left is gone the next time round.
            std::os::unix::fs::symlink("/etc/passwd", dir.socket()).unwrap();
        }
    }

    #[test]
    fn only_a_block_device_is_a_disk() {
        let root = tempfile::tempdir().unwrap();
        let node = root.path().join("dm-7");
        mknod(&node, SFlag::S_IFBLK, Mode::S_IRUSR, makedev(253, 7)).unwrap();
        let link = root.path().join("link");
        std::os::unix::fs::symlink(&node, &link).unwrap();
        assert_eq!(block_device(&link).unwrap(), makedev(253, 7));
        let why = block_device(Path::new("/dev/null")).unwrap_err().to_string();
        assert_eq!(why, "use /dev/null");
    }
}
