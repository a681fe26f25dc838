//! System calls that no safe crate offers: memory of one node, IPC objects, keyrings of a user.
#![expect(
    unsafe_code,
    reason = "mmap, mbind, IPC and keyctl take raw pointers and numbers; each is checked right before its call"
)]

use std::ffi::c_int;
use std::io;
use std::ptr::{self, NonNull};
use std::slice;
use std::thread;

use bulkhead_api::resource::PageSize;
use nix::errno::Errno;

/// `set_mempolicy(2)`: from these nodes alone.
const MPOL_BIND: libc::c_ulong = 2;
/// Nodes that fit in the mask: above `MAX_NUMNODES` of any build (`CONFIG_NODES_SHIFT` <= 10).
const NODES: usize = 1024;
const WORD: usize = 64;

/// Memory of this process that is nobody else's, from one node, present and zeroed by the kernel.
#[derive(Debug)]
pub(super) struct Region {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the memory is this value's own; nothing else holds its address.
unsafe impl Send for Region {}

impl Region {
    /// Maps it and has every page there, so that a shortage is an error here and no signal later.
    ///
    /// # Errors
    /// The kernel's: `ENOMEM` where the node has not so much.
    pub(super) fn on_node(length: usize, node: u32, huge: Option<PageSize>) -> io::Result<Self> {
        let kind = match huge {
            None => 0,
            Some(PageSize::TwoMiB) => libc::MAP_HUGETLB | libc::MAP_HUGE_2MB,
            Some(PageSize::OneGiB) => libc::MAP_HUGETLB | libc::MAP_HUGE_1GB,
        };
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | kind;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that is in use.
        let start = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast::<u8>()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        // From here on dropping it unmaps it.
        let region = Self { start, length };
        region.bind(node)?;
        if huge.is_none() {
            // Each page by itself; a kernel without transparent huge pages knows no such advice.
            match region.advise(libc::MADV_NOHUGEPAGE) {
                Err(Errno::EINVAL) | Ok(()) => {}
                Err(error) => return Err(error.into()),
            }
        }
        region.advise(libc::MADV_POPULATE_WRITE)?;
        Ok(region)
    }

    fn bind(&self, node: u32) -> io::Result<()> {
        let node = usize::try_from(node).unwrap_or(usize::MAX);
        let mut mask = [0_u64; NODES / WORD];
        let Some(word) = mask.get_mut(node / WORD) else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        };
        *word = 1 << (node % WORD);
        // SAFETY: the range is this mapping, the mask lives through the call and has as many bits as are told.
        let bound = unsafe {
            libc::syscall(
                libc::SYS_mbind,
                self.start.as_ptr(),
                self.length,
                MPOL_BIND,
                mask.as_ptr(),
                NODES,
                0,
            )
        };
        match Errno::result(bound) {
            // A kernel without NUMA has one node.
            Err(Errno::ENOSYS) if node == 0 => Ok(()),
            other => other.map(drop).map_err(Into::into),
        }
    }

    fn advise(&self, advice: c_int) -> Result<(), Errno> {
        // SAFETY: the range is this mapping; neither advice takes memory away.
        let done = unsafe { libc::madvise(self.start.as_ptr().cast(), self.length, advice) };
        Errno::result(done).map(drop)
    }

    /// Where it is in this process.
    pub(super) fn address(&self) -> usize {
        self.start.as_ptr().addr()
    }

    pub(super) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is readable, writable, present, of that length, and borrowed with `self`.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own and nothing borrows it any more.
        let _ = unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// Kinds of System V IPC objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ipc {
    /// Shared memory.
    Shm,
    /// Message queues.
    Msg,
    /// Semaphores.
    Sem,
}

/// Removes an object of this process's IPC namespace. One that is gone is no error.
///
/// # Errors
/// The kernel's.
pub(super) fn remove_ipc(kind: Ipc, id: c_int) -> Result<(), Errno> {
    // SAFETY: IPC_RMID takes no buffer.
    let removed = unsafe {
        match kind {
            Ipc::Shm => libc::shmctl(id, libc::IPC_RMID, ptr::null_mut()),
            Ipc::Msg => libc::msgctl(id, libc::IPC_RMID, ptr::null_mut()),
            Ipc::Sem => libc::semctl(id, 0, libc::IPC_RMID),
        }
    };
    match Errno::result(removed) {
        Ok(_) | Err(Errno::EINVAL | Errno::EIDRM) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Invalidates the keyrings of a user: they and the keys that only they hold are collected soon after
/// (keyctl(2), `KEYCTL_INVALIDATE`). Done by a thread that becomes that user, which ends with it.
///
/// # Errors
/// The kernel's: `EPERM` without `CAP_SETUID`.
pub(super) fn invalidate_keyrings(user: u32) -> io::Result<()> {
    let work = move || -> Result<(), Errno> {
        // SAFETY: three numbers. The raw call changes this thread alone, as credentials are a thread's in Linux.
        Errno::result(unsafe { libc::syscall(libc::SYS_setresuid, user, user, user) })?;
        let id = |ring: i32| {
            // SAFETY: numbers alone.
            let id =
                unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_GET_KEYRING_ID, ring, 0) };
            Errno::result(id)
        };
        // Both numbers first: neither keyring can be named once one of them is invalid.
        let rings = [id(libc::KEY_SPEC_USER_SESSION_KEYRING)?, id(libc::KEY_SPEC_USER_KEYRING)?];
        for ring in rings {
            // SAFETY: numbers alone.
            let done = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_INVALIDATE, ring) };
            Errno::result(done)?;
        }
        Ok(())
    };
    let ended = thread::Builder::new().spawn(work)?.join();
    ended
        .map_err(|_| io::Error::other("the thread that clears keyrings ended early"))?
        .map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_a_node_is_there_zeroed_and_our_own() {
        let mut region = Region::on_node(64 << 10, 0, None).unwrap();
        assert!(region.bytes().iter().all(|&byte| byte == 0));
        region.bytes().fill(7);
        assert_eq!(region.address() % 4096, 0);
        let error = Region::on_node(4096, 1 << 20, None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn an_object_that_is_not_there_is_removed_already() {
        // Identifiers of objects that were removed are not given out again for long.
        for kind in [Ipc::Shm, Ipc::Msg, Ipc::Sem] {
            remove_ipc(kind, c_int::MAX).unwrap();
        }
    }

    #[test]
    fn shared_memory_is_removed_by_its_number() {
        // SAFETY: a new segment that nobody maps.
        let id = unsafe { libc::shmget(libc::IPC_PRIVATE, 4096, 0o600) };
        assert!(id >= 0);
        let there = || {
            let table = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
            table.lines().any(|line| line.split_whitespace().nth(1) == Some(&id.to_string()))
        };
        assert!(there());
        remove_ipc(Ipc::Shm, id).unwrap();
        assert!(!there());
    }
}
