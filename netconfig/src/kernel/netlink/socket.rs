//! A netlink socket that waits for its answers.

use std::io;
use std::time::Duration;

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket as Raw, SocketAddr, protocols::NETLINK_ROUTE};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

use super::attribute;
use crate::kernel::error::{KernelError, Refused};

/// How long the kernel may take for one answer. Deleting many links is one answer: it took 5 s for 400 of them.
const PATIENCE: Duration = Duration::from_secs(60);

/// Room for answers that wait.
const ROOM: usize = 8 << 20;

/// How often a dump that was overtaken by changes is begun anew.
const TRIES: usize = 8;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x01;
const NLM_F_ACK: u16 = 0x04;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;

/// An rtnetlink socket.
#[derive(Debug)]
pub(super) struct Socket {
    raw: Raw,
    sequence: u32,
}

/// One message of an answer: its type and what follows its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) payload: &'a [u8],
}

/// The messages of a datagram. A length that does not fit ends them with an error (netlink(7), `struct nlmsghdr`).
pub(super) fn messages(mut datagram: &[u8]) -> Result<Vec<Message<'_>>, String> {
    let mut found = Vec::new();
    while !datagram.is_empty() {
        let header = datagram.first_chunk::<16>();
        let Some([a, b, c, d, kind0, kind1, flags0, flags1, s0, s1, s2, s3, ..]) = header else {
            return Err(format!("{} bytes, a header has 16", datagram.len()));
        };
        let length = usize::try_from(u32::from_ne_bytes([*a, *b, *c, *d])).unwrap_or(usize::MAX);
        let payload = datagram.get(16..length);
        let Some(payload) = payload else {
            return Err(format!("a message of {length} bytes in {}", datagram.len()));
        };
        found.push(Message {
            kind: u16::from_ne_bytes([*kind0, *kind1]),
            flags: u16::from_ne_bytes([*flags0, *flags1]),
            sequence: u32::from_ne_bytes([*s0, *s1, *s2, *s3]),
            payload,
        });
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(found)
}

fn call(what: &str) -> impl FnOnce(io::Error) -> KernelError + use<> {
    let call = what.to_owned();
    move |source| KernelError::Call { call, source }
}

impl Socket {
    pub(super) fn open() -> Result<Self, KernelError> {
        let mut raw = Raw::new(NETLINK_ROUTE).map_err(call("open an rtnetlink socket"))?;
        raw.bind_auto().map_err(call("bind an rtnetlink socket"))?;
        let option = |what: &str| call(&format!("set {what} of an rtnetlink socket"));
        raw.set_ext_ack(true).map_err(option("NETLINK_EXT_ACK"))?;
        raw.set_cap_ack(true).map_err(option("NETLINK_CAP_ACK"))?;
        raw.set_netlink_get_strict_chk(true).map_err(option("NETLINK_GET_STRICT_CHK"))?;
        let seconds = i64::try_from(PATIENCE.as_secs()).unwrap_or(i64::MAX);
        setsockopt(&raw, sockopt::ReceiveTimeout, &TimeVal::new(seconds, 0))
            .map_err(io::Error::from)
            .map_err(option("SO_RCVTIMEO"))?;
        setsockopt(&raw, sockopt::RcvBufForce, &ROOM)
            .map_err(io::Error::from)
            .map_err(option("SO_RCVBUFFORCE"))?;
        Ok(Self { raw, sequence: 0 })
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    fn receive(&self) -> Result<Vec<u8>, KernelError> {
        loop {
            match self.raw.recv_from_full() {
                Ok((bytes, from)) if from.port_number() == 0 => return Ok(bytes),
                // Any process may send to a netlink socket; only the kernel is port 0.
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(KernelError::Silent(PATIENCE.as_secs()));
                }
                Err(error) => return Err(call("receive from rtnetlink")(error)),
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<(), KernelError> {
        let kernel = SocketAddr::new(0, 0);
        let sent = self.raw.send_to(bytes, &kernel, 0).map_err(call("send to rtnetlink"))?;
        if sent == bytes.len() {
            Ok(())
        } else {
            Err(KernelError::Answer(format!("{sent} of {} bytes were taken", bytes.len())))
        }
    }

    /// Sends changes at once and reads every answer: of each change, the kernel's no or nothing.
    pub(super) fn batch(
        &mut self,
        messages_out: Vec<(RouteNetlinkMessage, u16)>,
    ) -> Result<Vec<Option<Refused>>, KernelError> {
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        let mut places = Vec::with_capacity(messages_out.len());
        for (message, flags) in messages_out {
            let sequence = self.next_sequence();
            let start = bytes.len();
            serialize(message, flags | NLM_F_REQUEST | NLM_F_ACK, sequence, &mut bytes);
            places.push(start);
        }
        if places.is_empty() {
            return Ok(Vec::new());
        }
        self.send(&bytes)?;
        let mut answers: Vec<Option<Option<Refused>>> = vec![None; places.len()];
        let mut missing = places.len();
        while missing > 0 {
            let datagram = self.receive()?;
            for message in messages(&datagram).map_err(KernelError::Answer)? {
                if message.kind != NLMSG_ERROR {
                    continue;
                }
                // An answer to a question that nobody waits for any more has another number.
                let at =
                    usize::try_from(message.sequence.wrapping_sub(first)).unwrap_or(usize::MAX);
                let (Some(slot), Some(place)) = (answers.get_mut(at), places.get(at)) else {
                    continue;
                };
                if slot.is_none() {
                    let sent = bytes.get(*place..).unwrap_or_default();
                    *slot = Some(acknowledgement(message, sent)?);
                    missing -= 1;
                }
            }
        }
        Ok(answers.into_iter().map(Option::flatten).collect())
    }

    /// Sends changes that belong together: the first no is the answer.
    pub(super) fn all(
        &mut self,
        messages: Vec<(RouteNetlinkMessage, u16)>,
    ) -> Result<(), KernelError> {
        match self.batch(messages)?.into_iter().flatten().next() {
            Some(refused) => Err(KernelError::Refused(refused)),
            None => Ok(()),
        }
    }

    /// Asks for every object of a kind and hands each to `take`. Nothing is handed to it before the first, and again
    /// where the kernel says that its list changed meanwhile: then all is to be forgotten that was taken.
    pub(super) fn dump(
        &mut self,
        question: &RouteNetlinkMessage,
        mut take: impl FnMut(Option<&[u8]>),
    ) -> Result<(), KernelError> {
        for _ in 0..TRIES {
            take(None);
            let sequence = self.next_sequence();
            let mut bytes = Vec::new();
            serialize(question.clone(), NLM_F_REQUEST | NLM_F_DUMP, sequence, &mut bytes);
            self.send(&bytes)?;
            if self.dump_answer(sequence, &bytes, &mut take)? {
                return Ok(());
            }
        }
        Err(KernelError::Answer(format!("a list that changed {TRIES} times while it was read")))
    }

    /// False where the list changed meanwhile.
    fn dump_answer(
        &self,
        sequence: u32,
        sent: &[u8],
        take: &mut impl FnMut(Option<&[u8]>),
    ) -> Result<bool, KernelError> {
        let mut whole = true;
        loop {
            let datagram = self.receive()?;
            for message in messages(&datagram).map_err(KernelError::Answer)? {
                if message.sequence != sequence {
                    continue;
                }
                whole &= message.flags & NLM_F_DUMP_INTR == 0;
                match message.kind {
                    NLMSG_DONE | NLMSG_ERROR => {
                        return match acknowledgement(message, sent)? {
                            None => Ok(whole),
                            Some(refused) => Err(KernelError::Refused(refused)),
                        };
                    }
                    _ => take(Some(message.payload)),
                }
            }
        }
    }
}

fn serialize(message: RouteNetlinkMessage, flags: u16, sequence: u32, to: &mut Vec<u8>) {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = flags;
    message.header.sequence_number = sequence;
    debug_assert!(matches!(message.payload, NetlinkPayload::InnerMessage(_)));
    message.finalize();
    let start = to.len();
    to.resize(start + message.buffer_len().next_multiple_of(4), 0);
    if let Some(room) = to.get_mut(start..) {
        message.serialize(room);
    }
}

/// Reads `struct nlmsgerr`, or the number at the end of a dump: 0 is a yes (netlink(7)). Behind it are attributes: the
/// kernel's words, and where in our message the attribute at fault begins (linux/netlink.h, `NLMSGERR_ATTR_*`).
pub(super) fn acknowledgement(
    message: Message<'_>,
    sent: &[u8],
) -> Result<Option<Refused>, KernelError> {
    let code = message.payload.first_chunk::<4>().map(|code| i32::from_ne_bytes(*code));
    let code = match code {
        Some(code) => code,
        // The end of a dump of an old kernel has no number.
        None if message.kind == NLMSG_DONE => 0,
        None => return Err(KernelError::Answer("an acknowledgement without a number".to_owned())),
    };
    if code == 0 {
        return Ok(None);
    }
    // Behind the number of an error comes the header of our message, without its body (NETLINK_CAP_ACK).
    let tail = if message.kind == NLMSG_ERROR { 20 } else { 4 };
    let words = message.payload.get(tail..).unwrap_or_default();
    let (text, offset) = attribute::words(words);
    Ok(Some(Refused {
        errno: Errno::from_raw(code.wrapping_neg()),
        attribute: offset.and_then(|offset| attribute::at(sent, offset)),
        message: text,
    }))
}
