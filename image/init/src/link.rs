//! Network interfaces: which there are, whether a cable is in, and the one that was booted from.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd as _;
use std::path::Path;

use bulkhead_api::id::MacAddr;
use nix::errno::Errno;

use crate::sys;

const CLASS: &str = "/sys/class/net";
/// `ARPHRD_ETHER` (kernel `include/uapi/linux/if_arp.h`).
const ETHERNET: &str = "1";

/// A physical Ethernet interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nic {
    /// The kernel's name.
    pub name: String,
    /// Hardware address.
    pub mac: MacAddr,
}

/// An interface does not do what it is told.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The list of interfaces.
    #[error("list {CLASS}")]
    List(#[source] io::Error),
    /// A socket for requests.
    #[error("open a socket")]
    Socket(#[source] io::Error),
    /// Up, down, address.
    #[error("{doing} of {nic}")]
    Set {
        /// What was tried.
        doing: &'static str,
        /// The interface.
        nic: String,
        /// Why not.
        source: Errno,
    },
}

/// The physical Ethernet interfaces, by name. One that cannot be read is left out: another may do.
///
/// # Errors
/// There is no list.
pub fn nics() -> Result<Vec<Nic>, LinkError> {
    let mut nics = Vec::new();
    for entry in fs::read_dir(CLASS).map_err(LinkError::List)? {
        let path = entry.map_err(LinkError::List)?.path();
        nics.extend(nic(&path));
    }
    nics.sort();
    Ok(nics)
}

fn nic(path: &Path) -> Option<Nic> {
    let read = |file: &str| fs::read_to_string(path.join(file)).ok();
    let physical = path.join("device").exists() && read("type")?.trim() == ETHERNET;
    let name = path.file_name()?.to_str()?.to_owned();
    let mac = read("address")?.trim().parse().ok()?;
    physical.then_some(Nic { name, mac })
}

/// Whether the interface is up and has a partner at the other end.
#[must_use]
pub fn has_carrier(nic: &Nic) -> bool {
    // an interface that is down has no such file content: reading fails
    fs::read_to_string(format!("{CLASS}/{}/carrier", nic.name)).is_ok_and(|text| text.trim() == "1")
}

fn socket() -> Result<UdpSocket, LinkError> {
    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(LinkError::Socket)
}

/// Takes an interface up or down.
///
/// # Errors
/// [`LinkError`].
pub fn set(name: &str, up: bool) -> Result<(), LinkError> {
    let doing = if up { "set up" } else { "set down" };
    sys::set_link(socket()?.as_fd(), name, up).map_err(|source| LinkError::Set {
        doing,
        nic: name.to_owned(),
        source,
    })
}

/// Gives an interface its address, or takes it away with 0.0.0.0.
///
/// # Errors
/// [`LinkError`].
pub fn set_address(nic: &Nic, address: Ipv4Addr, prefix: u8) -> Result<(), LinkError> {
    sys::set_address_of(socket()?.as_fd(), &nic.name, address, prefix)
        .map_err(|source| LinkError::Set { doing: "set address", nic: nic.name.clone(), source })
}

/// Adds the default route.
///
/// # Errors
/// [`LinkError`].
pub fn set_gateway(nic: &Nic, gateway: Ipv4Addr) -> Result<(), LinkError> {
    sys::add_default_route(socket()?.as_fd(), gateway).map_err(|source| LinkError::Set {
        doing: "set gateway",
        nic: nic.name.clone(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(files: &[(&str, &str)], physical: bool) -> tempfile::TempDir {
        let folder = tempfile::Builder::new().prefix("eth").tempdir().unwrap();
        for (name, content) in files {
            fs::write(folder.path().join(name), content).unwrap();
        }
        if physical {
            fs::create_dir(folder.path().join("device")).unwrap();
        }
        folder
    }

    #[test]
    fn only_physical_ethernet_interfaces_count() {
        let files = [("type", "1\n"), ("address", "52:54:00:00:09:01\n")];
        let found = nic(interface(&files, true).path()).unwrap();
        assert_eq!(found.mac.to_string(), "52:54:00:00:09:01");
        assert_eq!(nic(interface(&files, false).path()), None, "a bridge");
        assert_eq!(nic(interface(&[("type", "32\n"), files[1]], true).path()), None, "InfiniBand");
        assert_eq!(nic(interface(&[files[0], ("address", "\n")], true).path()), None);
        assert_eq!(nic(interface(&[], true).path()), None);
    }
}
