//! `bulkhead explain lease` and the like: what is not as it should be, whose turn it is, and the way out.

use std::fmt::Write as _;

use bulkhead_api::condition::{Condition, Truth};
use bulkhead_api::document::{Host, HostPhase, Lease, Site};
use bulkhead_api::fit::Fit;
use bulkhead_api::lease::LeasePhase;
use bulkhead_api::resource::Quarantined;
use bulkhead_api::time::Timestamp;

use super::text::age;
use crate::console::visible;
use crate::way_out::way_out;

/// One thing that is not as it should be. Times are absolute, so that two looks at the same are equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// `lease demo/hello`, `host lab-01-000001`, `site lab-01`.
    pub of: String,
    /// `Granted is False: Shortage`.
    pub what: String,
    /// What it waits for, a sentence; may be empty.
    pub waits: String,
    /// Whose turn it is.
    pub owner: String,
    /// Since when; absent where nobody noted it.
    pub since: Option<Timestamp>,
    /// When it is tried again; absent where nothing is tried by itself.
    pub next: Option<Timestamp>,
    /// What to do.
    pub way: String,
}

impl Trouble {
    fn of_condition(of: &str, condition: &Condition) -> Self {
        let Condition { kind, status, reason, message, owner, since, next_retry } = condition;
        Self {
            of: of.to_owned(),
            what: format!("{kind} is {status:?}: {reason}"),
            waits: message.clone(),
            owner: owner.clone(),
            since: Some(*since),
            next: *next_retry,
            way: way_out(reason).to_owned(),
        }
    }

    fn of_quarantine(of: &str, kept: &Quarantined) -> Self {
        Self {
            of: of.to_owned(),
            what: format!("{} is in quarantine", kept.resource),
            waits: format!("{}; lease {} had it last", kept.reason, kept.lease),
            owner: "operator".to_owned(),
            since: Some(kept.since),
            next: None,
            way: way_out("Quarantine").to_owned(),
        }
    }
}

/// Why an object is as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// One line: what it is and how it stands.
    pub title: String,
    /// What is not as it should be; empty where all is.
    pub troubles: Vec<Trouble>,
}

/// Conditions that do not hold.
fn troubles<'a>(
    of: &'a str,
    conditions: &'a [Condition],
) -> impl Iterator<Item = Trouble> + use<'a> {
    let bad = conditions.iter().filter(|condition| condition.status != Truth::True);
    bad.map(move |condition| Trouble::of_condition(of, condition))
}

/// Of a lease, with its host and the host's site, as far as they are known.
///
/// A lease that runs as wanted has no troubles, whatever its host has: those are told where the host is asked for.
#[must_use]
pub fn lease(lease: &Lease, host: Option<&Host>, site: Option<&Site>) -> Explanation {
    let name = format!("lease {}/{}", lease.metadata.tenant, lease.metadata.name);
    let status = lease.status.clone().unwrap_or_default();
    let place = status.host.as_ref().map(|host| format!(" on host {host}")).unwrap_or_default();
    let mut own: Vec<Trouble> = troubles(&name, &status.conditions).collect();
    if own.is_empty() && status.phase == LeasePhase::Running {
        return Explanation { title: format!("{name} runs as wanted{place}"), troubles: own };
    }
    let title = format!("{name} is {:?}{place}", status.phase);
    if let Some(host) = host {
        own.extend(of_host(host));
    }
    if let Some(site) = site {
        own.extend(of_site(site));
    }
    Explanation { title, troubles: own }
}

/// Of a host, with its site where that is known.
#[must_use]
pub fn host(host: &Host, site: Option<&Site>) -> Explanation {
    let name = &host.metadata.name;
    let mut troubles = of_host(host);
    if let Some(site) = site {
        troubles.extend(of_site(site));
    }
    let phase = host.status.phase;
    let title = if troubles.is_empty() && phase == HostPhase::Ready {
        format!("host {name} is ready, as it should be")
    } else {
        format!("host {name} is {phase:?}")
    };
    Explanation { title, troubles }
}

/// Of a site.
#[must_use]
pub fn site(site: &Site) -> Explanation {
    let (name, troubles) = (&site.metadata.name, of_site(site));
    let title = match (&site.status, troubles.is_empty()) {
        (Some(_), true) => format!("site {name} is connected, as it should be"),
        (Some(_), false) => format!("site {name} is not as it should be"),
        (None, _) => format!("nothing is known of site {name} yet"),
    };
    Explanation { title, troubles }
}

fn of_host(host: &Host) -> Vec<Trouble> {
    let (name, state) = (format!("host {}", host.metadata.name), &host.status);
    let reported = state.reported.as_deref();
    let mut all: Vec<Trouble> = troubles(&name, &state.conditions).collect();
    if state.phase == HostPhase::HandedOver {
        let handed = state.conditions.iter().filter(|c| c.kind == "HandedOver");
        let held = handed.filter(|c| c.status == Truth::True);
        all.extend(held.map(|condition| Trouble::of_condition(&name, condition)));
    }
    if let Some(status) = reported {
        all.extend(troubles(&name, &status.conditions));
        all.extend(status.quarantine.iter().map(|kept| Trouble::of_quarantine(&name, kept)));
    }
    if all.is_empty() && state.phase != HostPhase::Ready {
        let (reason, owner) = on_the_way(state.phase);
        all.push(Trouble {
            of: name,
            what: format!("Phase is {:?}", state.phase),
            waits: state.reason.clone(),
            owner: owner.to_owned(),
            since: state.last_seen,
            next: None,
            way: way_out(reason).to_owned(),
        });
    }
    all
}

/// The reason and the owner of a phase that no condition speaks of.
fn on_the_way(phase: HostPhase) -> (&'static str, &'static str) {
    match phase {
        HostPhase::Booting => ("Admitted", "supervisor"),
        HostPhase::Joining => ("NotYet", "supervisor"),
        HostPhase::Quarantined => ("Quarantined", "operator"),
        HostPhase::Refused => ("Refused", "operator"),
        HostPhase::Unreachable => ("Silent", "operator"),
        HostPhase::HandedOver => ("Given", "tenant"),
        HostPhase::Ready => ("Observed", "supervisor"),
    }
}

fn of_site(site: &Site) -> Vec<Trouble> {
    let name = format!("site {}", site.metadata.name);
    let conditions = site.status.as_ref().map(|status| status.conditions.as_slice());
    troubles(&name, conditions.unwrap_or_default()).collect()
}

/// The text: one line, and a block for each trouble.
#[must_use]
pub fn page(explanation: &Explanation, now: Timestamp) -> String {
    let mut out = format!("{}\n", explanation.title);
    for trouble in &explanation.troubles {
        let since =
            trouble.since.map_or_else(|| "not known".to_owned(), |at| age(now, at) + " ago");
        let next = match trouble.next {
            Some(at) if at <= now => "now".to_owned(),
            Some(at) => format!("in {}", age(at, now)),
            None => "none is planned; at the next change".to_owned(),
        };
        let waits = if trouble.waits.is_empty() { "nothing more is said" } else { &trouble.waits };
        writeln!(out, "\n{}: {}", visible(&trouble.of), visible(&trouble.what)).unwrap_or_default();
        for (name, value) in [
            ("Waits for", waits),
            ("Next to act", &trouble.owner),
            ("Since", &since),
            ("Next try", &next),
            ("Way out", &trouble.way),
        ] {
            let value: String =
                value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            writeln!(out, "  {:13}{value}", format!("{name}:")).unwrap_or_default();
        }
    }
    out
}

/// Where a lease would go, and what is short elsewhere.
#[must_use]
pub fn fit(name: &str, fit: &Fit) -> String {
    let mut out = String::new();
    if let Some(host) = &fit.placed {
        writeln!(out, "{name} is on host {host} already; this is for one more like it")
            .unwrap_or_default();
    }
    match (&fit.host, fit.hosts.len()) {
        (Some(host), _) => writeln!(out, "{name} would be placed on host {host}"),
        (None, 0) => writeln!(out, "{name} fits nowhere: no host has enrolled and reported yet"),
        (None, 1) => writeln!(out, "{name} does not fit the only host"),
        (None, hosts) => writeln!(out, "{name} fits none of the {hosts} hosts"),
    }
    .unwrap_or_default();
    for host in &fit.hosts {
        let short =
            if host.short.is_empty() { "has room".to_owned() } else { host.short.join("; ") };
        writeln!(out, "  {}: {}", host.host, visible(&short)).unwrap_or_default();
    }
    out
}
