//! Claims on a disk in memory whose power is cut, judged by what may be lost and never by the code that writes.

use std::collections::BTreeMap;
use std::io;

use proptest::prelude::*;

use super::check::{END, Probe, StateMark, Surroundings, Verdict, verdict};
use super::write::{Blocks, claim};
use crate::storage::gpt::{Guid, Layout, STATE_START};
use crate::storage::mark::{self, BLOCK, Kind, OWNER_AT, STATE_AT};

const SIZE: u64 = 256 << 20;
const HOST: &str = "4c4c4544-0000-1111-2222-333344445555";

/// A disk that keeps its sectors, has a cache, and loses power at a sector.
struct Disk {
    sector: u32,
    kept: BTreeMap<u64, Vec<u8>>,
    cached: BTreeMap<u64, Vec<u8>>,
    /// Sectors that are still written.
    left: usize,
    written: usize,
}

impl Disk {
    fn new(sector: u32) -> Self {
        let (kept, cached) = (BTreeMap::new(), BTreeMap::new());
        Self { sector, kept, cached, left: usize::MAX, written: 0 }
    }

    /// The power is cut: of the cache, sectors with a true in `lucky` survive.
    fn cut(&mut self, lucky: impl Fn(usize) -> bool) {
        let cached = std::mem::take(&mut self.cached);
        self.kept.extend(cached.into_iter().enumerate().filter(|(n, _)| lucky(*n)).map(|(_, s)| s));
        self.left = usize::MAX;
    }

    fn read(&self, at: u64, length: usize) -> Vec<u8> {
        let sector = u64::from(self.sector);
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let number = (at + bytes.len() as u64) / sector;
            let zeros = || vec![0; self.sector as usize];
            let found = self.cached.get(&number).or_else(|| self.kept.get(&number));
            bytes.extend(found.cloned().unwrap_or_else(zeros));
        }
        bytes.truncate(length);
        bytes
    }

    fn probe(&self) -> Probe {
        Probe {
            size: SIZE,
            sector: self.sector,
            head: self.read(0, END),
            tail: self.read(SIZE - END as u64, END),
            owner: self.read(OWNER_AT, BLOCK),
            state: self.read(STATE_AT, BLOCK),
        }
    }

    fn verdict(&self) -> Verdict {
        verdict(&self.probe(), &Surroundings::default(), HOST)
    }
}

impl Blocks for Disk {
    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        assert!(at.is_multiple_of(u64::from(self.sector)));
        for (number, sector) in
            (at / u64::from(self.sector)..).zip(bytes.chunks(self.sector as usize))
        {
            if self.left == 0 {
                return Err(io::Error::other("power lost"));
            }
            self.left -= 1;
            self.written += 1;
            self.cached.insert(number, sector.to_vec());
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.left == 0 {
            return Err(io::Error::other("power lost"));
        }
        self.kept.append(&mut self.cached);
        Ok(())
    }
}

fn layout(sector: u32) -> Layout {
    Layout::new(Guid::random([9; 16]), SIZE, sector).unwrap()
}

/// What the next start does: claims what is blank or begun.
fn start(disk: &mut Disk) {
    let sector = disk.sector;
    match disk.verdict() {
        Verdict::Blank => claim(disk, &layout(sector), HOST).unwrap(),
        Verdict::Begun(layout) => claim(disk, &layout, HOST).unwrap(),
        Verdict::Pool { .. } => {}
        Verdict::Foreign(what) => panic!("a claim that was cut became a stranger's: {what}"),
    }
    let state = StateMark::Never;
    assert_eq!(disk.verdict(), Verdict::Pool { layout: layout(sector), state });
}

fn sectors_of_a_claim(sector: u32) -> usize {
    let mut disk = Disk::new(sector);
    claim(&mut disk, &layout(sector), HOST).unwrap();
    disk.written
}

#[test]
fn a_blank_disk_becomes_a_pool_of_this_host() {
    for sector in [512, 4096] {
        let mut disk = Disk::new(sector);
        assert_eq!(disk.verdict(), Verdict::Blank);
        start(&mut disk);
    }
}

#[test]
fn a_claim_cut_at_every_sector_is_finished_at_the_next_start() {
    for sector in [512, 4096] {
        for cut in 0..sectors_of_a_claim(sector) {
            for lucky in [false, true] {
                let mut disk = Disk::new(sector);
                disk.left = cut;
                claim(&mut disk, &layout(sector), HOST).unwrap_err();
                disk.cut(|_| lucky);
                start(&mut disk);
            }
        }
    }
}

/// The control of the tests of cuts: what they look at shows an order that is not safe.
#[test]
fn entries_that_are_written_before_the_owner_would_be_noticed() {
    let layout = layout(512);
    let mut disk = Disk::new(512);
    disk.write(layout.primary_header_at(), &layout.primary_header()).unwrap();
    disk.write(layout.primary_entries_at(), &layout.entries()).unwrap();
    disk.cut(|_| true);
    assert!(matches!(disk.verdict(), Verdict::Foreign(_)));
}

#[test]
fn a_pool_that_has_state_is_never_taken_for_a_begun_claim() {
    let layout = layout(512);
    let mut disk = Disk::new(512);
    start(&mut disk);
    disk.write(STATE_START, &[1; 512]).unwrap();
    disk.write(STATE_AT, &mark::encode(Kind::State, layout.disk, "")).unwrap();
    let pool = Verdict::Pool { layout, state: StateMark::Formatted };
    assert_eq!(disk.verdict(), pool);
    // The backup table may be lost: the kernel reads the first one.
    disk.write(layout.backup_header_at(), &[0; 512]).unwrap();
    assert_eq!(disk.verdict(), pool);
    disk.write(STATE_AT, &[5; BLOCK]).unwrap();
    assert_eq!(disk.verdict(), Verdict::Pool { layout, state: StateMark::Damaged });
}

#[test]
fn a_pool_of_another_host_is_foreign() {
    let mut disk = Disk::new(512);
    claim(&mut disk, &layout(512), "other").unwrap();
    let Verdict::Foreign(what) = disk.verdict() else { panic!("taken") };
    assert!(what.contains("\"other\""), "{what}");
}

#[test]
fn a_pool_copied_to_a_smaller_disk_is_foreign_and_to_a_larger_one_a_pool() {
    let mut disk = Disk::new(512);
    start(&mut disk);
    let mut probe = disk.probe();
    probe.size = SIZE - 512;
    assert!(matches!(verdict(&probe, &Surroundings::default(), HOST), Verdict::Foreign(_)));
    probe.size = SIZE + 512;
    probe.tail = vec![0; END];
    assert!(matches!(verdict(&probe, &Surroundings::default(), HOST), Verdict::Pool { .. }));
}

#[test]
fn a_disk_that_somebody_uses_is_never_blank() {
    let disk = Disk::new(512);
    for around in [
        Surroundings { used: Some("mounted at /".to_owned()), ..Surroundings::default() },
        Surroundings { partitions: 2, ..Surroundings::default() },
        Surroundings { unfit: Some("read-only".to_owned()), ..Surroundings::default() },
    ] {
        assert!(matches!(verdict(&disk.probe(), &around, HOST), Verdict::Foreign(_)));
    }
    let mut begun = Disk::new(512);
    begun.write(512, &layout(512).primary_header()).unwrap();
    assert!(matches!(begun.verdict(), Verdict::Begun(_)));
    let around = Surroundings { used: Some("held".to_owned()), ..Surroundings::default() };
    assert!(matches!(verdict(&begun.probe(), &around, HOST), Verdict::Foreign(_)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_of_the_cache_survives_the_claim_is_finished(
        cut in 0_usize..400, lucky in prop::collection::vec(any::<bool>(), 64),
    ) {
        let mut disk = Disk::new(512);
        disk.left = cut;
        let _ = claim(&mut disk, &layout(512), HOST);
        disk.cut(|n| lucky[n % lucky.len()]);
        start(&mut disk);
    }

    #[test]
    fn one_byte_of_a_stranger_at_an_end_keeps_us_away(
        at in 0_usize..2 * END, byte in 1_u8.., began in any::<bool>(),
    ) {
        let mut disk = Disk::new(512);
        if began {
            disk.write(512, &layout(512).primary_header()).unwrap();
        }
        let mut probe = disk.probe();
        let place = if at < END { &mut probe.head[at] } else { &mut probe.tail[at - END] };
        *place ^= byte;
        let found = verdict(&probe, &Surroundings::default(), HOST);
        prop_assert!(matches!(found, Verdict::Foreign(_)), "{:?}", found);
    }

    #[test]
    fn any_bytes_are_judged_and_never_blank_or_ours(
        head in prop::collection::vec(any::<u8>(), 0..4096), full in any::<bool>(),
        sector in any::<u32>(), size in any::<u64>(),
    ) {
        let mut head = head;
        if full {
            head.resize(END, 1);
        }
        let probe = Probe {
            size, sector, head, tail: vec![0; END], owner: vec![], state: vec![],
        };
        let found = verdict(&probe, &Surroundings::default(), HOST);
        prop_assert!(matches!(found, Verdict::Foreign(_)));
    }
}
