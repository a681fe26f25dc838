//! Families of sockets: those that reach the host's network, and those that are a module of the kernel each.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::attempt::Report;
use crate::sys::{open_call, word};

/// Name, family, type, protocol.
const FAMILIES: [(&str, i32, i32, i32); 11] = [
    ("packet", libc::AF_PACKET, libc::SOCK_RAW, 0x0300),
    ("raw-ip", libc::AF_INET, libc::SOCK_RAW, 1),
    ("vsock", libc::AF_VSOCK, libc::SOCK_STREAM, 0),
    ("alg", libc::AF_ALG, libc::SOCK_SEQPACKET, 0),
    ("xdp", libc::AF_XDP, libc::SOCK_RAW, 0),
    ("key", libc::AF_KEY, libc::SOCK_RAW, 2),
    ("tipc", libc::AF_TIPC, libc::SOCK_RDM, 0),
    ("rds", libc::AF_RDS, libc::SOCK_SEQPACKET, 0),
    ("can", libc::AF_CAN, libc::SOCK_RAW, 1),
    ("bluetooth", libc::AF_BLUETOOTH, libc::SOCK_RAW, 1),
    ("ax25", libc::AF_AX25, libc::SOCK_DGRAM, 0),
];

pub(crate) fn families(report: &mut Report) {
    for (name, family, kind, protocol) in FAMILIES {
        report.attempt(name, || {
            let arguments = [word(family), word(kind), word(protocol), 0, 0, 0];
            open_call(libc::SYS_socket, arguments).map(drop)
        });
    }
    report.attempt("links", || {
        let list = std::fs::read_to_string("/proc/net/dev")?;
        let others = list.lines().skip(2).any(|line| !line.trim_start().starts_with("lo:"));
        if others { Ok(()) } else { Err(io::Error::other("loopback only")) }
    });
    report.attempt("site", || {
        let site = SocketAddr::from(([10, 9, 0, 1], 80));
        TcpStream::connect_timeout(&site, Duration::from_secs(3)).map(drop)
    });
}
