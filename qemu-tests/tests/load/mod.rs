//! Documents at random: leases of several sizes, with and without a volume, applied and deleted.

use std::fmt;
use std::time::SystemTime;

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

    fn pick(&mut self) -> &'static str {
        let at = self.random(NAMES.len() as u64);
        NAMES.iter().zip(0..).find(|(_, place)| *place == at).map_or("churn-a", |(name, _)| name)
    }

    /// One order. A refusal is an answer like any other: the host is full, the lease is still being taken back.
    pub(crate) fn step(&mut self, scene: &Scene<'_>) -> Result<()> {
        let name = self.pick();
        if self.random(2) == 0 {
            let mut document =
                lease(name, 1, ["64Mi", "96Mi", "160Mi"][usize::try_from(self.random(3))?]);
            if self.random(2) == 0 {
                document["spec"]["volumes"] = json!([{ "name": "data", "size": "32Mi" }]);
            }
            match scene.running.apply(&document) {
                Ok(_) => self.applied += 1,
                Err(_full) => self.refused += 1,
            }
        } else {
            match scene.running.bulkhead(["delete", "lease", &format!("demo/{name}")]) {
                Ok(_) => self.deleted += 1,
                Err(_absent) => self.refused += 1,
            }
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
