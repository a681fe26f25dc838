//! Which steps make a card what it should be: everything is taken back before anything is given.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bulkhead_api::id::{LeaseId, MacAddr};

use super::model::{Binding, DesiredPf, Driver, Grant, Held, Pf, Settings, SwitchMode, Vf};

/// One change of a card. Doing it again changes nothing more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Writes the number of VFs: 0, or from 0.
    Count(u32),
    /// Sets the mode of the switch.
    Mode(SwitchMode),
    /// Takes a VF's driver away.
    Unbind(u32),
    /// Sets everything of a VF, and looks at everything.
    Set(u32, Settings),
    /// Gives a VF a driver.
    Bind(u32, Binding),
    /// The ledger may strike the holder out: the VF is at its baseline.
    Released(u32, LeaseId),
    /// The ledger's holder has it.
    Acquired(u32, LeaseId),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "set the number of VFs to {count}"),
            Self::Mode(mode) => write!(f, "set the switch to {mode}"),
            Self::Unbind(vf) => write!(f, "unbind VF {vf}"),
            Self::Set(vf, settings) => write!(f, "set VF {vf} to VLAN {}", settings.vlan),
            Self::Bind(vf, Binding::Link) => write!(f, "bind VF {vf} to its own driver"),
            Self::Bind(vf, Binding::Vfio) => write!(f, "bind VF {vf} to vfio-pci"),
            Self::Released(vf, lease) => write!(f, "VF {vf} is taken back from {lease}"),
            Self::Acquired(vf, lease) => write!(f, "VF {vf} is {lease}'s"),
        }
    }
}

/// A step with the grant that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dated {
    /// The step.
    pub step: Step,
    /// VF and generation of the ledger's entry; absent of steps of the whole card. Where the entry is another by
    /// now, the step is not done.
    pub of: Option<(u32, u64)>,
}

/// What cannot be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Leases hold VFs of a card whose number of VFs, or switch, is to change.
    Held {
        /// What is to change.
        what: String,
        /// Each VF with its lease.
        by: Vec<(u32, LeaseId)>,
    },
    /// The card has fewer.
    TooMany {
        /// Wanted.
        count: u32,
        /// Most that its firmware has.
        most: u32,
    },
    /// There is no such VF.
    NoSuchVf(u32),
    /// It could not be shown to be clean.
    Quarantined(u32),
    /// The driver cannot.
    NotSupported {
        /// What.
        what: String,
        /// The driver.
        driver: Driver,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { what, by } => {
                write!(f, "{what}: held are")?;
                for (at, (vf, lease)) in by.iter().enumerate() {
                    write!(f, "{} VF {vf} by {lease}", if at == 0 { "" } else { "," })?;
                }
                Ok(())
            }
            Self::TooMany { count, most } => write!(f, "{count} VFs: the card has at most {most}"),
            Self::NoSuchVf(vf) => write!(f, "VF {vf}: the card has none of that number"),
            Self::Quarantined(vf) => write!(f, "VF {vf}: it could not be shown to be clean"),
            Self::NotSupported { what, driver } => write!(f, "{what}: not supported by {driver}"),
        }
    }
}

/// What is to be done with one card, and what cannot be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order.
    pub steps: Vec<Dated>,
    /// Each with the reason.
    pub refused: Vec<Refusal>,
}

/// The steps that make `now` what `desired` says. `held` is the ledger, in which a new grant stands already;
/// `given` are VFs whose grant of that generation is done. `mac` makes a new address for a VF.
#[must_use]
pub fn plan(
    desired: &DesiredPf,
    now: &Pf,
    held: &BTreeMap<u32, Held>,
    given: &BTreeMap<u32, u64>,
    quarantined: &BTreeSet<u32>,
    mac: &dyn Fn(u32) -> MacAddr,
) -> Plan {
    let mut plan = Plan::default();
    let baseline = |vf: u32| Settings::baseline(&now.driver, mac(vf), desired.parking);
    for (vf, holder) in held {
        let wanted = desired.grants.get(vf).is_some_and(|grant| is_of(grant, holder));
        if wanted || quarantined.contains(vf) {
            continue;
        }
        let of = Some((*vf, holder.generation));
        if now.vfs.contains_key(vf) {
            for step in [Step::Unbind(*vf), Step::Set(*vf, baseline(*vf))] {
                plan.steps.push(Dated { step, of });
            }
        }
        // A VF that is gone has no settings left: the card was reset.
        let step = Step::Released(*vf, holder.lease.clone());
        plan.steps.push(Dated { step, of });
    }
    let counted = shape(desired, now, held, &mut plan);
    for (vf, grant) in &desired.grants {
        if quarantined.contains(vf) {
            plan.refused.push(Refusal::Quarantined(*vf));
        } else if *vf >= counted {
            plan.refused.push(Refusal::NoSuchVf(*vf));
        } else if grant.min_mbps > 0 && !now.driver.keeps_rates() {
            let (what, driver) = (format!("a least rate of VF {vf}"), now.driver.clone());
            plan.refused.push(Refusal::NotSupported { what, driver });
        } else if held.get(vf).is_some_and(|holder| is_of(grant, holder)) {
            give(*vf, grant, now, given, baseline(*vf), &mut plan);
        }
    }
    plan
}

fn is_of(grant: &Grant, holder: &Held) -> bool {
    grant.lease == holder.lease && grant.generation == holder.generation
}

/// Number of VFs and mode of the switch; how many VFs there will be.
fn shape(desired: &DesiredPf, now: &Pf, held: &BTreeMap<u32, Held>, plan: &mut Plan) -> u32 {
    let count = u32::try_from(now.vfs.len()).unwrap_or(u32::MAX);
    let mode = now.mode.unwrap_or_default();
    let recount = count != desired.count;
    let remode = mode != desired.mode;
    if !recount && !remode {
        return count;
    }
    if desired.count > now.most {
        plan.refused.push(Refusal::TooMany { count: desired.count, most: now.most });
        return count;
    }
    if remode && !now.driver.has_switch_modes() {
        let (what, driver) = (format!("switch mode {}", desired.mode), now.driver.clone());
        plan.refused.push(Refusal::NotSupported { what, driver });
        return count;
    }
    // Who gave the VF back in this pass has it until the ledger says otherwise. What is not there nobody has.
    let holders = held.iter().filter(|(vf, _)| now.vfs.contains_key(vf));
    let by: Vec<_> = holders.map(|(vf, held)| (*vf, held.lease.clone())).collect();
    if !by.is_empty() {
        let what =
            format!("{count} VFs in mode {mode} to be {} in mode {}", desired.count, desired.mode);
        plan.refused.push(Refusal::Held { what, by });
        return count;
    }
    let mut steps = Vec::new();
    let vfs = 0..desired.count;
    if now.driver.mode_with_vfs() {
        // The way back to legacy is with VFs unbound; the way to switchdev too.
        if remode && desired.mode == SwitchMode::Legacy {
            steps.extend(now.vfs.keys().map(|vf| Step::Unbind(*vf)));
            steps.push(Step::Mode(SwitchMode::Legacy));
        }
        if recount {
            steps.extend((count != 0).then_some(Step::Count(0)));
            steps.extend((desired.count != 0).then_some(Step::Count(desired.count)));
        }
        if remode && desired.mode == SwitchMode::Switchdev {
            steps.extend(vfs.map(Step::Unbind));
            steps.push(Step::Mode(SwitchMode::Switchdev));
        }
    } else {
        steps.extend((count != 0).then_some(Step::Count(0)));
        steps.extend(remode.then_some(Step::Mode(desired.mode)));
        steps.extend((desired.count != 0).then_some(Step::Count(desired.count)));
    }
    plan.steps.extend(steps.into_iter().map(|step| Dated { step, of: None }));
    desired.count
}

fn give(
    vf: u32,
    grant: &Grant,
    now: &Pf,
    given: &BTreeMap<u32, u64>,
    baseline: Settings,
    plan: &mut Plan,
) {
    let of = Some((vf, grant.generation));
    let on = grant.settings(&now.driver, true);
    let seen = now.vfs.get(&vf);
    if given.get(&vf) == Some(&grant.generation) {
        // In use: only what somebody changed behind us is set right, and its driver is the holder's affair.
        if seen.is_some_and(|seen| on.difference(&seen.settings).is_some()) {
            plan.steps.push(Dated { step: Step::Set(vf, on), of });
        }
        return;
    }
    let bound = |seen: &Vf| seen.driver.is_some();
    let mut steps = Vec::new();
    if seen.is_none_or(bound) {
        steps.push(Step::Unbind(vf));
    }
    steps.push(Step::Set(vf, baseline));
    steps.push(Step::Set(vf, grant.settings(&now.driver, false)));
    steps.push(Step::Bind(vf, grant.binding));
    if now.driver.disables_links() {
        steps.push(Step::Set(vf, on));
    }
    steps.push(Step::Acquired(vf, grant.lease.clone()));
    plan.steps.extend(steps.into_iter().map(|step| Dated { step, of }));
}
