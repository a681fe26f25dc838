//! What a supervisor says to its own host's people over its socket, beside documents and signed records.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::id::LeaseId;
use crate::resource::{Quarantined, Resource};

/// Who holds what on a host (`GET /v1/ledger`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ledger {
    /// Leases, in the order in which they were recorded.
    pub entries: Vec<LedgerEntry>,
    /// Resources that nobody gets.
    pub quarantine: Vec<Quarantined>,
}

/// One lease of a ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerEntry {
    /// Which lease.
    pub id: LeaseId,
    /// It is being taken back.
    pub releasing: bool,
    /// What it holds, in the order in which it is sanitised.
    pub resources: Vec<LedgerResource>,
}

/// One resource of a ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerResource {
    /// Which.
    pub resource: Resource,
    /// It was sanitised and has a receipt: others may hold it.
    pub clean: bool,
}

/// Asks for a repair of the ledger (`POST /v1/ledger/repair`), or of the receipts (`POST /v1/receipts/repair`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RepairOrder {
    /// Do it; else only say what it would be.
    #[serde(default)]
    pub apply: bool,
}

/// What a repair of the ledger did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Repair {
    /// It was done; else nothing was changed.
    pub applied: bool,
    /// What is wrong with the ledger, a sentence.
    pub problem: String,
    /// Where the damaged ledger is kept; absent where nothing was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<PathBuf>,
    /// What the new one holds: every lease of it is taken back, and granted anew where it is still wanted.
    pub ledger: Ledger,
}

/// What a repair of the chain of receipts did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReceiptsRepair {
    /// It was done; else nothing was changed.
    pub applied: bool,
    /// What is wrong with the chain, a sentence.
    pub problem: String,
    /// Files of the damaged chain, the damaged ones among them.
    pub receipts: u64,
    /// The directory in which they are kept; absent where nothing was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<PathBuf>,
}

/// Asks for another erase of what is in quarantine (`POST /v1/quarantine/retry`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetryOrder {
    /// Only this; absent = all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<Resource>,
}

/// What is erased again, by the pass that comes next. What is not clean then stays in quarantine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// As it stands in quarantine.
    pub again: Vec<Quarantined>,
}
