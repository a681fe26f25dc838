//! `host status`, `host events`, `host prove`, `host receipts`, and what leads to `ledger`: what the supervisor
//! of this very host says.

use std::path::Path;

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
use crate::args::{Format, HostVerb, LedgerVerb, QuarantineVerb, ReceiptsVerb};
use crate::console::Console;
use crate::local;
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

pub(super) fn host(verb: &HostVerb, console: &mut Console) -> Result<(), VerbError> {
    match verb {
        HostVerb::Status { at, output } => {
            show::<HostStatus>(&at.socket, "/v1/host", *output, console, |status, console| {
                page(status, console.now())
            })
        }
        HostVerb::Prove { at, output, chain } => prove(&at.socket, *output, *chain, console),
        HostVerb::Receipts { verb: Some(ReceiptsVerb::Repair { yes }), at, .. } => {
            ledger::repair_receipts(&at.socket, *yes, console)
        }
        HostVerb::Receipts { verb: None, at, output, lease } => {
            receipts(&at.socket, *output, lease.as_deref(), console)
        }
        HostVerb::Quarantine { verb: Some(QuarantineVerb::Retry { resource }), at, .. } => {
            ledger::retry(&at.socket, resource.as_deref(), console)
        }
        HostVerb::Quarantine { verb: None, at, output } => {
            ledger::quarantine(&at.socket, *output, console)
        }
        HostVerb::Ledger { verb: Some(LedgerVerb::Repair { yes }), at, .. } => {
            ledger::repair(&at.socket, *yes, console)
        }
        HostVerb::Ledger { verb: None, at, output } => {
            show::<Ledger>(&at.socket, "/v1/ledger", *output, console, |held, console| {
                view::page(held, console.now())
            })
        }
        HostVerb::Events { at, output } => {
            show::<Vec<Event>>(&at.socket, "/v1/events", *output, console, |events, console| {
                table(events, console.now()).render(console.colour_out)
            })
        }
    }
}

/// Fails where a violation is shown.
fn prove(
    socket: &Path,
    format: Format,
    chain: bool,
    console: &mut Console,
) -> Result<(), VerbError> {
    if chain {
        let path = "/v1/isolation/chain";
        return show::<Vec<SignedStatement>>(socket, path, Format::Json, console, |_, _| {
            String::new()
        });
    }
    let path = "/v1/isolation";
    let signed: SignedStatement = local::ask(socket, path)?;
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
    socket: &Path,
    format: Format,
    lease: Option<&str>,
    console: &mut Console,
) -> Result<(), VerbError> {
    let path = match lease {
        Some(lease) => {
            let (tenant, name) = lease.split_once('/').unwrap_or(("", lease));
            let id = LeaseId { tenant: tenant.parse()?, name: name.parse()? };
            format!("/v1/receipts?lease={id}")
        }
        None => "/v1/receipts".to_owned(),
    };
    let signed: Vec<SignedReceipt> = local::ask(socket, &path)?;
    let read: Result<Vec<Receipt>, Refusal> = signed.iter().map(SignedReceipt::unchecked).collect();
    let receipts = read.map_err(VerbError::Told)?;
    let text = || receipt::table(&receipts, console.now()).render(console.colour_out);
    let text = shown(&signed, &path, format, text)?;
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
    socket: &Path,
    path: &str,
    format: Format,
    console: &mut Console,
    text: fn(&T, &Console) -> String,
) -> Result<(), VerbError> {
    let value: T = local::ask(socket, path)?;
    let text = shown(&value, path, format, || text(&value, console))?;
    Ok(console.print(format_args!("{text}"))?)
}

fn table(events: &[Event], now: Timestamp) -> Table {
    let rows = events.iter().map(|event| {
        vec![age(now, event.at), event.what.clone(), event.object.clone(), event.detail.clone()]
    });
    Table { header: vec!["AGE", "WHAT", "OBJECT", "DETAIL"], rows: rows.collect() }
}
