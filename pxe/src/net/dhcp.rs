//! DHCP sockets: port 67 by broadcast on one interface, port 4011 by unicast.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bulkhead_api::chain::Chain;
use nix::libc;
use nix::sys::socket::{
    self, AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType,
    SockaddrIn, recvmsg, sendmsg, setsockopt, sockopt,
};
use tracing::{debug, info, warn};

use super::NetError;
use crate::policy::{Decision, Door};
use crate::reply::Destination;
use crate::service::Service;
use crate::wire::dhcp4::decode;

const CLIENT_PORT: u16 = 68;
const RELAY_PORT: u16 = 67;
/// How often a quiet socket looks whether it should stop.
const TICK: Duration = Duration::from_millis(250);

/// A bound DHCP socket.
#[derive(Debug)]
pub struct DhcpSocket {
    socket: UdpSocket,
    door: Door,
    address: Ipv4Addr,
}

impl DhcpSocket {
    /// Binds `port` on `interface`. Port 67 takes every address, as clients broadcast; 4011 only the
    /// server's.
    ///
    /// # Errors
    /// [`NetError::Socket`]: most often another DHCP server, no such interface, or no privilege.
    pub fn bind(
        interface: &str,
        address: Ipv4Addr,
        port: u16,
        door: Door,
    ) -> Result<Self, NetError> {
        let at = match door {
            Door::Server => SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port),
            Door::BootServer => SocketAddrV4::new(address, port),
        };
        let error = |doing, target: String| {
            move |source: io::Error| NetError::Socket { service: "DHCP", doing, target, source }
        };
        let fd =
            socket::socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
                .map_err(io::Error::from)
                .map_err(error("open socket for", at.to_string()))?;
        let set = || -> nix::Result<()> {
            setsockopt(&fd, sockopt::Broadcast, &true)?;
            setsockopt(&fd, sockopt::Ipv4PacketInfo, &true)?;
            setsockopt(&fd, sockopt::BindToDevice, &interface.into())
        };
        set().map_err(io::Error::from).map_err(error("bind to interface", interface.to_owned()))?;
        socket::bind(fd.as_raw_fd(), &SockaddrIn::from(at))
            .map_err(io::Error::from)
            .map_err(error("bind", at.to_string()))?;
        let socket = UdpSocket::from(fd);
        socket
            .set_read_timeout(Some(TICK))
            .map_err(error("set a time limit on", at.to_string()))?;
        Ok(Self { socket, door, address })
    }

    /// The port in use.
    ///
    /// # Errors
    /// [`NetError::Socket`] when the system cannot tell.
    pub fn port(&self) -> Result<u16, NetError> {
        let address = self.socket.local_addr();
        address.map(|at| at.port()).map_err(|source| NetError::Socket {
            service: "DHCP",
            doing: "ask for the port of",
            target: self.address.to_string(),
            source,
        })
    }

    /// Serves until `stop` is set. Blocks: one thread a socket.
    pub fn serve(&self, service: &Arc<Service>, stop: &AtomicBool) {
        let mut buffer = vec![0; 10_000];
        while !stop.load(Ordering::Relaxed) {
            match self.receive(&mut buffer) {
                Ok(Some((length, from, interface))) => {
                    if let Some(datagram) = buffer.get(..length) {
                        self.answer(service, datagram, from, interface);
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    warn!(error = %Chain(&error), "DHCP receive, going on");
                    std::thread::sleep(TICK);
                }
            }
        }
    }

    fn answer(&self, service: &Arc<Service>, datagram: &[u8], from: SocketAddrV4, interface: i32) {
        let request = match decode(datagram) {
            Ok(request) => request,
            Err(error) => {
                debug!(%from, error = %Chain(&error), "DHCP message ignored");
                return;
            }
        };
        let Some(random) = service.random() else { return };
        let asked = service.ask("dhcp", |site, now| site.dhcp(&request, self.door, random, now));
        // Not saved: the client asks again, and the reason is in the log.
        let Ok(outcome) = asked else { return };
        let mac = request.mac;
        let granted = matches!(outcome.decision, Decision::Reply(_));
        let Some((reply, destination)) = outcome.reply else { return };
        let to = match destination {
            Destination::Relay(relay) => SocketAddrV4::new(relay, RELAY_PORT),
            Destination::Client(client) => SocketAddrV4::new(client, CLIENT_PORT),
            Destination::Broadcast => SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT),
            Destination::Sender => from,
        };
        let sent = match reply.encode() {
            Ok(bytes) => self.send(&bytes, to, interface),
            Err(error) => {
                warn!(%mac, error = %Chain(&error), "DHCP reply cannot be written");
                return;
            }
        };
        match sent {
            Ok(()) => info!(
                %mac,
                request = ?request.message,
                reply = ?reply.message,
                address = %reply.yiaddr,
                boots = granted && !reply.boot_file.is_empty(),
                %to,
                secs = request.secs,
                "DHCP answered"
            ),
            Err(error) => warn!(%mac, %to, error = %Chain(&error), "DHCP reply not sent"),
        }
    }

    /// One datagram: length, sender, interface index. `None` when nothing came in a while.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<(usize, SocketAddrV4, i32)>> {
        let mut parts = [IoSliceMut::new(buffer)];
        let mut control = nix::cmsg_space!(libc::in_pktinfo);
        let received = recvmsg::<SockaddrIn>(
            self.socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::empty(),
        );
        let received = match received {
            Ok(received) => received,
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Longer than the buffer: not a boot client's.
        if received.flags.contains(MsgFlags::MSG_TRUNC) {
            return Ok(None);
        }
        let Some(from) = received.address else { return Ok(None) };
        let mut interface = 0;
        for message in received.cmsgs()? {
            if let ControlMessageOwned::Ipv4PacketInfo(info) = message {
                interface = info.ipi_ifindex;
            }
        }
        Ok(Some((received.bytes, SocketAddrV4::from(from), interface)))
    }

    fn send(&self, bytes: &[u8], to: SocketAddrV4, interface: i32) -> io::Result<()> {
        // Names the arrival interface and our stable address as the source: renewals come back to it.
        let info = libc::in_pktinfo {
            ipi_ifindex: interface,
            ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(self.address.octets()) },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        let control = [ControlMessage::Ipv4PacketInfo(&info)];
        sendmsg(
            self.socket.as_raw_fd(),
            &[IoSlice::new(bytes)],
            &control,
            MsgFlags::empty(),
            Some(&SockaddrIn::from(to)),
        )?;
        Ok(())
    }
}
