//! Leases that have the host to themselves, and hosts that come back from one.
//!
//! ```text
//!  spec: bareMetal lease ─► drained? ─► remembered ─► site asked ─► site remembers ─► reboot ─► the tenant's UKI
//!  spec: returning ───────► drained? ─► every disk erased ─► memory, instance ─► receipts ─► `sanitised`
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`model`], [`plan`] | what is known beside what is wanted, and the next step. Pure |
//! | [`erase`] | a whole disk, erased and read back |
//! | [`work`] | what takes long: erases with their receipts, the reboot |
//!
//! Nothing of this is in the ledger of leases: the tenant's time lies between two boots of ours, and what this
//! boot did ([`model::Record`], on a tmpfs) must end with it. That a host comes back it learns from the signed spec,
//! or from the site at boot: a ledger on a disk that the tenant had would prove nothing. Cut anywhere, a host
//! that reboots before the site remembered boots our image and goes on; one that reboots after boots the
//! tenant's; one that is cut while it erases erases all of it again.

pub mod erase;
pub mod model;
pub mod plan;
pub mod work;

use std::collections::BTreeSet;

use bulkhead_api::chain::Chain;
use bulkhead_api::condition;
use bulkhead_api::id::LeaseId;
use bulkhead_api::lease::ReportedLease;
use bulkhead_api::link::HandOverAnswer;
use bulkhead_api::time::Timestamp;
use jiff::SignedDuration;
use tracing::{error, info, warn};

use self::model::{Answered, Failed, Known, Record, Seen, Step, View};
use self::work::{Ended, Job};
use crate::ledger::{self, LedgerError};
use crate::paths::Paths;

/// From a question to the site to the next one without an answer, or after a refusal.
const ASK_AGAIN: SignedDuration = SignedDuration::from_secs(30);
/// From an erase that failed to the next try.
const ERASE_AGAIN: SignedDuration = SignedDuration::from_secs(60);
/// A reboot that has not happened by then is asked for again.
const REBOOT_AGAIN: SignedDuration = SignedDuration::from_secs(120);

/// What the node does next for the host as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Turn {
    /// Ask the site for the hand-over to this lease; it answers with [`Metal::answered`].
    pub ask: Option<LeaseId>,
    /// Run this beside the loop, then call [`Metal::ended`].
    pub job: Option<Job>,
    /// What is said, and what is let in.
    pub view: View,
    /// Look again at this time at the latest.
    pub retry: Option<Timestamp>,
}

/// The host as a whole: who gets it, whom it comes back from.
#[derive(Debug)]
pub struct Metal {
    paths: Paths,
    record: Result<Record, LedgerError>,
    known: Known,
    busy: bool,
    /// What was said of the lease last, for the times in its conditions.
    said: Option<ReportedLease>,
}

impl Metal {
    /// What this boot did so far.
    #[must_use]
    pub fn open(paths: Paths) -> Self {
        let record =
            ledger::load_record(&paths.run.join("metal.json")).map(Option::unwrap_or_default);
        if let Err(error) = &record {
            error!(error = %Chain(error), "what was done for the host as a whole is not known");
        }
        Self { paths, record, known: Known::default(), busy: false, said: None }
    }

    /// The site answered.
    pub fn answered(&mut self, answer: HandOverAnswer, now: Timestamp) {
        match &answer.refusal {
            None => info!(lease = %answer.lease, "site remembers the hand-over"),
            Some(why) => {
                let (reason, message) = (&why.reason, &why.message);
                warn!(lease = %answer.lease, reason, message, "site does not hand over");
            }
        }
        self.known.answer = Some(Answered { answer, at: now });
    }

    /// The stream to the site ended: a question on its way is asked again on the next one.
    pub fn unlinked(&mut self) {
        self.known.asked = None;
    }

    /// Looks, remembers what has to be remembered first, and says what to do now.
    pub fn turn(&mut self, seen: &Seen<'_>, now: Timestamp) -> Turn {
        let record = match &self.record {
            Ok(record) => record.clone(),
            Err(error) => {
                let view = plan::unknown(seen, &Chain(error).to_string());
                return Turn { view, ..Turn::default() };
            }
        };
        let mut plan = plan::plan(seen, &record, &self.known, now);
        if let Some(lease) = &mut plan.view.lease {
            let before = self.said.as_ref().filter(|said| said.id == lease.id);
            let mut conditions = before.map(|b| b.status.conditions.clone()).unwrap_or_default();
            for new in std::mem::take(&mut lease.status.conditions) {
                condition::set(&mut conditions, new);
            }
            lease.status.conditions = conditions;
        }
        self.said.clone_from(&plan.view.lease);
        let mut turn = Turn { view: plan.view, retry: plan.retry, ..Turn::default() };
        match plan.step {
            None => {}
            Some(Step::Remember(lease)) => {
                self.keep(Record { departing: Some(lease), ..record });
                turn.retry = Some(now);
            }
            Some(Step::Forget) => {
                self.known = Known::default();
                self.keep(Record::default());
                turn.retry = Some(now);
            }
            Some(Step::Ask(lease)) if !self.busy => {
                let again = now.checked_add(ASK_AGAIN).unwrap_or(Timestamp::MAX);
                self.known.asked = Some(again);
                self.known.answer = None;
                (turn.ask, turn.retry) = (Some(lease), Some(again));
            }
            Some(Step::Reboot(lease)) if !self.busy => {
                self.busy = true;
                self.known.rebooting =
                    Some(now.checked_add(REBOOT_AGAIN).unwrap_or(Timestamp::MAX));
                turn.job = Some(Job::Reboot { lease });
            }
            Some(Step::Erase { lease, disk }) if !self.busy => {
                self.busy = true;
                turn.job = Some(Job::Erase { lease, disk });
            }
            Some(Step::Rest { lease, nodes, memory }) if !self.busy => {
                self.busy = true;
                turn.job = Some(Job::Rest { lease, nodes, memory });
            }
            Some(Step::Ask(_) | Step::Reboot(_) | Step::Erase { .. } | Step::Rest { .. }) => {}
        }
        turn
    }

    /// A job of [`Turn::job`] is over.
    pub fn ended(&mut self, ended: Ended, now: Timestamp) {
        self.busy = false;
        match ended {
            Ended::Rebooting => {}
            Ended::NotRebooting(why) => {
                error!(error = why, "host does not reboot");
                self.known.rebooting = now.checked_add(ASK_AGAIN).ok();
            }
            Ended::Clean { lease, what } => {
                self.known.failed.remove(&what);
                if let Ok(record) = &self.record {
                    let mut record = record.clone();
                    if record.clean_of.as_ref() != Some(&lease) {
                        (record.clean_of, record.clean) = (Some(lease), BTreeSet::new());
                    }
                    record.clean.insert(what);
                    self.keep(record);
                }
            }
            Ended::Failed { what, why, quarantine } => {
                error!(what, error = why, "not sanitised");
                let next = now.checked_add(ERASE_AGAIN).unwrap_or(Timestamp::MAX);
                self.known.failed.insert(what, Failed { why, dirty: quarantine, next });
            }
        }
    }

    fn keep(&mut self, record: Record) {
        match ledger::store_record(&self.paths.run.join("metal.json"), &record) {
            Ok(()) => self.record = Ok(record),
            // What is not remembered is not gone on with: the next turn tries again.
            Err(error) => error!(error = %Chain(&error), "not remembered"),
        }
    }
}

#[cfg(test)]
mod tests;
