//! Documents at random: leases of several sizes, with and without a volume, applied and deleted.

use std::fmt;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use bulkhead_api::document::Lease;
use bulkhead_qemu_tests::fixture::{Scene, lease};
use serde_json::json;

/// Names that the churn uses.
const NAMES: [&str; 4] = ["churn-a", "churn-b", "churn-c", "churn-d"];

/// Of `BULKHEAD_SEED`, or of the clock.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("BULKHEAD_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        now.as_secs()
    })
}

/// Whether a lease is one of the churn.
pub(crate) fn ours(lease: &Lease) -> bool {
    NAMES.contains(&lease.metadata.name.as_str())
}

/// The random orders, and how many of them were taken.
#[derive(Debug)]
pub(crate) struct Load {
    state: u64,
    applied: usize,
    deleted: usize,
    refused: usize,
}

impl Load {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed | 1, applied: 0, deleted: 0, refused: 0 }
    }

    /// Below `bound`: xorshift64 (Marsaglia, "Xorshift RNGs", 2003), its upper half.
    pub(crate) fn random(&mut self, bound: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 32) % bound
    }

    /// A time below `most`.
    pub(crate) fn within(&mut self, most: Duration) -> Duration {
        let millis = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.random(millis.max(1)))
    }

    fn pick(&mut self) -> &'static str {
        let at = self.random(NAMES.len() as u64);
        NAMES.iter().zip(0..).find(|(_, place)| *place == at).map_or("churn-a", |(name, _)| name)
    }

    /// One order, if the lease that fell to it can have one: an absent one is applied, one that is there is deleted once in four
    /// times, and one that is still being taken back is left to that. A refusal is an answer like any other: the host is full.
    pub(crate) fn step(&mut self, scene: &Scene<'_>) -> Result<()> {
        let name = self.pick();
        let leases = scene.running.leases()?;
        let there = leases.iter().find(|lease| lease.metadata.name.as_str() == name);
        match there.map(|lease| lease.metadata.deletion_timestamp.is_some()) {
            None => self.apply(scene, name),
            Some(false) if self.random(4) == 0 => {
                scene.running.bulkhead(["delete", "lease", &format!("demo/{name}")])?;
                self.deleted += 1;
                Ok(())
            }
            Some(_) => Ok(()),
        }
    }

    fn apply(&mut self, scene: &Scene<'_>, name: &str) -> Result<()> {
        let memory = ["64Mi", "96Mi", "160Mi"][usize::try_from(self.random(3))?];
        let mut document = lease(name, 1, memory);
        if self.random(2) == 0 {
            document["spec"]["volumes"] = json!([{ "name": "data", "size": "32Mi" }]);
        }
        match scene.running.apply(&document) {
            Ok(_) => self.applied += 1,
            Err(_full) => self.refused += 1,
        }
        Ok(())
    }

    /// Deletes every lease of the churn that there is.
    pub(crate) fn delete_all(&self, scene: &Scene<'_>) -> Result<()> {
        for lease in scene.running.leases()?.iter().filter(|lease| ours(lease)) {
            scene.running.bulkhead([
                "delete",
                "lease",
                &format!("demo/{}", lease.metadata.name),
            ])?;
        }
        Ok(())
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} applied, {} deleted, {} refused", self.applied, self.deleted, self.refused)
    }
}
