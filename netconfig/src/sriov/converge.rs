//! Doing a plan, with a look behind each setting.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_api::id::LeaseId;
use tracing::{info, warn};

use super::model::{Binding, Pf, Settings, SwitchMode, Vf};
use super::plan::{Dated, Plan, Step};

/// What a pass needs of a card. Doing a done thing succeeds.
pub trait VfHost {
    /// Its error.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The card as it is.
    ///
    /// # Errors
    /// It cannot be read.
    fn observe(&mut self) -> Result<Pf, Self::Error>;

    /// One VF as it is.
    ///
    /// # Errors
    /// It cannot be read, or is not there.
    fn observe_vf(&mut self, vf: u32) -> Result<Vf, Self::Error>;

    /// Writes the number of VFs, and waits until they are there.
    ///
    /// # Errors
    /// The driver refuses, or does not come back in time.
    fn set_count(&mut self, count: u32) -> Result<(), Self::Error>;

    /// Sets the mode of the switch.
    ///
    /// # Errors
    /// The driver refuses.
    fn set_mode(&mut self, mode: SwitchMode) -> Result<(), Self::Error>;

    /// Takes the driver of a VF away, and what would give it one again.
    ///
    /// # Errors
    /// The kernel refuses.
    fn unbind(&mut self, vf: u32) -> Result<(), Self::Error>;

    /// Gives a VF a driver.
    ///
    /// # Errors
    /// The kernel refuses, or no driver takes it.
    fn bind(&mut self, vf: u32, to: Binding) -> Result<(), Self::Error>;

    /// Sets everything of a VF.
    ///
    /// # Errors
    /// The driver refuses.
    fn set(&mut self, vf: u32, settings: &Settings) -> Result<(), Self::Error>;
}

/// What came of a plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// VFs at their baseline, with the lease to be struck out.
    pub released: Vec<(u32, LeaseId)>,
    /// VFs that their lease has.
    pub acquired: Vec<(u32, LeaseId)>,
    /// VFs that could not be shown to be as they should, each with a sentence: nobody gets them.
    pub quarantined: BTreeMap<u32, String>,
    /// Steps left out as their grant is another by now.
    pub stale: usize,
    /// Why the card as a whole was left as it is; absent = it was not.
    pub card: Option<String>,
}

/// Does a plan. `current` is the ledger's generation of a VF at this moment. What fails of one VF keeps that VF
/// back, and the others go on; what fails of the card ends the pass.
pub fn converge<H: VfHost>(
    host: &mut H,
    plan: &Plan,
    mut current: impl FnMut(u32) -> Option<u64>,
) -> Outcome {
    let mut outcome = Outcome::default();
    let mut left_out: BTreeSet<(u32, u64)> = BTreeSet::new();
    for Dated { step, of } in &plan.steps {
        let Some((vf, generation)) = *of else {
            if let Err(error) = card(host, step) {
                warn!(%step, error = %error, "card left as it is");
                outcome.card = Some(format!("{step}: {error}"));
                return outcome;
            }
            continue;
        };
        if outcome.quarantined.contains_key(&vf) || left_out.contains(&(vf, generation)) {
            continue;
        }
        if current(vf) != Some(generation) {
            outcome.stale += 1;
            left_out.insert((vf, generation));
            continue;
        }
        match one(host, step, &mut outcome) {
            Ok(()) => info!(%step, generation, "VF step done"),
            Err(reason) => {
                warn!(%step, generation, %reason, "VF kept back");
                outcome.quarantined.insert(vf, format!("{step}: {reason}"));
            }
        }
    }
    outcome
}

fn card<H: VfHost>(host: &mut H, step: &Step) -> Result<(), H::Error> {
    match step {
        Step::Count(count) => host.set_count(*count),
        Step::Mode(mode) => host.set_mode(*mode),
        Step::Unbind(vf) => host.unbind(*vf),
        Step::Set(vf, settings) => host.set(*vf, settings),
        Step::Bind(vf, to) => host.bind(*vf, *to),
        Step::Released(..) | Step::Acquired(..) => Ok(()),
    }
}

fn one<H: VfHost>(host: &mut H, step: &Step, outcome: &mut Outcome) -> Result<(), String> {
    card(host, step).map_err(|error| error.to_string())?;
    let mut look = |vf: u32| host.observe_vf(vf).map_err(|error| format!("look: {error}"));
    match step {
        Step::Set(vf, settings) => match settings.difference(&look(*vf)?.settings) {
            None => Ok(()),
            Some(difference) => Err(difference),
        },
        Step::Unbind(vf) => match look(*vf)?.driver {
            None => Ok(()),
            Some(driver) => Err(format!("it still has driver {driver}")),
        },
        Step::Bind(vf, to) => match (look(*vf)?.driver.as_deref(), to) {
            (Some("vfio-pci"), Binding::Vfio) => Ok(()),
            (Some(driver), Binding::Link) if driver != "vfio-pci" => Ok(()),
            (driver, _) => Err(format!("it has driver {}", driver.unwrap_or("none"))),
        },
        Step::Released(vf, lease) => {
            outcome.released.push((*vf, lease.clone()));
            Ok(())
        }
        Step::Acquired(vf, lease) => {
            outcome.acquired.push((*vf, lease.clone()));
            Ok(())
        }
        Step::Count(_) | Step::Mode(_) => Ok(()),
    }
}
