//! System calls that no safe crate offers: ioctls of block devices and of the device mapper, and the kernel's keys.
#![expect(
    unsafe_code,
    reason = "ioctl and keyctl take raw pointers; each is to a value that outlives its call"
)]

use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;

nix::ioctl_none_bad!(
    /// Reads the partition table again (kernel `include/uapi/linux/fs.h`, BLKRRPART).
    blk_reread, nix::request_code_none!(0x12, 95)
);
nix::ioctl_write_ptr_bad!(
    /// Says that a range, offset and length in bytes, is not needed any more (BLKDISCARD).
    blk_discard, nix::request_code_none!(0x12, 119), [u64; 2]
);

/// Makes the kernel read the partitions of a disk.
pub(super) fn reread_partitions(disk: &File) -> Result<(), Errno> {
    // SAFETY: the request has no argument.
    unsafe { blk_reread(disk.as_raw_fd()) }.map(drop)
}

/// Discards a range of bytes.
pub(super) fn discard(disk: &File, start: u64, length: u64) -> Result<(), Errno> {
    let range = [start, length];
    // SAFETY: the kernel reads the two numbers and keeps no pointer.
    unsafe { blk_discard(disk.as_raw_fd(), &raw const range) }.map(drop)
}

/// Sends a request to the device mapper; the answer is in the same buffer. The number carries the size of the
/// head alone, and the head says how long the buffer is (kernel `include/uapi/linux/dm-ioctl.h`).
pub(super) fn device_mapper(control: &File, command: u8, buffer: &mut [u8]) -> Result<(), Errno> {
    let said = buffer.get(12..16).and_then(|size| size.try_into().ok()).map(u32::from_ne_bytes);
    if said.and_then(|size| usize::try_from(size).ok()) != Some(buffer.len()) {
        return Err(Errno::EINVAL);
    }
    let request = nix::request_code_readwrite!(0xfd, command, super::dm::wire::HEAD);
    // SAFETY: the buffer is as long as its head says, which was just compared; the kernel writes no further.
    let result = unsafe { libc::ioctl(control.as_raw_fd(), request, buffer.as_mut_ptr()) };
    Errno::result(result).map(drop)
}

/// The kind of key that user space can never read back (kernel `Documentation/security/keys/core.rst`).
const LOGON: &std::ffi::CStr = c"logon";

/// Adds a key to the calling thread's own keyring; its number.
pub(super) fn add_key(description: &CString, secret: &[u8]) -> Result<i32, Errno> {
    // SAFETY: both strings end with a zero, the secret is as long as is said, and the kernel copies all three.
    let result = unsafe {
        libc::syscall(
            libc::SYS_add_key,
            LOGON.as_ptr(),
            description.as_ptr(),
            secret.as_ptr(),
            secret.len(),
            libc::KEY_SPEC_THREAD_KEYRING,
        )
    };
    number(Errno::result(result)?)
}

/// Finds a key in the keyrings of thread, process and session, as dm-crypt does.
pub(super) fn find_key(description: &CString) -> Result<i32, Errno> {
    // SAFETY: both strings end with a zero; without call-out text the kernel makes no key and asks nobody.
    let result = unsafe {
        libc::syscall(
            libc::SYS_request_key,
            LOGON.as_ptr(),
            description.as_ptr(),
            std::ptr::null::<libc::c_char>(),
            0,
        )
    };
    number(Errno::result(result)?)
}

/// Makes a key unusable at once and has it removed.
pub(super) fn invalidate_key(key: i32) -> Result<(), Errno> {
    // SAFETY: the call takes a number.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_INVALIDATE, key) };
    Errno::result(result).map(drop)
}

/// Key numbers are 32 bits wide.
fn number(result: libc::c_long) -> Result<i32, Errno> {
    i32::try_from(result).map_err(|_| Errno::EOVERFLOW)
}
