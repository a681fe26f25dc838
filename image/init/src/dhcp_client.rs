//! One DHCP exchange on one interface, over a plain UDP socket bound to it.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt,
};

use crate::backoff::Backoff;
use crate::dhcp::{self, Answer, Client, Offer, Unusable};
use crate::http::Base;
use crate::link::{self, LinkError, Nic};
use crate::random;

const CLIENT_PORT: u16 = 68;
const SERVERS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::BROADCAST, 67);

/// No address and boot folder to be had here.
#[derive(Debug, thiserror::Error)]
pub enum DhcpError {
    /// The socket.
    #[error("open the DHCP socket on {nic}")]
    Socket {
        /// The interface.
        nic: String,
        /// Why.
        source: Errno,
    },
    /// A message could not be sent or received.
    #[error("DHCP on {nic}")]
    Exchange {
        /// The interface.
        nic: String,
        /// Why.
        source: io::Error,
    },
    /// A message could not be written.
    #[error("encode the DHCP request")]
    Encode(#[from] dhcproto::error::EncodeError),
    /// The interface's address.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Nobody answered.
    #[error("no DHCP server answered on {nic} within {seconds:.1} s")]
    NoAnswer {
        /// The interface.
        nic: String,
        /// How long.
        seconds: f64,
    },
    /// Something answered, and none of it could be used.
    #[error("DHCP on {nic}: no usable answer")]
    Unusable {
        /// The interface.
        nic: String,
        /// The last of them.
        source: Unusable,
    },
    /// A server has an address and nothing to boot.
    #[error(
        "DHCP server {server} gives {address} on {nic} and nothing to boot: this machine is not admitted there, or is held"
    )]
    NothingToBoot {
        /// The interface.
        nic: String,
        /// Who.
        server: Ipv4Addr,
        /// The address.
        address: Ipv4Addr,
    },
    /// The offer was taken back.
    #[error("DHCP server {server} refused what it offered: {words}")]
    Refused {
        /// Who.
        server: Ipv4Addr,
        /// What it said.
        words: String,
    },
}

/// What was granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Address and network.
    pub offer: Offer,
    /// Where boot files are.
    pub base: Base,
}

/// Asks on `nic` until `patience` is over. Takes the first offer with something to boot, whoever else offers.
///
/// # Errors
/// [`DhcpError`].
pub fn obtain(nic: &Nic, client: &Client, patience: Duration) -> Result<Grant, DhcpError> {
    // with 0.0.0.0 the kernel sends from that address and takes broadcasts
    link::set_address(nic, Ipv4Addr::UNSPECIFIED, 0)?;
    let mut exchange = Exchange {
        socket: bound(nic)?,
        nic,
        client,
        start: Instant::now(),
        patience,
        unusable: None,
        bare: None,
    };
    let mut words = None;
    // a server may have forgotten its offer: one more round
    for _ in 0..2 {
        let offer = match exchange.ask(None)? {
            Some(Answer::Offer(offer)) => offer,
            _ => break,
        };
        match exchange.ask(Some(&offer))? {
            Some(Answer::Ack(Offer { base: Some(base), .. })) => return Ok(Grant { offer, base }),
            Some(Answer::Nak(text)) => words = Some((offer.server, text)),
            _ => break,
        }
    }
    Err(match words {
        Some((server, words)) => DhcpError::Refused { server, words },
        None => exchange.nothing(),
    })
}

fn bound(nic: &Nic) -> Result<UdpSocket, DhcpError> {
    let open = || -> Result<OwnedFd, Errno> {
        let fd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        setsockopt(&fd, sockopt::Broadcast, &true)?;
        setsockopt(&fd, sockopt::BindToDevice, &nic.name.clone().into())?;
        let address = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT_PORT));
        bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &address)?;
        Ok(fd)
    };
    open()
        .map(UdpSocket::from)
        .map_err(|source| DhcpError::Socket { nic: nic.name.clone(), source })
}

struct Exchange<'a> {
    socket: UdpSocket,
    nic: &'a Nic,
    client: &'a Client,
    start: Instant,
    patience: Duration,
    /// The last answer to us that could not be used.
    unusable: Option<Unusable>,
    /// The last offer without anything to boot.
    bare: Option<Offer>,
}

impl Exchange<'_> {
    /// Sends DISCOVER, or the REQUEST that takes an offer, again and again; `None` when patience is over.
    fn ask(&mut self, take: Option<&Offer>) -> Result<Option<Answer>, DhcpError> {
        let failed = |source| DhcpError::Exchange { nic: self.nic.name.clone(), source };
        let mut pause = Backoff::new(Duration::from_secs(1), Duration::from_secs(8));
        let mut again = Duration::ZERO;
        loop {
            let now = self.start.elapsed();
            if now >= self.patience {
                return Ok(None);
            }
            let seconds = u16::try_from(now.as_secs()).unwrap_or(u16::MAX);
            let message = dhcp::request(self.client, take, seconds)?;
            self.socket.send_to(&message, SERVERS).map_err(failed)?;
            again = (again + pause.next(random::bits())).min(self.patience);
            let mut buffer = [0; 1500];
            while let Some(left) = again.checked_sub(self.start.elapsed()).filter(|d| !d.is_zero())
            {
                self.socket.set_read_timeout(Some(left)).map_err(failed)?;
                let length = match self.socket.recv_from(&mut buffer) {
                    Ok((length, _)) => length,
                    Err(error) if is_timeout(&error) => continue,
                    Err(error) => return Err(failed(error)),
                };
                let answer = dhcp::answer(self.client, buffer.get(..length).unwrap_or_default());
                if let Some(answer) = self.useful(answer, take) {
                    return Ok(Some(answer));
                }
            }
        }
    }

    /// Keeps what is not the answer waited for as the reason to give in the end.
    fn useful(&mut self, answer: Result<Answer, Unusable>, take: Option<&Offer>) -> Option<Answer> {
        match (answer, take) {
            (Ok(Answer::Offer(offer)), None) if offer.base.is_some() => Some(Answer::Offer(offer)),
            (Ok(Answer::Offer(offer)), None) => {
                self.bare = Some(offer);
                None
            }
            (Ok(Answer::Ack(offer)), Some(taken)) => {
                let same = offer.address == taken.address && offer.server == taken.server;
                (same && offer.base.is_some()).then_some(Answer::Ack(offer))
            }
            (Ok(Answer::Nak(words)), Some(_)) => Some(Answer::Nak(words)),
            (Err(unusable @ (Unusable::NotDhcp | Unusable::OtherClient)), _) => {
                // everybody's broadcasts arrive here
                self.unusable.get_or_insert(unusable);
                None
            }
            (Err(unusable), _) => {
                self.unusable = Some(unusable);
                None
            }
            (Ok(_), _) => None,
        }
    }

    fn nothing(&mut self) -> DhcpError {
        let nic = self.nic.name.clone();
        if let Some(offer) = &self.bare {
            return DhcpError::NothingToBoot { nic, server: offer.server, address: offer.address };
        }
        match self.unusable.take() {
            Some(source) if !matches!(source, Unusable::NotDhcp | Unusable::OtherClient) => {
                DhcpError::Unusable { nic, source }
            }
            _ => DhcpError::NoAnswer { nic, seconds: self.start.elapsed().as_secs_f64() },
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}
