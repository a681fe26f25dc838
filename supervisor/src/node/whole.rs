//! The loop's part for the host as a whole ([`crate::metal`]): what it has seen, and what it has run.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bulkhead_api::chain::Chain;
use bulkhead_api::id::LeaseId;
use bulkhead_api::time::Timestamp;
use tracing::warn;

use super::Node;
use super::acceptance::Accepted;
use super::job::Done;
use super::state::{Domain, Link};
use crate::metal::model::{Seen, disk_name};
use crate::metal::work::{self, Job, Means};
use crate::metal::{Metal, Turn};
use crate::paths::Paths;
use crate::receipts::Receipts;
use crate::tenant::{Pass, Tenants, model};
use crate::uplink::enrol::boot_facts;

/// Disks are all there when none came or went for so long: drivers may still be loading.
const DISKS_SETTLE: Duration = Duration::from_secs(15);

/// What the loop keeps for it.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) metal: Metal,
    /// The lease that the site said at boot that the host comes back from.
    told: Option<LeaseId>,
    /// Leases that were there after the last pass, and the generation that it was for.
    held: Option<(u64, BTreeSet<LeaseId>)>,
    /// Names of the disks, and since when they are these.
    disks: Option<(Vec<String>, Instant)>,
    /// The chain of receipts; absent until the tenants' domain is open.
    pub(super) receipts: Option<Arc<Receipts>>,
    /// The loop turns at the latest then.
    pub(super) due: Option<Instant>,
}

impl Whole {
    pub(super) fn open(paths: &Paths) -> Self {
        // Their absence is said by the uplink, which cannot do without.
        let told = boot_facts(&paths.boot_facts()).ok().and_then(|facts| facts.site.returning);
        let metal = Metal::open(paths.clone());
        Self { metal, told, held: None, disks: None, receipts: None, due: None }
    }

    /// A pass is over: what is on the host besides.
    pub(super) fn drained(
        &mut self,
        tenants: &Tenants,
        pass: &Pass,
        accepted: Option<&Accepted>,
        generation: u64,
    ) {
        if pass.unseen.is_some() || tenants.ledger_problem().is_some() {
            self.held = None;
            return;
        }
        let desired = accepted.map(|accepted| model::desired(&accepted.spec)).unwrap_or_default();
        let there =
            pass.leases.iter().map(|lease| &lease.id).filter(|id| !desired.contains_key(id));
        let held = there.cloned().chain(tenants.granted()).collect();
        self.held = Some((generation, held));
    }
}

impl Node {
    /// One look at the host as a whole. Before each pass, so that it lets nobody in beside.
    pub(super) fn turn_whole(&mut self, now: Instant) {
        let disks: Vec<String> =
            self.state.inventory.disks.iter().map(|disk| disk_name(disk).to_owned()).collect();
        if self.hardware_known && self.whole.disks.as_ref().is_none_or(|(names, _)| *names != disks)
        {
            self.whole.disks = Some((disks, now));
        }
        let settled = |since: &Instant| now.saturating_duration_since(*since) >= DISKS_SETTLE;
        let disks = self.whole.disks.as_ref().is_some_and(|(_, since)| settled(since));
        let hardware = disks && !self.state.hardware_hangs;
        let generation = self.state.generation();
        let looked = self.whole.held.as_ref().filter(|(of, _)| *of == generation);
        let idle = matches!(self.state.domain, Domain::Open);
        let quarantined: Vec<String> =
            self.state.pass.quarantine.iter().map(|kept| kept.resource.to_string()).collect();
        let seen = Seen {
            spec: self.state.accepted.as_ref().map(|accepted| &accepted.spec),
            told: self.whole.told.as_ref(),
            held: looked.filter(|_| idle).map(|(_, held)| held),
            quarantined: &quarantined,
            inventory: hardware.then_some(&self.state.inventory),
            linked: self.state.link == Link::Up,
        };
        let time = Timestamp::now();
        let Turn { ask, job, view, retry } = self.whole.metal.turn(&seen, time);
        self.state.whole = view;
        let wait = retry.map(|retry| Duration::try_from(retry.duration_since(time)));
        self.whole.due = wait.map(|wait| now + wait.unwrap_or_default());
        if let Some(lease) = ask
            && let Err(error) = self.ends.hand_overs.try_send(lease)
        {
            // It is asked again.
            warn!(error = %Chain(&error), "question for the site dropped");
        }
        if let Some(job) = job {
            self.run_whole(job);
        }
    }

    fn run_whole(&mut self, job: Job) {
        let paths = self.paths.clone();
        if matches!(job, Job::Reboot { .. }) {
            self.jobs.spawn(async move { Done::Whole(work::reboot(&paths).await) });
            return;
        }
        let Some(receipts) = self.whole.receipts.clone() else {
            let why = "receipts are out of reach".to_owned();
            self.whole.metal.ended(job.not_run(why), Timestamp::now());
            return;
        };
        let boot = self.state.boot;
        self.jobs.spawn_blocking(move || {
            let means = Means { paths: &paths, receipts: &receipts, boot };
            Done::Whole(job.sanitise(means))
        });
    }
}
