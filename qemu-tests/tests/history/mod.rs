//! Who held what, as the host's ledger said from time to time, beside the receipts that came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use bulkhead_api::id::LeaseId;
use bulkhead_api::local::{Ledger, LedgerEntry};
use bulkhead_api::receipt::{Receipt, SignedReceipt};
use bulkhead_api::resource::Resource;
use bulkhead_api::statement::{SignedStatement, Statement};
use bulkhead_qemu_tests::guest::Guest;

/// A time of holding.
#[derive(Debug, Clone)]
struct Held {
    lease: LeaseId,
    /// Each with the last sample that shows it as not sanitised.
    resources: BTreeMap<Resource, SystemTime>,
    first: SystemTime,
}

/// What samples showed.
#[derive(Debug, Default)]
pub(crate) struct History {
    held: Vec<Held>,
    now: BTreeMap<LeaseId, usize>,
    samples: usize,
    unanswered: usize,
    /// Boot and number of every statement that was seen.
    statements: BTreeSet<(u64, u64)>,
    violations: Vec<String>,
}

/// Two that nobody may hold at once.
fn meet(one: &Resource, other: &Resource) -> bool {
    match (one, other) {
        (Resource::Cpu { cpus: a }, Resource::Cpu { cpus: b }) => !a.is_disjoint(b),
        (
            Resource::Volume { pool: a, extents: of_a, .. },
            Resource::Volume { pool: b, extents: of_b, .. },
        ) => a == b && of_a.iter().any(|one| of_b.iter().any(|other| one.meets(*other))),
        _ => false,
    }
}

impl History {
    /// Asks the host for its ledger and its latest statements. A supervisor that was just killed does not answer.
    pub(crate) fn sample(&mut self, guest: &mut Guest) -> Result<()> {
        let answer = guest.ask("date +%s; bulkhead host ledger -o json")?;
        let (time, text) = answer.text.split_once('\n').unwrap_or_default();
        match serde_json::from_str::<Ledger>(text) {
            Ok(ledger) if answer.status == 0 => {
                let time = SystemTime::UNIX_EPOCH + Duration::from_secs(time.trim().parse()?);
                self.add(time, &ledger)?;
                self.samples += 1;
            }
            _ => self.unanswered += 1,
        }
        let answer = guest.ask("bulkhead host prove -o json")?;
        if let Ok(signed) = serde_json::from_str::<SignedStatement>(&answer.text) {
            self.state(&signed)?;
        }
        Ok(())
    }

    fn state(&mut self, signed: &SignedStatement) -> Result<()> {
        let statement: Statement = signed.unchecked()?;
        for sharing in &statement.finding.violations {
            self.violations
                .push(format!("{}/{}: {}", statement.boot, statement.sequence, sharing.message));
        }
        self.statements.insert((statement.boot, statement.sequence));
        Ok(())
    }

    fn add(&mut self, time: SystemTime, ledger: &Ledger) -> Result<()> {
        let dirty = |entry: &LedgerEntry| -> BTreeSet<Resource> {
            let left = entry.resources.iter().filter(|resource| !resource.clean);
            left.map(|resource| resource.resource.clone()).collect()
        };
        for (at, one) in ledger.entries.iter().enumerate() {
            for other in ledger.entries.iter().skip(at + 1) {
                let both = dirty(one);
                let shared = both.iter().find(|a| dirty(other).iter().any(|b| meet(a, b)));
                ensure!(shared.is_none(), "{} and {} hold {shared:?} at once", one.id, other.id);
            }
        }
        let mut now = BTreeMap::new();
        for entry in &ledger.entries {
            let resources: BTreeMap<Resource, SystemTime> =
                entry.resources.iter().map(|held| (held.resource.clone(), time)).collect();
            // The same lease with other resources is another time of holding.
            let same = self.now.get(&entry.id).copied().filter(|at| {
                self.held.get(*at).is_some_and(|held| held.resources.keys().eq(resources.keys()))
            });
            let at = same.unwrap_or_else(|| {
                let lease = entry.id.clone();
                self.held.push(Held { lease, resources, first: time });
                self.held.len() - 1
            });
            if let Some(held) = self.held.get_mut(at) {
                held.resources.extend(dirty(entry).into_iter().map(|resource| (resource, time)));
            }
            now.insert(entry.id.clone(), at);
        }
        self.now = now;
        Ok(())
    }

    /// Times of holding.
    pub(crate) fn grants(&self) -> usize {
        self.held.len()
    }

    /// Nobody was seen to hold anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Names of the leases in the last ledger.
    pub(crate) fn held_now(&self) -> Vec<String> {
        self.now.keys().map(|id| id.name.to_string()).collect()
    }

    /// Everything that was held and is no more has a receipt, and where two held the same, one lies between them (law 3).
    pub(crate) fn check(&self, receipts: &str) -> Result<()> {
        let signed: Vec<SignedReceipt> =
            serde_json::from_str(receipts).context("read the receipts")?;
        let receipts: Vec<Receipt> =
            signed.iter().map(SignedReceipt::unchecked).collect::<Result<_, _>>()?;
        let current: BTreeSet<usize> = self.now.values().copied().collect();
        // The host's clock in whole seconds, and what a sample takes.
        let slack = Duration::from_secs(3);
        let made = |held: &Held, resource: &Resource, last, until: Option<SystemTime>| {
            receipts.iter().any(|receipt| {
                let finished = SystemTime::from(receipt.finished);
                receipt.lease == held.lease
                    && receipt.resource == *resource
                    && finished + slack >= last
                    && until.is_none_or(|until| finished <= until + slack)
            })
        };
        let mut between = 0;
        for (at, held) in self.held.iter().enumerate().filter(|(at, _)| !current.contains(at)) {
            for (resource, &last) in &held.resources {
                ensure!(
                    made(held, resource, last, None),
                    "{} held {resource} and no receipt says that it was sanitised",
                    held.lease
                );
                let next = self.held.iter().skip(at + 1).find(|later| {
                    later.first >= last && later.resources.keys().any(|r| meet(r, resource))
                });
                if let Some(next) = next {
                    between += 1;
                    ensure!(
                        made(held, resource, last, Some(next.first)),
                        "{resource} went from {} to {} without a receipt in between",
                        held.lease,
                        next.lease
                    );
                }
            }
        }
        println!(
            "{} receipts; {between} resources that went from one lease to another",
            receipts.len()
        );
        ensure!(between > 0, "nothing went from one lease to another: the churn proves nothing");
        Ok(())
    }

    /// No statement says that leases share anything: those that were sampled, and all that the host keeps.
    pub(crate) fn no_violation(&mut self, guest: &mut Guest) -> Result<()> {
        let text = guest.run("bulkhead host prove --chain")?;
        let kept: Vec<SignedStatement> =
            serde_json::from_str(&text).context("read the statements")?;
        kept.iter().try_for_each(|signed| self.state(signed))?;
        ensure!(self.violations.is_empty(), "violations: {:#?}", self.violations);
        println!("{} statements, none with a violation", self.statements.len());
        Ok(())
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} times of holding seen in {} samples ({} unanswered), {} statements",
            self.held.len(),
            self.samples,
            self.unanswered,
            self.statements.len()
        )
    }
}
