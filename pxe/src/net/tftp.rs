//! The TFTP server: one listener, one connected socket and thread a transfer.
//!
//! A transfer socket is bound to the address that the client asked, so that answers pass the client's
//! check of the sender, and connected, so that nobody else can speak to it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bulkhead_api::chain::Chain;
use bulkhead_api::id::MacAddr;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::NetError;
use super::places::Places;
use crate::artefacts::Blob;
use crate::policy::Decision;
use crate::service::Service;
use crate::site::Artefact;
use crate::transfer::{Sender, Step, wrapped};
use crate::wire::tftp::{ClientPacket, ErrorCode, ReadRequest, data, decode, error, normal_name};

/// Transfers of one client at a time: size probe, transfer and their repetitions.
const PER_CLIENT: usize = 4;
/// Transfers in all.
const IN_ALL: usize = 256;
/// A DATA packet in one Ethernet frame of 1500 bytes: less IPv4, UDP and TFTP headers.
const MAX_BLKSIZE: u16 = 1468;

/// The bound listener.
#[derive(Debug)]
pub struct TftpServer {
    socket: tokio::net::UdpSocket,
    address: Ipv4Addr,
}

impl TftpServer {
    /// Binds the listener.
    ///
    /// # Errors
    /// [`NetError::Socket`].
    pub async fn bind(address: Ipv4Addr, port: u16) -> Result<Self, NetError> {
        let at = SocketAddrV4::new(address, port);
        match tokio::net::UdpSocket::bind(at).await {
            Ok(socket) => Ok(Self { socket, address }),
            Err(source) => Err(NetError::Socket {
                service: "TFTP",
                doing: "bind",
                target: at.to_string(),
                source,
            }),
        }
    }

    /// The port in use.
    ///
    /// # Errors
    /// The system cannot tell.
    pub fn port(&self) -> io::Result<u16> {
        Ok(self.socket.local_addr()?.port())
    }

    /// Serves for ever. Dropping the future ends the listener; transfers end by themselves.
    pub async fn serve(&self, service: Arc<Service>) {
        let places = Places::new(IN_ALL, PER_CLIENT);
        let mut transfers: JoinSet<()> = JoinSet::new();
        let mut buffer = vec![0; 2048];
        loop {
            while transfers.try_join_next().is_some() {}
            let (length, from) = match self.socket.recv_from(&mut buffer).await {
                Ok((length, SocketAddr::V4(from))) => (length, from),
                Ok((_, SocketAddr::V6(_))) => continue,
                Err(error) => {
                    // An ICMP error of an earlier answer; the socket itself goes on.
                    debug!(error = %Chain(&error), "TFTP receive");
                    continue;
                }
            };
            let packet = buffer.get(..length).map(decode);
            let request = match packet {
                Some(Ok(ClientPacket::Read(request))) => request,
                Some(Ok(ClientPacket::Ack(_) | ClientPacket::Error { .. })) | None => continue,
                Some(Err(reason)) => {
                    debug!(%from, error = %Chain(&reason), "TFTP packet refused");
                    let answer = error(ErrorCode::IllegalOperation, &reason.to_string());
                    self.answer(&answer, from).await;
                    continue;
                }
            };
            let Some(place) = places.enter(*from.ip()) else {
                warn!(%from, "TFTP request over the limit of transfers");
                continue;
            };
            let (service, address) = (Arc::clone(&service), self.address);
            transfers.spawn_blocking(move || {
                serve_request(&service, address, from, &request);
                drop(place);
            });
        }
    }

    async fn answer(&self, packet: &[u8], to: SocketAddrV4) {
        if let Err(error) = self.socket.send_to(packet, to).await {
            debug!(%to, error = %Chain(&error), "TFTP answer not sent");
        }
    }
}

fn connected(address: Ipv4Addr, client: SocketAddrV4) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((IpAddr::V4(address), 0))?;
    socket.connect(client)?;
    Ok(socket)
}

fn serve_request(
    service: &Arc<Service>,
    address: Ipv4Addr,
    client: SocketAddrV4,
    request: &ReadRequest,
) {
    let socket = match connected(address, client) {
        Ok(socket) => socket,
        Err(error) => {
            warn!(%client, error = %Chain(&error), "no socket for a TFTP transfer");
            return;
        }
    };
    let refuse = |code, text: &str| {
        if let Err(error) = socket.send(&error(code, text)) {
            debug!(%client, error = %Chain(&error), "TFTP refusal not sent");
        }
    };
    // Exactly `b/{ticket}/uki.efi`: other artefacts are stage 1's, which speaks HTTP. And `t/{sha256}/uki.efi`.
    let name = normal_name(&request.name);
    let tenants = name.as_deref().and_then(|name| name.strip_prefix("t/"));
    if let Some(sha256) = tenants.and_then(|name| name.strip_suffix("/uki.efi")) {
        return serve_tenant_uki(service, &socket, client, request, sha256);
    }
    let ticket = name.as_deref().and_then(|name| name.strip_prefix("b/"));
    let Some(ticket) = ticket.and_then(|name| name.strip_suffix("/uki.efi")) else {
        info!(%client, name = ?name, "TFTP file not found");
        return refuse(ErrorCode::FileNotFound, "no such file");
    };
    let uki = Artefact::Uki;
    let asked = service.ask("tftp", |site, now| site.artefact(ticket, &uki, *client.ip(), now));
    let opened = match asked {
        Ok(outcome) => match (outcome.reply, outcome.decision) {
            (Some(opened), _) => opened,
            (None, Decision::Refuse(why)) => {
                return refuse(ErrorCode::AccessViolation, &why.to_string());
            }
            (None, Decision::Quarantine(why, _)) => {
                return refuse(ErrorCode::AccessViolation, &why.to_string());
            }
            (None, Decision::Reply(_) | Decision::Silence(_)) => return,
        },
        Err(_) => return refuse(ErrorCode::Undefined, "server cannot save its state"),
    };
    let Some(blob) = service.artefacts.blob(&uki) else {
        return refuse(ErrorCode::FileNotFound, "no such file");
    };
    if sent(&socket, opened.mac, client, blob, request) {
        service.note(|site, _| site.delivered(opened.mac, &uki));
    }
}

/// A tenant's UKI, for the machine at one address alone.
fn serve_tenant_uki(
    service: &Arc<Service>,
    socket: &UdpSocket,
    client: SocketAddrV4,
    request: &ReadRequest,
    sha256: &str,
) {
    let refuse = |code, text: &str| {
        info!(%client, sha256, reason = text, "TFTP refused");
        if let Err(error) = socket.send(&error(code, text)) {
            debug!(%client, error = %Chain(&error), "TFTP refusal not sent");
        }
    };
    let asked = service.ask("tftp", |site, now| site.tenant_uki(sha256, *client.ip(), now));
    let mac = match asked.map(|outcome| (outcome.reply, outcome.decision)) {
        Ok((Some(mac), _)) => mac,
        Ok((None, Decision::Refuse(why))) => {
            return refuse(ErrorCode::AccessViolation, &why.to_string());
        }
        Ok((None, Decision::Quarantine(why, _))) => {
            return refuse(ErrorCode::AccessViolation, &why.to_string());
        }
        Ok((None, Decision::Reply(_) | Decision::Silence(_))) => return,
        Err(_) => return refuse(ErrorCode::Undefined, "server cannot save its state"),
    };
    match service.tenant_ukis.blob(sha256) {
        Ok(blob) if sent(socket, mac, client, &blob, request) => {
            service.note(|site, _| site.tenant_uki_delivered(mac));
        }
        Ok(_) => {}
        Err(error) => {
            warn!(%mac, error = %Chain(&error), "tenant's UKI cannot be served");
            refuse(ErrorCode::FileNotFound, "the site lost the file");
        }
    }
}

/// Whether all of it arrived.
fn sent(
    socket: &UdpSocket,
    mac: MacAddr,
    client: SocketAddrV4,
    blob: &Blob,
    request: &ReadRequest,
) -> bool {
    let began = Instant::now();
    match transfer(socket, blob, request) {
        Ok(End::Done { packets }) => {
            let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            info!(%mac, %client, bytes = blob.size, packets, ms, "TFTP transfer done");
            return true;
        }
        Ok(End::ClientError { code, message }) => {
            // Code 8 after the OACK is a size probe, not a fault.
            debug!(%mac, %client, code, message, "TFTP client ended the transfer");
        }
        Ok(End::Failed(why)) => warn!(%mac, %client, reason = %why, "TFTP transfer given up"),
        Err(error) => log_broken(mac, client, &error),
    }
    false
}

fn log_broken(mac: MacAddr, client: SocketAddrV4, error: &io::Error) {
    if error.kind() == io::ErrorKind::ConnectionRefused {
        // The client closed its socket: firmware does so after a size probe.
        debug!(%mac, %client, "TFTP client closed its port");
    } else {
        warn!(%mac, %client, error = %Chain(error), "TFTP transfer broken");
    }
}

enum End {
    Done { packets: u64 },
    ClientError { code: u16, message: String },
    Failed(crate::transfer::Failure),
}

/// Runs the state machine over the socket.
fn transfer(socket: &UdpSocket, blob: &Blob, request: &ReadRequest) -> io::Result<End> {
    let mut sender = Sender::new(blob.size, &request.options, MAX_BLKSIZE);
    let mut payload = vec![0; usize::from(sender.blksize())];
    let mut buffer = [0; 1500];
    let mut packets = 0;
    let mut step = sender.begin();
    let mut deadline = Instant::now() + sender.timeout();
    loop {
        match step {
            Step::Oack(packet) => {
                socket.send(&packet)?;
                packets += 1;
            }
            Step::Blocks(blocks) => {
                for block in blocks {
                    let (offset, length) = sender.offset(block);
                    let part = payload.get_mut(..usize::from(length)).unwrap_or_default();
                    blob.file.read_exact_at(part, offset)?;
                    socket.send(&data(wrapped(block), part))?;
                    packets += 1;
                }
                deadline = Instant::now() + sender.timeout();
            }
            Step::Wait => {}
            Step::Done => return Ok(End::Done { packets }),
            Step::Failed(why) => return Ok(End::Failed(why)),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        step = if left.is_zero() {
            deadline = Instant::now() + sender.timeout();
            sender.on_timeout()
        } else {
            match receive(socket, &mut buffer, left)? {
                Some(Ok(ClientPacket::Ack(block))) => sender.on_ack(block),
                Some(Ok(ClientPacket::Error { code, message })) => {
                    return Ok(End::ClientError { code, message });
                }
                // A request repeated to this port, garbage, or silence: the deadline decides.
                Some(Ok(ClientPacket::Read(_)) | Err(_)) | None => Step::Wait,
            }
        };
    }
}

type Decoded = Result<ClientPacket, crate::wire::tftp::DecodeError>;

fn receive(socket: &UdpSocket, buffer: &mut [u8], limit: Duration) -> io::Result<Option<Decoded>> {
    socket.set_read_timeout(Some(limit.max(Duration::from_millis(1))))?;
    match socket.recv(buffer) {
        Ok(length) => Ok(buffer.get(..length).map(decode)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
