//! `host status`, `host events`, `host prove`: what the supervisor of this very host says.

use std::path::Path;

use bulkhead_api::statement::SignedStatement;
use bulkhead_api::status::HostStatus;
use bulkhead_api::time::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::VerbError;
use super::get::pretty;
use crate::args::{Format, HostVerb};
use crate::console::Console;
use crate::local;
use crate::view::host::page;
use crate::view::isolation;
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
    let statement = signed.unchecked().map_err(VerbError::Statement)?;
    let text = match format {
        Format::Table | Format::Wide => isolation::page(&statement, console.now()),
        Format::Json => pretty(&signed, path)? + "\n",
        Format::Yaml => serde_saphyr::to_string(&signed).map_err(|source| VerbError::Show {
            what: path.to_owned(),
            source: Box::new(source),
        })?,
    };
    console.print(format_args!("{text}"))?;
    match statement.finding.violations.len() {
        0 => Ok(()),
        violations => Err(VerbError::NotIsolated { violations }),
    }
}

fn show<T: DeserializeOwned + Serialize>(
    socket: &Path,
    path: &str,
    format: Format,
    console: &mut Console,
    text: fn(&T, &Console) -> String,
) -> Result<(), VerbError> {
    let value: T = local::ask(socket, path)?;
    let text = match format {
        Format::Table | Format::Wide => text(&value, console),
        Format::Json => pretty(&value, path)? + "\n",
        Format::Yaml => serde_saphyr::to_string(&value).map_err(|source| VerbError::Show {
            what: path.to_owned(),
            source: Box::new(source),
        })?,
    };
    Ok(console.print(format_args!("{text}"))?)
}

fn table(events: &[Event], now: Timestamp) -> Table {
    let rows = events.iter().map(|event| {
        vec![age(now, event.at), event.what.clone(), event.object.clone(), event.detail.clone()]
    });
    Table { header: vec!["AGE", "WHAT", "OBJECT", "DETAIL"], rows: rows.collect() }
}
