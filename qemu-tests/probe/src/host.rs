//! The host's own programs: their sockets, in files and without one.

use std::fs;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};

use crate::attempt::Report;

const PATHS: [&str; 5] = [
    "/run/bulkhead/supervisor.sock",
    "/run/systemd/private",
    "/run/dbus/system_bus_socket",
    "/run/systemd/notify",
    "/run/udev/control",
];

pub(crate) fn sockets(report: &mut Report) {
    for path in PATHS {
        report.attempt(path, || UnixStream::connect(path).map(drop));
    }
    // Sockets without a file belong to a network namespace: all that this one has.
    let list = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let names = list.lines().filter_map(|line| line.split_whitespace().last());
    let mut names: Vec<&str> = names.filter_map(|name| name.strip_prefix('@')).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        report.note("abstract", Err(io::Error::from_raw_os_error(libc::ENOENT)));
    }
    for name in names.into_iter().take(8) {
        report.attempt(&format!("abstract-{name}"), || {
            let address = SocketAddr::from_abstract_name(name)?;
            match UnixStream::connect_addr(&address) {
                // There, of another type: reachable.
                Err(error) if error.raw_os_error() == Some(libc::EPROTOTYPE) => Ok(()),
                other => other.map(drop),
            }
        });
    }
}
