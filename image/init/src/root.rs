//! File systems: those of the kernel, the verified root with what is writable over it, and the switch to it.
//!
//! ```text
//!  /          erofs on dm-verity, read only
//!  /usr       the layers that the site asked for, over the root's, read only
//!  /etc       the root's, writable in memory        /var, /tmp   memory
//! ```

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, chroot, execve};

/// Where the new root is put together.
const ROOT: &str = "/sysroot";
const SYSTEMD: &std::ffi::CStr = c"/usr/lib/systemd/systemd";

/// A file system cannot be mounted, filled or entered.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// Mounting.
    #[error("mount {what} on {on}")]
    Mount {
        /// The file system.
        what: String,
        /// The folder.
        on: String,
        /// Why not.
        source: Errno,
    },
    /// A file or folder.
    #[error("{doing} {path}")]
    File {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// Entering the new root.
    #[error("{0}")]
    Enter(&'static str, #[source] Errno),
}

fn file<T>(doing: &'static str, path: &Path, result: io::Result<T>) -> Result<T, RootError> {
    result.map_err(|source| RootError::File { doing, path: path.display().to_string(), source })
}

fn make(folder: &str) -> Result<(), RootError> {
    file("make", Path::new(folder), fs::create_dir_all(folder))
}

fn attach(
    what: &str,
    kind: &str,
    on: &str,
    flags: MsFlags,
    options: &str,
) -> Result<(), RootError> {
    mount(Some(what), on, Some(kind), flags, Some(options)).map_err(|source| RootError::Mount {
        what: what.to_owned(),
        on: on.to_owned(),
        source,
    })
}

const PLAIN: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);

/// Mounts the kernel's file systems and `/run`.
///
/// # Errors
/// [`RootError`].
pub fn mount_kernel() -> Result<(), RootError> {
    let sealed = PLAIN | MsFlags::MS_NOEXEC;
    attach("devtmpfs", "devtmpfs", "/dev", MsFlags::MS_NOSUID, "mode=0755")?;
    attach("proc", "proc", "/proc", sealed, "")?;
    attach("sysfs", "sysfs", "/sys", sealed, "")?;
    attach("tmpfs", "tmpfs", "/run", PLAIN, "mode=0755,size=20%")
}

/// Puts the new root together from the block device of its image and those of layers, by name.
///
/// # Errors
/// [`RootError`].
pub fn assemble(root: &Path, layers: &[(String, PathBuf)]) -> Result<(), RootError> {
    let on = |folder: &str| format!("{ROOT}{folder}");
    let read_only = |device: &Path, on: &str| {
        attach(
            &device.display().to_string(),
            "erofs",
            on,
            MsFlags::MS_RDONLY | MsFlags::MS_NODEV,
            "",
        )
    };
    read_only(root, ROOT)?;
    lay_over_usr(layers, read_only)?;

    // half of the memory: tenants' files are here until a lease has a volume
    make("/var")?;
    attach("tmpfs", "tmpfs", "/var", MsFlags::MS_NODEV, "mode=0755,size=50%")?;
    copy_tree(Path::new(&on("/var")), Path::new("/var"))?;
    carry("/var")?;

    make("/run/etc/upper")?;
    make("/run/etc/work")?;
    let options = format!("lowerdir={},upperdir=/run/etc/upper,workdir=/run/etc/work", on("/etc"));
    attach("overlay", "overlay", &on("/etc"), MsFlags::MS_NODEV, &options)?;

    // systemd would start a process for each of these
    attach("tmpfs", "tmpfs", &on("/tmp"), PLAIN, "mode=1777,size=50%,nr_inodes=1m")?;
    make("/dev/hugepages")?;
    attach("hugetlbfs", "hugetlbfs", "/dev/hugepages", PLAIN, "")?;
    // where the supervisor looks for what tenants could have left
    make("/dev/mqueue")?;
    attach("mqueue", "mqueue", "/dev/mqueue", PLAIN, "")?;
    make("/run/lock")
}

/// The layers' `/usr` over the root's, the first named on top.
fn lay_over_usr(
    layers: &[(String, PathBuf)],
    read_only: impl Fn(&Path, &str) -> Result<(), RootError>,
) -> Result<(), RootError> {
    let mut stack = String::new();
    let mut mounted = Vec::new();
    for (name, device) in layers {
        let folder = format!("/run/layers/{name}");
        make(&folder)?;
        read_only(device, &folder)?;
        stack += &format!("{folder}/usr:");
        mounted.push(folder);
    }
    if mounted.is_empty() {
        return Ok(());
    }
    let usr = format!("{ROOT}/usr");
    let options = format!("lowerdir={stack}{usr}");
    attach("overlay", "overlay", &usr, MsFlags::MS_RDONLY | MsFlags::MS_NODEV, &options)?;
    for folder in mounted {
        // the overlay holds its own reference
        umount2(folder.as_str(), MntFlags::MNT_DETACH).map_err(|source| RootError::Mount {
            what: "nothing".to_owned(),
            on: folder.clone(),
            source,
        })?;
    }
    file("remove", Path::new("/run/layers"), fs::remove_dir_all("/run/layers"))
}

/// Moves the mount on `folder` to the same folder of the new root.
fn carry(folder: &str) -> Result<(), RootError> {
    let on = format!("{ROOT}{folder}");
    mount(Some(folder), on.as_str(), None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .map_err(|source| RootError::Mount { what: folder.to_owned(), on, source })
}

/// Copies folders, files and links with their owners and modes; other kinds of files are left out.
fn copy_tree(from: &Path, to: &Path) -> Result<(), RootError> {
    for entry in file("list", from, fs::read_dir(from))? {
        let entry = file("list", from, entry)?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let about = file("look at", &source, fs::symlink_metadata(&source))?;
        if about.is_symlink() {
            let link = file("read", &source, fs::read_link(&source))?;
            file("link", &target, std::os::unix::fs::symlink(link, &target))?;
            continue;
        }
        if about.is_dir() {
            file("make", &target, fs::create_dir(&target))?;
            copy_tree(&source, &target)?;
        } else if about.is_file() {
            file("copy", &source, fs::copy(&source, &target))?;
        } else {
            continue;
        }
        let (owner, group) = (Some(about.uid()), Some(about.gid()));
        file("set owner of", &target, std::os::unix::fs::chown(&target, owner, group))?;
        // after the owner: chown clears set-id bits
        let mode = fs::Permissions::from_mode(about.mode());
        file("set mode of", &target, fs::set_permissions(&target, mode))?;
    }
    Ok(())
}

/// Copies the initrd's trust anchors to `target`.
///
/// # Errors
/// [`RootError`].
pub fn copy_trust(from: &Path, target: &Path) -> Result<(), RootError> {
    file("make", target, fs::create_dir_all(target))?;
    if from.exists() { copy_tree(from, target) } else { Ok(()) }
}

/// Writes `text` to `path`, readable by root alone.
///
/// # Errors
/// [`RootError`].
pub fn write_secret(path: &Path, text: &[u8]) -> Result<(), RootError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    if let Some(folder) = path.parent() {
        file("make", folder, fs::create_dir_all(folder))?;
    }
    let open = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut target = file("make", path, open)?;
    file("write", path, io::Write::write_all(&mut target, text))
}

/// Enters the new root, frees the initrd's files and becomes systemd. Returns only with an error.
///
/// # Errors
/// [`RootError`].
pub fn enter() -> Result<Infallible, RootError> {
    for folder in ["/dev", "/proc", "/sys", "/run"] {
        carry(folder)?;
    }
    // the program that runs stays until it is replaced
    file("remove", Path::new("/init"), fs::remove_file("/init"))?;
    file("remove", Path::new("/bulkhead"), fs::remove_dir_all("/bulkhead"))?;
    chdir(ROOT).map_err(|e| RootError::Enter("change to the new root", e))?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .map_err(|e| RootError::Enter("move the new root to /", e))?;
    chroot(".").map_err(|e| RootError::Enter("make the new root the root", e))?;
    chdir("/").map_err(|e| RootError::Enter("change to /", e))?;
    execve(SYSTEMD, &[SYSTEMD], &[c"TERM=linux"]).map_err(|e| RootError::Enter("start systemd", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_are_copied_with_modes_and_links() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("lib/private")).unwrap();
        fs::write(from.join("lib/private/key"), "k").unwrap();
        fs::set_permissions(from.join("lib/private"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::set_permissions(from.join("lib/private/key"), fs::Permissions::from_mode(0o640))
            .unwrap();
        std::os::unix::fs::symlink("/run/lock", from.join("lock")).unwrap();
        fs::create_dir(&to).unwrap();
        copy_tree(&from, &to).unwrap();
        let mode = |path: &str| fs::metadata(to.join(path)).unwrap().mode() & 0o7777;
        assert_eq!((mode("lib/private"), mode("lib/private/key")), (0o700, 0o640));
        assert_eq!(fs::read_link(to.join("lock")).unwrap(), Path::new("/run/lock"));
    }

    #[test]
    fn secrets_are_for_root_alone_and_never_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bulkhead/boot.json");
        write_secret(&path, b"x").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert!(write_secret(&path, b"y").is_err());
    }
}
