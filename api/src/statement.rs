//! Isolation statements: what `prove` found on observed facts, signed by the host ([`crate::signed`]), each
//! naming the one before. Their chain lasts as long as a boot.

use serde::{Deserialize, Serialize};

use crate::id::HostId;
use crate::isolation::{Facts, Finding};
use crate::signed::{After, Place, Record, Refusal, Signed, sha256};
use crate::time::Timestamp;

pub use crate::signed::{MakeError, sign, verify, verify_chain};

/// What a host states of its isolation at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Statement {
    /// `bulkhead.io/v1`.
    pub api_version: String,
    /// Which host.
    pub host: HostId,
    /// Counts the host's boots up.
    pub boot: u64,
    /// Counts statements within a boot up, from 1.
    pub sequence: u64,
    /// When the facts were observed, by the host's clock.
    pub time: Timestamp,
    /// Generation of the spec in force; 0 = none.
    pub generation: u64,
    /// SHA-256 of the JSON of `facts`, hexadecimal.
    pub facts_digest: String,
    /// What was observed.
    pub facts: Facts,
    /// What follows from it.
    pub finding: Finding,
    /// [`Signed::digest`] of the statement before; absent for the first of a boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
}

/// A statement with its signature, as it travels and is kept.
pub type SignedStatement = Signed<Statement>;

/// SHA-256 of the JSON of facts. Maps and sets are ordered, so that equal facts have equal JSON.
///
/// # Errors
/// The facts cannot be written as JSON.
pub fn facts_digest(facts: &Facts) -> Result<String, serde_json::Error> {
    Ok(sha256(&serde_json::to_vec(facts)?))
}

impl Record for Statement {
    const PREFIX: &'static [u8] = b"bulkhead isolation statement v1\0";
    const NOUN: &'static str = "statement";

    fn host(&self) -> &HostId {
        &self.host
    }

    fn time(&self) -> Timestamp {
        self.time
    }

    fn place(&self) -> Place {
        Place { boot: self.boot, sequence: self.sequence }
    }

    fn previous(&self) -> Option<&str> {
        self.previous.as_deref()
    }

    fn check(&self) -> Result<(), Refusal> {
        let (record, sequence) = (Self::NOUN, self.sequence);
        let found = facts_digest(&self.facts)
            .map_err(|error| Refusal::Body { record, why: error.to_string() })?;
        if found == self.facts_digest {
            return Ok(());
        }
        let why =
            format!("digest of the facts is {}, the facts in it have {found}", self.facts_digest);
        Err(Refusal::Contradiction { record, sequence, why })
    }

    fn after(&self, last: &Self) -> After {
        if self.boot == last.boot && Some(self.sequence) == last.sequence.checked_add(1) {
            return After::Next;
        }
        if self.boot > last.boot && self.sequence == 1 {
            return After::Anew;
        }
        let next = last.sequence.saturating_add(1);
        After::Misplaced(format!(
            "statement {next} of boot {}, or the first of a later boot",
            last.boot
        ))
    }
}
