//! Finds a pool's disk without waiting for any other.
//!
//! ```text
//!  sysfs ─► disks ─► one that was read before, the same since ─► its pool
//!                └─► others, each read by a thread of its own ─► waited for a moment ─► known, or left alone
//! ```
//!
//! A disk that does not answer is asked once, waited for once, and costs nobody anything from then on. What a disk is
//! changes when it is taken out and another one put in, which its sequence number shows (`diskseq`; Linux,
//! Documentation/ABI/testing/sysfs-block): until then a pool is not read again, so that looking at a volume that is in use
//! reads no disk at all.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bulkhead_api::chain::Chain;

use super::claim::check::{StateMark, Verdict};
use super::claim::{Look, Pool};
use super::disk::{self, BlockDisk, DeviceNumber};
use super::gpt::{Layout, POOL_START};

/// A disk answers within this time, or is left alone until it does.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a disk is read. Tests have disks that never answer.
type Read = fn(&Path, &BlockDisk) -> io::Result<Verdict>;

/// What shows that a disk is still the same.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Same {
    number: DeviceNumber,
    size: u64,
    sequence: Option<String>,
}

#[derive(Debug)]
enum Known {
    Pool(Box<(Layout, StateMark)>),
    /// It is being read since.
    Asked(Instant, Receiver<io::Result<Verdict>>),
}

/// The pools of a host as they are found.
#[derive(Debug)]
pub struct Pools {
    root: PathBuf,
    read: Read,
    patience: Duration,
    known: Mutex<BTreeMap<String, (Same, Known)>>,
}

impl Pools {
    /// Those of the machine below a root; none is known yet.
    #[must_use]
    pub const fn new(root: PathBuf) -> Self {
        Self { root, read, patience: PATIENCE, known: Mutex::new(BTreeMap::new()) }
    }

    /// The pool with an id.
    ///
    /// # Errors
    /// No disk that answers is that pool: a sentence with what keeps the others from being looked at.
    pub fn find(&self, id: &str) -> Result<Pool, String> {
        let wanted = |pool: &Pool| pool.id() == id;
        let (pool, failed) = self.search(|_| true, wanted)?;
        pool.ok_or_else(|| {
            let others = if failed.is_empty() { String::new() } else { "; ".to_owned() };
            format!("no disk is that pool{others}{}", failed.join("; "))
        })
    }

    /// The same, from its disk as it is now.
    ///
    /// # Errors
    /// As [`Pools::find`]; and the disk's own. A disk that does not answer holds up the caller.
    pub fn find_again(&self, id: &str) -> Result<Pool, String> {
        let pool = self.find(id)?;
        let verdict = (self.read)(&self.root, &pool.disk);
        match verdict.map_err(|error| format!("read {}: {error}", pool.disk.node.display()))? {
            Verdict::Pool { layout, state } if layout.disk.to_string() == id => {
                Ok(Pool { layout, state, ..pool })
            }
            Verdict::Pool { .. } | Verdict::Blank | Verdict::Begun(_) | Verdict::Foreign(_) => {
                self.known().remove(&pool.disk.name);
                Err(format!("{} is that pool no more", pool.disk.node.display()))
            }
        }
    }

    /// The pool whose volumes are on a device; `None` where it is no pool's, or its disk does not answer.
    ///
    /// # Errors
    /// The machine's disks cannot be listed.
    pub fn of(&self, volumes: DeviceNumber) -> Result<Option<Pool>, String> {
        let has = |disk: &BlockDisk| {
            disk.partition(POOL_START).is_some_and(|partition| partition.number == volumes)
        };
        Ok(self.search(has, |pool| has(&pool.disk))?.0)
    }

    /// The first pool that is wanted among disks that may be it, and why others could not be looked at.
    fn search(
        &self,
        maybe: impl Fn(&BlockDisk) -> bool,
        wanted: impl Fn(&Pool) -> bool,
    ) -> Result<(Option<Pool>, Vec<String>), String> {
        let disks = disk::all(&self.root)
            .map_err(|error| format!("list {}: {error}", self.root.join("sys/block").display()))?;
        let mut known = self.known();
        known.retain(|name, (same, _)| {
            disks.iter().any(|disk| disk.name == *name && self.same(disk) == *same)
        });
        let disks: Vec<BlockDisk> = disks.into_iter().filter(maybe).collect();
        for disk in &disks {
            if let Some((_, Known::Pool(pool))) = known.get(&disk.name) {
                let pool = Pool { disk: disk.clone(), layout: pool.0, state: pool.1 };
                if wanted(&pool) {
                    return Ok((Some(pool), Vec::new()));
                }
            }
        }
        let mut failed = Vec::new();
        for disk in &disks {
            if !known.contains_key(&disk.name) {
                match self.ask(disk) {
                    Ok(asked) => drop(known.insert(disk.name.clone(), (self.same(disk), asked))),
                    Err(error) => failed.push(format!("read {}: {error}", disk.name)),
                }
            }
        }
        for disk in disks {
            let Some((_, Known::Asked(since, answer))) = known.get(&disk.name) else { continue };
            match answer.recv_timeout(self.patience.saturating_sub(since.elapsed())) {
                Ok(Ok(Verdict::Pool { layout, state })) => {
                    if let Some((_, asked)) = known.get_mut(&disk.name) {
                        *asked = Known::Pool(Box::new((layout, state)));
                    }
                    let pool = Pool { disk, layout, state };
                    if wanted(&pool) {
                        return Ok((Some(pool), Vec::new()));
                    }
                }
                Err(RecvTimeoutError::Timeout) => failed.push(format!(
                    "disk {} does not answer for {} s",
                    disk.name,
                    since.elapsed().as_secs()
                )),
                // It is asked again by the next who looks: it may be claimed by then.
                answer => {
                    known.remove(&disk.name);
                    match answer {
                        Ok(Ok(_)) => {}
                        Ok(Err(error)) => failed.push(format!("read {}: {error}", disk.name)),
                        Err(error) => failed.push(format!("read {}: {}", disk.name, Chain(&error))),
                    }
                }
            }
        }
        Ok((None, failed))
    }

    fn ask(&self, disk: &BlockDisk) -> io::Result<Known> {
        let (sender, receiver) = sync_channel(1);
        let (root, disk, read) = (self.root.clone(), disk.clone(), self.read);
        let name = format!("read-{}", disk.name);
        thread::Builder::new().name(name).spawn(move || {
            // Who asked may be gone.
            let _ = sender.send(read(&root, &disk));
        })?;
        Ok(Known::Asked(Instant::now(), receiver))
    }

    fn same(&self, disk: &BlockDisk) -> Same {
        let path = self.root.join("sys/block").join(&disk.name).join("diskseq");
        let sequence = fs::read_to_string(path).ok();
        Same { number: disk.number, size: disk.size, sequence }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, (Same, Known)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(root: &Path, disk: &BlockDisk) -> io::Result<Verdict> {
    Look::new(root).map_err(io::Error::other)?.at(disk)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::storage::gpt::Guid;

    static READS: AtomicUsize = AtomicUsize::new(0);

    /// `vdh` never answers; the others are pools named after their size in GiB.
    fn fake(_: &Path, disk: &BlockDisk) -> io::Result<Verdict> {
        READS.fetch_add(1, Ordering::SeqCst);
        if disk.name == "vdh" {
            loop {
                thread::park();
            }
        }
        let id = u8::try_from(disk.size >> 30).unwrap();
        let layout = Layout::new(Guid::random([id; 16]), disk.size, 512).unwrap();
        Ok(Verdict::Pool { layout, state: StateMark::Never })
    }

    fn id(number: u8) -> String {
        Guid::random([number; 16]).to_string()
    }

    fn disk(root: &Path, name: &str, minor: u32, gib: u64, sequence: u32) {
        let dir = root.join("sys/block").join(name);
        let files = [
            ("device/model".to_owned(), "x".to_owned()),
            ("dev".to_owned(), format!("254:{minor}")),
            ("size".to_owned(), (gib << 21).to_string()),
            ("queue/logical_block_size".to_owned(), "512".to_owned()),
            ("diskseq".to_owned(), sequence.to_string()),
            (format!("{name}2/partition"), "2".to_owned()),
            (format!("{name}2/dev"), format!("254:{}", minor + 2)),
            (format!("{name}2/start"), (POOL_START / 512).to_string()),
            (format!("{name}2/size"), "2048".to_owned()),
        ];
        for (file, text) in files {
            let path = dir.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    /// One test, for the count of reads is one.
    #[test]
    fn a_pools_own_disk_is_read_once_until_it_is_another_and_one_that_hangs_is_waited_for_once() {
        let root = tempfile::tempdir().unwrap();
        disk(root.path(), "vda", 0, 1, 1);
        disk(root.path(), "vdh", 16, 2, 2);
        let patience = Duration::from_millis(300);
        let pools = Pools { read: fake, patience, ..Pools::new(root.path().to_owned()) };
        let reads = || READS.swap(0, Ordering::SeqCst);
        let why = pools.find(&id(7)).unwrap_err();
        assert!(why.starts_with("no disk is that pool; disk vdh does not answer"), "{why}");
        assert_eq!(reads(), 2);
        for _ in 0..3 {
            assert_eq!(pools.find(&id(1)).unwrap().disk.name, "vda");
            let number = DeviceNumber { major: 254, minor: 2 };
            assert_eq!(pools.of(number).unwrap().unwrap().id(), id(1));
        }
        assert_eq!(reads(), 0, "nothing is read again");
        let begun = Instant::now();
        for _ in 0..50 {
            pools.find(&id(7)).unwrap_err();
            let hangs = DeviceNumber { major: 254, minor: 18 };
            assert_eq!(pools.of(hangs).unwrap(), None);
        }
        assert!(begun.elapsed() < patience * 50, "{:?}", begun.elapsed());
        assert_eq!(reads(), 0, "what hangs is not asked again");
        assert_eq!(pools.find_again(&id(1)).unwrap().id(), id(1));
        assert_eq!(reads(), 1);
        disk(root.path(), "vda", 0, 3, 3);
        assert_eq!(pools.find(&id(3)).unwrap().disk.name, "vda");
        pools.find(&id(1)).unwrap_err();
        let blank = DeviceNumber { major: 8, minor: 1 };
        assert_eq!(pools.of(blank).unwrap(), None);
    }

    #[test]
    fn a_machine_without_disks_has_no_pool() {
        let root = tempfile::tempdir().unwrap();
        let why = Pools::new(root.path().to_owned()).find("p").unwrap_err();
        assert_eq!(why, "no disk is that pool");
    }
}
