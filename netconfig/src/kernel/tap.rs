//! Taps, which netlink does not make (Linux, Documentation/networking/tuntap.rst; linux/if_tun.h).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;

use super::KernelError;
use crate::plan::LinkRef;

mod ioctl {
    nix::ioctl_write_ptr!(set_index, b'T', 218, libc::c_uint);
    nix::ioctl_write_ptr_bad!(attach, nix::request_code_write!(b'T', 202, 4), libc::ifreq);
    nix::ioctl_write_int_bad!(persist, nix::request_code_write!(b'T', 203, 4));
}

const IFF_TAP: libc::c_short = 0x0002;
const IFF_NO_PI: libc::c_short = 0x1000;

/// Makes a tap with a number of our choice that stays. `settle` gives it its group: until then it goes with this
/// process, so that no end leaves a tap that nobody owns.
///
/// # Errors
/// `/dev/net/tun` cannot be opened, a call is refused, or `settle` fails.
pub(super) fn create(
    link: &LinkRef,
    settle: impl FnOnce() -> Result<(), KernelError>,
) -> Result<(), KernelError> {
    let call = |what: &'static str| {
        move |source: io::Error| KernelError::Call { call: what.to_owned(), source }
    };
    let path = "/dev/net/tun";
    let tun = OpenOptions::new().read(true).write(true).open(path);
    let tun = tun.map_err(call("open /dev/net/tun"))?;
    attach(&tun, link).map_err(|error| KernelError::refused(error).named(link))?;
    settle()?;
    keep(&tun).map_err(io::Error::from).map_err(call("keep the tap (TUNSETPERSIST)"))
}

#[expect(unsafe_code, reason = "ioctls take pointers")]
fn attach(tun: &File, link: &LinkRef) -> nix::Result<()> {
    // SAFETY: all zeros is a value of this structure of integers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The name is shorter than the field (`LinkName::MAX`), which stays zero-terminated.
    let bytes = link.name.as_str().bytes().take(request.ifr_name.len() - 1);
    for (slot, byte) in request.ifr_name.iter_mut().zip(bytes) {
        *slot = libc::c_char::from_ne_bytes([byte]);
    }
    request.ifr_ifru.ifru_flags = IFF_TAP | IFF_NO_PI;
    let index: libc::c_uint = link.index;
    // SAFETY: both point to values of the types that the calls read, which outlive them.
    unsafe {
        ioctl::set_index(tun.as_raw_fd(), &raw const index)?;
        ioctl::attach(tun.as_raw_fd(), &raw const request)?;
    }
    Ok(())
}

#[expect(unsafe_code, reason = "ioctls of a number of our choice")]
fn keep(tun: &File) -> nix::Result<()> {
    // SAFETY: the call takes a number and no pointer.
    unsafe { ioctl::persist(tun.as_raw_fd(), 1) }.map(drop)
}
