//! A root file system being filled: every path is resolved inside it, whatever links the image has.
//!
//! Parents are opened by `openat2` with `RESOLVE_IN_ROOT` (openat2(2)), so that the kernel keeps absolute
//! links and `..` inside; the last component is made, removed or replaced in that directory without being
//! followed. There is no moment between check and use.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmod, fchmodat, fstatat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, linkat, symlinkat, unlinkat};

/// User and group ids of a container: this many, from a base of its own on the host.
pub const IDS: u32 = 65536;

/// Who owns a new file, as the image says, and its permissions.
#[derive(Debug, Clone, Copy)]
pub struct Owner {
    /// User in the container, below [`IDS`].
    pub user: u32,
    /// Group in the container, below [`IDS`].
    pub group: u32,
    /// Permission bits.
    pub mode: u32,
}

/// Who owns directories that an image forgot to list.
const UNLISTED: Owner = Owner { user: 0, group: 0, mode: 0o755 };

/// The root directory.
#[derive(Debug)]
pub struct Root {
    dir: OwnedFd,
    base: u32,
    /// Directories made that the image did not list, since they were asked for last.
    unlisted: Cell<u64>,
}

impl Root {
    /// Opens a directory; ids of the container are shifted by `base` on the host.
    ///
    /// # Errors
    /// As the file system says.
    pub fn open(path: &Path, base: u32) -> io::Result<Self> {
        Ok(Self { dir: File::open(path)?.into(), base, unlisted: Cell::new(0) })
    }

    /// Opens the directory that `path` leads to within the root.
    fn directory(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_IN_ROOT);
        openat2(self.dir.as_fd(), path, how)
    }

    /// Opens a regular file for reading, links followed within the root.
    ///
    /// # Errors
    /// As the file system says; anything but a regular file is refused.
    pub fn read(&self, path: &Path) -> io::Result<File> {
        // Without O_NONBLOCK, opening a pipe would wait for its writer.
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_IN_ROOT);
        let file = File::from(openat2(self.dir.as_fd(), path, how)?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(Errno::EINVAL.into()) }
    }

    /// The parent directory of a path, made where the image did not list it, and the last component.
    fn parent<'a>(&self, path: &'a Path) -> Result<(OwnedFd, &'a OsStr), Errno> {
        let name = path.file_name().ok_or(Errno::EINVAL)?;
        let parent = path.parent().unwrap_or(Path::new(""));
        match self.directory(parent) {
            Err(Errno::ENOENT) => {
                let mut made = PathBuf::new();
                for part in parent {
                    made.push(part);
                    if matches!(self.directory(&made), Err(Errno::ENOENT)) {
                        self.make_directory(&made, UNLISTED)?;
                        self.unlisted.set(self.unlisted.get().saturating_add(1));
                    }
                }
                Ok((self.directory(parent)?, name))
            }
            opened => Ok((opened?, name)),
        }
    }

    fn own(&self, file: BorrowedFd<'_>, owner: Owner) -> Result<(), Errno> {
        fchown(file, Some(self.user(owner)), Some(self.group(owner)))?;
        // After the owner: a change of owner takes permission bits away.
        fchmod(file, Mode::from_bits_truncate(owner.mode))
    }

    fn user(&self, owner: Owner) -> Uid {
        Uid::from_raw(self.base.saturating_add(owner.user))
    }

    fn group(&self, owner: Owner) -> Gid {
        Gid::from_raw(self.base.saturating_add(owner.group))
    }

    /// A directory; one that is there keeps its contents. An empty path is the root itself.
    ///
    /// # Errors
    /// As the file system says.
    pub fn make_directory(&self, path: &Path, owner: Owner) -> Result<(), Errno> {
        if path.as_os_str().is_empty() {
            return self.own(self.dir.as_fd(), owner);
        }
        let (parent, name) = self.parent(path)?;
        let there = fstatat(parent.as_fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW);
        let kind = there.map(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT);
        if kind != Ok(SFlag::S_IFDIR) {
            remove(parent.as_fd(), name)?;
            mkdirat(parent.as_fd(), name, Mode::S_IRWXU)?;
        }
        fchownat(
            parent.as_fd(),
            name,
            Some(self.user(owner)),
            Some(self.group(owner)),
            AtFlags::AT_SYMLINK_NOFOLLOW,
        )?;
        // It is a directory that this process made or saw just now; nobody else writes here.
        let mode = Mode::from_bits_truncate(owner.mode);
        fchmodat(parent.as_fd(), name, mode, FchmodatFlags::FollowSymlink)
    }

    /// A new empty file in place of whatever was there. The caller fills it.
    ///
    /// # Errors
    /// As the file system says.
    pub fn make_file(&self, path: &Path, owner: Owner) -> Result<File, Errno> {
        let (parent, name) = self.parent(path)?;
        remove(parent.as_fd(), name)?;
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let file = openat(parent.as_fd(), name, flags | OFlag::O_NOFOLLOW, Mode::S_IRUSR)?;
        self.own(file.as_fd(), owner)?;
        Ok(File::from(file))
    }

    /// A symbolic link in place of whatever was there. Its target is text and is not looked at.
    ///
    /// # Errors
    /// As the file system says.
    pub fn make_link(&self, path: &Path, target: &Path, owner: Owner) -> Result<(), Errno> {
        let (parent, name) = self.parent(path)?;
        remove(parent.as_fd(), name)?;
        symlinkat(target, parent.as_fd(), name)?;
        let (user, group) = (Some(self.user(owner)), Some(self.group(owner)));
        fchownat(parent.as_fd(), name, user, group, AtFlags::AT_SYMLINK_NOFOLLOW)
    }

    /// A second name for a file of the same image.
    ///
    /// # Errors
    /// As the file system says.
    pub fn make_hard_link(&self, path: &Path, target: &Path) -> Result<(), Errno> {
        let (from, target) = self.parent(target)?;
        let (parent, name) = self.parent(path)?;
        // Making sure of the target first: a name must not be lost for a link that cannot be made.
        fstatat(from.as_fd(), target, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        remove(parent.as_fd(), name)?;
        linkat(from.as_fd(), target, parent.as_fd(), name, AtFlags::empty())
    }

    /// How many directories were made that the image did not list, since this was called last.
    pub fn take_unlisted(&self) -> u64 {
        self.unlisted.take()
    }

    /// Removes a file or a directory with all below it. None is fine.
    ///
    /// # Errors
    /// As the file system says.
    pub fn remove(&self, path: &Path) -> Result<(), Errno> {
        match self.directory(path.parent().unwrap_or(Path::new(""))) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(()),
            parent => remove(parent?.as_fd(), path.file_name().ok_or(Errno::EINVAL)?),
        }
    }

    /// Names in a directory; none where there is no such directory.
    ///
    /// # Errors
    /// As the file system says.
    pub fn names(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        match self.directory(path) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(Vec::new()),
            dir => fs::read_dir(by_descriptor(dir?.as_fd()))?
                .map(|entry| Ok(path.join(entry?.file_name())))
                .collect(),
        }
    }
}

/// A path that leads to an open directory whatever happens to its name.
fn by_descriptor(dir: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()))
}

fn remove(parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        // remove_dir_all does not follow links either.
        Err(Errno::EISDIR) => fs::remove_dir_all(by_descriptor(parent).join(name))
            .map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)),
        Err(error) => Err(error),
    }
}
