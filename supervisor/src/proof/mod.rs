//! The isolation statement: what the kernel says every lease has, whether two share any of it, signed.
//!
//! ```text
//!  cgroupfs, /proc ──observe──► Facts ──lease::prove──► Finding ──sign with the host's key──► ring in /run
//!       ▲ a finding is looked at again before it is stated                                       │
//!       └─────────────────────────────────────────────────────── socket ◄──────────────┘
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`observe`] | control groups of leases, and who is in them |
//! | [`process`] | one process: where it runs, as whom, what it sees |
//! | [`reach`], [`mounts`] | device files and file systems that a lease reaches |
//! | [`devices`], [`mapping`] | what those are, and what they lie on |
//! | [`share`] | huge pages, ways of caches |
//! | [`crowd`] | a lease that has more open than can be looked at ends |
//! | [`ring`] | the last statements, which outlive the supervisor |
//!
//! Nothing here reads the ledger or a spec but for the names of the leases that were granted and their isolation levels.

pub mod crowd;
pub mod devices;
mod gpu;
pub mod mapping;
pub mod mounts;
pub mod observe;
pub mod process;
pub mod reach;
pub mod ring;
pub mod share;
mod sys;

use std::path::Path;
use std::thread;
use std::time::Duration;

use ::ring::rand::SystemRandom;
use bulkhead_api::chain::Chain;
use bulkhead_api::inventory::Inventory;
use bulkhead_api::isolation::{Facts, Finding, Sharing};
use bulkhead_api::statement::{MakeError, SignedStatement, Statement, facts_digest, sign};
use bulkhead_api::time::Timestamp;
use bulkhead_lease::prove::prove;
use tracing::warn;

use self::observe::{Claims, Observed};
use self::ring::Ring;
use crate::paths::Paths;
use crate::receipts::shelf::ShelfError;
use crate::uplink::identity::{self, Identity};

/// Looks before a violation is stated. A container that is being started shows the host's own programs, for
/// moments, in a lease's control group.
const LOOKS: u32 = 4;
/// From one of these looks to the next.
const BETWEEN: Duration = Duration::from_millis(250);

/// Why a statement was not made or kept. What was found holds all the same.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// It could not be signed.
    #[error("make the isolation statement")]
    Make(#[from] MakeError),
    /// It could not be kept.
    #[error("keep the isolation statement")]
    Keep(#[from] ShelfError),
}

/// What is seen of the host and what follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// As observed.
    pub facts: Facts,
    /// What `prove` says of it.
    pub finding: Finding,
}

/// Looks at the host below `root`; a violation is looked at again a few times before it is believed.
///
/// Programs of leases that cannot be seen whole are ended in between: see [`crowd`].
#[must_use]
pub fn look(root: &Path, inventory: &Inventory, claims: &Claims) -> Seen {
    let once = || {
        let mappings = devices::mappings(root);
        let Observed { facts, crowded } = observe::observe(root, inventory, claims, mappings);
        let finding = prove(&facts);
        (Seen { facts, finding }, crowded)
    };
    let (mut seen, mut crowded) = once();
    for _ in 1..LOOKS {
        if seen.finding.violations.is_empty() {
            break;
        }
        crowd::end(&crowded);
        thread::sleep(BETWEEN);
        (seen, crowded) = once();
    }
    seen
}

/// When and under which spec something was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Counts the host's boots up.
    pub boot: u64,
    /// The host's clock.
    pub time: Timestamp,
    /// Generation of the spec in force.
    pub generation: u64,
}

/// Signs what was seen and keeps it as the next of the ring.
///
/// # Errors
/// [`ProofError`].
pub fn state(
    ring: &Ring,
    identity: &Identity,
    moment: Moment,
    seen: Seen,
) -> Result<SignedStatement, ProofError> {
    let last = ring.last()?.filter(|(_, last)| last.boot == moment.boot);
    let (sequence, previous) = match &last {
        Some((signed, last)) => (last.sequence.saturating_add(1), Some(signed.digest())),
        None => (1, None),
    };
    // The clock may be set back; statements are in the order in which they were made.
    let time = last.map_or(moment.time, |(_, last)| last.time.max(moment.time));
    let statement = Statement {
        api_version: bulkhead_api::document::API_VERSION.to_owned(),
        host: identity.named.host.clone(),
        boot: moment.boot,
        sequence,
        time,
        generation: moment.generation,
        facts_digest: facts_digest(&seen.facts).map_err(MakeError::Json)?,
        facts: seen.facts,
        finding: seen.finding,
        previous,
    };
    let signed = sign(&statement, &identity.key_pem, &identity.chain_pem, &SystemRandom::new())?;
    ring.keep(sequence, &signed)?;
    Ok(signed)
}

/// One round: what was found, and whether it was stated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Round {
    /// Violations of isolation.
    pub violations: Vec<Sharing>,
    /// Why no statement was signed and kept; absent where one was.
    pub unkept: Option<String>,
}

/// Looks, proves, states. A host without identity has no key to sign with yet and only looks.
#[must_use]
pub fn round(paths: &Paths, inventory: &Inventory, claims: &Claims, moment: Moment) -> Round {
    let seen = look(&paths.root, inventory, claims);
    let violations = seen.finding.violations.clone();
    let unkept = match identity::load(&paths.identity()) {
        Ok(Some(identity)) => {
            let ring = Ring::new(paths.isolation(), ring::KEPT);
            state(&ring, &identity, moment, seen).err().map(|error| Chain(&error).to_string())
        }
        Ok(None) => Some("the host has no certificate to sign with yet".to_owned()),
        Err(error) => Some(Chain(&error).to_string()),
    };
    for violation in &violations {
        warn!(class = ?violation.class, violation = violation.message, "not isolated");
    }
    Round { violations, unkept }
}

/// Violations in one sentence: the first few, and how many more there are.
#[must_use]
pub fn sentence(violations: &[Sharing]) -> String {
    const SHOWN: usize = 3;
    let shown = violations.iter().take(SHOWN).map(|violation| violation.message.as_str());
    let mut sentence = shown.collect::<Vec<_>>().join("; ");
    if violations.len() > SHOWN {
        sentence = format!("{sentence}; and {} more", violations.len() - SHOWN);
    }
    sentence
}

#[cfg(test)]
mod device_tests;
#[cfg(test)]
mod tests;
