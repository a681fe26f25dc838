//! What is known of the host as a whole, and the steps with it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_api::id::LeaseId;
use bulkhead_api::inventory::{Disk, Inventory};
use bulkhead_api::lease::ReportedLease;
use bulkhead_api::link::HandOverAnswer;
use bulkhead_api::spec::HostSpec;
use bulkhead_api::time::Timestamp;
use bulkhead_api::units::Bytes;
use serde::{Deserialize, Serialize};

use crate::ledger;

/// What this boot did for the host as a whole; it must not outlive the boot, and lies where nothing does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    /// The lease that the host was being handed over to in this boot: its tenant cannot have run before the next one.
    pub departing: Option<LeaseId>,
    /// The lease that `clean` is about.
    pub clean_of: Option<LeaseId>,
    /// What has a receipt: names of disks ([`disk_name`]), and [`REST`].
    pub clean: BTreeSet<String>,
}

impl ledger::Record for Record {
    const FORMAT: &'static str = "bulkhead-metal";
    const VERSION: u32 = 1;
}

/// Name of memory and instance in [`Record::clean`]: no disk is called so.
pub const REST: &str = "memory and instance";

/// What tells disks of a host apart over boots: the serial number, or the kernel's name where it has none.
#[must_use]
pub fn disk_name(disk: &Disk) -> &str {
    if disk.serial.is_empty() { &disk.name } else { &disk.serial }
}

/// What was seen.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The spec in force.
    pub spec: Option<&'a HostSpec>,
    /// The lease that the site said at boot that the host comes back from.
    pub told: Option<&'a LeaseId>,
    /// Other leases that the ledger has or that are there; absent until they were looked at for this spec.
    pub held: Option<&'a BTreeSet<LeaseId>>,
    /// What nobody gets, a word each.
    pub quarantined: &'a [String],
    /// The hardware; absent until it was read.
    pub inventory: Option<&'a Inventory>,
    /// The stream to the site is open.
    pub linked: bool,
}

/// What is known since the supervisor started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// The site was asked; it is asked again then.
    pub asked: Option<Timestamp>,
    /// Its last answer.
    pub answer: Option<Answered>,
    /// The reboot was asked for; it is again then.
    pub rebooting: Option<Timestamp>,
    /// What could not be sanitised, by name.
    pub failed: BTreeMap<String, Failed>,
}

/// An answer of the site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// What it said.
    pub answer: HandOverAnswer,
    /// When.
    pub at: Timestamp,
}

/// A sanitising that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// A sentence part with its causes.
    pub why: String,
    /// It was erased and is not clean.
    pub dirty: bool,
    /// Tried again then.
    pub next: Timestamp,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Write down that the host goes to this lease, before anybody is asked. Again: the same.
    Remember(LeaseId),
    /// Write down that it goes to none. Again: the same.
    Forget,
    /// Ask the site for the hand-over. Again: the site says the same.
    Ask(LeaseId),
    /// Reboot. The site remembers; from here on it says what is booted.
    Reboot(LeaseId),
    /// Erase a disk whole and keep the receipt. Again: erased again.
    Erase {
        /// Who had it.
        lease: LeaseId,
        /// Which.
        disk: Disk,
    },
    /// See that memory and whatever ran are gone, and keep the receipts.
    Rest {
        /// Who had it.
        lease: LeaseId,
        /// All memory nodes.
        nodes: BTreeSet<u32>,
        /// All memory.
        memory: Bytes,
    },
}

/// Why the host is not ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotReady {
    /// One word.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
    /// Who has to act next.
    pub owner: &'static str,
    /// When it is tried again.
    pub next: Option<Timestamp>,
}

/// What is said, and what is let in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Why no other lease is granted.
    pub bars: Option<String>,
    /// Why the host is not ready.
    pub not_ready: Option<NotReady>,
    /// The `bareMetal` lease.
    pub lease: Option<ReportedLease>,
    /// [`bulkhead_api::status::HostStatus::sanitised`].
    pub sanitised: Option<LeaseId>,
}

/// The next step, and what is said meanwhile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// What to do now.
    pub step: Option<Step>,
    /// What is said.
    pub view: View,
    /// Look again then at the latest.
    pub retry: Option<Timestamp>,
}
