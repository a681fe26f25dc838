//! What this host's own people ask of the leases ([`crate::node::ask`]).

use std::error::Error;
use std::time::Duration;

use bulkhead_api::chain::Chain;
use bulkhead_api::inventory::Inventory;
use bulkhead_api::local::{ReceiptsRepair, Repair, Retry};
use bulkhead_api::resource::{Quarantined, Resource};
use bulkhead_api::time::Timestamp;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::warn;

use crate::files::read_if_there;
use crate::ledger::{self, LedgerError};
use crate::node::ask::Declined;
use crate::receipts::repair::RepairError;
use crate::tenant::beside::aside;
use crate::tenant::converge::LeaseHost as _;
use crate::tenant::{Tenants, repair};

/// A look at what the host holds takes this long at most.
const LOOK: Duration = Duration::from_secs(60);

impl Tenants {
    /// Makes a new ledger in place of a damaged one; without `apply`, only says what it would be.
    ///
    /// # Errors
    /// [`Declined`]; the old ledger is then where it was.
    pub async fn repair_ledger(
        &mut self,
        apply: bool,
        inventory: &Inventory,
        now: Timestamp,
    ) -> Result<Repair, Declined> {
        let failed = |error: &(dyn Error + 'static)| Declined::Failed(Chain(error).to_string());
        let problem = match &self.problem {
            None => return Err(Declined::LedgerWhole),
            // A later version is a changed digit too, and no image reads it then: who asks decides.
            Some(unusable @ (LedgerError::Damaged { .. } | LedgerError::TooNew { .. })) => {
                unusable.to_string()
            }
            // A disk that answers again has it all.
            Some(other) => return Err(Declined::NotNow(Chain(other).to_string())),
        };
        let path = self.machine.paths.ledger();
        let damaged = read_if_there(&path).map_err(|e| failed(&e))?.unwrap_or_default();
        let observed = self.machine.observe().await.map_err(|e| failed(&e))?;
        let classes = self.machine.classes.clone();
        let resources = aside("look", None, move || repair::resources(&classes));
        let resources = timeout(LOOK, resources.map_err(|e| failed(&e))?).await;
        let hangs = |_| Declined::NotNow("a device does not answer: ask again".to_owned());
        let resources =
            resources.map_err(hangs)?.map_err(|e| failed(&e))?.map_err(|e| failed(&e))?;
        let found = repair::look(&observed, resources).map_err(|e| failed(&e))?;
        let ledger = repair::rebuild(&found, inventory, &damaged, now);
        let mut done =
            Repair { applied: false, problem, kept: None, ledger: repair::shown(&ledger) };
        if apply {
            done.kept = Some(repair::keep(&path).map_err(|e| failed(&e))?);
            ledger::store(&path, &ledger).map_err(|e| failed(&e))?;
            warn!(leases = ledger.entries.len(), "ledger was made anew: leases are taken back");
            (self.machine.ledger, self.problem) = (ledger, None);
            done.applied = true;
        }
        Ok(done)
    }

    /// Puts a damaged chain of receipts aside; without `apply`, only says what is wrong with it.
    ///
    /// # Errors
    /// [`Declined`]; the chain is then where it was.
    pub async fn repair_receipts(&self, apply: bool) -> Result<ReceiptsRepair, Declined> {
        let receipts = self.receipts();
        match spawn_blocking(move || receipts.repair(apply)).await {
            Ok(Ok(done)) => {
                if done.applied {
                    warn!(problem = done.problem, "receipts are put aside: a new chain begins");
                }
                Ok(done)
            }
            Ok(Err(RepairError::Whole)) => Err(Declined::ReceiptsWhole),
            Ok(Err(error @ RepairError::Unread(_))) => {
                Err(Declined::NotNow(Chain(&error).to_string()))
            }
            Ok(Err(error @ RepairError::Keep { .. })) => {
                Err(Declined::Failed(Chain(&error).to_string()))
            }
            Err(error) => Err(Declined::Failed(Chain(&error).to_string())),
        }
    }

    /// Has what is in quarantine erased again by the next pass: that resource, or all.
    ///
    /// # Errors
    /// [`Declined::NotInQuarantine`], and [`Declined::NotNow`] while the ledger cannot be used.
    pub fn erase_again(&mut self, resource: Option<&Resource>) -> Result<Retry, Declined> {
        if let Some(problem) = &self.problem {
            return Err(Declined::NotNow(Chain(problem).to_string()));
        }
        let kept = self.machine.ledger.quarantine.iter();
        let again: Vec<Quarantined> = kept
            .filter(|kept| resource.is_none_or(|only| kept.resource == *only))
            .cloned()
            .collect();
        if let (Some(resource), []) = (resource, again.as_slice()) {
            return Err(Declined::NotInQuarantine(resource.clone()));
        }
        self.machine.again.clone_from(&again);
        Ok(Retry { again })
    }
}
