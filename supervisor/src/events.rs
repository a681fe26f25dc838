//! What happened on this host lately: a bounded ring that people and programs read and watch.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bulkhead_api::condition::{self, Condition, Truth};
use bulkhead_api::id::LeaseId;
use bulkhead_api::lease::ReportedLease;
use bulkhead_api::resource::Quarantined;
use bulkhead_api::status::HostStatus;
use bulkhead_api::time::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// How many are kept on a host.
pub const KEPT: usize = 512;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Counts from 1 since the supervisor started; a gap means that older ones were dropped.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// One word: `Condition`, `Spec`, `Phase`, `Gone`, `Change`, `Drift`, `Quarantine`.
    pub what: String,
    /// `host`, or `lease acme/a`.
    pub object: String,
    /// A sentence for people.
    pub detail: String,
}

/// What happened, not yet numbered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// As [`Event::what`].
    pub what: &'static str,
    /// As [`Event::object`].
    pub object: String,
    /// As [`Event::detail`].
    pub detail: String,
}

#[derive(Debug)]
struct Ring {
    next: u64,
    kept: VecDeque<Event>,
}

#[derive(Debug)]
struct Shared {
    most: usize,
    ring: Mutex<Ring>,
    newest: watch::Sender<u64>,
}

/// The ring. Clones share it.
#[derive(Debug, Clone)]
pub struct Events(Arc<Shared>);

impl Events {
    /// An empty ring that keeps the latest `most` events.
    #[must_use]
    pub fn new(most: usize) -> Self {
        let ring = Mutex::new(Ring { next: 1, kept: VecDeque::new() });
        Self(Arc::new(Shared { most, ring, newest: watch::Sender::new(0) }))
    }

    /// Puts one in, in place of the oldest where the ring is full.
    pub fn push(&self, at: Timestamp, news: News) {
        let News { what, object, detail } = news;
        // A panic elsewhere leaves the ring whole: every change of it is one push.
        let mut ring = self.0.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let seq = ring.next;
        ring.next = seq.saturating_add(1);
        if ring.kept.len() >= self.0.most {
            ring.kept.pop_front();
        }
        ring.kept.push_back(Event { seq, at, what: what.to_owned(), object, detail });
        drop(ring);
        self.0.newest.send_replace(seq);
    }

    /// Those after `seq` that are still kept, oldest first; 0 = all.
    #[must_use]
    pub fn after(&self, seq: u64) -> Vec<Event> {
        let ring = self.0.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.kept.iter().filter(|event| event.seq > seq).cloned().collect()
    }

    /// Number of the newest event, with a way to wait for the next.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.0.newest.subscribe()
    }
}

/// What changed from one report to the next.
#[must_use]
pub fn between(before: &HostStatus, after: &HostStatus) -> Vec<News> {
    let mut news = Vec::new();
    if before.accepted_generation != after.accepted_generation {
        let detail = format!("generation {} accepted", after.accepted_generation);
        news.push(News { what: "Spec", object: "host".to_owned(), detail });
    }
    for new in &after.conditions {
        let old = condition::find(&before.conditions, &new.kind);
        if old.is_none_or(|old| (old.status, &old.reason) != (new.status, &new.reason)) {
            news.push(News { what: "Condition", object: "host".to_owned(), detail: said(new) });
        }
    }
    for new in &after.leases {
        let old = find(&before.leases, new).map(|lease| lease.status.phase);
        let phase = new.status.phase;
        if old != Some(phase) {
            let reasons: Vec<String> = new
                .status
                .conditions
                .iter()
                .filter(|condition| condition.status != Truth::True)
                .map(said)
                .collect();
            let detail = [vec![format!("{phase:?}")], reasons].concat().join("; ");
            news.push(News { what: "Phase", object: format!("lease {}", new.id), detail });
        }
    }
    for old in before.leases.iter().filter(|old| find(&after.leases, old).is_none()) {
        let detail = "observed gone".to_owned();
        news.push(News { what: "Gone", object: format!("lease {}", old.id), detail });
    }
    for kept in after.quarantine.iter().filter(|kept| !before.quarantine.contains(kept)) {
        let detail = format!("{} is kept: {}", kept.resource, kept.reason);
        news.push(News { what: "Quarantine", object: format!("lease {}", kept.lease), detail });
    }
    for kept in &before.quarantine {
        let same = |now: &Quarantined| (&now.lease, &now.resource) == (&kept.lease, &kept.resource);
        if !after.quarantine.iter().any(same) {
            let detail = format!("{} is clean and free again", kept.resource);
            news.push(News { what: "Quarantine", object: format!("lease {}", kept.lease), detail });
        }
    }
    news
}

/// Limits or resources of a lease were found otherwise than they were set, and were set again.
///
/// `found` says what was there and what was set in its place, a sentence part each: `memory.max is max, wanted
/// 64Mi`. `right` is the look that last saw all of it as it should be, so that whoever did it did so between
/// then and the event; absent where this supervisor never saw it so.
#[must_use]
pub fn drift(lease: &LeaseId, found: &[String], right: Option<Timestamp>) -> News {
    let since = match right {
        Some(right) => format!("it was right at {right:.0}"),
        None => "it was never right since the supervisor started".to_owned(),
    };
    let detail = format!("{}: set again; {since}", found.join(", "));
    News { what: "Drift", object: format!("lease {lease}"), detail }
}

fn find<'a>(leases: &'a [ReportedLease], like: &ReportedLease) -> Option<&'a ReportedLease> {
    leases.iter().find(|lease| lease.id == like.id)
}

fn said(condition: &Condition) -> String {
    let Condition { kind, status, reason, message, .. } = condition;
    let separator = if message.is_empty() { "" } else { ": " };
    format!("{kind} {status:?} {reason}{separator}{message}")
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
