//! The kernel's news of devices: what comes, goes or changes wakes the node loop at once.
//!
//! ```text
//!  kernel ──NETLINK_KOBJECT_UEVENT, group 1──► from the kernel? ─► parse ─► of a watched subsystem? ─► Notify
//! ```
//!
//! Nothing is concluded from a message: it only makes the hardware be read again (law 5). So one that is lost,
//! because too many came at once, is as good as one that was heard.
//!
//! Format: `ACTION@DEVPATH` and then `KEY=VALUE`, each ended by a zero (Linux, lib/kobject_uevent.c).

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, setsockopt,
    socket, sockopt,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tracing::debug;

/// Subsystems whose changes can change what a host offers, or what a lease has of it.
pub const WATCHED: [&str; 7] = ["pci", "net", "block", "cpu", "memory", "vfio", "dm"];

/// The multicast group of the kernel's own messages; udev repeats them to group 2.
const KERNEL_GROUP: u32 = 1;
/// A message has at most 2 KiB of variables behind its path (`UEVENT_BUFFER_SIZE`).
const MESSAGE: usize = 8 << 10;
/// Room for what comes at once when a card with many functions does.
const QUEUE: usize = 1 << 20;

/// A change of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uevent {
    /// `add`, `remove`, `change`, `move`, `online`, `offline`, `bind` or `unbind`.
    pub action: String,
    /// Path below `/sys`.
    pub path: String,
    /// Subsystem of the device; empty where it has none.
    pub subsystem: String,
}

impl Uevent {
    /// It may change what a host offers.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        WATCHED.contains(&self.subsystem.as_str())
    }
}

/// Reads a message of the kernel; `None` for bytes of another form.
#[must_use]
pub fn parse(message: &[u8]) -> Option<Uevent> {
    let mut parts = message.split(|&byte| byte == 0);
    let (action, path) = std::str::from_utf8(parts.next()?).ok()?.split_once('@')?;
    let word = !action.is_empty() && action.bytes().all(|byte| byte.is_ascii_lowercase());
    if !word || !path.starts_with('/') {
        return None;
    }
    let subsystem = parts.find_map(|part| part.strip_prefix(b"SUBSYSTEM=")).unwrap_or_default();
    Some(Uevent {
        action: action.to_owned(),
        path: path.to_owned(),
        subsystem: String::from_utf8_lossy(subsystem).into_owned(),
    })
}

/// What a listener heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// This changed.
    Change(Uevent),
    /// More came than was read in time: anything may have changed.
    Missed,
}

/// The kernel's messages of the network namespace in which it was opened.
#[derive(Debug)]
pub struct Uevents(AsyncFd<OwnedFd>);

impl Uevents {
    /// Opens a listener. Changes from now on are heard.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkKObjectUEvent;
        let fd = socket(AddressFamily::Netlink, SockType::Datagram, flags, protocol)?;
        // Where the larger queue is refused there is the usual one, and more is missed.
        if let Err(error) = setsockopt(&fd, sockopt::RcvBufForce, &QUEUE) {
            debug!(%error, "queue of kernel messages");
        }
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP))?;
        registered(fd).map(Self)
    }

    /// The next message of the kernel. A call that is dropped before its end loses none.
    ///
    /// # Errors
    /// As the kernel says.
    pub async fn next(&self) -> io::Result<Heard> {
        let mut message = vec![0; MESSAGE];
        loop {
            let mut ready = self.0.readable().await?;
            let read = ready.try_io(|fd| {
                recvfrom::<NetlinkAddr>(fd.as_raw_fd(), &mut message).map_err(io::Error::from)
            });
            let Ok(read) = read else { continue };
            let (length, from) = match read {
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                    return Ok(Heard::Missed);
                }
                other => other?,
            };
            // Programs send to this group too, if they may; only the kernel has port 0.
            if from.is_none_or(|from| from.pid() != 0) {
                continue;
            }
            if let Some(change) = message.get(..length).and_then(parse) {
                return Ok(Heard::Change(change));
            }
        }
    }

    /// Wakes `changed` at every change of a watched subsystem, for as long as the socket lives.
    ///
    /// # Errors
    /// The socket broke.
    pub async fn wake(self, changed: Arc<Notify>) -> io::Result<Infallible> {
        loop {
            match self.next().await? {
                Heard::Change(change) if !change.is_watched() => {}
                Heard::Change(change) => {
                    debug!(action = change.action, path = change.path, "device changed");
                    changed.notify_one();
                }
                Heard::Missed => changed.notify_one(),
            }
        }
    }
}

#[expect(unsafe_code, reason = "tokio cannot know by itself that the descriptor stays open")]
fn registered(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names one open descriptor from its making to its drop, and it is moved in here.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

#[cfg(test)]
#[path = "uevent_tests.rs"]
mod tests;
