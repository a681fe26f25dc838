//! `host ledger`, `host quarantine` and `host receipts repair`: who holds what on a host, what nobody gets, and
//! what to do where that is damaged.

use bulkhead_api::local::{ReceiptsRepair, Repair, RepairOrder, Retry, RetryOrder};
use bulkhead_api::resource::Quarantined;
use bulkhead_api::status::HostStatus;

use super::error::VerbError;
use super::host::shown;
use super::supervisor::Supervisor;
use crate::args::Format;
use crate::console::Console;
use crate::view::ledger as view;

/// Shows what is in quarantine.
pub(super) fn quarantine(
    supervisor: &Supervisor<'_>,
    format: Format,
    console: &mut Console,
) -> Result<(), VerbError> {
    let kept = kept(supervisor)?;
    if kept.is_empty() && matches!(format, Format::Table | Format::Wide) {
        console.complain(format_args!("nothing is in quarantine\n"));
        return Ok(());
    }
    let text = || view::quarantine(&kept, console.now()).render(console.colour_out);
    let text = shown(&kept, "the quarantine", format, text)?;
    Ok(console.print(format_args!("{text}"))?)
}

/// Has what is in quarantine erased again.
pub(super) fn retry(
    supervisor: &Supervisor<'_>,
    resource: Option<&str>,
    console: &mut Console,
) -> Result<(), VerbError> {
    let resource = match resource {
        Some(text) => Some(one(&kept(supervisor)?, text)?.resource.clone()),
        None => None,
    };
    let Retry { again } = supervisor.order("/v1/quarantine/retry", &RetryOrder { resource })?;
    if again.is_empty() {
        console.complain(format_args!("nothing is in quarantine\n"));
    }
    for kept in again {
        console.print(format_args!("{} is erased again in the next pass\n", kept.resource))?;
    }
    Ok(())
}

/// Makes a new ledger, or shows what it would be.
pub(super) fn repair(
    supervisor: &Supervisor<'_>,
    yes: bool,
    console: &mut Console,
) -> Result<(), VerbError> {
    let order = RepairOrder { apply: yes };
    let done: Repair = supervisor.order("/v1/ledger/repair", &order)?;
    let text = view::repair(&done, console.now());
    console.print(format_args!("{text}"))?;
    if done.applied {
        Ok(())
    } else {
        Err(VerbError::OnlyShown { command: "bulkhead host ledger repair" })
    }
}

/// Puts a damaged chain of receipts aside, or shows what is wrong with it.
pub(super) fn repair_receipts(
    supervisor: &Supervisor<'_>,
    yes: bool,
    console: &mut Console,
) -> Result<(), VerbError> {
    let order = RepairOrder { apply: yes };
    let done: ReceiptsRepair = supervisor.order("/v1/receipts/repair", &order)?;
    console.print(format_args!("{}", view::receipts(&done)))?;
    if done.applied {
        Ok(())
    } else {
        Err(VerbError::OnlyShown { command: "bulkhead host receipts repair" })
    }
}

fn kept(supervisor: &Supervisor<'_>) -> Result<Vec<Quarantined>, VerbError> {
    let status: HostStatus = supervisor.ask("/v1/host")?;
    Ok(status.quarantine)
}

/// The one resource that a text means: all of its name, or a part that no other has.
fn one<'a>(all: &'a [Quarantined], text: &str) -> Result<&'a Quarantined, VerbError> {
    let name = |kept: &Quarantined| kept.resource.to_string();
    if let Some(exact) = all.iter().find(|kept| name(kept) == text) {
        return Ok(exact);
    }
    let found: Vec<&Quarantined> = all.iter().filter(|kept| name(kept).contains(text)).collect();
    match found.as_slice() {
        [only] => Ok(only),
        several => {
            let known = several.iter().map(|kept| name(kept)).collect();
            Err(VerbError::NotOne { found: text.to_owned(), known })
        }
    }
}
