use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

fn asked(blksize: u16, windowsize: u16) -> Asked {
    Asked { blksize: Some(blksize), windowsize: Some(windowsize), tsize: true, timeout: None }
}

/// A reading client of RFC 7440: acknowledges whole windows, and at once the last good block when one
/// is missing or nothing comes any more. What it has already it ignores.
struct Client {
    window: u64,
    got: u64,
    since_ack: u64,
    /// The gap in front of it was reported.
    complained: bool,
    received: u64,
    finished: bool,
}

impl Client {
    fn new(window: u64) -> Self {
        Self { window, got: 0, since_ack: 0, complained: false, received: 0, finished: false }
    }

    /// Takes a DATA packet with the payload at `offset`; the ACK it sends, if any.
    fn take(&mut self, block: u16, offset: u64, length: u16, blksize: u16) -> Option<u16> {
        let ahead = block.wrapping_sub(wrapped(self.got + 1));
        if ahead > u16::MAX / 2 {
            return None;
        }
        if ahead > 0 {
            // Once for each gap. The next window begins behind what it acknowledges.
            self.since_ack = 0;
            return (!std::mem::replace(&mut self.complained, true)).then(|| wrapped(self.got));
        }
        assert_eq!(offset, self.received, "bytes out of order");
        self.complained = false;
        self.got += 1;
        self.received += u64::from(length);
        self.since_ack += 1;
        self.finished = length < blksize;
        if self.finished || self.since_ack == self.window {
            self.since_ack = 0;
            return Some(wrapped(self.got));
        }
        None
    }
}

#[derive(Debug)]
struct Run {
    received: u64,
    packets: u64,
    done: bool,
}

/// Plays a transfer over a line that loses what `lose` says, but nothing after three timeouts in a row.
fn play(size: u64, asked: &Asked, lose: &[bool]) -> Run {
    let mut sender = Sender::new(size, asked, 1468);
    let blksize = sender.blksize();
    let mut client = Client::new(asked.windowsize.map_or(1, |w| w.min(MAX_WINDOW)).into());
    let (mut losses, mut timeouts, mut packets) = (lose.iter(), 0, 0);
    let mut lost = |timeouts| timeouts < 3 && losses.next().copied().unwrap_or(false);
    let mut acks: VecDeque<u16> = VecDeque::new();
    let mut step = sender.begin();
    for _ in 0..1_000_000 {
        match step {
            Step::Oack(_) => acks.push_back(0),
            Step::Blocks(blocks) => {
                for block in blocks {
                    packets += 1;
                    let (offset, length) = sender.offset(block);
                    if !lost(timeouts) {
                        let ack = client.take(wrapped(block), offset, length, blksize);
                        acks.extend(ack.filter(|_| !lost(timeouts)));
                    }
                }
            }
            Step::Wait => {}
            Step::Done => return Run { received: client.received, packets, done: true },
            Step::Failed(why) => panic!("{why} with {} of {size} bytes there", client.received),
        }
        step = match acks.pop_front() {
            Some(ack) => {
                let step = sender.on_ack(ack);
                timeouts = if step == Step::Wait { timeouts } else { 0 };
                step
            }
            // Its last ACK got lost: the client dallies and answers repeated data (RFC 1350, 6).
            None if client.finished => sender.on_ack(wrapped(client.got)),
            None => {
                // Nothing is on its way: one end or the other speaks up.
                timeouts += 1;
                if timeouts % 2 == 1 && client.got > 0 {
                    (client.complained, client.since_ack) = (false, 0);
                    if lost(timeouts) { Step::Wait } else { sender.on_ack(wrapped(client.got)) }
                } else {
                    sender.on_timeout()
                }
            }
        };
    }
    Run { received: client.received, packets, done: false }
}

proptest! {
    #[test]
    fn every_file_arrives_whole_whatever_is_lost(
        size in 0..60_000_u64,
        blksize in 8..1468_u16,
        windowsize in 1..80_u16,
        lose in proptest::collection::vec(proptest::bool::weighted(0.2), 0..300),
    ) {
        let run = play(size, &asked(blksize, windowsize), &lose);
        prop_assert!(run.done);
        prop_assert_eq!(run.received, size);
        let lost = lose.iter().filter(|lost| **lost).count() as u64;
        let blocks = size / u64::from(blksize) + 1;
        // Each loss costs a window or two, never a storm.
        prop_assert!(run.packets <= blocks + (lost + 1) * 2 * u64::from(windowsize), "{:?}", run);
    }

    #[test]
    fn no_acknowledgement_makes_it_send_outside_the_file(
        size in 0..5000_u64,
        acks in proptest::collection::vec(any::<u16>(), 0..200),
        silent in proptest::collection::vec(any::<bool>(), 0..200),
    ) {
        let mut sender = Sender::new(size, &asked(64, 8), 1468);
        let mut step = sender.begin();
        let blocks = size / 64 + 1;
        for (ack, silent) in acks.into_iter().zip(silent) {
            if let Step::Blocks(sent) = &step {
                prop_assert!(sent.start >= 1 && sent.end <= blocks + 1, "{:?}", sent);
                prop_assert!(sent.end - sent.start <= 8);
            }
            if matches!(step, Step::Done | Step::Failed(_)) {
                break;
            }
            step = if silent { sender.on_timeout() } else { sender.on_ack(ack) };
        }
    }
}

#[test]
fn block_numbers_roll_over_without_losing_a_byte() {
    let size = 8 * 140_000 + 3;
    let run = play(size, &asked(8, 16), &[]);
    assert!(run.done);
    assert_eq!((run.received, run.packets), (size, 140_001));
}

#[test]
fn a_file_of_whole_blocks_ends_with_an_empty_one() {
    let run = play(1024, &asked(512, 4), &[]);
    assert_eq!((run.received, run.packets), (1024, 3));
    let empty = play(0, &asked(512, 4), &[]);
    assert_eq!((empty.received, empty.packets), (0, 1));
}

#[test]
fn without_options_it_is_plain_tftp() {
    let mut sender = Sender::new(1000, &Asked::default(), 1468);
    assert_eq!(sender.begin(), Step::Blocks(1..2));
    assert_eq!(sender.offset(1), (0, 512));
    assert_eq!(sender.on_ack(1), Step::Blocks(2..3));
    assert_eq!(sender.offset(2), (512, 488));
    assert_eq!(sender.on_ack(2), Step::Done);
}

#[test]
fn only_what_was_asked_is_acknowledged_within_our_bounds() {
    let oack = |asked: &Asked| {
        let Step::Oack(packet) = Sender::new(70_000, asked, 1468).begin() else {
            panic!("no OACK");
        };
        String::from_utf8(packet[2..].to_vec()).unwrap().replace('\0', " ")
    };
    assert_eq!(oack(&asked(65_000, 500)), "tsize 70000 blksize 1468 windowsize 64 ");
    let size = Asked { tsize: true, ..Asked::default() };
    assert_eq!(oack(&size), "tsize 70000 ");
    let patient = Asked { timeout: Some(3), ..Asked::default() };
    assert_eq!(oack(&patient), "timeout 3 ");
    assert_eq!(Sender::new(1, &patient, 1468).timeout(), Duration::from_secs(3));
}

#[test]
fn a_lost_first_block_is_sent_again_at_once_but_only_once() {
    let mut sender = Sender::new(100_000, &asked(1000, 4), 1468);
    assert!(matches!(sender.begin(), Step::Oack(_)));
    assert_eq!(sender.on_ack(0), Step::Blocks(1..5));
    assert_eq!(sender.on_ack(4), Step::Blocks(5..9));
    assert_eq!(sender.on_ack(4), Step::Blocks(5..9), "ACK of the block before the window");
    assert_eq!(sender.on_ack(4), Step::Wait, "repetitions double no traffic");
    assert_eq!(sender.on_ack(8), Step::Blocks(9..13));
    assert_eq!(sender.on_ack(8), Step::Wait, "the copy is acknowledged too");
    assert_eq!(sender.on_ack(12), Step::Blocks(13..17));
    assert_eq!(sender.on_ack(12), Step::Blocks(13..17), "a later loss is repaired at once again");
    assert_eq!(sender.on_ack(14), Step::Blocks(15..19), "a window cut short goes on from there");
}

#[test]
fn a_request_that_nobody_answers_draws_one_packet() {
    let mut sender = Sender::new(100_000, &asked(1000, 4), 1468);
    assert!(matches!(sender.begin(), Step::Oack(_)));
    assert_eq!(sender.on_ack(7), Step::Wait, "not the ACK of an OACK");
    assert_eq!(sender.on_timeout(), Step::Failed(Failure::NeverAnswered));
    let mut plain = Sender::new(100_000, &Asked::default(), 1468);
    assert_eq!(plain.begin(), Step::Blocks(1..2));
    assert_eq!(plain.on_ack(0), Step::Wait, "an ACK of nothing proves nothing");
    assert_eq!(plain.on_timeout(), Step::Failed(Failure::NeverAnswered));
}

#[test]
fn a_client_that_falls_silent_is_given_up_after_five_resends() {
    let mut sender = Sender::new(100_000, &asked(1000, 4), 1468);
    sender.begin();
    sender.on_ack(0);
    for _ in 0..RETRIES {
        assert_eq!(sender.on_timeout(), Step::Blocks(1..5));
    }
    let mut lucky = sender.clone();
    assert_eq!(sender.on_timeout(), Step::Failed(Failure::Silent(RETRIES)));
    assert_eq!(lucky.on_ack(4), Step::Blocks(5..9));
    for _ in 0..RETRIES {
        assert_eq!(lucky.on_timeout(), Step::Blocks(5..9), "progress starts the counting anew");
    }
}
