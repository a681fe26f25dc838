//! System calls by number: what an attacker calls, not what a library offers. The only unsafe code of the program.
#![expect(unsafe_code, reason = "system calls that no safe wrapper has")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

/// A system call with plain numbers as arguments.
///
/// For calls that neither read nor write this program's memory, or none that the caller does not lend by [`address`].
pub(crate) fn call(number: libc::c_long, arguments: [usize; 6]) -> io::Result<usize> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: callers pass numbers, or addresses of values that live and are large enough for what the call is documented
    // to read and write; calls that map or unmap memory are not made through here.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// As [`call`], for those whose result is a file descriptor: closed again when it goes.
pub(crate) fn open_call(number: libc::c_long, arguments: [usize; 6]) -> io::Result<OwnedFd> {
    let fd = call(number, arguments)?;
    let fd = RawFd::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the kernel has just given this descriptor to us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The address of something that is lent to the kernel for one call.
pub(crate) fn address<T: ?Sized>(value: &T) -> usize {
    std::ptr::from_ref(value).cast::<u8>() as usize
}

/// The address of something that the kernel writes to in one call.
pub(crate) fn address_mut<T: ?Sized>(value: &mut T) -> usize {
    std::ptr::from_mut(value).cast::<u8>() as usize
}

pub(crate) fn text(text: &str) -> io::Result<CString> {
    CString::new(text).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// A C integer as a system call takes it.
pub(crate) fn word(value: impl Into<i64>) -> usize {
    let value: i64 = value.into();
    usize::from_ne_bytes(value.to_ne_bytes())
}

/// `EPERM` and the like; others by number.
pub(crate) fn name(errno: i32) -> String {
    let known = [
        (libc::EPERM, "EPERM"),
        (libc::ENOENT, "ENOENT"),
        (libc::ESRCH, "ESRCH"),
        (libc::EIO, "EIO"),
        (libc::ENXIO, "ENXIO"),
        (libc::EBADF, "EBADF"),
        (libc::EAGAIN, "EAGAIN"),
        (libc::ENOMEM, "ENOMEM"),
        (libc::EACCES, "EACCES"),
        (libc::EFAULT, "EFAULT"),
        (libc::EBUSY, "EBUSY"),
        (libc::ENODEV, "ENODEV"),
        (libc::EINVAL, "EINVAL"),
        (libc::ENOSPC, "ENOSPC"),
        (libc::EROFS, "EROFS"),
        (libc::ENOSYS, "ENOSYS"),
        (libc::EAFNOSUPPORT, "EAFNOSUPPORT"),
        (libc::ENETUNREACH, "ENETUNREACH"),
        (libc::ECONNREFUSED, "ECONNREFUSED"),
        (libc::EOPNOTSUPP, "EOPNOTSUPP"),
        (libc::EOVERFLOW, "EOVERFLOW"),
        (libc::ETIMEDOUT, "ETIMEDOUT"),
    ];
    let found = known.iter().find(|(number, _)| *number == errno);
    found.map_or_else(|| format!("errno-{errno}"), |(_, name)| (*name).to_owned())
}

/// What a process does that was forked.
fn fork() -> io::Result<libc::pid_t> {
    // SAFETY: this program has one thread, so that the child may do whatever the parent may.
    let pid = unsafe { libc::fork() };
    if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(pid) }
}

fn exit(status: i32) -> ! {
    // SAFETY: ends this process only; nothing is flushed twice.
    unsafe { libc::_exit(status) }
}

/// Runs `work` in a child that the kernel ends after `seconds`; its error number comes back as exit status.
///
/// A child that was killed otherwise counts as refused too.
pub(crate) fn in_child(seconds: u32, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let pid = fork()?;
    if pid == 0 {
        // SAFETY: sets this child's own timer.
        unsafe { libc::alarm(seconds) };
        let status = match work() {
            Ok(()) => 0,
            Err(error) => error.raw_os_error().filter(|n| (1..255).contains(n)).unwrap_or(255),
        };
        exit(status);
    }
    match wait(pid)? {
        Ended::Status(0) => Ok(()),
        Ended::Status(255) => Err(io::Error::other("no")),
        Ended::Status(errno) => Err(io::Error::from_raw_os_error(errno)),
        Ended::Signal(libc::SIGALRM) => Err(io::Error::from_raw_os_error(libc::ETIMEDOUT)),
        Ended::Signal(signal) => Err(io::Error::other(format!("signal-{signal}"))),
    }
}

/// How a child ended.
pub(crate) enum Ended {
    Status(i32),
    Signal(i32),
}

pub(crate) fn wait(pid: libc::pid_t) -> io::Result<Ended> {
    let mut status = 0;
    loop {
        // SAFETY: `status` lives as long as the call.
        let done = unsafe { libc::waitpid(pid, &raw mut status, 0) };
        if done >= 0 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(if libc::WIFEXITED(status) {
        Ended::Status(libc::WEXITSTATUS(status))
    } else {
        Ended::Signal(libc::WTERMSIG(status))
    })
}

/// A child that runs `work` and ends with it.
pub(crate) fn spawn(work: impl FnOnce()) -> io::Result<libc::pid_t> {
    let pid = fork()?;
    if pid == 0 {
        work();
        exit(0);
    }
    Ok(pid)
}

pub(crate) fn kill(pid: libc::pid_t, signal: i32) -> io::Result<()> {
    // SAFETY: takes numbers only.
    let result = unsafe { libc::kill(pid, signal) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

pub(crate) fn sleep(millis: u64) {
    std::thread::sleep(std::time::Duration::from_millis(millis));
}

/// Sleeps until the program is ended. As the first process of its namespace it would not hear SIGTERM by itself.
pub(crate) fn wait_for_ever() -> ! {
    end_when_told();
    loop {
        sleep(60_000);
    }
}

/// SIGTERM ends the program: to the first process of a namespace it does nothing unless there is a handler.
pub(crate) fn end_when_told() {
    extern "C" fn end(_signal: libc::c_int) {
        exit(0);
    }
    let handler = end as extern "C" fn(libc::c_int);
    // SAFETY: the handler calls `_exit` only, which is safe in a signal handler.
    unsafe { libc::signal(libc::SIGTERM, handler as libc::sighandler_t) };
}

/// CPUs that this thread may run on, by number.
pub(crate) fn affinity() -> io::Result<Vec<usize>> {
    let mut mask = [0_u8; 128];
    let length =
        call(libc::SYS_sched_getaffinity, [0, mask.len(), address_mut(&mut mask), 0, 0, 0])?;
    let bytes = mask.iter().take(length).enumerate();
    let set = |(at, byte): (usize, &u8)| {
        let byte = *byte;
        (0..8).filter(move |bit| byte >> bit & 1 == 1).map(move |bit| at * 8 + bit)
    };
    Ok(bytes.flat_map(set).collect())
}

/// A device node: `kind` is `S_IFCHR` or `S_IFBLK`.
pub(crate) fn make_node(path: &str, kind: u32, major: u32, minor: u32) -> io::Result<()> {
    let path = text(path)?;
    // SAFETY: `path` is a C string that lives as long as the call.
    let result = unsafe { libc::mknod(path.as_ptr(), kind | 0o600, libc::makedev(major, minor)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Memory that the kernel gave, as it was given: nothing of it was written by this program.
pub(crate) struct Mapping {
    start: *mut u8,
    length: usize,
}

impl Mapping {
    pub(crate) fn new(length: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping wherever the kernel likes, which overlaps nothing.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), length, access, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start: start.cast(), length })
    }

    /// A file's content, shared with whoever maps it too.
    pub(crate) fn of_file(file: &std::fs::File, length: usize) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let (shared, fd) = (libc::MAP_SHARED, file.as_raw_fd());
        // SAFETY: as above.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), length, access, shared, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start: start.cast(), length })
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is `length` bytes, readable and writable, and is borrowed as a whole.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.length) }
    }

    /// A counter at its start that others may read at any time.
    pub(crate) fn counter(&self) -> &std::sync::atomic::AtomicU64 {
        assert!(self.length >= 8, "a counter is 8 bytes");
        // SAFETY: pages are aligned, the first 8 bytes are there, and nothing else writes to them.
        unsafe { std::sync::atomic::AtomicU64::from_ptr(self.start.cast()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `start` and `length` are those of a mapping of ours that nobody borrows any more.
        unsafe { libc::munmap(self.start.cast(), self.length) };
    }
}
