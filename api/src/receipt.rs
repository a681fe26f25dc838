//! Receipts: a resource that a lease held was sanitised, how, and what was seen afterwards (law 3).
//!
//! Signed with the key of the host's certificate ([`crate::signed`]); each names the one before, over boots: their
//! chain is in the host's state. A host whose state was lost begins anew with receipt 1, which names none.

use serde::{Deserialize, Serialize};

use crate::id::{HostId, LeaseId};
use crate::resource::Resource;
use crate::signed::{After, Place, Record, Refusal, Signed};
use crate::time::Timestamp;

pub use crate::signed::{MakeError, sign, verify, verify_chain};

/// What a host states of one resource that it took back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Receipt {
    /// `bulkhead.io/v1`.
    pub api_version: String,
    /// Which host.
    pub host: HostId,
    /// Counts the host's boots up.
    pub boot: u64,
    /// Counts receipts of this chain up, from 1.
    pub sequence: u64,
    /// Who had it.
    pub lease: LeaseId,
    /// What was sanitised.
    pub resource: Resource,
    /// What was done, in order: `cryptoErase`, `discard`, `zeroOnFree`, ….
    pub methods: Vec<String>,
    /// What was looked at afterwards. All of it holds, or there is no receipt.
    pub evidence: Vec<Evidence>,
    /// Which weaker erase the site's policy let pass, and why the full one failed; absent for a full one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weaker: Option<String>,
    /// When it began, by the host's clock.
    pub started: Timestamp,
    /// When it was seen to be clean.
    pub finished: Timestamp,
    /// [`Signed::digest`] of the receipt before; absent for the first of a chain, and only for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
}

/// Something that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Evidence {
    /// What: `marker at byte 1048576 of pool …`, `init_on_free`.
    pub what: String,
    /// What was found there.
    pub found: String,
}

/// A receipt with its signature, as it travels and is kept.
pub type SignedReceipt = Signed<Receipt>;

impl Record for Receipt {
    const PREFIX: &'static [u8] = b"bulkhead receipt v1\0";
    const NOUN: &'static str = "receipt";

    fn host(&self) -> &HostId {
        &self.host
    }

    fn time(&self) -> Timestamp {
        self.finished
    }

    fn place(&self) -> Place {
        Place { boot: self.boot, sequence: self.sequence }
    }

    fn previous(&self) -> Option<&str> {
        self.previous.as_deref()
    }

    fn check(&self) -> Result<(), Refusal> {
        let why = match (&self.previous, self.sequence) {
            (_, 0) => "they are counted from 1".to_owned(),
            (Some(named), 1) => format!("the first of a chain names {named} as the one before"),
            (None, 2..) => "it is not the first of a chain and names none before it".to_owned(),
            _ if self.methods.is_empty() => "it names no method".to_owned(),
            _ if self.evidence.is_empty() => "it names no evidence".to_owned(),
            _ if self.started > self.finished => {
                format!("it began at {}, after its end at {}", self.started, self.finished)
            }
            _ => return Ok(()),
        };
        Err(Refusal::Contradiction { record: Self::NOUN, sequence: self.sequence, why })
    }

    fn after(&self, last: &Self) -> After {
        let later = self.boot > last.boot;
        if self.boot >= last.boot && Some(self.sequence) == last.sequence.checked_add(1) {
            return After::Next;
        }
        if later && self.sequence == 1 {
            return After::Anew;
        }
        let next = last.sequence.saturating_add(1);
        After::Misplaced(format!("receipt {next}, or the first of a new chain in a later boot"))
    }
}
