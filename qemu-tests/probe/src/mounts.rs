//! Mounts and namespaces: another view of the file systems than the one that was given.

use std::io;

use crate::attempt::Report;
use crate::sys::{address, address_mut, call, open_call, text, word};

/// Of open_tree(2), fsopen(2): not in every libc.
const OPEN_TREE_CLONE: usize = 1;

/// `struct file_handle` with room for the largest one.
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    handle: [u8; 128],
}

pub(crate) fn probe(report: &mut Report) {
    report.attempt("mount-tmpfs", || mount("tmpfs", "/tmp", "tmpfs"));
    report.attempt("mount-proc", || mount("proc", "/tmp", "proc"));
    report.attempt("umount", || {
        // No mount point: refused for that only after the right to unmount was granted. The host keeps its own.
        let target = text("/bin")?;
        let flags = word(libc::MNT_DETACH);
        right(call(libc::SYS_umount2, [target.as_ptr() as usize, flags, 0, 0, 0, 0]))
    });
    for (name, flags) in [
        ("mount", libc::CLONE_NEWNS),
        ("user", libc::CLONE_NEWUSER),
        ("net", libc::CLONE_NEWNET),
        ("pid", libc::CLONE_NEWPID),
    ] {
        report.attempt(&format!("unshare-{name}"), || {
            call(libc::SYS_unshare, [word(flags), 0, 0, 0, 0, 0]).map(drop)
        });
    }
    report.attempt("unshare-user-and-mount", || {
        let flags = libc::CLONE_NEWUSER | libc::CLONE_NEWNS;
        call(libc::SYS_unshare, [word(flags), 0, 0, 0, 0, 0])?;
        mount("tmpfs", "/tmp", "tmpfs")
    });
    report.attempt("pivot-root", || {
        let here = text("/tmp")?;
        let here = here.as_ptr() as usize;
        // A new root that is no mount point is refused only after the right to do it was granted.
        right(call(libc::SYS_pivot_root, [here, here, 0, 0, 0, 0]))
    });
    report.attempt("chroot", || {
        let path = text("/proc")?;
        call(libc::SYS_chroot, [path.as_ptr() as usize, 0, 0, 0, 0, 0]).map(drop)
    });
    report.attempt("open-by-handle", open_by_handle);
    report.attempt("open-tree", || {
        let root = text("/")?;
        let at = word(libc::AT_FDCWD);
        let arguments = [at, root.as_ptr() as usize, OPEN_TREE_CLONE, 0, 0, 0];
        open_call(libc::SYS_open_tree, arguments).map(drop)
    });
    report.attempt("fsopen", || {
        let kind = text("tmpfs")?;
        open_call(libc::SYS_fsopen, [kind.as_ptr() as usize, 0, 0, 0, 0, 0]).map(drop)
    });
    report.attempt("write-root", || {
        std::fs::write("/probe-was-here", "")?;
        std::fs::remove_file("/probe-was-here")
    });
}

fn mount(source: &str, target: &str, kind: &str) -> io::Result<()> {
    let (source, path, kind) = (text(source)?, text(target)?, text(kind)?);
    let pointers = [source.as_ptr() as usize, path.as_ptr() as usize, kind.as_ptr() as usize];
    let [source, place, kind] = pointers;
    call(libc::SYS_mount, [source, place, kind, 0, 0, 0])?;
    call(libc::SYS_umount2, [place, word(libc::MNT_DETACH), 0, 0, 0, 0]).map(drop)
}

/// Whether a call got past the question of rights.
fn right(result: io::Result<usize>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() != Some(libc::EPERM) => Ok(()),
        other => other.map(drop),
    }
}

/// A file by its handle: past every path, and past a root.
fn open_by_handle() -> io::Result<()> {
    let mut handle = Handle { bytes: 128, kind: 0, handle: [0; 128] };
    let mut mount: i32 = 0;
    // A file system that has handles: an overlay has none unless it was mounted so.
    let path = text("/proc/self/ns")?;
    let temporary = text("/tmp")?;
    let at = word(libc::AT_FDCWD);
    let name = |place: usize, handle: &mut Handle, mount: &mut i32| {
        let arguments = [at, place, address_mut(handle), address_mut(mount), 0, 0];
        call(libc::SYS_name_to_handle_at, arguments)
    };
    name(temporary.as_ptr() as usize, &mut handle, &mut mount)
        .or_else(|_| name(path.as_ptr() as usize, &mut handle, &mut mount))?;
    let folder = open_call(
        libc::SYS_openat,
        [at, temporary.as_ptr() as usize, word(libc::O_RDONLY), 0, 0, 0],
    )?;
    let fd = word(std::os::fd::AsRawFd::as_raw_fd(&folder));
    let flags = word(libc::O_RDONLY);
    open_call(libc::SYS_open_by_handle_at, [fd, address(&handle), flags, 0, 0, 0]).map(drop)
}
