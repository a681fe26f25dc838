//! System calls that no safe crate offers: kernel modules, interface and route ioctls, loop devices, device mapper.
#![expect(
    unsafe_code,
    reason = "ioctl and finit_module take raw structures; each is built right before its call"
)]

use std::ffi::c_int;
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use libc::c_char;
use nix::errno::Errno;

/// Loads an uncompressed kernel module; one that is loaded already is no error.
///
/// # Errors
/// The kernel's.
pub fn load_module(file: &File) -> Result<(), Errno> {
    // SAFETY: the file is open, the parameters are an empty string with its NUL, and the call keeps neither.
    let result =
        unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
    match Errno::result(result) {
        Ok(_) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(error),
    }
}

nix::ioctl_write_ptr_bad!(
    /// Sets flags of an interface (netdevice(7)).
    set_flags, libc::SIOCSIFFLAGS, libc::ifreq
);
nix::ioctl_read_bad!(
    /// Reads flags of an interface (netdevice(7)).
    get_flags, libc::SIOCGIFFLAGS, libc::ifreq
);
nix::ioctl_write_ptr_bad!(
    /// Sets the address of an interface (netdevice(7)).
    set_address, libc::SIOCSIFADDR, libc::ifreq
);
nix::ioctl_write_ptr_bad!(
    /// Sets the mask of an interface (netdevice(7)).
    set_mask, libc::SIOCSIFNETMASK, libc::ifreq
);
nix::ioctl_write_ptr_bad!(
    /// Adds a route (kernel `net/ipv4/fib_frontend.c`).
    add_route, libc::SIOCADDRT, libc::rtentry
);

/// An interface request with nothing but the name.
fn interface(name: &str) -> Result<libc::ifreq, Errno> {
    // SAFETY: ifreq is plain data, and all zeros is a valid value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // the last byte stays NUL
    if name.is_empty() || name.len() >= request.ifr_name.len() {
        return Err(Errno::EINVAL);
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    Ok(request)
}

/// `sockaddr_in` in the generic form that the structures hold: two bytes of port, then the address.
fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let mut data: [c_char; 14] = [0; 14];
    for (to, from) in data.iter_mut().skip(2).zip(address.octets()) {
        *to = from.cast_signed();
    }
    #[expect(clippy::cast_possible_truncation, reason = "AF_INET is 2")]
    let family = libc::AF_INET as libc::sa_family_t;
    libc::sockaddr { sa_family: family, sa_data: data }
}

/// Takes an interface up or down. `socket` is any IPv4 socket.
///
/// # Errors
/// The kernel's.
pub fn set_link(socket: BorrowedFd<'_>, name: &str, up: bool) -> Result<(), Errno> {
    let mut request = interface(name)?;
    #[expect(clippy::cast_possible_truncation, reason = "IFF_UP is 1")]
    let flag = libc::IFF_UP as libc::c_short;
    // SAFETY: the name is set, the kernel fills in the flags, and flags are what is read and written back.
    unsafe {
        get_flags(socket.as_raw_fd(), &raw mut request)?;
        let flags = request.ifr_ifru.ifru_flags;
        request.ifr_ifru.ifru_flags = if up { flags | flag } else { flags & !flag };
        set_flags(socket.as_raw_fd(), &raw const request)?;
    }
    Ok(())
}

/// Gives an interface an address and, unless the address is 0.0.0.0, a prefix.
///
/// # Errors
/// The kernel's.
pub fn set_address_of(
    socket: BorrowedFd<'_>,
    name: &str,
    address: Ipv4Addr,
    prefix: u8,
) -> Result<(), Errno> {
    let mut request = interface(name)?;
    request.ifr_ifru.ifru_addr = socket_address(address);
    // SAFETY: name and address are set; the kernel only reads.
    unsafe { set_address(socket.as_raw_fd(), &raw const request)? };
    if !address.is_unspecified() {
        let mask = u32::MAX.checked_shl(32_u32.saturating_sub(u32::from(prefix))).unwrap_or(0);
        request.ifr_ifru.ifru_addr = socket_address(Ipv4Addr::from_bits(mask));
        // SAFETY: as above.
        unsafe { set_mask(socket.as_raw_fd(), &raw const request)? };
    }
    Ok(())
}

/// Adds the default route by `gateway`.
///
/// # Errors
/// The kernel's; a route that is there is no error.
pub fn add_default_route(socket: BorrowedFd<'_>, gateway: Ipv4Addr) -> Result<(), Errno> {
    // SAFETY: rtentry is plain data, and all zeros is a valid value of it (no device).
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    route.rt_dst = socket_address(Ipv4Addr::UNSPECIFIED);
    route.rt_genmask = socket_address(Ipv4Addr::UNSPECIFIED);
    route.rt_gateway = socket_address(gateway);
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    // SAFETY: all three addresses are set; the kernel only reads.
    match unsafe { add_route(socket.as_raw_fd(), &raw const route) } {
        Ok(_) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(error),
    }
}

/// `struct loop_info64` (kernel `include/uapi/linux/loop.h`).
#[repr(C)]
#[derive(Debug)]
pub struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` (kernel `include/uapi/linux/loop.h`).
#[repr(C)]
#[derive(Debug)]
pub struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

const LOOP_CONFIGURE: u32 = 0x4C0A;
const LOOP_CTL_GET_FREE: u32 = 0x4C82;
const LO_FLAGS_READ_ONLY: u32 = 1;

nix::ioctl_write_ptr_bad!(
    /// Gives a loop device its file.
    loop_configure, LOOP_CONFIGURE, LoopConfig
);
nix::ioctl_none_bad!(
    /// Number of a free loop device.
    loop_get_free, LOOP_CTL_GET_FREE
);

/// Number of a free loop device; `control` is `/dev/loop-control`.
///
/// # Errors
/// The kernel's.
pub fn free_loop(control: &File) -> Result<c_int, Errno> {
    // SAFETY: the request has no argument.
    unsafe { loop_get_free(control.as_raw_fd()) }
}

/// Makes `device` show `file`, read only, in blocks of 4096 bytes.
///
/// # Errors
/// The kernel's.
pub fn attach_loop(device: &File, file: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: both structures are plain data, and all zeros is a valid value of them.
    let mut config: LoopConfig = unsafe { std::mem::zeroed() };
    config.fd = u32::try_from(file.as_raw_fd()).map_err(|_| Errno::EBADF)?;
    config.block_size = 4096;
    config.info.flags = LO_FLAGS_READ_ONLY;
    // SAFETY: the file is open during the call, after which the kernel holds its own reference.
    unsafe { loop_configure(device.as_raw_fd(), &raw const config) }.map(drop)
}

/// Room for the target of a device mapper request.
const DM_ROOM: usize = 4096 - DM_HEAD;
const DM_HEAD: usize = 312;

/// `struct dm_ioctl` (kernel `include/uapi/linux/dm-ioctl.h`) and what follows it.
#[repr(C)]
#[derive(Debug)]
pub struct DmRequest {
    version: [u32; 3],
    data_size: u32,
    data_start: u32,
    target_count: u32,
    open_count: i32,
    flags: u32,
    event_number: u32,
    padding: u32,
    device: u64,
    name: [u8; 128],
    uuid: [u8; 129],
    data: [u8; 7],
    room: [u8; DM_ROOM],
}

const DM_READONLY: u32 = 1;
const _: () = assert!(std::mem::offset_of!(DmRequest, room) == DM_HEAD);

// the number carries the size of the head alone, whatever follows it
nix::ioctl_readwrite_bad!(
    /// Creates a device.
    dm_create, nix::request_code_readwrite!(0xfd, 3, DM_HEAD), DmRequest
);
nix::ioctl_readwrite_bad!(
    /// Loads a device's table.
    dm_load, nix::request_code_readwrite!(0xfd, 9, DM_HEAD), DmRequest
);
nix::ioctl_readwrite_bad!(
    /// Suspends or, without its flag, resumes a device.
    dm_resume, nix::request_code_readwrite!(0xfd, 6, DM_HEAD), DmRequest
);

fn dm_request(name: &str) -> Result<Box<DmRequest>, Errno> {
    // SAFETY: the structure is plain data, and all zeros is a valid value of it.
    let mut request: Box<DmRequest> = Box::new(unsafe { std::mem::zeroed() });
    request.version = [4, 0, 0];
    request.data_size = 4096;
    request.data_start = 312;
    copy(name.as_bytes(), &mut request.name)?;
    Ok(request)
}

/// Copies and leaves at least one zero behind.
fn copy(from: &[u8], to: &mut [u8]) -> Result<(), Errno> {
    let room = to.len();
    match to.get_mut(..from.len()) {
        Some(part) if from.len() < room => {
            part.copy_from_slice(from);
            Ok(())
        }
        _ => Err(Errno::ENAMETOOLONG),
    }
}

/// Makes the read-only mapped device `name` of one target over `sectors` of 512 bytes; returns its device number. `control` is
/// `/dev/mapper/control`.
///
/// # Errors
/// The kernel's.
pub fn map(
    control: &File,
    name: &str,
    sectors: u64,
    target: &str,
    parameters: &str,
) -> Result<u64, Errno> {
    let fd = control.as_raw_fd();
    let mut create = dm_request(name)?;
    // SAFETY: the request is as long as it says, here and below.
    unsafe { dm_create(fd, &raw mut *create)? };
    let mut load = dm_request(name)?;
    load.flags = DM_READONLY;
    load.target_count = 1;
    // struct dm_target_spec: start, length, status, next, type name of 16 bytes; then the parameters
    let (spec, text) = load.room.split_at_mut(40);
    copy(&sectors.to_ne_bytes(), spec.get_mut(8..).unwrap_or_default())?;
    copy(target.as_bytes(), spec.get_mut(24..).unwrap_or_default())?;
    copy(parameters.as_bytes(), text)?;
    // SAFETY: as above; the target's text ends with a zero.
    unsafe { dm_load(fd, &raw mut *load)? };
    let mut resume = dm_request(name)?;
    // SAFETY: as above.
    unsafe { dm_resume(fd, &raw mut *resume)? };
    Ok(resume.device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_of_the_kernel() {
        assert_eq!(size_of::<LoopInfo>(), 232);
        assert_eq!(size_of::<LoopConfig>(), 304);
        assert_eq!(size_of::<DmRequest>(), 4096);
    }

    #[test]
    fn names_that_do_not_fit_are_refused() {
        assert!(interface("").is_err() && interface("sixteen-letters-").is_err());
        assert!(interface("fifteen-letters").is_ok());
        assert!(dm_request(&"x".repeat(128)).is_err());
    }

    #[test]
    fn addresses_are_in_network_order_behind_the_port() {
        let address = socket_address(Ipv4Addr::new(10, 9, 0, 1));
        assert_eq!(address.sa_data[..6], [0, 0, 10, 9, 0, 1]);
    }
}
