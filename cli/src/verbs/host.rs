//! `host status`, `host events`, `host prove`, `host receipts`, and what leads to `ledger`: what the supervisor
//! of a host says: of this very one, or of another by way of the registry.

use bulkhead_api::id::LeaseId;
use bulkhead_api::local::Ledger;
use bulkhead_api::receipt::{Receipt, SignedReceipt};
use bulkhead_api::signed::Refusal;
use bulkhead_api::statement::SignedStatement;
use bulkhead_api::status::HostStatus;
use bulkhead_api::time::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::VerbError;
use super::get::pretty;
use super::ledger;
use super::supervisor::Supervisor;
use crate::args::{Format, HostVerb, LedgerVerb, QuarantineVerb, ReceiptsVerb};
use crate::console::Console;
use crate::rest::Registry;
use crate::view::host::page;
use crate::view::isolation;
use crate::view::ledger as view;
use crate::view::receipt;
use crate::view::table::Table;
use crate::view::text::age;

/// One thing that happened on a host.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    seq: u64,
    at: Timestamp,
    what: String,
    object: String,
    detail: String,
}

pub(super) fn host(
    verb: &HostVerb,
    registry: impl Fn() -> Result<Registry, VerbError>,
    console: &mut Console,
) -> Result<(), VerbError> {
    let of = |at| Supervisor::of(at, &registry);
    match verb {
        HostVerb::Status { at, output } => {
            show::<HostStatus>(&of(at)?, "/v1/host", *output, console, |status, console| {
                page(status, console.now())
            })
        }
        HostVerb::Prove { at, output, chain } => prove(&of(at)?, *output, *chain, console),
        HostVerb::Receipts { verb: Some(ReceiptsVerb::Repair { yes }), at, .. } => {
            ledger::repair_receipts(&of(at)?, *yes, console)
        }
        HostVerb::Receipts { verb: None, at, output, lease } => {
            receipts(&of(at)?, *output, lease.as_deref(), console)
        }
        HostVerb::Quarantine { verb: Some(QuarantineVerb::Retry { resource }), at, .. } => {
            ledger::retry(&of(at)?, resource.as_deref(), console)
        }
        HostVerb::Quarantine { verb: None, at, output } => {
            ledger::quarantine(&of(at)?, *output, console)
        }
        HostVerb::Ledger { verb: Some(LedgerVerb::Repair { yes }), at, .. } => {
            ledger::repair(&of(at)?, *yes, console)
        }
        HostVerb::Ledger { verb: None, at, output } => {
            show::<Ledger>(&of(at)?, "/v1/ledger", *output, console, |held, console| {
                view::page(held, console.now())
            })
        }
        HostVerb::Events { at, output } => {
            show::<Vec<Event>>(&of(at)?, "/v1/events", *output, console, |events, console| {
                table(events, console.now()).render(console.colour_out)
            })
        }
    }
}

/// Fails where a violation is shown.
fn prove(
    supervisor: &Supervisor<'_>,
    format: Format,
    chain: bool,
    console: &mut Console,
) -> Result<(), VerbError> {
    if chain {
        let path = "/v1/isolation/chain";
        return show::<Vec<SignedStatement>>(supervisor, path, Format::Json, console, |_, _| {
            String::new()
        });
    }
    let path = "/v1/isolation";
    let signed: SignedStatement = supervisor.ask(path)?;
    let statement = signed.unchecked().map_err(VerbError::Told)?;
    let text = || isolation::page(&statement, console.now());
    let text = shown(&signed, path, format, text)?;
    console.print(format_args!("{text}"))?;
    match statement.finding.violations.len() {
        0 => Ok(()),
        violations => Err(VerbError::NotIsolated { violations }),
    }
}

fn receipts(
    supervisor: &Supervisor<'_>,
    format: Format,
    lease: Option<&str>,
    console: &mut Console,
) -> Result<(), VerbError> {
    let lease = match lease {
        Some(lease) => {
            let (tenant, name) = lease.split_once('/').unwrap_or(("", lease));
            Some(LeaseId { tenant: tenant.parse()?, name: name.parse()? })
        }
        None => None,
    };
    let signed = supervisor.receipts(lease.as_ref())?;
    let read: Result<Vec<Receipt>, Refusal> = signed.iter().map(SignedReceipt::unchecked).collect();
    let receipts = read.map_err(VerbError::Told)?;
    let text = || receipt::table(&receipts, console.now()).render(console.colour_out);
    let text = shown(&signed, "the receipts", format, text)?;
    Ok(console.print(format_args!("{text}"))?)
}

/// A value in the form that was asked for; `text` is that for people.
pub(super) fn shown<T: Serialize>(
    value: &T,
    path: &str,
    format: Format,
    text: impl FnOnce() -> String,
) -> Result<String, VerbError> {
    Ok(match format {
        Format::Table | Format::Wide => text(),
        Format::Json => pretty(value, path)? + "\n",
        Format::Yaml => serde_saphyr::to_string(value).map_err(|source| VerbError::Show {
            what: path.to_owned(),
            source: Box::new(source),
        })?,
    })
}

fn show<T: DeserializeOwned + Serialize>(
    supervisor: &Supervisor<'_>,
    path: &str,
    format: Format,
    console: &mut Console,
    text: fn(&T, &Console) -> String,
) -> Result<(), VerbError> {
    let value: T = supervisor.ask(path)?;
    let text = shown(&value, path, format, || text(&value, console))?;
    Ok(console.print(format_args!("{text}"))?)
}

fn table(events: &[Event], now: Timestamp) -> Table {
    let rows = events.iter().map(|event| {
        vec![age(now, event.at), event.what.clone(), event.object.clone(), event.detail.clone()]
    });
    Table { header: vec!["AGE", "WHAT", "OBJECT", "DETAIL"], rows: rows.collect() }
}
