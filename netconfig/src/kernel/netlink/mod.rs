//! rtnetlink: one socket, changes in batches, answers matched by their numbers.
//!
//! ```text
//!  observe   dumps: links (with VFs, without statistics), addresses, routes, rules, neighbours ─► decode
//!  apply     operations ─► encode ─► batches within a phase, one send each ─► every answer read
//! ```
//!
//! The kernel has no transaction and goes on behind a message that it refuses: [`crate::transaction`] undoes what was
//! made. Links are made with a number of our choice, so that one batch can use what it makes.

mod attribute;
mod decode;
mod encode;
mod socket;
mod vf;

use std::os::fd::{AsFd, AsRawFd as _};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use nix::errno::Errno;

use self::socket::Socket;
use super::{ApplyError, Kernel, KernelError, tap};
use crate::model::{LinkKind, Observed};
use crate::order::{self, Phase};
use crate::plan::Operation;

/// Most messages of one send: their answers fit the socket's buffer.
const BATCH: usize = 128;

/// rtnetlink of the network namespace that its thread was in when it was opened.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
}

impl Netlink {
    /// Opens the namespace that the calling thread is in.
    ///
    /// # Errors
    /// The socket could not be had.
    pub fn open() -> Result<Self, KernelError> {
        Ok(Self { socket: Socket::open()? })
    }

    /// Moves a link into another network namespace: the tenant's end of a port goes to its container.
    ///
    /// # Errors
    /// There is no such link, or its name is taken there.
    pub fn move_to(&mut self, index: u32, namespace: impl AsFd) -> Result<(), KernelError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(LinkAttribute::NetNsFd(namespace.as_fd().as_raw_fd()));
        self.socket.all(vec![(RouteNetlinkMessage::SetLink(message), 0)])
    }

    fn batch(&mut self, operations: &[&Operation]) -> Result<(), ApplyError> {
        let messages = operations.iter().map(|operation| encode::operation(operation)).collect();
        let answers = self.socket.batch(messages).map_err(|source| {
            let change = operations.first().map(ToString::to_string).unwrap_or_default();
            ApplyError { change, source }
        })?;
        for (operation, answer) in operations.iter().zip(answers) {
            let Some(refused) = answer else { continue };
            // Nobody is left in the group: that is what was wanted.
            let gone = matches!(operation, Operation::DeleteGroup { .. });
            if gone && refused.errno == Errno::ENODEV {
                continue;
            }
            let source = KernelError::Refused(refused);
            return Err(ApplyError { change: operation.to_string(), source });
        }
        Ok(())
    }
}

impl Kernel for Netlink {
    fn observe(&mut self) -> Result<Observed, KernelError> {
        decode::observe(&mut self.socket)
    }

    fn apply(&mut self, operations: &[Operation]) -> Result<(), ApplyError> {
        let mut waiting: Vec<&Operation> = Vec::with_capacity(BATCH);
        let mut phase: Option<Phase> = None;
        for operation in operations {
            let next = order::phase_of(operation);
            if waiting.len() == BATCH || phase != Some(next) {
                self.batch(&waiting)?;
                waiting.clear();
            }
            phase = Some(next);
            // netlink makes no taps.
            if let Operation::Create(new) = operation
                && matches!(new.kind, LinkKind::Tap)
            {
                self.batch(&waiting)?;
                waiting.clear();
                let settle = || self.socket.all(encode::tap(new));
                let change = operation.to_string();
                tap::create(&new.link, settle).map_err(|source| ApplyError { change, source })?;
            } else {
                waiting.push(operation);
            }
        }
        self.batch(&waiting)
    }
}

#[cfg(test)]
mod tests;
