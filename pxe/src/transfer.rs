//! One TFTP download as a state machine: no socket, no clock, no file.
//!
//! ```text
//!   begin ──► Send(OACK | window) ─► ack ─► window ─► ack ─► ... ─► Done
//!                        ▲            │
//!                        └─ timeout ──┘  at most RETRIES in a row; none before the client's first ACK
//! ```
//!
//! Blocks are counted without wrapping (`u64`); only the packet carries them modulo 65536. The
//! caller sends what a [`Step`] says, reads the file at [`Sender::offset`], and reports ACKs and the
//! passing of [`Sender::timeout`].

use std::ops::Range;
use std::time::Duration;

use crate::wire::tftp::{Asked, oack};

/// Timed resends in a row before a silent client is given up.
pub const RETRIES: u32 = 5;
/// Largest window: a spoofed ACK can draw no more than this many blocks.
pub const MAX_WINDOW: u16 = 64;
/// Without option blksize (RFC 1350).
const DEFAULT_BLKSIZE: u16 = 512;

/// What the caller does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Send this packet.
    Oack(Vec<u8>),
    /// Send DATA packets of these blocks, counted from 1 without wrapping.
    Blocks(Range<u64>),
    /// Nothing; wait on.
    Wait,
    /// The client has everything.
    Done,
    /// Give up, with the reason.
    Failed(Failure),
}

/// Why a transfer ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No ACK ever came: the request may have been forged, so nothing is sent twice.
    #[error("no acknowledgement of the first packet")]
    NeverAnswered,
    /// The client fell silent.
    #[error("silent after {0} resends")]
    Silent(u32),
}

/// State of one download.
#[derive(Debug, Clone)]
pub struct Sender {
    size: u64,
    blksize: u16,
    window: u16,
    timeout: Duration,
    /// Options answered; sent before the data when not empty.
    oack: Vec<u8>,
    /// Blocks the client is known to have.
    acked: u64,
    /// Last block sent.
    sent: u64,
    answered: bool,
    oack_pending: bool,
    resends: u32,
    /// Windows at whose base a repeated ACK changes nothing: the one that was just sent again, and the
    /// next one, where the client acknowledges the copy.
    deaf_windows: u8,
}

impl Sender {
    /// A download of `size` bytes. `max_blksize` keeps a DATA packet in one frame of the link.
    #[must_use]
    pub fn new(size: u64, asked: &Asked, max_blksize: u16) -> Self {
        let blksize = asked.blksize.map(|want| want.min(max_blksize).max(8));
        let window = asked.windowsize.map(|want| want.clamp(1, MAX_WINDOW));
        let mut answered: Vec<(&str, u64)> = Vec::new();
        if asked.tsize {
            answered.push(("tsize", size));
        }
        if let Some(blksize) = blksize {
            answered.push(("blksize", blksize.into()));
        }
        if let Some(timeout) = asked.timeout {
            answered.push(("timeout", timeout.into()));
        }
        if let Some(window) = window {
            answered.push(("windowsize", window.into()));
        }
        Self {
            size,
            blksize: blksize.unwrap_or(DEFAULT_BLKSIZE),
            window: window.unwrap_or(1),
            timeout: Duration::from_secs(asked.timeout.unwrap_or(1).into()),
            oack_pending: !answered.is_empty(),
            oack: if answered.is_empty() { Vec::new() } else { oack(&answered) },
            acked: 0,
            sent: 0,
            answered: false,
            resends: 0,
            deaf_windows: 0,
        }
    }

    /// Bytes a full block carries.
    #[must_use]
    pub fn blksize(&self) -> u16 {
        self.blksize
    }

    /// How long the caller waits for an ACK before it calls [`Sender::on_timeout`].
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Where `block` begins in the file and how many bytes it has; the last one is short, and empty
    /// when the size is a multiple of the block size.
    #[must_use]
    pub fn offset(&self, block: u64) -> (u64, u16) {
        let start = block.saturating_sub(1).saturating_mul(self.blksize.into());
        let left = self.size.saturating_sub(start);
        (start, u16::try_from(left).unwrap_or(u16::MAX).min(self.blksize))
    }

    /// The first packets.
    pub fn begin(&mut self) -> Step {
        if self.oack_pending { Step::Oack(self.oack.clone()) } else { self.send_window() }
    }

    /// An ACK arrived.
    pub fn on_ack(&mut self, block: u16) -> Step {
        if self.oack_pending {
            if block != 0 {
                return Step::Wait;
            }
            self.oack_pending = false;
            self.answered = true;
            self.resends = 0;
            return self.send_window();
        }
        // Distance from the last acknowledged block, modulo the wrap; the window is far smaller.
        let ahead = u64::from(block.wrapping_sub(wrapped(self.acked)));
        let in_flight = self.sent - self.acked;
        if ahead > in_flight {
            return Step::Wait;
        }
        if ahead == 0 {
            // The client lost the window's first block (RFC 7440, 4), or repeats itself. Answering
            // every repetition would double the traffic for the rest of the transfer.
            if self.deaf_windows > 0 || !self.answered {
                return Step::Wait;
            }
            return self.resend();
        }
        self.answered = true;
        self.resends = 0;
        self.acked += ahead;
        if self.acked == self.blocks() {
            return Step::Done;
        }
        let whole = ahead == in_flight;
        self.deaf_windows = if whole { self.deaf_windows.saturating_sub(1) } else { 0 };
        self.send_window()
    }

    /// [`Sender::timeout`] passed without an ACK that made progress.
    pub fn on_timeout(&mut self) -> Step {
        if !self.answered {
            return Step::Failed(Failure::NeverAnswered);
        }
        self.resends += 1;
        if self.resends > RETRIES {
            return Step::Failed(Failure::Silent(RETRIES));
        }
        self.resend()
    }

    fn resend(&mut self) -> Step {
        self.deaf_windows = 2;
        Step::Blocks(self.acked + 1..self.sent + 1)
    }

    fn blocks(&self) -> u64 {
        self.size / u64::from(self.blksize) + 1
    }

    fn send_window(&mut self) -> Step {
        self.sent = (self.acked + u64::from(self.window)).min(self.blocks());
        Step::Blocks(self.acked + 1..self.sent + 1)
    }
}

/// A block number as packets carry it.
#[must_use]
pub fn wrapped(block: u64) -> u16 {
    let [.., high, low] = block.to_be_bytes();
    u16::from_be_bytes([high, low])
}

#[cfg(test)]
mod tests;
