//! What device files processes of a lease reach: open ones, those that they see, file systems on them.
//!
//! ```text
//!  /proc/PID/task/*/fd      each table of open files once
//!  /proc/PID/mountinfo      file systems on block devices; device files that are mounted one by one
//!  /proc/PID/root/dev       device files in the file system that is there, without what is mounted in it
//! ```
//!
//! A tenant owns what is looked at: nothing is opened but directories, no link is followed below the root of the
//! process, and what is listed is bounded. What is beyond the bound was not seen, so it is told as unreadable.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use bulkhead_api::isolation::{DeviceFile, Way};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, major, minor};

use super::mounts::{self, Mount};
use super::sys;

/// Open files of a lease that are looked at. Each comparison of two tables of open files counts as one.
pub const MOST_OPEN: usize = 1 << 17;
/// Files in `/dev` that are looked at.
const MOST_NODES: usize = 1 << 14;
/// Directories in directories.
const DEPTH: usize = 8;

/// A device file, and the file system that it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// Its number.
    pub file: DeviceFile,
    /// Number of the file system: for pseudo terminals it says whose they are.
    pub within: (u32, u32),
}

/// What a lease reaches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reached {
    /// Device files, each with the ways to it.
    pub files: BTreeMap<Seen, BTreeSet<Way>>,
    /// Mounts of devpts, by the number of the file system.
    pub terminals: BTreeSet<(u32, u32)>,
    /// Open files that were looked at, and comparisons of tables of them.
    pub open: usize,
}

fn numbers(device: u64) -> (u32, u32) {
    let number = |part: u64| u32::try_from(part).unwrap_or(u32::MAX);
    (number(major(device)), number(minor(device)))
}

/// The device that a file is; `None` for any other file.
fn device(metadata: &Metadata) -> Option<Seen> {
    let kind = metadata.file_type();
    let block = kind.is_block_device();
    if !block && !kind.is_char_device() {
        return None;
    }
    let (major, minor) = numbers(metadata.rdev());
    let file = DeviceFile { block, major, minor };
    Some(Seen { file, within: numbers(metadata.dev()) })
}

/// A thread or an open file that was there a moment ago.
fn ended(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

impl Reached {
    fn add(&mut self, seen: Seen, way: Way) {
        self.files.entry(seen).or_default().insert(way);
    }

    /// Whether there was more than is looked at.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.open > MOST_OPEN
    }

    fn count(&mut self, more: usize) -> Result<(), String> {
        self.open = self.open.saturating_add(more);
        if self.is_crowded() {
            return Err(format!("more than {MOST_OPEN} open files: not all were seen"));
        }
        Ok(())
    }

    /// Open files of a process; `dir` is its directory in `/proc`.
    ///
    /// # Errors
    /// What was not seen, also where the process ended meanwhile.
    pub fn open_files(&mut self, dir: &Path, pid: u32) -> Result<(), String> {
        let failed = |error: io::Error| format!("list open files of process {pid}: {error}");
        let listed = fs::read_dir(dir.join("task")).map_err(failed)?;
        // The threads whose tables were looked at.
        let mut tables: Vec<u32> = Vec::new();
        for thread in listed {
            let thread = thread.map_err(failed)?;
            let number = thread.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
            let Some(number) = number else { continue };
            let known = tables.iter().position(|&other| sys::same_files(other, number));
            self.count(known.map_or(tables.len(), |at| at.saturating_add(1)))?;
            if known.is_some() {
                continue;
            }
            tables.push(number);
            let table = match fs::read_dir(thread.path().join("fd")) {
                Err(error) if ended(&error) => continue,
                table => table.map_err(failed)?,
            };
            for entry in table {
                let entry = match entry {
                    Err(error) if ended(&error) => break,
                    entry => entry.map_err(failed)?,
                };
                self.count(1)?;
                match fs::metadata(entry.path()) {
                    Ok(metadata) => {
                        if let Some(seen) = device(&metadata) {
                            self.add(seen, Way::Open);
                        }
                    }
                    // Closed meanwhile.
                    Err(error) if ended(&error) => {}
                    Err(error) => return Err(failed(error)),
                }
            }
        }
        Ok(())
    }

    /// Mounts and device files that a process sees; `dir` is its directory in `/proc`.
    ///
    /// # Errors
    /// What was not seen, also where the process ended meanwhile.
    pub fn file_systems(&mut self, dir: &Path, pid: u32) -> Result<(), String> {
        let failed = |what: &str, error: io::Error| format!("{what} of process {pid}: {error}");
        let text =
            fs::read(dir.join("mountinfo")).map_err(|error| failed("read mountinfo", error))?;
        let odd = || format!("read mountinfo of process {pid}: not of the expected form");
        let mounts = mounts::parse(&text).ok_or_else(odd)?;
        // The link of the kernel's leads to the root of the process; nothing of the tenant's is on the way.
        let root = File::open(dir.join("root")).map_err(|error| failed("open the root", error))?;
        for mount in &mounts {
            let (major, minor) = mount.device;
            if major != 0 {
                let file = DeviceFile { block: true, major, minor };
                self.add(Seen { file, within: mount.device }, Way::Mount);
            }
            if mount.kind == "devpts" {
                self.terminals.insert(mount.device);
            }
            self.mounted_file(&root, mount)
                .map_err(|error| failed(&format!("look at {}", mount.point.display()), error))?;
        }
        match inside(&root, Path::new("dev"), OFlag::O_RDONLY | OFlag::O_DIRECTORY) {
            Ok(dev) => self.nodes(&dev).map_err(|error| failed("list /dev", error))?,
            Err(Errno::ENOENT) => {}
            Err(error) => return Err(failed("open /dev", error.into())),
        }
        Ok(())
    }

    /// A device file that is a mount by itself.
    fn mounted_file(&mut self, root: &File, mount: &Mount) -> io::Result<()> {
        if mount.nodev {
            return Ok(());
        }
        let point = mount.point.strip_prefix("/").unwrap_or(&mount.point);
        let point = if point.as_os_str().is_empty() { Path::new(".") } else { point };
        let found = match inside(root, point, OFlag::O_PATH) {
            Ok(found) => found,
            // Something else is mounted over it, or above it.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EACCES) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if let Some(seen) = device(&found.metadata()?) {
            self.add(seen, Way::Node);
        }
        Ok(())
    }

    /// Device files of a directory and those below it, as far as its own file system goes.
    fn nodes(&mut self, top: &File) -> io::Result<()> {
        let within = top.metadata()?.dev();
        let (mut looked, mut open) = (0_usize, vec![(top.try_clone()?, DEPTH)]);
        while let Some((dir, depth)) = open.pop() {
            for entry in fs::read_dir(format!("/proc/self/fd/{}", dir.as_raw_fd()))? {
                let entry = entry?;
                looked = looked.saturating_add(1);
                if looked > MOST_NODES {
                    return Err(io::Error::other(format!("more than {MOST_NODES} files")));
                }
                // Without following a link, in the directory that is open.
                let metadata = match entry.metadata() {
                    Err(error) if ended(&error) => continue,
                    metadata => metadata?,
                };
                if let Some(seen) = device(&metadata) {
                    self.add(seen, Way::Node);
                }
                if !metadata.is_dir() || metadata.dev() != within {
                    continue;
                }
                let Some(deeper) = depth.checked_sub(1) else {
                    return Err(io::Error::other("directories nest too deep"));
                };
                let flags = OFlag::O_RDONLY
                    | OFlag::O_DIRECTORY
                    | OFlag::O_NOFOLLOW
                    | OFlag::O_NONBLOCK
                    | OFlag::O_CLOEXEC;
                match openat(&dir, entry.file_name().as_os_str(), flags, Mode::empty()) {
                    Ok(below) => open.push((File::from(below), deeper)),
                    // It went away, or is something else by now.
                    Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }
}

/// Opens something below a root without following any link.
fn inside(root: &File, path: &Path, flags: OFlag) -> Result<File, Errno> {
    let resolve = ResolveFlag::RESOLVE_IN_ROOT
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    // A path is only looked up (openat2(2) refuses more flags with it); all else must not wait.
    let wait = if flags.contains(OFlag::O_PATH) { OFlag::empty() } else { OFlag::O_NONBLOCK };
    let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | wait;
    openat2(root, path, OpenHow::new().flags(flags).resolve(resolve)).map(File::from)
}
