//! Frames by hand, and sockets that send and hear them.

use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvmsg,
    sendmsg, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

pub(super) const BROADCAST: [u8; 6] = [0xff; 6];

/// A frame with this payload.
pub(super) fn ethernet(to: [u8; 6], from: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), payload].concat()
}

/// An ARP announcement (RFC 826).
pub(super) fn arp(station: [u8; 6], sender: [u8; 6], ip: Ipv4Addr, mark: u8) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, 2];
    let body = [&head[..], &sender, &ip.octets(), &[0xff; 6], &ip.octets(), &[mark; 18]].concat();
    ethernet(BROADCAST, station, 0x0806, &body)
}

/// An IPv4 packet with UDP.
pub(super) fn udp4(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    let mut head = [
        &[0x45, 0][..],
        &(20 + length).to_be_bytes(),
        &[0, 0, 0x40, 0, 64, 17, 0, 0],
        &from.0.octets(),
        &to.0.octets(),
    ]
    .concat();
    let sum: u32 = head.chunks(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let check = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap();
    head[10..12].copy_from_slice(&check.to_be_bytes());
    // A checksum of 0 means that there is none (RFC 768).
    let ports = [from.1.to_be_bytes(), to.1.to_be_bytes(), length.to_be_bytes(), [0, 0]].concat();
    [&head[..], &ports, payload].concat()
}

/// An IPv6 packet.
pub(super) fn ip6(from: Ipv6Addr, to: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&[0x60, 0, 0, 0][..], &length, &[next, 255]].concat();
    [&head[..], &from.octets(), &to.octets(), payload].concat()
}

/// A neighbour advertisement that overrides (RFC 4861, 4.4).
pub(super) fn advertisement(target: Ipv6Addr, station: [u8; 6], mark: u8) -> Vec<u8> {
    [&[136, 0, 0, 0, 0x20, 0, 0, 0][..], &target.octets(), &[2, 1], &station, &[mark; 4]].concat()
}

/// A socket on one link.
#[derive(Debug)]
pub(super) struct Wire(OwnedFd);

impl Wire {
    /// In the caller's network namespace.
    pub(super) fn on(link: &str) -> Self {
        let fd = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::EthAll,
        )
        .expect("a packet socket: it needs root");
        let mut addresses = getifaddrs().unwrap();
        let of_link = addresses.find_map(|one| {
            let address = one.address.filter(|_| one.interface_name == link)?;
            address.as_link_addr().copied()
        });
        bind(fd.as_raw_fd(), &of_link.unwrap_or_else(|| panic!("link {link}"))).unwrap();
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(0, 100_000)).unwrap();
        Self(fd)
    }

    pub(super) fn send(&self, frame: &[u8]) {
        let none: [ControlMessage<'_>; 0] = [];
        let sent = sendmsg::<()>(
            self.0.as_raw_fd(),
            &[IoSlice::new(frame)],
            &none,
            MsgFlags::empty(),
            None,
        );
        assert_eq!(sent, Ok(frame.len()));
    }

    /// What arrives until a frame with `last` in it does; ours carry their mark in their bytes.
    pub(super) fn hear_until(&self, last: &[u8]) -> Vec<Vec<u8>> {
        let begun = Instant::now();
        let mut heard = Vec::new();
        let mut buffer = [0_u8; 2048];
        loop {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "the frame that must arrive does not"
            );
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let got = recvmsg::<()>(self.0.as_raw_fd(), &mut parts, None, MsgFlags::empty());
            let Ok(length) = got.map(|got| got.bytes) else { continue };
            let frame = buffer[..length].to_vec();
            let ends = has(&frame, last);
            heard.push(frame);
            if ends {
                return heard;
            }
        }
    }
}

/// Whether bytes are in a frame.
pub(super) fn has(frame: &[u8], bytes: &[u8]) -> bool {
    frame.windows(bytes.len()).any(|part| part == bytes)
}
